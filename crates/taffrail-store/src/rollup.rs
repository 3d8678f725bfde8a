//! The rollups: figures per 2 seconds, minute, hour and day for every scope, kept exact while events and late corrections
//! arrive.
//!
//! A batch is summed in memory per (app, user, minute), and per tool and type of agent in those, then spread over its
//! levels (this app or all, this user or all; minute and hour) and written with one upsert per touched row. What a call
//! counted for is taken back when it is learned anew, from counters and sketches alike.
//!
//! Rows of a day are made of those of its hours, after it is over and nothing came for it for a minute; what comes later
//! opens it again until it is quiet once more, and its hours are read meanwhile. Rows of [`FINE_MS`] are for the histories of
//! the short windows: they are kept for [`FINE_KEPT_MS`], and what is older when it comes is not written there. So an import
//! pays for neither. `rollup_days` says which days are closed, `rollup_state` from when on the fine rows are all there.
//!
//! Limits: [`Kind::max`] names of apps, users, tools, types of agents and branches have rows of their own; what comes beyond
//! counts as [`OTHER`], for ever, so that it is taken back where it was counted. A name over [`NAME_BYTES_MAX`] is cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension, Statement, params};
use taffrail_analytics::sketch::{Edits, Slot};
use taffrail_analytics::{Resolution, Sketch};
use taffrail_event::Event;
use taffrail_event::event::{Arrival, CallStatus, FileOperationKind};

use crate::calls::Contribution;
use crate::error::ReadError;
use crate::events::is_human_prompt;
use crate::facets;

/// The length of the finest rollups, in milliseconds.
pub(crate) const FINE_MS: i64 = Resolution::Fine.ms();

/// For how long they are kept at least, in milliseconds: the history of the longest short window, and some.
pub(crate) const FINE_KEPT_MS: i64 = 20 * 60_000;

/// How much older they become before they are deleted.
const FINE_SLACK_MS: i64 = 4 * 60_000;

const DAY_MS: i64 = 86_400_000;

/// A call longer than this counts as this long (31 years), so that no sum of them overflows.
pub(crate) const DURATION_MS_MAX: i64 = 1_000_000_000_000;

/// Bytes of a name in a rollup's key; a longer one keeps its head and a hash.
pub(crate) const NAME_BYTES_MAX: usize = 200;

/// The name under which counts what comes after the limit of names.
pub(crate) const OTHER: &str = "(other)";

/// What has a limited number of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    App,
    User,
    Tool,
    Agent,
    Branch,
    /// Of failures: a closed set, which needs no admission.
    Class,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::User => "user",
            Self::Tool => "tool",
            Self::Agent => "agent",
            Self::Branch => "branch",
            Self::Class => "class",
        }
    }

    /// Names of that kind, at most.
    pub(crate) const fn max(self) -> i64 {
        match self {
            Self::App | Self::User => 2_000,
            Self::Tool => 1_000,
            Self::Agent => 500,
            Self::Branch => 5_000,
            Self::Class => i64::MAX,
        }
    }
}

/// The name as keys have it.
pub(crate) fn fit(name: &str) -> std::borrow::Cow<'_, str> {
    if name.len() <= NAME_BYTES_MAX {
        return name.into();
    }
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut end = NAME_BYTES_MAX - 20;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…{hash:016x}", &name[..end]).into()
}

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

/// Those of the tables per tool and per type of agent: `calls` to `duration_count`.
const CALL_COUNTERS: std::ops::Range<usize> = Counter::Calls as usize..Counter::DurationCount as usize + 1;

/// One value per counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters(pub(crate) [i64; COUNTERS]);

impl Counters {
    pub(crate) const fn get(&self, counter: Counter) -> i64 {
        self.0[counter as usize]
    }

    pub(crate) fn set(&mut self, counter: Counter, value: i64) {
        self.0[counter as usize] = value;
    }

    pub(crate) fn add(&mut self, counter: Counter, by: i64) {
        self.0[counter as usize] = self.0[counter as usize].saturating_add(by);
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(value);
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
        if let Some(duration) = call.known_ms() {
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
    durations: Edits,
    latencies: Edits,
}

impl Delta {
    fn merge(&mut self, other: &Self) {
        self.counters.add_all(&other.counters);
        self.durations.append(&other.durations);
        self.latencies.append(&other.latencies);
    }

    fn is_empty(&self) -> bool {
        self.counters.is_zero() && self.durations.is_empty() && self.latencies.is_empty()
    }

    fn add_call(&mut self, call: &Contribution, slot: Option<Slot>, by: i64) {
        self.counters.add_call(call, by);
        match slot {
            Some(slot) if by > 0 => self.durations.put(slot),
            Some(slot) => self.durations.take(slot),
            None => {}
        }
    }
}

/// The tables of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    Scope,
    Tool,
    Agent,
}

impl Family {
    /// The column that tells its rows apart within a bucket.
    const fn column(self) -> Option<&'static str> {
        match self {
            Self::Scope => None,
            Self::Tool => Some("tool"),
            Self::Agent => Some("agent"),
        }
    }

