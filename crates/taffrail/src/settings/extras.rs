//! What beside hooks is written into the client's settings: its telemetry (`env`) and its status line.
//!
//! Ours is told from the user's without state elsewhere: the telemetry is ours where [`MARK`] says the same address as the
//! client's own variable, a status line where it calls `taffrail statusline`. What the user has set stays; where it
//! contradicts what is asked for, nothing is changed and the error names it.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::parse;
use taffrail_event::json_text::{Document, Step};

/// Says that the telemetry's address is ours; the client passes it by.
const MARK: &str = "TAFFRAIL_OTLP_ENDPOINT";
/// Where the client sends telemetry.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The settings' place for environment variables.
const ENV: &str = "env";
/// The settings' place for the status line.
const STATUS_LINE: &str = "statusLine";

/// What the client's telemetry needs (its documentation, "Monitoring"; traces are a beta there). Costs are wanted within a
/// second: log records leave every half second instead of every five.
const TELEMETRY: [(&str, &str); 6] = [
    ("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
    ("OTEL_LOGS_EXPORTER", "otlp"),
    ("OTEL_METRICS_EXPORTER", "otlp"),
    ("OTEL_TRACES_EXPORTER", "otlp"),
    ("CLAUDE_CODE_ENHANCED_TELEMETRY_BETA", "1"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
];

/// How often it leaves, and how long the client waits for a server that hangs when it ends, in milliseconds: where the user
/// has other figures, theirs stand.
const INTERVALS: [(&str, &str); 4] = [
    ("CLAUDE_CODE_OTEL_SHUTDOWN_TIMEOUT_MS", "1000"),
    ("OTEL_LOGS_EXPORT_INTERVAL", "500"),
    ("OTEL_TRACES_EXPORT_INTERVAL", "1000"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "10000"),
];

/// What is wanted beside hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extras {
    /// Base address for the telemetry.
    pub(crate) otlp_endpoint: Option<String>,
    /// The status line's command, for a shell.
    pub(crate) statusline: Option<String>,
}

/// What of ours is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where our telemetry goes.
    pub(crate) otlp_endpoint: Option<String>,
    /// Our status line's command.
    pub(crate) statusline: Option<String>,
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.otlp_endpoint.is_none() && self.statusline.is_none()
    }
}

/// Puts what is wanted into settings text; the same text comes back when it is there already.
///
/// # Errors
/// When the text is not JSON, or the user's own settings say otherwise.
pub(crate) fn with_extras(text: &str, extras: &Extras) -> Result<String> {
    let mut document = parse(text)?;
    if let Some(endpoint) = &extras.otlp_endpoint {
        add_telemetry(&mut document, endpoint)?;
    }
    if let Some(command) = &extras.statusline {
        add_statusline(&mut document, command)?;
    }
    Ok(document.text().to_owned())
}

/// Takes what is ours out of settings text; what `original` (the settings before) had stays.
///
/// # Errors
/// When the text is not JSON.
pub(crate) fn without_extras(text: &str, original: Option<&Value>) -> Result<String> {
    let mut document = parse(text)?;
    if let Some(endpoint) = our_endpoint(&document) {
        remove_telemetry(&mut document, &endpoint, original)?;
    }
    if our_statusline(&document).is_some() {
        document.remove(&[Step::Key(STATUS_LINE)])?;
    }
    Ok(document.text().to_owned())
}

/// What of ours stands in settings text.
///
/// # Errors
/// When the text is not JSON.
pub(crate) fn extras_in(text: &str) -> Result<Found> {
    let document = parse(text)?;
    Ok(Found { otlp_endpoint: our_endpoint(&document), statusline: our_statusline(&document) })
}

fn add_telemetry(document: &mut Document, endpoint: &str) -> Result<()> {
    let env = match document.get(&[Step::Key(ENV)]) {
        None => Map::new(),
        Some(Value::Object(env)) => env,
        Some(_) => {
            bail!("\"env\" in the settings is not an object\nhint: mend it first; nothing was changed")
        }
    };
    if let Some(old) = our_endpoint(document) {
        if old == endpoint {
            return add_missing(document, endpoint);
        }
        // Ours, but for another address: out with it first.
        remove_telemetry(document, &old, None)?;
        return add_missing(document, endpoint);
    }
    let wanted = TELEMETRY.iter().copied().chain([(ENDPOINT, endpoint)]);
    let others: Vec<String> = wanted
        .filter_map(|(name, value)| {
            let theirs = env.get(name)?;
            (theirs.as_str() != Some(value)).then(|| format!("{name} = {theirs}"))
        })
        .collect();
    if !others.is_empty() {
        bail!(
            "the settings send telemetry elsewhere already: {}\nhint: let that collector forward OTLP to {endpoint}, or \
             remove these from \"env\" and run it again; nothing was changed",
            others.join(", ")
        );
    }
    add_missing(document, endpoint)
}

