//! `taffrail install`: wires Claude Code's hooks, and where asked its telemetry and status line, into a settings file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use similar::TextDiff;

use crate::settings::extras::{self, Extras, shell_word};
use crate::settings::{self, BACKUP_MARK, HTTP_HOOK_PATH, Places, Scope, Wiring};

/// Name of the hook client beside this program.
const HOOK_PROGRAM: &str = if cfg!(windows) { "taffrail-hook.exe" } else { "taffrail-hook" };
/// Where the server listens unless it says otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:4000";

/// Arguments of `taffrail install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Which settings file
    #[arg(long, value_enum, default_value_t = Scope::User)]
    pub(crate) scope: Scope,
    /// How events are sent; http has no guard and loses events while no server runs
    #[arg(long, value_enum, default_value_t = Transport::Command)]
    pub(crate) transport: Transport,
    /// Let the client send its telemetry, too: final token counts and costs, retries, compactions
    #[arg(long)]
    pub(crate) otel: bool,
    /// Let the client show `taffrail statusline`
    #[arg(long)]
    pub(crate) statusline: bool,
    /// Address of the server for http hooks and telemetry [default: that of the data directory's server]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Show the change as a diff and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How events leave the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// The hook client: guard and spool work without a server.
    Command,
    /// http hooks, where the client honours them.
    Http,
}

/// Runs the command; `data_dir` is the one that was chosen, if one was.
///
/// # Errors
/// When the settings cannot be read, understood or written; they are untouched then.
pub(crate) fn run(args: &InstallArgs, data_dir: Option<&Path>) -> Result<()> {
    let path = Places::of_process()?.file(args.scope)?;
    let before = settings::read(&path)?;
    let wiring = wiring(args, data_dir)?;
    let after = settings::with_hooks(before.as_deref().unwrap_or("{}"), &wiring)
        .with_context(|| format!("cannot install into {}", path.display()))?;
    let extras = extras(args, data_dir)?;
    let after = extras::with_extras(&after, &extras)
        .with_context(|| format!("cannot install into {}", path.display()))?;
    let after = if before.is_none() { after + "\n" } else { after };
    if args.transport == Transport::Http {
        note(
            "http hooks: no guard and no spool while the server is away; SessionStart and Setup stay commands",
        )?;
    }
    if before.as_deref() == Some(after.as_str()) {
        return say(&format!("nothing to do: the hooks are in {}", path.display()));
    }
    if args.dry_run {
        return print_diff(&path, before.as_deref().unwrap_or_default(), &after);
    }
    let backup = before.as_deref().map(|text| keep_backup(&path, text)).transpose()?.flatten();
    write_unless_changed(&path, before.as_deref(), &after)?;
    let also = [(args.otel, ", telemetry"), (args.statusline, ", status line")];
    let also: String = also.iter().filter(|(wanted, _)| *wanted).map(|(_, what)| *what).collect();
    say(&format!("installed {} hooks{also} in {}", wiring.groups().len(), path.display()))?;
    if let Some(backup) = backup {
        say(&format!("the settings as they were: {}", backup.display()))?;
    }
    say("sessions that run already keep their hooks; new ones are recorded")
}

fn wiring(args: &InstallArgs, data_dir: Option<&Path>) -> Result<Wiring> {
    let (program, mut arguments) = hook_program()?;
    if let Some(data_dir) = data_dir {
        let data_dir = std::path::absolute(data_dir)?;
        arguments.push("--data-dir".to_owned());
        arguments.push(text(&data_dir)?.to_owned());
    }
    let http_url = match args.transport {
        Transport::Command if args.url.is_some() && !args.otel => {
            bail!("--url is for http hooks and telemetry\nhint: add --transport http or --otel")
        }
        Transport::Command => None,
        Transport::Http => Some(http_url(args.url.as_deref(), data_dir)?),
    };
    Ok(Wiring { program, arguments, http_url })
}

fn extras(args: &InstallArgs, data_dir: Option<&Path>) -> Result<Extras> {
    let otlp_endpoint = match args.otel {
        true => Some(base_url(args.url.as_deref(), data_dir)?),
        false => None,
    };
    Ok(Extras { otlp_endpoint, statusline: args.statusline.then(|| statusline(data_dir)).transpose()? })
}

