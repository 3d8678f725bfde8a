//! Finds JSON objects in the bytes of a transcript: one on a line as a rule, but also several on a line, a torn line
//! with another behind it, indented arrays, a `{"loglines": [...]}` wrapper, and text that is no JSON.
//!
//! Nothing is kept between calls but a few words of state: the caller offers the bytes it has, and offers again what
//! was not taken with more behind it. What comes out does not depend on how the bytes are cut.
//! Limits: an object larger than [`OBJECT_MAX_BYTES`] is taken as junk and skipped; of a broken line at most
//! [`RESYNC_TRIES`] places are looked at for another record.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::json_syntax::{Step as Byte, Syntax};

/// The largest record read as one; what is larger is counted as bad.
pub const OBJECT_MAX_BYTES: usize = 64 << 20;
/// How often a broken line is tried again at something that looks like the beginning of a record.
const RESYNC_TRIES: usize = 16;
/// How records of every known version begin; where a torn line ends and the next one begins on the same line.
const RECORD_STARTS: [&[u8]; 2] = [b"{\"parentUuid\":", b"{\"type\":"];
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// One thing found. Ranges are places in the bytes offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// The rest of a line is one object, and this is what was made of it.
    Line(T, Range<usize>),
    /// An object by its syntax: not alone on its line, or not yet followed by a newline.
    Object(Range<usize>),
    /// Text that is no object, once for each run of it; of a long one the beginning.
    Junk(Range<usize>),
    /// More bytes are needed (or, at the end, nothing is left).
    More,
}

/// Where the decoder stands between two calls.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Between records.
    Between,
    /// Inside an object that begins where the next bytes offered begin; so much of it is scanned.
    Object { syntax: Syntax, scanned: usize, is_broken: bool },
    /// Inside an object that is too large: its bytes are dropped.
    Skipping { syntax: Syntax },
    /// After junk: lines are dropped up to one that begins with `{` no further in than this.
    Dropping { indent: usize, seen: Option<usize> },
}

/// A [`Decoder`]'s state as it is saved with the offset of the next byte it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    wrapped: bool,
    indent: usize,
    line_is_blank: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropping: Option<(usize, Option<usize>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipping: Option<Syntax>,
}

