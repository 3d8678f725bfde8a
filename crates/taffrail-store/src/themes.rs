//! Themes of the old page: its table and its columns. Validation is the server's.

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use crate::error::{ReadError, WriteError};
use crate::events::to_i64;
use crate::reader::Reader;
use crate::store::Store;

/// One theme, as in the old server's table.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the old table's")]
pub struct Theme {
    pub id: String,
    /// Unique.
    pub name: String,
    pub display_name: String,
    pub description: Option<String>,
    /// A JSON object.
    pub colors: Value,
    pub is_public: bool,
    pub author_id: Option<String>,
    pub author_name: Option<String>,
    /// In milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// In milliseconds since the Unix epoch.
    pub updated_ms: i64,
    pub tags: Vec<String>,
    pub download_count: i64,
    pub rating: f64,
    pub rating_count: i64,
}

/// Which themes, in which order.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the old contract's")]
pub struct ThemeQuery {
    /// A piece of name, display name, description or tags.
    pub query: Option<String>,
    pub is_public: Option<bool>,
    pub author_id: Option<String>,
    pub sort_by: ThemeSort,
    pub order: SortOrder,
    /// Cut at [`THEMES_PAGE_MAX`]; none takes that.
    pub limit: Option<usize>,
    pub offset: usize,
}

/// Themes of one answer, at most.
pub const THEMES_PAGE_MAX: usize = 500;

/// What themes are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ThemeSort {
    Name,
    #[default]
    Created,
    Updated,
    Downloads,
    Rating,
}

/// Which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SortOrder {
    Ascending,
    #[default]
    Descending,
}

/// What `GET /api/themes/stats` tells.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ThemeStats {
    pub total: i64,
    pub public: i64,
    pub private: i64,
    pub downloads: i64,
    pub average_rating: f64,
}

/// Stores a new theme; [`WriteError::Conflict`] where id or name is taken.
pub fn create(store: &Store, theme: &Theme) -> Result<(), WriteError> {
    let theme = theme.clone();
    store.change(move |conn| {
        conn.execute(
            "INSERT INTO themes (id, name, displayName, description, colors, isPublic, authorId, authorName, createdAt,
                updatedAt, tags, downloadCount, rating, ratingCount)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            params![
                theme.id,
                theme.name,
                theme.display_name,
                theme.description,
                theme.colors.to_string(),
                theme.is_public,
                theme.author_id,
                theme.author_name,
                theme.created_ms,
                theme.updated_ms,
                tags_json(&theme.tags),
                theme.download_count,
                theme.rating,
                theme.rating_count,
            ],
        )
        .map(drop)
    })
}

/// Replaces every column of the theme with that id but `name`, the author, `created` and the counters; false where
/// there is none.
pub fn update(store: &Store, theme: &Theme) -> Result<bool, WriteError> {
    let theme = theme.clone();
    store.change(move |conn| {
        let rows = conn.execute(
            "UPDATE themes SET displayName = ?2, description = ?3, colors = ?4, isPublic = ?5, updatedAt = ?6, tags = ?7
                WHERE id = ?1",
            params![
                theme.id,
                theme.display_name,
                theme.description,
                theme.colors.to_string(),
                theme.is_public,
                theme.updated_ms,
                tags_json(&theme.tags),
            ],
        )?;
        Ok(rows == 1)
    })
}

/// Deletes a theme; false where there is none.
pub fn delete(store: &Store, id: &str) -> Result<bool, WriteError> {
    let id = id.to_owned();
    store.change(move |conn| Ok(conn.execute("DELETE FROM themes WHERE id = ?1", [id])? == 1))
}

/// Adds one to the theme's downloads.
pub fn count_download(store: &Store, id: &str) -> Result<(), WriteError> {
    let id = id.to_owned();
    let sql = "UPDATE themes SET downloadCount = downloadCount + 1 WHERE id = ?1";
    store.change(move |conn| conn.execute(sql, [id]).map(drop))
}

const SELECT: &str =
    "SELECT id, name, displayName, description, colors, isPublic, authorId, authorName, createdAt,
    updatedAt, tags, downloadCount, rating, ratingCount FROM themes";

/// One theme.
pub fn get(reader: &Reader, id: &str) -> Result<Option<Theme>, ReadError> {
    let mut statement = reader.conn().prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    let theme = statement.query_row([id], from_row).optional()?;
    theme.transpose()
}

/// Themes that match.
pub fn list(reader: &Reader, query: &ThemeQuery) -> Result<Vec<Theme>, ReadError> {
    let by = match query.sort_by {
        ThemeSort::Name => "name",
        ThemeSort::Created => "createdAt",
        ThemeSort::Updated => "updatedAt",
        ThemeSort::Downloads => "downloadCount",
        ThemeSort::Rating => "rating",
    };
    let order = match query.order {
        SortOrder::Ascending => "ASC",
        SortOrder::Descending => "DESC",
    };
    let sql = format!(
        "{SELECT} WHERE (?1 IS NULL OR isPublic = ?1) AND (?2 IS NULL OR authorId = ?2)
            AND (?3 IS NULL OR instr(lower(name), ?3) OR instr(lower(displayName), ?3)
                OR instr(lower(coalesce(description, '')), ?3) OR instr(lower(coalesce(tags, '')), ?3))
            ORDER BY {by} {order}, id {order} LIMIT ?4 OFFSET ?5"
    );
    let limit = query.limit.unwrap_or(THEMES_PAGE_MAX).min(THEMES_PAGE_MAX);
    let text = query.query.as_ref().map(|text| text.to_ascii_lowercase());
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let rows = statement.query_map(
        params![query.is_public, query.author_id, text, to_i64(limit), to_i64(query.offset)],
        from_row,
    )?;
    rows.map(|row| row.map_err(ReadError::from).and_then(|theme| theme)).collect()
}

/// Totals over all themes.
pub fn stats(reader: &Reader) -> Result<ThemeStats, ReadError> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE isPublic), coalesce(sum(downloadCount), 0),
        coalesce(avg(rating) FILTER (WHERE ratingCount > 0), 0.0) FROM themes";
    let stats = reader.conn().query_row(sql, [], |row| {
        let (total, public) = (row.get(0)?, row.get(1)?);
        Ok(ThemeStats {
            total,
            public,
            private: total - public,
            downloads: row.get(2)?,
            average_rating: row.get(3)?,
        })
    })?;
    Ok(stats)
}

/// The outer error is SQLite's, the inner says that the row is not one of ours.
fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<Theme, ReadError>> {
    let colors: String = row.get(4)?;
    let tags: Option<String> = row.get(10)?;
    let parsed = serde_json::from_str(&colors)
        .and_then(|colors: Value| Ok((colors, tags.as_deref().map(serde_json::from_str).transpose()?)));
    let (colors, tags) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return Ok(Err(ReadError::BadRow(e.to_string()))),
    };
    Ok(Ok(Theme {
        id: row.get(0)?,
        name: row.get(1)?,
        display_name: row.get(2)?,
        description: row.get(3)?,
        colors,
        is_public: row.get(5)?,
        author_id: row.get(6)?,
        author_name: row.get(7)?,
        created_ms: row.get(8)?,
        updated_ms: row.get(9)?,
        tags: tags.unwrap_or_default(),
        download_count: row.get(11)?,
        rating: row.get(12)?,
        rating_count: row.get(13)?,
    }))
}

/// A list of strings always has a JSON form.
fn tags_json(tags: &[String]) -> String {
    Value::from(tags.to_vec()).to_string()
}
