//! The change of a file as text: pure. Everything that the change does not name keeps its bytes.

use serde_json::{Value, json};
use taffrail_engine::suggest::{Edit, is_plain_name};
use taffrail_event::json_text::{Document, Step};

/// What a change would make of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edited {
    /// This text.
    To(String),
    /// It says so already.
    Already,
    /// It cannot be done safely; for a person.
    Refused(String),
}

fn refused(why: impl Into<String>) -> Edited {
    Edited::Refused(why.into())
}

/// The file that a change is about, below the project's directory; none where its name is not plain.
pub(crate) fn relative_path(edit: &Edit) -> Option<String> {
    match edit {
        Edit::SettingsEnv { .. } | Edit::SettingsList { .. } => Some(".claude/settings.json".to_owned()),
        Edit::AgentModel { agent_type, .. } => {
            is_plain_name(agent_type).then(|| format!(".claude/agents/{agent_type}.md"))
        }
        Edit::Note { .. } => Some("CLAUDE.md".to_owned()),
    }
}

/// The text after a change; `text` is none where there is no file. `mark` names the block of a note: letters, digits, `-`, `_`.
pub(crate) fn edited(text: Option<&str>, edit: &Edit, mark: &str) -> Edited {
    match edit {
        Edit::SettingsEnv { name, value } => with_env(text, name, value),
        Edit::SettingsList { list, value } => with_element(text, list.path(), value),
        Edit::AgentModel { model, .. } => with_model(text, model),
        Edit::Note { lines } => with_note(text, lines, mark),
    }
}

/// Settings, and whether they are an object; a file that is missing or blank is an empty one.
fn settings(text: Option<&str>) -> Result<Document, Edited> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("{}\n");
    let document = Document::parse(text)
        .map_err(|error| refused(format!("the settings are not strict JSON ({error}): mend them first")))?;
    match document.get(&[]) {
        Some(Value::Object(_)) => Ok(document),
        _ => Err(refused("the settings are not a JSON object: mend them first")),
    }
}

fn done(document: &Document, result: Result<(), taffrail_event::json_text::JsonTextError>) -> Edited {
    match result {
        Ok(()) => Edited::To(document.text().to_owned()),
        Err(error) => refused(error.to_string()),
    }
}

fn with_env(text: Option<&str>, name: &str, value: &str) -> Edited {
    let mut document = match settings(text) {
        Ok(document) => document,
        Err(refused) => return refused,
    };
    let env = [Step::Key("env")];
    let result = match document.get(&env) {
        None => document.append(&[], Some("env"), &json!({ name: value })),
        Some(Value::Object(known)) => match known.get(name) {
            Some(known) if known == value => return Edited::Already,
            Some(known) => return refused(format!("{name} is set to {known} already: change it by hand")),
            None => document.append(&env, Some(name), &json!(value)),
        },
        Some(_) => return refused("\"env\" in the settings is not an object: mend it first"),
    };
    done(&document, result)
}

fn with_element(text: Option<&str>, path: &[&str], value: &str) -> Edited {
    let mut document = match settings(text) {
        Ok(document) => document,
        Err(refused) => return refused,
    };
    let steps: Vec<Step<'_>> = path.iter().map(|key| Step::Key(key)).collect();
    for depth in 1..=steps.len() {
        let is_list = depth == steps.len();
        let (found, at) = (document.get(&steps[..depth]), &steps[..depth - 1]);
        let result = match found {
            None => {
                // What is missing comes at once: the list in all the objects around it.
                let nested =
                    path[depth..].iter().rev().fold(json!([value]), |inner, key| json!({ *key: inner }));
                document.append(at, Some(path[depth - 1]), &nested)
            }
            Some(Value::Array(known)) if is_list => match known.iter().any(|known| known == value) {
                true => return Edited::Already,
                false => document.append(&steps, None, &json!(value)),
            },
            Some(Value::Object(_)) if !is_list => continue,
            Some(_) => {
                return refused(format!(
                    "\"{}\" in the settings is not what it should be: mend it first",
                    path[..depth].join(".")
                ));
            }
        };
        return done(&document, result);
    }
    refused("no path")
}