fn add_missing(document: &mut Document, endpoint: &str) -> Result<()> {
    let wanted = TELEMETRY.iter().chain(&INTERVALS).copied().chain([(ENDPOINT, endpoint), (MARK, endpoint)]);
    if document.get(&[Step::Key(ENV)]).is_none() {
        let env: Map<String, Value> = wanted.map(|(name, value)| (name.to_owned(), json!(value))).collect();
        return Ok(document.append(&[], Some(ENV), &Value::Object(env))?);
    }
    for (name, value) in wanted {
        if document.get(&[Step::Key(ENV), Step::Key(name)]).is_none() {
            document.append(&[Step::Key(ENV)], Some(name), &json!(value))?;
        }
    }
    Ok(())
}

fn remove_telemetry(document: &mut Document, endpoint: &str, original: Option<&Value>) -> Result<()> {
    let original_env = original.and_then(|settings| settings.get(ENV));
    let ours = TELEMETRY.iter().chain(&INTERVALS).copied().chain([(ENDPOINT, endpoint), (MARK, endpoint)]);
    for (name, value) in ours.collect::<Vec<_>>().into_iter().rev() {
        let path = [Step::Key(ENV), Step::Key(name)];
        let is_ours = document.get(&path).is_some_and(|there| there.as_str() == Some(value));
        let was_there = original_env.is_some_and(|env| env.get(name).is_some());
        if is_ours && !was_there {
            document.remove(&path)?;
        }
    }
    let path = [Step::Key(ENV)];
    if document.get(&path).is_some_and(|env| env == json!({})) && original_env.is_none() {
        document.remove(&path)?;
    }
    Ok(())
}

fn add_statusline(document: &mut Document, command: &str) -> Result<()> {
    let path = [Step::Key(STATUS_LINE)];
    let wanted = json!({"type": "command", "command": command});
    match document.get(&path) {
        Some(there) if there == wanted => return Ok(()),
        Some(_) if our_statusline(document).is_some() => document.remove(&path)?,
        Some(there) => bail!(
            "the settings have a status line already: {}\nhint: remove \"statusLine\" and run it again, or call \
             `{command}` from yours with the same stdin; nothing was changed",
            there.get("command").and_then(Value::as_str).unwrap_or("of another kind")
        ),
        None => {}
    }
    Ok(document.append(&[], Some(STATUS_LINE), &wanted)?)
}

fn our_endpoint(document: &Document) -> Option<String> {
    let env = document.get(&[Step::Key(ENV)])?;
    let endpoint = env.get(MARK)?.as_str()?;
    (env.get(ENDPOINT)?.as_str()? == endpoint).then(|| endpoint.to_owned())
}

fn our_statusline(document: &Document) -> Option<String> {
    let command = document.get(&[Step::Key(STATUS_LINE), Step::Key("command")])?;
    let command = command.as_str()?;
    let mut words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    let program = words.next()?.rsplit(['/', '\\']).next()?.trim_end_matches(".exe").to_owned();
    // A wrapper of the user's own that pipes into ours is the user's.
    let is_plain = !command.contains(['|', ';', '&', '`', '$']);
    (program == "taffrail" && is_plain && words.any(|word| word == "statusline")).then(|| command.to_owned())
}

