//! The old contract's event: what `POST /events` takes, and what the old page is shown.
//!
//! Values are carried as the JSON text they came as, so numbers, nesting and unknown fields survive unchanged; the
//! order of fields is the one that was posted.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use taffrail_event::{Event, EventId, TimestampMs};
use taffrail_store::StoredEvent;

/// Top-level fields of a post, at most.
const FIELDS_MAX: usize = 256;
/// Fields that the event itself holds; the rest is stored beside it.
const OWN_FIELDS: [&str; 5] = ["source_app", "session_id", "hook_event_type", "payload", "timestamp"];
/// The old table's columns, in the order the old server reads them back.
const COLUMNS_BEFORE_TIME: [&str; 2] = ["chat", "summary"];
const COLUMNS_AFTER_TIME: [&str; 3] = ["humanInTheLoop", "humanInTheLoopStatus", "model_name"];

/// A JSON object in the order of its fields; a field that comes twice has its last value, as in JavaScript.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo(Vec<(String, Box<RawValue>)>);

impl Echo {
    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| &**v)
    }

    /// Sets a field where it stands, or at the end.
    fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn set_json(&mut self, name: &str, value: &impl Serialize) {
        if let Ok(raw) = to_raw_value(value) {
            self.set(name, raw);
        }
    }

    pub(crate) fn set_id(&mut self, row_id: i64) {
        self.set_json("id", &row_id);
    }

    /// The old shape of an event that came another way.
    pub(crate) fn of_event(event: &Event) -> Self {
        let fields = event.legacy.as_ref().map(|legacy| &legacy.fields);
        let payload = (event.payload.text.as_str(), event.payload.is_json);
        let mut echo = Self::columns(
            0,
            [&event.app, &event.session_id, &event.type_name],
            Some(payload),
            event.ts,
            fields,
            None,
        );
        echo.set_model(event.model.as_deref());
        echo
    }

    /// The old shape of a stored event, as the old server reads it back.
    pub(crate) fn of_stored(event: &StoredEvent) -> Self {
        let payload = event.payload.as_ref().map(|p| (p.text.as_str(), p.is_json));
        let mut echo = Self::columns(
            event.row_id.0,
            [&event.app, &event.session_id, &event.type_name],
            payload,
            event.ts,
            event.legacy.as_ref(),
            event.human_in_the_loop_status.as_ref(),
        );
        echo.set_model(event.model.as_deref());
        echo
    }

    fn columns(
        id: i64,
        [app, session_id, type_name]: [&str; 3],
        payload: Option<(&str, bool)>,
        ts: TimestampMs,
        fields: Option<&Map<String, Value>>,
        status: Option<&Value>,
    ) -> Self {
        let mut echo = Self::default();
        echo.set_id(id);
        echo.set_json("source_app", &app);
        echo.set_json("session_id", &session_id);
        echo.set_json("hook_event_type", &type_name);
        if let Some((text, is_json)) = payload {
            echo.set_payload(text, is_json);
        }
        let column = |echo: &mut Self, name: &str| {
            let status = status.filter(|_| name == "humanInTheLoopStatus");
            if let Some(value) = status.or_else(|| fields?.get(name)).filter(|v| is_truthy(v)) {
                echo.set_json(name, value);
            }
        };
        COLUMNS_BEFORE_TIME.iter().for_each(|name| column(&mut echo, name));
        echo.set_json("timestamp", &ts.get());
        COLUMNS_AFTER_TIME.iter().for_each(|name| column(&mut echo, name));
        for (name, value) in fields.into_iter().flatten() {
            if echo.get(name).is_none()
                && !COLUMNS_BEFORE_TIME.contains(&name.as_str())
                && !COLUMNS_AFTER_TIME.contains(&name.as_str())
            {
                echo.set_json(name, value);
            }
        }
        echo
    }

    fn set_payload(&mut self, text: &str, is_json: bool) {
        let raw = if is_json { RawValue::from_string(text.to_owned()).ok() } else { None };
        match raw {
            Some(raw) => self.set("payload", raw),
            None => self.set_json("payload", &text),
        }
    }

    fn set_model(&mut self, model: Option<&str>) {
        if let Some(model) = model
            && self.get("model_name").is_none()
        {
            self.set_json("model_name", &model);
        }
    }
}

impl Serialize for Echo {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Echo {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Echo;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Echo, A::Error> {
                let mut echo = Echo::default();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    echo.set(&name, value);
                    if echo.0.len() > FIELDS_MAX {
                        return Err(serde::de::Error::custom("too many fields"));
                    }
                }
                Ok(echo)
            }
        }
        from.deserialize_map(Fields)
    }
}

/// Why a post is refused, in the old server's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    MissingFields,
    Invalid,
}

impl Refusal {
    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::MissingFields => "Missing required fields",
            Self::Invalid => "Invalid request",
        }
    }
}

/// A valid post, taken apart.
#[derive(Debug)]
pub(crate) struct Post {
    /// What the sender gets back, once its id is known.
    pub(crate) echo: Echo,
    pub(crate) source_app: String,
    pub(crate) session_id: String,
    pub(crate) hook_event_type: String,
    pub(crate) timestamp_ms: Option<i64>,
    /// Everything else, with `humanInTheLoopStatus` set where a person is asked.
    pub(crate) fields: Map<String, Value>,
}

