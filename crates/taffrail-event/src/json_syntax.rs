//! Follows one JSON object byte by byte: where it ends, or the first byte that cannot belong to it (RFC 8259).
//!
//! Where the object's indent is given, a line that begins with `{` no further in than the object itself ends it: writers of
//! lines begin every record so, and writers of indented JSON never put an inner object there. So a torn line does not swallow
//! those behind it. Depth costs one bit a level and ends at [`DEPTH_MAX`]. UTF-8 is not checked here.

use serde::{Deserialize, Serialize};

/// The deepest nesting that is followed; an object below the decoders' limits of size cannot reach it.
const DEPTH_MAX: usize = 64 << 20;

/// What a byte meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The object goes on.
    More,
    /// This byte closed the object.
    Complete,
    /// This byte cannot stand here.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Start,
    /// After `{`: a key or `}`.
    KeyOrEnd,
    /// After a comma in an object.
    Key,
    Colon,
    Value,
    /// After `[`: a value or `]`.
    ValueOrEnd,
    AfterValue,
    InString,
    Escape,
    /// So many hex digits to come.
    Hex(u8),
    /// `true`, `false` or `null`, by its first byte, and how many bytes of it are seen.
    Literal(u8, u8),
    Number(Number),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Number {
    Sign,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// The state after the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syntax {
    state: State,
    string_is_key: bool,
    /// Blanks before the object on its line; none where lines end nothing.
    indent: Option<usize>,
    /// Blanks seen on a line that has nothing else yet.
    line_indent: Option<usize>,
    depth: usize,
    /// One bit a level: set where it is an object.
    objects: Vec<u64>,
}

impl Syntax {
    /// Nothing read yet; the first byte must be a `{`, and so many blanks stand before it on its line. With none, a line
    /// never ends the object.
    pub const fn new(indent: Option<usize>) -> Self {
        Self {
            state: State::Start,
            string_is_key: false,
            indent,
            line_indent: None,
            depth: 0,
            objects: Vec::new(),
        }
    }

    /// Whether the state is one that these bytes can have led to; false for a damaged copy.
    pub fn is_sound(&self) -> bool {
        self.depth <= self.objects.len() * 64 && (self.depth > 0 || self.state == State::Start)
    }

    /// Whether the next byte is one of a string's text.
    pub fn in_text(&self) -> bool {
        self.state == State::InString
    }

    /// Takes the next byte.
    pub fn step(&mut self, byte: u8) -> Step {
        match self.state {
            State::InString => self.in_string(byte),
            State::Escape => match byte {
                b'u' => self.to(State::Hex(4)),
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.to(State::InString),
                _ => Step::Broken,
            },
            State::Hex(left) if byte.is_ascii_hexdigit() => {
                self.to(if left == 1 { State::InString } else { State::Hex(left - 1) })
            }
            State::Hex(_) => Step::Broken,
            State::Literal(first, seen) => self.in_literal(first, seen, byte),
            State::Number(part) => self.in_number(part, byte),
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => self.blank(byte),
            _ if byte == b'{'
                && self.line_indent.is_some_and(|here| self.indent.is_some_and(|own| here <= own)) =>
            {
                Step::Broken
            }
            state => {
                self.line_indent = None;
                self.between(state, byte)
            }
        }
    }

    fn to(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
    }

    fn blank(&mut self, byte: u8) -> Step {
        match (&mut self.line_indent, byte) {
            (line, b'\n') => *line = Some(0),
            (Some(blanks), b' ' | b'\t') => *blanks += 1,
            _ => {}
        }
        Step::More
    }

    fn in_literal(&mut self, first: u8, seen: u8, byte: u8) -> Step {
        let word: &[u8] = match first {
            b't' => b"true",
            b'f' => b"false",
            _ => b"null",
        };
        if word.get(usize::from(seen)) != Some(&byte) {
            return Step::Broken;
        }
        let done = usize::from(seen) + 1 == word.len();
        self.to(if done { State::AfterValue } else { State::Literal(first, seen + 1) })
    }

    fn in_string(&mut self, byte: u8) -> Step {
        match byte {
            b'"' if self.string_is_key => self.to(State::Colon),
            b'"' => self.to(State::AfterValue),
            b'\\' => self.to(State::Escape),
            0..0x20 => Step::Broken,
            _ => Step::More,
        }
    }

    fn in_number(&mut self, part: Number, byte: u8) -> Step {
        use Number::{Digits, Exponent, ExponentDigits, ExponentSign, Fraction, Point, Sign, Zero};
        let next = match (part, byte) {
            (Sign, b'0') => Zero,
            (Sign | Digits, b'0'..=b'9') => Digits,
            (Zero | Digits, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Digits | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            (Zero | Digits | Fraction | ExponentDigits, _) => {
                self.state = State::AfterValue;
                return self.step(byte);
            }
            _ => return Step::Broken,
        };
        self.to(State::Number(next))
    }

    fn between(&mut self, state: State, byte: u8) -> Step {
        match (state, byte) {
            (State::Start, b'{') => self.open(true),
            (State::KeyOrEnd | State::Key, b'"') => self.string(true),
            (State::KeyOrEnd, b'}') | (State::ValueOrEnd, b']') => self.close(),
            (State::Colon, b':') => self.to(State::Value),
            (State::Value | State::ValueOrEnd, _) => self.value(byte),
            (State::AfterValue, b',') => self.to(if self.in_object() { State::Key } else { State::Value }),
            (State::AfterValue, b'}') if self.in_object() => self.close(),
            (State::AfterValue, b']') if !self.in_object() => self.close(),
            _ => Step::Broken,
        }
    }

    fn value(&mut self, byte: u8) -> Step {
        match byte {
            b'"' => self.string(false),
            b'{' => self.open(true),
            b'[' => self.open(false),
            b't' | b'f' | b'n' => self.to(State::Literal(byte, 1)),
            b'-' => self.to(State::Number(Number::Sign)),
            b'0' => self.to(State::Number(Number::Zero)),
            b'1'..=b'9' => self.to(State::Number(Number::Digits)),
            _ => Step::Broken,
        }
    }

    fn string(&mut self, is_key: bool) -> Step {
        self.string_is_key = is_key;
        self.to(State::InString)
    }

    fn open(&mut self, is_object: bool) -> Step {
        if self.depth >= DEPTH_MAX {
            return Step::Broken;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.objects.len() {
            self.objects.push(0);
        }
        self.objects[word] = self.objects[word] & !(1 << bit) | u64::from(is_object) << bit;
        self.depth += 1;
        self.to(if is_object { State::KeyOrEnd } else { State::ValueOrEnd })
    }

    fn in_object(&self) -> bool {
        let level = self.depth - 1;
        self.objects[level / 64] >> (level % 64) & 1 == 1
    }

    fn close(&mut self) -> Step {
        self.depth -= 1;
        self.state = State::AfterValue;
        if self.depth == 0 { Step::Complete } else { Step::More }
    }
}
