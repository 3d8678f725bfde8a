//! Where the strings of a line end: one pass over its bytes, 64 at a time and without a branch for each.
//!
//! The pass finds what no ordinary line has - a control character, an escape that is none, half a surrogate pair - and
//! notes one bit a byte for quotes and for backslashes. A string is then gone over by its bits, however long it is.
//! Escapes are told from escaped backslashes by the carry of an addition, as in simdjson (Langdale, Lemire: "Parsing
//! Gigabytes of JSON per Second", section 3.1.1).

use wide::u8x16;

/// Bytes of one block: a bit of each in a word.
const BLOCK_BYTES: usize = 64;
/// Bytes of a vector that every machine has.
const VECTOR_BYTES: usize = 16;
/// Every second bit, beginning with the second.
const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
/// Blocks of which the notes are kept from line to line; those of a longer line are given back.
const BLOCKS_KEPT: usize = (1 << 20) / BLOCK_BYTES;

/// The notes of a line; its memory serves line after line.
#[derive(Debug, Default)]
pub(super) struct Marks {
    blocks: Vec<Noted>,
}

/// What is noted of a block, its first byte in the lowest bit.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    /// Quotes that begin or end a string.
    quotes: u64,
    backslashes: u64,
}

impl Marks {
    /// Notes a line; none where it holds something out of the ordinary.
    pub(super) fn note(&mut self, line: &[u8]) -> Option<()> {
        self.blocks.clear();
        self.blocks.shrink_to(BLOCKS_KEPT);
        self.blocks.reserve(line.len() / BLOCK_BYTES + 1);
        let mut is_escaped = false;
        let (blocks, rest) = line.as_chunks::<BLOCK_BYTES>();
        for (n, block) in blocks.iter().enumerate() {
            self.block(&Seen::of(block), line, n * BLOCK_BYTES, &mut is_escaped)?;
        }
        if !rest.is_empty() {
            let mut block = [b' '; BLOCK_BYTES];
            block[..rest.len()].copy_from_slice(rest);
            self.block(&Seen::of(&block), line, line.len() - rest.len(), &mut is_escaped)?;
        }
        (!is_escaped).then_some(())
    }

    /// The block of the line that begins at `from`.
    #[inline(always)]
    fn block(&mut self, seen: &Seen, line: &[u8], from: usize, is_escaped: &mut bool) -> Option<()> {
        if seen.controls != 0 {
            return None;
        }
        let mut quotes = seen.quotes;
        if seen.backslashes != 0 || *is_escaped {
            let escaped = escaped(seen.backslashes, is_escaped);
            quotes &= !escaped;
            let mut rare = escaped & !(seen.quotes | seen.backslashes | seen.newline_or_tab);
            while rare != 0 {
                is_escape(&line[from + rare.trailing_zeros() as usize..]).then_some(())?;
                rare &= rare - 1;
            }
        }
        self.blocks.push(Noted { quotes, backslashes: seen.backslashes });
        Some(())
    }

    /// Where the next quote stands that begins or ends a string, from `at` on.
    #[inline]
    pub(super) fn quote(&self, at: usize) -> Option<usize> {
        let mut n = at / BLOCK_BYTES;
        let mut quotes = self.blocks.get(n)?.quotes & (u64::MAX << (at % BLOCK_BYTES));
        while quotes == 0 {
            n += 1;
            quotes = self.blocks.get(n)?.quotes;
        }
        Some(n * BLOCK_BYTES + quotes.trailing_zeros() as usize)
    }

    /// Whether there is a backslash in `from..to`, a place of the line.
    #[inline]
    pub(super) fn has_escape(&self, from: usize, to: usize) -> bool {
        let (first, last) = (from / BLOCK_BYTES, to / BLOCK_BYTES);
        let behind = u64::MAX << (from % BLOCK_BYTES);
        let before = !(u64::MAX << (to % BLOCK_BYTES));
        match self.blocks.get(first..=last) {
            Some([only]) => only.backslashes & behind & before != 0,
            Some([head, middle @ .., tail]) => {
                head.backslashes & behind != 0
                    || tail.backslashes & before != 0
                    || middle.iter().any(|noted| noted.backslashes != 0)
            }
            _ => true,
        }
    }
}

/// Which bytes stand behind a backslash that is not itself behind one. `is_escaped`: whether that goes for the block's
/// first byte, then for the next one's.
#[inline]
fn escaped(backslashes: u64, is_escaped: &mut bool) -> u64 {
    let carried = u64::from(*is_escaped);
    // Backslashes that begin something, or stand in a run that such a one begins.
    let candidates = backslashes & !carried;
    // Subtracting from the odd bits turns over, of each run, every second one, whether the run begins odd or even.
    let turned = (candidates << 1 | ODD).wrapping_sub(candidates);
    let escape_or_end = turned ^ ODD;
    *is_escaped = (escape_or_end & backslashes) >> 63 == 1;
    escape_or_end ^ (backslashes | carried)
}

