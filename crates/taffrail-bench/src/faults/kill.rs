//! `kill -9` of the server at random moments under load, with an immediate restart on the same data directory.
//!
//! A round is one data directory, from its first start: so some kills fall into the migration, too. Writers go on through
//! every kill and send what got no answer again, with the same id. After each kill and restart everything promised so far
//! must be there or in the spool; at the end of a round, with the spool drained, exactly what was sent must be there and
//! every total must add up.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::load::{Load, Target, Writers, keys_in_spool};
use super::{Faults, Row};
use crate::bench::frames;
use crate::check::{Depth, Extra, check};
use crate::rng::Rng;
use crate::server::{self, Server};

const KILLS: (u64, u64, u64) = (4, 50, 500);
const KILLS_PER_ROUND: u64 = 25;
/// A kill falls this long after the server was ready.
const LIFE_MS: (u64, u64) = (10, 400);
/// One kill in so many falls right after the start instead, before the server is ready.
const EARLY_ONE_IN: u64 = 8;
const EARLY_MS: (u64, u64) = (0, 40);
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const WRITERS: Writers = Writers { native: 3, legacy: 1, frames: 1, hooks: 1 };

pub(super) fn run(faults: &Faults, row: &mut Row) -> Result<()> {
    let kills = faults.size.of(KILLS.0, KILLS.1, KILLS.2);
    while row.trials < kills {
        let todo = KILLS_PER_ROUND.min(kills - row.trials);
        round(faults, row, todo)?;
        eprintln!(
            "{} kills, {} acknowledged, {} lost, {} doubled, {} damaged, {} panics",
            row.trials, row.acknowledged, row.lost, row.doubled, row.broken, row.panics
        );
        faults.keep(row)?;
    }
    if row.notes.is_empty() {
        row.notes.push(format!(
            "kills {}-{} ms after ready, one in {EARLY_ONE_IN} {}-{} ms after the start; {KILLS_PER_ROUND} kills per data \
             directory; writers: {WRITERS:?}",
            LIFE_MS.0, LIFE_MS.1, EARLY_MS.0, EARLY_MS.1
        ));
    }
    Ok(())
}

fn round(faults: &Faults, row: &mut Row, kills: u64) -> Result<()> {
    let first = row.trials;
    let dir = faults.scratch.dir(&format!("kill-{first}"))?;
    let log = faults.scratch.path().join(format!("kill-{first}.log"));
    let taffrail = &faults.binaries.taffrail;
    let mut server = Server::start(taffrail, &dir, &log)?;
    let target = Target {
        addr: std::sync::RwLock::new(server.addr()),
        data_dir: dir.clone(),
        hook: faults.binaries.hook.clone(),
    };
    let mut load = Load::start(faults.seed.wrapping_add(first), target, WRITERS);
    for n in 0..kills {
        let mut rng = Rng::stream(faults.seed, first + n);
        let early = rng.chance(1, EARLY_ONE_IN);
        let life =
            if early { rng.between(EARLY_MS.0, EARLY_MS.1) } else { rng.between(LIFE_MS.0, LIFE_MS.1) };
        if !early {
            server.wait_ready()?;
        }
        std::thread::sleep(Duration::from_millis(life));
        server.kill()?;
        let promised = load.ledger.promised();
        server = Server::spawn(taffrail, &dir, &log)?;
        load.moved(server.addr());
        server.wait_ready()?;
        let in_spool = keys_in_spool(&dir);
        let findings = check(&dir, Depth::Quick, &promised, &in_spool, Extra::Any)?;
        row.add(&findings, &format!("kill {} (seed {}, {life} ms)", first + n, faults.seed));
        row.trials += 1;
    }
    load.stop()?;
    drain(&dir)?;
    server.stop()?;
    settle(faults, row, &load, &dir)?;
    row.panics += server::panics_in(&log) as u64;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// The last look at a round: nothing waits any more, so exactly what was sent may be there.
fn settle(faults: &Faults, row: &mut Row, load: &Load, dir: &Path) -> Result<()> {
    let promised = load.ledger.promised();
    ensure!(!promised.is_empty(), "the writers wrote nothing");
    let findings = check(dir, Depth::Full, &promised, &HashSet::new(), Extra::Only(&load.ledger.sent()))?;
    row.add(&findings, &format!("end of the round with seed {}", faults.seed));
    row.acknowledged += promised.len() as u64;
    row.stored += findings.events;
    Ok(())
}

/// Waits until a running server has taken every frame.
pub(super) fn drain(dir: &Path) -> Result<()> {
    let begun = Instant::now();
    while !frames(&dir.join("spool")).is_empty() {
        ensure!(begun.elapsed() < DRAIN_LIMIT, "the spool of {} is not drained", dir.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
