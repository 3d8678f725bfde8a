//! The spool: one file per event between the hook client and the server.
//!
//! ```text
//! spool/<event id>.tmp     being written
//! spool/<event id>.frame   whole; the server deletes it once the event is committed
//! spool/FULL               the bound is reached: hooks drop and count instead of writing
//! spool/dropped            one byte per dropped event; it only grows
//! spool/dropped.seen       how many of them the server has reported
//! spool/usage              one byte per 4 KiB written since the last count
//! spool/torn/              frames that could not be read, kept for a look
//! ```
//!
//! Writers never wait and never lock. The bound is kept without listing the directory on each event: every writer
//! lengthens `usage` by the blocks it wrote, and only whoever sees it reach the bound counts what is really there,
//! which either resets `usage` or sets `FULL`. No fsync: the spool survives the process, not the machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use taffrail_event::frame::{self, Frame, FrameError};
use uuid::Uuid;

/// Directory of the spool in the data directory.
pub const SPOOL_DIR: &str = "spool";
/// Bound of the spool where `TAFFRAIL_SPOOL_LIMIT_BYTES` does not set another.
pub use crate::settings::DEFAULT_SPOOL_LIMIT_BYTES;
/// Most frames that [`SpoolDir::pending`] returns at once, the oldest first.
pub const PENDING_LIMIT: usize = 10_000;
/// Age from which a `.tmp` file's writer is taken for dead.
pub const STALE_AFTER: Duration = Duration::from_mins(1);

const FULL: &str = "FULL";
const DROPPED: &str = "dropped";
const DROPPED_SEEN: &str = "dropped.seen";
const USAGE: &str = "usage";
const TORN: &str = "torn";
/// What a file takes on disk is counted in these.
const BLOCK_BYTES: u64 = 4096;
/// While `FULL` is set, one in so many events looks whether it still holds.
const RECOUNT_ONE_IN: u128 = 1024;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is in the spool.
    Whole,
    /// The bound is reached: counted, not written.
    Dropped,
}

/// Appends one frame, given as its head and the parts of its payload; makes the directories where they are missing.
///
/// # Errors
/// The write's error, after the event has been counted as dropped as far as that is possible.
pub fn append(
    home: &Path,
    event_id: Uuid,
    head: &[u8],
    payload: &[&[u8]],
    limit_bytes: u64,
) -> io::Result<Appended> {
    let spool = home.join(SPOOL_DIR);
    if is_full(&spool, event_id, limit_bytes) {
        count_dropped(&spool);
        return Ok(Appended::Dropped);
    }
    match write_frame(&spool, event_id, head, payload) {
        Ok(bytes) => {
            note_usage(&spool, bytes, limit_bytes);
            Ok(Appended::Whole)
        }
        Err(error) => {
            count_dropped(&spool);
            Err(error)
        }
    }
}

fn is_full(spool: &Path, event_id: Uuid, limit_bytes: u64) -> bool {
    if fs::symlink_metadata(spool.join(FULL)).is_err() {
        return false;
    }
    let looks_again = event_id.as_u128().is_multiple_of(RECOUNT_ONE_IN);
    !looks_again || recount(spool, limit_bytes).unwrap_or(true)
}

fn write_frame(spool: &Path, event_id: Uuid, head: &[u8], payload: &[&[u8]]) -> io::Result<u64> {
    let name = event_id.hyphenated().to_string();
    let temporary = spool.join(format!("{name}.tmp"));
    let mut file = create_private(&temporary).or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(error);
        }
        create_private_dir(spool)?;
        create_private(&temporary)
    })?;
    let written = write_parts(&mut file, head, payload)
        .and_then(|bytes| fs::rename(&temporary, spool.join(format!("{name}.frame"))).map(|()| bytes));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_parts(file: &mut File, head: &[u8], payload: &[&[u8]]) -> io::Result<u64> {
    let payload_len: usize = payload.iter().map(|part| part.len()).sum();
    // Small frames, nearly all of them, go out in one system call.
    if payload_len <= 64 * 1024 {
        let whole = [&[head], payload].concat().concat();
        file.write_all(&whole)?;
        return Ok(whole.len() as u64);
    }
    file.write_all(head)?;
    for part in payload {
        file.write_all(part)?;
    }
    Ok((head.len() + payload_len) as u64)
}

