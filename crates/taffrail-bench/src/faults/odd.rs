//! Odd input and odd places: each a case that must end in a clear error or in a stored event, never in a loss, a panic
//! or silence.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::kill::drain;
use super::load::key_of;
use super::{Faults, Row, image};
use crate::bench::hook_command;
use crate::check::{Depth, Extra, check, count_events};
use crate::http::{Answer, Connection, Request};
use crate::process;
use crate::scratch::{self, Guard, Undo};
use crate::server::{self, Server, free_port};
use crate::workload::{Fleet, FleetOptions, Kind, sized_payload};

const LARGE_BYTES: usize = 6 << 20;
const DEPTH: usize = 1_000;
const BURST: (usize, usize, usize) = (200, 10_000, 10_000);
const BURST_CONNECTIONS: usize = 8;
/// A start that must fail may take this long.
const FAIL_LIMIT: Duration = Duration::from_secs(20);
/// Size of the data directory that is filled up, in bytes.
const SMALL_BYTES: u64 = 12 << 20;

type Case = fn(&Faults, &mut Row, &Path, &Path) -> Result<()>;

const CASES: &[(&str, Case)] = &[
    ("odd payloads over http", odd_over_http),
    ("odd payloads through the hook client", odd_through_hook),
    ("a burst over http", burst_over_http),
    ("a burst in the spool", burst_in_spool),
    ("a data directory that cannot be made", unmakeable_dir),
    ("a read-only data directory", read_only_dir),
    ("a data directory that fills up", full_dir),
    ("a port in use", port_in_use),
    ("a data directory in use", dir_in_use),
    ("a corrupt database", corrupt_database),
    ("a newer database", newer_database),
];

pub(super) fn run(faults: &Faults, row: &mut Row) -> Result<()> {
    for (n, (name, case)) in CASES.iter().enumerate() {
        let dir = faults.scratch.dir(&format!("odd-{n}"))?;
        let log = faults.scratch.path().join(format!("odd-{n}.log"));
        let failures = row.failures.len();
        if let Err(error) = case(faults, row, &dir, &log) {
            row.failures.push(format!("{name}: {error:#}"));
        }
        row.panics += server::panics_in(&log) as u64;
        row.trials += 1;
        let word = if row.failures.len() == failures { "ok" } else { "FAILED" };
        eprintln!("{name}: {word}");
    }
    Ok(())
}

