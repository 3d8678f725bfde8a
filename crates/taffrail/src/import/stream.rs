//! Reads JSON objects out of whatever recorded them: JSON lines, arrays (indented or not), several objects on a
//! line, objects run together, files with merge-conflict markers or a cut end.
//!
//! What is no object comes out as junk, in order, so that nothing is dropped. Memory is bounded by
//! [`OBJECT_MAX_BYTES`] and [`CONFLICT_MAX_BYTES`], time is linear in the size of the input.

use std::collections::VecDeque;
use std::io::{self, Read};

use taffrail_event::json_syntax::{Step, Syntax};

/// The largest object read as one (the server takes bodies of 32 MiB); what is larger comes out as junk.
pub(crate) const OBJECT_MAX_BYTES: usize = 30 << 20;
/// The largest span of junk in one item; more of it makes more items.
pub(crate) const JUNK_MAX_BYTES: usize = 1 << 20;
/// The largest conflict (from `<<<<<<<` to `>>>>>>>`) that is taken apart into its sides.
pub(crate) const CONFLICT_MAX_BYTES: usize = 8 << 20;
const READ_BYTES: usize = 256 << 10;
/// A broken object is searched again for the next start; so many bytes more than were read, at most.
const RESCAN_SLACK_BYTES: u64 = 4 << 20;

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) kind: ItemKind,
    pub(crate) bytes: Vec<u8>,
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemKind {
    /// A whole JSON object.
    Object,
    /// Anything else but white space, brackets and commas between objects.
    Junk,
}

/// Decodes `reader`; call [`Decoder::next`] until it gives none.
pub(crate) struct Decoder<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Where in `buffer` the next item starts.
    start: usize,
    at_end: bool,
    read_bytes: u64,
    rescanned_bytes: u64,
    junk: Vec<u8>,
    ready: VecDeque<Item>,
    /// Other sides of a conflict that the text after it completes too, with the length of the side in the buffer.
    twins: Option<Twins>,
}

struct Twins {
    sides: Vec<Vec<u8>>,
    shown_bytes: usize,
}