    const fn kind(self) -> Option<Kind> {
        match self {
            Self::Scope => None,
            Self::Tool => Some(Kind::Tool),
            Self::Agent => Some(Kind::Agent),
        }
    }

    fn counters(self) -> std::ops::Range<usize> {
        if self == Self::Scope { 0..COUNTERS } else { CALL_COUNTERS }
    }
}

/// A resolution that can be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Length {
    Fine,
    Minute,
    Hour,
    Day,
}

impl Length {
    const ALL: [Self; 4] = [Self::Fine, Self::Minute, Self::Hour, Self::Day];

    pub(crate) const fn ms(self) -> i64 {
        match self {
            Self::Fine => FINE_MS,
            Self::Minute => Resolution::Minute.ms(),
            Self::Hour => Resolution::Hour.ms(),
            Self::Day => DAY_MS,
        }
    }

    const fn bucket_of(self, ms: i64) -> i64 {
        ms - ms.rem_euclid(self.ms())
    }

    /// Tools and agents have no fine rows: their histories in the short windows are read from calls.
    const fn table(self, family: Family) -> &'static str {
        match (family, self) {
            (Family::Scope, Self::Fine) => "rollup_fine",
            (Family::Scope, Self::Minute) => "rollup_minute",
            (Family::Scope, Self::Hour) => "rollup_hour",
            (Family::Scope, Self::Day) => "rollup_day",
            (Family::Tool, Self::Fine | Self::Minute) => "rollup_tool_minute",
            (Family::Tool, Self::Hour) => "rollup_tool_hour",
            (Family::Tool, Self::Day) => "rollup_tool_day",
            (Family::Agent, Self::Fine | Self::Minute) => "rollup_agent_minute",
            (Family::Agent, Self::Hour) => "rollup_agent_hour",
            (Family::Agent, Self::Day) => "rollup_agent_day",
        }
    }
}

/// The first millisecond of that minute.
pub(crate) fn minute_of(ms: i64) -> i64 {
    Length::Minute.bucket_of(ms)
}

/// Names of one batch, by number.
#[derive(Default)]
struct Interner {
    ids: HashMap<String, u32>,
    names: Vec<String>,
}

impl Interner {
    fn id(&mut self, name: &str) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.ids.insert(name.to_owned(), id);
        self.names.push(name.to_owned());
        id
    }
}

/// A row's key; names by number. In the families of one row a bucket the last is [`NO_NAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct RowKey {
    family: Family,
    length: Length,
    app: u32,
    user: u32,
    name: u32,
    bucket: i64,
}

const NO_NAME: u32 = u32::MAX;

/// A count of a class of failure or of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct CountKey {
    is_branch: bool,
    app: u32,
    user: u32,
    minute: i64,
    name: u32,
}

/// What a batch adds, before it is spread over the levels.
#[derive(Default)]
pub(crate) struct Deltas {
    names: Interner,
    /// By minute, and by fine bucket.
    rows: HashMap<RowKey, Delta>,
    counts: HashMap<CountKey, i64>,
    facets: facets::Counts,
    /// When it commits; none where that is not told, and then no day is closed and no fine row deleted.
    now: Option<i64>,
    /// Something was too old for the fine rows.
    has_skipped: bool,
}

impl Deltas {
    /// What a transaction adds that commits at `now_ms`.
    pub(crate) fn new(now_ms: i64) -> Self {
        Self { now: Some(now_ms), ..Self::default() }
    }

    /// Counts an event that is new.
    pub(crate) fn add_event(&mut self, event: &Event, committed_ms: i64) {
        self.facets.add(event);
        let ts = event.ts.get();
        let scope = (self.names.id(&event.app), self.names.id(event.user.as_deref().unwrap_or("")));
        if let Some(error) = crate::events::own_error(event) {
            let name = self.names.id(error.class);
            self.count(scope, ts, name, false, 1);
        }
        for branch in event.git_operations.iter().filter_map(|operation| operation.branch.as_deref()) {
            let name = self.names.id(branch);
            self.count(scope, ts, name, true, 1);
        }
        let mut delta = Delta::default();
        delta.counters.add_event(event);
        if event.arrival == Arrival::Live
            && let Some(slot) = Slot::of((committed_ms - ts).max(0) as f64)
        {
            delta.latencies.put(slot);
        }
        self.merge(Family::Scope, scope, NO_NAME, ts, |row| row.merge(&delta));
    }

    /// Counts compactions that no event tells of; their fine row is the first of the minute.
    pub(crate) fn add_compactions(&mut self, (app, user): (&str, &str), minute: i64, by: i64) {
        let scope = (self.names.id(app), self.names.id(user));
        self.merge(Family::Scope, scope, NO_NAME, minute, |row| row.counters.add(Counter::Compactions, by));
    }

