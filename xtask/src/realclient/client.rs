//! The pinned real client: installing it, giving it a home of its own, running it.
//!
//! It inherits nothing of the caller's environment, talks to the scripted model on loopback,
//! and every other address is behind a proxy that is not there. It is never committed.

use super::recorder;
use super::scenario::{Exit, Run, Scenario, Until};
use crate::{process, tools, workspace};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The version whose behaviour the project relies on; recordings are made with it.
pub(crate) const CLIENT_VERSION: &str = "2.1.330";
const CLIENT_PACKAGE: &str = "@anthropic-ai/claude-code";

/// No scenario takes longer; a client that does hangs.
const RUN_TIMEOUT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);

/// Observed by the recorder. Two are left out as Taffrail leaves them out: a hook on
/// `WorktreeCreate` replaces the client's own worktrees, one on `MessageDisplay` delays text.
const EVENTS: [&str; 29] = [
    "SessionStart",
    "Setup",
    "UserPromptSubmit",
    "UserPromptExpansion",
    "PreToolUse",
    "PermissionRequest",
    "PermissionDenied",
    "PostToolUse",
    "PostToolUseFailure",
    "PostToolBatch",
    "Notification",
    "SubagentStart",
    "SubagentStop",
    "TaskCreated",
    "TaskCompleted",
    "Stop",
    "StopFailure",
    "TeammateIdle",
    "InstructionsLoaded",
    "ConfigChange",
    "CwdChanged",
    "DirectoryAdded",
    "FileChanged",
    "WorktreeRemove",
    "PreCompact",
    "PostCompact",
    "Elicitation",
    "ElicitationResult",
    "SessionEnd",
];

/// Finds the pinned client in the ignored folder, or installs it there.
pub(crate) fn ensure() -> Result<PathBuf> {
    let folder = workspace::root().join(".client");
    let client = folder.join("node_modules/.bin/claude");
    if is_pinned(&client) {
        return Ok(client);
    }
    tools::check_node()?;
    fs::create_dir_all(&folder)?;
    let package = format!("{CLIENT_PACKAGE}@{CLIENT_VERSION}");
    let flags = ["install", "--no-fund", "--no-audit", "--no-save", "--loglevel", "error", "--prefix"];
    process::run(Command::new("npm").args(flags).arg(&folder).arg(package))?;
    if !is_pinned(&client) {
        bail!("npm installed something other than {CLIENT_PACKAGE} {CLIENT_VERSION}");
    }
    Ok(client)
}

fn is_pinned(client: &Path) -> bool {
    let version = Command::new(client).arg("--version").stderr(Stdio::null()).output();
    version.is_ok_and(|output| output.stdout.starts_with(CLIENT_VERSION.as_bytes()))
}

/// A home directory with a project in it, thrown away in the end.
pub(crate) struct Sandbox {
    root: PathBuf,
    keep: bool,
}

impl Sandbox {
    /// Makes the folders; `keep` leaves them for a look afterwards.
    pub(crate) fn create(name: &str, keep: bool) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("tfrc-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for folder in ["home/.claude", "home/tmp", "home/project", "out"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root: root.canonicalize()?, keep })
    }

    /// The client's HOME.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// Its working directory.
    pub(crate) fn project(&self) -> PathBuf {
        self.root.join("home/project")
    }

