//! The product under test, as a person would use it: `taffrail install`, `taffrail serve`,
//! and its API. Also a stand-in that accepts everything and answers nothing.

use super::Transport;
use super::client::Sandbox;
use super::compare::{Stored, of_item};
use crate::{http, process};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to be ready, and what was sent to be stored.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// Events asked for at once.
const PAGE: usize = 500;

/// One installation in a sandbox.
pub(crate) struct Taffrail<'a> {
    binary: &'a Path,
    sandbox: &'a Sandbox,
    address: SocketAddr,
    data_dir: PathBuf,
}

/// A server that is killed when this goes.
pub(crate) struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Taffrail<'a> {
    /// Picks a free port and a data directory inside the sandbox's home.
    pub(crate) fn new(binary: &'a Path, sandbox: &'a Sandbox) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Self { binary, sandbox, address, data_dir: sandbox.home().join("taffrail-data") })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the API asks for, once a server has run.
    pub(crate) fn token(&self) -> Result<String> {
        let token = fs::read_to_string(self.data_dir.join("token")).context("the server wrote no token")?;
        Ok(token.trim().to_owned())
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(self.binary);
        command.arg(verb).arg("--data-dir").arg(&self.data_dir);
        command.env_clear().envs(self.sandbox.basics()).current_dir(self.sandbox.project());
        command.stdin(Stdio::null());
        command
    }

    /// Lets `taffrail install` write the user settings. For http hooks a server must run, whose
    /// address the command finds in the data directory.
    pub(crate) fn install(&self, transport: Transport) -> Result<()> {
        let mut install = self.command("install");
        install.args(["--scope", "user", "--transport", transport.name(), "--otel", "--statusline"]);
        install.args(["--url", &format!("http://{}", self.address)]);
        let log = File::create(self.sandbox.out("install.log"))?;
        process::run(install.stdout(log))
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn serve(&self) -> Result<Server> {
        let log_path = self.sandbox.out("server.log");
        let log = File::options().create(true).append(true).open(&log_path)?;
        let mut serve = self.command("serve");
        serve.args(["--listen", &self.address.to_string()]).stdout(log.try_clone()?).stderr(log);
        let mut server = Server { child: serve.spawn().context("could not start taffrail serve")? };
        let start = Instant::now();
        while !http::get(self.address, "/ready", None).is_ok_and(|(status, _)| status == 200) {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                bail!("taffrail serve ended at once: {status}\n{log}");
            }
            if start.elapsed() > READY_TIMEOUT {
                bail!("taffrail serve was not ready within {} s", READY_TIMEOUT.as_secs());
            }
            std::thread::sleep(POLL);
        }
        Ok(server)
    }

    /// Reads stored events until there are as many as were sent and no more come, or time is up.
    pub(crate) fn settled_events(&self, sent: usize) -> Result<Vec<Stored>> {
        let start = Instant::now();
        let mut before = usize::MAX;
        loop {
            let events = self.events()?;
            let steady = events.len() == before;
            if (steady && events.len() >= sent) || start.elapsed() > SETTLE_TIMEOUT {
                return Ok(events);
            }
            before = events.len();
            std::thread::sleep(POLL * 4);
        }
    }

    fn events(&self) -> Result<Vec<Stored>> {
        let token = self.token()?;
        let mut events = Vec::new();
        let mut cursor = String::new();
        loop {
            let target = format!("/api/v1/events?limit={PAGE}{cursor}");
            let (status, body) = http::get(self.address, &target, Some(&token))?;
            if status != 200 {
                bail!("GET {target} answered {status}: {}", String::from_utf8_lossy(&body));
            }
            let page: Value = serde_json::from_slice(&body)?;
            let items = page["items"].as_array().context("a page without items")?;
            // What the client's telemetry says of the same things is not what was sent to hooks.
            events.extend(items.iter().filter(|item| item["source"] == "hook").map(of_item));
            match &page["next_cursor"] {
                Value::Null => return Ok(events),
                Value::String(next) => cursor = format!("&cursor={next}"),
                next => cursor = format!("&cursor={next}"),
            }
        }
    }

    /// Holds every door of the server open and answers at none, until it is dropped.
    #[cfg(unix)]
    pub(crate) fn hang(&self) -> Result<Hung> {
        use std::os::unix::fs::PermissionsExt as _;
        use std::os::unix::net::{UnixDatagram, UnixListener};
        fs::create_dir_all(&self.data_dir)?;
        fs::set_permissions(&self.data_dir, fs::Permissions::from_mode(0o700))?;
        let doors = [self.data_dir.join("hook.sock"), self.data_dir.join("poke.sock")];
        for door in &doors {
            let _ = fs::remove_file(door);
        }
        // Connections wait in the backlog: accepted by the system, read by nobody.
        Ok(Hung {
            _verdicts: UnixListener::bind(&doors[0])?,
            _pokes: UnixDatagram::bind(&doors[1])?,
            _http: TcpListener::bind(self.address)?,
            doors,
        })
    }
}

/// A server that accepts and never answers.
#[cfg(unix)]
pub(crate) struct Hung {
    _verdicts: std::os::unix::net::UnixListener,
    _pokes: std::os::unix::net::UnixDatagram,
    _http: TcpListener,
    doors: [PathBuf; 2],
}

#[cfg(unix)]
impl Drop for Hung {
    fn drop(&mut self) {
        for door in &self.doors {
            let _ = fs::remove_file(door);
        }
    }
}
