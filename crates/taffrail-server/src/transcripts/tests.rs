//! Files that grow, shrink, turn and vanish, against a model of what was ever there to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use taffrail_event::transcript::FileFacts;
use taffrail_store::{Options, Store, TranscriptFile};

use super::archive::Haste;
use super::pass::{Pace, Pass};
use super::place::{Plan, plan};
use super::read::{Buffer, Reading};
use super::walk::{Found, Pick, folder};
use super::{ImportRequest, Totals, TranscriptText, Transcripts};

/// A line of one API request.
pub(super) fn line(n: u32, filler: usize) -> String {
    let text = "x".repeat(filler);
    let at = jiff_like(n);
    format!(
        concat!(
            r#"{{"type":"assistant","uuid":"u{n}","sessionId":"s","timestamp":"{at}","cwd":"/nonexistent/demo","#,
            r#""requestId":"req_{n}","message":{{"id":"msg_{n}","type":"message","role":"assistant","model":"claude-opus-4-5","#,
            r#""content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","#,
            r#""usage":{{"input_tokens":{n},"output_tokens":2,"cache_read_input_tokens":3,"cache_creation_input_tokens":0}}}}}}"#
        ),
        n = n,
        at = at,
        text = text
    )
}

fn jiff_like(n: u32) -> String {
    format!("2026-03-0{}T{:02}:{:02}:{:02}.000Z", 1 + n / 86_400 % 9, n / 3600 % 24, n / 60 % 60, n % 60)
}

#[derive(Clone, Debug)]
enum Op {
    /// Lines at the end, of this many bytes of text each.
    Append(u8, usize),
    /// Half a line at the end; the next append completes it.
    Torn,
    /// Cut to this many whole lines.
    Truncate(u8),
    /// Rewritten in place with other lines.
    Rewrite(u8),
    /// Another file is renamed onto it, with some of the old lines and new ones.
    Replace(u8, u8),
    /// Renamed aside; the next append makes a new one.
    Rotate,
    Delete,
    /// Another time, in either direction.
    Touch(i32),
    Read,
    /// Read, and the process dies before the commit of the piece with this number.
    Crash(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (1..6u8, prop_oneof![Just(10usize), Just(900), Just(5_000)]).prop_map(|(n, size)| Op::Append(n, size)),
        2 => Just(Op::Torn),
        1 => (0..8u8).prop_map(Op::Truncate),
        1 => (0..6u8).prop_map(Op::Rewrite),
        1 => (0..6u8, 0..4u8).prop_map(|(keep, new)| Op::Replace(keep, new)),
        1 => Just(Op::Rotate),
        1 => Just(Op::Delete),
        1 => (-5_000..5_000i32).prop_map(Op::Touch),
        6 => Just(Op::Read),
        1 => (0..3u8).prop_map(Op::Crash),
    ];
    prop::collection::vec(op, 1..40)
}

