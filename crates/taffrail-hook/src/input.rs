//! Reads the hook's stdin: kept whole up to a limit, above it head, tail, true size and SHA-256.
//!
//! Payloads reached 6 MB in real sessions; the limit leaves room above that and keeps the process under 32 MB.

use std::collections::VecDeque;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Largest payload that is kept whole.
pub const PAYLOAD_LIMIT_BYTES: usize = 8 * 1024 * 1024;
/// Kept from the start of a larger one.
pub const HEAD_BYTES: usize = 1024 * 1024;
/// Kept from its end.
pub const TAIL_BYTES: usize = 256 * 1024;

/// First buffer: a pipe's usual capacity, so that almost every payload comes in one read.
const CHUNK_BYTES: usize = 64 * 1024;

/// What came in on stdin.
#[derive(Debug, PartialEq, Eq)]
pub struct Input {
    head: Vec<u8>,
    tail: Vec<u8>,
    total_bytes: u64,
    sha256: Option<String>,
}

impl Input {
    /// Reads to the end. A read error ends the payload where it is: what came is kept.
    #[must_use]
    pub fn read(mut from: impl Read) -> Self {
        let mut head = vec![0; CHUNK_BYTES];
        let mut filled = 0;
        loop {
            if filled == head.len() {
                if filled > PAYLOAD_LIMIT_BYTES {
                    return Self::read_oversized(head, from);
                }
                head.resize((filled * 2).min(PAYLOAD_LIMIT_BYTES + 1), 0);
            }
            match read_some(&mut from, &mut head[filled..]) {
                0 => break,
                count => filled += count,
            }
        }
        if filled > PAYLOAD_LIMIT_BYTES {
            return Self::read_oversized(head, io::empty());
        }
        head.truncate(filled);
        Self { head, tail: Vec::new(), total_bytes: filled as u64, sha256: None }
    }

    /// Goes on where the limit was reached: hashes all, keeps head and tail.
    fn read_oversized(mut head: Vec<u8>, mut from: impl Read) -> Self {
        let mut hash = Sha256::new();
        hash.update(&head);
        let mut total_bytes = head.len() as u64;
        let mut tail: VecDeque<u8> = VecDeque::with_capacity(TAIL_BYTES + CHUNK_BYTES);
        tail.extend(&head[head.len() - TAIL_BYTES..]);
        head.truncate(HEAD_BYTES);
        head.shrink_to_fit();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = read_some(&mut from, &mut chunk);
            if count == 0 {
                break;
            }
            hash.update(&chunk[..count]);
            total_bytes += count as u64;
            tail.extend(&chunk[..count]);
            tail.drain(..tail.len() - TAIL_BYTES);
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { head, tail: tail.into(), total_bytes, sha256: Some(sha256) }
    }

    /// The payload, or the start of one over the limit.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// All that is kept, in order.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.tail]
    }

    /// Bytes kept.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Bytes that came in.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Lower-case hexadecimal SHA-256 of all that came in; only for a payload over the limit.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    /// Whether something was left out.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.sha256.is_some()
    }
}

fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> usize {
    loop {
        match from.read(buffer) {
            Ok(count) => return count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return 0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of a fixed size, as a pipe does.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len());
            let mut limited = &self.0[..count.min(self.0.len())];
            let read = limited.read(buffer)?;
            self.0 = &self.0[read..];
            Ok(read)
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 31 % 251) as u8).collect()
    }

    #[test]
    fn up_to_the_limit_all_is_kept() {
        for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5_000_000, PAYLOAD_LIMIT_BYTES] {
            let all = bytes(len);
            let input = Input::read(Pieces(&all, 40_000));
            assert_eq!(input.head(), all, "{len}");
            assert_eq!((input.total_bytes(), input.is_truncated()), (len as u64, false));
        }
    }

    #[test]
    fn above_the_limit_head_tail_size_and_hash_are_kept() {
        for extra in [1, 2, 100_000, 3_000_001] {
            let all = bytes(PAYLOAD_LIMIT_BYTES + extra);
            let input = Input::read(Pieces(&all, 60_001));
            assert!(input.is_truncated());
            assert_eq!(input.total_bytes(), all.len() as u64);
            let [head, tail] = input.parts();
            assert_eq!(head, &all[..HEAD_BYTES]);
            assert_eq!(tail, &all[all.len() - TAIL_BYTES..]);
            let hash: String = Sha256::digest(&all).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(input.sha256(), Some(hash.as_str()));
        }
    }

    #[test]
    fn a_read_error_keeps_what_came() {
        struct Fails(bool);
        impl Read for Fails {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                buffer[..2].copy_from_slice(b"{}");
                Ok(2)
            }
        }
        assert_eq!(Input::read(Fails(false)).head(), b"{}");
    }
}
