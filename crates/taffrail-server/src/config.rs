//! What the server is told: flags over environment over `config.toml` over defaults, parsed once, raw to checked.
//!
//! Every environment variable stands in [`env`], every bound in [`Limits`]. An unknown key in the file is an error.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::transcripts::roots;

/// The old server's address, so that hooks in use today need no change.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:4000";

/// Where OTLP over HTTP is taken, by OpenTelemetry's convention.
pub const DEFAULT_OTLP_HTTP: &str = "127.0.0.1:4318";
/// Where OTLP over gRPC is taken, by OpenTelemetry's convention.
pub const DEFAULT_OTLP_GRPC: &str = "127.0.0.1:4317";

/// The smallest daily budget that a detector watches, in US dollars.
const BUDGET_WATCHED_USD: f64 = 0.01;

/// Every environment variable that the server reads.
pub mod env {
    /// The data directory.
    pub const HOME: &str = "TAFFRAIL_HOME";
    /// Address and port to listen on.
    pub const LISTEN: &str = "TAFFRAIL_LISTEN";
    /// `commit` or `process`.
    pub const DURABILITY: &str = "TAFFRAIL_DURABILITY";
    /// Comma-separated origins of old pages.
    pub const LEGACY_ORIGINS: &str = "TAFFRAIL_LEGACY_ORIGINS";
    /// Comma-separated names that a `Host` header may also have.
    pub const ALLOWED_HOSTS: &str = "TAFFRAIL_ALLOWED_HOSTS";
    /// Log filter, as of `tracing`.
    pub const LOG: &str = "TAFFRAIL_LOG";
    /// The client's own: its configuration folders, with commas between them.
    pub const CLAUDE_CONFIG_DIR: &str = "CLAUDE_CONFIG_DIR";
    /// Where the client's configuration folder lies without `CLAUDE_CONFIG_DIR`.
    pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
}