/// A word for a POSIX shell: as it is where that is safe, else in single quotes.
pub(crate) fn shell_word(word: &str) -> String {
    let is_safe = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':' | '=' | '@' | ',')
    };
    if !word.is_empty() && word.chars().all(is_safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const HERE: &str = "http://127.0.0.1:4000";

    fn both() -> Extras {
        Extras { otlp_endpoint: Some(HERE.to_owned()), statusline: Some("/t/taffrail statusline".to_owned()) }
    }

    /// Whether what came out again are the bytes that went in; the same value it must be.
    #[track_caller]
    fn there_and_back(before: &str) -> bool {
        let after = with_extras(before, &both()).unwrap();
        let found = extras_in(&after).unwrap();
        assert_eq!(found.otlp_endpoint.as_deref(), Some(HERE));
        assert_eq!(found.statusline.as_deref(), Some("/t/taffrail statusline"));
        assert_eq!(with_extras(&after, &both()).unwrap(), after, "idempotent");
        let original: Value = serde_json::from_str(before).unwrap();
        let rest = without_extras(&after, Some(&original)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&rest).unwrap(), original);
        rest == before
    }

    #[test]
    fn what_was_put_in_comes_out_again() {
        assert!(there_and_back("{}"));
        assert!(there_and_back("{\n  \"model\": \"opus\",\n  \"env\": {\n    \"A\": \"b\"\n  }\n}\n"));
        let some_set = r#"{"env":{"OTEL_LOGS_EXPORT_INTERVAL":"5000","OTEL_LOGS_EXPORTER":"otlp"}}"#;
        assert!(there_and_back(some_set));
        // The blank inside an empty object goes; `uninstall` brings the backup back where only that differs.
        assert!(!there_and_back("{ \"env\" : { } }"));
    }

    #[test]
    fn every_variable_that_the_client_needs_is_set() {
        let after: Value = serde_json::from_str(&with_extras("{}", &both()).unwrap()).unwrap();
        let env = after["env"].as_object().unwrap();
        for name in [
            "CLAUDE_CODE_ENABLE_TELEMETRY",
            "OTEL_LOGS_EXPORTER",
            "OTEL_METRICS_EXPORTER",
            "OTEL_TRACES_EXPORTER",
        ] {
            assert!(env.contains_key(name), "{name}");
        }
        assert_eq!(env["OTEL_EXPORTER_OTLP_ENDPOINT"], HERE);
        assert!(env.values().all(Value::is_string), "the client refuses numbers");
    }

    #[test]
    fn a_collector_of_the_users_is_not_cut_off() {
        let theirs = "{\"env\":{\"OTEL_EXPORTER_OTLP_ENDPOINT\":\"http://collector:4317\"}}";
        let message = with_extras(theirs, &both()).unwrap_err().to_string();
        assert!(message.contains("http://collector:4317") && message.contains("forward"), "{message}");
        let theirs = "{\"env\":{\"OTEL_METRICS_EXPORTER\":\"prometheus\"}}";
        assert!(with_extras(theirs, &both()).unwrap_err().to_string().contains("prometheus"));
        assert_eq!(without_extras(theirs, None).unwrap(), theirs);
        assert_eq!(extras_in(theirs).unwrap(), Found::default());
    }

    #[test]
    fn another_address_replaces_ours() {
        let old = with_extras("{}", &both()).unwrap();
        let moved = Extras { otlp_endpoint: Some("http://127.0.0.1:4001".to_owned()), statusline: None };
        let new = with_extras(&old, &moved).unwrap();
        assert_eq!(extras_in(&new).unwrap().otlp_endpoint.as_deref(), Some("http://127.0.0.1:4001"));
        assert!(!new.contains("127.0.0.1:4000"));
    }

    #[test]
    fn a_status_line_of_the_users_stays() {
        let theirs = r#"{"statusLine":{"type":"command","command":"~/bin/mine.sh"}}"#;
        assert!(with_extras(theirs, &both()).unwrap_err().to_string().contains("mine.sh"));
        assert_eq!(without_extras(theirs, None).unwrap(), theirs);
        let wrapped = r#"{"statusLine":{"type":"command","command":"taffrail statusline | tr a b"}}"#;
        assert_eq!(extras_in(wrapped).unwrap().statusline, None);
        let older = r#"{"statusLine":{"type":"command","command":"/old/taffrail statusline","padding":0}}"#;
        let after = with_extras(older, &both()).unwrap();
        assert_eq!(extras_in(&after).unwrap().statusline.as_deref(), Some("/t/taffrail statusline"));
    }

    #[test]
    fn a_shell_reads_one_word() {
        assert_eq!(shell_word("/usr/bin/taffrail"), "/usr/bin/taffrail");
        assert_eq!(shell_word("/home/a b/it's"), r"'/home/a b/it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
