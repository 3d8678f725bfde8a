//! Goes over a line's JSON from token to token.

use super::Marks;
use crate::transcript::lenient::{Flag, Number, Text};

/// The deepest nesting that is followed: one bit a level.
const DEPTH_MAX: u32 = 64;
/// The longest number that is passed over unread: no `f64` is too small for it.
const NUMBER_MAX_BYTES: usize = 40;
/// So many digits are a whole number below 2^53.
const WHOLE_MAX_BYTES: usize = 15;

/// What serde makes of a value.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(value: &'a str) -> Option<T> {
    serde_json::from_str(value).ok()
}

/// A place in a line that is noted. Every method begins at a value's first byte, goes behind its last one, and gives none
/// where the line is no JSON or not an ordinary one. A backslash outside of a string is no token: as long as the cursor
/// goes on, the notes of what is behind it are of strings alone.
pub(super) struct Cursor<'a, 'm> {
    text: &'a str,
    marks: &'m Marks,
    at: usize,
}

impl<'a, 'm> Cursor<'a, 'm> {
    /// At the beginning of a line; `marks` are its own.
    pub(super) const fn new(text: &'a str, marks: &'m Marks) -> Self {
        Self { text, marks, at: 0 }
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// For [`Self::since`].
    pub(super) const fn place(&self) -> usize {
        self.at
    }

    /// The text between a place and this one.
    pub(super) fn since(&self, place: usize) -> &'a str {
        &self.text[place..self.at]
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn blanks(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Goes over one byte, which must be this one.
    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// An object, field by field: what is done with the value of a key goes to the value's end.
    #[inline]
    pub(super) fn object(
        &mut self,
        mut on_field: impl FnMut(&mut Self, &'a str) -> Option<()>,
    ) -> Option<()> {
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

    /// The fields of an object; of another value none.
    #[inline]
    pub(super) fn fields(&mut self, on_field: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        if self.peek()? == b'{' { self.object(on_field) } else { self.skip() }
    }

    /// An array, value by value.
    #[inline]
    pub(super) fn array(&mut self, mut on_value: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
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

    /// Goes over a key and its colon.
    #[inline]
    fn any_key(&mut self) -> Option<()> {
        self.string()?;
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        Some(())
    }

    /// A key; the cursor goes behind its colon.
    #[inline]
    fn key(&mut self) -> Option<&'a str> {
        let from = self.at + 1;
        self.string()?;
        let to = self.at - 1;
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        (!self.marks.has_escape(from, to)).then(|| &self.text[from..to])
    }

    /// Goes over a string.
    #[inline]
    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.at = self.marks.quote(self.at)? + 1;
        Some(())
    }

    /// A value's JSON text.
    #[inline]
    pub(super) fn value(&mut self) -> Option<&'a str> {
        let from = self.at;
        self.skip()?;
        Some(&self.text[from..self.at])
    }

    /// A value as serde reads it.
    pub(super) fn read<T: serde::Deserialize<'a>>(&mut self) -> Option<T> {
        parse(self.value()?)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Option<Text<'a>> {
        let from = self.at;
        if self.peek()? != b'"' {
            self.skip()?;
            return Some(Text::default());
        }
        self.string()?;
        if self.marks.has_escape(from + 1, self.at - 1) {
            return parse(&self.text[from..self.at]);
        }
        Some(Text(Some(self.text[from + 1..self.at - 1].into())))
    }

    pub(super) fn flag(&mut self) -> Option<Flag> {
        Some(Flag(self.value()? == "true"))
    }

    pub(super) fn number(&mut self) -> Option<Number> {
        let value = self.value()?;
        // It has no leading zero: then it would be no value.
        let is_whole = value.len() <= WHOLE_MAX_BYTES && value.bytes().all(|byte| byte.is_ascii_digit());
        if is_whole {
            return Some(Number::whole(value.bytes().fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'))));
        }
        parse(value)
    }

    /// Goes over any value.
    #[inline]
    pub(super) fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b'{' | b'[' => self.nested(),
            _ => self.scalar(),
        }
    }

    /// Goes over an object or array.
    fn nested(&mut self) -> Option<()> {
        // One bit a level, the innermost lowest: set where it is an object.
        let (mut objects, mut depth) = (0u64, 0u32);
        loop {
            match self.peek()? {
                b'"' => self.string()?,
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
                            self.any_key()?;
                        }
                        continue;
                    }
                }
                _ => self.scalar()?,
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
                            self.any_key()?;
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

    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.digits(),
        }
    }

    #[inline]
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