/// What the command line gave; a field left out falls to the next source.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--config`; without it `config.toml` of the data directory, if there is one.
    pub config: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--durability`
    pub durability: Option<String>,
    /// `--legacy-origin`, repeatable
    pub legacy_origins: Vec<String>,
    /// `--allowed-host`, repeatable
    pub allowed_hosts: Vec<String>,
    /// `--log`
    pub log: Option<String>,
}

/// When an event counts as accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Committed and synced: survives a power cut.
    #[default]
    Commit,
    /// Committed, not synced: survives the end of the process.
    Process,
}

/// Checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where to listen; a loopback address.
    pub listen: SocketAddr,
    /// When an event counts as accepted.
    pub durability: Durability,
    /// Origins of old pages that may use the old routes without the token.
    pub legacy_origins: Vec<String>,
    /// Names a `Host` header may have beside the loopback ones; with a port, only that port.
    pub allowed_hosts: Vec<String>,
    /// What may be spent.
    pub budget: Budget,
    /// OpenTelemetry's own ports.
    pub otlp: Otlp,
    /// Bounds.
    pub limits: Limits,
    /// What is done with the client's transcripts.
    pub transcripts: TranscriptsConfig,
    /// Thresholds of the detectors.
    pub detectors: taffrail_engine::Config,
    /// Git in local projects.
    pub git: GitConfig,
    /// Log filter.
    pub log: String,
}

/// What may be spent, in US dollars by the calendar of this machine's time zone; none where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// A day.
    pub daily_usd: Option<f64>,
    /// A month.
    pub monthly_usd: Option<f64>,
}

/// What is done with the client's transcripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscriptsConfig {
    /// Whether they are followed.
    pub tail: bool,
    /// Whether they are archived before the client deletes them.
    pub archive: bool,
    /// How long a transcript must be quiet before it is archived, in hours.
    pub archive_after_hours: u64,
    /// Between two looks at every file, in seconds: what a watch did not tell is found then.
    pub rescan_seconds: u64,
    /// Folders of transcripts: the client's own, then those of the file.
    pub roots: Vec<PathBuf>,
}

/// What is read of git in local projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GitConfig {
    /// Whether `git log` is run in the directories of sessions, to read only, when someone asks.
    pub read: bool,
}

impl Default for GitConfig {
    fn default() -> Self {
        Self { read: true }
    }
}

/// Where telemetry is taken beside the main port, which always takes OTLP over HTTP. A port that is not to be had is
/// said in the log and by `/api/v1/health`, and the server goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Otlp {
    /// OTLP over HTTP; none turns it off.
    pub http: Option<SocketAddr>,
    /// OTLP over gRPC; none turns it off.
    pub grpc: Option<SocketAddr>,
}

/// Every bound of the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, in bytes, as sent.
    pub body_bytes: usize,
    /// Largest request body after decompression, in bytes.
    pub decompressed_bytes: usize,
    /// Largest ratio of decompressed to compressed size.
    pub decompression_ratio: usize,
    /// Connections served at once.
    pub connections: usize,
    /// From the first byte of a request to the end of its headers, in milliseconds.
    pub header_read_ms: u64,
    /// How long a connection may lie idle between requests, in milliseconds.
    pub idle_ms: u64,
    /// How long one read of a body may take before the minimum rate counts, in milliseconds.
    pub body_grace_ms: u64,
    /// Slowest body, in bytes a second, after the grace time.
    pub body_min_rate: u64,
    /// Longest time a body may take in all, in milliseconds.
    pub body_total_ms: u64,
    /// How long a peer may leave our answer unread, in milliseconds.
    pub write_stall_ms: u64,
    /// Events waiting for the writer.
    pub queue_events: usize,
    /// Frames waiting for one reader of `/stream`.
    pub live_frames: usize,
    /// Bytes waiting for one reader of `/stream`.
    pub live_bytes: usize,
    /// Readers of `/stream` at once.
    pub live_clients: usize,
    /// Database reads at once.
    pub reads: usize,
    /// How long a stop waits for what is under way, in milliseconds.
    pub shutdown_ms: u64,
    /// Database page cache, in bytes.
    pub cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            decompressed_bytes: 64 << 20,
            decompression_ratio: 100,
            connections: 1024,
            header_read_ms: 10_000,
            idle_ms: 75_000,
            body_grace_ms: 10_000,
            body_min_rate: 16 << 10,
            body_total_ms: 120_000,
            write_stall_ms: 60_000,
            queue_events: 20_000,
            live_frames: 2_048,
            live_bytes: 16 << 20,
            live_clients: 64,
            reads: 4,
            shutdown_ms: 5_000,
            cache_bytes: 16 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn header_read(&self) -> Duration {
        Duration::from_millis(self.header_read_ms)
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }

    pub(crate) fn shutdown(&self) -> Duration {
        Duration::from_millis(self.shutdown_ms)
    }
}

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ConfigError {
    #[error("cannot read {}: {source}\nhint: check the path given to --config", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not a valid configuration: {message}\nhint: known keys are {KNOWN_KEYS}", path.display())]
    Parse { path: PathBuf, message: String },
    #[error("`{value}` is no address to listen on\nhint: give ADDRESS:PORT, such as {DEFAULT_LISTEN}")]
    Listen { value: String },
    #[error(
        "refusing to listen on {0}: only loopback addresses are served, because there are no users and no TLS yet\n\
         hint: listen on 127.0.0.1 and reach it from elsewhere through an ssh tunnel"
    )]
    NotLoopback(SocketAddr),
    #[error("[otlp] {key} is `{value}`\nhint: give ADDRESS:PORT, such as {standard}, or false")]
    Otlp { key: &'static str, value: String, standard: &'static str },
    #[error("`{0}` is no durability\nhint: `commit` (survives a power cut) or `process` (survives a crash)")]
    Durability(String),
    #[error("`{0}` is no origin\nhint: give scheme and host, such as http://localhost:5173")]
    Origin(String),
    #[error("[budget] {0} is no amount in dollars\nhint: give a number from 0 on, such as 25 or 12.5")]
    Budget(f64),
    #[error("`{0}` is no folder of transcripts\nhint: give an absolute path, or one that begins with ~/")]
    Root(String),
    #[error(transparent)]
    Detectors(#[from] taffrail_engine::ConfigError),
    #[error("the data directory is not known: neither --data-dir, TAFFRAIL_HOME nor a home directory is set")]
    NoHome,
}

const KNOWN_KEYS: &str = "listen, data_dir, durability, legacy_origins, allowed_hosts, log and the tables [budget], \
    [detectors.NAME], [git], [limits], [otlp] and [transcripts]";

/// `config.toml` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<String>,
    data_dir: Option<PathBuf>,
    durability: Option<String>,
    legacy_origins: Option<Vec<String>>,
    allowed_hosts: Option<Vec<String>>,
    log: Option<String>,
    budget: Budget,
    otlp: OtlpFile,
    git: GitConfig,
    limits: Limits,
    transcripts: TranscriptsFile,
    detectors: taffrail_engine::Config,
}

/// The table `[transcripts]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TranscriptsFile {
    tail: bool,
    archive: bool,
    archive_after_hours: u64,
    rescan_seconds: u64,
    /// Beside the client's own.
    roots: Vec<String>,
}