/// The decoder's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    /// Whether a wrapper was opened: its closing brace is no junk.
    wrapped: bool,
    /// Blanks before the place, where nothing else stands on its line.
    indent: usize,
    line_is_blank: bool,
    limit_bytes: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the beginning of a file.
    pub const fn new() -> Self {
        Self::with_limit(OBJECT_MAX_BYTES)
    }

    /// With another limit than [`OBJECT_MAX_BYTES`], for tests.
    pub const fn with_limit(limit_bytes: usize) -> Self {
        Self { state: State::Between, wrapped: false, indent: 0, line_is_blank: true, limit_bytes }
    }

    /// The next thing in `bytes`, and how many of them are done with. `whole` is asked whether a line is one object.
    /// `at_end`: nothing will come behind these bytes.
    pub fn next<'b, T>(
        &mut self,
        bytes: &'b [u8],
        at_end: bool,
        mut whole: impl FnMut(&'b [u8]) -> Option<T>,
    ) -> (usize, Found<T>) {
        let mut at = 0;
        loop {
            match &mut self.state {
                State::Between => {
                    at += self.blanks(&bytes[at..]);
                    let Some(&first) = bytes.get(at) else { return (at, Found::More) };
                    if first == BOM[0] && !at_end && bytes.len() - at < BOM.len() {
                        return (at, Found::More);
                    }
                    if bytes[at..].starts_with(BOM) {
                        at += BOM.len();
                    } else if first != b'{' {
                        return self.fail(bytes, at, at_end, usize::MAX);
                    } else if let Some(done) = self.begin(bytes, &mut at, at_end, &mut whole) {
                        return done;
                    }
                }
                State::Object { .. } => return self.follow(bytes, at, at_end),
                State::Skipping { syntax } => {
                    let (scanned, end) = scan(syntax, &bytes[at..]);
                    at += scanned;
                    match end {
                        None => return (at, Found::More),
                        Some(Byte::Complete) => self.end_object(),
                        Some(_) => self.state = State::Dropping { indent: self.indent, seen: None },
                    }
                }
                State::Dropping { .. } => match self.drop_lines(&bytes[at..]) {
                    None => return (bytes.len(), Found::More),
                    Some(dropped) => at += dropped,
                },
            }
        }
    }

    /// What must be known to go on at the place of the next byte wanted.
    pub fn place(&self) -> Place {
        let (dropping, skipping) = match &self.state {
            State::Dropping { indent, seen } => (Some((*indent, *seen)), None),
            State::Skipping { syntax } => (None, Some(syntax.clone())),
            State::Between | State::Object { .. } => (None, None),
        };
        Place {
            wrapped: self.wrapped,
            indent: self.indent,
            line_is_blank: self.line_is_blank,
            dropping,
            skipping,
        }
    }

    /// Goes on there; none where the place is damaged.
    pub fn at(place: Place) -> Option<Self> {
        let mut decoder = Self {
            wrapped: place.wrapped,
            indent: place.indent,
            line_is_blank: place.line_is_blank,
            ..Self::new()
        };
        if let Some(syntax) = place.skipping {
            decoder.state = syntax.is_sound().then_some(State::Skipping { syntax })?;
        } else if let Some((indent, seen)) = place.dropping {
            decoder.state = State::Dropping { indent, seen };
        }
        Some(decoder)
    }

    fn end_object(&mut self) {
        self.state = State::Between;
        self.line_is_blank = false;
    }

    /// Blanks, and what stands between the elements of an array.
    fn blanks(&mut self, bytes: &[u8]) -> usize {
        for (n, &byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' => (self.indent, self.line_is_blank) = (0, true),
                b' ' | b'\t' if self.line_is_blank => self.indent += 1,
                b' ' | b'\t' | b'\r' => {}
                b'[' | b']' | b',' => self.line_is_blank = false,
                b'}' if self.wrapped => self.line_is_blank = false,
                _ => return n,
            }
        }
        bytes.len()
    }

    /// At a `{`: the wrapper, a whole line, or the beginning of what must be followed byte by byte.
    fn begin<'b, T>(
        &mut self,
        bytes: &'b [u8],
        at: &mut usize,
        at_end: bool,
        whole: &mut impl FnMut(&'b [u8]) -> Option<T>,
    ) -> Option<(usize, Found<T>)> {
        match wrapper(&bytes[*at..]) {
            Wrapper::Of(length) if !self.wrapped => {
                (self.wrapped, self.line_is_blank) = (true, false);
                *at += length;
                return None;
            }
            Wrapper::Perhaps if !at_end && !self.wrapped => return Some((*at, Found::More)),
            _ => {}
        }
        // Elements of an array on one line would each look for its end.
        if self.line_is_blank
            && let Some(found) = self.line(bytes, *at, whole)
        {
            return Some(found);
        }
        let syntax = Syntax::new(Some(self.indent));
        self.state = State::Object { syntax, scanned: 0, is_broken: false };
        None
    }

    /// The line from `at`, if it ends in view and is one object.
    fn line<'b, T>(
        &mut self,
        bytes: &'b [u8],
        at: usize,
        whole: &mut impl FnMut(&'b [u8]) -> Option<T>,
    ) -> Option<(usize, Found<T>)> {
        let length = memchr::memchr(b'\n', &bytes[at..])?;
        let line = trim_end(&bytes[at..at + length]);
        if line.len() > self.limit_bytes || !line.ends_with(b"}") {
            return None;
        }
        let made = whole(line)?;
        self.end_object();
        Some((at + line.len(), Found::Line(made, at..at + line.len())))
    }

    /// Goes on with the object that begins at `at`.
    fn follow<T>(&mut self, bytes: &[u8], at: usize, at_end: bool) -> (usize, Found<T>) {
        let State::Object { syntax, scanned, is_broken } = &mut self.state else { return (at, Found::More) };
        if !*is_broken {
            let view = &bytes[at..];
            let view = &view[..view.len().min(self.limit_bytes)];
            let (more, end) = scan(syntax, view.get(*scanned..).unwrap_or_default());
            *scanned += more;
            match end {
                Some(Byte::Complete) => {
                    let end = at + *scanned;
                    self.end_object();
                    return (end, Found::Object(at..end));
                }
                Some(_) => *is_broken = true,
                None if *scanned >= self.limit_bytes => {
                    let (syntax, end) = (syntax.clone(), at + *scanned);
                    self.state = State::Skipping { syntax };
                    return (end, Found::Junk(at..end));
                }
                None if at_end => *is_broken = true,
                None => return (at, Found::More),
            }
        }
        self.fail(bytes, at, at_end, self.indent)
    }

    /// What stands at `at` is no object: junk up to another record on its line, or to its end and the lines that
    /// belong to it.
    fn fail<T>(&mut self, bytes: &[u8], at: usize, at_end: bool, indent: usize) -> (usize, Found<T>) {
        let view = &bytes[at..bytes.len().min(at.saturating_add(self.limit_bytes))];
        let newline = memchr::memchr(b'\n', view);
        if newline.is_none() && !at_end && view.len() < self.limit_bytes {
            return (at, Found::More);
        }
        let in_view = newline.is_some() || view.len() < self.limit_bytes;
        let line = &view[..newline.unwrap_or(view.len())];
        if let Some(next) = in_view.then(|| next_record(line)).flatten() {
            self.end_object();
            return (at + next, Found::Junk(at..at + next));
        }
        self.state = State::Dropping { indent, seen: None };
        (at + line.len(), Found::Junk(at..at + line.len()))
    }

    /// Lines to be dropped; none where all of these are.
    fn drop_lines(&mut self, bytes: &[u8]) -> Option<usize> {
        let State::Dropping { indent, seen } = &mut self.state else { return Some(0) };
        let mut at = 0;
        loop {
            let Some(blanks) = seen else {
                at += memchr::memchr(b'\n', &bytes[at..])? + 1;
                *seen = Some(0);
                continue;
            };
            let byte = *bytes.get(at)?;
            match byte {
                b' ' | b'\t' | b'\r' => *blanks += 1,
                b'\n' => *blanks = 0,
                // After junk that was no object, every line is looked at; inside a broken one, only records are.
                b'{' if *blanks <= *indent => {
                    (self.indent, self.line_is_blank) = (*blanks, true);
                    self.state = State::Between;
                    return Some(at);
                }
                _ if *indent == usize::MAX => {
                    (self.indent, self.line_is_blank) = (*blanks, true);
                    self.state = State::Between;
                    return Some(at);
                }
                _ => *seen = None,
            }
            if seen.is_some() {
                at += 1;
            }
        }
    }
}