/// Payloads no well-behaved client sends, by name.
fn odd_payloads() -> Vec<(&'static str, Vec<u8>)> {
    let mut invalid = sized_payload("PostToolUse", 1, 600).into_bytes();
    let at = invalid.len() - 20;
    invalid[at..at + 4].copy_from_slice(&[0xff, 0xfe, 0xc3, 0x28]);
    let nul = sized_payload("PostToolUse", 2, 600).replace("test result", "test\\u0000result");
    let mut raw_nul = sized_payload("PostToolUse", 3, 600).into_bytes();
    let at = raw_nul.len() - 20;
    raw_nul[at] = 0;
    let nest = format!("{}1{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let deep = sized_payload("PostToolUse", 4, 400).replacen('{', &format!(r#"{{"deep":{nest},"#), 1);
    let deeper = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    vec![
        ("6 MB", sized_payload("PostToolUse", 5, LARGE_BYTES).into_bytes()),
        ("invalid UTF-8", invalid),
        ("escaped NUL", nul.into_bytes()),
        ("raw NUL", raw_nul),
        ("depth 1,000", deep.into_bytes()),
        ("depth 200,000", deeper.into_bytes()),
        ("empty object", b"{}".to_vec()),
        ("an array", b"[1,2,3]".to_vec()),
        ("no JSON", b"hello".to_vec()),
        ("nothing", Vec::new()),
        ("cut off", sized_payload("PostToolUse", 6, 600).into_bytes()[..300].to_vec()),
    ]
}

fn odd_over_http(faults: &Faults, row: &mut Row, dir: &Path, log: &Path) -> Result<()> {
    let server = Server::start(&faults.binaries.taffrail, dir, log)?;
    let mut stored = 0;
    for (name, body) in odd_payloads() {
        // A refused body may end its connection, so each has its own.
        let answer =
            server.connect()?.send(&Request::post("/v1/hooks/claude-code", &[], &body)).context(name)?;
        if answer.is_success() {
            stored += 1;
        } else {
            expect_problem(&answer).with_context(|| format!("{name} was refused"))?;
            row.notes.push(format!("{name} over http: {} {}", answer.status, detail(&answer)));
        }
        let found = count_events(dir)?;
        ensure!(found == stored, "{name}: {stored} acknowledged, {found} stored");
    }
    ensure!(stored > 0, "nothing was stored");
    row.acknowledged += stored;
    row.stored += stored;
    server.stop()
}

fn odd_through_hook(faults: &Faults, row: &mut Row, dir: &Path, log: &Path) -> Result<()> {
    let server = Server::start(&faults.binaries.taffrail, dir, log)?;
    let mut hook = hook_command(&faults.binaries.hook, dir);
    let mut sent = 0;
    for (name, body) in odd_payloads() {
        let ended = process::run(&mut hook, &body).context(name)?;
        ensure!(ended.code == Some(0) && ended.stdout.is_empty(), "{name}: {ended:?}");
        sent += 1;
        drain(dir).context(name)?;
    }
    server.stop()?;
    let found = count_events(dir)?;
    let (lost, doubled) = (u64::saturating_sub(sent, found), found.saturating_sub(sent));
    row.lost += lost;
    row.doubled += doubled;
    row.acknowledged += sent;
    row.stored += found;
    ensure!(found == sent, "{sent} hooks ran, {found} events are stored");
    Ok(())
}

fn burst_over_http(faults: &Faults, row: &mut Row, dir: &Path, log: &Path) -> Result<()> {
    let events = faults.size.of(BURST.0, BURST.1, BURST.2);
    let server = Server::start(&faults.binaries.taffrail, dir, log)?;
    let payloads = tool_payloads(faults.seed, events);
    let addr = server.addr();
    let later: Result<Vec<u64>> = std::thread::scope(|scope| {
        let chunks = payloads.chunks(events.div_ceil(BURST_CONNECTIONS));
        let threads: Vec<_> = chunks.map(|chunk| scope.spawn(move || post_all(addr, chunk))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("panicked"))).collect()
    });
    let later: u64 = later?.iter().sum();
    server.stop()?;
    row.notes.push(format!("burst of {events} over http: {later} times told to come later, all stored"));
    settle(row, dir, &payloads)
}

fn burst_in_spool(faults: &Faults, row: &mut Row, dir: &Path, log: &Path) -> Result<()> {
    let events = faults.size.of(BURST.0, BURST.1, BURST.2);
    let payloads = tool_payloads(faults.seed + 1, events);
    let spool = dir.join("spool");
    fs::create_dir_all(&spool)?;
    for payload in &payloads {
        let id = uuid::Uuid::now_v7();
        super::load::write_frame(&spool, id, payload.as_bytes())?;
    }
    let server = Server::start(&faults.binaries.taffrail, dir, log)?;
    drain(dir)?;
    server.stop()?;
    settle(row, dir, &payloads)
}

fn unmakeable_dir(faults: &Faults, row: &mut Row, dir: &Path, _log: &Path) -> Result<()> {
    let file = dir.join("file");
    fs::write(&file, "in the way")?;
    let inside = file.join("home");
    let text = expect_failure(faults, &inside, None)?;
    row.notes.push(format!("a file in the way of the data directory: {}", one_line(&text)));
    hook_stays_quiet(faults, &inside)
}

fn read_only_dir(faults: &Faults, row: &mut Row, dir: &Path, _log: &Path) -> Result<()> {
    let mut _mount: Option<Guard> = None;
    let home = if rustix::process::geteuid().is_root() {
        // Permission bits do not bind root; a read-only mount does.
        let (mount, kind) = (Undo::Unmount(dir.to_owned()), ["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"]);
        _mount = Some(scratch::set_up(Command::new("mount").args(kind).arg(dir), mount)?);
        dir.join("home")
    } else {
        let mut mode = fs::metadata(dir)?.permissions();
        mode.set_readonly(true);
        fs::set_permissions(dir, mode)?;
        dir.join("home")
    };
    let text = expect_failure(faults, &home, None)?;
    row.notes.push(format!("read-only data directory: {}", one_line(&text)));
    hook_stays_quiet(faults, &home)
}

/// Fills the disk under a running server, and looks what it promised; makes room, and it must go on.
fn full_dir(faults: &Faults, row: &mut Row, _dir: &Path, log: &Path) -> Result<()> {
    if let Some(why) = image::unavailable() {
        row.notes.push(format!("a full data directory: SKIPPED: {why}"));
        return Ok(());
    }
    let (_mount, disk) = image::small(&faults.scratch, "odd-small", SMALL_BYTES)?;
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; 2 << 20])?;
    let dir = disk.join("home");
    fs::create_dir(&dir)?;
    let server = Server::start(&faults.binaries.taffrail, &dir, log)?;
    let mut acknowledged = Vec::new();
    let mut connection = server.connect()?;
    let mut refusals = Vec::new();
    for call in 0..100_000 {
        // Incompressible, else the disk never fills.
        let noise: String = noise(call, 20_000);
        let payload = sized_payload("PostToolUse", call, 400).replace("test result: ok. test", &noise);
        let answer = match connection.send(&Request::post("/v1/hooks/claude-code", &[], payload.as_bytes())) {
            Ok(answer) => answer,
            Err(error) => bail!("the server closed the connection instead of answering: {error}"),
        };
        if answer.is_success() {
            acknowledged.extend(key_of(payload.as_bytes()));
            continue;
        }
        ensure!(answer.status >= 500, "a full disk is not the sender's fault: {}", answer.status);
        expect_problem(&answer)?;
        refusals.push(format!("{} {}", answer.status, detail(&answer)));
        if refusals.len() >= 5 {
            break;
        }
    }
    ensure!(!refusals.is_empty(), "the disk never filled");
    let findings = check(&dir, Depth::Quick, &acknowledged, &HashSet::new(), Extra::Any)?;
    row.add(&findings, "full data directory");
    hook_stays_quiet(faults, &dir)?;
    fs::remove_file(&ballast)?;
    let payload = sized_payload("PostToolUse", 1 << 40, 400);
    let begun = Instant::now();
    loop {
        let answer =
            server.connect()?.send(&Request::post("/v1/hooks/claude-code", &[], payload.as_bytes()))?;
        if answer.is_success() {
            break;
        }
        ensure!(begun.elapsed() < FAIL_LIMIT, "there is room again, still refused: {}", answer.text());
        std::thread::sleep(Duration::from_millis(100));
    }
    acknowledged.extend(key_of(payload.as_bytes()));
    server.stop()?;
    let findings = check(&dir, Depth::Full, &acknowledged, &HashSet::new(), Extra::Any)?;
    row.add(&findings, "full data directory, with room again");
    row.acknowledged += acknowledged.len() as u64;
    row.stored += findings.events;
    row.notes.push(format!("full data directory: {}; with room again it goes on", refusals[0]));
    Ok(())
}

