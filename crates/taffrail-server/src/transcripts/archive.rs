//! Keeps transcripts beyond the client's own sweep, and reads them back.
//!
//! The client deletes a transcript 30 days after its last use. So what has been quiet for a while is written, line by
//! line and without its secrets, to `archive/transcripts/<project folder>/<name>.gz` in the data directory: plain gzip of
//! JSON lines, which `zcat` reads. A newer version replaces an older one; where a file has shrunk, the older archive is
//! kept beside it. Nothing is ever deleted here.
//!
//! Limits: a line of more than [`LINE_MAX_BYTES`] is cut in pieces; writing pauses every [`STRIDE_BYTES`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use taffrail_event::TimestampMs;
use taffrail_event::redact::Redactor;
use taffrail_event::transcript::FileFacts;
use taffrail_store::{ReadError, Reader, TranscriptFile};

use super::Transcripts;
use super::place::{Plan, plan};
use super::walk::Found;
use crate::clock;
use crate::home::make_private_dir;

/// Below the data directory.
const FOLDER: &str = "archive/transcripts";
/// A file older than this is archived whatever the configuration says: the client's sweep is near.
const SWEEP_NEAR: Duration = Duration::from_secs(20 * 24 * 3600);
/// A file from the future is archived, too: its age is not known.
const CLOCK_SLACK_MS: i64 = 3_600_000;
/// The longest line that is looked through for secrets in one piece.
const LINE_MAX_BYTES: u64 = 64 << 20;
/// Bytes after which a writer that is not in a hurry pauses.
const STRIDE_BYTES: u64 = 1 << 20;
/// How long.
const STRIDE_PAUSE: Duration = Duration::from_millis(5);

/// How an archive is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Somebody waits.
    Now,
    /// In the background.
    Slow,
}

impl Transcripts {
    /// Whether a file has been quiet for so long, and has something that its archive has not.
    pub(crate) fn is_due(&self, found: &Found, known: Option<&TranscriptFile>, quiet: Duration) -> bool {
        let Some(known) = known else { return false };
        // What cannot be read, or is not yet read, waits.
        if found.size_bytes == 0 || plan(Some(known), found) != Plan::Unchanged {
            return false;
        }
        let age_ms = clock::now_ms().saturating_sub(found.modified_ns / 1_000_000);
        let quiet_ms = i64::try_from(quiet.min(SWEEP_NEAR).as_millis()).unwrap_or(i64::MAX);
        let old_enough = age_ms >= quiet_ms || age_ms < -CLOCK_SLACK_MS;
        old_enough && is_newer_than_archive(found, known)
    }

    /// Archives a file as it is now; where it is archived already so, nothing happens. Gives the bytes that the archive
    /// takes on disk.
    pub(crate) fn archive(
        &self,
        found: &Found,
        folder: &Path,
        haste: Haste,
        cancel: &AtomicBool,
    ) -> io::Result<Option<u64>> {
        let Some(known) = self.known(&found.path) else { return Ok(None) };
        if !is_newer_than_archive(found, &known) {
            return Ok(None);
        }
        let name = match &known.archive {
            Some(name) => PathBuf::from(name),
            None => self.archive_name(&found.path, folder),
        };
        let target = self.data_dir().join(&name);
        if let Some(parent) = target.parent() {
            make_private_dir(parent)?;
        }
        let Some(stored_bytes) =
            write(&found.path, &target, haste, cancel, || keep_older(&target, found, &known))?
        else {
            return Ok(None);
        };
        self.status.archived_files.fetch_add(1, Ordering::Relaxed);
        self.status.archived_bytes.fetch_add(found.size_bytes, Ordering::Relaxed);
        self.status.archive_stored_bytes.fetch_add(stored_bytes, Ordering::Relaxed);
        // What was or is read meanwhile is not to be undone.
        let _mine = self.claims.wait_for(&found.path);
        let known = self.known(&found.path).unwrap_or(known);
        let state = TranscriptFile {
            archive: Some(name.to_string_lossy().into_owned()),
            archived_bytes: found.size_bytes,
            // Never before the version it holds, wherever the clock stands: that would pass for an older one.
            archived: Some(clock::now().max(modified(found))),
            ..known
        };
        self.note(state).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Some(stored_bytes))
    }

    /// A name that no other file's archive has: its place below the client's folder.
    fn archive_name(&self, path: &Path, folder: &Path) -> PathBuf {
        let below = path.strip_prefix(folder).ok().map(Path::to_owned);
        let parent_and_name = || {
            let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
            Path::new(parent).join(path.file_name().unwrap_or_default())
        };
        let mut place = below.filter(|p| p.components().count() > 1).unwrap_or_else(parent_and_name);
        place = place.components().filter(|c| matches!(c, Component::Normal(_))).collect();
        let name = |place: &Path| {
            let mut name = Path::new(FOLDER).join(place).into_os_string();
            name.push(".gz");
            PathBuf::from(name)
        };
        let mut candidate = name(&place);
        let taken: Vec<PathBuf> =
            self.all_known().into_iter().filter_map(|file| file.archive).map(PathBuf::from).collect();
        for n in 2..1_000u32 {
            if !taken.contains(&candidate) {
                break;
            }
            candidate = name(&Path::new(&format!("~{n}")).join(&place));
        }
        candidate
    }
}

