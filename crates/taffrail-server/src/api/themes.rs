//! Themes of the old page, in the old server's words: `{success, data?, error?, message?, validationErrors?}`.
//!
//! The checks are the old server's; `export` and `stats`, which an earlier route hid there, can be reached here.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use taffrail_store::themes::{self as table, SortOrder, Theme, ThemeQuery, ThemeSort};
use taffrail_store::{Store, WriteError};

use super::params::{Params, text};
use crate::clock;
use crate::ingest::body;
use crate::ingest::routes_legacy::problem_of;
use crate::problem::Problem;
use crate::security::random_hex;
use crate::state::App;

/// Largest theme, in bytes.
const THEME_MAX_BYTES: usize = 256 * 1024;
/// Colours that every theme has.
const COLORS: [&str; 24] = [
    "primary",
    "primaryHover",
    "primaryLight",
    "primaryDark",
    "bgPrimary",
    "bgSecondary",
    "bgTertiary",
    "bgQuaternary",
    "textPrimary",
    "textSecondary",
    "textTertiary",
    "textQuaternary",
    "borderPrimary",
    "borderSecondary",
    "borderTertiary",
    "accentSuccess",
    "accentWarning",
    "accentError",
    "accentInfo",
    "shadow",
    "shadowLg",
    "hoverBg",
    "activeBg",
    "focusRing",
];
/// Colours that may be named, in lower case.
const NAMED_COLORS: [&str; 13] = [
    "transparent",
    "black",
    "white",
    "red",
    "green",
    "blue",
    "yellow",
    "cyan",
    "magenta",
    "gray",
    "grey",
    "inherit",
    "currentcolor",
];

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct ThemeIssue {
    field: String,
    message: String,
    /// `REQUIRED`, `INVALID_FORMAT`, `INVALID_COLOR` or `DUPLICATE`.
    code: &'static str,
}

/// Every answer of these routes but an export.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThemeAnswer {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_errors: Option<Vec<ThemeIssue>>,
}

impl ThemeAnswer {
    fn error(error: &'static str) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    fn invalid(error: &'static str, issues: Vec<ThemeIssue>) -> Self {
        Self { validation_errors: Some(issues), ..Self::error(error) }
    }

    fn data(data: Value, message: Option<&'static str>) -> Self {
        Self { success: true, data: Some(data), message, ..Self::default() }
    }

    fn with(self, status: StatusCode) -> Response {
        (status, Json(self)).into_response()
    }
}

/// A theme as sent, brought into form as the old server does.
#[derive(Clone, Debug)]
struct Draft {
    name: String,
    display_name: String,
    description: String,
    colors: Value,
    is_public: bool,
    tags: Vec<String>,
    author_id: Option<String>,
    author_name: Option<String>,
}

