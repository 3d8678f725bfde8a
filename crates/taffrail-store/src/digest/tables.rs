//! The aggregate tables: one by hour and one by day for each kind of contribution.
//!
//! A row is the sum of what sessions contributed under its key, in its bucket, at its place: the (app, user) of the sessions,
//! or all of them. A bucket of a place takes [`KEYS_MAX`] keys ([`CHAIN_KEYS_MAX`] of chains); what comes after
//! them counts under `(other)`. A row is never
//! deleted, so that a bucket that is full stays full, and what was counted under a key, or under `(other)`, is taken out
//! where it was put in.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension, params_from_iter, types::Value};
use taffrail_analytics::digest::{Contribution, HOUR_MS, Histogram, Key, Kind, OTHER};

use crate::digest::contributions::{Entry, add_counters};

/// Keys of a bucket of a place; further ones count under `(other)`.
pub const KEYS_MAX: i64 = 1_000;

/// The same of chains: almost every session has most of the frequent ones, and many that are its own.
pub const CHAIN_KEYS_MAX: i64 = 500;

const fn keys_max(kind: Kind) -> i64 {
    match kind {
        Kind::Chain => CHAIN_KEYS_MAX,
        _ => KEYS_MAX,
    }
}

/// Keys remembered by the writer; more are forgotten and read again.
const REMEMBERED_MAX: usize = 20_000;

/// The length of a day's bucket, in milliseconds.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// The place of everything.
pub(crate) const EVERYWHERE: i64 = 0;

/// The buckets' length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Grain {
    Hour,
    Day,
}

impl Grain {
    /// The length of a bucket, in milliseconds.
    pub const fn ms(self) -> i64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
        }
    }

    /// The start of the bucket of a moment.
    pub const fn bucket(self, ms: i64) -> i64 {
        ms.saturating_sub(ms.rem_euclid(self.ms()))
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Hour => "hours",
            Self::Day => "days",
        }
    }
}

/// The table of a kind.
pub(crate) fn table(kind: Kind, grain: Grain) -> String {
    format!("{}_{}", kind.name(), grain.suffix())
}

/// Adds two histograms, as [`Histogram::to_bytes`] has them; NULL is an empty one.
pub(crate) fn register(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    conn.create_scalar_function("histogram_add", 2, flags, |args| {
        let part = |at: usize| -> rusqlite::Result<Histogram> {
            match args.get_raw(at).as_blob_or_null() {
                Ok(bytes) => Histogram::from_bytes(bytes.unwrap_or_default())
                    .map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e))),
                Err(e) => Err(rusqlite::Error::UserFunctionError(Box::new(e))),
            }
        };
        let mut sum = part(0)?;
        sum.add(&part(1)?);
        Ok(bytes_of(&sum))
    })
}

fn bytes_of(histogram: &Histogram) -> Option<Vec<u8>> {
    (!histogram.is_empty()).then(|| histogram.to_bytes())
}

/// The statements of one table, put together once.
struct Statements {
    update: String,
    insert: String,
}

impl Statements {
    fn of(kind: Kind, grain: Grain) -> Self {
        let table = table(kind, grain);
        let columns = kind.counters();
        let mut sets: Vec<String> =
            columns.iter().zip(4..).map(|(column, at)| format!("{column} = {column} + ?{at}")).collect();
        let mut names = vec!["place", "bucket", "key"];
        names.extend(columns);
        if kind.histogram().is_some() {
            names.push("histogram");
            sets.push(format!("histogram = histogram_add(histogram, ?{})", names.len()));
        }
        let places: Vec<String> = (1..=names.len()).map(|at| format!("?{at}")).collect();
        let sets = sets.join(", ");
        Self {
            update: format!("UPDATE {table} SET {sets} WHERE place = ?1 AND bucket = ?2 AND key = ?3"),
            insert: format!(
                "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT DO UPDATE SET {sets}",
                names.join(", "),
                places.join(", ")
            ),
        }
    }
}

static STATEMENTS: LazyLock<HashMap<(Kind, Grain), Statements>> = LazyLock::new(|| {
    let all = Kind::ALL.iter().flat_map(|kind| [Grain::Hour, Grain::Day].map(|grain| (*kind, grain)));
    all.map(|(kind, grain)| ((kind, grain), Statements::of(kind, grain))).collect()
});

/// A bucket of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Bucket {
    kind: Kind,
    grain: Grain,
    place: i64,
    start: i64,
}

/// What a transaction adds to the aggregates.
#[derive(Default)]
pub(crate) struct Deltas(BTreeMap<(Bucket, i64), (Vec<i64>, Histogram)>);

impl Deltas {
    /// Adds to what stands at a place.
    pub(crate) fn add(&mut self, place: i64, entries: &[Entry]) {
        for entry in entries {
            for grain in [Grain::Hour, Grain::Day] {
                let bucket = Bucket { kind: entry.kind, grain, place, start: grain.bucket(entry.hour_ms) };
                let (counters, histogram) = self.0.entry((bucket, entry.key)).or_default();
                add_counters(counters, &entry.counters, 1);
                histogram.add(&entry.histogram);
            }
        }
    }

