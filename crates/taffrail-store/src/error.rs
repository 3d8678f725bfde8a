//! What can go wrong, one type per kind of call.

use taffrail_event::Event;

/// Why a database could not be opened. Whatever it is, the file is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer taffrail wrote it.
    #[error(
        "the database has schema {found}, this taffrail knows up to {known}\n\
         hint: use the newer taffrail, or go back with its `taffrail migrate down --to {known}`"
    )]
    Newer {
        /// Its schema version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// It is no database, or a damaged one.
    #[error(
        "the database is damaged: {detail}\nhint: stop what uses it, move the file aside and start again; `sqlite3 FILE .recover` reads what is left of it"
    )]
    Corrupt {
        /// SQLite's word.
        detail: String,
    },
    /// The file or its directory cannot be written, or is no file.
    #[error(
        "the database cannot be written: {detail}\nhint: check owner and permissions of the data directory, or choose another with --data-dir"
    )]
    Unwritable {
        /// SQLite's or the system's word.
        detail: String,
    },
    /// The disk is full.
    #[error(
        "the disk is full: {detail}\nhint: free space on the disk of the data directory, or choose another with --data-dir"
    )]
    Full {
        /// SQLite's word.
        detail: String,
    },
    /// Another process holds it.
    #[error(
        "the database is in use: {detail}\nhint: another taffrail may be running on this data directory; `taffrail health` tells"
    )]
    Locked {
        /// SQLite's word.
        detail: String,
    },
    /// Anything else.
    #[error("the database cannot be opened: {detail}")]
    Other {
        /// SQLite's word.
        detail: String,
    },
}

/// The queue before the writer is full; here are the events back, none of them was taken.
#[derive(Debug, thiserror::Error)]
#[error("the store's queue is full ({} events refused)", events.len())]
pub struct QueueFull {
    /// What was to be stored.
    pub events: Vec<Event>,
}

/// Why events were not stored. Nothing of that submission is in the database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full: try again shortly.
    #[error("the store's queue is full")]
    QueueFull,
    /// The disk is full.
    #[error("the disk is full: {0}\nhint: free space on the disk of the data directory")]
    DiskFull(String),
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Io(String),
    /// One of the submitted events cannot be stored; others of the same group were.
    #[error("the event cannot be stored: {0}")]
    Rejected(String),
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

/// Why a change other than an append was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The disk is full.
    #[error("the disk is full: {0}\nhint: free space on the disk of the data directory")]
    DiskFull(String),
    /// A unique value is taken; the text names the column.
    #[error("already exists: {0}")]
    Conflict(String),
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
    /// Anything else.
    #[error("the change was not stored: {0}")]
    Other(String),
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// SQLite failed.
    #[error("the database could not be read: {0}")]
    Sqlite(String),
    /// A row holds what this version did not write.
    #[error("a stored row cannot be read: {0}")]
    BadRow(String),
}

/// Why a migration failed; the database is at the version it had before the failed step.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Opening failed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The asked version does not exist.
    #[error("there is no schema version {asked}; known are 0 to {known}")]
    UnknownVersion {
        /// What was asked for.
        asked: u32,
        /// The newest known.
        known: u32,
    },
    /// A step failed and was rolled back.
    #[error("migration step {version} {name} failed and was rolled back: {detail}")]
    Step {
        /// The step.
        version: u32,
        /// Its name.
        name: &'static str,
        /// SQLite's word.
        detail: String,
    },
}
