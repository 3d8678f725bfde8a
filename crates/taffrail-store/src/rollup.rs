//! The rollups: figures per minute and per hour for every scope, kept exact while events and late corrections arrive.
//!
//! A batch is summed in memory per (minute, app, user) and per (minute, app, user, tool), then spread over its
//! levels (both resolutions; this app or all, this user or all) and written with one upsert per touched row.
//! Counters are subtracted when a call's end is learned anew; a sketch cannot be, so a wall time enters it once,
//! when it is first known, and stays where it entered.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params_from_iter, types::Value as SqlValue};
use taffrail_analytics::{Resolution, Sketch};
use taffrail_event::Event;
use taffrail_event::event::{Arrival, CallStatus, FileOperationKind};

use crate::calls::Contribution;
use crate::error::ReadError;
use crate::events::is_human_prompt;
use crate::facets;

/// Sketches of the newest buckets kept decoded, so that a batch need not read what the last one wrote.
const SKETCHES_CACHED_MAX: usize = 512;

/// A scope, or `""` for all: app and user.
type ScopeKey = (String, String);

/// The counters of `rollup_minute` and `rollup_hour`, in the order of their columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    Events,
    Calls,
    Succeeded,
    Failed,
    Denied,
    Interrupted,
    Abandoned,
    DurationSum,
    DurationCount,
    Prompts,
    Compactions,
    FilesRead,
    FilesWritten,
    FilesEdited,
    FilesDeleted,
    LinesAdded,
    LinesRemoved,
    GitOperations,
    GitCommits,
    GitInsertions,
    GitDeletions,
}

/// How many counters there are.
const COUNTERS: usize = Counter::GitDeletions as usize + 1;

/// Their columns.
const COUNTER_COLUMNS: [&str; COUNTERS] = [
    "events",
    "calls",
    "succeeded",
    "failed",
    "denied",
    "interrupted",
    "abandoned",
    "duration_sum",
    "duration_count",
    "prompts",
    "compactions",
    "files_read",
    "files_written",
    "files_edited",
    "files_deleted",
    "lines_added",
    "lines_removed",
    "git_operations",
    "git_commits",
    "git_insertions",
    "git_deletions",
];

/// Those of the tables per tool: `calls` to `duration_count`.
const TOOL_COUNTERS: std::ops::Range<usize> = Counter::Calls as usize..Counter::DurationCount as usize + 1;

/// One value per counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters([i64; COUNTERS]);

impl Counters {
    pub(crate) const fn get(&self, counter: Counter) -> i64 {
        self.0[counter as usize]
    }

    pub(crate) fn set(&mut self, counter: Counter, value: i64) {
        self.0[counter as usize] = value;
    }

    pub(crate) fn add(&mut self, counter: Counter, by: i64) {
        self.0[counter as usize] += by;
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum += value;
        }
    }

    fn is_zero(&self) -> bool {
        self.0.iter().all(|value| *value == 0)
    }

    /// Counts a call that ended, or with `by` -1 takes it back.
    pub(crate) fn add_call(&mut self, call: &Contribution, by: i64) {
        let status = match call.status {
            CallStatus::Abandoned => {
                self.add(Counter::Abandoned, by);
                return;
            }
            CallStatus::Succeeded => Some(Counter::Succeeded),
            CallStatus::Failed => Some(Counter::Failed),
            CallStatus::Denied => Some(Counter::Denied),
            CallStatus::Interrupted => Some(Counter::Interrupted),
            CallStatus::Ended | CallStatus::Running => None,
        };
        self.add(Counter::Calls, by);
        if let Some(counter) = status {
            self.add(counter, by);
        }
        if let Some(duration) = call.duration_ms {
            self.add(Counter::DurationSum, by * duration);
            self.add(Counter::DurationCount, by);
        }
    }

    pub(crate) fn add_event(&mut self, event: &Event) {
        self.add(Counter::Events, 1);
        self.add(Counter::Prompts, i64::from(is_human_prompt(event)));
        self.add(Counter::Compactions, i64::from(event.metrics.compression_events.unwrap_or(0)));
        for operation in &event.file_operations {
            let kind = match operation.kind {
                FileOperationKind::Read => Counter::FilesRead,
                FileOperationKind::Write => Counter::FilesWritten,
                FileOperationKind::Edit => Counter::FilesEdited,
                FileOperationKind::Delete => Counter::FilesDeleted,
            };
            self.add(kind, 1);
            self.add(Counter::LinesAdded, i64::from(operation.lines_added.unwrap_or(0)));
            self.add(Counter::LinesRemoved, i64::from(operation.lines_removed.unwrap_or(0)));
        }
        for operation in &event.git_operations {
            self.add(Counter::GitOperations, 1);
            self.add(
                Counter::GitCommits,
                i64::from(operation.subcommand == "commit" && operation.commit.is_some()),
            );
            self.add(Counter::GitInsertions, i64::from(operation.insertions.unwrap_or(0)));
            self.add(Counter::GitDeletions, i64::from(operation.deletions.unwrap_or(0)));
        }
    }
}

