//! Simulated power cuts: the server runs on a file system image; at a cut the image as it is on its device is copied,
//! mounted elsewhere, and must hold everything acknowledged before.
//!
//! The first look is at the bare files, the second after a server has started on them and drained what was left of the
//! spool. Frames still in the spool are not promised over a power cut (no hook client waits for a disk); how many of
//! them were lost is told, not judged.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::image::{self, Disk};
use super::kill::drain;
use super::load::{Ledger, Load, Target, Writers, keys_in_spool};
use super::{Faults, Name, Row};
use crate::check::{Depth, Extra, Findings, check};
use crate::rng::Rng;
use crate::server::{self, Server};

const CUTS: (u64, u64, u64) = (2, 20, 100);
const CUTS_PER_ROUND: u64 = 10;
/// A cut falls this long after the last one.
const GAP_MS: (u64, u64) = (50, 600);
const WRITERS: Writers = Writers { native: 3, legacy: 1, frames: 1, hooks: 1 };

/// With which durability the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    Commit,
    Process,
}

impl Durability {
    const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Process => "process",
        }
    }
}

pub(super) fn run(faults: &Faults, row: &mut Row, durability: Durability) -> Result<()> {
    if let Some(why) = image::unavailable() {
        eprintln!("\n*** SKIPPED: no power cuts were simulated: {why} ***\n");
        row.skipped = Some(format!("SKIPPED: {why}"));
        return Ok(());
    }
    let cuts = faults.size.of(CUTS.0, CUTS.1, CUTS.2);
    let mut spooled = 0;
    while row.trials < cuts {
        let todo = CUTS_PER_ROUND.min(cuts - row.trials);
        spooled += round(faults, row, durability, todo)?;
        eprintln!(
            "{} cuts, {} acknowledged, {} lost, {} doubled, {} damaged, {} panics",
            row.trials, row.acknowledged, row.lost, row.doubled, row.broken, row.panics
        );
        faults.keep(row)?;
    }
    row.notes.push(format!(
        "durability `{}`; cuts {}-{} ms apart, {CUTS_PER_ROUND} per image; writers: {WRITERS:?}; {spooled} spooled frames \
         (not promised over a power cut) were gone",
        durability.name(),
        GAP_MS.0,
        GAP_MS.1
    ));
    Ok(())
}

fn round(faults: &Faults, row: &mut Row, durability: Durability, cuts: u64) -> Result<u64> {
    let first = row.trials;
    let kind = durability.name();
    let disk = Disk::new(&faults.scratch, &format!("cut-{kind}-{first}"))?;
    let dir = disk.data().join("home");
    std::fs::create_dir(&dir)?;
    let log = faults.scratch.path().join(format!("cut-{kind}-{first}.log"));
    let mut server = start(faults, durability, &dir, &log)?;
    server.wait_ready()?;
    let target = Target {
        addr: std::sync::RwLock::new(server.addr()),
        data_dir: dir.clone(),
        hook: faults.binaries.hook.clone(),
    };
    let mut load = Load::start(faults.seed.wrapping_add(1_000_000 + first), target, WRITERS);
    let (mut spooled, mut last) = (0, Seen::default());
    for n in 0..cuts {
        let trial = first + n;
        let gap = Rng::stream(faults.seed, 1_000_000 + trial).between(GAP_MS.0, GAP_MS.1);
        std::thread::sleep(Duration::from_millis(gap));
        let name = format!("copy-{kind}-{trial}");
        let (copy, promises) = disk.cut(&faults.scratch, &name, || Promises::now(&load.ledger))?;
        last = look(faults, row, durability, trial, &copy.data().join("home"), &promises, &log)?;
        spooled += last.spooled_gone;
        row.trials += 1;
        drop(copy);
        std::fs::remove_dir_all(faults.scratch.path().join(&name))?;
    }
    load.stop()?;
    drain(&dir)?;
    server.stop()?;
    // Every cut looks at all that the image ever held; the last one of an image stands for it.
    row.acknowledged += last.acknowledged;
    row.stored += last.stored;
    row.panics += server::panics_in(&log) as u64;
    Ok(spooled)
}

/// What was promised just before a cut.
struct Promises {
    synced: Vec<taffrail_event::DedupKey>,
    spooled: Vec<taffrail_event::DedupKey>,
}

impl Promises {
    fn now(ledger: &Ledger) -> Self {
        Self { synced: ledger.synced(), spooled: ledger.promised() }
    }
}

/// What was found after a cut.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    acknowledged: u64,
    stored: u64,
    /// Events that only the spool had promised to keep, over the death of a process, and that are gone.
    spooled_gone: u64,
}

/// Looks at what a cut left.
fn look(
    faults: &Faults,
    row: &mut Row,
    durability: Durability,
    trial: u64,
    dir: &Path,
    promises: &Promises,
    log: &Path,
) -> Result<Seen> {
    let what = format!("cut {trial} (seed {})", faults.seed);
    let in_spool = keys_in_spool(dir);
    match check(dir, Depth::Full, &promises.synced, &in_spool, Extra::Any) {
        Ok(findings) => row.add(&findings, &what),
        Err(error) => row.add(&damaged(&error, promises), &what),
    };
    let mut server = match start(faults, durability, dir, log).and_then(|mut server| {
        server.wait_ready()?;
        Ok(server)
    }) {
        Ok(server) => server,
        // Without syncing, damage is what the control is there to show, and the look before has counted it.
        Err(_) if row.name == Name::Control => {
            return Ok(Seen { acknowledged: promises.synced.len() as u64, ..Seen::default() });
        }
        Err(error) => return Err(error).context(what),
    };
    server.wait_ready()?;
    drain(dir)?;
    server.stop()?;
    let nowhere = HashSet::new();
    let after = check(dir, Depth::Full, &promises.synced, &nowhere, Extra::Any)?;
    if row.name != Name::Control {
        row.add(&after, &format!("{what}, started again"));
    }
    let missing = check(dir, Depth::Quick, &promises.spooled, &nowhere, Extra::Any)?.lost.len();
    ensure!(missing >= after.lost.len(), "the two promises overlap");
    Ok(Seen {
        acknowledged: promises.synced.len() as u64,
        stored: after.events,
        spooled_gone: (missing - after.lost.len()) as u64,
    })
}

fn damaged(error: &anyhow::Error, promises: &Promises) -> Findings {
    Findings {
        lost: promises.synced.iter().map(|_| "all: the database cannot be opened".to_owned()).collect(),
        broken: vec![format!("{error:#}")],
        ..Findings::default()
    }
}

fn start(faults: &Faults, durability: Durability, dir: &Path, log: &Path) -> Result<Server> {
    Server::spawn_with(&faults.binaries.taffrail, dir, log, &[("TAFFRAIL_DURABILITY", durability.name())])
}
