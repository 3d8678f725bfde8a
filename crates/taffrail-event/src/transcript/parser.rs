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
    reader: Reader,
}

/// Makes one object typed.
#[derive(Default)]
struct Reader {
    quick: quick::Reader,
    /// Whether serde reads every line: what the quick reader is held against.
    #[cfg(test)]
    is_plain: bool,
}

impl Reader {
    /// Gives the record of a line or an object to `take`; none where it is not JSON.
    fn record(&mut self, bytes: &[u8], take: impl FnOnce(&Record<'_>)) -> Option<()> {
        // Made in its place: a record is large, and most of them are only looked at.
        let mut record = Record::default();
        #[cfg(test)]
        let is_read = !self.is_plain && self.quick.read(bytes, &mut record).is_some();
        #[cfg(not(test))]
        let is_read = self.quick.read(bytes, &mut record).is_some();
        if !is_read {
            record = serde_json::from_slice(bytes).ok()?;
        }
        take(&record);
        Some(())
    }
}

/// Where in the facts that wait something already stands.
#[derive(Default)]
pub(super) struct Index {
    pub(super) requests: HashMap<RequestKey, usize>,
    pub(super) sessions: HashMap<String, usize>,
    /// Of the session seen last.
    pub(super) session: usize,
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
            reader: Reader::default(),
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
        let mut reader = std::mem::take(&mut self.reader);
        loop {
            let (taken, found) =
                decoder.next(&bytes[at..], at_end, |line| reader.record(line, |record| self.record(record)));
            let from = at;
            at += taken;
            match found {
                Found::Line((), _) => {}
                Found::Object(range) => {
                    self.object(&bytes[from + range.start..from + range.end], &mut reader);
                }
                Found::Junk(_) => self.facts.counts.bad += 1,
                Found::More => break,
            }
        }
        (self.decoder, self.reader) = (decoder, reader);
        at
    }

    /// An object that was found by its syntax.
    fn object(&mut self, bytes: &[u8], reader: &mut Reader) {
        let read = reader.record(bytes, |record| self.record(record));
        if read.or_else(|| reader.record(&repaired(bytes), |record| self.record(record))).is_none() {
            self.facts.counts.bad += 1;
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
        self.note_session(record);
        self.known.session.clone().unwrap_or_else(|| self.session_of_file())
    }

    /// Notes the session that a record names.
    pub(super) fn note_session(&mut self, record: &Record<'_>) {
        if let Some(own) = record.session_id.get()
            && self.known.session.as_deref() != Some(own)
        {
            self.known.session = Some(bounded_id(own));
        }
    }

    /// The session where no record has named one.
    pub(super) fn session_of_file(&self) -> String {
        self.file.session_id.clone().unwrap_or_else(|| "unknown".to_owned())
    }

    /// The entry of a session, made where it is new.
    pub(super) fn session_seen(&mut self, session_id: &str, ts: TimestampMs) -> &mut SessionSighting {
        // A fork or resume begins with lines of its parent, which are older than itself.
        let ts = ts.max(self.born().unwrap_or(ts));
        // Most lines are of the session that the one before was of.
        let before = self.facts.sessions.get(self.index.session);
        let at = if before.is_some_and(|before| before.session_id == session_id) {
            Some(self.index.session)
        } else {
            self.index.sessions.get(session_id).copied()
        };
        let at = match at {
            Some(at) => at,
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
        self.index.session = at;
        let session = &mut self.facts.sessions[at];
        session.first = session.first.min(ts);
        session.last = session.last.max(ts);
        session
    }

    /// Merges what is told of a subagent into what waits.
    pub(super) fn agent_seen(&mut self, told: AgentSighting) {
        let is_told =
            |known: &AgentSighting| known.agent_id == told.agent_id && known.session_id == told.session_id;
        // Most lines of a subagent's file are of it alone.
        let at = if self.facts.agents.last().is_some_and(is_told) {
            self.facts.agents.len() - 1
        } else {
            let key = (told.session_id.clone(), told.agent_id.clone());
            let Some(&at) = self.index.agents.get(&key) else {
                self.index.agents.insert(key, self.facts.agents.len());
                self.facts.agents.push(told);
                return;
            };
            at
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
        // The lines of a message follow each other as a rule.
        if let Some(last) = self.facts.requests.last_mut().filter(|last| is_same(last, &told)) {
            return super::merge(last, told);
        }
        let key =
            (name_of(&told).to_owned(), told.session_id.clone(), told.agent_id.clone().unwrap_or_default());
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

/// What lines of the same message have in common; merging does not change it.
fn name_of(request: &RequestSighting) -> &str {
    request.message_id.as_ref().or(request.request_id.as_ref()).map_or("", String::as_str)
}

/// Whether both are sightings of the same message by the same witness.
fn is_same(a: &RequestSighting, b: &RequestSighting) -> bool {
    name_of(a) == name_of(b)
        && a.witness == b.witness
        && a.session_id == b.session_id
        && a.agent_id.as_deref().unwrap_or_default() == b.agent_id.as_deref().unwrap_or_default()
}

#[cfg(test)]
impl Parser {
    /// One that has every line read by serde.
    pub(super) fn plain(file: &FileFacts) -> Self {
        Self { reader: Reader { is_plain: true, ..Reader::default() }, ..Self::new(file) }
    }
}

/// With replacement characters for what is no UTF-8 and for halves of surrogate pairs: clients cut texts anywhere.
pub(super) fn repaired(bytes: &[u8]) -> Vec<u8> {
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
