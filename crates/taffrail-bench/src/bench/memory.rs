//! Resident memory of the server at its work and of the hook client with a large payload; sizes on disk.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{Bench, hook_command, reads};
use crate::http::Request;
use crate::process;
use crate::report::{Section, group};
use crate::server::Server;
use crate::sys;
use crate::workload::{Fleet, FleetOptions, sized_payload};

const SERVER_TARGET_MB: f64 = 150.0;
const HOOK_TARGET_MB: f64 = 32.0;
const HOOK_FILE_TARGET_MB: f64 = 3.0;
const LARGE_BYTES: usize = 6 << 20;
/// How long an idle server is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(2);
const BATCH: u64 = 1_000;

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut section = Section::new(
        "",
        "How much memory do server and hook client hold, and how large are they on disk?",
        "`VmRSS` and `VmHWM` of the server process, `ru_maxrss` of the hook client. The floor of the hook client is \
         `cat` given the same bytes.",
    );
    server(bench, &mut section)?;
    hook(bench, &mut section)?;
    sizes(bench, &mut section)?;
    Ok(section)
}

fn server(bench: &Bench, section: &mut Section) -> Result<()> {
    let dir = bench.large_db()?;
    let log = bench.scratch.path().join("memory.log");
    let server = Server::start(&bench.binaries.taffrail, &dir, &log)?;
    let events = group(bench.db_events as f64);
    if bench.size != super::Size::Tiny {
        std::thread::sleep(SETTLE);
    }
    let mut note = |when: &str| -> Result<f64> {
        let resident = server.resident().context("the server is gone")?;
        section.value(format!("server on {events} events, {when}: resident"), "MB", mb(resident.now_bytes));
        section.value(format!("server on {events} events, {when}: peak"), "MB", mb(resident.peak_bytes));
        Ok(mb(resident.peak_bytes))
    };
    note("idle")?;
    let bearer = server.bearer()?;
    let mut connection = server.connect()?;
    for _ in 0..bench.size.of(1, 5, 50) {
        for route in reads::routes(&server, bench)? {
            reads::read(&mut connection, &route, &bearer)?;
        }
    }
    note("after the reads")?;
    ingest(&server, bench.size.of(200, 20_000, 200_000))?;
    let peak = note("after the ingest")?;
    section.at_most("peak of the server", "MB", SERVER_TARGET_MB, peak);
    server.stop()
}

fn ingest(server: &Server, events: u64) -> Result<()> {
    let seed = u64::try_from(crate::clock::now_ms()).unwrap_or(1);
    let mut fleet = Fleet::new(FleetOptions::load(seed));
    let mut connection = server.connect()?;
    let mut body = String::new();
    for n in 1..=events {
        use std::fmt::Write as _;
        let step = fleet.step();
        writeln!(
            body,
            r#"{{"event_id":"{}","payload":{}}}"#,
            step.event_id(seed).hyphenated(),
            step.payload(seed)
        )?;
        if n.is_multiple_of(BATCH) || n == events {
            let answer =
                connection.send(&Request::post("/v1/hooks/claude-code/batch", &[], body.as_bytes()))?;
            ensure!(answer.is_success(), "a batch was refused: {}", answer.text());
            body.clear();
        }
    }
    Ok(())
}

fn hook(bench: &Bench, section: &mut Section) -> Result<()> {
    let (dir, _) = bench.data_dir("memory-hook")?;
    let mut peak: f64 = 0.0;
    let mut floor: f64 = 0.0;
    for _ in 0..3 {
        peak = peak.max(peak_of(&bench.binaries.hook, &dir)?);
        floor = floor.max(peak_of(Path::new("/bin/cat"), &dir)?);
    }
    section.value("hook client given 6 MB: peak", "MB", peak);
    section.value("floor: `cat` given 6 MB: peak", "MB", floor);
    section.at_most("peak of the hook client given 6 MB", "MB", HOOK_TARGET_MB, peak);
    Ok(())
}

/// The peak of a program given 6 MB, started by a fresh process of this program: Linux counts what the parent held at
/// the moment of the spawn to the child's peak, so the parent must be small.
fn peak_of(program: &Path, data_dir: &Path) -> Result<f64> {
    let mut command = hook_command(&std::env::current_exe()?, data_dir);
    let ended = process::run(command.arg("peak").arg(program), b"")?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let bytes: u64 =
        said.trim().parse().with_context(|| String::from_utf8_lossy(&ended.stderr).into_owned())?;
    Ok(mb(bytes))
}

/// The command line of the hidden `peak`.
#[derive(Args, Debug)]
pub(crate) struct PeakArgs {
    /// What to start.
    program: PathBuf,
}

/// Starts the program, gives it 6 MB of a PostToolUse in pieces, and prints its peak in bytes.
pub(crate) fn peak(args: &PeakArgs) -> Result<()> {
    let whole = sized_payload("PostToolUse", 1, 1 << 10);
    let (head, tail) = whole.split_at(whole.len() / 2);
    let piece = "x".repeat(64 << 10);
    let mut child = Command::new(&args.program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(head.as_bytes())?;
        for _ in 0..LARGE_BYTES / piece.len() {
            pipe.write_all(piece.as_bytes())?;
        }
        pipe.write_all(tail.as_bytes())?;
    }
    let usage = sys::wait_with_usage(&child)?;
    ensure!(usage.code == Some(0), "{} ended with {:?}", args.program.display(), usage.code);
    Ok(writeln!(std::io::stdout(), "{}", usage.max_rss_bytes)?)
}

fn sizes(bench: &Bench, section: &mut Section) -> Result<()> {
    let hook = fs::metadata(&bench.binaries.hook)?.len();
    section.value("`taffrail` on disk", "MB", mb(fs::metadata(&bench.binaries.taffrail)?.len()));
    section.value("`taffrail-hook` on disk", "MB", mb(hook));
    section.at_most("`taffrail-hook` on disk", "MB", HOOK_FILE_TARGET_MB, mb(hook));
    // The built page lies in the checkout, if this is one and the page was built.
    let page = Path::new("web/dist");
    if page.is_dir() {
        let (plain, packed) = page_bytes(page)?;
        if plain > 0 {
            section.value("page, uncompressed", "MB", mb(plain));
            section.value("page, brotli", "MB", mb(packed));
        }
    }
    Ok(())
}

fn page_bytes(dir: &Path) -> Result<(u64, u64)> {
    let (mut plain, mut packed) = (0, 0);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let bytes = entry.metadata()?.len();
        let path = entry.path();
        if path.is_dir() {
            let inside = page_bytes(&path)?;
            plain += inside.0;
            packed += inside.1;
            continue;
        }
        match path.extension().and_then(|e| e.to_str()) {
            Some("br") => packed += bytes,
            Some("gz" | "map") => {}
            _ => plain += bytes,
        }
    }
    Ok((plain, packed))
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
