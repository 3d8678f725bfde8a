//! The hook client, paired with a process that does nothing.
//!
//! Pairs run back to back, the order of the two swapped every time. Both get the same pipes, the same environment and
//! the same bytes on stdin. Spools are emptied between pairs where no server does it, so that no bound is reached.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use crate::process::{self, Ended};
use crate::report::Section;
use crate::server::Server;
use crate::stats::{Samples, ms};
use crate::workload::sized_payload;

/// What the hook may cost above a process that does nothing, at p99.
const TARGET_MS: f64 = 2.0;
/// How long the client waits for a verdict by default.
const BUDGET_MS: f64 = 50.0;
/// How often a large payload is also passed through `cat` to a file.
const PASSING_ONE_IN: u64 = 10;
/// Frames that may wait in the spool before the next pair starts: an agent pauses between its calls, too.
const SPOOL_FRAMES_MAX: usize = 64;
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// What the client finds at its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Up,
    Down,
    Hung,
}

impl Peer {
    const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Hung => "hung",
        }
    }
}

/// What the client is given.
#[derive(Clone, Copy, Debug)]
struct Load {
    event: &'static str,
    bytes: usize,
    label: &'static str,
}

const LOADS: [Load; 3] = [
    Load { event: "PostToolUse", bytes: 2 << 10, label: "PostToolUse 2 KB" },
    Load { event: "PreToolUse", bytes: 2 << 10, label: "PreToolUse 2 KB" },
    Load { event: "PostToolUse", bytes: 1 << 20, label: "PostToolUse 1 MB" },
];

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut section = Section::new(
        "",
        "What does a hook call cost above a process that does nothing?",
        "From before the spawn until the process is reaped, pipes on all three streams, payload on stdin; \
         `taffrail-hook` and `/bin/true` in turn, the order swapped with every pair. `difference` is of the two of one \
         pair. `hung` is a socket that accepts and never answers. With the server up, it drains the spool meanwhile on \
         the same cores. `/bin/true` reads nothing; for 1 MB a `cat` to a file beside it (by `sh -c exec`) shows what \
         passing and keeping the bytes costs by itself.",
    );
    for peer in [Peer::Up, Peer::Down, Peer::Hung] {
        for load in LOADS {
            pairs(bench, peer, load, &mut section)?;
        }
    }
    others(bench, &mut section)?;
    Ok(section)
}

/// A data directory in one of the three states, for as long as it lives.
struct Place {
    dir: PathBuf,
    server: Option<Server>,
    _sockets: Option<(UnixDatagram, std::thread::JoinHandle<()>)>,
}

impl Place {
    fn new(bench: &Bench, peer: Peer) -> Result<Self> {
        let (dir, log) = bench.data_dir(&format!("hook-{}", peer.name()))?;
        let (mut server, mut sockets) = (None, None);
        match peer {
            Peer::Up => server = Some(Server::start(&bench.binaries.taffrail, &dir, &log)?),
            Peer::Down => {}
            Peer::Hung => sockets = Some(hang(&dir)?),
        }
        Ok(Self { dir, server, _sockets: sockets })
    }