    /// Replaces what a call adds.
    pub(crate) fn change_call(&mut self, old: Option<&Contribution>, new: Option<&Contribution>) {
        if old == new {
            return;
        }
        for (call, by) in [(old, -1), (new, 1)] {
            if let Some(call) = call {
                self.add_call(call, by);
            }
        }
    }

    fn add_call(&mut self, call: &Contribution, by: i64) {
        let slot = call.known_ms().and_then(|ms| Slot::of(ms as f64));
        let scope = (self.names.id(&call.app), self.names.id(&call.user));
        let (tool, agent) = (self.names.id(&call.tool), self.names.id(&call.agent));
        for (family, name) in [(Family::Scope, NO_NAME), (Family::Tool, tool), (Family::Agent, agent)] {
            self.merge(family, scope, name, call.ended, |row| row.add_call(call, slot, by));
        }
    }

    fn count(&mut self, (app, user): (u32, u32), ts: i64, name: u32, is_branch: bool, by: i64) {
        let key = CountKey { is_branch, app, user, minute: minute_of(ts), name };
        *self.counts.entry(key).or_default() += by;
    }

    fn merge(
        &mut self,
        family: Family,
        (app, user): (u32, u32),
        name: u32,
        ts: i64,
        add: impl Fn(&mut Delta),
    ) {
        let key = |length: Length| RowKey { family, length, app, user, name, bucket: length.bucket_of(ts) };
        add(self.rows.entry(key(Length::Minute)).or_default());
        if family != Family::Scope {
            return;
        }
        match self.now {
            Some(now) if ts >= now - FINE_KEPT_MS => add(self.rows.entry(key(Length::Fine)).or_default()),
            _ => self.has_skipped = true,
        }
    }

    /// Notes which days were touched, closes one that is quiet, and says from when on the fine rows are whole.
    fn settle(&self, conn: &Connection) -> rusqlite::Result<i64> {
        let minutes = self.rows.keys().map(|key| key.bucket).chain(self.counts.keys().map(|key| key.minute));
        let days: BTreeSet<i64> = minutes.map(|minute| Length::Day.bucket_of(minute)).collect();
        for day in days {
            conn.prepare_cached(
                "INSERT INTO rollup_days (day, touched, closed) VALUES (?1, ?2, 0)
                    ON CONFLICT (day) DO UPDATE SET touched = excluded.touched, closed = 0",
            )?
            .execute([day, self.now.unwrap_or(0)])?;
        }
        let before = fine_since(conn)?;
        let mut since = before;
        if let Some(now) = self.now {
            close_day(conn, now, QUIET_MS)?;
            since = prune_fine(conn, since, now)?;
            if self.has_skipped {
                since = since.max(Length::Fine.bucket_of(now - FINE_KEPT_MS) + FINE_MS);
            }
        } else if self.has_skipped {
            // Without a clock it is not known whether the fine rows should have had it: all of its time is left to the rows.
            let newest = self.rows.keys().map(|key| key.bucket).max().unwrap_or(i64::MIN);
            since = since.max(newest.saturating_add(Length::Minute.ms()));
        }
        if since != before {
            conn.prepare_cached("UPDATE rollup_state SET fine_since = ?1")?.execute([since])?;
        }
        Ok(since)
    }

    /// Writes every touched row once; the caller commits.
    pub(crate) fn flush(self, conn: &Connection, memory: &mut Memory) -> rusqlite::Result<()> {
        if self.rows.is_empty() && self.counts.is_empty() {
            return self.facets.flush(conn);
        }
        let fine_since = self.settle(conn)?;
        self.facets.flush(conn)?;
        let mut admitted = Admitted::new(&self.names, memory);
        let mut spread: HashMap<RowKey, Delta> = HashMap::with_capacity(self.rows.len() * 4);
        for (key, delta) in self.rows.iter().filter(|(_, delta)| !delta.is_empty()) {
            let scope = admitted.scope(conn, (key.app, key.user))?;
            let name = match key.family.kind() {
                Some(kind) => admitted.id(conn, kind, key.name)?,
                None => NO_NAME,
            };
            let lengths: &[Length] = match key.length {
                Length::Fine if key.bucket < fine_since => &[],
                Length::Fine => &[Length::Fine],
                _ => &[Length::Minute, Length::Hour],
            };
            for (app, user) in levels(scope) {
                for length in lengths {
                    let bucket = length.bucket_of(key.bucket);
                    let key = RowKey { family: key.family, length: *length, app, user, name, bucket };
                    spread.entry(key).or_default().merge(delta);
                }
            }
        }
        let mut counts: HashMap<(CountKey, Length), i64> = HashMap::new();
        for (key, count) in &self.counts {
            let scope = admitted.scope(conn, (key.app, key.user))?;
            let kind = if key.is_branch { Kind::Branch } else { Kind::Class };
            let name = admitted.id(conn, kind, key.name)?;
            for (app, user) in levels(scope) {
                for length in [Length::Minute, Length::Hour] {
                    let minute = length.bucket_of(key.minute);
                    *counts.entry((CountKey { app, user, minute, name, ..*key }, length)).or_default() +=
                        count;
                }
            }
        }
        let mut rows: Vec<(RowKey, Delta)> = spread.into_iter().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        write_rows(conn, memory, &rows)?;
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|(key, _)| *key);
        write_counts(conn, memory, &counts)
    }
}

