//! `taffrail serve` as a process: started, waited for, frozen, killed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::http::{Answer, Connection, Request};
use crate::machine::{self, Resident};
use crate::scratch::{self, Guard};

/// How long a start may take before the campaign calls it failed.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_micros(500);
const STOP_POLL: Duration = Duration::from_millis(5);
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// What a panic leaves in the log, whatever its message.
const PANIC_MARKS: &[&str] = &["panicked at", "stack overflow", "fatal runtime error"];

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    addr: SocketAddr,
    data_dir: PathBuf,
    log: PathBuf,
    guard: Option<Guard>,
}

impl Server {
    /// Starts it on a free port; its output goes to the end of `<log>`. Returns before it is ready.
    pub(crate) fn spawn(taffrail: &Path, data_dir: &Path, log: &Path) -> Result<Self> {
        Self::spawn_with(taffrail, data_dir, log, &[])
    }

    /// The same, with variables added to its environment.
    pub(crate) fn spawn_with(
        taffrail: &Path,
        data_dir: &Path,
        log: &Path,
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let addr = free_port()?;
        let mut command = command(taffrail, data_dir, addr);
        command.envs(env.iter().copied()).stdout(out.try_clone()?).stderr(out);
        let (child, guard) =
            scratch::spawn(&mut command).with_context(|| format!("cannot start {}", taffrail.display()))?;
        let guard = Some(guard);
        Ok(Self { child, addr, data_dir: data_dir.to_owned(), log: log.to_owned(), guard })
    }

    /// Starts it and waits until `/ready` says 200.
    pub(crate) fn start(taffrail: &Path, data_dir: &Path, log: &Path) -> Result<Self> {
        let mut server = Self::spawn(taffrail, data_dir, log)?;
        server.wait_ready()?;
        Ok(server)
    }

    /// Polls `/ready` until it says 200.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if self.get_once("/ready").is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                self.guard = None;
                bail!("the server ended with {status} before it was ready:\n{}", tail(&self.log));
            }
            if begun.elapsed() > READY_LIMIT {
                bail!("the server was not ready within {READY_LIMIT:?}:\n{}", tail(&self.log));
            }
            std::thread::sleep(READY_POLL);
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::open(self.addr, REQUEST_LIMIT).context("cannot connect to the server")
    }

    /// The bearer header's value of this data directory.
    pub(crate) fn bearer(&self) -> Result<String> {
        let path = self.data_dir.join("token");
        let token = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(format!("Bearer {}", token.trim()))
    }

    /// Resident memory; none once it is gone.
    pub(crate) fn resident(&self) -> Option<Resident> {
        machine::resident(self.child.id())
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        self.guard = None;
        Ok(())
    }

    /// Asks it to stop and waits; an exit other than 0 is an error.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begun.elapsed() > STOP_LIMIT {
                bail!("the server did not stop within {STOP_LIMIT:?}:\n{}", tail(&self.log));
            }
            std::thread::sleep(STOP_POLL);
        };
        self.guard = None;
        if !status.success() {
            bail!("the server ended with {}:\n{}", describe(status), tail(&self.log));
        }
        Ok(())
    }

    /// Freezes it (`SIGSTOP`): sockets still accept, nothing answers.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen one go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal the server:\n{}", tail(&self.log)))
    }

    fn get_once(&self, path: &str) -> std::io::Result<Answer> {
        Connection::open(self.addr, REQUEST_LIMIT)?.send(&Request::get(path, &[]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.guard.take().is_some() {
            let _ = self.child.wait();
        }
    }
}

/// `taffrail serve` with nothing of the caller's environment that could lead it elsewhere.
pub(crate) fn command(taffrail: &Path, data_dir: &Path, addr: SocketAddr) -> Command {
    let mut command = Command::new(taffrail);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--listen")
        .arg(addr.to_string())
        .env("TAFFRAIL_HOME", data_dir)
        .env("CLAUDE_CONFIG_DIR", data_dir.join("claude"))
        .stdin(Stdio::null());
    command
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Lines of a log that a panic left.
pub(crate) fn panics_in(log: &Path) -> usize {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| PANIC_MARKS.iter().any(|mark| line.contains(mark))).count()
}

/// The end of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    }
}