/// The disk, and what a reader of it must have.
struct World {
    dir: tempfile::TempDir,
    next: u32,
    /// Of the file: its lines, and half a line behind them.
    lines: Vec<(u32, String)>,
    torn: Option<(u32, String)>,
    /// Of the rotated one.
    rotated: Vec<u32>,
    exists: bool,
    clock: i64,
    known: BTreeMap<PathBuf, TranscriptFile>,
    collected: BTreeSet<String>,
    expected: BTreeSet<String>,
    /// Where a real store stands behind it, instead of `known` and `collected`.
    stored: Option<(Store, Arc<Transcripts>)>,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            next: 1,
            lines: Vec::new(),
            torn: None,
            rotated: Vec::new(),
            exists: false,
            clock: 1_700_000_000,
            known: BTreeMap::new(),
            collected: BTreeSet::new(),
            expected: BTreeSet::new(),
            stored: None,
        }
    }

    fn with_store(home: &Path) -> Self {
        let store = Store::open(&Options::new(home.join("taffrail.db"))).unwrap();
        let transcripts = House::over(&store, home);
        Self { stored: Some((store, transcripts)), ..Self::new() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("s.jsonl")
    }

    fn fresh(&mut self, size: usize) -> (u32, String) {
        self.next += 1;
        (self.next, line(self.next, size))
    }

    fn stamp(&mut self, by: i64) {
        // Never twice the same: a rewrite to the same size within one tick of the clock is not to be told from rest.
        self.clock += if by == 0 { 1 } else { by };
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(self.clock).unwrap());
        let nanos =
            Duration::from_nanos(u64::from(self.next) * 1_000 + u64::try_from(self.known.len()).unwrap());
        if let Ok(file) = OpenOptions::new().append(true).open(self.path()) {
            file.set_modified(at + nanos).unwrap();
        }
    }

    fn write_all(&mut self, path: &Path) {
        let mut text: String = self.lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        if let Some((_, line)) = &self.torn {
            text.push_str(&line[..line.len() / 2]);
        }
        fs::write(path, text).unwrap();
        self.exists = true;
    }

    fn append(&mut self, count: u8, size: usize) {
        if !self.exists {
            self.lines.clear();
            self.torn = None;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(self.path()).unwrap();
        if let Some((n, line)) = self.torn.take() {
            writeln!(file, "{}", &line[line.len() / 2..]).unwrap();
            self.lines.push((n, line));
        }
        for _ in 0..count {
            let (n, line) = self.fresh(size);
            writeln!(file, "{line}").unwrap();
            self.lines.push((n, line));
        }
        self.exists = true;
    }

    fn apply(&mut self, op: &Op) {
        let path = self.path();
        match *op {
            Op::Append(count, size) => self.append(count, size),
            Op::Torn if self.exists && self.torn.is_none() => {
                let (n, line) = self.fresh(50);
                let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(&line.as_bytes()[..line.len() / 2]).unwrap();
                self.torn = Some((n, line));
            }
            Op::Truncate(keep) if self.exists => {
                self.lines.truncate(keep.into());
                self.torn = None;
                let size: usize = self.lines.iter().map(|(_, line)| line.len() + 1).sum();
                File::options().write(true).open(&path).unwrap().set_len(size as u64).unwrap();
            }
            Op::Rewrite(count) => {
                self.torn = None;
                self.lines = (0..count).map(|_| self.fresh(200)).collect();
                self.write_all(&path);
            }
            Op::Replace(keep, count) => {
                self.torn = None;
                self.lines.truncate(keep.into());
                for _ in 0..count {
                    let fresh = self.fresh(300);
                    self.lines.push(fresh);
                }
                let other = self.dir.path().join("other.tmp");
                self.write_all(&other);
                fs::rename(other, &path).unwrap();
            }
            Op::Rotate if self.exists => {
                self.rotated = self.lines.iter().map(|(n, _)| *n).collect();
                fs::rename(&path, self.dir.path().join("s.jsonl.1")).unwrap();
                self.exists = false;
                (self.lines, self.torn) = (Vec::new(), None);
            }
            Op::Delete if self.exists => {
                fs::remove_file(&path).unwrap();
                self.exists = false;
                (self.lines, self.torn) = (Vec::new(), None);
            }
            Op::Read => return self.read(None),
            Op::Crash(at) => return self.read(Some(at)),
            _ => {}
        }
        let by = if let Op::Touch(by) = *op { i64::from(by) } else { 1 };
        self.stamp(by);
    }

    /// One look at the folder, as a pass takes it; with `crash_at` it ends before the commit of that piece.
    fn read(&mut self, crash_at: Option<u8>) {
        if let (Some((store, transcripts)), Some(_)) = (&mut self.stored, crash_at) {
            // Whoever reads next knows what was committed, and nothing else.
            *transcripts = House::over(store, transcripts.data_dir());
            return;
        }
        if crash_at.is_none() {
            let there = self.lines.iter().map(|(n, _)| *n).chain(self.rotated.iter().copied());
            self.expected.extend(there.map(|n| format!("msg_{n}")));
        }
        if let Some((_, transcripts)) = &self.stored {
            let roots = [self.dir.path().to_owned()];
            let cancel = AtomicBool::new(false);
            let request = ImportRequest::default();
            let totals = transcripts.import(&request, &roots, &cancel, &mut |_| {}).unwrap();
            assert_eq!((totals.failed, totals.bad), (0, 0), "{totals:?}");
            return;
        }
        let mut pieces = 0;
        for found in folder(self.dir.path(), Pick::Client).files {
            let known = self.known.get(&found.path).cloned();
            if plan(known.as_ref(), &found) == Plan::Unchanged {
                continue;
            }
            let Some(mut reading) = Reading::open(&found, known.as_ref(), &mut Buffer::default()).unwrap()
            else {
                continue;
            };
            while let Some(piece) = reading.next().unwrap() {
                if crash_at == Some(pieces) {
                    return;
                }
                pieces += 1;
                let ids = piece.facts.requests.iter().filter_map(|request| request.message_id.clone());
                let ids: Vec<String> = ids.collect();
                if crash_at.is_some() {
                    self.expected.extend(ids.iter().cloned());
                }
                self.collected.extend(ids);
                assert_eq!(piece.facts.counts.bad, 0, "a torn line is no bad one");
                self.known.insert(piece.file.path.clone(), piece.file);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_a_file_exactly_what_was_there_to_be_read_is_taken_in(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.apply(&Op::Read);
        prop_assert_eq!(&world.collected, &world.expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_has_exactly_what_was_there_to_be_read(ops in ops()) {
        let home = tempfile::tempdir().unwrap();
        let mut world = World::with_store(home.path());
        for op in &ops {
            world.apply(op);
        }
        world.apply(&Op::Read);
        let (store, _) = world.stored.as_ref().unwrap();
        let rows = store.reader().unwrap().ledger("s").unwrap();
        let ids: Vec<String> = rows.into_iter().filter_map(|row| row.message_id).collect();
        prop_assert_eq!(ids.len(), world.expected.len());
        prop_assert_eq!(&ids.into_iter().collect::<BTreeSet<_>>(), &world.expected);
    }
}

fn found(path: &Path) -> Found {
    Found::at(path, FileFacts::of_path(path.to_str().unwrap()).unwrap()).unwrap()
}

/// Reads what is new; gives the requests' ids and the state.
fn read(path: &Path, known: Option<&TranscriptFile>) -> (Vec<String>, Option<TranscriptFile>) {
    let Some(mut reading) = Reading::open(&found(path), known, &mut Buffer::default()).unwrap() else {
        return (Vec::new(), None);
    };
    let (mut ids, mut state) = (Vec::new(), None);
    while let Some(piece) = reading.next().unwrap() {
        ids.extend(piece.facts.requests.into_iter().filter_map(|request| request.message_id));
        state = Some(piece.file);
    }
    (ids, state)
}

#[test]
fn a_grown_file_is_read_on_and_a_torn_line_waits_for_its_other_half() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.jsonl");
    let (one, two) = (line(1, 10), line(2, 10));
    let half = two.len() / 2;
    fs::write(&path, format!("{one}\n{}", &two[..half])).unwrap();
    let (ids, first) = read(&path, None);
    let first = first.unwrap();
    assert_eq!(ids, ["msg_1"]);
    assert_eq!((first.offset, first.size_bytes), (one.len() as u64 + 1, (one.len() + 1 + half) as u64));
    assert_eq!((first.session_id.as_str(), first.records, first.bad), ("s", 1, 0));
    assert_eq!(read(&path, Some(&first)), (Vec::new(), None), "nothing is new");

    fs::write(&path, format!("{one}\n{two}\n")).unwrap();
    let (ids, second) = read(&path, Some(&first));
    let second = second.unwrap();
    assert_eq!(ids, ["msg_2"]);
    assert_eq!((second.records, second.born), (2, first.born));
    assert_eq!(second.offset, second.size_bytes);
}

#[test]
fn the_last_line_needs_no_newline_and_many_facts_come_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.jsonl");
    let text: Vec<String> = (1..=10_000).map(|n| line(n, 1)).collect();
    fs::write(&path, text.join("\n")).unwrap();
    let mut reading = Reading::open(&found(&path), None, &mut Buffer::default()).unwrap().unwrap();
    let (mut pieces, mut requests) = (0, 0);
    while let Some(piece) = reading.next().unwrap() {
        pieces += 1;
        requests += piece.facts.requests.len();
        // A crash between two pieces goes on behind the first.
        let rest = read(&path, Some(&piece.file)).0.len();
        assert_eq!(requests + rest, 10_000);
    }
    assert!(pieces > 1 && requests == 10_000, "{pieces} pieces, {requests} requests");
}

/// Transcripts over a store of its own.
struct House {
    dir: tempfile::TempDir,
    transcripts: Arc<Transcripts>,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("projects/-demo")).unwrap();
        let store = Store::open(&Options::new(dir.path().join("taffrail.db"))).unwrap();
        let transcripts = Self::over(&store, dir.path());
        Self { dir, transcripts }
    }

    fn over(store: &Store, dir: &Path) -> Arc<Transcripts> {
        Arc::new(Transcripts::open(store.clone(), Arc::default(), dir).unwrap())
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("projects")
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root().join("-demo").join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn import(&self) -> Totals {
        self.import_with(&ImportRequest::default())
    }

    fn import_with(&self, request: &ImportRequest) -> Totals {
        let cancel = AtomicBool::new(false);
        self.transcripts.import(request, &[self.root()], &cancel, &mut |_| {}).unwrap()
    }

    fn archive(&self, path: &Path) -> Option<u64> {
        self.transcripts.archive(&found(path), &self.root(), Haste::Now, &AtomicBool::new(false)).unwrap()
    }

    fn text(&self, path: &Path) -> String {
        let file = self.transcripts.known(path).unwrap();
        TranscriptText::open(self.dir.path(), &file).unwrap().map(Result::unwrap).collect()
    }
}

fn unzipped(path: &Path) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_archive_is_gzip_of_the_lines_without_their_secrets_and_is_read_when_the_file_is_gone() {
    let house = House::new();
    let secret = ["ghp_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"].concat();
    let said = line(1, 1).replace("\"x\"", &format!("\"my token is {secret}\""));
    let path = house.write("s.jsonl", &format!("{said}\n{}\n", line(2, 10)));
    assert_eq!(house.import().records, 2);
    assert!(house.archive(&path).is_some());
    assert!(house.archive(&path).is_none(), "what is archived already is not archived again");

    let archive = house.dir.path().join("archive/transcripts/-demo/s.jsonl.gz");
    let text = unzipped(&archive);
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains(&secret) && text.contains("[REDACTED:"), "{text}");
    assert_eq!(house.text(&path), text, "file and archive read the same");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(house.text(&path), text);
}

#[test]
fn a_newer_version_replaces_its_archive_and_a_shorter_one_stands_beside_it() {
    let house = House::new();
    let path = house.write("s.jsonl", &format!("{}\n", line(1, 10)));
    house.import();
    house.archive(&path).unwrap();
    house.write("s.jsonl", &format!("{}\n{}\n", line(1, 10), line(2, 10)));
    house.import();
    house.archive(&path).unwrap();
    let folder = house.dir.path().join("archive/transcripts/-demo");
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["s.jsonl.gz"]);
    assert_eq!(unzipped(&folder.join("s.jsonl.gz")).lines().count(), 2);

    house.write("s.jsonl", &format!("{}\n", line(3, 10)));
    house.import();
    house.archive(&path).unwrap();
    assert_eq!(names().len(), 2, "{:?}", names());
    assert_eq!(unzipped(&folder.join("s.jsonl.gz")).lines().count(), 1);
    let older = names().into_iter().find(|name| name != "s.jsonl.gz").unwrap();
    assert_eq!(unzipped(&folder.join(older)).lines().count(), 2);
}