fn port_in_use(faults: &Faults, row: &mut Row, dir: &Path, _log: &Path) -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let text = expect_failure(faults, dir, Some(taken.local_addr()?))?;
    ensure!(text.contains(&taken.local_addr()?.port().to_string()), "the port is not named: {text}");
    row.notes.push(format!("port in use: {}", one_line(&text)));
    Ok(())
}

fn dir_in_use(faults: &Faults, row: &mut Row, dir: &Path, log: &Path) -> Result<()> {
    let server = Server::start(&faults.binaries.taffrail, dir, log)?;
    let text = expect_failure(faults, dir, None)?;
    row.notes.push(format!("data directory in use: {}", one_line(&text)));
    server.stop()
}

fn corrupt_database(faults: &Faults, row: &mut Row, dir: &Path, log: &Path) -> Result<()> {
    let (database, mut bytes) = some_database(faults, dir, log)?;
    bytes[..4096].fill(0x5a);
    refused_unharmed(faults, row, dir, &database, &bytes, "corrupt database")
}

fn newer_database(faults: &Faults, row: &mut Row, dir: &Path, log: &Path) -> Result<()> {
    let (database, mut bytes) = some_database(faults, dir, log)?;
    // `user_version`, big endian, at offset 60 of the header.
    bytes[60..64].copy_from_slice(&9_999u32.to_be_bytes());
    refused_unharmed(faults, row, dir, &database, &bytes, "newer database")
}

fn refused_unharmed(
    faults: &Faults,
    row: &mut Row,
    dir: &Path,
    file: &Path,
    bytes: &[u8],
    what: &str,
) -> Result<()> {
    fs::write(file, bytes)?;
    let text = expect_failure(faults, dir, None)?;
    ensure!(fs::read(file)? == bytes, "the refused file was changed");
    row.notes.push(format!("{what}: {}", one_line(&text)));
    hook_stays_quiet(faults, dir)
}