/// The levels a figure counts at: its own app and user, and all.
fn levels((app, user): (u32, u32)) -> impl Iterator<Item = (u32, u32)> {
    let all = [(ALL, ALL), (app, ALL), (ALL, user), (app, user)];
    (0..all.len()).filter(move |at| !all[..*at].contains(&all[*at])).map(move |at| all[at])
}

/// The number of `""`: all apps, all users, or unknown ones.
const ALL: u32 = 0;

/// The names that have rows of their own, as far as they were met; what the database says, so it can be forgotten.
pub(crate) struct Memory {
    ids: HashMap<(Kind, String), u32>,
    names: Vec<String>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { ids: HashMap::new(), names: vec![String::new()] }
    }
}

/// Names that the memory holds, at most, before it begins anew: all kinds together have fewer of their own.
const NAMES_REMEMBERED_MAX: usize = 20_000;

impl Memory {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn push(&mut self, kind: Kind, name: &str) -> u32 {
        let names = &mut self.names;
        *self.ids.entry((kind, name.to_owned())).or_insert_with(|| {
            names.push(name.to_owned());
            u32::try_from(names.len() - 1).unwrap_or(ALL)
        })
    }

    /// The number of the name's row, its own or that of the others.
    fn admit(&mut self, conn: &Connection, kind: Kind, name: &str) -> rusqlite::Result<u32> {
        if name.is_empty() && matches!(kind, Kind::App | Kind::User) {
            return Ok(ALL);
        }
        if let Some(id) = self.ids.get(&(kind, name.to_owned())) {
            return Ok(*id);
        }
        if kind == Kind::Class {
            return Ok(self.push(kind, name));
        }
        let fitted = fit(name);
        let is_known = conn
            .prepare_cached("SELECT 1 FROM rollup_names WHERE kind = ?1 AND name = ?2")?
            .exists(params![kind.name(), fitted])?;
        let count = "SELECT count(*) FROM rollup_names WHERE kind = ?1";
        if !is_known {
            let known: i64 = conn.prepare_cached(count)?.query_row([kind.name()], |row| row.get(0))?;
            if known >= kind.max() {
                return Ok(self.push(kind, OTHER));
            }
            conn.prepare_cached("INSERT INTO rollup_names (kind, name) VALUES (?1, ?2)")?
                .execute(params![kind.name(), fitted])?;
        }
        Ok(self.push(kind, &fitted))
    }

    fn name(&self, id: u32) -> &str {
        self.names.get(id as usize).map_or("", String::as_str)
    }
}

/// A batch's numbers as the memory's.
struct Admitted<'n, 'm> {
    batch: &'n Interner,
    memory: &'m mut Memory,
    ids: HashMap<(Kind, u32), u32>,
}

impl<'n, 'm> Admitted<'n, 'm> {
    fn new(batch: &'n Interner, memory: &'m mut Memory) -> Self {
        if memory.names.len() > NAMES_REMEMBERED_MAX {
            memory.clear();
        }
        Self { batch, memory, ids: HashMap::new() }
    }

    fn id(&mut self, conn: &Connection, kind: Kind, id: u32) -> rusqlite::Result<u32> {
        if let Some(id) = self.ids.get(&(kind, id)) {
            return Ok(*id);
        }
        let name = self.batch.names.get(id as usize).map_or("", String::as_str);
        let admitted = self.memory.admit(conn, kind, name)?;
        self.ids.insert((kind, id), admitted);
        Ok(admitted)
    }

    fn scope(&mut self, conn: &Connection, (app, user): (u32, u32)) -> rusqlite::Result<(u32, u32)> {
        Ok((self.id(conn, Kind::App, app)?, self.id(conn, Kind::User, user)?))
    }
}

fn write_rows(conn: &Connection, memory: &Memory, rows: &[(RowKey, Delta)]) -> rusqlite::Result<()> {
    for part in rows.chunk_by(|(a, _), (b, _)| (a.family, a.length) == (b.family, b.length)) {
        let Some((first, _)) = part.first() else { continue };
        let mut statement = conn.prepare_cached(&UPSERTS[&(first.family, first.length)])?;
        for (key, delta) in part {
            write_row(&mut statement, memory, key, delta)?;
        }
    }
    Ok(())
}