/// Adds to `usage`; counts for real when that says the bound is reached. Best effort: the frame is safe already.
fn note_usage(spool: &Path, bytes: u64, limit_bytes: u64) {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    let Ok(mut file) = private(&mut options).open(spool.join(USAGE)) else { return };
    let blocks = usize::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap_or(1);
    if file.write_all(&vec![b'.'; blocks]).is_err() {
        return;
    }
    if file.metadata().is_ok_and(|usage| usage.len() * BLOCK_BYTES >= limit_bytes) {
        let _ = recount(spool, limit_bytes);
    }
}

/// Counts what is there and sets or clears `FULL`; returns whether it is set.
fn recount(spool: &Path, limit_bytes: u64) -> io::Result<bool> {
    let mut blocks = 0;
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        if matches!(extension(&entry.path()), Some("frame" | "tmp")) {
            blocks += entry.metadata().map_or(0, |file| file.len().div_ceil(BLOCK_BYTES));
        }
    }
    let full = blocks * BLOCK_BYTES >= limit_bytes;
    if full {
        let mut options = OpenOptions::new();
        private(options.write(true).create(true)).open(spool.join(FULL))?;
    } else {
        remove_if_there(&spool.join(FULL))?;
    }
    let mut options = OpenOptions::new();
    private(options.write(true).create(true)).open(spool.join(USAGE))?.set_len(blocks)?;
    Ok(full)
}

fn count_dropped(spool: &Path) {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    if let Ok(mut file) = private(&mut options).open(spool.join(DROPPED)) {
        let _ = file.write_all(b"x");
    }
}

/// The server's side of the spool; also what `doctor` reads.
#[derive(Debug, Clone)]
pub struct SpoolDir {
    path: PathBuf,
}

/// What lies in the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Whole frames that wait for the server.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames in the making, or left by a writer that died.
    pub unfinished: u64,
    /// Frames that could not be read.
    pub torn: u64,
    /// Events dropped since the spool exists.
    pub dropped: u64,
    /// The bound is reached.
    pub full: bool,
}

/// What [`SpoolDir::salvage`] did with frames left by dead writers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Whole, now pending.
    pub recovered: u64,
    /// Not whole, now in `torn/`.
    pub torn: u64,
}

