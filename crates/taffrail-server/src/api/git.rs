//! Git by project and branch: what agents ran, and what the repositories' own logs say where the projects are local.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use taffrail_analytics::digest::{Key, Kind, git};
use taffrail_store::{AggregateQuery, GroupRow, ReadError, Reader, Scope};

use super::aggregates::{Ask, FreshnessJson, Given, SpanJson};
use super::params::{Params, text};
use crate::problem::{Problem, ProblemJson};
use crate::repositories::RepositoryLog;
use crate::state::App;

/// Projects that are told one by one.
const APPS_MAX: usize = 200;
/// Subcommands that are told.
const SUBCOMMANDS_MAX: usize = 50;
/// Sessions whose directories are looked at, the newest.
const SESSIONS_MAX: usize = 500;
/// Repositories whose log is read.
const REPOSITORIES_MAX: usize = 8;
/// Directories that are looked at for them.
const DIRECTORIES_MAX: usize = 24;

/// Which git commands.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GitQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 24h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// Whether the repositories' own logs are read: true unless told.
    repositories: Option<bool>,
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Git by project and branch, most commits first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct GitReportJson {
    /// Over which time.
    pub(crate) window: SpanJson,
    /// How fresh this is.
    pub(crate) freshness: FreshnessJson,
    /// All of the scope.
    pub(crate) totals: GitFiguresJson,
    /// By subcommand, the most frequent first.
    pub(crate) subcommands: Vec<SubcommandJson>,
    /// What the logs of local repositories say, whoever made the commits. Empty where nothing is local, for a single session,
    /// or where `[git] read = false`.
    pub(crate) repositories: Vec<RepositoryJson>,
    /// By project and branch.
    pub(crate) items: Vec<BranchJson>,
    /// Opaque; null where nothing follows.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// Figures of git commands that agents ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct GitFiguresJson {
    /// Commands.
    pub(crate) commands: i64,
    /// Commands of calls that failed.
    pub(crate) failed: i64,
    /// Commits made.
    pub(crate) commits: i64,
    /// Files changed, as the commands' output tells.
    pub(crate) files_changed: i64,
    /// Lines added.
    pub(crate) insertions: i64,
    /// Lines removed.
    pub(crate) deletions: i64,
}

/// One subcommand.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SubcommandJson {
    /// `commit`, `push`, ...
    pub(crate) subcommand: String,
    /// Commands.
    pub(crate) commands: i64,
    /// Of calls that failed.
    pub(crate) failed: i64,
}

/// One branch of one project.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BranchJson {
    /// The project.
    pub(crate) app: String,
    /// The branch, where the commands or their output tell one.
    pub(crate) branch: Option<String>,
    /// Its figures.
    #[serde(flatten)]
    pub(crate) figures: GitFiguresJson,
}

/// One repository.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RepositoryJson {
    /// The project of the newest session in it.
    pub(crate) app: String,
    /// What its log says.
    #[serde(flatten)]
    pub(crate) log: RepositoryLog,
}

impl GitFiguresJson {
    fn of(counters: &[i64]) -> Self {
        let at = |slot| super::aggregates::at(counters, slot);
        Self {
            commands: at(git::COUNT),
            failed: at(git::FAILED),
            commits: at(git::COMMITS),
            files_changed: at(git::FILES_CHANGED),
            insertions: at(git::INSERTIONS),
            deletions: at(git::DELETIONS),
        }
    }

    fn add(&mut self, other: &Self) {
        self.commands = self.commands.saturating_add(other.commands);
        self.failed = self.failed.saturating_add(other.failed);
        self.commits = self.commits.saturating_add(other.commits);
        self.files_changed = self.files_changed.saturating_add(other.files_changed);
        self.insertions = self.insertions.saturating_add(other.insertions);
        self.deletions = self.deletions.saturating_add(other.deletions);
    }
}