/// Whether what follows a backslash makes an escape, but for half a surrogate pair's.
fn is_escape(behind: &[u8]) -> bool {
    match behind {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => true,
        [b'u', a, b, c, d, ..] => {
            let is_half = matches!(a, b'd' | b'D') && matches!(b, b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F');
            !is_half && [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit())
        }
        _ => false,
    }
}

/// What a block holds, a bit a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    quotes: u64,
    backslashes: u64,
    /// The letters `n` and `t`.
    newline_or_tab: u64,
    controls: u64,
}

impl Seen {
    #[inline]
    fn of(block: &[u8; BLOCK_BYTES]) -> Self {
        let mut seen = Self::default();
        let (vectors, _) = block.as_chunks::<VECTOR_BYTES>();
        for (n, &bytes) in vectors.iter().enumerate() {
            let vector = u8x16::new(bytes);
            let bits = |found: u8x16| u64::from(found.to_bitmask()) << (n * VECTOR_BYTES);
            let equal = |byte: u8| vector.simd_eq(u8x16::splat(byte));
            seen.quotes |= bits(equal(b'"'));
            seen.backslashes |= bits(equal(b'\\'));
            seen.newline_or_tab |= bits(equal(b'n') | equal(b't'));
            seen.controls |= bits(vector.min(u8x16::splat(0x1F)).simd_eq(vector));
        }
        seen
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes of which many mean something.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => Just(b'\\'),
            3 => Just(b'"'),
            4 => proptest::sample::select(b"ntbfr/u0aD8x".as_slice()),
            1 => any::<u8>().prop_map(|byte| byte.max(0x20)),
        ];
        let run = prop_oneof![
            2 => proptest::collection::vec(byte, 0..20),
            1 => (0..70usize).prop_map(|length| vec![b'\\'; length]),
            1 => (0..70usize).prop_map(|length| vec![b'a'; length]),
            2 => proptest::sample::select(&["\\u001b", "\\ud83d", "\\u12", "\\n", "\\\""][..]).prop_map(|s| s.into()),
        ];
        proptest::collection::vec(run, 0..12).prop_map(|runs| runs.concat())
    }

    fn plainly(block: &[u8; BLOCK_BYTES]) -> Seen {
        let bits = |is: fn(u8) -> bool| {
            block.iter().enumerate().fold(0, |bits, (n, &byte)| bits | u64::from(is(byte)) << n)
        };
        Seen {
            quotes: bits(|byte| byte == b'"'),
            backslashes: bits(|byte| byte == b'\\'),
            newline_or_tab: bits(|byte| matches!(byte, b'n' | b't')),
            controls: bits(|byte| byte < 0x20),
        }
    }

    /// The quotes that are no escape's, one byte after the other; none where an escape is none.
    fn one_by_one(line: &[u8]) -> Option<Vec<usize>> {
        let (mut quotes, mut at) = (Vec::new(), 0);
        while at < line.len() {
            match line[at] {
                b'\\' => {
                    is_escape(&line[at + 1..]).then_some(())?;
                    at += 1;
                }
                b'"' => quotes.push(at),
                _ => {}
            }
            at += 1;
        }
        Some(quotes)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

        #[test]
        fn quotes_are_those_found_one_by_one(line in bytes()) {
            let mut marks = Marks::default();
            let noted = marks.note(&line).map(|()| {
                let mut quotes = Vec::new();
                while let Some(at) = marks.quote(quotes.last().map_or(0, |last| last + 1)) {
                    quotes.push(at);
                }
                quotes
            });
            prop_assert_eq!(noted, one_by_one(&line));
        }

        #[test]
        fn a_backslash_is_found_wherever_it_stands(line in bytes(), from in 0..300usize, length in 0..300usize) {
            let from = from.min(line.len());
            let to = (from + length).min(line.len());
            let mut marks = Marks::default();
            if marks.note(&line).is_some() && to < line.len() {
                prop_assert_eq!(marks.has_escape(from, to), line[from..to].contains(&b'\\'));
            }
        }

        #[test]
        fn vectors_see_what_is_seen_byte_by_byte(block in proptest::collection::vec(any::<u8>(), BLOCK_BYTES)) {
            let block: [u8; BLOCK_BYTES] = block.try_into().unwrap();
            prop_assert_eq!(Seen::of(&block), plainly(&block));
        }
    }

    #[test]
    fn every_byte_is_seen_for_what_it_is() {
        for byte in 0..=u8::MAX {
            let block = [byte; BLOCK_BYTES];
            assert_eq!(Seen::of(&block), plainly(&block), "{byte}");
        }
    }

    #[test]
    fn a_control_character_is_out_of_the_ordinary() {
        for at in 0..130 {
            let mut line = vec![b'a'; 130];
            assert!(Marks::default().note(&line).is_some());
            line[at] = 0x1F;
            assert!(Marks::default().note(&line).is_none(), "{at}");
        }
    }
}