/// Why a frame could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The file could not be read.
    Io(io::Error),
    /// What it holds is not a whole frame.
    Frame(FrameError),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read the frame: {error}"),
            Self::Frame(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl SpoolDir {
    /// Opens the spool of a data directory and makes it (0700) where it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(home: &Path) -> io::Result<Self> {
        let path = home.join(SPOOL_DIR);
        create_private_dir(&path)?;
        Ok(Self { path })
    }

    /// The spool of a data directory as it is, for looking only.
    #[must_use]
    pub fn look(home: &Path) -> Self {
        Self { path: home.join(SPOOL_DIR) }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whole frames by event id, that is by time; the oldest [`PENDING_LIMIT`] of them.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn pending(&self) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if Path::new(&name).extension().is_some_and(|extension| extension == "frame") {
                names.push(name);
            }
        }
        if names.len() > PENDING_LIMIT {
            names.select_nth_unstable(PENDING_LIMIT);
            names.truncate(PENDING_LIMIT);
        }
        names.sort_unstable();
        Ok(names.iter().map(|name| self.path.join(name)).collect())
    }

    /// Where the frame of an event lies: a question without its payload names it only.
    #[must_use]
    pub fn frame_path(&self, event_id: Uuid) -> PathBuf {
        self.path.join(format!("{}.frame", event_id.hyphenated()))
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// [`ReadError::Frame`] for a file that is not one whole frame: [`SpoolDir::quarantine`] it.
    pub fn read(&self, path: &Path) -> Result<Frame, ReadError> {
        let limit = (frame::PREFIX_BYTES + frame::HEADER_LIMIT_BYTES + frame::PAYLOAD_LIMIT_BYTES + 1) as u64;
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(ReadError::Io)?;
        frame::decode(&bytes).map_err(ReadError::Frame)
    }

    /// Removes a frame whose event is committed. One that is gone already is fine.
    ///
    /// # Errors
    /// When the file stays.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        remove_if_there(path)
    }

    /// Sets a file that is no frame aside, so that it is neither read again nor lost.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn quarantine(&self, path: &Path) -> io::Result<()> {
        let torn = self.path.join(TORN);
        create_private_dir(&torn)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        fs::rename(path, torn.join(name))
    }

    /// Looks after frames whose writers died: whole ones become pending, others go to `torn/`.
    ///
    /// # Errors
    /// When the directory cannot be listed or a file cannot be moved.
    pub fn salvage(&self, now: SystemTime) -> io::Result<Salvaged> {
        let mut salvaged = Salvaged::default();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if extension(&path) != Some("tmp") || !is_stale(&path, now) {
                continue;
            }
            match self.read(&path) {
                Ok(_) => {
                    fs::rename(&path, path.with_extension("frame"))?;
                    salvaged.recovered += 1;
                }
                Err(ReadError::Frame(_)) => {
                    self.quarantine(&path)?;
                    salvaged.torn += 1;
                }
                // Its writer was alive after all and has renamed it.
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(ReadError::Io(error)) => return Err(error),
            }
        }
        Ok(salvaged)
    }

    /// Sets or clears `FULL` by what is really there; the server calls it after it drained. Returns whether it is set.
    ///
    /// # Errors
    /// When the directory cannot be listed or changed.
    pub fn refresh_bound(&self, limit_bytes: u64) -> io::Result<bool> {
        recount(&self.path, limit_bytes)
    }

    /// Events dropped since the spool exists.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        fs::metadata(self.path.join(DROPPED)).map_or(0, |file| file.len())
    }

    /// Events dropped since the last call, by any process. Only the server calls this.
    ///
    /// # Errors
    /// When the new count cannot be written: the same drops will be told again.
    pub fn take_dropped(&self) -> io::Result<u64> {
        let seen_path = self.path.join(DROPPED_SEEN);
        let seen = fs::read_to_string(&seen_path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let dropped = self.dropped_count();
        if dropped == seen {
            return Ok(0);
        }
        let temporary = self.path.join("dropped.new");
        remove_if_there(&temporary)?;
        create_private(&temporary)?.write_all(dropped.to_string().as_bytes())?;
        fs::rename(&temporary, &seen_path)?;
        // Somebody removed `dropped`: all that it holds now is new.
        Ok(if dropped > seen { dropped - seen } else { dropped })
    }

    /// Counts what is there; a spool that does not exist is empty.
    ///
    /// # Errors
    /// When the directory exists but cannot be listed.
    pub fn backlog(&self) -> io::Result<Backlog> {
        let mut backlog = Backlog { dropped: self.dropped_count(), ..Backlog::default() };
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(backlog),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            match extension(&entry.path()) {
                Some("frame") => {
                    backlog.frames += 1;
                    backlog.bytes += entry.metadata().map_or(0, |file| file.len());
                }
                Some("tmp") => backlog.unfinished += 1,
                _ => {}
            }
        }
        backlog.full = self.path.join(FULL).exists();
        backlog.torn = fs::read_dir(self.path.join(TORN)).map_or(0, |entries| entries.count() as u64);
        Ok(backlog)
    }
}

