//! The quick way to a record: one pass over a line that is written as the client writes it.
//!
//! Nine tenths of a transcript's bytes are strings that no fact is drawn from. This reader goes over them by whole
//! words and says what it wants of the rest; it checks the line's syntax as it goes and understands nothing that is out of
//! the ordinary: a control character, a key with an escape, half a surrogate pair, a number that may not fit, nesting below
//! [`DEPTH_MAX`]. Then it gives up, and serde reads the line. Where it gives a record, serde would give one of which the
//! same facts are drawn: its tests hold it to that.

use super::lenient::{Flag, Number, Rare, Text};
use super::record::{Content, Message, Raw, Record, StampOf};

/// The deepest nesting that is followed: one bit a level.
const DEPTH_MAX: u32 = 64;
/// The longest number that is passed over unread: no `f64` is too small for it.
const NUMBER_MAX_BYTES: usize = 40;
/// Words of a string that are looked at here before a search that takes its time to begin.
const WORDS: usize = 4;
const WORD_BYTES: usize = 8;
const ONES: u64 = u64::from_le_bytes([0x01; WORD_BYTES]);
const HIGH_BITS: u64 = u64::from_le_bytes([0x80; WORD_BYTES]);
const QUOTES: u64 = u64::from_le_bytes([b'"'; WORD_BYTES]);
const ESCAPES: u64 = u64::from_le_bytes([b'\\'; WORD_BYTES]);

/// The record of a line, if it is an ordinary one.
pub(super) fn record(line: &[u8]) -> Option<Record<'_>> {
    let text = std::str::from_utf8(line).ok()?;
    // Looked for everywhere at once, which is many times as quick as in each string.
    if line.iter().fold(false, |found, &byte| found | (byte < 0x20)) {
        return None;
    }
    let mut cursor = Cursor { text, at: 0 };
    let mut record = Record::default();
    cursor.object(&mut |cursor, key| field(cursor, key, &mut record))?;
    (cursor.at == text.len()).then_some(record)
}

fn field<'a>(at: &mut Cursor<'a>, key: &str, record: &mut Record<'a>) -> Option<()> {
    match key {
        "type" => record.kind = at.text()?,
        "subtype" => record.subtype = at.text()?,
        "uuid" => record.uuid = at.text()?,
        "sessionId" | "session_id" => record.session_id = at.text()?,
        "agentId" => record.agent_id = at.text()?,
        "isSidechain" => record.is_sidechain = at.flag()?,
        "isMeta" => record.is_meta = at.flag()?,
        "isCompactSummary" => record.is_compact_summary = at.flag()?,
        "isApiErrorMessage" => record.is_api_error = at.flag()?,
        "timestamp" => record.timestamp = StampOf(Some(at.value()?)),
        "cwd" => record.cwd = at.text()?,
        "gitBranch" => record.git_branch = at.text()?,
        "version" => record.version = at.text()?,
        "promptId" => record.prompt_id = at.text()?,
        "requestId" => record.request_id = at.text()?,
        "effort" => record.effort = at.text()?,
        "attributionAgent" => record.attribution_agent = at.text()?,
        "origin" => record.origin = at.read()?,
        "message" => record.message = message(at)?,
        "costUSD" => record.cost_usd = at.number()?,
        "toolUseResult" => {
            let told = at.value()?;
            // Most results are long, and few name a subagent. No key has an escape, or there would be no record.
            let names_agent = told.starts_with('{') && contains(told, "\"agentId\"");
            record.tool_use_result = Rare(if names_agent { Some(Box::new(parse(told)?)) } else { None });
        }
        "compactMetadata" => record.compact = at.read()?,
        "error" => record.error = at.read()?,
        "apiErrorStatus" => record.error_status = at.number()?,
        "retryInMs" => record.retry_in_ms = at.number()?,
        "retryAttempt" => record.retry_attempt = at.number()?,
        "maxRetries" => record.max_retries = at.number()?,
        "data" => record.data = at.read()?,
        "parentToolUseID" => record.parent_tool_use_id = at.text()?,
        "summary" => record.summary = at.text()?,
        "aiTitle" => record.ai_title = at.text()?,
        "customTitle" => record.custom_title = at.text()?,
        "totalCostUSD" => record.total_cost_usd = at.number()?,
        "modelUsage" => record.model_usage = at.read()?,
        "hasUnknownModelCost" => record.has_unknown_model = at.flag()?,
        "querySource" => record.query_source = at.text()?,
        _ => at.skip()?,
    }
    Some(())
}

fn message<'a>(at: &mut Cursor<'a>) -> Option<Message<'a>> {
    let mut message = Message::default();
    if at.peek()? != b'{' {
        at.skip()?;
        return Some(message);
    }
    at.object(&mut |at, key| {
        match key {
            "id" => message.id = at.text()?,
            "model" => message.model = at.text()?,
            "stop_reason" => message.stop_reason = at.text()?,
            "usage" => message.usage = at.read()?,
            "content" => message.content = content(at)?,
            _ => at.skip()?,
        }
        Some(())
    })?;
    Some(message)
}

/// `message.content`, and whether a tool's result is in it.
fn content<'a>(at: &mut Cursor<'a>) -> Option<Content<'a>> {
    let from = at.at;
    let mut holds_result = false;
    if at.peek()? == b'[' {
        at.array(&mut |at| {
            if at.peek()? != b'{' {
                return at.skip();
            }
            let mut is_result = false;
            at.object(&mut |at, key| {
                if key != "type" {
                    return at.skip();
                }
                // Of a key that stands twice the last counts.
                is_result = at.text()?.get() == Some("tool_result");
                Some(())
            })?;
            holds_result |= is_result;
            Some(())
        })?;
    } else {
        at.skip()?;
    }
    Some(Content { raw: Raw(Some(&at.text[from..at.at])), holds_result })
}

