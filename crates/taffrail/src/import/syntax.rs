//! Follows one JSON object byte by byte: where it ends, or the first byte that cannot belong to it (RFC 8259).
//!
//! Depth costs one bit a level, so that deep nesting is no danger. UTF-8 is not checked here.

/// What a byte meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The object goes on.
    More,
    /// This byte closed the object.
    Complete,
    /// This byte cannot stand here.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Literal(&'static [u8]),
    Number(Number),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub(crate) struct Syntax {
    state: State,
    string_is_key: bool,
    depth: usize,
    /// One bit a level: set where it is an object.
    objects: Vec<u64>,
}

impl Syntax {
    /// Nothing read yet; the first byte must be a `{`.
    pub(crate) fn new() -> Self {
        Self { state: State::Start, string_is_key: false, depth: 0, objects: Vec::new() }
    }

    /// Takes the next byte.
    pub(crate) fn step(&mut self, byte: u8) -> Step {
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
            State::Literal(rest) => match rest.split_first() {
                Some((&expected, rest)) if expected == byte => {
                    self.to(if rest.is_empty() { State::AfterValue } else { State::Literal(rest) })
                }
                _ => Step::Broken,
            },
            State::Number(part) => self.in_number(part, byte),
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => Step::More,
            state => self.between(state, byte),
        }
    }

    fn to(&mut self, state: State) -> Step {
        self.state = state;
        Step::More
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
            b't' => self.to(State::Literal(b"rue")),
            b'f' => self.to(State::Literal(b"alse")),
            b'n' => self.to(State::Literal(b"ull")),
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