fn is_stale(path: &Path, now: SystemTime) -> bool {
    let modified = fs::metadata(path).and_then(|file| file.modified());
    modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age >= STALE_AFTER))
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|extension| extension.to_str())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    private(options.write(true).create_new(true)).open(path)
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use taffrail_event::frame::{FrameHeader, encode_head};

    const NO_LIMIT: u64 = u64::MAX;

    fn put(home: &Path, id: u128, payload: &[u8], limit_bytes: u64) -> Appended {
        let id = Uuid::from_u128(id);
        let head = encode_head(&FrameHeader::new(id, 1, payload.len() as u64), &[payload]).unwrap();
        append(home, id, &head, &[payload], limit_bytes).unwrap()
    }

    #[test]
    fn frames_come_back_in_order_and_leave() {
        let home = tempfile::tempdir().unwrap();
        for id in [3, 1, 2] {
            assert_eq!(put(home.path(), id, b"{}", NO_LIMIT), Appended::Whole);
        }
        let spool = SpoolDir::open(home.path()).unwrap();
        let pending = spool.pending().unwrap();
        let ids: Vec<u128> =
            pending.iter().map(|path| spool.read(path).unwrap().header.event_id.as_u128()).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(pending[0], spool.frame_path(Uuid::from_u128(1)));
        for path in &pending {
            spool.remove(path).unwrap();
            spool.remove(path).unwrap();
        }
        assert_eq!(spool.backlog().unwrap(), Backlog::default());
    }

    #[test]
    #[cfg(unix)]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        put(&home.path().join("deep/er"), 1, b"{}", NO_LIMIT);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let spool = SpoolDir::look(&home.path().join("deep/er"));
        assert_eq!(mode(spool.path()), 0o700);
        assert_eq!(mode(spool.path().parent().unwrap()), 0o700);
        for file in ["usage".into(), spool.frame_path(Uuid::from_u128(1))] {
            assert_eq!(mode(&spool.path().join(file)), 0o600);
        }
    }

    #[test]
    fn the_bound_drops_and_counts_until_drained() {
        let home = tempfile::tempdir().unwrap();
        let limit = 4 * BLOCK_BYTES;
        for id in 1..=4 {
            assert_eq!(put(home.path(), id, b"{}", limit), Appended::Whole, "{id}");
        }
        for id in 5..=7 {
            assert_eq!(put(home.path(), id, b"{}", limit), Appended::Dropped, "{id}");
        }
        let spool = SpoolDir::open(home.path()).unwrap();
        let backlog = spool.backlog().unwrap();
        assert_eq!((backlog.frames, backlog.dropped, backlog.full), (4, 3, true));
        assert_eq!(spool.take_dropped().unwrap(), 3);
        assert_eq!(spool.take_dropped().unwrap(), 0);
        spool.remove(&spool.pending().unwrap()[0]).unwrap();
        assert!(!spool.refresh_bound(limit).unwrap());
        assert_eq!(put(home.path(), 8, b"{}", limit), Appended::Whole);
        assert_eq!(put(home.path(), 9, b"{}", limit), Appended::Dropped);
        assert_eq!(spool.take_dropped().unwrap(), 1);
        assert_eq!(spool.dropped_count(), 4);
    }

    #[test]
    fn a_spool_that_is_drained_all_the_time_never_fills() {
        let home = tempfile::tempdir().unwrap();
        let limit = 4 * BLOCK_BYTES;
        for id in 1..=50 {
            assert_eq!(put(home.path(), id, b"{}", limit), Appended::Whole, "{id}");
            let spool = SpoolDir::open(home.path()).unwrap();
            spool.remove(&spool.frame_path(Uuid::from_u128(id))).unwrap();
        }
    }

    #[test]
    fn a_full_spool_is_looked_at_again_now_and_then() {
        let home = tempfile::tempdir().unwrap();
        put(home.path(), 1, b"{}", 1);
        assert_eq!(put(home.path(), 2, b"{}", 1), Appended::Dropped);
        fs::remove_file(SpoolDir::look(home.path()).frame_path(Uuid::from_u128(1))).unwrap();
        assert_eq!(put(home.path(), 3, b"{}", BLOCK_BYTES), Appended::Dropped);
        assert_eq!(put(home.path(), RECOUNT_ONE_IN, b"{}", BLOCK_BYTES), Appended::Whole);
    }

    #[test]
    fn what_dead_writers_left_is_recovered_or_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let spool = SpoolDir::open(home.path()).unwrap();
        for id in 1..=2 {
            put(home.path(), id, b"{}", NO_LIMIT);
            let frame = spool.frame_path(Uuid::from_u128(id));
            fs::rename(&frame, frame.with_extension("tmp")).unwrap();
        }
        let torn = spool.frame_path(Uuid::from_u128(2)).with_extension("tmp");
        File::options().write(true).open(&torn).unwrap().set_len(30).unwrap();
        let now = SystemTime::now();
        assert_eq!(spool.salvage(now).unwrap(), Salvaged::default(), "their writers may be alive");
        let later = now + STALE_AFTER + Duration::from_secs(1);
        assert_eq!(spool.salvage(later).unwrap(), Salvaged { recovered: 1, torn: 1 });
        assert_eq!(spool.salvage(later).unwrap(), Salvaged::default());
        let backlog = spool.backlog().unwrap();
        assert_eq!((backlog.frames, backlog.torn, backlog.unfinished), (1, 1, 0));
        assert_eq!(spool.read(&spool.pending().unwrap()[0]).unwrap().header.event_id, Uuid::from_u128(1));
    }

    #[test]
    fn an_unwritable_spool_is_an_error_not_a_panic() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(SPOOL_DIR), b"in the way").unwrap();
        assert!(append(home.path(), Uuid::nil(), b"x", &[], NO_LIMIT).is_err());
        assert!(SpoolDir::open(home.path()).is_err());
    }
}