impl Default for TranscriptsFile {
    fn default() -> Self {
        Self { tail: true, archive: true, archive_after_hours: 24, rescan_seconds: 5, roots: Vec::new() }
    }
}

impl TranscriptsFile {
    fn resolve(self, var: &dyn Fn(&str) -> Option<String>) -> Result<TranscriptsConfig, ConfigError> {
        let home = var("HOME").map(PathBuf::from);
        let mut roots = roots::of_client(var);
        for told in self.roots {
            let root = roots::from_home(&told, home.as_deref());
            if !root.is_absolute() {
                return Err(ConfigError::Root(told));
            }
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        Ok(TranscriptsConfig {
            tail: self.tail,
            archive: self.archive,
            archive_after_hours: self.archive_after_hours,
            rescan_seconds: self.rescan_seconds.max(1),
            roots,
        })
    }
}

/// `[otlp]` as written: an address, or `false`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OtlpFile {
    http: Option<toml::Value>,
    grpc: Option<toml::Value>,
}

impl Config {
    /// Reads the process environment and the file, and checks all of it.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the value and says what would be right.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        Self::resolve(flags, &|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    }

    /// As [`Config::load`] with another environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn resolve(flags: &Flags, var: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let told_dir = flags.data_dir.clone().or_else(|| var(env::HOME).map(PathBuf::from));
        let first_dir = told_dir.clone().or_else(|| default_data_dir(var));
        let file = read_file(flags.config.as_deref(), first_dir.as_deref())?;
        let data_dir = told_dir.or(file.data_dir).or(first_dir).ok_or(ConfigError::NoHome)?;

        let listen = flags.listen.clone().or_else(|| var(env::LISTEN)).or(file.listen);
        let durability = flags.durability.clone().or_else(|| var(env::DURABILITY)).or(file.durability);
        let origins = list(&flags.legacy_origins, var(env::LEGACY_ORIGINS), file.legacy_origins);
        let hosts = list(&flags.allowed_hosts, var(env::ALLOWED_HOSTS), file.allowed_hosts);
        Ok(Self {
            data_dir,
            listen: parse_listen(listen.as_deref().unwrap_or(DEFAULT_LISTEN))?,
            durability: parse_durability(durability.as_deref())?,
            legacy_origins: origins.iter().map(|o| parse_origin(o)).collect::<Result<_, _>>()?,
            allowed_hosts: hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
            budget: parse_budget(file.budget)?,
            otlp: Otlp {
                http: parse_door("http", file.otlp.http.as_ref(), DEFAULT_OTLP_HTTP)?,
                grpc: parse_door("grpc", file.otlp.grpc.as_ref(), DEFAULT_OTLP_GRPC)?,
            },
            git: file.git,
            limits: file.limits,
            transcripts: file.transcripts.resolve(var)?,
            detectors: detectors_of(file.detectors, &file.budget)?,
            log: flags
                .log
                .clone()
                .or_else(|| var(env::LOG))
                .or(file.log)
                .unwrap_or_else(|| "info".to_owned()),
        })
    }

    /// A configuration for a data directory with everything else at its default, on a free port and without OTLP's own
    /// ports. For tests and tools.
    #[must_use]
    pub fn for_dir(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            durability: Durability::Commit,
            legacy_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            budget: Budget::default(),
            otlp: Otlp::default(),
            limits: Limits::default(),
            // The transcripts of whoever runs a test or a tool are none of its business.
            transcripts: TranscriptsConfig {
                tail: false,
                archive: false,
                archive_after_hours: 24,
                rescan_seconds: 5,
                roots: Vec::new(),
            },
            detectors: taffrail_engine::Config::default(),
            git: GitConfig::default(),
            log: "info".to_owned(),
        }
    }
}