impl Draft {
    fn of(theme: &Map<String, Value>) -> Self {
        let word = |name: &str| theme.get(name).and_then(js_string);
        let name = word("name").unwrap_or_default().to_lowercase();
        let colors = theme.get("colors").filter(|v| is_truthy(v)).cloned().unwrap_or_else(|| json!({}));
        let tags = theme.get("tags").and_then(Value::as_array).into_iter().flatten();
        Self {
            name: name.chars().filter(|c| is_name_char(*c)).collect(),
            display_name: word("displayName").unwrap_or_default().trim().to_owned(),
            description: word("description").unwrap_or_default().trim().to_owned(),
            colors,
            is_public: theme.get("isPublic").is_some_and(is_truthy),
            tags: tags
                .filter_map(Value::as_str)
                .filter(|t| !t.trim().is_empty())
                .map(str::to_owned)
                .collect(),
            author_id: word("authorId").filter(|id| !id.is_empty()),
            author_name: word("authorName").filter(|name| !name.is_empty()),
        }
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

/// A value as JavaScript's `toString` has it; nothing for null and what is missing.
fn js_string(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(s) => Some(s.clone()),
        other => Some(other.to_string()),
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        _ => true,
    }
}

fn issue(field: &str, message: String, code: &'static str) -> ThemeIssue {
    ThemeIssue { field: field.to_owned(), message, code }
}

/// What is wrong with a theme, in the old server's order and words. `name` is none where it cannot be changed.
fn issues_of(name: Option<&str>, draft: &Draft) -> Vec<ThemeIssue> {
    let mut issues = Vec::new();
    if name.is_some_and(str::is_empty) {
        issues.push(issue("name", "Theme name is required".to_owned(), "REQUIRED"));
    }
    if draft.display_name.is_empty() {
        issues.push(issue("displayName", "Display name is required".to_owned(), "REQUIRED"));
    }
    for key in COLORS {
        let field = format!("colors.{key}");
        match draft.colors.get(key).filter(|v| is_truthy(v)) {
            None => issues.push(issue(&field, format!("Color {key} is required"), "REQUIRED")),
            Some(color) if !color.as_str().is_some_and(is_color) => {
                issues.push(issue(&field, format!("Invalid color format for {key}"), "INVALID_COLOR"));
            }
            Some(_) => {}
        }
    }
    issues
}

fn is_color(color: &str) -> bool {
    let hex = color.strip_prefix('#').is_some_and(|digits| {
        matches!(digits.len(), 3 | 4 | 6 | 8) && digits.bytes().all(|b| b.is_ascii_hexdigit())
    });
    let function = ["rgb(", "rgba(", "hsl(", "hsla(", "var(--"].iter().any(|open| {
        let inner = color.strip_prefix(open).and_then(|rest| rest.strip_suffix(')'));
        inner.is_some_and(|inner| !inner.is_empty() && !inner.contains(['\n', '\r']))
    });
    hex || function || NAMED_COLORS.contains(&color.to_lowercase().as_str())
}

/// The theme as the old contract shows it.
fn theme_json(theme: &Theme) -> Value {
    json!({
        "id": theme.id,
        "name": theme.name,
        "displayName": theme.display_name,
        "description": theme.description,
        "colors": theme.colors,
        "isPublic": theme.is_public,
        "authorId": theme.author_id,
        "authorName": theme.author_name,
        "createdAt": theme.created_ms,
        "updatedAt": theme.updated_ms,
        "tags": theme.tags,
        "downloadCount": theme.download_count,
        "rating": js_number(theme.rating),
        "ratingCount": theme.rating_count,
    })
}

/// A whole number without its `.0`, as JavaScript writes it.
fn js_number(n: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "whole and small")]
    if n.fract() == 0.0 && n.abs() < 1e15 { json!(n as i64) } else { json!(n) }
}

async fn on_store<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Store) -> Result<T, WriteError> + Send + 'static,
) -> Result<Result<T, WriteError>, Problem> {
    let store = app.store.clone();
    tokio::task::spawn_blocking(move || work(&store)).await.map_err(|_| Problem::Internal)
}

async fn find(app: &App, id: &str) -> Result<Option<Theme>, Problem> {
    let id = id.to_owned();
    app.read(move |reader| table::get(reader, &id)).await
}

async fn read_object(app: &App, request: Request) -> Result<Option<Map<String, Value>>, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
    if bytes.len() > THEME_MAX_BYTES {
        return Err(Problem::TooLarge { limit_bytes: THEME_MAX_BYTES });
    }
    Ok(match serde_json::from_slice(&bytes) {
        Ok(Value::Object(theme)) => Some(theme),
        // Other values have none of the fields; null and what is no JSON throws.
        Ok(Value::Null) | Err(_) => None,
        Ok(_) => Some(Map::new()),
    })
}