fn write_row(
    statement: &mut Statement<'_>,
    memory: &Memory,
    key: &RowKey,
    delta: &Delta,
) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, memory.name(key.app))?;
    statement.raw_bind_parameter(2, memory.name(key.user))?;
    statement.raw_bind_parameter(3, key.bucket)?;
    let mut at = 4;
    if key.family != Family::Scope {
        statement.raw_bind_parameter(at, memory.name(key.name))?;
        at += 1;
    }
    for value in &delta.counters.0[key.family.counters()] {
        statement.raw_bind_parameter(at, value)?;
        at += 1;
    }
    statement.raw_bind_parameter(at, edits(&delta.durations))?;
    if key.family == Family::Scope {
        statement.raw_bind_parameter(at + 1, edits(&delta.latencies))?;
    }
    statement.raw_execute()?;
    Ok(())
}

fn edits(edits: &Edits) -> Option<&[u8]> {
    (!edits.is_empty()).then(|| edits.as_bytes())
}

fn write_counts(
    conn: &Connection,
    memory: &Memory,
    counts: &[((CountKey, Length), i64)],
) -> rusqlite::Result<()> {
    for ((key, length), count) in counts {
        let sql = if key.is_branch {
            "INSERT INTO rollup_branches (resolution, app, user, bucket, branch, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                ON CONFLICT (resolution, app, user, bucket, branch) DO UPDATE SET count = count + excluded.count"
        } else {
            "INSERT INTO rollup_errors (resolution, app, user, bucket, class, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                ON CONFLICT (resolution, app, user, bucket, class) DO UPDATE SET count = count + excluded.count"
        };
        conn.prepare_cached(sql)?.execute(params![
            length.ms(),
            memory.name(key.app),
            memory.name(key.user),
            key.minute,
            memory.name(key.name),
            count
        ])?;
    }
    Ok(())
}

/// The upserts, put together once.
static UPSERTS: LazyLock<HashMap<(Family, Length), String>> = LazyLock::new(|| {
    let mut upserts = HashMap::new();
    for family in [Family::Scope, Family::Tool, Family::Agent] {
        for length in Length::ALL {
            upserts.insert((family, length), upsert_sql(family, length));
        }
    }
    upserts
});

fn keys_of(family: Family) -> Vec<&'static str> {
    ["app", "user", "bucket"].into_iter().chain(family.column()).collect()
}

fn sketches_of(family: Family) -> &'static [&'static str] {
    if family == Family::Scope { &["duration_sketch", "latency_sketch"] } else { &["duration_sketch"] }
}

/// Sketches are given as what is to be done to them.
fn upsert_sql(family: Family, length: Length) -> String {
    let (keys, counters, sketches) =
        (keys_of(family), &COUNTER_COLUMNS[family.counters()], sketches_of(family));
    let place = keys.len() + counters.len();
    let columns = [&keys[..], counters, sketches].concat().join(", ");
    let values = (1..=place).map(|n| format!("?{n}"));
    let values: Vec<_> =
        values.chain((1..=sketches.len()).map(|n| format!("sketch_edit(NULL, ?{})", place + n))).collect();
    let sums = counters.iter().map(|c| format!("{c} = {c} + excluded.{c}"));
    let blobs = sketches.iter().zip(1..).map(|(c, n)| format!("{c} = sketch_edit({c}, ?{})", place + n));
    let set: Vec<_> = sums.chain(blobs).collect();
    format!(
        "INSERT INTO {} ({columns}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
        length.table(family),
        values.join(", "),
        keys.join(", "),
        set.join(", ")
    )
}

/// Makes `sketch_edit(stored, edits)` and the aggregate `sketch_merge(stored)` known to a connection that writes.
pub(crate) fn register(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    conn.create_scalar_function("sketch_edit", 2, flags, |context| {
        let stored = context.get_raw(0).as_blob_or_null()?;
        let Some(edits) = context.get_raw(1).as_blob_or_null()? else {
            return Ok(stored.map(<[u8]>::to_vec));
        };
        let mut sketch = read_or_new(stored);
        if let Err(e) = sketch.edit(edits) {
            tracing::error!(error = %e, "a change of a sketch was not understood");
        }
        Ok((sketch.count() > 0).then(|| sketch.to_bytes()))
    })?;
    conn.create_aggregate_function("sketch_merge", 1, flags, MergeSketches)
}

struct MergeSketches;

impl rusqlite::functions::Aggregate<Sketch, Option<Vec<u8>>> for MergeSketches {
    fn init(&self, _: &mut rusqlite::functions::Context<'_>) -> rusqlite::Result<Sketch> {
        Ok(Sketch::new())
    }

    fn step(&self, context: &mut rusqlite::functions::Context<'_>, sum: &mut Sketch) -> rusqlite::Result<()> {
        if let Some(stored) = context.get_raw(0).as_blob_or_null()? {
            sum.merge(&read_or_new(Some(stored)));
        }
        Ok(())
    }