/// The status line's command: the client gives it to a shell.
fn statusline(data_dir: Option<&Path>) -> Result<String> {
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = shell_word(text(&this)?);
    if let Some(data_dir) = data_dir {
        let data_dir = std::path::absolute(data_dir)?;
        command = format!("{command} --data-dir {}", shell_word(text(&data_dir)?));
    }
    Ok(command + " statusline")
}

/// The hook client beside this program, or this program as `taffrail hook`.
pub(crate) fn hook_program() -> Result<(String, Vec<String>)> {
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = this.with_file_name(HOOK_PROGRAM);
    if beside.is_file() {
        return Ok((text(&beside)?.to_owned(), Vec::new()));
    }
    Ok((text(&this)?.to_owned(), vec!["hook".to_owned()]))
}

fn http_url(given: Option<&str>, data_dir: Option<&Path>) -> Result<String> {
    Ok(base_url(given, data_dir)? + HTTP_HOOK_PATH)
}

/// The server's address without a path.
fn base_url(given: Option<&str>, data_dir: Option<&Path>) -> Result<String> {
    let base = match given {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => server_address(data_dir).unwrap_or_else(|| DEFAULT_SERVER.to_owned()),
    };
    if !(base.starts_with("http://") || base.starts_with("https://")) {
        bail!("{base:?} is not an http address\nhint: as in {DEFAULT_SERVER}");
    }
    Ok(base.strip_suffix(HTTP_HOOK_PATH).map_or(base.clone(), str::to_owned))
}

fn server_address(data_dir: Option<&Path>) -> Option<String> {
    let environment = taffrail_hook::home::Environment::of_process();
    let home = taffrail_hook::home::data_dir(data_dir.map(Path::to_owned), &environment)?;
    let notice: serde_json::Value = serde_json::from_slice(&fs::read(home.join("server.json")).ok()?).ok()?;
    Some(format!("http://{}", notice.get("listen")?.as_str()?))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not valid UTF-8\nhint: settings cannot name it", path.display()))
}

/// Keeps the settings as they were before Taffrail, in one file; none where they hold our hooks already.
fn keep_backup(path: &Path, before: &str) -> Result<Option<PathBuf>> {
    let had_ours = settings::has_ours(before)?;
    let old = settings::backups(path);
    let only_ours = had_ours && is_empty_object(&settings::without_ours(before, None)?);
    if had_ours && (!old.is_empty() || only_ours) {
        return Ok(None);
    }
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = real.file_name().and_then(|name| name.to_str()).context("settings need a name")?;
    let backup = real.with_file_name(format!("{name}{BACKUP_MARK}{time}"));
    settings::write_atomically(&backup, before)?;
    fs::set_permissions(&backup, fs::metadata(&real)?.permissions())?;
    for stale in old.iter().filter(|stale| **stale != backup) {
        let _ = fs::remove_file(stale);
    }
    Ok(Some(backup))
}

/// Whether settings text holds nothing.
pub(crate) fn is_empty_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text.trim_start_matches('\u{feff}'))
        .is_ok_and(|settings| settings.is_empty())
}

/// Writes, unless somebody else wrote since it was read: the client edits its settings too.
pub(crate) fn write_unless_changed(path: &Path, before: Option<&str>, after: &str) -> Result<()> {
    if settings::read(path)?.as_deref() != before {
        bail!("{} changed just now\nhint: run it again", path.display());
    }
    settings::write_atomically(path, after)
}

/// Prints a change as a unified diff.
pub(crate) fn print_diff(path: &Path, before: &str, after: &str) -> Result<()> {
    let name = path.display().to_string();
    let diff = TextDiff::from_lines(before, after);
    let text = diff.unified_diff().header(&name, &name).to_string();
    say(text.trim_end_matches('\n'))
}

/// A line of the result.
pub(crate) fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

fn note(line: &str) -> Result<()> {
    Ok(writeln!(io::stderr().lock(), "note: {line}")?)
}