    /// Writes it.
    pub(crate) fn flush(self, conn: &Connection, keys: &mut Keys) -> rusqlite::Result<()> {
        let mut fill = Fill::default();
        for ((bucket, key), (counters, histogram)) in self.0 {
            if counters.iter().all(|value| *value == 0) && histogram.is_empty() {
                continue;
            }
            let Some(statements) = STATEMENTS.get(&(bucket.kind, bucket.grain)) else { continue };
            let row = |key: i64| {
                let figures = bucket.kind.counters().len();
                let mut values = vec![bucket.place, bucket.start, key];
                values.extend(counters.iter().copied().chain(std::iter::repeat(0)).take(figures));
                let histogram = bucket.kind.histogram().map(|_| match bytes_of(&histogram) {
                    Some(bytes) => Value::Blob(bytes),
                    None => Value::Null,
                });
                params_from_iter(values.into_iter().map(Value::Integer).chain(histogram).collect::<Vec<_>>())
            };
            if conn.prepare_cached(&statements.update)?.execute(row(key))? > 0 {
                continue;
            }
            let other = keys.other(conn, bucket.kind)?;
            let key = if key == other || fill.admit(conn, bucket)? { key } else { other };
            conn.prepare_cached(&statements.insert)?.execute(row(key))?;
        }
        fill.flush(conn)
    }
}

/// How many keys the touched buckets have.
#[derive(Default)]
struct Fill(BTreeMap<Bucket, (i64, i64)>);

impl Fill {
    /// Whether the bucket takes one more key; if so it has it now.
    fn admit(&mut self, conn: &Connection, bucket: Bucket) -> rusqlite::Result<bool> {
        let (stored, now) = match self.0.get(&bucket) {
            Some(known) => *known,
            None => {
                let stored: i64 = conn
                    .prepare_cached(
                        "SELECT keys FROM digest_fill WHERE kind = ?1 AND grain = ?2 AND place = ?3 AND bucket = ?4",
                    )?
                    .query_row(bucket_params(bucket), |row| row.get(0))
                    .optional()?
                    .unwrap_or(0);
                (stored, stored)
            }
        };
        let has_room = now < keys_max(bucket.kind);
        self.0.insert(bucket, (stored, now + i64::from(has_room)));
        Ok(has_room)
    }

    fn flush(self, conn: &Connection) -> rusqlite::Result<()> {
        for (bucket, (_, now)) in self.0.into_iter().filter(|(_, (stored, now))| stored != now) {
            let [kind, grain, place, start] = bucket_params(bucket);
            conn.prepare_cached(
                "INSERT INTO digest_fill (kind, grain, place, bucket, keys) VALUES (?1, ?2, ?3, ?4, ?5)
                    ON CONFLICT DO UPDATE SET keys = excluded.keys",
            )?
            .execute([kind, grain, place, start, now])?;
        }
        Ok(())
    }
}

const fn bucket_params(bucket: Bucket) -> [i64; 4] {
    [bucket.kind as i64, bucket.grain.ms(), bucket.place, bucket.start]
}

/// Rows of `digest_keys` and `digest_places`, remembered by the writer.
#[derive(Default)]
pub(crate) struct Keys {
    keys: HashMap<Key, i64>,
    others: HashMap<Kind, i64>,
}

impl Keys {
    /// The row under which a kind counts what has no row of its own.
    fn other(&mut self, conn: &Connection, kind: Kind) -> rusqlite::Result<i64> {
        if let Some(id) = self.others.get(&kind) {
            return Ok(*id);
        }
        let id = row_of_key(conn, &Key { kind, name: OTHER.to_owned(), ..Key::default() }, "")?;
        self.others.insert(kind, id);
        Ok(id)
    }

    fn get(&mut self, conn: &Connection, key: &Key, label: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.keys.get(key) {
            return Ok(*id);
        }
        let id = row_of_key(conn, key, label)?;
        if self.keys.len() >= REMEMBERED_MAX {
            self.keys.clear();
        }
        self.keys.insert(key.clone(), id);
        Ok(id)
    }

    /// As entries: their keys have rows after this.
    pub(crate) fn entries(
        &mut self,
        conn: &Connection,
        contributions: &[Contribution],
    ) -> rusqlite::Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(contributions.len());
        for one in contributions {
            entries.push(Entry {
                kind: one.key.kind,
                key: self.get(conn, &one.key, &one.label)?,
                // Whole hours, whatever came.
                hour_ms: Grain::Hour.bucket(one.hour_ms),
                counters: one.counters.clone(),
                histogram: one.histogram.clone(),
            });
        }
        Ok(entries)
    }
}

fn row_of_key(conn: &Connection, key: &Key, label: &str) -> rusqlite::Result<i64> {
    let found = conn
        .prepare_cached(
            "SELECT id FROM digest_keys WHERE kind = ?1 AND name = ?2 AND tool = ?3 AND detail = ?4",
        )?
        .query_row((key.kind as i64, &key.name, &key.tool, &key.detail), |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    conn.prepare_cached(
        "INSERT INTO digest_keys (kind, tool, name, detail, label) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute((key.kind as i64, &key.tool, &key.name, &key.detail, label))?;
    Ok(conn.last_insert_rowid())
}

/// The place of an app and user, made where there is none.
pub(crate) fn place_of(conn: &Connection, app: &str, user: &str) -> rusqlite::Result<i64> {
    let found = conn
        .prepare_cached("SELECT id FROM digest_places WHERE app = ?1 AND user = ?2")?
        .query_row([app, user], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    conn.prepare_cached("INSERT INTO digest_places (app, user) VALUES (?1, ?2)")?.execute([app, user])?;
    Ok(conn.last_insert_rowid())
}
