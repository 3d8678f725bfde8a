//! The scripted model: answers the client's Messages API requests with a scenario's turns.
//!
//! Turns are handed out in order, one per answered request of a conversation. Requests beside
//! the conversation (session titles, compaction) get a fixed answer and use no turn, so the
//! same scenario gives the same session whatever else the client asks. Ids are derived, not
//! random. Loopback only; nothing is kept of what the client sends.

use super::scenario::{Failure, How, Scenario, Turn};
use crate::http::{After, Request, end_events, respond_json, send_event, serve, start_events};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Characters of text, and of tool input, in one streamed piece.
const TEXT_PIECE_CHARS: usize = 60;
const INPUT_PIECE_CHARS: usize = 4096;

/// The conversation that belongs to no subagent.
const MAIN: usize = usize::MAX;

/// A running model; it ends with the process.
pub(crate) struct Model {
    /// Where the client finds it.
    pub(crate) address: SocketAddr,
    script: Arc<Script>,
}

impl Model {
    /// Starts to answer on a free loopback port.
    pub(crate) fn start(scenario: &Scenario) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free loopback port for the model")?;
        let address = listener.local_addr()?;
        let script = Arc::new(Script::new(scenario));
        let shared = Arc::clone(&script);
        serve(listener, move |request, stream| shared.handle(&request, stream));
        Ok(Self { address, script })
    }

    /// When each whole message had been sent: what the client has to pay for.
    pub(crate) fn served(&self) -> Vec<Instant> {
        self.script.served.lock().expect("no holder panics").clone()
    }

    /// How many turns of the main conversation nobody asked for.
    pub(crate) fn unused_turns(&self) -> usize {
        let progress = self.script.progress.lock().expect("no holder panics");
        let used = progress.iter().find(|p| p.conversation == MAIN).map_or(0, |p| p.turn);
        self.script.main.len().saturating_sub(used)
    }
}

/// A scenario's answers and how far each conversation has come.
struct Script {
    main: Vec<Turn>,
    agents: Vec<(String, Vec<Turn>)>,
    progress: Mutex<Vec<Progress>>,
    /// Requests beside the conversation so far: each has an id of its own, as the vendor's have.
    asides: AtomicU64,
    served: Mutex<Vec<Instant>>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    conversation: usize,
    turn: usize,
    failures: usize,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The next turn of a conversation.
    Turn { conversation: usize },
    /// A summary to go on from.
    Compaction,
    /// A title, a probe, or another request beside the conversation.
    Aside,
}

impl Script {
    fn new(scenario: &Scenario) -> Self {
        let agents = scenario.agents.iter().map(|agent| (agent.matching.clone(), agent.turns.clone()));
        Self {
            main: scenario.turns.clone(),
            agents: agents.collect(),
            progress: Mutex::default(),
            asides: AtomicU64::new(1),
            served: Mutex::default(),
        }
    }

