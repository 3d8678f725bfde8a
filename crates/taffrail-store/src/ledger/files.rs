//! The table `transcript_files`: how far each transcript has been read, and where its archive is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use taffrail_event::TimestampMs;

use crate::error::ReadError;
use crate::events::to_i64;
use crate::ledger::TranscriptFile;
use crate::ledger::requests::unsigned;

const COLUMNS: &str =
    "path, session_id, agent_id, device, inode, size, modified_ns, offset, fingerprint, born, context,
    records, bad, unknown, error, gone, archive, archived_bytes, archived";

/// Stores the file's state in place of the one before.
pub(crate) fn put(conn: &Connection, file: &TranscriptFile) -> rusqlite::Result<()> {
    let ms = |at: Option<TimestampMs>| at.map(TimestampMs::get);
    conn.prepare_cached(
        "INSERT OR REPLACE INTO transcript_files (path, session_id, agent_id, device, inode, size, modified_ns, offset,
            fingerprint, born, context, records, bad, unknown, error, gone, archive, archived_bytes, archived)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    )?
    .execute(params![
        path_bytes(&file.path),
        file.session_id,
        file.agent_id,
        // Device and inode use all 64 bits.
        file.device as i64,
        file.inode as i64,
        to_i64(file.size_bytes),
        file.modified_ns,
        to_i64(file.offset),
        file.fingerprint,
        ms(file.born),
        file.context,
        to_i64(file.records),
        to_i64(file.bad),
        to_i64(file.unknown),
        file.error,
        ms(file.gone),
        file.archive,
        to_i64(file.archived_bytes),
        ms(file.archived),
    ])?;
    Ok(())
}

/// One file's state.
pub(crate) fn get(conn: &Connection, path: &Path) -> Result<Option<TranscriptFile>, ReadError> {
    let sql = format!("SELECT {COLUMNS} FROM transcript_files WHERE path = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row([path_bytes(path)], from_row).optional()?)
}

/// Every file's state, by path.
pub(crate) fn list(conn: &Connection) -> Result<Vec<TranscriptFile>, ReadError> {
    let sql = format!("SELECT {COLUMNS} FROM transcript_files ORDER BY path");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<TranscriptFile> {
    let ms = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(TimestampMs::clamped));
    let count = |column| Ok::<_, rusqlite::Error>(unsigned(row.get(column)?));
    Ok(TranscriptFile {
        path: path_of(row.get(0)?),
        session_id: row.get(1)?,
        agent_id: row.get(2)?,
        device: row.get::<_, i64>(3)? as u64,
        inode: row.get::<_, i64>(4)? as u64,
        size_bytes: count(5)?,
        modified_ns: row.get(6)?,
        offset: count(7)?,
        fingerprint: row.get(8)?,
        born: ms(9)?,
        context: row.get(10)?,
        records: count(11)?,
        bad: count(12)?,
        unknown: count(13)?,
        error: row.get(14)?,
        gone: ms(15)?,
        archive: row.get(16)?,
        archived_bytes: count(17)?,
        archived: ms(18)?,
    })
}

/// A path need not be text where the system says so.
#[cfg(unix)]
fn path_bytes(path: &Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
}

#[cfg(not(unix))]
fn path_bytes(path: &Path) -> Vec<u8> {
    path.to_string_lossy().into_owned().into_bytes()
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from(String::from_utf8_lossy(&bytes).into_owned()))
}
