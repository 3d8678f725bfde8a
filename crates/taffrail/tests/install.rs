//! `taffrail install`, `uninstall` and `doctor` as a person runs them.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A machine of its own: program, home, project, data directory.
struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["bin", "home", "project"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        let program = root.path().join("bin/taffrail");
        let built = env!("CARGO_BIN_EXE_taffrail");
        if fs::hard_link(built, &program).is_err() {
            fs::copy(built, &program).unwrap();
        }
        Self { root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.path("bin/taffrail"));
        command.env_clear().env("HOME", self.path("home")).env("PATH", "/usr/bin:/bin");
        command.current_dir(self.path("project")).args(arguments).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn settings(&self) -> PathBuf {
        self.path("home/.claude/settings.json")
    }

    fn write_settings(&self, text: &str) {
        fs::create_dir_all(self.path("home/.claude")).unwrap();
        fs::write(self.settings(), text).unwrap();
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_fresh_machine_gets_settings_and_loses_them_again() {
    let machine = Machine::new();
    assert!(machine.ok(&["install"]).contains("installed 29 hooks"));
    let text = fs::read_to_string(machine.settings()).unwrap();
    assert!(text.ends_with("}\n"));
    assert_eq!(mode(&machine.settings()), 0o600);
    assert!(machine.ok(&["install"]).contains("nothing to do"));
    assert_eq!(fs::read_to_string(machine.settings()).unwrap(), text);
    machine.ok(&["uninstall"]);
    assert_eq!(names(&machine.path("home/.claude")), Vec::<String>::new());
    assert!(machine.ok(&["uninstall"]).contains("nothing to do"));
}

#[test]
fn the_hook_client_beside_the_program_is_called_else_the_program_itself() {
    let machine = Machine::new();
    let stop = || -> Value {
        let settings: Value = serde_json::from_slice(&fs::read(machine.settings()).unwrap()).unwrap();
        assert_eq!(settings["hooks"]["Stop"].as_array().unwrap().len(), 1);
        settings["hooks"]["Stop"][0]["hooks"][0].clone()
    };
    machine.ok(&["install"]);
    assert_eq!(stop()["command"], machine.path("bin/taffrail").to_str().unwrap());
    assert_eq!(stop()["args"], serde_json::json!(["hook", "Stop"]));
    fs::write(machine.path("bin/taffrail-hook"), "").unwrap();
    machine.ok(&["install", "--data-dir", "../data"]);
    assert_eq!(stop()["command"], machine.path("bin/taffrail-hook").to_str().unwrap());
    let arguments = stop()["args"].clone();
    assert_eq!(arguments[0], "--data-dir");
    assert!(Path::new(arguments[1].as_str().unwrap()).is_absolute());
    assert_eq!(arguments[2], "Stop");
}

#[test]
fn existing_settings_keep_their_bytes_mode_and_link() {
    let machine = Machine::new();
    let original = "{\r\n\t\"model\" : \"x\",\r\n\t\"hooks\": {\"Stop\": [{\"hooks\": [{\"type\": \"command\", \"command\": \"mine\"}]}]}\r\n}";
    fs::create_dir_all(machine.path("home/.claude")).unwrap();
    fs::create_dir(machine.path("dotfiles")).unwrap();
    let real = machine.path("dotfiles/claude.json");
    fs::write(&real, original).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, machine.settings()).unwrap();

    machine.ok(&["install"]);
    assert!(fs::symlink_metadata(machine.settings()).unwrap().is_symlink());
    assert_eq!(mode(&real), 0o640);
    let backups: Vec<String> =
        names(&machine.path("dotfiles")).into_iter().filter(|n| n != "claude.json").collect();
    assert_eq!(backups.len(), 1);
    assert!(backups[0].starts_with("claude.json.taffrail-backup-"));
    assert_eq!(fs::read_to_string(machine.path("dotfiles").join(&backups[0])).unwrap(), original);
    assert_eq!(mode(&machine.path("dotfiles").join(&backups[0])), 0o640);

    assert!(machine.ok(&["uninstall"]).contains("restored"));
    assert_eq!(fs::read_to_string(&real).unwrap(), original);
    assert_eq!(names(&machine.path("dotfiles")), ["claude.json"]);
}

#[test]
fn changes_made_since_install_survive_uninstall() {
    let machine = Machine::new();
    machine.write_settings("{\n    \"model\": \"x\"\n}\n");
    machine.ok(&["install"]);
    let changed = fs::read_to_string(machine.settings()).unwrap().replace("\"x\"", "\"y\"");
    fs::write(machine.settings(), changed).unwrap();
    machine.ok(&["uninstall"]);
    assert_eq!(fs::read_to_string(machine.settings()).unwrap(), "{\n    \"model\": \"y\"\n}\n");
}

#[test]
fn a_dry_run_shows_a_diff_and_writes_nothing() {
    let machine = Machine::new();
    machine.write_settings("{\n  \"model\": \"x\"\n}\n");
    let diff = machine.ok(&["install", "--dry-run"]);
    assert!(diff.contains("-  \"model\": \"x\"\n+  \"model\": \"x\",\n+  \"hooks\": {"), "{diff}");
    assert_eq!(fs::read_to_string(machine.settings()).unwrap(), "{\n  \"model\": \"x\"\n}\n");
    assert_eq!(names(&machine.path("home/.claude")), ["settings.json"]);
    machine.ok(&["install"]);
    let before = fs::read_to_string(machine.settings()).unwrap();
    assert!(machine.ok(&["uninstall", "--dry-run"]).contains("-  \"hooks\": {"));
    assert_eq!(fs::read_to_string(machine.settings()).unwrap(), before);
}

#[test]
fn broken_settings_are_refused_and_left_alone() {
    let machine = Machine::new();
    for text in ["{ // note\n}", "{\"hooks\": []}", ""] {
        machine.write_settings(text);
        let output = machine.run(&["install"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was changed"), "{output:?}");
        assert_eq!(fs::read_to_string(machine.settings()).unwrap(), text);
        assert_eq!(names(&machine.path("home/.claude")), ["settings.json"]);
    }
}

#[test]
fn scopes_are_files_of_their_own() {
    let machine = Machine::new();
    machine.ok(&["install", "--scope", "project"]);
    machine.ok(&["install", "--scope", "local", "--transport", "http", "--url", "http://127.0.0.1:5000/"]);
    assert_eq!(names(&machine.path("project/.claude")), ["settings.json", "settings.local.json"]);
    assert!(!machine.settings().exists());
    let local = fs::read_to_string(machine.path("project/.claude/settings.local.json")).unwrap();
    assert!(local.contains("\"url\": \"http://127.0.0.1:5000/v1/hooks/claude-code\""));
    machine.ok(&["uninstall", "--scope", "project"]);
    machine.ok(&["uninstall", "--scope", "local"]);
    assert_eq!(names(&machine.path("project/.claude")), Vec::<String>::new());
}

#[test]
fn the_installed_hook_records() {
    let machine = Machine::new();
    machine.ok(&["install", "--data-dir", machine.path("data").to_str().unwrap()]);
    let settings: Value = serde_json::from_slice(&fs::read(machine.settings()).unwrap()).unwrap();
    let hook = &settings["hooks"]["PreToolUse"][0]["hooks"][0];
    let arguments: Vec<&str> = hook["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let payload = machine.path("payload.json");
    fs::write(
        &payload,
        r#"{"hook_event_name":"PreToolUse","tool_name":"Bash","cwd":"/w","tool_input":{"command":"rm -rf /"}}"#,
    )
    .unwrap();
    let output = Command::new(hook["command"].as_str().unwrap())
        .args(arguments)
        .env_clear()
        .stdin(fs::File::open(&payload).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let spool = taffrail_hook::spool::SpoolDir::look(&machine.path("data"));
    assert_eq!(spool.pending().unwrap().len(), 1);
}

fn findings(output: &Output) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| (text(finding, "check"), text(finding, "level"))).collect()
}

#[test]
fn the_doctor_sees_what_is_missing_and_what_is_there() {
    let machine = Machine::new();
    let sick = machine.run(&["doctor", "--json"]);
    assert_eq!(sick.status.code(), Some(1));
    assert!(findings(&sick).contains(&("hooks".to_owned(), "fail".to_owned())));
    machine.ok(&["install"]);
    let well = machine.run(&["doctor", "--json"]);
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    assert!(findings(&well).contains(&("hooks".to_owned(), "ok".to_owned())));
    fs::write(machine.path("home/.local"), "in the way").unwrap();
    let blocked = machine.run(&["doctor", "--json"]);
    assert_eq!(blocked.status.code(), Some(1));
    assert!(findings(&blocked).contains(&("data_dir".to_owned(), "fail".to_owned())));
    let shown = String::from_utf8(machine.run(&["doctor"]).stdout).unwrap();
    assert!(shown.contains("FAIL") && shown.contains("hint:"), "{shown}");
}

#[test]
fn telemetry_and_status_line_come_and_go_with_the_hooks() {
    let machine = Machine::new();
    let before = "{\n  \"model\": \"opus\",\n  \"env\": {\n    \"A\": \"b\"\n  }\n}\n";
    machine.write_settings(before);
    let said = machine.ok(&["install", "--otel", "--statusline"]);
    assert!(said.contains("hooks, telemetry, status line in"), "{said}");
    let settings: Value = serde_json::from_str(&fs::read_to_string(machine.settings()).unwrap()).unwrap();
    assert_eq!(settings["env"]["A"], "b");
    assert_eq!(settings["env"]["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://127.0.0.1:4000");
    let program = machine.path("bin/taffrail");
    assert_eq!(settings["statusLine"]["command"], format!("{} statusline", program.display()));
    assert!(machine.ok(&["install", "--otel", "--statusline"]).contains("nothing to do"));
    // Asked again without them, what is there stays.
    assert!(machine.ok(&["install"]).contains("nothing to do"));
    assert!(machine.ok(&["uninstall"]).contains("restored"));
    assert_eq!(fs::read_to_string(machine.settings()).unwrap(), before);
}

#[test]
fn the_users_own_collector_and_status_line_are_left_alone() {
    let machine = Machine::new();
    for (theirs, flag, word) in [
        (r#"{"env":{"OTEL_EXPORTER_OTLP_ENDPOINT":"http://c:4317"}}"#, "--otel", "http://c:4317"),
        (r#"{"statusLine":{"type":"command","command":"mine.sh"}}"#, "--statusline", "mine.sh"),
    ] {
        machine.write_settings(theirs);
        let output = machine.run(&["install", flag]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word) && said.contains("hint:"), "{said}");
        assert_eq!(fs::read_to_string(machine.settings()).unwrap(), theirs);
        assert_eq!(names(&machine.path("home/.claude")), ["settings.json"]);
    }
}

#[test]
fn the_status_line_needs_no_server_and_no_database() {
    use std::io::Write;
    use std::process::Stdio;
    let machine = Machine::new();
    let say = |input: &str| {
        let mut command = Command::new(machine.path("bin/taffrail"));
        command.env_clear().env("HOME", machine.path("home")).arg("statusline");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let input = r#"{"session_id":"s","model":{"display_name":"Opus 5.5"},"cost":{"total_cost_usd":0.5}}"#;
    assert_eq!(say(input), "Opus 5.5 │ $0.50 session\n");
    assert_eq!(say("no json"), "taffrail\n");
    assert!(!machine.path("home/.local").exists(), "it makes nothing");
}