/// What a batch adds to one row.
#[derive(Clone, Debug, Default)]
struct Delta {
    counters: Counters,
    durations: Vec<f64>,
    latencies: Vec<f64>,
}

impl Delta {
    fn merge(&mut self, other: &Self) {
        self.counters.add_all(&other.counters);
        self.durations.extend_from_slice(&other.durations);
        self.latencies.extend_from_slice(&other.latencies);
    }

    fn is_empty(&self) -> bool {
        self.counters.is_zero() && self.durations.is_empty() && self.latencies.is_empty()
    }
}

/// What a batch adds, before it is spread over the levels.
#[derive(Default)]
pub(crate) struct Deltas {
    scopes: BTreeMap<(ScopeKey, i64), Delta>,
    tools: BTreeMap<(ScopeKey, i64, String), Delta>,
    errors: BTreeMap<(ScopeKey, i64, &'static str), i64>,
    facets: facets::Counts,
}

impl Deltas {
    /// Counts an event that is new.
    pub(crate) fn add_event(&mut self, event: &Event, committed_ms: i64) {
        self.facets.add(event);
        let key = ((event.app.clone(), event.user.clone().unwrap_or_default()), minute_of(event.ts.get()));
        if let Some(error) = crate::events::own_error(event) {
            *self.errors.entry((key.0.clone(), key.1, error.class)).or_default() += 1;
        }
        let delta = self.scopes.entry(key).or_default();
        delta.counters.add_event(event);
        if event.arrival == Arrival::Live {
            delta.latencies.push((committed_ms - event.ts.get()).max(0) as f64);
        }
    }

    /// Counts compactions that no event tells of.
    pub(crate) fn add_compactions(&mut self, scope: ScopeKey, minute: i64, by: i64) {
        self.scopes.entry((scope, minute)).or_default().counters.add(Counter::Compactions, by);
    }

    /// Replaces what a call adds.
    pub(crate) fn change_call(&mut self, old: Option<&Contribution>, new: Option<&Contribution>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.add_call(old, -1);
        }
        if let Some(new) = new {
            let first_known = old.is_none_or(|old| old.duration_ms.is_none());
            let (scope, tool) = self.add_call(new, 1);
            if let (Some(duration), true) = (new.duration_ms, first_known) {
                scope.durations.push(duration as f64);
                tool.durations.push(duration as f64);
            }
        }
    }

    fn add_call(&mut self, call: &Contribution, by: i64) -> (&mut Delta, &mut Delta) {
        let key = (call.app.clone(), call.user.clone());
        let minute = minute_of(call.ended);
        let tool = self.tools.entry((key.clone(), minute, call.tool.clone())).or_default();
        let scope = self.scopes.entry((key, minute)).or_default();
        scope.counters.add_call(call, by);
        tool.counters.add_call(call, by);
        (scope, tool)
    }