/// Reads a post as the old server would: which fields must be truthy, and what is added to the answer.
pub(crate) fn parse(text: &str, received: TimestampMs) -> Result<Post, Refusal> {
    let mut echo = match serde_json::from_str::<Echo>(text) {
        Ok(echo) => echo,
        // Any other JSON but null has no such fields; null has none to look into.
        Err(_) => {
            return Err(match serde_json::from_str::<&RawValue>(text) {
                Ok(raw) if raw.get().trim() != "null" && !raw.get().trim().starts_with('{') => {
                    Refusal::MissingFields
                }
                _ => Refusal::Invalid,
            });
        }
    };
    let required = |name: &str| {
        echo.get(name).filter(|raw| is_raw_truthy(raw)).map(as_text).ok_or(Refusal::MissingFields)
    };
    let (source_app, session_id) = (required("source_app")?, required("session_id")?);
    let hook_event_type = required("hook_event_type")?;
    required("payload")?;

    let timestamp_ms = echo.get("timestamp").and_then(milliseconds).filter(|ms| *ms != 0);
    let truthy_time = echo.get("timestamp").is_some_and(is_raw_truthy);
    // The old server's order: id, timestamp and status come last unless they were posted.
    echo.set_id(0);
    if !truthy_time {
        echo.set_json("timestamp", &received.get());
    }
    let asks = echo.get("humanInTheLoop").is_some_and(is_raw_truthy);
    if asks && !echo.get("humanInTheLoopStatus").is_some_and(is_raw_truthy) {
        echo.set_json("humanInTheLoopStatus", &json!({"status": "pending"}));
    }
    let fields = echo
        .0
        .iter()
        .filter(|(name, _)| name != "id" && !OWN_FIELDS.contains(&name.as_str()))
        .map(|(name, raw)| (name.clone(), as_value(raw)))
        .collect();
    Ok(Post { echo, source_app, session_id, hook_event_type, timestamp_ms, fields })
}

/// An id for a post that carries none of its own.
pub(crate) fn fresh_id() -> EventId {
    EventId::from_uuid(uuid::Uuid::now_v7())
}

fn milliseconds(raw: &RawValue) -> Option<i64> {
    let number: serde_json::Number = serde_json::from_str(raw.get()).ok()?;
    #[allow(clippy::cast_possible_truncation, reason = "saturates; ids clamp it anyway")]
    number.as_i64().or_else(|| number.as_f64().map(|ms| ms as i64))
}

fn as_text(raw: &RawValue) -> String {
    serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

/// The value; nested too deep for one, its text.
fn as_value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| Value::String(raw.get().to_owned()))
}

fn is_raw_truthy(raw: &RawValue) -> bool {
    match raw.get() {
        "null" | "false" | "\"\"" => false,
        text if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            text.parse::<f64>().is_ok_and(|n| n != 0.0)
        }
        _ => true,
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn now() -> TimestampMs {
        TimestampMs::clamped(1_800_000_000_000)
    }

    fn answer(text: &str) -> String {
        let mut post = parse(text, now()).unwrap();
        post.echo.set_id(7);
        serde_json::to_string(&post.echo).unwrap()
    }

    #[test]
    fn the_answer_is_the_post_with_id_time_and_status_at_the_end() {
        assert_eq!(
            answer(
                r#"{"source_app":"a","session_id":"s","hook_event_type":"Stop","payload":{"x":1.50},"odd":[1,2]}"#
            ),
            r#"{"source_app":"a","session_id":"s","hook_event_type":"Stop","payload":{"x":1.50},"odd":[1,2],"id":7,"timestamp":1800000000000}"#
        );
        assert_eq!(
            answer(
                r#"{"timestamp":5,"source_app":"a","session_id":"s","hook_event_type":"N","payload":{},"humanInTheLoop":{"question":"?"}}"#
            ),
            r#"{"timestamp":5,"source_app":"a","session_id":"s","hook_event_type":"N","payload":{},"humanInTheLoop":{"question":"?"},"id":7,"humanInTheLoopStatus":{"status":"pending"}}"#
        );
    }

    #[test]
    fn what_javascript_finds_falsy_is_missing_and_what_throws_is_invalid() {
        for (text, refusal) in [
            (
                r#"{"source_app":"","session_id":"s","hook_event_type":"N","payload":{}}"#,
                Refusal::MissingFields,
            ),
            (
                r#"{"source_app":"a","session_id":0,"hook_event_type":"N","payload":{}}"#,
                Refusal::MissingFields,
            ),
            (
                r#"{"source_app":"a","session_id":"s","hook_event_type":"N","payload":null}"#,
                Refusal::MissingFields,
            ),
            (r#"{"source_app":"a"}"#, Refusal::MissingFields),
            ("[]", Refusal::MissingFields),
            ("5", Refusal::MissingFields),
            ("null", Refusal::Invalid),
            ("{", Refusal::Invalid),
            ("", Refusal::Invalid),
        ] {
            assert_eq!(parse(text, now()).unwrap_err(), refusal, "{text}");
        }
    }

    #[test]
    fn a_payload_of_any_depth_and_an_empty_one_are_taken() {
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        for payload in [deep.as_str(), "{}", "[]", "\"text\"", "1"] {
            let text =
                format!(r#"{{"source_app":"a","session_id":"s","hook_event_type":"N","payload":{payload}}}"#);
            assert_eq!(parse(&text, now()).unwrap().echo.get("payload").unwrap().get(), payload);
        }
    }
}
