//! Looks at the machine and says what is there. Never fails: what cannot be seen is a fact too.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;
use taffrail_hook::home::{self, Environment};
use taffrail_hook::spool::{Backlog, SpoolDir};
use taffrail_server::config::{Config, Flags};
use taffrail_server::transcripts::{Survey, survey};
use taffrail_store::{Options, Reader};

use crate::doctor::DatabaseProbe;
use crate::install::hook_program;
use crate::settings::{self, OurHook, Places, Scope, extras};

/// Longest wait for a server that was announced.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Where the server listens unless told otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4000);
/// Largest answer of a server that is read.
const ANSWER_LIMIT_BYTES: u64 = 64 * 1024;

/// All that the judgement needs.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) home: Option<PathBuf>,
    pub(super) directory: Directory,
    pub(super) free_bytes: Option<u64>,
    /// What opening the database said; `None` where there is none yet, or nothing to open it with.
    pub(super) database: Option<Result<String, String>>,
    pub(super) server: Server,
    pub(super) backlog: Result<Backlog, String>,
    /// The newest capture time in the spool, Unix milliseconds.
    pub(super) newest_ms: Option<i64>,
    pub(super) now_ms: i64,
    pub(super) scopes: Vec<ScopeFacts>,
    pub(super) managed: Managed,
    /// What lies in the client's folders of transcripts; none where the configuration cannot be read.
    pub(super) transcripts: Option<Vec<Survey>>,
    /// The hook client that an install would write now.
    pub(super) expected_program: Option<String>,
    pub(super) version: &'static str,
}

/// The data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Directory {
    Missing,
    OtherFile,
    Unwritable(String),
    /// `mode` is its permission bits where the system has them.
    Usable {
        mode: Option<u32>,
    },
}

/// The server of this data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// None is announced; somebody else may have its port.
    NotRunning { default_port_taken: bool },
    /// Announced, but nothing answers there.
    Gone { listen: String },
    /// Something answers that is no Taffrail.
    Stranger { listen: String },
    /// It answers.
    Running { listen: String, version: String, status: String, notes: Vec<String> },
}

/// One settings file.
#[derive(Debug, Clone)]
pub(super) struct ScopeFacts {
    pub(super) scope: Scope,
    pub(super) path: PathBuf,
    pub(super) settings: Settings,
}

/// What a settings file says.
#[derive(Debug, Clone)]
pub(super) enum Settings {
    Missing,
    Broken(String),
    Read {
        hooks: Vec<OurHook>,
        /// For each program that a hook of ours calls.
        programs: Vec<(String, Program)>,
        disables_all_hooks: bool,
        /// Commands of the old Python hooks.
        old_hooks: Vec<String>,
        /// Telemetry and status line.
        extras: extras::Found,
    },
}

/// A program that a hook calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    Missing,
    NotExecutable,
    /// `version` where it was asked: only the program that an install would write is ever run.
    Usable {
        version: Option<String>,
    },
}

/// What the organisation's settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Managed {
    pub(super) only_managed_hooks: bool,
    pub(super) disables_all_hooks: bool,
}

pub(super) fn facts(data_dir: Option<&Path>, open_database: Option<DatabaseProbe<'_>>) -> Facts {
    let home = home::data_dir(data_dir.map(Path::to_owned), &Environment::of_process());
    let expected = hook_program().ok().map(|(program, _)| program);
    Facts {
        directory: home.as_deref().map_or(Directory::Missing, directory),
        free_bytes: home.as_deref().and_then(free_bytes),
        database: home.as_deref().and_then(|home| database(home, open_database?)),
        server: home.as_deref().map_or(Server::NotRunning { default_port_taken: false }, server),
        backlog: home.as_deref().map_or(Ok(Backlog::default()), |home| {
            SpoolDir::look(home).backlog().map_err(|error| error.to_string())
        }),
        newest_ms: home.as_deref().and_then(newest_ms),
        now_ms: unix_ms(SystemTime::now()),
        scopes: scopes(expected.as_deref()),
        managed: managed(),
        transcripts: home.as_deref().and_then(transcripts),
        expected_program: expected,
        version: env!("CARGO_PKG_VERSION"),
        home,
    }
}

/// What is there, against what the database knows, where there is one.
fn transcripts(home: &Path) -> Option<Vec<Survey>> {
    let flags = Flags { data_dir: Some(home.to_owned()), ..Flags::default() };
    let roots = Config::load(&flags).ok()?.transcripts.roots;
    let known = || Reader::open(&Options::new(home.join("taffrail.db"))).ok()?.transcript_files().ok();
    let known = if home.join("taffrail.db").is_file() { known() } else { None };
    Some(survey(&roots, &known.unwrap_or_default()))
}

fn directory(home: &Path) -> Directory {
    match fs::metadata(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Directory::Missing,
        Err(error) => return Directory::Unwritable(error.to_string()),
        Ok(found) if !found.is_dir() => return Directory::OtherFile,
        Ok(_) => {}
    }
    let spool = home.join("spool");
    let probed = if spool.exists() { spool } else { home.to_owned() };
    let probe = probed.join(format!("probe.{}", std::process::id()));
    let written = fs::write(&probe, b"x");
    let _ = fs::remove_file(&probe);
    match written {
        Ok(()) => Directory::Usable { mode: mode(home) },
        Err(error) => Directory::Unwritable(error.to_string()),
    }
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_path: &Path) -> Option<u32> {
    None
}

#[cfg(unix)]
fn free_bytes(home: &Path) -> Option<u64> {
    let existing = home.ancestors().find(|path| path.exists())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_home: &Path) -> Option<u64> {
    None
}