/// Follows the object over `bytes`: how many were taken, the last one included, and how it ended.
fn scan(syntax: &mut Syntax, bytes: &[u8]) -> (usize, Option<Byte>) {
    let mut at = 0;
    while at < bytes.len() {
        if syntax.in_text() {
            at += text_length(&bytes[at..]);
            if at == bytes.len() {
                break;
            }
        }
        match syntax.step(bytes[at]) {
            Byte::More => at += 1,
            Byte::Complete => return (at + 1, Some(Byte::Complete)),
            Byte::Broken => return (at, Some(Byte::Broken)),
        }
    }
    (at, None)
}

/// How many bytes at the head are plain text of a string. Control characters other than a newline go through: they
/// are found when the object is parsed.
fn text_length(bytes: &[u8]) -> usize {
    memchr::memchr3(b'"', b'\\', b'\n', bytes).unwrap_or(bytes.len())
}

/// Without blanks and commas behind.
fn trim_end(line: &[u8]) -> &[u8] {
    let last = line.iter().rposition(|b| !matches!(b, b' ' | b'\t' | b'\r' | b','));
    &line[..last.map_or(0, |last| last + 1)]
}

/// Where, after the first byte of a broken line, a record begins that reaches to its end.
fn next_record(line: &[u8]) -> Option<usize> {
    let mut tries = 0;
    let mut at = 1;
    while tries < RESYNC_TRIES {
        let rest = line.get(at..)?;
        let next = RECORD_STARTS.iter().filter_map(|start| memchr::memmem::find(rest, start)).min()?;
        at += next;
        let candidate = trim_end(&line[at..]);
        let mut syntax = Syntax::new(Some(usize::MAX));
        let (_, end) = scan(&mut syntax, candidate);
        if end == Some(Byte::Complete) {
            return Some(at);
        }
        tries += 1;
        at += 1;
    }
    None
}

enum Wrapper {
    No,
    /// The bytes end too early to tell.
    Perhaps,
    /// So many bytes open it.
    Of(usize),
}

/// Whether `bytes`, which begin with `{`, open a `{"loglines": [`.
fn wrapper(bytes: &[u8]) -> Wrapper {
    let mut at = 1;
    for token in [b"\"loglines\"".as_slice(), b":", b"["] {
        at += bytes[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        let rest = &bytes[at..];
        if rest.len() < token.len() {
            return if token.starts_with(rest) { Wrapper::Perhaps } else { Wrapper::No };
        }
        if !rest.starts_with(token) {
            return Wrapper::No;
        }
        at += token.len();
    }
    Wrapper::Of(at)
}