async fn store_new(app: &App, draft: Draft) -> Result<Response, Problem> {
    let issues = issues_of(Some(&draft.name), &draft);
    if !issues.is_empty() {
        return Ok(ThemeAnswer::invalid("Validation failed", issues).with(StatusCode::BAD_REQUEST));
    }
    let now = clock::now_ms();
    let theme = Theme {
        id: random_hex::<8>().map_err(|_| Problem::Internal)?,
        name: draft.name,
        display_name: draft.display_name,
        description: Some(draft.description.clone()).filter(|d| !d.is_empty()),
        colors: draft.colors,
        is_public: draft.is_public,
        author_id: draft.author_id,
        author_name: draft.author_name,
        created_ms: now,
        updated_ms: now,
        tags: draft.tags,
        download_count: 0,
        rating: 0.0,
        rating_count: 0,
    };
    let new = theme.clone();
    match on_store(app, move |store| table::create(store, &new)).await? {
        Ok(()) => {
            let mut shown = theme_json(&theme);
            // The old server echoes an empty description as sent, and reads it back as null.
            shown["description"] = json!(draft.description);
            Ok(ThemeAnswer::data(shown, Some("Theme created successfully")).with(StatusCode::CREATED))
        }
        Err(WriteError::Conflict(_)) => {
            let taken = issue("name", "A theme with this name already exists".to_owned(), "DUPLICATE");
            Ok(ThemeAnswer::invalid("Theme name already exists", vec![taken]).with(StatusCode::BAD_REQUEST))
        }
        Err(error) => Err(problem_of(&error)),
    }
}

/// Creates a theme.
#[utoipa::path(
    post, path = "/api/themes", tag = "old contract", request_body = Object,
    responses((status = 201, body = ThemeAnswer), (status = 400, body = ThemeAnswer))
)]
pub(crate) async fn create(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    match read_object(&app, request).await? {
        Some(theme) => store_new(&app, Draft::of(&theme)).await,
        None => Ok(ThemeAnswer::error("Invalid request body").with(StatusCode::BAD_REQUEST)),
    }
}

/// Which themes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SearchQuery {
    /// A piece of name, display name or description.
    query: Option<String>,
    /// Whose; without it only public ones are found.
    author_id: Option<String>,
    /// `name`, `created`, `updated`, `downloads` or `rating`.
    sort_by: Option<String>,
    /// `asc` or `desc`.
    sort_order: Option<String>,
    /// How many.
    limit: Option<String>,
    /// From which.
    offset: Option<String>,
}

/// Finds themes.
#[utoipa::path(
    get, path = "/api/themes", tag = "old contract", params(SearchQuery),
    responses((status = 200, body = ThemeAnswer))
)]
pub(crate) async fn search(
    State(app): State<App>,
    Params(query): Params<SearchQuery>,
) -> Result<Response, Problem> {
    let author_id = text(query.author_id);
    let number = |value: Option<String>| value.and_then(|v| v.parse::<usize>().ok()).filter(|n| *n > 0);
    let limit = number(query.limit);
    let wanted = ThemeQuery {
        query: text(query.query),
        // As the old server: an author's list holds the private ones too, every other only public ones.
        is_public: author_id.is_none().then_some(true),
        author_id,
        sort_by: match query.sort_by.as_deref() {
            Some("name") => ThemeSort::Name,
            Some("updated") => ThemeSort::Updated,
            Some("downloads") => ThemeSort::Downloads,
            Some("rating") => ThemeSort::Rating,
            _ => ThemeSort::Created,
        },
        order: match query.sort_order.as_deref() {
            Some(order) if order.eq_ignore_ascii_case("asc") => SortOrder::Ascending,
            _ => SortOrder::Descending,
        },
        limit,
        // There, an offset counts only beside a limit.
        offset: if limit.is_some() { number(query.offset).unwrap_or(0) } else { 0 },
    };
    let themes = app.read(move |reader| table::list(reader, &wanted)).await?;
    let data = themes.iter().map(theme_json).collect();
    Ok(ThemeAnswer::data(data, None).with(StatusCode::OK))
}

/// One theme; asking for a public one counts as a download.
#[utoipa::path(
    get, path = "/api/themes/{id}", tag = "old contract", params(("id" = String, Path)),
    responses((status = 200, body = ThemeAnswer), (status = 404, body = ThemeAnswer))
)]
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let Some(theme) = find(&app, &id).await? else {
        return Ok(ThemeAnswer::error("Theme not found").with(StatusCode::NOT_FOUND));
    };
    if theme.is_public {
        on_store(&app, move |store| table::count_download(store, &id)).await?.map_err(|e| problem_of(&e))?;
    }
    Ok(ThemeAnswer::data(theme_json(&theme), None).with(StatusCode::OK))
}