/// Git by project and branch, most commits first.
#[utoipa::path(
    get, path = "/api/v1/git", tag = "read", params(GitQuery),
    responses((status = 200, body = GitReportJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn report(
    State(app): State<App>,
    Params(query): Params<GitQuery>,
) -> Result<Json<GitReportJson>, Problem> {
    let ask = Ask::of(Given {
        window: query.window,
        app: query.app,
        session: query.session,
        user: query.user,
        limit: query.limit,
        cursor: query.cursor,
    })?;
    let wants_logs = query.repositories.unwrap_or(true)
        && app.config.git.read
        && ask.scope.session.is_none()
        && ask.scope.user.is_none();
    let (mut report, directories, ask) = app
        .read(move |reader| {
            let directories = if wants_logs {
                reader.directories(ask.scope.app.as_deref(), SESSIONS_MAX)?
            } else {
                Vec::new()
            };
            Ok((read(reader, &ask)?, directories, ask))
        })
        .await?;
    if !directories.is_empty() {
        let state = app.clone();
        let logs = move || repositories(&state, directories, &ask);
        report.repositories = tokio::task::spawn_blocking(logs).await.map_err(|_| Problem::Internal)?;
    }
    Ok(Json(report))
}

fn read(reader: &Reader, ask: &Ask) -> Result<GitReportJson, ReadError> {
    let all = |_: &Key| true;
    let rows = |scope: &Scope| -> Result<Vec<GroupRow>, ReadError> {
        let query = AggregateQuery {
            scope: scope.clone(),
            skip: 0,
            limit: usize::MAX,
            ..ask.query(Kind::Git, git::COUNT, &all)
        };
        Ok(reader.aggregates(&query)?.rows)
    };
    let mut subcommands: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut branches: BTreeMap<(String, String), GitFiguresJson> = BTreeMap::new();
    for app in apps(reader, ask)? {
        for row in rows(&Scope { app: Some(app.clone()), ..ask.scope.clone() })? {
            let figures = GitFiguresJson::of(&row.counters);
            let sum = subcommands.entry(row.key.name).or_default();
            *sum = (sum.0.saturating_add(figures.commands), sum.1.saturating_add(figures.failed));
            branches.entry((app.clone(), row.key.detail)).or_default().add(&figures);
        }
    }
    let mut subcommands: Vec<SubcommandJson> = subcommands
        .into_iter()
        .map(|(subcommand, (commands, failed))| SubcommandJson { subcommand, commands, failed })
        .collect();
    subcommands.sort_by_key(|one| std::cmp::Reverse(one.commands));
    subcommands.truncate(SUBCOMMANDS_MAX);
    let mut items: Vec<BranchJson> = branches
        .into_iter()
        .map(|((app, branch), figures)| BranchJson { app, branch: text(Some(branch)), figures })
        .collect();
    items.sort_by_key(|one| std::cmp::Reverse((one.figures.commits, one.figures.commands)));
    let next = (items.len() > ask.skip.saturating_add(ask.limit)).then(|| ask.skip + ask.limit);
    let items = items.into_iter().skip(ask.skip).take(ask.limit).collect();
    Ok(GitReportJson {
        window: ask.span(),
        freshness: FreshnessJson::of(reader.digest_backlog()?, ask.to_ms),
        totals: GitFiguresJson::of(&ask.totals(reader, Kind::Git)?.totals),
        subcommands,
        repositories: Vec::new(),
        items,
        next_cursor: super::aggregates::cursor_of(next),
    })
}

/// The projects to look at.
fn apps(reader: &Reader, ask: &Ask) -> Result<Vec<String>, ReadError> {
    match (&ask.scope.app, &ask.scope.session) {
        (Some(app), _) => Ok(vec![app.clone()]),
        (None, Some(session)) => {
            Ok(reader.session(session)?.map(|session| session.app).into_iter().collect())
        }
        (None, None) => reader.digest_apps(APPS_MAX),
    }
}

/// The logs of the directories' repositories, each once. Blocks.
fn repositories(app: &App, directories: Vec<(String, String)>, ask: &Ask) -> Vec<RepositoryJson> {
    let mut found: Vec<RepositoryJson> = Vec::new();
    for (project, directory) in directories.into_iter().take(DIRECTORIES_MAX) {
        if found.len() >= REPOSITORIES_MAX {
            break;
        }
        // A directory inside one that is known needs no git.
        let is_inside = |one: &RepositoryJson| {
            std::path::Path::new(&directory).starts_with(&one.log.directory) && directory != one.log.directory
        };
        if found.iter().any(is_inside) {
            continue;
        }
        if let Some(log) = app.repositories.log(&directory, ask.from_ms)
            && !found.iter().any(|one| one.log.directory == log.directory)
        {
            found.push(RepositoryJson { app: project, log });
        }
    }
    found
}
