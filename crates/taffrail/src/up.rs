//! `taffrail up` and `taffrail down`: the server in the background.
//!
//! Limits: the server must be ready within [`READY_TIMEOUT`] and gone within [`STOP_TIMEOUT`]; its log is put aside once
//! it is larger than [`LOG_MAX_BYTES`].

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cli::{Global, ServeOptions, UpArgs};
use crate::client::Client;
use crate::home::{self, Home, make_private_dir};
use crate::print::out;
use crate::serve;

const READY_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// How long another `up` may take to bring its server up, once ours has found the directory taken.
const OTHER_READY_TIMEOUT: Duration = Duration::from_secs(5);
const LOG_MAX_BYTES: u64 = 10 << 20;
/// How much of the log an error shows.
const LOG_TAIL_LINES: usize = 8;
const LOG_TAIL_BYTES: u64 = 16 << 10;

pub(crate) fn up(global: &Global, args: &UpArgs) -> Result<()> {
    let config = home::load(&serve::flags(global, &args.options))?;
    let home = Home::of(&config)?;
    let (client, started) = ensure(&home, &args.options)?;
    let link = link(&client)?;
    if args.json {
        return out(&serde_json::json!({
            "url": client.base(), "link": link, "pid": client.pid, "started": started == Started::Now,
        })
        .to_string());
    }
    out(&format!("taffrail is running at {}/  open: {link}", client.base()))
}

/// Whether the server was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    Now,
    Before,
}

/// The directory's server, started if none runs.
pub(crate) fn ensure(home: &Home, options: &ServeOptions) -> Result<(Client, Started)> {
    if let Some(client) = Client::find(home) {
        return Ok((client, Started::Before));
    }
    home.make()?;
    let log = open_log(&home.log_file())?;
    let log_start = log.metadata()?.len();
    let mut child = spawn(home, options, &log)?;
    let began = Instant::now();
    while began.elapsed() < READY_TIMEOUT {
        if let Some(client) = Client::find(home) {
            return Ok((client, Started::Now));
        }
        if let Some(status) = child.try_wait()? {
            let other = other_server(home).map(|client| (client, Started::Before));
            return other.with_context(|| {
                format!("the server did not start ({status})\n{}", tail(&home.log_file(), log_start))
            });
        }
        std::thread::sleep(POLL);
    }
    stop_child(&mut child);
    bail!(
        "the server was not ready within {} s\n{}",
        READY_TIMEOUT.as_secs(),
        tail(&home.log_file(), log_start)
    )
}

/// Another `up` at the same time may have won the directory.
fn other_server(home: &Home) -> Option<Client> {
    let began = Instant::now();
    loop {
        if let Some(client) = Client::find(home) {
            return Some(client);
        }
        if began.elapsed() > OTHER_READY_TIMEOUT || !is_locked(home) {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

fn spawn(home: &Home, options: &ServeOptions, log: &File) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--detached").arg("--data-dir").arg(home.dir());
    command.args(arguments(options));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    // The server lives on; a folder that someone wants to remove or unmount must not be its own.
    if options.config.is_none() {
        command.current_dir(home.dir());
    }
    command.spawn().context("cannot start the server")
}

fn arguments(options: &ServeOptions) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: OsString| all.extend([name.into(), value]);
    options.listen.iter().for_each(|v| add("--listen", v.into()));
    options.config.iter().for_each(|v| add("--config", v.into()));
    options.durability.iter().for_each(|v| add("--durability", v.into()));
    options.legacy_origin.iter().for_each(|v| add("--legacy-origin", v.into()));
    options.allowed_host.iter().for_each(|v| add("--allowed-host", v.into()));
    all
}

fn open_log(path: &Path) -> Result<File> {
    let open = || {
        make_private_dir(path.parent().unwrap_or(path))?;
        if fs::metadata(path).is_ok_and(|log| log.len() > LOG_MAX_BYTES) {
            fs::rename(path, path.with_extension("log.1"))?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    };
    open().with_context(|| {
        format!(
            "cannot write {}\nhint: check owner and permissions of the data directory, or choose another with --data-dir",
            path.display()
        )
    })
}

/// The last lines written since `from`.
fn tail(path: &Path, from: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    if last.is_empty() {
        return format!("hint: its log is {}", path.display());
    }
    format!("its log ({}) ends with:\n  {}", path.display(), last.join("\n  "))
}

fn stop_child(child: &mut Child) {
    // It may have ended by itself; then there is nothing to stop.
    let _ = child.kill();
    let _ = child.wait();
}

/// A link that opens the page once, without a token in a lasting address.
pub(crate) fn link(client: &Client) -> Result<String> {
    #[derive(Deserialize)]
    struct Link {
        url: String,
    }
    let answer = client.post("/api/v1/auth/link", "application/json", b"{}")?;
    let link: Link = crate::client::parse("the link", &answer.expect_success("a link to the page")?)?;
    if link.url.starts_with('/') { Ok(format!("{}{}", client.base(), link.url)) } else { Ok(link.url) }
}

pub(crate) fn down(home: &Home) -> Result<()> {
    let Some(pid) = lock_holder(home)? else {
        eprintln!("no server runs on {}", home.dir().display());
        return Ok(());
    };
    terminate(pid)?;
    let began = Instant::now();
    while began.elapsed() < STOP_TIMEOUT {
        if !is_locked(home) {
            eprintln!("the server (pid {pid}) has stopped");
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
    bail!(
        "the server (pid {pid}) has not stopped within {} s\nhint: see {}",
        STOP_TIMEOUT.as_secs(),
        home.log_file().display()
    )
}

#[cfg(unix)]
fn terminate(pid: i32) -> Result<()> {
    let target = rustix::process::Pid::from_raw(pid).context("the lock names no process")?;
    rustix::process::kill_process(target, rustix::process::Signal::TERM)
        .with_context(|| format!("cannot stop the server (pid {pid})\nhint: it belongs to another user"))
}

#[cfg(not(unix))]
fn terminate(pid: i32) -> Result<()> {
    bail!("cannot stop the server (pid {pid}) on this platform\nhint: end the process {pid}")
}

fn is_locked(home: &Home) -> bool {
    lock_holder(home).is_ok_and(|holder| holder.is_some())
}

/// Who holds the directory; a lock that nobody holds is left over.
fn lock_holder(home: &Home) -> Result<Option<i32>> {
    let path = home.dir().join("lock");
    let Ok(mut file) = File::open(&path) else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(fs::TryLockError::WouldBlock) => {
            let mut text = String::new();
            Read::by_ref(&mut file).take(32).read_to_string(&mut text)?;
            let pid = text.trim().parse().ok();
            Ok(Some(pid.with_context(|| format!("{} does not say who holds it", path.display()))?))
        }
        Err(fs::TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("cannot look at {}", path.display()))
        }
    }
}