    fn finalize(
        &self,
        _: &mut rusqlite::functions::Context<'_>,
        sum: Option<Sketch>,
    ) -> rusqlite::Result<Option<Vec<u8>>> {
        Ok(sum.filter(|sum| sum.count() > 0).map(|sum| sum.to_bytes()))
    }
}

/// A stored sketch; a new one where there is none, or where its bytes are damaged (said loudly, not fatal).
fn read_or_new(stored: Option<&[u8]>) -> Sketch {
    let Some(bytes) = stored else { return Sketch::new() };
    Sketch::from_bytes(bytes).unwrap_or_else(|e| {
        tracing::error!(error = %e, "a stored sketch is damaged and begins anew");
        Sketch::new()
    })
}

/// How far the rollups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The days whose rows are those of their hours.
    closed: BTreeSet<i64>,
    /// From here on every event is in the fine rows.
    pub(crate) fine_since: i64,
}

impl State {
    /// As if no day were closed: hours are read.
    pub(crate) const NO_DAYS: Self = Self { closed: BTreeSet::new(), fine_since: i64::MAX };

    pub(crate) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let mut statement = conn.prepare_cached("SELECT day FROM rollup_days WHERE closed = 1")?;
        let closed = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(Self { closed, fine_since: fine_since(conn)? })
    }
}

fn fine_since(conn: &Connection) -> rusqlite::Result<i64> {
    let found = conn
        .prepare_cached("SELECT fine_since FROM rollup_state")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(i64::MAX))
}

/// For how long nothing came for a day that is over before its rows are made, in milliseconds.
const QUIET_MS: i64 = 60_000;

