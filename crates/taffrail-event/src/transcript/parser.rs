//! Transcript bytes to [`Facts`], in any chunking, in one or several sittings.
//!
//! A record is parsed once, with typed and mostly borrowed fields; only the fields that facts are drawn from are looked
//! at. What goes from record to record (the file's first and last time stamp, its session, the prompt, the compaction
//! that was last announced) is [`Known`], and small; it is saved with the offset so that a later sitting goes on.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::decode::{Decoder, Found, Place};
use super::record::Record;
use super::{AgentSighting, Facts, FileFacts, FileKind, SessionSighting, gemini, journal, quick};
use crate::ids::{TimestampMs, bounded_id};
use crate::ledger::RequestSighting;

/// The version of [`Parser::context`]; a saved one of another version is not gone on with.
const CONTEXT_VERSION: u32 = 1;

/// What goes from record to record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Known {
    /// The first time stamp in file order.
    pub(super) born: Option<i64>,
    /// The last one seen.
    pub(super) last: Option<i64>,
    /// The session of the last record that named one.
    pub(super) session: Option<String>,
    /// The prompt that is being answered.
    pub(super) prompt: Option<String>,
    /// Whether a compaction was announced whose summary has not come yet.
    pub(super) compacting: bool,
    /// How good the title is that was told last: a person's own is not replaced by the client's.
    pub(super) title_rank: u8,
    /// A title that came before any time stamp.
    pub(super) title: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Context<'a> {
    version: u32,
    place: Cow<'a, Place>,
    known: Cow<'a, Known>,
}

/// Reads one file. See the module's documentation.
pub struct Parser {
    pub(super) file: FileFacts,
    decoder: Decoder,
    pub(super) known: Known,
    pub(super) facts: Facts,
    pub(super) index: Index,
    /// The whole document, of kinds that are one.
    document: Vec<u8>,
    parse: Parse,
}

/// Makes one object typed; none where it is not JSON.
pub(super) type Parse = for<'b> fn(&'b [u8]) -> Option<Record<'b>>;

/// Where in the facts that wait something already stands.
#[derive(Default)]
pub(super) struct Index {
    pub(super) requests: HashMap<RequestKey, usize>,
    pub(super) sessions: HashMap<String, usize>,
    pub(super) agents: HashMap<(String, String), usize>,
}

/// Lines with the same key are one sighting: message or request, session, agent.
pub(super) type RequestKey = (String, String, String);

impl Parser {
    /// At the beginning of a file.
    pub fn new(file: &FileFacts) -> Self {
        Self {
            file: file.clone(),
            decoder: Decoder::new(),
            known: Known::default(),
            facts: Facts::default(),
            index: Index::default(),
            document: Vec::new(),
            parse: quick_or_plain,
        }
    }

    /// Goes on where `context` was taken. None where it is of another version or damaged: the file must be read from
    /// its beginning.
    pub fn resume(file: &FileFacts, context: &str) -> Option<Self> {
        let context: Context<'_> = serde_json::from_str(context).ok()?;
        let decoder = Decoder::at(context.place.into_owned())?;
        (context.version == CONTEXT_VERSION).then(|| Self {
            decoder,
            known: context.known.into_owned(),
            ..Self::new(file)
        })
    }

