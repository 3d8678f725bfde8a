//! Interactive sessions: a person's keys in tmux, paced by the events that they cause.

use super::client::{self, Sandbox};
use super::recorder;
use super::scenario::{Key, Run, Until};
use crate::{process, tools};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the client may take to show its prompt, and a key to cause its event.
const READY_TIMEOUT: Duration = Duration::from_secs(40);
const KEY_TIMEOUT: Duration = Duration::from_secs(90);
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// How often a key is pressed until the screen shows its effect, and how long that may take.
const SCREEN_TRIES: usize = 5;
const SCREEN_PAUSE: Duration = Duration::from_millis(2_000);

/// Between text and the key after it, as the client takes a fast burst for a paste.
const TYPING_PAUSE: Duration = Duration::from_millis(400);

/// Whether tmux is there to type into.
pub(crate) fn is_available() -> bool {
    tools::find("tmux").is_some()
}

/// A tmux server of its own, ended when this goes.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn command(&self, args: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.socket]).args(args).env_remove("TMUX").stderr(Stdio::null());
        tmux
    }

    fn is_alive(&self) -> bool {
        process::succeeds(&mut self.command(&["has-session", "-t", "s"]))
    }

    fn screen(&self) -> String {
        let output = self.command(&["capture-pane", "-p", "-t", "s"]).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    fn send(&self, key: &Key) {
        if !key.text.is_empty() {
            process::succeeds(&mut self.command(&["send-keys", "-t", "s", "-l", &key.text]));
            std::thread::sleep(TYPING_PAUSE);
        }
        if !key.key.is_empty() {
            process::succeeds(&mut self.command(&["send-keys", "-t", "s", &key.key]));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        process::succeeds(&mut self.command(&["kill-server"]));
    }
}

/// Plays one interactive run; returns what went wrong.
pub(crate) fn run(
    client: &Path,
    sandbox: &Sandbox,
    run: &Run,
    at: usize,
    env: &[(String, OsString)],
) -> Result<Vec<String>> {
    let terminal = Terminal { socket: format!("tfrc-{}-{at}", std::process::id()) };
    let script = sandbox.out(&format!("interactive.{at}.sh"));
    fs::write(&script, start_script(client, sandbox, run, env))?;
    let script = script.display().to_string();
    let start = ["-f", "/dev/null", "new-session", "-d", "-s", "s", "-x", "150", "-y", "45", "bash", &script];
    process::run(&mut terminal.command(&start)).context("could not start the client in tmux")?;
    let result = play(&terminal, run, &sandbox.recording());
    if result.is_err() || result.as_ref().is_ok_and(|problems| !problems.is_empty()) {
        fs::write(sandbox.out(&format!("screen.{at}.txt")), terminal.screen())?;
    }
    result
}

fn start_script(client: &Path, sandbox: &Sandbox, run: &Run, env: &[(String, OsString)]) -> String {
    let mut script = format!("cd {}\nexec env -i", quoted(&sandbox.project().display().to_string()));
    for (name, value) in env {
        script += &format!(" {}", quoted(&format!("{name}={}", value.to_string_lossy())));
    }
    script += &format!(" {}", quoted(&client.display().to_string()));
    for arg in client::arguments(run) {
        script += &format!(" {}", quoted(&arg));
    }
    script + "\n"
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn play(terminal: &Terminal, run: &Run, recording: &Path) -> Result<Vec<String>> {
    await_prompt(terminal)?;
    terminal.send(&enter(&run.prompt));
    for key in run.keys.iter().flatten() {
        terminal.send(key);
        if !key.shows.is_empty() && !await_screen(terminal, key) {
            return Ok(vec![format!("the screen never showed {:?}", key.shows)]);
        }
        if let Some(until) = &key.until
            && !await_event(terminal, until, recording)
        {
            return Ok(vec![format!("the keys caused no {} number {}", until.event, until.count)]);
        }
        std::thread::sleep(Duration::from_millis(key.wait_ms));
    }
    terminal.send(&enter("/exit"));
    let start = Instant::now();
    while terminal.is_alive() {
        if start.elapsed() > EXIT_TIMEOUT {
            return Ok(vec!["the client did not leave after /exit".to_owned()]);
        }
        std::thread::sleep(POLL);
    }
    Ok(Vec::new())
}

fn enter(text: &str) -> Key {
    Key { text: text.to_owned(), key: "Enter".to_owned(), ..Key::default() }
}

/// Waits for the input box, with a yes to the dialogs of a first start.
fn await_prompt(terminal: &Terminal) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < READY_TIMEOUT {
        std::thread::sleep(POLL * 3);
        if !terminal.is_alive() {
            bail!("the client ended before it showed its prompt");
        }
        let screen = terminal.screen();
        if ["trust this folder", "trust the files", "Choose the text style"]
            .iter()
            .any(|s| screen.contains(s))
        {
            terminal.send(&enter(""));
            std::thread::sleep(TYPING_PAUSE * 2);
        } else if screen.lines().any(|line| line.trim_start_matches([' ', '│']).starts_with(['>', '❯'])) {
            std::thread::sleep(TYPING_PAUSE * 2);
            return Ok(());
        }
    }
    bail!("the client showed no prompt within {} s:\n{}", READY_TIMEOUT.as_secs(), terminal.screen());
}

/// A completion list may swallow the first key, so it is pressed again until it works.
fn await_screen(terminal: &Terminal, key: &Key) -> bool {
    for _ in 0..SCREEN_TRIES {
        std::thread::sleep(SCREEN_PAUSE);
        if terminal.screen().contains(&key.shows) {
            return true;
        }
        terminal.send(&Key { key: key.key.clone(), ..Key::default() });
    }
    false
}

fn await_event(terminal: &Terminal, until: &Until, recording: &Path) -> bool {
    let start = Instant::now();
    while recorder::count(recording, &until.event) < until.count {
        if start.elapsed() > KEY_TIMEOUT || !terminal.is_alive() {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_as_they_are() {
        let word = "it's $HOME \"`x`\"";
        let output = Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).output();
        assert_eq!(output.expect("sh is there").stdout, word.as_bytes());
    }
}