/// Makes the rows of the newest day that is over, quiet and not closed; false where there is none.
fn close_day(conn: &Connection, now: i64, quiet_ms: i64) -> rusqlite::Result<bool> {
    // A day that was touched in the future was so under a clock that was wrong.
    let day: Option<i64> = conn
        .prepare_cached(
            "SELECT max(day) FROM rollup_days WHERE closed = 0 AND day < ?1 AND (touched <= ?2 OR touched > ?3)",
        )?
        .query_row([Length::Day.bucket_of(now), now.saturating_sub(quiet_ms), now], |row| row.get(0))?;
    let Some(day) = day else { return Ok(false) };
    // A scope is in the rows of its hours at least where it is in those of its tools.
    let scopes = conn
        .prepare_cached("SELECT DISTINCT app, user FROM rollup_hour WHERE bucket >= ?1 AND bucket < ?2")?
        .query_map([day, day + DAY_MS], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    for (app, user) in &scopes {
        for sql in &*CLOSE {
            conn.prepare_cached(sql)?.execute(params![app, user, day, day + DAY_MS])?;
        }
        for (table, column) in [("rollup_errors", "class"), ("rollup_branches", "branch")] {
            let sql = format!(
                "INSERT OR REPLACE INTO {table} (resolution, app, user, bucket, {column}, count)
                    SELECT {DAY_MS}, app, user, ?3, {column}, sum(count) FROM {table} WHERE resolution = {}
                    AND app = ?1 AND user = ?2 AND bucket >= ?3 AND bucket < ?4 GROUP BY {column}",
                Length::Hour.ms()
            );
            conn.prepare_cached(&sql)?.execute(params![app, user, day, day + DAY_MS])?;
        }
    }
    conn.prepare_cached("UPDATE rollup_days SET closed = 1 WHERE day = ?1")?.execute([day])?;
    Ok(true)
}

static CLOSE: LazyLock<[String; 3]> = LazyLock::new(|| {
    [Family::Scope, Family::Tool, Family::Agent].map(|family| {
        let counters = &COUNTER_COLUMNS[family.counters()];
        let name: Vec<_> = family.column().into_iter().collect();
        let sums: Vec<_> = counters.iter().map(|c| format!("sum({c})")).collect();
        let sketches: Vec<_> = sketches_of(family).iter().map(|c| format!("sketch_merge({c})")).collect();
        let group = [&["app", "user"][..], &name].concat().join(", ");
        format!(
            "INSERT OR REPLACE INTO {} ({}) SELECT {} FROM {} WHERE app = ?1 AND user = ?2 AND bucket >= ?3 AND bucket < ?4
                GROUP BY {group}",
            Length::Day.table(family),
            [&keys_of(family)[..], counters, sketches_of(family)].concat().join(", "),
            ["app".to_owned(), "user".to_owned(), "?3".to_owned()]
                .into_iter()
                .chain(name.iter().map(|name| (*name).to_owned()))
                .chain(sums)
                .chain(sketches)
                .collect::<Vec<_>>()
                .join(", "),
            Length::Hour.table(family),
        )
    })
});

/// Deletes fine rows that no history needs any more, now and then; says from when on they are whole.
fn prune_fine(conn: &Connection, since: i64, now: i64) -> rusqlite::Result<i64> {
    let kept = Length::Fine.bucket_of(now - FINE_KEPT_MS);
    if since >= kept - FINE_SLACK_MS {
        return Ok(since);
    }
    conn.prepare_cached("DELETE FROM rollup_fine WHERE bucket < ?1")?.execute([kept])?;
    Ok(kept)
}

/// Counts what was stored before there were rows by type of agent and by branch: once, in the migration that makes them.
pub(crate) fn backfill(conn: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    let mut memory = Memory::default();
    let mut deltas = Deltas::default();
    let mut calls = conn.prepare(
        "SELECT ended, source_app, coalesce(user, ''), agent_id, agent_type, status, duration_ms
            FROM tool_calls WHERE ended IS NOT NULL AND status <> 'running'",
    )?;
    let mut rows = calls.query([])?;
    while let Some(row) = rows.next()? {
        let agent_id: String = row.get(3)?;
        let call = Contribution {
            ended: row.get(0)?,
            app: row.get(1)?,
            user: row.get(2)?,
            tool: String::new(),
            agent: crate::calls::agent_name(&agent_id, row.get::<_, Option<String>>(4)?.as_deref())
                .to_owned(),
            status: crate::calls::status_of(&row.get::<_, String>(5)?),
            duration_ms: row.get(6)?,
        };
        let slot = call.known_ms().and_then(|ms| Slot::of(ms as f64));
        let scope = (deltas.names.id(&call.app), deltas.names.id(&call.user));
        let agent = deltas.names.id(&call.agent);
        deltas.merge(Family::Agent, scope, agent, call.ended, |row| row.add_call(&call, slot, 1));
        if deltas.rows.len() >= BACKFILL_ROWS {
            std::mem::take(&mut deltas).flush(conn, &mut memory)?;
        }
    }
    let mut branches = conn.prepare(
        "SELECT e.timestamp, e.source_app, coalesce(e.user, ''), g.branch FROM git_operations g
            CROSS JOIN events e ON e.id = g.event_id WHERE g.branch IS NOT NULL",
    )?;
    let mut rows = branches.query([])?;
    while let Some(row) = rows.next()? {
        let text = |at: usize| row.get::<_, String>(at);
        let scope = (deltas.names.id(&text(1)?), deltas.names.id(&text(2)?));
        let branch = deltas.names.id(&text(3)?);
        deltas.count(scope, row.get(0)?, branch, true, 1);
        if deltas.counts.len() >= BACKFILL_ROWS {
            std::mem::take(&mut deltas).flush(conn, &mut memory)?;
        }
    }
    deltas.flush(conn, &mut memory)?;
    while close_day(conn, now_ms, 0)? {}
    Ok(())
}

/// Rows that the backfill holds in memory.
const BACKFILL_ROWS: usize = 50_000;

/// A half-open range of buckets of one resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) length: Length,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// The buckets that make up a range: closed days and hours where whole ones lie in it, minutes at its edges.
pub(crate) fn segments(from: i64, to: i64, state: &State) -> Vec<Segment> {
    let mut all = Vec::new();
    split(&mut all, from, to, Length::Day, state);
    all.retain(|segment| segment.from < segment.to);
    all
}

fn split(all: &mut Vec<Segment>, from: i64, to: i64, length: Length, state: &State) {
    let finer = match length {
        Length::Day => Length::Hour,
        _ => Length::Minute,
    };
    if length == Length::Minute {
        all.push(Segment { length, from, to });
        return;
    }
    let first = length.bucket_of(from.saturating_add(length.ms() - 1));
    let last = length.bucket_of(to);
    if first >= last {
        return split(all, from, to, finer, state);
    }
    split(all, from, first, finer, state);
    let has_rows = |bucket: i64| length != Length::Day || state.closed.contains(&bucket);
    let mut at = first;
    while at < last {
        let is_whole = has_rows(at);
        let mut end = at + length.ms();
        while end < last && (length != Length::Day || has_rows(end) == is_whole) {
            end = if length == Length::Day { end + length.ms() } else { last };
        }
        if is_whole {
            all.push(Segment { length, from: at, to: end });
        } else {
            split(all, at, end, finer, state);
        }
        at = end;
    }
    split(all, last, to, finer, state);
}

/// The buckets of a range, in one resolution.
pub(crate) fn segment(resolution: Resolution, from: i64, to: i64) -> Segment {
    let length = match resolution {
        Resolution::Fine => Length::Fine,
        Resolution::Minute => Length::Minute,
        Resolution::Hour => Length::Hour,
    };
    Segment { length, from, to }
}

/// One row of a rollup.
pub(crate) struct Row<'r> {
    pub(crate) bucket: i64,
    /// The tool or type of agent; empty in the rows of a scope.
    pub(crate) name: &'r str,
    pub(crate) counters: Counters,
    /// A sketch as it is stored: see [`merge_stored`].
    pub(crate) durations: Option<&'r [u8]>,
    pub(crate) latencies: Option<&'r [u8]>,
}

