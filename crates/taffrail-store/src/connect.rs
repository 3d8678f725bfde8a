//! Opening connections: what is checked before, the settings, and what SQLite's errors mean here.
//!
//! Opening reads the header and the schema only, so that ten million events are ready as quickly as none.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{AppendError, OpenError, ReadError, WriteError};
use crate::migrate;
use crate::options::{Durability, Options};

/// Marks a database as ours: "TFRL".
pub(crate) const APPLICATION_ID: i32 = 0x5446_524C;

/// How long a connection waits for another process that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Pages in the WAL after which a commit folds them into the database (16 MB).
pub(crate) const CHECKPOINT_PAGES: i64 = 4_000;

/// The same while much is imported: as much as is kept of the WAL file anyway (64 MB).
pub(crate) const BULK_CHECKPOINT_PAGES: i64 = 16_000;

/// The WAL file is cut back to this after a fold, in bytes.
const WAL_KEPT_BYTES: i64 = 64 * 1024 * 1024;

/// Prepared statements kept by a connection.
const STATEMENTS_CACHED: usize = 192;

/// Bytes of a SQLite header.
const HEADER_BYTES: usize = 100;

/// Held while a store is open, so that there is one writer.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

/// Opens the writer's connection: lock, checks, settings, migrations.
pub(crate) fn writer(options: &Options) -> Result<(Connection, WriterLock), OpenError> {
    check_place(&options.path)?;
    let lock = lock_writer(&options.path)?;
    let conn = read_write(&options.path)?;
    settings(&conn, options).map_err(|e| open_error(&e))?;
    crate::digest::tables::register(&conn).map_err(|e| open_error(&e))?;
    migrate::up_on(&conn).map_err(|e| match e {
        crate::MigrateError::Open(e) => e,
        other => OpenError::Other { detail: other.to_string() },
    })?;
    Ok((conn, lock))
}

/// Opens a connection that may write, after every check that leaves the file unharmed.
pub(crate) fn read_write(path: &Path) -> Result<Connection, OpenError> {
    check_place(path)?;
    create_private(path)?;
    check_header(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| open_error(&e))?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(|e| open_error(&e))?;
    crate::rollup::register(&conn).map_err(|e| open_error(&e))?;
    // A database that is refused is not even folded when this connection closes.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(|e| open_error(&e))?;
    let version = migrate::version_on(&conn).map_err(|e| open_error(&e))?;
    if version > migrate::KNOWN {
        return Err(OpenError::Newer { found: version, known: migrate::KNOWN });
    }
    check_owner(&conn, version)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(|e| open_error(&e))?;
    Ok(conn)
}

/// Checks that there is a database this version can read.
pub(crate) fn check_readable(path: &Path) -> Result<(), OpenError> {
    check_place(path)?;
    check_header(path)?;
    let conn = read_only(path, 0).map_err(|e| open_error(&e))?;
    let version = migrate::version_on(&conn).map_err(|e| open_error(&e))?;
    if version > migrate::KNOWN {
        return Err(OpenError::Newer { found: version, known: migrate::KNOWN });
    }
    if version < migrate::KNOWN {
        return Err(OpenError::Other {
            detail: format!(
                "its schema is {version}, not {}\nhint: run `taffrail migrate up`",
                migrate::KNOWN
            ),
        });
    }
    check_owner(&conn, version)
}

/// Opens a connection that can only read.
pub(crate) fn read_only(path: &Path, cache_bytes: usize) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "cache_size", cache_kib(cache_bytes))?;
    conn.pragma_update(None, "mmap_size", 0)?;
    Ok(conn)
}

fn settings(conn: &Connection, options: &Options) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let synchronous = match options.durability {
        Durability::Commit => "FULL",
        Durability::Process => "NORMAL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    fold_after(conn, CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    conn.pragma_update(None, "cache_size", cache_kib(options.cache_bytes))?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "temp_store", "MEMORY")
}

/// How many pages the WAL may have before a commit folds it.
pub(crate) fn fold_after(conn: &Connection, pages: i64) -> rusqlite::Result<()> {
    conn.pragma_update(None, "wal_autocheckpoint", pages)
}

/// A negative `cache_size` counts KiB.
fn cache_kib(bytes: usize) -> i64 {
    -i64::try_from((bytes / 1024).max(256)).unwrap_or(i64::MAX)
}

/// The database must be a file, or nothing yet, in a directory that exists.
fn check_place(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Err(OpenError::Unwritable { detail: format!("{} is a directory", path.display()) });
    }
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() && !dir.is_dir() => {
            Err(OpenError::Unwritable { detail: format!("there is no directory {}", dir.display()) })
        }
        _ => Ok(()),
    }
}