    fn settle(&self) -> Result<()> {
        let spool = self.dir.join("spool");
        if self.server.is_none() {
            if frames(&spool).len() >= SPOOL_FRAMES_MAX / 4 {
                for frame in frames(&spool) {
                    fs::remove_file(frame)?;
                }
            }
            return Ok(());
        }
        let begun = Instant::now();
        while frames(&spool).len() >= SPOOL_FRAMES_MAX {
            ensure!(begun.elapsed() < DRAIN_LIMIT, "the server does not drain the spool");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Binds both sockets; one accepts and keeps what it accepted, the other is never read.
pub(crate) fn hang(dir: &Path) -> Result<(UnixDatagram, std::thread::JoinHandle<()>)> {
    let listener = UnixListener::bind(dir.join("hook.sock"))?;
    let poke = UnixDatagram::bind(dir.join("poke.sock"))?;
    let thread = std::thread::spawn(move || {
        let mut kept = std::collections::VecDeque::new();
        for stream in listener.incoming().flatten() {
            kept.push_back(stream);
            // Clients are gone after their budget; only their descriptors would pile up.
            if kept.len() > 256 {
                kept.pop_front();
            }
        }
    });
    Ok((poke, thread))
}

/// Whole frames that wait in a spool.
pub(crate) fn frames(spool: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(spool) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "frame"))
        .collect()
}

/// `taffrail-hook` as `taffrail install` writes it.
pub(crate) fn hook_command(hook: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(hook);
    command.env("TAFFRAIL_HOME", data_dir);
    command
}

fn pairs(bench: &Bench, peer: Peer, load: Load, section: &mut Section) -> Result<()> {
    let pairs: u64 = bench.size.of(3, 200, 2_000);
    let place = Place::new(bench, peer)?;
    let mut hook = hook_command(&bench.binaries.hook, &place.dir);
    let mut nothing = Command::new("/bin/true");
    nothing.env("TAFFRAIL_HOME", &place.dir);
    let (mut with, mut without, mut difference) =
        (Samples::default(), Samples::default(), Samples::default());
    let passes = load.bytes > 64 << 10;
    let kept = place.dir.join("passed");
    let mut passing = Samples::default();
    for n in 0..pairs {
        let payload = sized_payload(load.event, n, load.bytes);
        place.settle()?;
        let (a, b) = if n.is_multiple_of(2) {
            let a = process::run(&mut hook, payload.as_bytes())?;
            (a, process::run(&mut nothing, payload.as_bytes())?)
        } else {
            let b = process::run(&mut nothing, payload.as_bytes())?;
            (process::run(&mut hook, payload.as_bytes())?, b)
        };
        check_allowed(&a, load.event)?;
        with.push_ms(a.took);
        without.push_ms(b.took);
        difference.push(ms(a.took) - ms(b.took));
        if passes && n.is_multiple_of(PASSING_ONE_IN) {
            let mut cat = Command::new("sh");
            cat.args(["-c", "exec cat >\"$0\""]).arg(&kept);
            passing.push_ms(process::run(&mut cat, payload.as_bytes())?.took);
        }
    }
    let case = format!("server {}, {}", peer.name(), load.label);
    section.spread(format!("{case}: `taffrail-hook`"), "ms", &with);
    section.spread(format!("{case}: floor `/bin/true`"), "ms", &without);
    section.spread(format!("{case}: difference"), "ms", &difference);
    if passing.spread().is_some() {
        section.spread(format!("{case}: `cat` to a file"), "ms", &passing);
    }
    let asks = load.event == "PreToolUse";
    let limit = if peer == Peer::Hung && asks { TARGET_MS + BUDGET_MS } else { TARGET_MS };
    if let (Some(with), Some(without), Some(difference)) =
        (with.spread(), without.spread(), difference.spread())
    {
        section.at_most(format!("{case}: p99 minus the floor's p99"), "ms", limit, with.p99 - without.p99);
        section.at_most(format!("{case}: p99 of the difference"), "ms", limit, difference.p99);
    }
    finish(place, pairs)
}

fn check_allowed(ended: &Ended, event: &str) -> Result<()> {
    let denied = String::from_utf8_lossy(&ended.stdout).contains("deny");
    ensure!(ended.code == Some(0) && !denied, "an innocent {event} was not let through: {ended:?}");
    Ok(())
}

/// With a server, everything that the clients appended must have been stored.
fn finish(place: Place, pairs: u64) -> Result<()> {
    let Some(server) = place.server else { return Ok(()) };
    let begun = Instant::now();
    while !frames(&place.dir.join("spool")).is_empty() {
        ensure!(begun.elapsed() < DRAIN_LIMIT, "the server does not drain the spool");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.stop()?;
    let stored = crate::check::count_events(&place.dir)?;
    ensure!(stored == pairs, "{pairs} hooks ran, {stored} events are stored");
    Ok(())
}

/// What people use instead, for scale.
fn others(bench: &Bench, section: &mut Section) -> Result<()> {
    let runs = bench.size.of(2, 20, 200);
    let (dir, log) = bench.data_dir("hook-others")?;
    let server = Server::start(&bench.binaries.taffrail, &dir, &log)?;
    let url = format!("http://{}/v1/hooks/claude-code", server.addr());
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-H", "content-type: application/json", "--data-binary", "@-", &url]);
    let python =
        ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|path| Path::new(path).exists());
    let mut python = Command::new(python.unwrap_or("python3"));
    python.args(["-c", "pass"]);
    for (label, command) in [("`curl` posting 2 KB", &mut curl), ("`python3 -c pass`", &mut python)] {
        let mut samples = Samples::default();
        for n in 0..runs {
            let payload = sized_payload("PostToolUse", n, 2 << 10);
            match process::run(command, payload.as_bytes()) {
                Ok(ended) if ended.code == Some(0) => samples.push_ms(ended.took),
                _ => break,
            }
        }
        if samples.spread().is_some() {
            section.spread(format!("for scale: {label}"), "ms", &samples);
        }
    }
    server.stop()
}