    /// Writes every touched row once.
    pub(crate) fn flush(self, conn: &Connection, sketches: &mut SketchCache) -> rusqlite::Result<()> {
        self.facets.flush(conn)?;
        let scopes = spread(self.scopes.iter().map(|((scope, minute), delta)| (scope, *minute, (), delta)));
        for ((length, scope, bucket, ()), delta) in &scopes {
            upsert_scope(conn, sketches, *length, scope, *bucket, delta)?;
        }
        let tools =
            self.tools.iter().map(|((scope, minute, tool), delta)| (scope, *minute, tool.clone(), delta));
        for ((length, scope, bucket, tool), delta) in &spread(tools) {
            upsert_tool(conn, sketches, *length, scope, *bucket, tool, delta)?;
        }
        sketches.trim();
        flush_errors(conn, &self.errors)
    }
}

/// The first millisecond of that minute.
pub(crate) fn minute_of(ms: i64) -> i64 {
    bucket_of(Resolution::Minute, ms)
}

fn bucket_of(resolution: Resolution, ms: i64) -> i64 {
    ms - ms.rem_euclid(resolution.ms())
}

/// The levels a figure counts at: its own app and user, and all.
fn levels(scope: &ScopeKey) -> Vec<ScopeKey> {
    let (app, user) = scope;
    let mut levels = vec![
        (String::new(), String::new()),
        (app.clone(), String::new()),
        (String::new(), user.clone()),
        (app.clone(), user.clone()),
    ];
    levels.sort();
    levels.dedup();
    levels
}

/// Minute, then hour, by the order of their lengths.
type Level<T> = (Length, ScopeKey, i64, T);

/// A resolution that can be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Length {
    Minute,
    Hour,
}

impl Length {
    const ALL: [Self; 2] = [Self::Minute, Self::Hour];

    const fn resolution(self) -> Resolution {
        match self {
            Self::Minute => Resolution::Minute,
            Self::Hour => Resolution::Hour,
        }
    }

    const fn scope_table(self) -> &'static str {
        match self {
            Self::Minute => "rollup_minute",
            Self::Hour => "rollup_hour",
        }
    }

    const fn tool_table(self) -> &'static str {
        match self {
            Self::Minute => "rollup_tool_minute",
            Self::Hour => "rollup_tool_hour",
        }
    }
}

fn spread<'d, T: Ord + Clone>(
    deltas: impl Iterator<Item = (&'d ScopeKey, i64, T, &'d Delta)>,
) -> BTreeMap<Level<T>, Delta> {
    let mut spread: BTreeMap<Level<T>, Delta> = BTreeMap::new();
    for (scope, minute, rest, delta) in deltas.filter(|(.., delta)| !delta.is_empty()) {
        for level in levels(scope) {
            for length in Length::ALL {
                let bucket = bucket_of(length.resolution(), minute);
                spread.entry((length, level.clone(), bucket, rest.clone())).or_default().merge(delta);
            }
        }
    }
    spread
}

fn upsert_scope(
    conn: &Connection,
    sketches: &mut SketchCache,
    length: Length,
    scope: &ScopeKey,
    bucket: i64,
    delta: &Delta,
) -> rusqlite::Result<()> {
    let key = |kind| SketchKey { length, scope: scope.clone(), bucket, tool: None, kind };
    let duration = sketches.grow(conn, key(SketchKind::Duration), &delta.durations)?;
    let latency = sketches.grow(conn, key(SketchKind::Latency), &delta.latencies)?;
    let mut values: Vec<SqlValue> = vec![scope.0.clone().into(), scope.1.clone().into(), bucket.into()];
    values.extend(delta.counters.0.iter().map(|value| SqlValue::from(*value)));
    values.push(duration.into());
    values.push(latency.into());
    let sql = match length {
        Length::Minute => SQL.scope_minute.as_str(),
        Length::Hour => SQL.scope_hour.as_str(),
    };
    conn.prepare_cached(sql)?.execute(params_from_iter(values))?;
    Ok(())
}