    /// What the programs printed, outside of HOME: scenarios try to delete that.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.root.join("out").join(name)
    }

    /// The independent recording.
    pub(crate) fn recording(&self) -> PathBuf {
        self.out("hooks.jsonl")
    }

    /// Where to look when something went wrong.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Runs the scenario's set-up lines in the project.
    pub(crate) fn set_up(&self, scenario: &Scenario) -> Result<()> {
        let script = scenario.setup.join("\n");
        let mut shell = Command::new("bash");
        shell.args(["-e", "-c", &script]).current_dir(self.project()).env_clear().envs(self.basics());
        let output = shell.output().context("could not start bash")?;
        if !output.status.success() {
            bail!("the set-up of {} failed: {}", scenario.name, String::from_utf8_lossy(&output.stderr));
        }
        self.answer_first_run_questions()
    }

    /// So that an interactive start shows no onboarding.
    fn answer_first_run_questions(&self) -> Result<()> {
        let mut projects = Map::new();
        projects.insert(self.project().display().to_string(), json!({"hasTrustDialogAccepted": true}));
        let answers = json!({
            "hasCompletedOnboarding": true, "theme": "dark", "projects": projects,
            "customApiKeyResponses": {"approved": ["test-key"], "rejected": []},
        });
        Ok(fs::write(self.home().join(".claude.json"), answers.to_string())?)
    }

    /// Puts the recorder's hooks, and the scenario's settings, beside what stands in the user
    /// settings already.
    pub(crate) fn add_recorder(&self, scenario: &Scenario, deny: &[String], extra: &[&str]) -> Result<()> {
        let path = self.home().join(".claude/settings.json");
        let mut settings: Value = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).context("the client's settings are no JSON")?,
            Err(_) => json!({}),
        };
        let mut args = vec!["record-hook".to_owned(), self.recording().display().to_string()];
        args.extend(deny.iter().map(|text| format!("--deny={text}")));
        let hook = json!({
            "type": "command", "command": std::env::current_exe()?, "args": args, "timeout": 20,
        });
        for event in EVENTS.iter().chain(extra) {
            add_hook(&mut settings, event, &hook);
        }
        for (key, value) in &scenario.settings {
            settings[key] = value.clone();
        }
        Ok(fs::write(path, serde_json::to_string_pretty(&settings)?)?)
    }

    /// What every program in the sandbox gets.
    pub(crate) fn basics(&self) -> Vec<(String, OsString)> {
        let home = self.home();
        let mut all: Vec<(String, OsString)> = [
            ("LANG", "C.UTF-8"),
            ("USER", "user"),
            ("SHELL", "/bin/bash"),
            ("TERM", "xterm-256color"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "Dev"),
            ("GIT_AUTHOR_EMAIL", "dev@example.com"),
            ("GIT_COMMITTER_NAME", "Dev"),
            ("GIT_COMMITTER_EMAIL", "dev@example.com"),
        ]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .to_vec();
        all.push(("PATH".to_owned(), std::env::var_os("PATH").unwrap_or_default()));
        all.push(("TMPDIR".to_owned(), home.join("tmp").into()));
        all.push(("HOME".to_owned(), home.into()));
        all
    }

    /// The client's whole environment.
    pub(crate) fn client_env(&self, scenario: &Scenario, model: SocketAddr) -> Vec<(String, OsString)> {
        let mut all = self.basics();
        all.push(("CLAUDE_CODE_TMPDIR".to_owned(), self.home().join("tmp").into()));
        let own = [
            ("ANTHROPIC_BASE_URL", format!("http://{model}")),
            ("ANTHROPIC_API_KEY", "test-key".to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
            ("DISABLE_AUTOUPDATER", "1".to_owned()),
            ("DISABLE_ERROR_REPORTING", "1".to_owned()),
            ("HTTPS_PROXY", "http://127.0.0.1:9".to_owned()),
            ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
        ];
        all.extend(own.map(|(name, value)| (name.to_owned(), value.into())));
        all.extend(scenario.env.iter().map(|(name, value)| (name.clone(), value.into())));
        all
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

fn add_hook(settings: &mut Value, event: &str, hook: &Value) {
    let mut group = json!({"hooks": [hook]});
    if event == "FileChanged" {
        group["matcher"] = json!(".env");
    }
    match settings["hooks"][event].as_array_mut() {
        Some(groups) => groups.push(group),
        None => settings["hooks"][event] = json!([group]),
    }
}

/// The client's arguments for one run, without `-p` and the prompt.
pub(crate) fn arguments(run: &Run) -> Vec<String> {
    let mut args = vec!["--permission-mode".to_owned(), run.permission_mode.clone()];
    if !run.allowed_tools.is_empty() {
        args.extend(["--allowedTools".to_owned(), run.allowed_tools.join(",")]);
    }
    args.extend(run.args.iter().cloned());
    args
}

/// Runs the client once with `-p`, to its end; returns what went wrong.
pub(crate) fn run_headless(
    client: &Path,
    sandbox: &Sandbox,
    run: &Run,
    at: usize,
    env: &[(String, OsString)],
) -> Result<Vec<String>> {
    let stderr_path = sandbox.out(&format!("client.{at}.err"));
    let mut command = Command::new(client);
    command.args(["-p", &run.prompt, "--output-format", "stream-json", "--verbose"]).args(arguments(run));
    command.env_clear().envs(env.iter().cloned()).current_dir(sandbox.project()).stdin(Stdio::null());
    command.stdout(File::create(sandbox.out(&format!("client.{at}.jsonl")))?);
    command.stderr(File::create(&stderr_path)?);
    let mut child = command.spawn().context("could not start the client")?;
    let status = wait(&mut child, run.interrupt_at.as_ref(), &sandbox.recording())?;
    let stderr = fs::read_to_string(&stderr_path).unwrap_or_default();
    Ok(judge_end(run, at, status, &stderr))
}

fn judge_end(run: &Run, at: usize, status: Option<ExitStatus>, stderr: &str) -> Vec<String> {
    let mut problems = Vec::new();
    match (status, run.exit) {
        (None, _) => problems.push(format!("run {at}: still running after {} s", RUN_TIMEOUT.as_secs())),
        (Some(status), Exit::Ok) if !status.success() => problems.push(format!("run {at}: {status}")),
        (Some(status), Exit::Error) if status.success() => {
            problems.push(format!("run {at}: ended well, but should not"));
        }
        _ => {}
    }
    let about_hooks = stderr.lines().filter(|line| line.to_lowercase().contains("hook"));
    problems.extend(about_hooks.map(|line| format!("run {at}: stderr: {line}")));
    problems
}

/// Waits for the end, interrupting when it is time to; `None` when it had to be killed.
fn wait(child: &mut Child, interrupt_at: Option<&Until>, recording: &Path) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pending = interrupt_at;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if let Some(until) = pending
            && recorder::count(recording, &until.event) >= until.count
        {
            // The recorder's own hook must end first, or the interrupt hits that.
            std::thread::sleep(Duration::from_millis(500));
            process::run(Command::new("kill").args(["-INT", &child.id().to_string()]))?;
            pending = None;
        }
        if start.elapsed() > RUN_TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    fn run(exit: Exit) -> Run {
        let run = json!({"prompt": "x"});
        Run { exit, ..serde_json::from_value(run).expect("a run needs only a prompt") }
    }

    #[test]
    fn hooks_are_added_beside_those_that_are_there() {
        let mut settings = json!({"hooks": {"Stop": [{"hooks": [{"command": "theirs"}]}]}});
        add_hook(&mut settings, "Stop", &json!({"command": "ours"}));
        add_hook(&mut settings, "FileChanged", &json!({"command": "ours"}));
        assert_eq!(settings["hooks"]["Stop"].as_array().map(Vec::len), Some(2));
        assert_eq!(settings["hooks"]["FileChanged"][0]["matcher"], ".env");
    }

    #[test]
    fn a_wrong_end_and_a_word_about_hooks_are_problems() {
        let (good, bad) = (Some(ExitStatus::from_raw(0)), Some(ExitStatus::from_raw(256)));
        assert_eq!(judge_end(&run(Exit::Ok), 0, good, "note: fine"), [""; 0]);
        assert_eq!(judge_end(&run(Exit::Error), 0, bad, ""), [""; 0]);
        assert_eq!(judge_end(&run(Exit::Ok), 0, bad, "").len(), 1);
        assert_eq!(judge_end(&run(Exit::Error), 0, good, "").len(), 1);
        assert_eq!(judge_end(&run(Exit::Any), 0, None, "").len(), 1);
        assert_eq!(judge_end(&run(Exit::Ok), 0, good, "PreToolUse hook error").len(), 1);
    }

    #[test]
    fn the_usual_arguments_ask_for_nothing() {
        let args = arguments(&run(Exit::Ok));
        assert_eq!(args[..2], ["--permission-mode", "acceptEdits"]);
        assert!(args[3].contains("Bash"));
    }
}