#[test]
fn what_is_quiet_and_new_is_due_and_nothing_else() {
    let house = House::new();
    let path = house.write("s.jsonl", &format!("{}\n", line(1, 10)));
    let day = Duration::from_secs(24 * 3600);
    let due = |quiet| {
        let known = house.transcripts.known(&path);
        house.transcripts.is_due(&found(&path), known.as_ref(), quiet)
    };
    let age = |by: Duration| {
        File::options().append(true).open(&path).unwrap().set_modified(SystemTime::now() - by).unwrap();
    };
    age(2 * day);
    assert!(!due(day), "what is not yet read waits");
    house.import();
    assert!(due(day) && !due(3 * day));
    age(25 * day);
    house.import();
    assert!(due(300 * day), "the client's sweep is near");
    house.archive(&path).unwrap();
    assert!(!due(day));
    // Written to while the clock stood years ahead.
    File::options().append(true).open(&path).unwrap().set_modified(SystemTime::now() + 400 * day).unwrap();
    house.import();
    assert!(due(day));
    house.archive(&path).unwrap();
    assert!(!due(day), "and only once");
}

#[test]
fn files_of_one_name_have_archives_of_their_own() {
    let house = House::new();
    let other = house.dir.path().join("other/-demo");
    fs::create_dir_all(&other).unwrap();
    let here = house.write("s.jsonl", &format!("{}\n", line(1, 10)));
    let there = other.join("s.jsonl");
    fs::write(&there, format!("{}\n{}\n", line(1, 10), line(2, 10))).unwrap();
    let paths = vec![here.clone(), there.clone()];
    let totals = house.import_with(&ImportRequest { paths, archive: true, ..ImportRequest::default() });
    assert_eq!((totals.archived, totals.failed), (2, 0));
    fs::remove_file(&here).unwrap();
    fs::remove_file(&there).unwrap();
    assert_eq!((house.text(&here).lines().count(), house.text(&there).lines().count()), (1, 2));
}