fn upsert_tool(
    conn: &Connection,
    sketches: &mut SketchCache,
    length: Length,
    scope: &ScopeKey,
    bucket: i64,
    tool: &str,
    delta: &Delta,
) -> rusqlite::Result<()> {
    let key = SketchKey {
        length,
        scope: scope.clone(),
        bucket,
        tool: Some(tool.to_owned()),
        kind: SketchKind::Duration,
    };
    let duration = sketches.grow(conn, key, &delta.durations)?;
    let mut values: Vec<SqlValue> =
        vec![scope.0.clone().into(), scope.1.clone().into(), bucket.into(), tool.to_owned().into()];
    values.extend(delta.counters.0[TOOL_COUNTERS].iter().map(|value| SqlValue::from(*value)));
    values.push(duration.into());
    let sql = match length {
        Length::Minute => SQL.tool_minute.as_str(),
        Length::Hour => SQL.tool_hour.as_str(),
    };
    conn.prepare_cached(sql)?.execute(params_from_iter(values))?;
    Ok(())
}

/// The upserts, put together once.
struct Upserts {
    scope_minute: String,
    scope_hour: String,
    tool_minute: String,
    tool_hour: String,
}

static SQL: std::sync::LazyLock<Upserts> = std::sync::LazyLock::new(|| {
    let scope = |length: Length| {
        upsert_sql(
            length.scope_table(),
            &["app", "user", "bucket"],
            &COUNTER_COLUMNS,
            &["duration_sketch", "latency_sketch"],
        )
    };
    let tool = |length: Length| {
        let keys = ["app", "user", "bucket", "tool"];
        upsert_sql(length.tool_table(), &keys, &COUNTER_COLUMNS[TOOL_COUNTERS], &["duration_sketch"])
    };
    Upserts {
        scope_minute: scope(Length::Minute),
        scope_hour: scope(Length::Hour),
        tool_minute: tool(Length::Minute),
        tool_hour: tool(Length::Hour),
    }
});

fn upsert_sql(table: &str, keys: &[&str], counters: &[&str], sketches: &[&str]) -> String {
    let columns = [keys, counters, sketches].concat();
    let places: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
    let sums = counters.iter().map(|c| format!("{c} = {c} + excluded.{c}"));
    let blobs = sketches.iter().map(|c| format!("{c} = coalesce(excluded.{c}, {c})"));
    let set: Vec<String> = sums.chain(blobs).collect();
    format!(
        "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
        columns.join(", "),
        places.join(", "),
        keys.join(", "),
        set.join(", ")
    )
}

