//! Recordings for `fixtures/realclient`: what the client sent, with the sandbox's paths
//! rewritten to a common home and long texts cut.

use super::client::CLIENT_VERSION;
use super::recorder::Recorded;
use crate::workspace;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The home of every recording.
const HOME: &str = "/home/user";

/// Longer strings are cut, most of which are the client's own notes to the model. Fixtures show
/// shapes; the tests of size make their own bulk.
const STRING_BYTES_MAX: usize = 1024;

/// Where recordings are kept.
pub(crate) fn folder() -> PathBuf {
    workspace::root().join("fixtures/realclient")
}

/// Writes `fixtures/realclient/<scenario>/hooks.jsonl`.
pub(crate) fn write(scenario: &str, home: &Path, recorded: &[Recorded]) -> Result<PathBuf> {
    let folder = folder().join(scenario);
    fs::create_dir_all(&folder)?;
    let file = folder.join("hooks.jsonl");
    let text: String = recorded.iter().map(|event| clean(event, home).to_line()).collect();
    fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
    fs::write(self::folder().join("CLIENT_VERSION"), format!("{CLIENT_VERSION}\n"))?;
    Ok(file)
}

fn clean(event: &Recorded, home: &Path) -> Recorded {
    let home = home.display().to_string();
    let mut body = event.body.clone();
    rewrite(&mut body, &[(&home, HOME), (&slug(&home), &slug(HOME))]);
    Recorded { captured_ms: event.captured_ms, body }
}

/// A path as the client writes it into the name of its transcript folders.
fn slug(path: &str) -> String {
    path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn rewrite(value: &mut Value, replacements: &[(&str, &str)]) {
    match value {
        Value::String(text) => {
            for (from, to) in replacements {
                *text = text.replace(from, to);
            }
            cut(text);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, replacements)),
        Value::Object(fields) => fields.values_mut().for_each(|item| rewrite(item, replacements)),
        _ => {}
    }
}

fn cut(text: &mut String) {
    if text.len() > STRING_BYTES_MAX {
        let left = text.len() - text.floor_char_boundary(STRING_BYTES_MAX);
        text.truncate(text.floor_char_boundary(STRING_BYTES_MAX));
        text.push_str(&format!("…[{left} bytes cut from the recording]"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::realclient::recorder;
    use serde_json::json;

    #[test]
    fn paths_of_the_sandbox_become_the_common_home() {
        let body = json!({
            "cwd": "/tmp/x-1/home/project",
            "transcript_path": "/tmp/x-1/home/.claude/projects/-tmp-x-1-home-project/a.jsonl",
            "tool_input": {"command": "ls /tmp/x-1/home", "n": [1, "/tmp/x-1/home/a"]},
        });
        let cleaned = clean(&Recorded { captured_ms: 1, body }, Path::new("/tmp/x-1/home")).to_line();
        assert!(!cleaned.contains("x-1"), "{cleaned}");
        assert!(cleaned.contains("/home/user/.claude/projects/-home-user-project/a.jsonl"), "{cleaned}");
    }

    #[test]
    fn long_texts_are_cut_at_a_character_and_say_so() {
        let mut text = "é".repeat(STRING_BYTES_MAX);
        cut(&mut text);
        assert!(text.ends_with("…[1024 bytes cut from the recording]"), "{text}");
        let mut short = "as it is".to_owned();
        cut(&mut short);
        assert_eq!(short, "as it is");
    }

    #[test]
    fn every_recording_is_whole_and_names_no_sandbox() {
        let mut seen = 0;
        for entry in fs::read_dir(folder()).unwrap().map(Result::unwrap).filter(|e| e.path().is_dir()) {
            let file = entry.path().join("hooks.jsonl");
            let events = recorder::read(&file).unwrap();
            assert!(!events.is_empty(), "{} is empty", file.display());
            for event in &events {
                assert!(!event.event().is_empty(), "an event without a name in {}", file.display());
                assert!(event.text("cwd").starts_with(HOME), "a foreign home in {}", file.display());
                assert!(!event.to_line().contains("tfrc-"), "a sandbox in {}", file.display());
            }
            seen += 1;
        }
        assert!(seen >= 14, "only {seen} recordings");
    }
}
