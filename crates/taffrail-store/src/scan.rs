//! Bounded scans: a page is full, or [`SCAN_ROWS_MAX`] rows were looked at, or there are no more.

use taffrail_event::{RowId, TimestampMs};

use crate::error::ReadError;
use crate::rows::Page;
use crate::{EVENTS_PAGE_MAX, SCAN_ROWS_MAX};

/// Below which and from which row ids on to read, newest first, by a time range and the last page's cursor.
pub(crate) fn id_range(
    from: Option<TimestampMs>,
    to: Option<TimestampMs>,
    cursor: Option<RowId>,
) -> (RowId, RowId) {
    let below = to.map_or(RowId(i64::MAX), RowId::first_of).min(cursor.unwrap_or(RowId(i64::MAX)));
    (below, from.map_or(RowId(i64::MIN), RowId::first_of))
}

/// Reads rows until `limit` of them are kept. `read` gives a row's id and, if it is wanted, what to keep of it.
pub(crate) fn page<T>(
    mut rows: rusqlite::Rows<'_>,
    limit: usize,
    mut read: impl FnMut(&rusqlite::Row<'_>) -> Result<(RowId, Option<T>), ReadError>,
) -> Result<Page<T>, ReadError> {
    let limit = limit.clamp(1, EVENTS_PAGE_MAX);
    let mut page = Page { rows: Vec::new(), next: None };
    let mut scanned = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        if page.rows.len() == limit || scanned == SCAN_ROWS_MAX {
            page.next = last;
            break;
        }
        let (id, kept) = read(row)?;
        page.rows.extend(kept);
        last = Some(id);
        scanned += 1;
    }
    Ok(page)
}

/// Whether `needle` occurs in `text`, ASCII letters in any case, as SQL's LIKE does.
pub(crate) fn contains(text: &str, needle: &str) -> bool {
    let needle = needle.as_bytes();
    needle.is_empty()
        || text.as_bytes().windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}
