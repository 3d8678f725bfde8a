//! Reading: two threads take the files in order, one thread drops the copies as they come. Files are read in pieces, so
//! memory grows with the entries that count and not with the files.

use std::collections::BTreeMap;
use std::fs::File as Open;
use std::io::Read;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::Result;
use memchr::memmem::Finder;

use super::copies::Copies;
use super::entry::{self, Entry, Known, Place, Pricing};
use super::files::File;
use super::line::{self, Reader};

/// How much of a file is read at once. A longer line makes the piece grow for as long as that file lasts.
const PIECE_BYTES: usize = 512 * 1024;
/// A line longer than this is passed over: no client writes such, and something must bound the piece.
const LINE_BYTES_MAX: usize = 512 * 1024 * 1024;
const THREADS_MAX: usize = 8;
/// Files whose entries wait for an earlier file, at most: then their thread waits as well.
const WAITING_FILES_MAX: usize = 64;

/// What was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) entries: Vec<Entry>,
    /// Names by index.
    pub(super) models: Vec<String>,
}

/// Reads all files and keeps of every entry one copy.
pub(super) fn load(
    files: &[File],
    reader: Reader,
    pricing: Pricing,
    project: Option<&str>,
) -> Result<Loaded> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX).min(files.len());
    let next = AtomicUsize::new(0);
    let mut copies = Copies::new(reader);
    thread::scope(|scope| {
        let (send, receive) = mpsc::sync_channel(WAITING_FILES_MAX);
        for _ in 0..threads {
            let (send, next, pricing) = (send.clone(), &next, &pricing);
            scope.spawn(move || {
                let mut worker = Worker { reader, pricing, known: Known::default(), piece: Vec::new() };
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(at) else { break };
                    let entries = worker.read(file, u32::try_from(at).unwrap_or(u32::MAX));
                    if send.send((at, entries)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        // ccusage goes through the files by path, and of equal copies the first stays.
        let mut early: BTreeMap<usize, Vec<Entry>> = BTreeMap::new();
        let mut due = 0;
        for (at, entries) in receive {
            early.insert(at, entries);
            while let Some(entries) = early.remove(&due) {
                let wanted = project.is_none_or(|project| files[due].project == project);
                if wanted {
                    entries.into_iter().for_each(|entry| copies.add(entry));
                }
                due += 1;
            }
        }
    });
    Ok(Loaded { entries: copies.into_entries(), models: pricing.into_names() })
}

struct Worker<'a> {
    reader: Reader,
    pricing: &'a Pricing,
    known: Known,
    piece: Vec<u8>,
}

impl Worker<'_> {
    /// The entries of a file; of one that cannot be read to its end those before, as little as ccusage says so.
    fn read(&mut self, file: &File, index: u32) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut piece = std::mem::take(&mut self.piece);
        let mark = Finder::new(line::MARK);
        each_piece(&file.path, &mut piece, |lines| {
            let mut from = 0;
            while let Some(found) = mark.find(&lines[from..]) {
                let at = from + found;
                let start = memchr::memrchr(b'\n', &lines[..at]).map_or(0, |n| n + 1);
                let end = memchr::memchr(b'\n', &lines[at..]).map_or(lines.len(), |n| at + n);
                let line = &lines[start..end];
                if let Some(record) = line::record(line, self.reader) {
                    let place = Place { reader: self.reader, file: index, session: &file.session };
                    entry::entries(&record, line, place, self.pricing, &mut self.known, &mut entries);
                }
                from = end;
            }
        });
        self.piece = piece;
        entries.shrink_to_fit();
        entries
    }
}

/// Calls `each` with whole lines, in order, many at once.
fn each_piece(path: &Path, piece: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    let Ok(mut file) = Open::open(path) else { return };
    piece.resize(piece.len().max(PIECE_BYTES), 0);
    let mut filled = 0;
    loop {
        let Ok(n) = file.read(&mut piece[filled..]) else { return };
        filled += n;
        if n == 0 {
            return each(&piece[..filled]);
        }
        let Some(last) = memchr::memrchr(b'\n', &piece[filled - n..filled]) else {
            if filled == piece.len() {
                let longer = piece.len() * 2;
                if longer > LINE_BYTES_MAX {
                    return;
                }
                piece.resize(longer, 0);
            }
            continue;
        };
        let whole = filled - n + last + 1;
        each(&piece[..whole]);
        piece.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// However long the lines are against the piece, all of them come, in order, none cut.
        #[test]
        fn pieces_are_whole_lines(lengths in proptest::collection::vec(0_usize..300_000, 0..12), ended in any::<bool>()) {
            let mut text = lengths.iter().enumerate().map(|(n, len)| format!("{n}:{}", "x".repeat(*len)))
                .collect::<Vec<_>>().join("\n").into_bytes();
            if ended { text.push(b'\n'); }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &text).unwrap();
            let (mut seen, mut pieces) = (Vec::new(), 0);
            each_piece(file.path(), &mut Vec::new(), |piece| {
                // Only the last piece may lack its end.
                assert!(pieces == 0 || seen.last() == Some(&b'\n'));
                seen.extend_from_slice(piece);
                pieces += 1;
            });
            prop_assert!(seen == text);
        }
    }

    #[test]
    fn a_file_that_is_gone_holds_nothing() {
        each_piece(Path::new("/nonexistent/x.jsonl"), &mut Vec::new(), |_| panic!("nothing is there"));
    }
}