enum Found {
    Object { end: usize },
    Broken { at: usize },
    Conflict(Conflict),
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            at_end: false,
            read_bytes: 0,
            rescanned_bytes: 0,
            junk: Vec::new(),
            ready: VecDeque::new(),
            twins: None,
        }
    }

    /// The next item; none at the end of the input.
    pub(crate) fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if !self.skip_to_start()? {
                self.flush_junk();
                return Ok(self.ready.pop_front());
            }
            match self.scan_object()? {
                Found::Object { end } => self.take_object(end),
                Found::Conflict(conflict) => self.take_conflict(&conflict),
                Found::Broken { at } => self.take_broken(at)?,
            }
        }
    }

    /// Moves `start` to the next `{`, with what lies before it gathered as junk. False at the end.
    fn skip_to_start(&mut self) -> io::Result<bool> {
        loop {
            while let Some(&byte) = self.buffer.get(self.start) {
                match byte {
                    b'{' => return Ok(true),
                    b'<' if self.starts_line(self.start) => match self.conflict_at(self.start)? {
                        Some(conflict) => self.take_conflict(&conflict),
                        None => self.push_junk(byte),
                    },
                    _ => self.push_junk(byte),
                }
            }
            self.compact();
            if !self.fill()? {
                return Ok(false);
            }
        }
    }

    fn starts_line(&self, at: usize) -> bool {
        at == 0 || self.buffer[at - 1] == b'\n'
    }

    fn push_junk(&mut self, byte: u8) {
        let between = byte.is_ascii_whitespace() || matches!(byte, b'[' | b']' | b',');
        if !self.junk.is_empty() || !between {
            self.junk.push(byte);
        }
        self.start += 1;
        if self.junk.len() >= JUNK_MAX_BYTES {
            self.flush_junk();
        }
    }

    fn flush_junk(&mut self) {
        let junk = std::mem::take(&mut self.junk);
        let text = trim_between(&junk);
        if !text.is_empty() && text != b"\xEF\xBB\xBF" {
            self.ready.push_back(Item { kind: ItemKind::Junk, bytes: text.to_vec() });
        }
    }

    /// Follows the object at `start` to its end, or to where it stops being one.
    fn scan_object(&mut self) -> io::Result<Found> {
        let mut syntax = Syntax::new(None);
        let mut at = self.start;
        loop {
            while let Some(&byte) = self.buffer.get(at) {
                match syntax.step(byte) {
                    Step::More => at += 1,
                    Step::Complete => return Ok(Found::Object { end: at + 1 }),
                    Step::Broken => {
                        let conflict = byte == b'<' && self.starts_line(at);
                        let conflict = if conflict { self.conflict_at(at)? } else { None };
                        return Ok(conflict.map_or(Found::Broken { at }, Found::Conflict));
                    }
                }
            }
            at -= self.compact();
            if at - self.start > OBJECT_MAX_BYTES || !self.fill()? {
                return Ok(Found::Broken { at });
            }
        }
    }

    fn take_object(&mut self, end: usize) {
        self.flush_junk();
        let bytes = self.buffer[self.start..end].to_vec();
        self.ready.push_back(Item { kind: ItemKind::Object, bytes });
        self.start = end;
        self.take_twins();
    }

    /// The text that completed one side of a conflict completes the others.
    fn take_twins(&mut self) {
        let Some(twins) = self.twins.take() else { return };
        let Some(Item { bytes, .. }) = self.ready.back() else { return };
        let Some(rest) = bytes.get(twins.shown_bytes..).map(<[u8]>::to_vec) else { return };
        for mut side in twins.sides {
            side.extend_from_slice(&rest);
            let (items, left) = decode_part(side);
            self.ready.extend(items);
            self.ready.extend(junk_item(&left));
        }
    }

    /// The object at `start` breaks off at `at`: it is junk up to the next line that may start one.
    fn take_broken(&mut self, at: usize) -> io::Result<()> {
        self.drop_twins();
        let indent = self.indent_of_start();
        let may_rescan =
            self.rescanned_bytes + (at - self.start) as u64 <= self.read_bytes + RESCAN_SLACK_BYTES;
        let mut from = if may_rescan { self.start + 1 } else { at.max(self.start + 1) };
        if may_rescan {
            self.rescanned_bytes += (at - self.start) as u64;
        }
        loop {
            if let Some(next) = next_line_start(&self.buffer, from, indent) {
                self.junk_until(next);
                return Ok(());
            }
            // The last line may be cut by the buffer: look at it again when more has come.
            let line = last_line(&self.buffer, from);
            self.junk_until(line);
            self.compact();
            from = self.start;
            if !self.fill()? {
                self.junk_until(self.buffer.len());
                return Ok(());
            }
        }
    }

    fn junk_until(&mut self, end: usize) {
        while self.start < end {
            let room = JUNK_MAX_BYTES - self.junk.len().min(JUNK_MAX_BYTES - 1);
            let stop = end.min(self.start + room);
            self.junk.extend_from_slice(&self.buffer[self.start..stop]);
            self.start = stop;
            if self.junk.len() >= JUNK_MAX_BYTES {
                self.flush_junk();
            }
        }
    }

    /// Spaces and tabs before the `{` at `start`, if it is the first on its line.
    fn indent_of_start(&self) -> usize {
        let before = &self.buffer[..self.start];
        before.iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count()
    }

    /// The conflict whose `<<<<<<<` line starts at `at`, if it ends within the limit.
    fn conflict_at(&mut self, at: usize) -> io::Result<Option<Conflict>> {
        loop {
            let shown = &self.buffer[at..];
            let marker = shown.len() < MARKER.len() || shown.starts_with(MARKER);
            if !marker || shown.len() > CONFLICT_MAX_BYTES {
                return Ok(None);
            }
            let conflict = Conflict::parse(&self.buffer, at);
            if conflict.as_ref().is_some_and(|c| self.buffer[c.end - 1] == b'\n') || !self.fill()? {
                return Ok(conflict);
            }
        }
    }

    /// Decodes every side of a conflict, each with the object begun before it.
    fn take_conflict(&mut self, conflict: &Conflict) {
        self.drop_twins();
        self.flush_junk();
        let begun = self.buffer[self.start..conflict.start].to_vec();
        let mut left: Vec<Vec<u8>> = Vec::new();
        for side in &conflict.sides {
            let mut text = begun.clone();
            text.extend_from_slice(&self.buffer[side.clone()]);
            let (items, rest) = decode_part(text);
            self.ready.extend(items);
            if !rest.is_empty() && !left.contains(&rest) {
                left.push(rest);
            }
        }
        self.start = conflict.end;
        let mut left = left.into_iter();
        if let Some(shown) = left.next() {
            let sides: Vec<_> = left.collect();
            self.twins = (!sides.is_empty()).then_some(Twins { sides, shown_bytes: shown.len() });
            self.buffer.splice(..self.start, shown);
            self.start = 0;
        }
    }

    fn drop_twins(&mut self) {
        for side in self.twins.take().into_iter().flat_map(|twins| twins.sides) {
            self.ready.extend(junk_item(&side));
        }
    }

    /// Forgets what lies before `start` but for its line's indent; says by how much everything moved.
    fn compact(&mut self) -> usize {
        let indent = self.indent_of_start().min(KEPT_INDENT_BYTES);
        let newline = usize::from(self.start > indent && self.buffer[self.start - indent - 1] == b'\n');
        let forget = self.start - indent - newline;
        self.buffer.drain(..forget);
        self.start -= forget;
        forget
    }

    /// Reads more behind the buffer; false at the end of the input.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        let old = self.buffer.len();
        self.buffer.resize(old + READ_BYTES, 0);
        let got = read_some(&mut self.reader, &mut self.buffer[old..])?;
        self.buffer.truncate(old + got);
        self.read_bytes += got as u64;
        self.at_end = got == 0;
        Ok(got > 0)
    }
}