/// A data directory with a database of a few events, at rest.
fn some_database(faults: &Faults, dir: &Path, log: &Path) -> Result<(PathBuf, Vec<u8>)> {
    let server = Server::start(&faults.binaries.taffrail, dir, log)?;
    post_all(server.addr(), &tool_payloads(faults.seed, 50))?;
    server.stop()?;
    let database = dir.join("taffrail.db");
    let bytes = fs::read(&database)?;
    ensure!(bytes.len() > 4096, "the database is too small to damage");
    Ok((database, bytes))
}

/// `taffrail serve` must end by itself, not with 0, and say what to do.
fn expect_failure(faults: &Faults, dir: &Path, addr: Option<std::net::SocketAddr>) -> Result<String> {
    let addr = addr.map_or_else(free_port, Ok)?;
    let mut command = server::command(&faults.binaries.taffrail, dir, addr);
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn()?;
    let _guard = Guard::new(Undo::Kill(child.id()));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > FAIL_LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("the server runs where it cannot");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut text = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        std::io::Read::read_to_string(&mut pipe, &mut text)?;
    }
    ensure!(!status.success(), "it ended with 0: {text}");
    ensure!(!text.contains("panicked at"), "it panicked: {text}");
    ensure!(text.contains("hint:"), "the error does not say what to do: {text}");
    Ok(text)
}

/// Wherever it is pointed, an innocent hook ends with 0 and says nothing.
fn hook_stays_quiet(faults: &Faults, dir: &Path) -> Result<()> {
    let payload = sized_payload("PostToolUse", 1 << 41, 2_000);
    let ended = process::run(&mut hook_command(&faults.binaries.hook, dir), payload.as_bytes())?;
    ensure!(ended.code == Some(0) && ended.stdout.is_empty(), "the hook client was not quiet: {ended:?}");
    Ok(())
}

fn expect_problem(answer: &Answer) -> Result<()> {
    ensure!((400..600).contains(&answer.status), "status {}", answer.status);
    ensure!(!detail(answer).is_empty(), "{} without a word: {:?}", answer.status, answer.text());
    Ok(())
}

fn detail(answer: &Answer) -> String {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let text = |name: &str| problem.get(name).and_then(Value::as_str).map(str::to_owned);
    one_line(&text("detail").or_else(|| text("title")).or_else(|| text("error")).unwrap_or_default())
}

/// Posts each until it is acknowledged; returns how often the answer was "later".
fn post_all(addr: std::net::SocketAddr, payloads: &[String]) -> Result<u64> {
    let mut connection = Connection::open(addr, Duration::from_secs(60))?;
    let mut later = 0;
    for payload in payloads {
        loop {
            let answer = connection.send(&Request::post("/v1/hooks/claude-code", &[], payload.as_bytes()))?;
            if answer.is_success() {
                break;
            }
            ensure!(answer.status == 503, "{}: {}", answer.status, answer.text());
            later += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(later)
}

fn settle(row: &mut Row, dir: &Path, payloads: &[String]) -> Result<()> {
    let keys: Vec<_> = payloads.iter().filter_map(|payload| key_of(payload.as_bytes())).collect();
    let sent: HashSet<_> = keys.iter().copied().collect();
    let findings = check(dir, Depth::Full, &keys, &HashSet::new(), Extra::Only(&sent))?;
    row.add(&findings, "burst");
    row.acknowledged += keys.len() as u64;
    row.stored += findings.events;
    ensure!(keys.len() == payloads.len(), "own payloads without a key");
    Ok(())
}

fn tool_payloads(seed: u64, n: usize) -> Vec<String> {
    let mut fleet = Fleet::new(FleetOptions::load(seed));
    let steps = std::iter::repeat_with(|| fleet.step());
    steps
        .filter(|step| matches!(step.kind, Kind::Pre | Kind::Post | Kind::Failure))
        .take(n)
        .map(|step| step.payload(seed))
        .collect()
}

fn noise(seed: u64, chars: usize) -> String {
    let mut rng = crate::rng::Rng::stream(seed, 77);
    (0..chars).map(|_| char::from(b'a' + u8::try_from(rng.below(26)).unwrap_or(0))).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}
