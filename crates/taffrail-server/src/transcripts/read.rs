//! Reads one file as a stream and hands out what it says, piece by piece, each with the place up to which it goes.
//!
//! Memory: [`READ_BYTES`] and the parser's largest object; facts are handed out every [`FACTS_MAX`]. The [`Buffer`] goes
//! from file to file, for fresh memory costs as much as the reading.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use taffrail_event::transcript::{FileKind, OBJECT_MAX_BYTES, Parser};
use taffrail_store::{TranscriptChunk, TranscriptFile};

use super::place::{Mark, Plan, plan};
use super::walk::Found;

/// Bytes read at once.
const READ_BYTES: usize = 512 << 10;
/// Facts that are handed out together, about.
const FACTS_MAX: usize = 3_000;

/// A buffer that has grown beyond this for one file is given back after it.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// Bytes that are read and not yet taken in, and room for more.
#[derive(Default)]
pub(crate) struct Buffer {
    /// Its length is what was ever used, so that no byte is zeroed twice.
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    fn take(&mut self, taken: usize) {
        self.from += taken;
    }

    /// Reads up to `want` bytes more; fewer at the end of the file.
    fn fill(&mut self, file: &mut File, want: usize) -> io::Result<usize> {
        self.bytes.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        let end = self.to + want;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let before = self.to;
        while self.to < end {
            match file.read(&mut self.bytes[self.to..end]) {
                Ok(0) => break,
                Ok(got) => self.to += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.to - before)
    }

    /// For the next file.
    fn emptied(mut self) -> Self {
        (self.from, self.to) = (0, 0);
        if self.bytes.len() > BUFFER_KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self
    }
}

/// A file that is being read.
pub(crate) struct Reading {
    file: File,
    state: TranscriptFile,
    parser: Parser,
    mark: Mark,
    /// Its size when it was opened: what comes later is read the next time.
    end: u64,
    /// Bytes from the mark on.
    buffer: Buffer,
    kind: FileKind,
    /// Whether a line has named the session: until then it is the file's name.
    named: bool,
    done: bool,
}

impl Reading {
    /// Opens a file where there is something new in it. What is known of it says where to go on. The buffer is taken and
    /// comes back by [`Self::into_buffer`].
    pub(crate) fn open(
        found: &Found,
        known: Option<&TranscriptFile>,
        buffer: &mut Buffer,
    ) -> io::Result<Option<Self>> {
        let mut file = File::open(&found.path)?;
        let found = found.opened(&file.metadata()?)?;
        let plan = plan(known, &found);
        if plan == Plan::Unchanged {
            return Ok(None);
        }
        let facts = &found.facts;
        let mut state = fresh(&found, known);
        let mut begun = None;
        // What is one document is read anew each time.
        if let (Plan::GoOn, Some(known), FileKind::Transcript | FileKind::Journal) = (plan, known, facts.kind)
        {
            let mark = Mark::of_file(&mut file, known.offset)?;
            if mark.fingerprint() == known.fingerprint
                && let Some(parser) = Parser::resume(facts, &known.context)
            {
                state = go_on(state, known);
                begun = Some((parser, mark));
            }
        }
        let (parser, mark) = begun.unwrap_or_else(|| (Parser::new(facts), Mark::default()));
        file.seek(SeekFrom::Start(mark.offset()))?;
        let buffer = std::mem::take(buffer).emptied();
        let (end, kind, named) = (found.size_bytes, facts.kind, mark.offset() > 0);
        Ok(Some(Self { file, state, parser, mark, end, buffer, kind, named, done: false }))
    }

    /// The next piece; none at the end. The last piece has the file's new state even where there was nothing to draw.
    pub(crate) fn next(&mut self) -> io::Result<Option<TranscriptChunk>> {
        if self.done {
            return Ok(None);
        }
        while self.parser.pending() < FACTS_MAX {
            if !self.step()? {
                self.done = true;
                break;
            }
        }
        Ok(Some(self.piece()))
    }

    /// Whether [`Self::next`] has given all.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The buffer, for the next file.
    pub(crate) fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// Bytes from the place where reading began to the end.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.end.saturating_sub(self.mark.offset())
    }

    /// Reads once and lets the parser take what it can; false at the end.
    fn step(&mut self) -> io::Result<bool> {
        let waiting = self.buffer.rest().len();
        let read_to = self.mark.offset() + waiting as u64;
        // A rest that was not taken is an object that goes on: at least as much again is read before the next try.
        let want = (waiting.max(READ_BYTES) as u64).min(self.end.saturating_sub(read_to));
        let got = self.buffer.fill(&mut self.file, usize::try_from(want).unwrap_or(usize::MAX))?;
        let at_end = got == 0 || read_to + got as u64 >= self.end;
        let rest = self.buffer.rest();
        // A line that is cut would be followed byte by byte; it waits for its other half.
        let whole_lines = memchr::memrchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
        let offered = if at_end { rest.len() } else { whole_lines };
        let taken = self.parser.feed(&rest[..offered]).min(offered);
        self.mark.taken(&rest[..taken]);
        self.buffer.take(taken);
        debug_assert!(
            self.buffer.rest().len() <= 2 * OBJECT_MAX_BYTES + READ_BYTES,
            "the parser lets a rest grow"
        );
        if at_end && matches!(self.kind, FileKind::AgentMeta | FileKind::Gemini) {
            let rest = self.buffer.rest();
            self.parser.finish(rest);
            self.mark.taken(rest);
            self.buffer.take(rest.len());
        }
        Ok(!at_end)
    }

    fn piece(&mut self) -> TranscriptChunk {
        let facts = self.parser.take();
        let state = &mut self.state;
        state.records += facts.counts.records;
        state.bad += facts.counts.bad;
        state.unknown += facts.counts.unknown;
        if let (false, Some(session)) = (self.named, facts.sessions.first()) {
            state.session_id.clone_from(&session.session_id);
            self.named = true;
        }
        state.offset = self.mark.offset();
        state.fingerprint = self.mark.fingerprint();
        state.born = self.parser.born();
        state.context = self.parser.context();
        if !self.done {
            // Where this is the last that is stored, the file must not pass for read.
            return TranscriptChunk {
                file: TranscriptFile { size_bytes: state.offset, ..state.clone() },
                facts,
            };
        }
        TranscriptChunk { file: state.clone(), facts }
    }
}

/// The state of a file of which nothing is taken in yet; what was archived stays known.
fn fresh(found: &Found, known: Option<&TranscriptFile>) -> TranscriptFile {
    let told_by_path = found.facts.session_id.clone().unwrap_or_default();
    TranscriptFile {
        path: found.path.clone(),
        session_id: told_by_path,
        agent_id: found.facts.agent_id.clone(),
        device: found.device,
        inode: found.inode,
        size_bytes: found.size_bytes,
        modified_ns: found.modified_ns,
        archive: known.and_then(|k| k.archive.clone()),
        archived_bytes: known.map_or(0, |k| k.archived_bytes),
        archived: known.and_then(|k| k.archived),
        ..TranscriptFile::default()
    }
}

fn go_on(fresh: TranscriptFile, known: &TranscriptFile) -> TranscriptFile {
    TranscriptFile {
        session_id: known.session_id.clone(),
        records: known.records,
        bad: known.bad,
        unknown: known.unknown,
        ..fresh
    }
}