    /// Takes what it can of `bytes` and says how much; the caller offers the rest again, with more behind it. The sum
    /// of what was taken is the file's offset of the next byte wanted.
    #[must_use]
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        match self.file.kind {
            FileKind::Transcript | FileKind::Journal => self.read(bytes, false),
            FileKind::AgentMeta | FileKind::Gemini => {
                // One document, which is rewritten whole: it is kept until its end, up to the limit of an object.
                let room = super::OBJECT_MAX_BYTES.saturating_sub(self.document.len());
                self.document.extend_from_slice(&bytes[..bytes.len().min(room)]);
                bytes.len()
            }
        }
    }

    /// Takes the rest, behind which nothing will come. While a file may still grow this is not called: a torn last
    /// line waits for its other half.
    pub fn finish(&mut self, rest: &[u8]) {
        match self.file.kind {
            FileKind::Transcript | FileKind::Journal => {
                self.read(rest, true);
            }
            FileKind::AgentMeta => {
                let _ = self.feed(rest);
                let document = std::mem::take(&mut self.document);
                match super::parse_meta(&self.file, &document) {
                    Some(agent) => {
                        self.facts.counts.records += 1;
                        self.agent_seen(agent);
                    }
                    None => self.facts.counts.bad += 1,
                }
            }
            FileKind::Gemini => {
                let _ = self.feed(rest);
                let document = std::mem::take(&mut self.document);
                let facts = gemini::parse(&document, self.file.modified);
                self.known.born = facts.sessions.first().map(|session| session.first.get());
                self.facts = facts;
            }
        }
    }

    fn read(&mut self, bytes: &[u8], at_end: bool) -> usize {
        let mut at = 0;
        let mut decoder = std::mem::take(&mut self.decoder);
        loop {
            let (taken, found) = decoder.next(&bytes[at..], at_end, self.parse);
            let from = at;
            at += taken;
            match found {
                Found::Line(record, _) => self.record(&record),
                Found::Object(range) => self.object(&bytes[from + range.start..from + range.end]),
                Found::Junk(_) => self.facts.counts.bad += 1,
                Found::More => break,
            }
        }
        self.decoder = decoder;
        at
    }

    /// An object that was found by its syntax.
    fn object(&mut self, bytes: &[u8]) {
        if let Some(record) = (self.parse)(bytes) {
            return self.record(&record);
        }
        let repaired = repaired(bytes);
        match (self.parse)(&repaired) {
            Some(record) => self.record(&record),
            None => self.facts.counts.bad += 1,
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        self.facts.counts.records += 1;
        match self.file.kind {
            FileKind::Journal => journal::line(self, record),
            _ => self.line(record),
        }
    }

    /// The facts since the last time, or the beginning.
    pub fn take(&mut self) -> Facts {
        self.index = Index::default();
        std::mem::take(&mut self.facts)
    }

    /// How many facts wait.
    pub fn pending(&self) -> usize {
        let facts = &self.facts;
        facts.requests.len()
            + facts.failures.len()
            + facts.marks.len()
            + facts.agents.len()
            + facts.totals.len()
    }

    /// What must be known to go on, as JSON; it belongs to the offset of the next byte wanted.
    pub fn context(&self) -> String {
        let place = Cow::Owned(self.decoder.place());
        let context = Context { version: CONTEXT_VERSION, place, known: Cow::Borrowed(&self.known) };
        serde_json::to_string(&context).unwrap_or_default()
    }

    /// The first time stamp in file order, once one was seen.
    pub fn born(&self) -> Option<TimestampMs> {
        self.known.born.map(TimestampMs::clamped)
    }

    /// Notes the time of a record and gives the time it counts for: its own, else the last one seen, else when the file
    /// was changed.
    pub(super) fn moment(&mut self, own: Option<i64>) -> Option<TimestampMs> {
        if let Some(ms) = own {
            self.known.born.get_or_insert(ms);
            self.known.last = Some(ms);
        }
        own.or(self.known.last).map(TimestampMs::clamped).or(self.file.modified)
    }

    /// The session of a record: its own, else the one before it, else the file's.
    pub(super) fn session_of(&mut self, record: &Record<'_>) -> String {
        if let Some(own) = record.session_id.get() {
            if self.known.session.as_deref() != Some(own) {
                self.known.session = Some(bounded_id(own));
            }
        } else if let Some(told) = self.file.session_id.as_ref().filter(|_| self.known.session.is_none()) {
            return told.clone();
        }
        self.known.session.clone().unwrap_or_else(|| "unknown".to_owned())
    }

    /// The entry of a session, made where it is new.
    pub(super) fn session_seen(&mut self, session_id: &str, ts: TimestampMs) -> &mut SessionSighting {
        // A fork or resume begins with lines of its parent, which are older than itself.
        let ts = ts.max(self.born().unwrap_or(ts));
        let at = match self.index.sessions.get(session_id) {
            Some(&at) => at,
            None => {
                self.index.sessions.insert(session_id.to_owned(), self.facts.sessions.len());
                let session_id = session_id.to_owned();
                self.facts.sessions.push(SessionSighting {
                    session_id,
                    first: ts,
                    last: ts,
                    ..SessionSighting::default()
                });
                self.facts.sessions.len() - 1
            }
        };
        let session = &mut self.facts.sessions[at];
        session.first = session.first.min(ts);
        session.last = session.last.max(ts);
        session
    }

    /// Merges what is told of a subagent into what waits.
    pub(super) fn agent_seen(&mut self, told: AgentSighting) {
        let key = (told.session_id.clone(), told.agent_id.clone());
        let Some(&at) = self.index.agents.get(&key) else {
            self.index.agents.insert(key, self.facts.agents.len());
            self.facts.agents.push(told);
            return;
        };
        let known = &mut self.facts.agents[at];
        known.agent_type = known.agent_type.take().or(told.agent_type);
        known.description = known.description.take().or(told.description);
        known.tool_use_id = known.tool_use_id.take().or(told.tool_use_id);
        known.first = [known.first, told.first].into_iter().flatten().min();
        known.last = known.last.max(told.last);
    }

    /// Adds a request, or merges it with another line of the same message.
    pub(super) fn request_seen(&mut self, told: RequestSighting) {
        let name = told.message_id.as_ref().or(told.request_id.as_ref()).cloned().unwrap_or_default();
        let key = (name, told.session_id.clone(), told.agent_id.clone().unwrap_or_default());
        match self.index.requests.get(&key) {
            Some(&at) if self.facts.requests[at].witness == told.witness => {
                super::merge(&mut self.facts.requests[at], told);
            }
            _ => {
                self.index.requests.insert(key, self.facts.requests.len());
                self.facts.requests.push(told);
            }
        }
    }
}

#[cfg(test)]
impl Parser {
    /// One that has every line read by serde.
    pub(super) fn plain(file: &FileFacts) -> Self {
        Self { parse: plain, ..Self::new(file) }
    }
}

fn quick_or_plain(bytes: &[u8]) -> Option<Record<'_>> {
    quick::record(bytes).or_else(|| plain(bytes))
}

fn plain(bytes: &[u8]) -> Option<Record<'_>> {
    serde_json::from_slice(bytes).ok()
}

/// With replacement characters for what is no UTF-8 and for halves of surrogate pairs: clients cut texts anywhere.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let mut repaired = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'\\', rest) {
        repaired.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (length, keep) = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (12, true),
            (Some(0xD800..=0xDFFF), _) => (6, false),
            (Some(_), _) => (6, true),
            (None, _) => (2.min(rest.len()), true),
        };
        repaired.extend_from_slice(if keep { &rest[..length] } else { b"\\ufffd" });
        rest = &rest[length..];
    }
    repaired.extend_from_slice(rest);
    repaired
}

/// The code unit of `\uXXXX` at the head.
fn unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
