//! Tool calls of a transcript as the events that hooks would have sent.
//!
//! A `tool_use` block becomes PreToolUse, its `tool_result` PostToolUse, PostToolUseFailure or PermissionDenied, with the
//! same session, agent and tool use id, so that both tellings of a call are one event ([`DedupKey`]). They go through the
//! normalization of hooks: files, git, errors and hashes come from the same code. The main agent's lines hold the very
//! `tool_response` of the hook (`toolUseResult`); lines of subagents hold only what the model was shown, so there the hash of
//! the result is another one than a hook's.
//!
//! Subagents come in four forms: inline (`isSidechain`; they have no id), in `progress` records, in files of their own, and
//! in files of a workflow. What a fork or resume copied from its parent carries the child's session: whoever reads several
//! files tells copies by their tool use ids, which are unique.
//!
//! Limits: [`OPEN_CALLS_MAX`] calls and [`OPEN_INPUT_MAX_BYTES`] bytes of their inputs wait for a result; the oldest make
//! room and are counted, as are results whose call was not seen. One record is at most
//! [`OBJECT_MAX_BYTES`](super::OBJECT_MAX_BYTES).
//!
//! [`DedupKey`]: crate::ids::DedupKey

use std::collections::{HashMap, VecDeque};

use memchr::memmem;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::FileFacts;
use super::decode::{Decoder, Found};
use super::lenient::{Flag, List, Rare, Text, lenient};
use super::parser::repaired;
use super::record::Raw;
use crate::event::{Arrival, CallStatus, Event, Source};
use crate::ids::{EventId, TimestampMs, bounded_id};
use crate::normalize::error::status_of_result;
use crate::normalize::{Delivery, hook};
use crate::redact::Redactor;

/// Calls whose result has not come; a turn makes some dozens at most.
pub const OPEN_CALLS_MAX: usize = 1_024;
/// Bytes of the inputs of those calls.
pub const OPEN_INPUT_MAX_BYTES: usize = 32 << 20;

/// The type of subagents that early clients wrote into the session's file without an id.
const INLINE_AGENT_TYPE: &str = "sidechain";

lenient! {
    /// One record, as far as calls are concerned.
    struct Line<'a> {
        kind: Text<'a> = "type",
        session_id: Text<'a> = "sessionId" | "session_id",
        agent_id: Text<'a> = "agentId",
        agent_type: Text<'a> = "attributionAgent",
        is_sidechain: Flag = "isSidechain",
        timestamp: Raw<'a> = "timestamp",
        cwd: Text<'a> = "cwd",
        prompt_id: Text<'a> = "promptId",
        message: Message<'a> = "message",
        result: Raw<'a> = "toolUseResult",
        data: Rare<Progress<'a>> = "data",
    }
}

lenient! {
    /// The vendor's message.
    struct Message<'a> { content: Raw<'a> = "content" }
}

lenient! {
    /// `data` of a `progress` record.
    struct Progress<'a> { agent_id: Text<'a> = "agentId", message: Inner<'a> = "message" }
}

lenient! {
    /// The subagent's record inside a `progress` record.
    struct Inner<'a> {
        kind: Text<'a> = "type",
        timestamp: Raw<'a> = "timestamp",
        message: Message<'a> = "message",
        result: Raw<'a> = "toolUseResult",
    }
}

lenient! {
    /// One block of a message.
    struct Block<'a> {
        kind: Text<'a> = "type",
        id: Text<'a> = "id",
        name: Text<'a> = "name",
        input: Raw<'a> = "input",
        tool_use_id: Text<'a> = "tool_use_id",
        content: Raw<'a> = "content",
        is_error: Flag = "is_error",
        text: Text<'a> = "text",
    }
}

/// What every event of a file has in common.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Now.
    pub received: TimestampMs,
    /// Takes secrets out before anything is understood.
    pub redactor: &'a Redactor,
    /// The project, if it is known whatever the lines say.
    pub app: Option<&'a str>,
    /// Who ran the agent.
    pub user: Option<&'a str>,
    /// Names the project of a working directory, if it can.
    pub resolve_app: &'a dyn Fn(&str) -> Option<String>,
}

/// What was found beside the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that began.
    pub started: u64,
    /// Calls whose result came.
    pub ended: u64,
    /// Results whose call was not seen: nothing is made of them.
    pub orphans: u64,
    /// Calls that had to make room before their result came.
    pub forgotten: u64,
    /// Text that is no JSON object.
    pub bad: u64,
}

struct Open {
    tool: String,
    input: Box<RawValue>,
}

/// Reads one file. Journals and `.meta.json` hold no calls.
pub struct Calls<'a> {
    file: FileFacts,
    context: Context<'a>,
    decoder: Decoder,
    session: Option<String>,
    cwd: Option<String>,
    open: HashMap<String, Open>,
    order: VecDeque<String>,
    open_bytes: usize,
    events: Vec<Event>,
    counts: Counts,
}