/// Changes a theme; its name stays.
#[utoipa::path(
    put, path = "/api/themes/{id}", tag = "old contract", params(("id" = String, Path)), request_body = Object,
    responses((status = 200, body = ThemeAnswer), (status = 400, body = ThemeAnswer))
)]
pub(crate) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(changes) = read_object(&app, request).await? else {
        return Ok(ThemeAnswer::error("Invalid request body").with(StatusCode::BAD_REQUEST));
    };
    let Some(mut theme) = find(&app, &id).await? else {
        return Ok(ThemeAnswer::error("Theme not found").with(StatusCode::BAD_REQUEST));
    };
    let draft = Draft::of(&changes);
    let issues = issues_of(None, &draft);
    if !issues.is_empty() {
        return Ok(ThemeAnswer::invalid("Validation failed", issues).with(StatusCode::BAD_REQUEST));
    }
    // As the old server: what is not sent becomes empty; the author stays.
    theme.display_name = draft.display_name;
    theme.description = Some(draft.description);
    theme.colors = draft.colors;
    theme.is_public = draft.is_public;
    theme.tags = draft.tags;
    theme.updated_ms = clock::now_ms();
    let changed = theme.clone();
    if !on_store(&app, move |store| table::update(store, &changed)).await?.map_err(|e| problem_of(&e))? {
        return Ok(ThemeAnswer::error("Failed to update theme").with(StatusCode::BAD_REQUEST));
    }
    Ok(ThemeAnswer::data(theme_json(&theme), Some("Theme updated successfully")).with(StatusCode::OK))
}

/// Whose theme is deleted or imported.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthorQuery {
    /// The author.
    author_id: Option<String>,
}

/// Deletes a theme.
#[utoipa::path(
    delete, path = "/api/themes/{id}", tag = "old contract", params(("id" = String, Path), AuthorQuery),
    responses((status = 200, body = ThemeAnswer), (status = 403, body = ThemeAnswer), (status = 404, body = ThemeAnswer))
)]
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(query): Params<AuthorQuery>,
) -> Result<Response, Problem> {
    let Some(theme) = find(&app, &id).await? else {
        return Ok(ThemeAnswer::error("Theme not found").with(StatusCode::NOT_FOUND));
    };
    let author = text(query.author_id);
    if author.is_some() && theme.author_id != author {
        let error = "Unauthorized - you can only delete your own themes";
        return Ok(ThemeAnswer::error(error).with(StatusCode::FORBIDDEN));
    }
    if !on_store(&app, move |store| table::delete(store, &id)).await?.map_err(|e| problem_of(&e))? {
        return Ok(ThemeAnswer::error("Failed to delete theme").with(StatusCode::FORBIDDEN));
    }
    let answer =
        ThemeAnswer { success: true, message: Some("Theme deleted successfully"), ..ThemeAnswer::default() };
    Ok(answer.with(StatusCode::OK))
}

/// Stores an exported theme as a private one.
#[utoipa::path(
    post, path = "/api/themes/import", tag = "old contract", params(AuthorQuery), request_body = Object,
    responses((status = 201, body = ThemeAnswer), (status = 400, body = ThemeAnswer))
)]
pub(crate) async fn import(
    State(app): State<App>,
    Params(query): Params<AuthorQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(import) = read_object(&app, request).await? else {
        return Ok(ThemeAnswer::error("Invalid import data").with(StatusCode::BAD_REQUEST));
    };
    let Some(theme) = import.get("theme").filter(|v| is_truthy(v)) else {
        return Ok(ThemeAnswer::error("Invalid import data - missing theme").with(StatusCode::BAD_REQUEST));
    };
    let mut draft = Draft::of(theme.as_object().unwrap_or(&Map::new()));
    draft.author_id = text(query.author_id);
    draft.author_name = draft.author_name.or_else(|| Some("Imported".to_owned()));
    draft.is_public = false;
    store_new(&app, draft).await
}