/// Whether rows come with their sketches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sketches {
    /// Those that the family has.
    Both,
    Durations,
    None,
}

/// The rows of a scope (`""` for all apps or users) in a segment, by bucket; of a family with names all of them, or one.
pub(crate) fn rows(
    conn: &Connection,
    family: Family,
    (app, user): (&str, &str),
    name: Option<&str>,
    segment: Segment,
    sketches: Sketches,
    mut each: impl FnMut(Row<'_>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let latencies = if family == Family::Scope { "latency_sketch" } else { "NULL" };
    let blobs = match sketches {
        Sketches::Both => format!("duration_sketch, {latencies}"),
        Sketches::Durations => "duration_sketch, NULL".to_owned(),
        Sketches::None => "NULL, NULL".to_owned(),
    };
    let column = family.column().unwrap_or("''");
    let named = if name.is_some() { format!("{column} = ?5") } else { "?5 IS NULL".to_owned() };
    let counters = family.counters();
    let sql = format!(
        "SELECT bucket, {column}, {}, {blobs} FROM {} WHERE app = ?1 AND user = ?2 AND bucket >= ?3 AND bucket < ?4
            AND {named} ORDER BY bucket",
        COUNTER_COLUMNS[counters.clone()].join(", "),
        segment.length.table(family)
    );
    let (app, user, name) = (fit(app), fit(user), name.map(fit));
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![app, user, segment.from, segment.to, name])?;
    while let Some(row) = rows.next()? {
        let mut sum = Counters::default();
        for (index, value) in sum.0[counters.clone()].iter_mut().enumerate() {
            *value = row.get(index + 2)?;
        }
        let blobs = 2 + counters.len();
        each(Row {
            bucket: row.get(0)?,
            name: row.get_ref(1)?.as_str().map_err(|e| ReadError::BadRow(e.to_string()))?,
            counters: sum,
            durations: blob_at(row, blobs)?,
            latencies: blob_at(row, blobs + 1)?,
        })?;
    }
    Ok(())
}

/// What one tool or type of agent did in some segments.
#[derive(Default)]
pub(crate) struct CallSum {
    pub(crate) counters: Counters,
    pub(crate) durations: Sketch,
}

/// Adds up the rows per name of a scope in a segment.
pub(crate) fn add_named(
    conn: &Connection,
    family: Family,
    scope: (&str, &str),
    segment: Segment,
    sketches: Sketches,
    sums: &mut BTreeMap<String, CallSum>,
) -> Result<(), ReadError> {
    rows(conn, family, scope, None, segment, sketches, |row| {
        let sum = match sums.get_mut(row.name) {
            Some(sum) => sum,
            None => sums.entry(row.name.to_owned()).or_default(),
        };
        sum.counters.add_all(&row.counters);
        merge_stored(&mut sum.durations, row.durations)
    })
}

/// Adds up the failures by class of a scope in a segment.
pub(crate) fn add_errors(
    conn: &Connection,
    (app, user): (&str, &str),
    segment: Segment,
    sums: &mut BTreeMap<String, i64>,
) -> Result<(), ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT class, sum(count) FROM rollup_errors
            WHERE resolution = ?1 AND app = ?2 AND user = ?3 AND bucket >= ?4 AND bucket < ?5 GROUP BY class",
    )?;
    let mut rows =
        statement.query(params![segment.length.ms(), fit(app), fit(user), segment.from, segment.to])?;
    while let Some(row) = rows.next()? {
        *sums.entry(row.get(0)?).or_default() += row.get::<_, i64>(1)?;
    }
    Ok(())
}

/// Adds the branches that git commands of a scope named in a segment.
pub(crate) fn add_branches(
    conn: &Connection,
    (app, user): (&str, &str),
    segment: Segment,
    branches: &mut BTreeSet<String>,
) -> Result<(), ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT DISTINCT branch FROM rollup_branches
            WHERE resolution = ?1 AND app = ?2 AND user = ?3 AND bucket >= ?4 AND bucket < ?5 AND count > 0",
    )?;
    let mut rows =
        statement.query(params![segment.length.ms(), fit(app), fit(user), segment.from, segment.to])?;
    while let Some(row) = rows.next()? {
        branches.insert(row.get(0)?);
    }
    Ok(())
}

/// The branches that git commands of a scope named, with their buckets.
pub(crate) fn each_branch(
    conn: &Connection,
    (app, user): (&str, &str),
    segment: Segment,
    mut each: impl FnMut(i64, &str),
) -> Result<(), ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT bucket, branch FROM rollup_branches
            WHERE resolution = ?1 AND app = ?2 AND user = ?3 AND bucket >= ?4 AND bucket < ?5 AND count > 0",
    )?;
    let mut rows =
        statement.query(params![segment.length.ms(), fit(app), fit(user), segment.from, segment.to])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?, row.get_ref(1)?.as_str().unwrap_or(OTHER));
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