fn read_file(told: Option<&Path>, data_dir: Option<&Path>) -> Result<File, ConfigError> {
    let (path, required) = match (told, data_dir) {
        (Some(path), _) => (path.to_owned(), true),
        (None, Some(dir)) => (dir.join("config.toml"), false),
        (None, None) => return Ok(File::default()),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|e| ConfigError::Parse { path, message: e.to_string() }),
        // Something that is no directory in the data directory's place is said when that is opened.
        Err(e) if !required && matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(File::default())
        }
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

fn list(flags: &[String], var: Option<String>, file: Option<Vec<String>>) -> Vec<String> {
    if !flags.is_empty() {
        return flags.to_vec();
    }
    let from_env = var.map(|v| v.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect());
    from_env.or(file).unwrap_or_default()
}

/// The daily budget is one that the detector of budgets watches, unless its own table names another.
fn detectors_of(
    mut told: taffrail_engine::Config,
    budget: &Budget,
) -> Result<taffrail_engine::Config, ConfigError> {
    let threshold = &mut told.budget_threshold;
    // A budget of nothing is none that a part could be used of.
    threshold.day_usd = threshold.day_usd.or(budget.daily_usd.filter(|usd| *usd >= BUDGET_WATCHED_USD));
    Ok(told.checked()?)
}

fn parse_listen(value: &str) -> Result<SocketAddr, ConfigError> {
    let named = value.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let addr: SocketAddr = named
        .as_deref()
        .unwrap_or(value)
        .parse()
        .map_err(|_| ConfigError::Listen { value: value.to_owned() })?;
    if !addr.ip().is_loopback() {
        return Err(ConfigError::NotLoopback(addr));
    }
    Ok(addr)
}

/// One of OTLP's own ports: as written, else where OpenTelemetry has it.
fn parse_door(
    key: &'static str,
    value: Option<&toml::Value>,
    standard: &'static str,
) -> Result<Option<SocketAddr>, ConfigError> {
    match value {
        None => parse_listen(standard).map(Some),
        Some(toml::Value::Boolean(false)) => Ok(None),
        Some(toml::Value::Boolean(true)) => parse_listen(standard).map(Some),
        Some(toml::Value::String(address)) => match parse_listen(address) {
            Err(ConfigError::Listen { value }) => Err(ConfigError::Otlp { key, value, standard }),
            parsed => parsed.map(Some),
        },
        Some(other) => Err(ConfigError::Otlp { key, value: other.to_string(), standard }),
    }
}

fn parse_durability(value: Option<&str>) -> Result<Durability, ConfigError> {
    match value {
        None | Some("commit") => Ok(Durability::Commit),
        Some("process") => Ok(Durability::Process),
        Some(other) => Err(ConfigError::Durability(other.to_owned())),
    }
}

fn parse_budget(budget: Budget) -> Result<Budget, ConfigError> {
    let amounts = [budget.daily_usd, budget.monthly_usd];
    match amounts.into_iter().flatten().find(|usd| !usd.is_finite() || *usd < 0.0) {
        Some(usd) => Err(ConfigError::Budget(usd)),
        None => Ok(budget),
    }
}

/// An origin as a browser writes it: scheme, host and port, nothing more.
fn parse_origin(value: &str) -> Result<String, ConfigError> {
    let bad = || ConfigError::Origin(value.to_owned());
    let value = value.trim_end_matches('/');
    let host = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://")).ok_or_else(bad)?;
    if host.is_empty() || host.contains(['/', '*', '@', ' ', '?', '#']) {
        return Err(bad());
    }
    Ok(value.to_ascii_lowercase())
}