/// Sets `model:` in front matter: lines between a first line `---` and the next such line.
fn with_model(text: Option<&str>, model: &str) -> Edited {
    let Some(text) = text else { return refused("the subagent has no file of its own") };
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == "---") else {
        return refused("the file does not begin with front matter");
    };
    let newline = if first.ends_with("\r\n") { "\r\n" } else { "\n" };
    let mut at = first.len();
    let mut known = None;
    for line in lines {
        if line.trim_end() == "---" {
            let (range, line) = match known {
                Some((from, to)) => (from..to, format!("model: {model}{newline}")),
                None => (at..at, format!("model: {model}{newline}")),
            };
            let mut edited = text.to_owned();
            edited.replace_range(range, &line);
            return if edited == text { Edited::Already } else { Edited::To(edited) };
        }
        if line.starts_with("model:") {
            if known.is_some() {
                return refused("the front matter names two models: mend it first");
            }
            known = Some((at, at + line.len()));
        }
        at += line.len();
    }
    refused("the front matter does not end")
}

/// Adds a marked block at the end.
fn with_note(text: Option<&str>, lines: &[String], mark: &str) -> Edited {
    let text = text.unwrap_or_default();
    let begin = format!("<!-- taffrail:{mark} -->");
    if text.contains(&begin) {
        return Edited::Already;
    }
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut edited = text.to_owned();
    if !text.is_empty() {
        // One blank line in front.
        edited.push_str(&newline.repeat(if text.ends_with('\n') { 1 } else { 2 }));
    }
    let end = format!("<!-- /taffrail:{mark} -->");
    for line in std::iter::once(begin.as_str()).chain(lines.iter().map(String::as_str)).chain([end.as_str()])
    {
        edited.push_str(line);
        edited.push_str(newline);
    }
    Edited::To(edited)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use taffrail_engine::suggest::RuleList;

    use super::*;

    fn allow(value: &str) -> Edit {
        Edit::SettingsList { list: RuleList::Allow, value: value.to_owned() }
    }

    fn env() -> Edit {
        Edit::SettingsEnv { name: "BASH_MAX_OUTPUT_LENGTH".to_owned(), value: "10000".to_owned() }
    }

    #[track_caller]
    fn check(text: Option<&str>, edit: &Edit, after: &str) {
        assert_eq!(edited(text, edit, "m-1"), Edited::To(after.to_owned()));
        assert_eq!(edited(Some(after), edit, "m-1"), Edited::Already, "a second time");
    }

    #[track_caller]
    fn check_refused(text: Option<&str>, edit: &Edit) {
        assert!(matches!(edited(text, edit, "m-1"), Edited::Refused(_)), "{text:?}");
    }

    #[test]
    fn settings_are_made_or_added_to() {
        check(None, &env(), "{\n  \"env\": {\n    \"BASH_MAX_OUTPUT_LENGTH\": \"10000\"\n  }\n}\n");
        check(
            Some("{\"a\":1,\"permissions\":{\"deny\":[]}}"),
            &allow("Bash(ls)"),
            "{\"a\":1,\"permissions\":{\"deny\":[],\"allow\":[\"Bash(ls)\"]}}",
        );
        check(
            Some("{\"permissions\":{\"allow\":[\"X\"]}}"),
            &allow("Y"),
            "{\"permissions\":{\"allow\":[\"X\",\"Y\"]}}",
        );
        check(
            Some(" { } "),
            &Edit::SettingsList { list: RuleList::DisabledMcp, value: "m".to_owned() },
            " {\n   \"disabledMcpjsonServers\": [\n     \"m\"\n   ]\n } ",
        );
        for broken in [
            "[]",
            "{",
            "{\"env\":1,\"permissions\":[]}",
            "{\"permissions\":{\"allow\":{}},\"env\":{\"BASH_MAX_OUTPUT_LENGTH\":5}}",
            "{} x",
        ] {
            check_refused(Some(broken), &env());
            check_refused(Some(broken), &allow("x"));
        }
    }

    #[test]
    fn front_matter_takes_a_model() {
        let edit = Edit::AgentModel { agent_type: "scout".to_owned(), model: "haiku".to_owned() };
        check(
            Some("---\nname: scout\n---\nBody\nmodel: x\n"),
            &edit,
            "---\nname: scout\nmodel: haiku\n---\nBody\nmodel: x\n",
        );
        check(Some("---\r\nmodel: opus\r\nname: s\r\n---"), &edit, "---\r\nmodel: haiku\r\nname: s\r\n---");
        for broken in [
            None,
            Some(""),
            Some("name: x\n"),
            Some("---\nname: x\n"),
            Some("---\nmodel: a\nmodel: b\n---\n"),
        ] {
            check_refused(broken, &edit);
        }
    }

    #[test]
    fn a_note_is_a_marked_block_at_the_end() {
        let edit = Edit::Note { lines: vec!["one".to_owned(), "- `two`".to_owned()] };
        let block = "<!-- taffrail:m-1 -->\none\n- `two`\n<!-- /taffrail:m-1 -->\n";
        check(None, &edit, block);
        check(Some("# Project\n"), &edit, &format!("# Project\n\n{block}"));
        check(Some("# Project"), &edit, &format!("# Project\n\n{block}"));
        check(Some("a\r\n"), &edit, &format!("a\r\n\r\n{}", block.replace('\n', "\r\n")));
    }

    #[test]
    fn a_file_is_named_by_plain_names_only() {
        let agent = |name: &str| Edit::AgentModel { agent_type: name.to_owned(), model: "haiku".to_owned() };
        assert_eq!(relative_path(&agent("scout")).as_deref(), Some(".claude/agents/scout.md"));
        for name in ["", "..", "../x", "a/b", "/etc/x", "a b", "a.b", "ä", &"a".repeat(65)] {
            assert_eq!(relative_path(&agent(name)), None, "{name}");
        }
    }

    /// JSON objects written in ways that people write them.
    fn settings_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        let member = prop_oneof![
            ("\\PC{0,6}", value).prop_map(|(key, value)| (key, value)),
            prop::collection::vec("[A-Z]{1,3}", 0..3)
                .prop_map(|list| ("permissions".to_owned(), json!({"allow": list}))),
            Just(("permissions".to_owned(), json!({}))),
            Just(("env".to_owned(), json!({"OTHER": "1"}))),
        ];
        (prop::collection::vec(member, 0..5), 0usize..3).prop_map(|(members, style)| {
            let object = Value::Object(members.into_iter().collect());
            match style {
                0 => object.to_string(),
                1 => serde_json::to_string_pretty(&object).unwrap() + "\n",
                _ => serde_json::to_string_pretty(&object).unwrap().replace('\n', "\r\n").replace("  ", "\t"),
            }
        })
    }

    proptest! {
        #[test]
        fn an_edit_adds_exactly_its_value_and_keeps_every_other_byte(text in settings_text(), is_env in any::<bool>()) {
            let edit = if is_env { env() } else { allow("Bash(cargo test)") };
            let before: Value = serde_json::from_str(&text).unwrap();
            if let Edited::To(after) = edited(Some(&text), &edit, "m") {
                // What was added is one piece of text; without it the file is what it was.
                let head = text.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
                let added = after.len() - text.len();
                let tail_of = |head: usize| after.as_bytes()[head + added..] == text.as_bytes()[head..];
                let is_insertion = tail_of(head);
                // An empty container on its own may have blanks inside that make room.
                let blanks = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
                prop_assert!(is_insertion || blanks(&text).len() < blanks(&after).len());
                let mut expected = before;
                if is_env {
                    expected["env"]["BASH_MAX_OUTPUT_LENGTH"] = json!("10000");
                } else {
                    let permissions = expected.as_object_mut().unwrap().entry("permissions").or_insert(json!({}));
                    let allow = permissions.as_object_mut().unwrap().entry("allow").or_insert(json!([]));
                    allow.as_array_mut().unwrap().push(json!("Bash(cargo test)"));
                }
                prop_assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), expected);
                prop_assert_eq!(edited(Some(&after), &edit, "m"), Edited::Already);
            }
        }
    }
}
