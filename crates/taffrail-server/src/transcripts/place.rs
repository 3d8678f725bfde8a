//! How far a file has been read, and whether what was read is still there.
//!
//! An offset alone is unsafe: the client rewrites files, and two thirds of the later versions of a file are no
//! extension of the earlier one. So a file is read on from its offset only where it is the same file, has grown, and the
//! beginning and the block before the offset are what they were ([`BLOCK_BYTES`] each). Everything else is read whole
//! again, which the ledger's merge makes harmless. The clock decides nothing here.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};
use taffrail_store::TranscriptFile;

use super::walk::Found;

/// Bytes of each of the two blocks of a fingerprint.
const BLOCK_BYTES: usize = 4096;
/// Bytes of the hash that are kept.
const HASH_BYTES: usize = 16;

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is as it was: it is not even opened.
    Unchanged,
    /// It may have grown: read on where the fingerprint holds.
    GoOn,
    /// Read it from its beginning.
    Whole,
}

/// Compares what is known of a file with its directory entry.
pub(crate) fn plan(known: Option<&TranscriptFile>, found: &Found) -> Plan {
    let Some(known) = known else { return Plan::Whole };
    if (known.device, known.inode) != (found.device, found.inode) {
        return Plan::Whole;
    }
    if known.error.is_none() && (known.size_bytes, known.modified_ns) == (found.size_bytes, found.modified_ns)
    {
        return Plan::Unchanged;
    }
    let grown =
        found.size_bytes > known.size_bytes || known.error.is_some() && found.size_bytes == known.size_bytes;
    if grown && known.offset > 0 { Plan::GoOn } else { Plan::Whole }
}

/// The first bytes that were taken in, and the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    head: Vec<u8>,
    tail: Vec<u8>,
    offset: u64,
}

impl Mark {
    /// Takes note of bytes that were taken in.
    pub(crate) fn taken(&mut self, bytes: &[u8]) {
        let room = BLOCK_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() >= BLOCK_BYTES {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - BLOCK_BYTES..]);
        } else {
            self.tail.extend_from_slice(bytes);
            let over = self.tail.len().saturating_sub(BLOCK_BYTES);
            self.tail.drain(..over);
        }
        self.offset += bytes.len() as u64;
    }

    /// As a file has them before `offset`.
    pub(crate) fn of_file(file: &mut File, offset: u64) -> io::Result<Self> {
        let block = offset.min(BLOCK_BYTES as u64);
        let mut read = |from: u64| {
            let mut bytes = Vec::with_capacity(BLOCK_BYTES);
            file.seek(SeekFrom::Start(from))?;
            file.take(block).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        Ok(Self { head: read(0)?, tail: read(offset - block)?, offset })
    }

    /// Bytes that were taken in.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// In hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.offset.to_le_bytes());
        hash.update(&self.head);
        hash.update(&self.tail);
        hash.finalize()[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use taffrail_event::transcript::FileFacts;

    #[test]
    fn a_mark_is_the_same_however_the_bytes_came_and_as_the_file_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for length in [0usize, 1, 100, 4095, 4096, 4097, 10_000] {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 31 % 251) as u8).collect();
            std::fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
            let of_file = Mark::of_file(&mut File::open(&path).unwrap(), length as u64).unwrap();
            for step in [1usize, 7, 4096, 20_000] {
                let mut mark = Mark::default();
                bytes.chunks(step).for_each(|chunk| mark.taken(chunk));
                assert_eq!(mark, of_file, "{length} by {step}");
                assert_eq!(mark.fingerprint(), of_file.fingerprint());
            }
        }
    }

    #[test]
    fn only_a_file_that_has_grown_in_place_is_read_on() {
        let found = |inode, size_bytes, modified_ns| Found {
            path: PathBuf::from("/x"),
            device: 1,
            inode,
            size_bytes,
            modified_ns,
            facts: FileFacts::default(),
        };
        let known = |error: Option<&str>| TranscriptFile {
            device: 1,
            inode: 2,
            size_bytes: 100,
            modified_ns: 5,
            offset: 90,
            error: error.map(str::to_owned),
            ..TranscriptFile::default()
        };
        for (error, now, expected) in [
            (None, found(2, 100, 5), Plan::Unchanged),
            (None, found(2, 101, 5), Plan::GoOn),
            (None, found(2, 101, 4), Plan::GoOn),
            (None, found(2, 100, 4), Plan::Whole),
            (None, found(2, 99, 6), Plan::Whole),
            (None, found(3, 101, 6), Plan::Whole),
            (Some("denied"), found(2, 100, 5), Plan::GoOn),
            (Some("denied"), found(2, 99, 5), Plan::Whole),
        ] {
            assert_eq!(plan(Some(&known(error)), &now), expected, "{error:?} {now:?}");
        }
        assert_eq!(plan(None, &found(2, 100, 5)), Plan::Whole);
    }
}