const KEPT_INDENT_BYTES: usize = 256;
const MARKER: &[u8] = b"<<<<<<<";

fn read_some(reader: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(into) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A conflict's lines: where it starts and ends, and its sides. The common ancestor is a side where it says something.
struct Conflict {
    start: usize,
    end: usize,
    sides: Vec<std::ops::Range<usize>>,
}

impl Conflict {
    /// The conflict that starts at `start`, if its last line is in the buffer (its end may be missing).
    fn parse(buffer: &[u8], start: usize) -> Option<Self> {
        if !buffer.get(start..)?.starts_with(MARKER) {
            return None;
        }
        let (mut at, mut ours, mut base, mut theirs) = (start, None, None, None);
        loop {
            let line = &buffer[at..];
            let end = line.iter().position(|&b| b == b'\n').map_or(buffer.len(), |n| at + n + 1);
            match line.get(..MARKER.len()) {
                Some(b"<<<<<<<") if at == start => ours = Some(end..end),
                Some(b"|||||||") if base.is_none() => {
                    close(&mut ours, at);
                    base = Some(end..end);
                }
                Some(b"=======") if theirs.is_none() => {
                    close(if base.is_some() { &mut base } else { &mut ours }, at);
                    theirs = Some(end..end);
                }
                Some(b">>>>>>>") => {
                    close(&mut theirs, at);
                    let base = base.filter(|b| !trim_between(&buffer[b.clone()]).is_empty());
                    let sides = [ours, base, Some(theirs?)].into_iter().flatten().collect();
                    return Some(Self { start, end, sides });
                }
                _ => {}
            }
            if end == buffer.len() {
                return None;
            }
            at = end;
        }
    }
}

fn close(side: &mut Option<std::ops::Range<usize>>, end: usize) {
    if let Some(side) = side {
        side.end = end;
    }
}

/// Decodes a text in memory: its items, and the object it ends in the middle of.
fn decode_part(text: Vec<u8>) -> (Vec<Item>, Vec<u8>) {
    let mut items = Vec::new();
    let mut decoder = Decoder::new(io::empty());
    decoder.buffer = text;
    while decoder.skip_to_start().unwrap_or(false) {
        items.extend(decoder.ready.drain(..));
        match decoder.scan_object() {
            Ok(Found::Object { end }) => decoder.take_object(end),
            Ok(Found::Broken { at }) if at < decoder.buffer.len() => {
                if decoder.take_broken(at).is_err() {
                    break;
                }
            }
            _ => {
                decoder.flush_junk();
                items.extend(decoder.ready.drain(..));
                return (items, decoder.buffer.split_off(decoder.start));
            }
        }
    }
    decoder.flush_junk();
    items.extend(decoder.ready.drain(..));
    (items, Vec::new())
}

fn junk_item(bytes: &[u8]) -> Option<Item> {
    let text = trim_between(bytes);
    (!text.is_empty()).then(|| Item { kind: ItemKind::Junk, bytes: text.to_vec() })
}

/// Without the white space, brackets and commas around.
fn trim_between(bytes: &[u8]) -> &[u8] {
    let between = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'[' | b']' | b',');
    let Some(first) = bytes.iter().position(|b| !between(b)) else { return &[] };
    let last = bytes.iter().rposition(|b| !between(b)).unwrap_or(first);
    &bytes[first..=last]
}