    fn handle(&self, request: &Request, stream: &mut TcpStream) -> io::Result<After> {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v1/messages") => match serde_json::from_slice(&request.body) {
                Ok(body) => self.answer(&body, stream),
                Err(_) => refuse(stream, 400, "invalid_request_error", "not JSON", 0),
            },
            ("POST", "/v1/messages/count_tokens") => {
                respond_json(stream, 200, &[], &json!({"input_tokens": request.body.len() / 4 + 1}))?;
                Ok(After::KeepAlive)
            }
            ("HEAD", _) => {
                io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
                Ok(After::KeepAlive)
            }
            _ => refuse(stream, 404, "not_found_error", "not part of the script", 0),
        }
    }

    fn answer(&self, body: &Value, stream: &mut TcpStream) -> io::Result<After> {
        let (turn, id) = match self.classify(body) {
            Kind::Turn { conversation } => self.next(conversation),
            Kind::Compaction => {
                (said("<analysis>scripted</analysis>\n<summary>One line.</summary>"), self.aside_id())
            }
            Kind::Aside => (said(r#"{"isNewTopic": true, "title": "Scripted session"}"#), self.aside_id()),
        };
        match &turn.failure {
            Some(Failure { how: How::Status(status), kind, .. }) => {
                refuse(stream, *status, kind, "scripted failure", id)
            }
            Some(Failure { how: How::HangUp, .. }) => Ok(After::Close),
            failed => {
                let message = message(&turn, body, id);
                let headers = [("request-id", name("req_01", id, 0))];
                let headers = headers.each_ref().map(|(key, value)| (*key, value.as_str()));
                if body["stream"] == true {
                    start_events(stream, &headers)?;
                    stream_message(stream, &message, turn.piece_delay_ms, failed.as_ref())?;
                } else {
                    respond_json(stream, 200, &headers, &message)?;
                }
                if failed.is_none() {
                    self.served.lock().expect("no holder panics").push(Instant::now());
                }
                Ok(After::KeepAlive)
            }
        }
    }

    fn aside_id(&self) -> u64 {
        self.asides.fetch_add(1, Ordering::Relaxed)
    }

    fn classify(&self, body: &Value) -> Kind {
        let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let last = messages.last().map(text_of).unwrap_or_default().to_lowercase();
        if last.contains("summary of the conversation") || last.contains("your task is to create a") {
            return Kind::Compaction;
        }
        if body["tools"].as_array().is_none_or(Vec::is_empty) {
            return Kind::Aside;
        }
        let first = messages.iter().find(|m| m["role"] == "user").map(text_of).unwrap_or_default();
        let conversation = self.agents.iter().position(|(matching, _)| first.contains(matching));
        Kind::Turn { conversation: conversation.unwrap_or(MAIN) }
    }

    /// Hands out the turn that is due and moves on; when there is none left, says so.
    fn next(&self, conversation: usize) -> (Turn, u64) {
        let turns = self.agents.get(conversation).map_or(&self.main, |(_, turns)| turns);
        let mut progress = self.progress.lock().expect("no holder panics");
        let at = progress.iter().position(|p| p.conversation == conversation).unwrap_or_else(|| {
            progress.push(Progress { conversation, turn: 0, failures: 0 });
            progress.len() - 1
        });
        let progress = &mut progress[at];
        let id = hash(&(conversation, progress.turn, progress.failures));
        let Some(turn) = turns.get(progress.turn) else {
            progress.turn += 1;
            return (said("Done."), id);
        };
        progress.failures += 1;
        if turn.failure.as_ref().is_none_or(|failure| progress.failures >= failure.times) {
            progress.turn += 1;
            progress.failures = 0;
        }
        (turn.clone(), id)
    }
}

fn said(text: &str) -> Turn {
    Turn { text: text.to_owned(), usage: [300, 12, 0, 0], ..Turn::default() }
}

fn refuse(stream: &mut TcpStream, status: u16, kind: &str, message: &str, id: u64) -> io::Result<After> {
    let body = json!({"type": "error", "error": {"type": kind, "message": message}});
    respond_json(stream, status, &[("request-id", &name("req_01", id, 0)), ("retry-after", "0")], &body)?;
    Ok(After::KeepAlive)
}

fn text_of(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            blocks.iter().filter_map(|b| b["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// An id of the API's look.
fn name(prefix: &str, id: u64, part: usize) -> String {
    format!("{prefix}{:016x}{:08x}", id, hash(&(id, part)) as u32)
}

fn message(turn: &Turn, request: &Value, id: u64) -> Value {
    let mut content = Vec::new();
    if !turn.thinking.is_empty() {
        content.push(json!({"type": "thinking", "thinking": turn.thinking, "signature": name("sig", id, 0)}));
    }
    if !turn.text.is_empty() {
        content.push(json!({"type": "text", "text": turn.text}));
    }
    for (at, tool) in turn.tools.iter().enumerate() {
        let id = name("toolu_01", id, at);
        content.push(json!({"type": "tool_use", "id": id, "name": tool.name, "input": tool.input}));
    }
    let [input, output, cache_read, cache_write] = turn.usage;
    json!({
        "id": name("msg_01", id, 0), "type": "message", "role": "assistant", "model": request["model"],
        "content": content,
        "stop_reason": if turn.tools.is_empty() { "end_turn" } else { "tool_use" },
        "stop_sequence": null,
        "usage": {
            "input_tokens": input, "output_tokens": output, "cache_read_input_tokens": cache_read,
            "cache_creation_input_tokens": cache_write, "service_tier": "standard",
        },
    })
}

fn stream_message(
    stream: &mut TcpStream,
    message: &Value,
    piece_delay_ms: u64,
    broken_off: Option<&Failure>,
) -> io::Result<()> {
    let mut start = message.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    send_event(stream, "message_start", &json!({"type": "message_start", "message": start}))?;
    if let Some(failure) = broken_off {
        let error = json!({"type": "error", "error": {"type": failure.kind, "message": "scripted failure"}});
        send_event(stream, "error", &error)?;
        return end_events(stream);
    }
    let blocks = message["content"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, block) in blocks.iter().enumerate() {
        stream_block(stream, index, block, piece_delay_ms)?;
    }
    let delta = json!({"stop_reason": message["stop_reason"], "stop_sequence": null});
    let end = json!({"type": "message_delta", "delta": delta, "usage": message["usage"]});
    send_event(stream, "message_delta", &end)?;
    send_event(stream, "message_stop", &json!({"type": "message_stop"}))?;
    end_events(stream)
}

fn stream_block(stream: &mut TcpStream, index: usize, block: &Value, piece_delay_ms: u64) -> io::Result<()> {
    let (empty, deltas) = block_events(block);
    let start = json!({"type": "content_block_start", "index": index, "content_block": empty});
    send_event(stream, "content_block_start", &start)?;
    for delta in deltas {
        std::thread::sleep(Duration::from_millis(piece_delay_ms));
        let event = json!({"type": "content_block_delta", "index": index, "delta": delta});
        send_event(stream, "content_block_delta", &event)?;
    }
    send_event(stream, "content_block_stop", &json!({"type": "content_block_stop", "index": index}))
}

/// How a block begins when it is streamed, and what then comes piece by piece.
fn block_events(block: &Value) -> (Value, Vec<Value>) {
    let text = |field: &str| block[field].as_str().unwrap_or_default();
    match text("type") {
        "thinking" => (
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            vec![
                json!({"type": "thinking_delta", "thinking": text("thinking")}),
                json!({"type": "signature_delta", "signature": text("signature")}),
            ],
        ),
        "text" => {
            let deltas = pieces(text("text"), TEXT_PIECE_CHARS);
            let delta = |piece| json!({"type": "text_delta", "text": piece});
            (json!({"type": "text", "text": ""}), deltas.into_iter().map(delta).collect())
        }
        _ => {
            let deltas = pieces(&block["input"].to_string(), INPUT_PIECE_CHARS);
            let delta = |piece| json!({"type": "input_json_delta", "partial_json": piece});
            let empty = json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}});
            (empty, deltas.into_iter().map(delta).collect())
        }
    }
}

fn pieces(text: &str, chars: usize) -> Vec<String> {
    let all: Vec<char> = text.chars().collect();
    all.chunks(chars).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn script() -> Script {
        let scenario = json!({
            "about": "x", "runs": [],
            "turns": [
                {"failure": {"how": {"status": 529}, "type": "overloaded_error", "times": 2}},
                {"text": "first"},
            ],
            "agents": [{"match": "SURVEY", "turns": [{"text": "agent"}]}],
        });
        Script::new(&serde_json::from_value(scenario).unwrap())
    }

    fn ask(first: &str) -> Value {
        json!({"tools": [{}], "messages": [{"role": "user", "content": first}]})
    }

    #[test]
    fn turns_come_in_order_and_failures_as_often_as_scripted() {
        let script = script();
        let texts: Vec<_> = (0..4)
            .map(|_| script.next(MAIN).0)
            .map(|turn| if turn.failure.is_some() { "failure".to_owned() } else { turn.text })
            .collect();
        assert_eq!(texts, ["failure", "failure", "first", "Done."]);
    }

    #[test]
    fn subagents_have_a_conversation_of_their_own() {
        let script = script();
        assert_eq!(script.classify(&ask("please SURVEY it")), Kind::Turn { conversation: 0 });
        assert_eq!(script.classify(&ask("hello")), Kind::Turn { conversation: MAIN });
        assert_eq!(script.next(0).0.text, "agent");
    }

    #[test]
    fn what_stands_beside_the_conversation_uses_no_turn() {
        let script = script();
        assert_eq!(script.classify(&json!({"messages": []})), Kind::Aside);
        let compaction = "Your task is to create a detailed summary of the conversation so far";
        assert_eq!(script.classify(&ask(compaction)), Kind::Compaction);
    }

    #[test]
    fn pieces_put_together_are_the_whole() {
        let turn: Turn = serde_json::from_value(json!({
            "thinking": "t", "text": "é".repeat(130), "tools": [{"name": "Bash", "input": {"command": "ls"}}],
        }))
        .unwrap();
        let message = message(&turn, &json!({"model": "m"}), 7);
        let blocks = message["content"].as_array().unwrap();
        assert_eq!(blocks.len(), 3);
        assert_eq!(message["stop_reason"], "tool_use");
        let (_, deltas) = block_events(&blocks[1]);
        assert_eq!(deltas.len(), 3);
        let text: String = deltas.iter().map(|d| d["text"].as_str().unwrap()).collect();
        assert_eq!(text, turn.text);
        let (_, deltas) = block_events(&blocks[2]);
        assert_eq!(deltas[0]["partial_json"], r#"{"command":"ls"}"#);
    }
}