#[test]
fn a_file_that_fails_is_named_and_the_rest_goes_in() {
    let house = House::new();
    house.write("good.jsonl", &format!("{}\n", line(1, 10)));
    let bad = house.root().join("-demo/bad.jsonl");
    #[cfg(unix)]
    std::os::unix::fs::symlink("bad.jsonl", &bad).unwrap();
    let absent = house.dir.path().join("absent.jsonl");
    let request = ImportRequest { paths: vec![house.root(), absent.clone()], ..ImportRequest::default() };
    let totals = house.import_with(&request);
    assert_eq!(totals.records, 1);
    let named: Vec<_> = totals.errors.iter().map(|error| error.path.clone()).collect();
    assert_eq!(named, [bad, absent]);
}

#[test]
fn a_dry_run_reads_and_stores_nothing_and_a_cancelled_one_ends() {
    let house = House::new();
    house.write("s.jsonl", &format!("{}\n", line(1, 10)));
    let dry = house.import_with(&ImportRequest { dry_run: true, ..ImportRequest::default() });
    assert_eq!((dry.records, dry.requests, dry.sessions, dry.requests_new), (1, 1, 1, 0));
    assert!(dry.dry_run && house.transcripts.all_known().is_empty());
    let cancel = AtomicBool::new(true);
    let request = ImportRequest::default();
    let ended = house.transcripts.import(&request, &[house.root()], &cancel, &mut |_| {});
    assert!(ended.is_err() && house.transcripts.all_known().is_empty());
    assert_eq!(house.import().records, 1);
    assert_eq!(house.import().unchanged, 1);
}

#[test]
fn two_passes_over_the_same_files_at_once_end_and_agree() {
    let house = House::new();
    for n in 0..60 {
        house.write(&format!("{n}.jsonl"), &format!("{}\n{}\n", line(n, 60_000), line(n + 1_000, 60_000)));
    }
    let files = || folder(&house.root(), Pick::Client).files;
    let pass = |reverse: bool| {
        let cancel = AtomicBool::new(false);
        let pass = Pass { app: None, dry_run: false, pace: Pace::Full, cancel: &cancel };
        let mut files = files();
        if reverse {
            files.reverse();
        }
        house.transcripts.pass(files, &pass, &mut Totals::default(), &mut |_| {}).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pass(false));
        scope.spawn(|| pass(true));
    });
    assert_eq!(house.import().unchanged, 60);
}