/// Creates the file readable by its owner only; SQLite gives WAL and shared memory the same mode.
fn create_private(path: &Path) -> Result<(), OpenError> {
    let mut open = OpenOptions::new();
    open.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
    open.open(path).map(drop).map_err(|e| io_error(path, &e))
}

fn lock_writer(path: &Path) -> Result<WriterLock, OpenError> {
    let lock_path = beside(path, "-writer");
    let mut open = OpenOptions::new();
    open.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
    let file = open.open(&lock_path).map_err(|e| io_error(&lock_path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(WriterLock { _file: file }),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(OpenError::Locked { detail: format!("{} is held by another process", lock_path.display()) })
        }
        Err(std::fs::TryLockError::Error(e)) => Err(io_error(&lock_path, &e)),
    }
}

/// The path with something appended to its file name, as SQLite names `-wal`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A file that is neither empty nor SQLite, or that is shorter than its header says, is damaged. With a WAL
/// beside it the header may be old, so its length says nothing then.
fn check_header(path: &Path) -> Result<(), OpenError> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let file = File::open(path).map_err(|e| io_error(path, &e))?;
    let len = file.metadata().map_err(|e| io_error(path, &e))?.len();
    file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(|e| io_error(path, &e))?;
    if header.is_empty() {
        return Ok(());
    }
    if header.len() < HEADER_BYTES || !header.starts_with(b"SQLite format 3\0") {
        return Err(OpenError::Corrupt { detail: format!("{} is no SQLite database", path.display()) });
    }
    let u16_at = |at: usize| u64::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let u32_at = |at: usize| {
        u64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    let page_bytes = if u16_at(16) == 1 { 65_536 } else { u16_at(16) };
    let wal_bytes = std::fs::metadata(beside(path, "-wal")).map_or(0, |m| m.len());
    // The page count is valid where the change counter equals the version it was valid for.
    if wal_bytes == 0 && u32_at(24) == u32_at(92) && u32_at(28) * page_bytes > len {
        return Err(OpenError::Corrupt {
            detail: format!(
                "{} has {len} bytes, its header says {}",
                path.display(),
                u32_at(28) * page_bytes
            ),
        });
    }
    Ok(())
}

/// Another program's database is not ours to migrate.
fn check_owner(conn: &Connection, version: u32) -> Result<(), OpenError> {
    let read = || -> rusqlite::Result<(i32, i64)> {
        let id = conn.pragma_query_value(None, "application_id", |r| r.get(0))?;
        let tables = conn.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0))?;
        Ok((id, tables))
    };
    let (id, tables) = read().map_err(|e| open_error(&e))?;
    if tables > 0 && id != APPLICATION_ID {
        return Err(OpenError::Other {
            detail: format!(
                "it is another program's database (application id {id}, schema {version})\n\
                 hint: `taffrail import disler` reads the old server's events.db"
            ),
        });
    }
    Ok(())
}

fn io_error(path: &Path, e: &std::io::Error) -> OpenError {
    let detail = format!("{}: {e}", path.display());
    match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => OpenError::Full { detail },
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::NotFound => OpenError::Unwritable { detail },
        _ => OpenError::Other { detail },
    }
}

/// What a SQLite error means for opening.
pub(crate) fn open_error(e: &rusqlite::Error) -> OpenError {
    let detail = e.to_string();
    match e.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Corrupt { detail },
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            OpenError::Unwritable { detail }
        }
        Some(ErrorCode::DiskFull) => OpenError::Full { detail },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            OpenError::Locked { detail }
        }
        _ => OpenError::Other { detail },
    }
}

/// What a SQLite error means for an append.
pub(crate) fn append_error(e: &rusqlite::Error) -> AppendError {
    let detail = e.to_string();
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => AppendError::DiskFull(detail),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            AppendError::Rejected(detail)
        }
        _ => AppendError::Io(detail),
    }
}

/// What a SQLite error means for another change.
pub(crate) fn write_error(e: &rusqlite::Error) -> WriteError {
    let detail = e.to_string();
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => WriteError::DiskFull(detail),
        Some(ErrorCode::ConstraintViolation) => WriteError::Conflict(detail),
        _ => WriteError::Other(detail),
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(e: rusqlite::Error) -> Self {
        match e {
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
                Self::BadRow(e.to_string())
            }
            other => Self::Sqlite(other.to_string()),
        }
    }
}