fn is_newer_than_archive(found: &Found, known: &TranscriptFile) -> bool {
    known.archive.is_none()
        || known.archived_bytes != found.size_bytes
        || known.archived < Some(modified(found))
}

fn modified(found: &Found) -> TimestampMs {
    TimestampMs::clamped(found.modified_ns / 1_000_000)
}

/// An archive of more than the file now has is no older version of it: it is kept under another name.
fn keep_older(target: &Path, found: &Found, known: &TranscriptFile) -> io::Result<()> {
    if known.archived_bytes <= found.size_bytes || !target.exists() {
        return Ok(());
    }
    let at = known.archived.map_or(0, TimestampMs::get);
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::rename(target, target.with_file_name(format!("{}.{at}.gz", name.trim_end_matches(".gz"))))
}

/// Writes `from` to `target`, whole or not at all; none where it was cancelled. `before` runs right before the old one is
/// replaced.
fn write(
    from: &Path,
    target: &Path,
    haste: Haste,
    cancel: &AtomicBool,
    before: impl FnOnce() -> io::Result<()>,
) -> io::Result<Option<u64>> {
    let temporary = target.with_extension("gz.tmp");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut packed = GzEncoder::new(BufWriter::new(options.open(&temporary)?), Compression::default());
    let mut lines = Lines { from: Box::new(BufReader::with_capacity(256 << 10, File::open(from)?)) };
    let mut since_pause = 0;
    while let Some(line) = lines.next_line()? {
        packed.write_all(line.as_bytes())?;
        since_pause += line.len() as u64;
        if since_pause >= STRIDE_BYTES {
            since_pause = 0;
            if cancel.load(Ordering::Relaxed) {
                drop(packed);
                fs::remove_file(&temporary)?;
                return Ok(None);
            }
            if haste == Haste::Slow {
                std::thread::sleep(STRIDE_PAUSE);
            }
        }
    }
    let file = packed.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let stored_bytes = file.metadata()?.len();
    before()?;
    fs::rename(&temporary, target)?;
    if let Some(parent) = target.parent() {
        // A directory cannot be synced everywhere; where it cannot, the rename is as safe as the system makes it.
        let _ = File::open(parent).and_then(|dir| dir.sync_all());
    }
    Ok(Some(stored_bytes))
}

/// Lines without their secrets, line ends included.
struct Lines {
    from: Box<dyn BufRead + Send>,
}

impl Lines {
    fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if Read::by_ref(&mut self.from).take(LINE_MAX_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        Ok(Some(Redactor::builtin().redact(&text).text.into_owned()))
    }
}

/// The text of a transcript, line by line and without its secrets: of the file where it still is, else of its archive.
pub struct TranscriptText {
    lines: Lines,
}

impl TranscriptText {
    /// Opens the text of a file that the store knows.
    ///
    /// # Errors
    /// Neither the file nor an archive of it can be opened.
    pub fn open(data_dir: &Path, file: &TranscriptFile) -> io::Result<Self> {
        let gone = match Found::at(&file.path, FileFacts::default()) {
            Ok(_) => match File::open(&file.path) {
                Ok(open) => return Ok(Self { lines: Lines { from: Box::new(BufReader::new(open)) } }),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let Some(archive) = &file.archive else { return Err(gone) };
        let packed = File::open(data_dir.join(archive))?;
        let text = BufReader::new(MultiGzDecoder::new(BufReader::new(packed)));
        Ok(Self { lines: Lines { from: Box::new(text) } })
    }
}

impl Iterator for TranscriptText {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.lines.next_line().transpose()
    }
}

/// The files that tell of a session: its own first, then those of its subagents.
///
/// # Errors
/// The database cannot be read.
pub fn files_of_session(reader: &Reader, session_id: &str) -> Result<Vec<TranscriptFile>, ReadError> {
    let mut files: Vec<_> =
        reader.transcript_files()?.into_iter().filter(|file| file.session_id == session_id).collect();
    files.sort_by(|a, b| (a.agent_id.is_some(), &a.path).cmp(&(b.agent_id.is_some(), &b.path)));
    Ok(files)
}