fn database(home: &Path, open: DatabaseProbe<'_>) -> Option<Result<String, String>> {
    let path = home.join("taffrail.db");
    path.exists().then(|| open(&path).map_err(|error| format!("{error:#}")))
}

fn server(home: &Path) -> Server {
    #[derive(Deserialize)]
    struct Notice {
        listen: SocketAddr,
    }
    let notice =
        fs::read(home.join("server.json")).ok().and_then(|json| serde_json::from_slice::<Notice>(&json).ok());
    let Some(Notice { listen }) = notice else {
        let taken = TcpStream::connect_timeout(&DEFAULT_LISTEN, SERVER_TIMEOUT).is_ok();
        return Server::NotRunning { default_port_taken: taken };
    };
    if TcpStream::connect_timeout(&listen, SERVER_TIMEOUT).is_err() {
        return Server::Gone { listen: listen.to_string() };
    }
    let listen = listen.to_string();
    match ask_health(&listen) {
        Some(Said { version, status, notes }) => Server::Running { listen, version, status, notes },
        None => Server::Stranger { listen },
    }
}

/// What a server says of itself.
#[derive(Deserialize)]
struct Said {
    version: String,
    status: String,
    #[serde(default)]
    notes: Vec<String>,
}

fn ask_health(listen: &str) -> Option<Said> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(SERVER_TIMEOUT))
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .build();
    let agent: ureq::Agent = config.into();
    let mut answer = agent.get(format!("http://{listen}/health")).call().ok()?;
    let body = answer.body_mut().with_config().limit(ANSWER_LIMIT_BYTES).read_to_string().ok()?;
    serde_json::from_str(&body).ok()
}

/// The newest frame's time, from its name: event ids begin with their milliseconds.
fn newest_ms(home: &Path) -> Option<i64> {
    let entries = fs::read_dir(SpoolDir::look(home).path()).ok()?;
    let ids = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        uuid::Uuid::try_parse(name.to_str()?.strip_suffix(".frame")?).ok()
    });
    let newest = ids.max()?;
    i64::try_from(newest.as_u128() >> 80).ok()
}

fn scopes(expected: Option<&str>) -> Vec<ScopeFacts> {
    let Ok(places) = Places::of_process() else { return Vec::new() };
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut found = Vec::new();
    for scope in Scope::ALL {
        let Ok(path) = places.file(scope) else { continue };
        // In the home directory the user's and the project's settings are one file.
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if seen.contains(&real) {
            continue;
        }
        seen.push(real);
        let settings = scope_settings(&path, expected);
        found.push(ScopeFacts { scope, path, settings });
    }
    found
}

fn scope_settings(path: &Path, expected: Option<&str>) -> Settings {
    let text = match settings::read(path) {
        Ok(Some(text)) => text,
        Ok(None) => return Settings::Missing,
        Err(error) => return Settings::Broken(format!("{error:#}")),
    };
    let hooks = match settings::hooks_in(&text) {
        Ok(hooks) => hooks,
        Err(error) => return Settings::Broken(format!("{:#}", error.root_cause())),
    };
    let extras = extras::extras_in(&text).unwrap_or_default();
    let value: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap_or_default();
    let mut paths: Vec<&str> = hooks.iter().filter_map(OurHook::program).collect();
    paths.sort_unstable();
    paths.dedup();
    let programs = paths.into_iter().map(|path| (path.to_owned(), program(path, expected))).collect();
    Settings::Read {
        disables_all_hooks: is_true(&value, "disableAllHooks"),
        old_hooks: old_hooks(&value),
        programs,
        hooks,
        extras,
    }
}

fn is_true(settings: &Value, key: &str) -> bool {
    settings.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Commands that call the hook scripts which send to the old server.
fn old_hooks(settings: &Value) -> Vec<String> {
    let events = settings.get("hooks").and_then(Value::as_object).into_iter().flatten();
    let groups = events.flat_map(|(_, groups)| groups.as_array().into_iter().flatten());
    let hooks = groups.flat_map(|group| group.get("hooks").and_then(Value::as_array).into_iter().flatten());
    let mut commands: Vec<String> = hooks
        .filter_map(|hook| hook.get("command")?.as_str())
        .filter(|command| command.contains("send_event.py"))
        .map(str::to_owned)
        .collect();
    commands.sort_unstable();
    commands.dedup();
    commands
}

fn program(path: &str, expected: Option<&str>) -> Program {
    let Some(found) = resolve(path) else { return Program::Missing };
    if !is_executable(&found) {
        return Program::NotExecutable;
    }
    // A settings file may come with a project: what it names is not run just to be asked.
    let version = (expected == Some(path)).then(|| version_of(&found)).flatten();
    Program::Usable { version }
}

/// A bare name is looked for in `PATH`, as the client does.
fn resolve(program: &str) -> Option<PathBuf> {
    if program.contains(['/', '\\']) {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> bool {
    true
}

fn version_of(program: &Path) -> Option<String> {
    let output =
        Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().last().map(str::to_owned)
}

fn managed() -> Managed {
    let path = if cfg!(target_os = "macos") {
        "/Library/Application Support/ClaudeCode/managed-settings.json"
    } else if cfg!(windows) {
        r"C:\Program Files\ClaudeCode\managed-settings.json"
    } else {
        "/etc/claude-code/managed-settings.json"
    };
    let Ok(Some(text)) = settings::read(Path::new(path)) else { return Managed::default() };
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    Managed {
        only_managed_hooks: is_true(&value, "allowManagedHooksOnly"),
        disables_all_hooks: is_true(&value, "disableAllHooks"),
    }
}

fn unix_ms(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
