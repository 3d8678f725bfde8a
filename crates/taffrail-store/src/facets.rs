//! The table `facets`: how many events have a value, so that filter options need no scan.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use taffrail_event::Event;

use crate::error::ReadError;
use crate::rows::Facet;

/// Values of one kind offered as options, at most.
const VALUES_MAX: i64 = 1_000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    App,
    Type,
    Tool,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Type => "type",
            Self::Tool => "tool",
        }
    }
}

/// What a batch adds.
#[derive(Default)]
pub(crate) struct Counts(BTreeMap<(Kind, String), i64>);

impl Counts {
    pub(crate) fn add(&mut self, event: &Event) {
        let mut count = |kind, value: &str| *self.0.entry((kind, value.to_owned())).or_default() += 1;
        count(Kind::App, &event.app);
        count(Kind::Type, &event.type_name);
        if let Some(tool) = &event.tool_name {
            count(Kind::Tool, tool);
        }
    }

    pub(crate) fn flush(self, conn: &Connection) -> rusqlite::Result<()> {
        let mut statement = conn.prepare_cached(
            "INSERT INTO facets (kind, value, count) VALUES (?1, ?2, ?3)
                ON CONFLICT (kind, value) DO UPDATE SET count = count + excluded.count",
        )?;
        for ((kind, value), count) in &self.0 {
            statement.execute(params![kind.name(), value, count])?;
        }
        Ok(())
    }
}

/// The values of one kind, by name.
pub(crate) fn list(conn: &Connection, kind: Kind) -> Result<Vec<Facet>, ReadError> {
    let mut statement =
        conn.prepare_cached("SELECT value, count FROM facets WHERE kind = ?1 ORDER BY value LIMIT ?2")?;
    let rows = statement.query_map(params![kind.name(), VALUES_MAX], |row| {
        Ok(Facet { value: row.get(0)?, count: row.get(1)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many events have that value.
pub(crate) fn count(conn: &Connection, kind: Kind, value: &str) -> Result<i64, ReadError> {
    let mut statement = conn.prepare_cached("SELECT count FROM facets WHERE kind = ?1 AND value = ?2")?;
    let mut rows = statement.query(params![kind.name(), value])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?.unwrap_or(0))
}

/// How many events there are: each has one type.
pub(crate) fn total(conn: &Connection) -> Result<i64, ReadError> {
    let sql = "SELECT coalesce(sum(count), 0) FROM facets WHERE kind = 'type'";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}
