//! Usage out of a chat of the Gemini CLI (`~/.gemini/tmp/<project>/chats/session-*.json`): one JSON document with
//! `messages`, or since 0.40 one record a line; messages of type `gemini` carry `tokens`.
//!
//! `tokens.input` counts what was read from the cache too, and thoughts are billed as output beside `tokens.output`: so
//! input = input + tool - cached, output = output + thoughts. The vendor bills no cache writes. Only usage, prompts'
//! times and the session are drawn; a message without id is left out and counted.

use super::decode::{Decoder, Found};
use super::lenient::{List, Number, Text, lenient};
use super::lines::stamp;
use super::record::Stamp;
use super::{Facts, SessionSighting};
use crate::ids::{TimestampMs, bounded_id};
use crate::ledger::{RequestSighting, Terms, Usage, Witness};

lenient! {
    /// A whole document, its first line, or a message.
    struct Piece<'a> {
        session_id: Text<'a> = "sessionId",
        begun: Stamp<'a> = "startTime",
        messages: List<Piece<'a>> = "messages",
        id: Text<'a> = "id",
        kind: Text<'a> = "type",
        timestamp: Stamp<'a> = "timestamp",
        model: Text<'a> = "model",
        tokens: Option<Tokens> = "tokens",
    }
}

lenient! {
    /// `tokens` of a message.
    struct Tokens {
        input: Number = "input",
        output: Number = "output",
        cached: Number = "cached",
        thoughts: Number = "thoughts",
        tool: Number = "tool",
    }
}

#[derive(Default)]
struct Chat {
    session_id: String,
    modified: Option<TimestampMs>,
    born: Option<TimestampMs>,
    last: Option<TimestampMs>,
    facts: Facts,
}

/// The facts of a whole file; `modified` is the time of messages without one.
pub fn parse(bytes: &[u8], modified: Option<TimestampMs>) -> Facts {
    let mut chat = Chat { session_id: "unknown".to_owned(), modified, ..Chat::default() };
    let mut decoder = Decoder::new();
    let mut at = 0;
    loop {
        let (taken, found) = decoder.next(&bytes[at..], true, |line| serde_json::from_slice(line).ok());
        let from = at;
        at += taken;
        match found {
            Found::Line(piece, _) => chat.piece(&piece),
            Found::Object(range) => {
                match serde_json::from_slice(&bytes[from + range.start..from + range.end]) {
                    Ok(piece) => chat.piece(&piece),
                    Err(_) => chat.facts.counts.bad += 1,
                }
            }
            Found::Junk(_) => chat.facts.counts.bad += 1,
            Found::More => break,
        }
    }
    chat.done()
}

impl Chat {
    fn piece(&mut self, piece: &Piece<'_>) {
        self.facts.counts.records += 1;
        if let Some(session) = piece.session_id.get() {
            self.session_id = bounded_id(session);
        }
        self.moment(piece.begun.0.and_then(stamp));
        for message in &piece.messages.0 {
            self.message(message);
        }
        if piece.messages.0.is_empty() {
            self.message(piece);
        }
    }

    fn moment(&mut self, own: Option<i64>) -> Option<TimestampMs> {
        let own = own.map(TimestampMs::clamped);
        self.born = self.born.or(own);
        self.last = own.or(self.last);
        self.last.or(self.modified)
    }

    fn message(&mut self, message: &Piece<'_>) {
        let ts = self.moment(message.timestamp.0.and_then(stamp));
        let Some(tokens) = &message.tokens else { return };
        let (Some(ts), Some(id)) = (ts, message.id.get()) else {
            self.facts.counts.unknown += 1;
            return;
        };
        let count = |number: Number| number.count().unwrap_or(0);
        let cached = count(tokens.cached);
        self.facts.requests.push(RequestSighting {
            witness: Witness::Transcript,
            ts,
            message_id: Some(bounded_id(id)),
            request_id: None,
            session_id: self.session_id.clone(),
            born: self.born.unwrap_or(ts),
            agent_id: None,
            agent_type: None,
            prompt_id: None,
            app: None,
            user: None,
            model: message.model.get().map(bounded_id).unwrap_or_default(),
            usage: Some(Usage {
                input: count(tokens.input).saturating_add(count(tokens.tool)).saturating_sub(cached),
                output: count(tokens.output).saturating_add(count(tokens.thoughts)),
                cache_read: cached,
                ..Usage::default()
            }),
            is_final: true,
            terms: Terms::default(),
            query_source: None,
            effort: None,
            stop_reason: None,
            duration_ms: None,
            ttft_ms: None,
            attempts: None,
            told_cost_nano_usd: None,
        });
    }

    fn done(mut self) -> Facts {
        if let Some(first) = self.born.or(self.modified) {
            let last = self.last.unwrap_or(first).max(first);
            let model = self.facts.requests.last().map(|request| request.model.clone());
            let session_id = self.session_id;
            self.facts.sessions.push(SessionSighting {
                session_id,
                first,
                last,
                model,
                ..SessionSighting::default()
            });
        }
        self.facts
    }
}