/// Where a block stands.
struct Scene<'r> {
    session: String,
    agent_id: Option<String>,
    agent_type: Option<String>,
    timestamp: &'r Raw<'r>,
    cwd: Option<String>,
    prompt_id: Option<String>,
}

impl<'a> Calls<'a> {
    /// At the beginning of a file.
    pub fn new(file: &FileFacts, context: Context<'a>) -> Self {
        Self {
            file: file.clone(),
            context,
            decoder: Decoder::new(),
            session: None,
            cwd: None,
            open: HashMap::new(),
            order: VecDeque::new(),
            open_bytes: 0,
            events: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Takes what it can of `bytes` and says how much; the caller offers the rest again, with more behind it.
    #[must_use]
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        self.read(bytes, false)
    }

    /// Takes the rest, behind which nothing will come.
    pub fn finish(&mut self, rest: &[u8]) {
        self.read(rest, true);
    }

    /// The events since the last time, in the order of the file.
    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What was found beside the events, since the beginning.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn read(&mut self, bytes: &[u8], at_end: bool) -> usize {
        let mut at = 0;
        let mut decoder = std::mem::take(&mut self.decoder);
        loop {
            // Whether a line is one object is asked with its bytes, and they are what is wanted.
            let (taken, found) = decoder.next(&bytes[at..], at_end, |line| parsed(line).map(|()| line));
            let from = at;
            at += taken;
            match found {
                Found::Line(line, _) => self.object(line),
                Found::Object(range) => self.object(&bytes[from + range.start..from + range.end]),
                Found::Junk(_) => self.counts.bad += 1,
                Found::More => break,
            }
        }
        self.decoder = decoder;
        at
    }

    fn object(&mut self, bytes: &[u8]) {
        if let Ok(line) = serde_json::from_slice::<Line<'_>>(bytes) {
            return self.line(&line, bytes);
        }
        let repaired = repaired(bytes);
        match serde_json::from_slice::<Line<'_>>(&repaired) {
            Ok(line) => self.line(&line, &repaired),
            Err(_) => self.counts.bad += 1,
        }
    }

    fn line(&mut self, line: &Line<'_>, bytes: &[u8]) {
        if let Some(own) = line.session_id.get()
            && self.session.as_deref() != Some(own)
        {
            self.session = Some(bounded_id(own));
        }
        if let Some(cwd) = line.cwd.get()
            && self.cwd.as_deref() != Some(cwd)
        {
            self.cwd = Some(cwd.to_owned());
        }
        if memmem::find(bytes, b"\"tool_").is_none() {
            return;
        }
        let of_file = || self.file.session_id.clone();
        let session = self.session.clone().or_else(of_file).unwrap_or_else(|| "unknown".to_owned());
        let agent_id = line.agent_id.get().map(bounded_id).or_else(|| self.file.agent_id.clone());
        let inline = agent_id.is_none() && line.is_sidechain.0;
        let told = line.agent_type.get().map(bounded_id);
        let mut scene = Scene {
            session,
            agent_id,
            agent_type: told.or_else(|| inline.then(|| INLINE_AGENT_TYPE.to_owned())),
            timestamp: &line.timestamp,
            cwd: self.cwd.clone(),
            prompt_id: line.prompt_id.get().map(bounded_id),
        };
        match line.kind.get() {
            Some("assistant") => self.uses(&line.message.content, &scene),
            Some("user") => self.results(&line.message.content, &line.result, &scene),
            Some("progress") => {
                let Some(progress) = line.data.0.as_deref() else { return };
                let Some(agent_id) = progress.agent_id.get() else { return };
                let inner = &progress.message;
                scene.agent_id = Some(bounded_id(agent_id));
                scene.agent_type = None;
                if inner.timestamp.0.is_some() {
                    scene.timestamp = &inner.timestamp;
                }
                match inner.kind.get() {
                    Some("assistant") => self.uses(&inner.message.content, &scene),
                    Some("user") => self.results(&inner.message.content, &inner.result, &scene),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn uses(&mut self, content: &Raw<'_>, scene: &Scene<'_>) {
        for block in blocks(content) {
            let (Some("tool_use"), Some(tool), Some(id)) =
                (block.kind.get(), block.name.get(), block.id.get())
            else {
                continue;
            };
            let Ok(input) = RawValue::from_string(block.input.json().to_owned()) else { continue };
            self.counts.started += 1;
            let id = bounded_id(id);
            let own = [("tool_name", json!(tool)), ("tool_use_id", json!(id))];
            self.event("PreToolUse", &id, scene, own, &[("tool_input", &input)]);
            self.begin(id, Open { tool: tool.to_owned(), input });
        }
    }

    fn begin(&mut self, id: String, open: Open) {
        self.open_bytes += open.input.get().len();
        if let Some(before) = self.open.insert(id.clone(), open) {
            self.open_bytes -= before.input.get().len();
            self.order.retain(|known| *known != id);
        }
        self.order.push_back(id);
        while self.order.len() > OPEN_CALLS_MAX || self.open_bytes > OPEN_INPUT_MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(gone) = self.open.remove(&oldest) {
                self.open_bytes -= gone.input.get().len();
                self.counts.forgotten += 1;
            }
        }
    }

    fn results(&mut self, content: &Raw<'_>, whole: &Raw<'_>, scene: &Scene<'_>) {
        let blocks = blocks(content);
        let is_result = |block: &&Block<'_>| block.kind.get() == Some("tool_result");
        // The whole result stands beside the message; of several results it would be nobody's.
        let is_only = blocks.iter().filter(is_result).count() == 1;
        for block in blocks.iter().filter(is_result) {
            let Some(id) = block.tool_use_id.get().map(bounded_id) else { continue };
            let Some(open) = self.open.remove(&id) else {
                self.counts.orphans += 1;
                continue;
            };
            self.open_bytes -= open.input.get().len();
            self.order.retain(|known| *known != id);
            self.counts.ended += 1;
            self.result(&id, &open, block, whole.0.filter(|_| is_only), scene);
        }
    }

    fn result(&mut self, id: &str, open: &Open, block: &Block<'_>, whole: Option<&str>, scene: &Scene<'_>) {
        let call = [("tool_name", json!(open.tool)), ("tool_use_id", json!(id))];
        let input = ("tool_input", &*open.input);
        if block.is_error.0 {
            let text = text_of(&block.content);
            let status = status_of_result(&text);
            if status == CallStatus::Denied {
                let own = call.into_iter().chain([("reason", json!(text))]);
                return self.event("PermissionDenied", id, scene, own, &[input]);
            }
            let interrupted = status == CallStatus::Interrupted;
            let own = call.into_iter().chain([("error", json!(text)), ("is_interrupt", json!(interrupted))]);
            return self.event("PostToolUseFailure", id, scene, own, &[input]);
        }
        let response = whole.filter(|raw| *raw != "null").unwrap_or_else(|| block.content.json());
        let Ok(response) = RawValue::from_string(response.to_owned()) else { return };
        self.event("PostToolUse", id, scene, call, &[input, ("tool_response", &response)]);
    }

    /// A hook's payload of these parts, redacted and normalized as one.
    fn event(
        &mut self,
        kind: &'static str,
        id: &str,
        scene: &Scene<'_>,
        own: impl IntoIterator<Item = (&'static str, Value)>,
        raw: &[(&'static str, &RawValue)],
    ) {
        let mut fields = Map::new();
        fields.insert("session_id".to_owned(), json!(scene.session));
        fields.insert("hook_event_name".to_owned(), json!(kind));
        let common = [
            ("cwd", &scene.cwd),
            ("agent_id", &scene.agent_id),
            ("agent_type", &scene.agent_type),
            ("prompt_id", &scene.prompt_id),
        ];
        for (name, value) in common {
            fields.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
        }
        fields.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut text = Value::Object(fields).to_string();
        let timestamp = scene.timestamp.0.map(|raw| ("timestamp", raw));
        for (name, json) in raw.iter().map(|(name, raw)| (*name, raw.get())).chain(timestamp) {
            text.truncate(text.len() - 1);
            text.push_str(&format!(",\"{name}\":{json}}}"));
        }
        let redacted = self.context.redactor.redact(&text);
        let agent = scene.agent_id.as_deref().unwrap_or_default();
        let parts = [
            b"transcript".as_slice(),
            scene.session.as_bytes(),
            agent.as_bytes(),
            id.as_bytes(),
            kind.as_bytes(),
        ];
        let delivery = Delivery {
            event_id: EventId::derived(&parts),
            source: Source::Transcript,
            captured: None,
            received: self.context.received,
            app: self.context.app,
            user: self.context.user,
            host: None,
            payload: redacted.text.as_bytes(),
            payload_bytes: text.len() as u64,
            truncated: false,
            redactions: redacted.total(),
            hook_wall_us: None,
        };
        let mut event = hook(&delivery, self.context.resolve_app);
        event.arrival = Arrival::Recorded;
        self.events.push(event);
    }
}

fn parsed(line: &[u8]) -> Option<()> {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok().then_some(())
}

fn blocks<'r>(content: &Raw<'r>) -> Vec<Block<'r>> {
    if !content.json().starts_with('[') {
        return Vec::new();
    }
    serde_json::from_str::<List<Block<'r>>>(content.json()).unwrap_or_default().0
}

/// What the model was shown: a string, or the text blocks of a list.
fn text_of(content: &Raw<'_>) -> String {
    if content.json().starts_with('"') {
        return serde_json::from_str::<Text<'_>>(content.json())
            .ok()
            .and_then(|text| text.owned())
            .unwrap_or_default();
    }
    let texts: Vec<String> = blocks(content).iter().filter_map(|block| block.text.owned()).collect();
    texts.join("\n")
}