/// What serde makes of a value.
fn parse<'a, T: serde::Deserialize<'a>>(value: &'a str) -> Option<T> {
    serde_json::from_str(value).ok()
}

fn contains(text: &str, what: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), what.as_bytes()).is_some()
}

/// What is done with the value of a key; it goes to the value's end.
type OnField<'f, 'a> = dyn FnMut(&mut Cursor<'a>, &'a str) -> Option<()> + 'f;

/// A place in a line of UTF-8 without control characters. Every method begins at a value's first byte, goes behind its
/// last one, and gives none where the line is no JSON or not an ordinary one.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Goes over one byte, which must be this one.
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// An object, field by field.
    fn object(&mut self, on_field: &mut OnField<'_, 'a>) -> Option<()> {
        self.expect(b'{')?;
        self.blanks();
        if self.peek()? == b'}' {
            return self.expect(b'}');
        }
        loop {
            let key = self.key()?;
            on_field(self, key)?;
            self.blanks();
            if self.peek()? == b'}' {
                return self.expect(b'}');
            }
            self.expect(b',')?;
            self.blanks();
        }
    }

    fn array(&mut self, on_value: &mut dyn FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.expect(b'[')?;
        self.blanks();
        if self.peek()? == b']' {
            return self.expect(b']');
        }
        loop {
            on_value(self)?;
            self.blanks();
            if self.peek()? == b']' {
                return self.expect(b']');
            }
            self.expect(b',')?;
            self.blanks();
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Option<&'a str> {
        let from = self.at + 1;
        let is_plain = self.string()?;
        let key = &self.text[from..self.at - 1];
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        is_plain.then_some(key)
    }

    /// Goes over a string; whether it has no escapes.
    fn string(&mut self) -> Option<bool> {
        self.expect(b'"')?;
        let bytes = self.text.as_bytes();
        let mut is_plain = true;
        loop {
            self.at += quote_or_escape(bytes.get(self.at..)?)?;
            if bytes[self.at] == b'"' {
                self.at += 1;
                return Some(is_plain);
            }
            is_plain = false;
            self.at += escape(&bytes[self.at..])?;
        }
    }

    /// A value's JSON text.
    fn value(&mut self) -> Option<&'a str> {
        let from = self.at;
        self.skip()?;
        Some(&self.text[from..self.at])
    }

    fn read<T: serde::Deserialize<'a>>(&mut self) -> Option<T> {
        parse(self.value()?)
    }

    fn text(&mut self) -> Option<Text<'a>> {
        let from = self.at;
        if self.peek()? != b'"' {
            self.skip()?;
            return Some(Text::default());
        }
        if self.string()? {
            return Some(Text(Some(self.text[from + 1..self.at - 1].into())));
        }
        parse(&self.text[from..self.at])
    }

    fn flag(&mut self) -> Option<Flag> {
        Some(Flag(self.value()? == "true"))
    }

    fn number(&mut self) -> Option<Number> {
        self.read()
    }

    /// Goes over any value.
    fn skip(&mut self) -> Option<()> {
        // One bit a level, the innermost lowest: set where it is an object.
        let (mut objects, mut depth) = (0u64, 0u32);
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                open @ (b'{' | b'[') => {
                    if depth == DEPTH_MAX {
                        return None;
                    }
                    let is_object = open == b'{';
                    self.at += 1;
                    self.blanks();
                    // What is closed at once is a value like any other.
                    if self.peek()? == open + 2 {
                        self.at += 1;
                    } else {
                        depth += 1;
                        objects = objects << 1 | u64::from(is_object);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => self.digits()?,
            }
            // Behind a value: close what ends here, and go to the next one.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.blanks();
                let is_object = objects & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        self.blanks();
                        if is_object {
                            self.key()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                self.at += 1;
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// Goes over a number.
    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        let some = |at: &mut Self| {
            let from = at.at;
            while at.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                at.at += 1;
            }
            (at.at > from).then(|| at.at - from)
        };
        if self.peek()? == b'-' {
            self.at += 1;
        }
        let is_zero = self.peek()? == b'0';
        if some(self)? > 1 && is_zero {
            return None;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            some(self)?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if some(self)? > 2 {
                return None;
            }
        }
        (self.at - from <= NUMBER_MAX_BYTES).then_some(())
    }
}

/// How many bytes stand before the next quote or backslash.
fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Short strings end here.
    for word in bytes.chunks_exact(WORD_BYTES).take(WORDS) {
        let word = u64::from_le_bytes(word.try_into().ok()?);
        let found = zeros(word ^ QUOTES) | zeros(word ^ ESCAPES);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / WORD_BYTES);
        }
        at += WORD_BYTES;
    }
    memchr::memchr2(b'"', b'\\', &bytes[at..]).map(|more| at + more)
}

/// The high bit of each byte that is zero, up to the first one; what is set above that means nothing.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH_BITS
}

/// How long the escape is that begins here.
fn escape(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => {
            let digits = bytes.get(2..6)?;
            let is_half = matches!(digits, [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
            (!is_half && digits.iter().all(u8::is_ascii_hexdigit)).then_some(6)
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