/// The platform's data directory for this program.
fn default_data_dir(var: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = || var("HOME").map(PathBuf::from);
    if cfg!(windows) {
        return var("LOCALAPPDATA").map(|dir| PathBuf::from(dir).join("taffrail"));
    }
    if cfg!(target_os = "macos") {
        return home().map(|home| home.join("Library/Application Support/taffrail"));
    }
    let xdg = var("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    xdg.or_else(|| home().map(|home| home.join(".local/share"))).map(|dir| dir.join("taffrail"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn resolve(flags: &Flags, vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Config::resolve(flags, &var)
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("config.toml"),
            "listen = \"127.0.0.1:1\"\ndurability = \"process\"\nlegacy_origins = [\"http://localhost:5173/\"]\n[limits]\nreads = 2\n",
        )
        .unwrap();
        let home = dir.path().to_str().unwrap();
        let config = resolve(&Flags::default(), &[(env::HOME, home)]).unwrap();
        assert_eq!((config.listen.port(), config.durability), (1, Durability::Process));
        assert_eq!(config.legacy_origins, ["http://localhost:5173"]);
        assert_eq!((config.limits.reads, config.limits.connections), (2, 1024));

        let vars = [(env::HOME, home), (env::LISTEN, "127.0.0.1:2")];
        assert_eq!(resolve(&Flags::default(), &vars).unwrap().listen.port(), 2);
        let flags = Flags { listen: Some("localhost:3".to_owned()), ..Flags::default() };
        assert_eq!(resolve(&flags, &vars).unwrap().listen.port(), 3);
    }

    #[test]
    #[cfg(unix)]
    fn transcripts_are_followed_in_the_clients_folders_and_the_told_ones() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let vars = [(env::HOME, home), ("HOME", "/h"), (env::CLAUDE_CONFIG_DIR, "/a")];
        let config = resolve(&Flags::default(), &vars).unwrap().transcripts;
        assert!(config.tail && config.archive);
        assert_eq!(config.roots, [PathBuf::from("/a/projects")]);

        let write = |text: &str| std::fs::write(dir.path().join("config.toml"), text).unwrap();
        write("[transcripts]\ntail = false\narchive_after_hours = 2\nroots = [\"~/b\", \"/a/projects\"]\n");
        let config = resolve(&Flags::default(), &vars).unwrap().transcripts;
        assert!(!config.tail && config.archive_after_hours == 2);
        assert_eq!(config.roots, [PathBuf::from("/a/projects"), PathBuf::from("/h/b")]);

        write("[transcripts]\nroots = [\"relative\"]\n");
        let message = resolve(&Flags::default(), &vars).unwrap_err().to_string();
        assert!(message.contains("relative") && message.contains("hint:"), "{message}");
    }

    #[test]
    fn the_ports_of_otlp_can_be_moved_and_turned_off_and_stay_on_loopback() {
        let dir = tempfile::tempdir().unwrap();
        let with = |text: &str| {
            std::fs::write(dir.path().join("config.toml"), text).unwrap();
            resolve(&Flags::default(), &[(env::HOME, dir.path().to_str().unwrap())])
        };
        let port = |addr: Option<SocketAddr>| addr.map(|addr| addr.port());
        let standard = with("").unwrap().otlp;
        assert_eq!((port(standard.http), port(standard.grpc)), (Some(4318), Some(4317)));
        let moved = with("[otlp]\nhttp = \"127.0.0.1:0\"\ngrpc = false\n").unwrap().otlp;
        assert_eq!((port(moved.http), port(moved.grpc)), (Some(0), None));
        for (text, word) in [
            ("[otlp]\nhttp = \"0.0.0.0:4318\"\n", "ssh tunnel"),
            ("[otlp]\ngrpc = 4317\n", "127.0.0.1:4317"),
            ("[otlp]\ngrpc = \"4317\"\n", "or false"),
            ("[otlp]\nport = 1\n", "port"),
        ] {
            let message = with(text).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn mistakes_are_named_with_what_would_be_right() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), "lisen = \"127.0.0.1:1\"\n").unwrap();
        let message =
            resolve(&Flags::default(), &[(env::HOME, dir.path().to_str().unwrap())]).unwrap_err().to_string();
        assert!(message.contains("lisen") && message.contains("legacy_origins"), "{message}");

        for (flags, word) in [
            (Flags { listen: Some("0.0.0.0:4000".to_owned()), ..Flags::default() }, "ssh tunnel"),
            (Flags { listen: Some("4000".to_owned()), ..Flags::default() }, "ADDRESS:PORT"),
            (Flags { durability: Some("never".to_owned()), ..Flags::default() }, "power cut"),
            (Flags { legacy_origins: vec!["*".to_owned()], ..Flags::default() }, "http://localhost:5173"),
            (Flags { config: Some(PathBuf::from("/nonexistent/t.toml")), ..Flags::default() }, "--config"),
        ] {
            let message = resolve(&flags, &[(env::HOME, "/nonexistent")]).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