/// The first line from `from` on whose first character is a `{` no further in than `indent`; its `{`.
fn next_line_start(buffer: &[u8], from: usize, indent: usize) -> Option<usize> {
    let mut at = from;
    while let Some(newline) = buffer[at..].iter().position(|&b| b == b'\n') {
        at += newline + 1;
        let spaces = buffer[at..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        if spaces <= indent && buffer.get(at + spaces) == Some(&b'{') {
            return Some(at + spaces);
        }
    }
    None
}

/// The start of the last line in the buffer, its newline with it; `from` where there is none.
fn last_line(buffer: &[u8], from: usize) -> usize {
    buffer[from..].iter().rposition(|&b| b == b'\n').map_or(buffer.len(), |n| from + n)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Gives one byte at a time: every cut of the input is met.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(into.len()).min(1);
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn decode(reader: impl Read) -> Vec<String> {
        let mut decoder = Decoder::new(reader);
        let mut found = Vec::new();
        while let Some(item) = decoder.next().unwrap() {
            let mark = if item.kind == ItemKind::Junk { "junk " } else { "" };
            found.push(format!("{mark}{}", String::from_utf8_lossy(&item.bytes)));
        }
        found
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(decode(text.as_bytes()), expected);
        assert_eq!(decode(Trickle(text.as_bytes())), expected, "byte by byte");
    }

    #[test]
    fn objects_come_out_of_lines_arrays_and_runs() {
        check("{\"a\":1}\n{\"b\":[{}]}\n", &["{\"a\":1}", "{\"b\":[{}]}"]);
        check("[\n  {\n    \"a\": 1\n  },\n  {\"b\": 2}\n]", &["{\n    \"a\": 1\n  }", "{\"b\": 2}"]);
        check("{\"a\":1}{\"b\":2} {\"c\":3}", &["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
        check("\u{feff}{\"a\":\"}\\\"{\"}", &["{\"a\":\"}\\\"{\"}"]);
        check("", &[]);
        check("[]\n\n", &[]);
    }

    #[test]
    fn a_cut_line_is_junk_and_the_next_line_is_not() {
        check("{\"a\":\"b\n{\"c\":1}\n", &["junk {\"a\":\"b", "{\"c\":1}"]);
        check("{\"a\":\n{\"c\":1}\n{\"d\":1}\n", &["junk {\"a\":", "{\"c\":1}", "{\"d\":1}"]);
        check("{\"a\":1}\n{\"c\":{\"d\"", &["{\"a\":1}", "junk {\"c\":{\"d\""]);
        check("{\"a\":{\"x\":1},\n{\"c\":1}", &["junk {\"a\":{\"x\":1}", "{\"c\":1}"]);
    }

    #[test]
    fn junk_between_objects_is_kept_in_order() {
        check("oops\n{\"a\":1}\nnull\n", &["junk oops", "{\"a\":1}", "junk null"]);
        check("{a:1}\n{\"b\":2}", &["junk {a:1}", "{\"b\":2}"]);
    }

    #[test]
    fn a_broken_object_does_not_give_out_its_parts() {
        check(
            "[\n  {\n    bad,\n    \"n\": {\n    }\n  },\n  {\"b\":1}\n]",
            &["junk {\n    bad,\n    \"n\": {\n    }\n  }", "{\"b\":1}"],
        );
    }

    #[test]
    fn both_sides_of_a_conflict_come_out_and_share_what_follows() {
        let text = "[\n  {\n<<<<<<< HEAD\n    \"s\": 1\n  },\n  {\n    \"s\": 2,\n||||||| base\n=======\n    \"s\": 3,\n>>>>>>> other\n    \"t\": 4\n  }\n]\n";
        check(
            text,
            &[
                "{\n    \"s\": 1\n  }",
                "{\n    \"s\": 2,\n    \"t\": 4\n  }",
                "{\n    \"s\": 3,\n    \"t\": 4\n  }",
            ],
        );
        let whole = "<<<<<<< HEAD\n{\"a\":1}\n=======\n{\"b\":2}\n>>>>>>> x\n{\"c\":3}\n";
        check(whole, &["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
        check("<<<<<<< HEAD\n{\"a\":1}\n", &["junk <<<<<<< HEAD", "{\"a\":1}"]);
    }

    #[test]
    fn deep_nesting_and_many_broken_starts_take_linear_time() {
        let deep = format!("{}1{}", "{\"a\":".repeat(200_000), "}".repeat(200_000));
        assert_eq!(decode(deep.as_bytes()), [deep]);
        let broken = "{\"a\":[\n".repeat(300_000);
        let items = decode(broken.as_bytes());
        assert!(items.iter().map(String::len).sum::<usize>() >= broken.trim_end().len() - items.len());
    }

    #[test]
    fn an_endless_object_does_not_fill_the_memory() {
        let text = format!("{{\"a\":\"{}\"}}\n{{\"b\":1}}", "x".repeat(OBJECT_MAX_BYTES + READ_BYTES));
        let found = decode(text.as_bytes());
        assert!(found[..found.len() - 1].iter().all(|item| item.starts_with("junk ")));
        assert_eq!(found.last().unwrap(), "{\"b\":1}");
    }
}
