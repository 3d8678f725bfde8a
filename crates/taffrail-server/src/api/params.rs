//! Query strings: read typed, refused as a problem that says what is wrong.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use taffrail_analytics::window::Window;
use taffrail_event::{RowId, TimestampMs};

use crate::problem::Problem;

/// A typed query string.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::BadRequest(error.to_string())),
        }
    }
}

/// Rows of a page, unless told.
const PAGE_DEFAULT: usize = 100;
/// Rows of a page, at most.
pub(crate) const PAGE_MAX: usize = taffrail_store::EVENTS_PAGE_MAX;

/// A parameter that was given and is not empty.
pub(crate) fn text(value: Option<String>) -> Option<String> {
    value.filter(|v| !v.is_empty())
}

/// `limit`: 1 to [`PAGE_MAX`].
pub(crate) fn limit(value: Option<&str>) -> Result<usize, Problem> {
    match value {
        None | Some("") => Ok(PAGE_DEFAULT),
        Some(given) => match given.parse() {
            Ok(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
            _ => Err(Problem::BadRequest(format!("limit is `{given}`; give 1 to {PAGE_MAX}"))),
        },
    }
}

/// `cursor`: what the last page gave as `next_cursor`.
pub(crate) fn cursor(value: Option<&str>) -> Result<Option<RowId>, Problem> {
    match value {
        None | Some("") => Ok(None),
        Some(given) => match given.parse() {
            Ok(id) => Ok(Some(RowId(id))),
            Err(_) => Err(Problem::BadRequest(format!(
                "cursor `{given}` is none; give next_cursor of the page before"
            ))),
        },
    }
}

/// A point in time, in milliseconds since the Unix epoch.
pub(crate) fn time(name: &str, value: Option<&str>) -> Result<Option<TimestampMs>, Problem> {
    match value {
        None | Some("") => Ok(None),
        Some(given) => match given.parse() {
            Ok(ms) => Ok(Some(TimestampMs::clamped(ms))),
            Err(_) => Err(Problem::BadRequest(format!(
                "{name} is `{given}`; give milliseconds since the Unix epoch, such as 1767225600000"
            ))),
        },
    }
}

/// A window by its name.
pub(crate) fn window(name: &str) -> Result<Window, Problem> {
    Window::parse(name).ok_or_else(|| {
        let known: Vec<&str> = Window::ALL.iter().map(|w| w.name()).collect();
        Problem::BadRequest(format!("window `{name}` is not known; there are {}", known.join(" ")))
    })
}

/// A parameter that is one of some names.
pub(crate) fn named<T>(
    what: &str,
    value: Option<String>,
    known: &[&str],
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(value) = value else { return Ok(None) };
    parse(&value).map(Some).ok_or_else(|| {
        Problem::BadRequest(format!("{what} `{value}` is not known; there are {}", known.join(", ")))
    })
}

/// A row id in a path.
pub(crate) fn row_id(text: &str, what: &'static str) -> Result<RowId, Problem> {
    text.parse().map(RowId).map_err(|_| Problem::NotFound(what))
}
