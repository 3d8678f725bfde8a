//! Files by what agents did to them: the most touched, churn, rework, repeated reads, two agents in one file.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use taffrail_analytics::digest::{Key, Kind, file};
use taffrail_store::GroupRow;

use super::aggregates::{Ask, FreshnessJson, Given, SpanJson, cursor_of};
use super::params::{Params, text};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// By what files can be ordered.
const SORTS: [(&str, usize); 11] = [
    ("touches", file::COUNT),
    ("sessions", file::SESSIONS),
    ("reads", file::READS),
    ("writes", file::WRITES),
    ("edits", file::EDITS),
    ("deletes", file::DELETES),
    ("lines_added", file::LINES_ADDED),
    ("lines_removed", file::LINES_REMOVED),
    ("rework", file::REWORK),
    ("repeated_reads", file::REPEATED_READS),
    ("shared_changes", file::SHARED_CHANGES),
];

/// Which files.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FilesQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 24h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// `touches` unless told; `sessions reads writes edits deletes lines_added lines_removed rework repeated_reads
    /// shared_changes`. The greatest come first.
    sort: Option<String>,
    /// Only paths that contain this, letter by letter.
    q: Option<String>,
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Files by what agents did to them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FilesJson {
    /// Over which time.
    pub(crate) window: SpanJson,
    /// How fresh this is.
    pub(crate) freshness: FreshnessJson,
    /// All of the scope, also what the page and the filters leave out; the path is empty, and sessions count once for each
    /// file.
    pub(crate) totals: FileJson,
    /// Distinct paths that are told one by one.
    pub(crate) paths: i64,
    /// Touches of files that are not told one by one, since there are too many.
    pub(crate) other_touches: i64,
    /// Of one session: two agents that changed one file within 10 minutes, the latest first. Null for more than one session.
    pub(crate) shared: Option<Vec<SharedFileJson>>,
    /// The files.
    pub(crate) items: Vec<FileJson>,
    /// Opaque; null where nothing follows.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// One file.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub(crate) struct FileJson {
    /// Its path.
    pub(crate) path: String,
    /// Touches of every kind.
    pub(crate) touches: i64,
    /// Sessions whose last touch lies in the window.
    pub(crate) sessions: i64,
    /// Reads.
    pub(crate) reads: i64,
    /// Writes of the whole file.
    pub(crate) writes: i64,
    /// Edits.
    pub(crate) edits: i64,
    /// Deletes.
    pub(crate) deletes: i64,
    /// Lines added.
    pub(crate) lines_added: i64,
    /// Lines removed.
    pub(crate) lines_removed: i64,
    /// Lines added and removed together.
    pub(crate) churn_lines: i64,
    /// Changes within 10 minutes of the one before.
    pub(crate) rework: i64,
    /// Reads that told the agent nothing new.
    pub(crate) repeated_reads: i64,
    /// Their bytes.
    pub(crate) repeated_read_bytes: i64,
    /// Changes within 10 minutes of a change by another agent.
    pub(crate) shared_changes: i64,
}

/// Two agents in one file at a time.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SharedFileJson {
    /// The file.
    pub(crate) path: String,
    /// Their ids; empty for the main agent.
    pub(crate) agents: [String; 2],
    /// Changes within minutes of a change by the other.
    pub(crate) changes: u64,
    /// The first of these changes.
    pub(crate) first_ms: i64,
    /// The last of these changes.
    pub(crate) last_ms: i64,
}

impl From<GroupRow> for FileJson {
    fn from(row: GroupRow) -> Self {
        Self {
            touches: row.get(file::COUNT),
            sessions: row.get(file::SESSIONS),
            reads: row.get(file::READS),
            writes: row.get(file::WRITES),
            edits: row.get(file::EDITS),
            deletes: row.get(file::DELETES),
            lines_added: row.get(file::LINES_ADDED),
            lines_removed: row.get(file::LINES_REMOVED),
            churn_lines: row.get(file::LINES_ADDED).saturating_add(row.get(file::LINES_REMOVED)),
            rework: row.get(file::REWORK),
            repeated_reads: row.get(file::REPEATED_READS),
            repeated_read_bytes: row.get(file::REPEATED_READ_BYTES),
            shared_changes: row.get(file::SHARED_CHANGES),
            path: row.key.name,
        }
    }
}

/// Files by what agents did to them.
#[utoipa::path(
    get, path = "/api/v1/files", tag = "read", params(FilesQuery),
    responses((status = 200, body = FilesJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Params(query): Params<FilesQuery>,
) -> Result<Json<FilesJson>, Problem> {
    let order_by = sort_of(&SORTS, query.sort)?;
    let q = text(query.q);
    let ask = Ask::of(Given {
        window: query.window,
        app: query.app,
        session: query.session,
        user: query.user,
        limit: query.limit,
        cursor: query.cursor,
    })?;
    let json = app
        .read(move |reader| {
            let keep = |key: &Key| q.as_deref().is_none_or(|q| key.name.contains(q));
            let found = reader.aggregates(&ask.query(Kind::File, order_by, &keep))?;
            let facts = match &ask.scope.session {
                Some(session) => reader.session_facts(session)?,
                None => None,
            };
            let shared = |one: taffrail_analytics::files::SharedFile| SharedFileJson {
                path: one.path,
                agents: one.agents,
                changes: one.changes,
                first_ms: one.first_ms,
                last_ms: one.last_ms,
            };
            Ok(FilesJson {
                window: ask.span(),
                freshness: FreshnessJson::of(reader.digest_backlog()?, ask.to_ms),
                other_touches: super::aggregates::at(&found.other, file::COUNT),
                paths: i64::try_from(found.groups).unwrap_or(i64::MAX),
                totals: FileJson::from(GroupRow { counters: found.totals, ..GroupRow::default() }),
                shared: facts.map(|stored| stored.facts.files.shared.into_iter().map(shared).collect()),
                items: found.rows.into_iter().map(FileJson::from).collect(),
                next_cursor: cursor_of(found.next),
            })
        })
        .await?;
    Ok(Json(json))
}

/// The counter that a `sort` names; the first where none is named.
pub(crate) fn sort_of(sorts: &[(&str, usize)], given: Option<String>) -> Result<usize, Problem> {
    let Some(given) = text(given) else { return Ok(sorts.first().map_or(0, |(_, slot)| *slot)) };
    let found = sorts.iter().find(|(name, _)| *name == given);
    found.map(|(_, slot)| *slot).ok_or_else(|| {
        let known: Vec<&str> = sorts.iter().map(|(name, _)| *name).collect();
        Problem::BadRequest(format!("sort `{given}` is not known; there are {}", known.join(", ")))
    })
}