/// Exports a theme as a file, without what is this server's own.
#[utoipa::path(
    get, path = "/api/themes/{id}/export", tag = "old contract", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = ThemeAnswer))
)]
pub(crate) async fn export(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let Some(theme) = find(&app, &id).await? else {
        return Ok(ThemeAnswer::error("Theme not found").with(StatusCode::NOT_FOUND));
    };
    let body = json!({
        "version": "1.0.0",
        "theme": {
            "name": theme.name,
            "displayName": theme.display_name,
            "description": theme.description,
            "colors": theme.colors,
            "isPublic": theme.is_public,
            "authorName": theme.author_name,
            "tags": theme.tags,
        },
        "exportedAt": iso_utc(clock::now_ms()),
        "exportedBy": "observability-system",
    });
    let file: String = theme.name.chars().filter(|c| is_name_char(*c)).collect();
    let mut headers = HeaderMap::new();
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{file}.json\"")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok((headers, Json(body)).into_response())
}

/// Totals over all themes.
#[utoipa::path(
    get, path = "/api/themes/stats", tag = "old contract", responses((status = 200, body = ThemeAnswer))
)]
pub(crate) async fn stats(State(app): State<App>) -> Result<Response, Problem> {
    let stats = app.read(table::stats).await?;
    let data = json!({
        "totalThemes": stats.total,
        "publicThemes": stats.public,
        "privateThemes": stats.private,
        "totalDownloads": stats.downloads,
        "averageRating": js_number(stats.average_rating),
    });
    Ok(ThemeAnswer::data(data, None).with(StatusCode::OK))
}

/// `/api/themes/` with nothing behind it.
pub(crate) async fn no_id(method: Method) -> Response {
    if [Method::GET, Method::PUT, Method::DELETE].contains(&method) {
        return ThemeAnswer::error("Theme ID is required").with(StatusCode::BAD_REQUEST);
    }
    Problem::NotFound("route").into_response()
}

/// RFC 3339 in UTC with milliseconds, as JavaScript's `toISOString` (days to date after H. Hinnant's `civil_from_days`).
fn iso_utc(ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let (days, in_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1_000 % 60, in_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn draft(theme: &Value) -> Draft {
        Draft::of(theme.as_object().unwrap())
    }

    #[test]
    fn a_theme_is_brought_into_form_before_it_is_checked() {
        let d = draft(
            &json!({"name": "My Théme_1!", "displayName": " A ", "tags": ["x", " ", 5], "isPublic": 1}),
        );
        assert_eq!((d.name.as_str(), d.display_name.as_str(), d.is_public), ("mythme_1", "A", true));
        assert_eq!(d.tags, ["x"]);
    }

    #[test]
    fn every_fault_is_named_with_its_code() {
        let issues = issues_of(Some(""), &draft(&json!({"colors": {"primary": "nope"}})));
        assert_eq!(issues.len(), 2 + COLORS.len());
        assert_eq!((issues[0].field.as_str(), issues[0].code), ("name", "REQUIRED"));
        assert_eq!((issues[2].field.as_str(), issues[2].code), ("colors.primary", "INVALID_COLOR"));
        assert_eq!(issues[3].message, "Color primaryHover is required");
    }

    #[test]
    fn colours_are_those_the_old_server_takes() {
        for good in [
            "#abc",
            "#abcd",
            "#A1B2C3",
            "#A1B2C3D4",
            "rgb(1 2 3)",
            "rgba(0,0,0,.5)",
            "hsl(1,2%,3%)",
            "var(--x)",
            "Red",
            "currentColor",
        ] {
            assert!(is_color(good), "{good}");
        }
        for bad in ["", "#ab", "#abcde", "#ggg", "rgb()", "rgb(1", "purple", "var(x)", "#abc\n"] {
            assert!(!is_color(bad), "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_javascript_writes_them() {
        assert_eq!(iso_utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_utc(1_709_164_799_999), "2024-02-28T23:59:59.999Z");
        assert_eq!(iso_utc(1_709_164_800_000), "2024-02-29T00:00:00.000Z");
    }
}
