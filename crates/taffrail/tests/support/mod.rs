//! A data directory of its own and the real binary, started and stopped.

#![allow(dead_code, clippy::unwrap_used, reason = "tests; each uses what it needs")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A data directory whose server, if one runs, is stopped at the end.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        // Many servers at once must not fight over the two ports that OpenTelemetry has by convention.
        home.write("config.toml", "[otlp]\nhttp = false\ngrpc = false\n");
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The binary with this data directory and none of the caller's settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taffrail"));
        for variable in ["TAFFRAIL_LISTEN", "TAFFRAIL_DURABILITY", "TAFFRAIL_LEGACY_ORIGINS", "TAFFRAIL_LOG"]
        {
            command.env_remove(variable);
        }
        // Nor the transcripts of whoever runs the tests.
        command.env("CLAUDE_CONFIG_DIR", self.path().join("claude"));
        command.env("TAFFRAIL_HOME", self.path()).args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Its stdout, once it has succeeded.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// Its stderr, once it has failed with a hint.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        let said = stderr(&output);
        assert!(said.starts_with("error: ") && said.contains("hint: "), "{said}");
        said
    }

    /// Starts the server on a free port; returns its address.
    #[track_caller]
    pub(crate) fn up(&self) -> String {
        self.json(&["up", "--listen", "127.0.0.1:0", "--json"])["url"].as_str().unwrap().to_owned()
    }

    /// Every stored event.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        self.ok(&["export", "events"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The folder of shared recordings, or none with a loud word.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("TAFFRAIL_SHARED").map_or(beside, PathBuf::from);
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: {folder} is not there; set TAFFRAIL_SHARED to the folder that has it");
    None
}