fn flush_errors(
    conn: &Connection,
    errors: &BTreeMap<(ScopeKey, i64, &'static str), i64>,
) -> rusqlite::Result<()> {
    let mut spread: BTreeMap<(i64, ScopeKey, i64, &str), i64> = BTreeMap::new();
    for ((scope, minute, class), count) in errors {
        for level in levels(scope) {
            for length in Length::ALL {
                let resolution = length.resolution();
                let key = (resolution.ms(), level.clone(), bucket_of(resolution, *minute), *class);
                *spread.entry(key).or_default() += count;
            }
        }
    }
    let mut statement = conn.prepare_cached(
        "INSERT INTO rollup_errors (resolution, app, user, bucket, class, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT (resolution, app, user, bucket, class) DO UPDATE SET count = count + excluded.count",
    )?;
    for ((resolution, (app, user), bucket, class), count) in &spread {
        statement.execute((resolution, app, user, bucket, class, count))?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum SketchKind {
    Duration,
    Latency,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SketchKey {
    length: Length,
    scope: ScopeKey,
    bucket: i64,
    tool: Option<String>,
    kind: SketchKind,
}

/// Decoded sketches of rows written lately. Cleared when a transaction is rolled back.
#[derive(Default)]
pub(crate) struct SketchCache {
    sketches: HashMap<SketchKey, Sketch>,
}

impl SketchCache {
    /// Adds values to the row's sketch; its new bytes, or none where nothing was added.
    fn grow(
        &mut self,
        conn: &Connection,
        key: SketchKey,
        values: &[f64],
    ) -> rusqlite::Result<Option<Vec<u8>>> {
        if values.is_empty() {
            return Ok(None);
        }
        let sketch = match self.sketches.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let stored = stored_sketch(conn, entry.key())?;
                entry.insert(stored)
            }
        };
        for value in values {
            sketch.add(*value);
        }
        Ok(Some(sketch.to_bytes()))
    }

    pub(crate) fn clear(&mut self) {
        self.sketches.clear();
    }

    /// Keeps the newest buckets.
    fn trim(&mut self) {
        if self.sketches.len() <= SKETCHES_CACHED_MAX {
            return;
        }
        let newest = self.sketches.keys().map(|key| key.bucket).max().unwrap_or(0);
        self.sketches.retain(|key, _| key.bucket >= bucket_of(key.length.resolution(), newest));
        if self.sketches.len() > SKETCHES_CACHED_MAX {
            self.sketches.clear();
        }
    }
}

/// The row's sketch; a new one where there is none, or where its bytes are damaged (said loudly, not fatal).
fn stored_sketch(conn: &Connection, key: &SketchKey) -> rusqlite::Result<Sketch> {
    let (app, user) = &key.scope;
    let column = match key.kind {
        SketchKind::Duration => "duration_sketch",
        SketchKind::Latency => "latency_sketch",
    };
    let blob: Option<Option<Vec<u8>>> = match &key.tool {
        None => {
            let table = key.length.scope_table();
            let sql = format!("SELECT {column} FROM {table} WHERE app = ?1 AND user = ?2 AND bucket = ?3");
            conn.prepare_cached(&sql)?.query_row((app, user, key.bucket), |row| row.get(0)).optional()?
        }
        Some(tool) => {
            let table = key.length.tool_table();
            let sql = format!(
                "SELECT {column} FROM {table} WHERE app = ?1 AND user = ?2 AND bucket = ?3 AND tool = ?4"
            );
            conn.prepare_cached(&sql)?
                .query_row((app, user, key.bucket, tool), |row| row.get(0))
                .optional()?
        }
    };
    let Some(bytes) = blob.flatten() else { return Ok(Sketch::new()) };
    Ok(Sketch::from_bytes(&bytes).unwrap_or_else(|e| {
        tracing::error!(error = %e, bucket = key.bucket, "a stored sketch is damaged and begins anew");
        Sketch::new()
    }))
}

/// A half-open range of buckets of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    length: Length,
    from: i64,
    to: i64,
}

/// The buckets that make up a range: hours where whole ones lie in it, minutes at its edges.
pub(crate) fn segments(from: i64, to: i64) -> Vec<Segment> {
    let hour = Resolution::Hour;
    let first_hour = bucket_of(hour, from + hour.ms() - 1);
    let last_hour = bucket_of(hour, to);
    if first_hour >= last_hour {
        return vec![Segment { length: Length::Minute, from, to }];
    }
    let all = [
        Segment { length: Length::Minute, from, to: first_hour },
        Segment { length: Length::Hour, from: first_hour, to: last_hour },
        Segment { length: Length::Minute, from: last_hour, to },
    ];
    all.into_iter().filter(|segment| segment.from < segment.to).collect()
}

/// The buckets of a range, in one resolution.
pub(crate) fn segment(resolution: Resolution, from: i64, to: i64) -> Segment {
    let length = match resolution {
        Resolution::Minute => Length::Minute,
        Resolution::Hour => Length::Hour,
    };
    Segment { length, from, to }
}

/// One row of `rollup_minute` or `rollup_hour`.
pub(crate) struct ScopeRow<'r> {
    pub(crate) bucket: i64,
    pub(crate) counters: Counters,
    /// A sketch as it is stored: see [`merge_stored`].
    pub(crate) durations: Option<&'r [u8]>,
    pub(crate) latencies: Option<&'r [u8]>,
}

/// Whether rows come with their sketches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sketches {
    Both,
    Durations,
    None,
}

/// The rows of a scope in a segment.
pub(crate) fn scope_rows(
    conn: &Connection,
    scope: (&str, &str),
    segment: Segment,
    sketches: Sketches,
    mut each: impl FnMut(ScopeRow<'_>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let blobs = match sketches {
        Sketches::Both => "duration_sketch, latency_sketch",
        Sketches::Durations => "duration_sketch, NULL",
        Sketches::None => "NULL, NULL",
    };
    let sql = format!(
        "SELECT bucket, {}, {blobs} FROM {} WHERE app = ?1 AND user = ?2 AND bucket >= ?3 AND bucket < ?4 ORDER BY bucket",
        COUNTER_COLUMNS.join(", "),
        segment.length.scope_table()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((scope.0, scope.1, segment.from, segment.to))?;
    while let Some(row) = rows.next()? {
        let mut counters = Counters::default();
        for (index, value) in counters.0.iter_mut().enumerate() {
            *value = row.get(index + 1)?;
        }
        each(ScopeRow {
            bucket: row.get(0)?,
            counters,
            durations: blob_at(row, COUNTERS + 1)?,
            latencies: blob_at(row, COUNTERS + 2)?,
        })?;
    }
    Ok(())
}

/// What one tool did in some segments.
#[derive(Default)]
pub(crate) struct ToolSum {
    pub(crate) counters: Counters,
    pub(crate) durations: Sketch,
}

/// Adds up the rows per tool of a scope in a segment.
pub(crate) fn add_tools(
    conn: &Connection,
    scope: (&str, &str),
    segment: Segment,
    sums: &mut BTreeMap<String, ToolSum>,
) -> Result<(), ReadError> {
    let sql = format!(
        "SELECT tool, {}, duration_sketch FROM {} WHERE app = ?1 AND user = ?2 AND bucket >= ?3 AND bucket < ?4",
        COUNTER_COLUMNS[TOOL_COUNTERS].join(", "),
        segment.length.tool_table()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((scope.0, scope.1, segment.from, segment.to))?;
    while let Some(row) = rows.next()? {
        let sum = sums.entry(row.get(0)?).or_default();
        let mut counters = Counters::default();
        for (index, value) in counters.0[TOOL_COUNTERS].iter_mut().enumerate() {
            *value = row.get(index + 1)?;
        }
        sum.counters.add_all(&counters);
        merge_stored(&mut sum.durations, blob_at(row, TOOL_COUNTERS.len() + 1)?)?;
    }
    Ok(())
}

/// Adds up the failures by class of a scope in a segment.
pub(crate) fn add_errors(
    conn: &Connection,
    scope: (&str, &str),
    segment: Segment,
    sums: &mut BTreeMap<String, i64>,
) -> Result<(), ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT class, sum(count) FROM rollup_errors
            WHERE resolution = ?1 AND app = ?2 AND user = ?3 AND bucket >= ?4 AND bucket < ?5 GROUP BY class",
    )?;
    let resolution = segment.length.resolution().ms();
    let mut rows = statement.query((resolution, scope.0, scope.1, segment.from, segment.to))?;
    while let Some(row) = rows.next()? {
        *sums.entry(row.get(0)?).or_default() += row.get::<_, i64>(1)?;
    }
    Ok(())
}

fn blob_at<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> Result<Option<&'r [u8]>, ReadError> {
    row.get_ref(column)?.as_blob_or_null().map_err(|e| ReadError::BadRow(e.to_string()))
}

/// Adds what a stored sketch holds, if there is one.
pub(crate) fn merge_stored(sketch: &mut Sketch, stored: Option<&[u8]>) -> Result<(), ReadError> {
    let merged = stored.map_or(Ok(()), |bytes| sketch.merge_bytes(bytes));
    merged.map_err(|e| ReadError::BadRow(e.to_string()))
}
