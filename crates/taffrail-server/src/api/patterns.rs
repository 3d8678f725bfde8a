//! Patterns of calls: tools in a row, and what was repeated without need.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use taffrail_analytics::digest::{Key, Kind, chain, cycle, quality, repetition, thrash};
use taffrail_store::{AggregateQuery, GroupRow, ReadError, Reader};

use super::aggregates::{Ask, FreshnessJson, Given, SpanJson, at, cursor_of, percent};
use super::files::sort_of;
use super::money::usd;
use super::params::{Params, text};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Between the tools of a chain's key.
const JOINT: &str = " > ";
/// By what chains can be ordered.
const CHAIN_SORTS: [(&str, usize); 4] = [
    ("count", chain::COUNT),
    ("sessions", chain::SESSIONS),
    ("failed", chain::FAILED),
    ("work_ms", chain::WORK_MS),
];
/// Patterns of each kind that one list of all kinds is made of, the most frequent.
const MERGED_MAX: usize = 1_000;

/// Which chains.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChainsQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 24h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// How many tools in a row, 2 to 5; all of these unless told.
    #[param(value_type = Option<u8>)]
    n: Option<String>,
    /// Only chains with this tool in them.
    tool: Option<String>,
    /// `count` unless told; `sessions failed work_ms`. The greatest come first.
    sort: Option<String>,
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Tools in a row of one agent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ChainsJson {
    /// Over which time.
    pub(crate) window: SpanJson,
    /// How fresh this is.
    pub(crate) freshness: FreshnessJson,
    /// Chains of every length in the scope, also those that are not told.
    pub(crate) chains: i64,
    /// Of these, the ones that are not told one by one, since there are too many.
    pub(crate) other: i64,
    /// The chains.
    pub(crate) items: Vec<ChainJson>,
    /// Opaque; null where nothing follows.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// One chain of tools.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ChainJson {
    /// In order.
    pub(crate) tools: Vec<String>,
    /// How many.
    pub(crate) n: usize,
    /// How often it was seen.
    pub(crate) count: i64,
    /// Sessions that had it last in the window.
    pub(crate) sessions: i64,
    /// Chains in which a call failed.
    pub(crate) failed: i64,
    /// Of all.
    pub(crate) failed_percent: Option<f64>,
    /// Median of the sums of the calls' durations, of chains whose every call has one.
    pub(crate) duration_ms_p50: Option<i64>,
    /// Time the tools worked, over all chains.
    pub(crate) work_ms: i64,
}

impl From<GroupRow> for ChainJson {
    fn from(row: GroupRow) -> Self {
        let tools: Vec<String> = row.key.name.split(JOINT).map(str::to_owned).collect();
        Self {
            // A key that was cut has lost tools; how many there were is told beside it.
            n: row.key.detail.parse().unwrap_or(tools.len()),
            tools,
            count: row.get(chain::COUNT),
            sessions: row.get(chain::SESSIONS),
            failed: row.get(chain::FAILED),
            failed_percent: percent(row.get(chain::FAILED), row.get(chain::COUNT)),
            duration_ms_p50: row.histogram.median(),
            work_ms: row.get(chain::WORK_MS),
        }
    }
}

/// Tools in a row of one agent, the most frequent first.
#[utoipa::path(
    get, path = "/api/v1/patterns/chains", tag = "read", params(ChainsQuery),
    responses((status = 200, body = ChainsJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn chains(
    State(app): State<App>,
    Params(query): Params<ChainsQuery>,
) -> Result<Json<ChainsJson>, Problem> {
    let order_by = sort_of(&CHAIN_SORTS, query.sort)?;
    let n = text(query.n);
    if let Some(n) = n.as_deref().filter(|n| !matches!(*n, "2" | "3" | "4" | "5")) {
        return Err(Problem::BadRequest(format!("n is `{n}`; give 2, 3, 4 or 5")));
    }
    let tool = text(query.tool);
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
            let keep = |key: &Key| {
                n.as_deref().is_none_or(|n| key.detail == n)
                    && tool.as_deref().is_none_or(|tool| key.name.split(JOINT).any(|one| one == tool))
            };
            let query = AggregateQuery { with_histograms: true, ..ask.query(Kind::Chain, order_by, &keep) };
            let found = reader.aggregates(&query)?;
            Ok(ChainsJson {
                window: ask.span(),
                freshness: FreshnessJson::of(reader.digest_backlog()?, ask.to_ms),
                chains: at(&found.totals, chain::COUNT),
                other: at(&found.other, chain::COUNT),
                items: found.rows.into_iter().map(ChainJson::from).collect(),
                next_cursor: cursor_of(found.next),
            })
        })
        .await?;
    Ok(Json(json))
}

/// Which repetitions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RepetitionsQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 24h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// `repetition`, `cycle` or `thrash`; all of these unless told.
    kind: Option<String>,
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What was repeated without need.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RepetitionsJson {
    /// Over which time.
    pub(crate) window: SpanJson,
    /// How fresh this is.
    pub(crate) freshness: FreshnessJson,
    /// What all patterns of the scope together wasted, each call counted once.
    pub(crate) wasted: WasteJson,
    /// The patterns: the most frequent first.
    pub(crate) items: Vec<RepetitionJson>,
    /// Opaque; null where nothing follows.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// What was wasted.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
pub(crate) struct WasteJson {
    /// Calls; null for a single pattern of repetition or thrash, which is counted by its own figures.
    pub(crate) calls: Option<i64>,
    /// Time the tools worked.
    pub(crate) seconds: f64,
    /// Tokens that the results put into the context, and the output tokens that asked for them.
    pub(crate) tokens: i64,
    /// Money of the requests that asked for them, as far as they have a price.
    pub(crate) cost_usd: f64,
}

impl WasteJson {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds for a person")]
    fn of(calls: Option<i64>, ms: i64, tokens: i64, nano_usd: i64) -> Self {
        Self { calls, seconds: ms as f64 / 1_000.0, tokens, cost_usd: usd(nano_usd) }
    }
}

/// One pattern.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RepetitionJson {
    /// `repetition` (the same tool and input again), `cycle` (a period of equal calls that came again) or `thrash`
    /// (alternating edits of one file).
    pub(crate) kind: &'static str,
    /// The tool, or those of one period; empty for thrash.
    pub(crate) tools: Vec<String>,
    /// Of a repetition: hash of tool and input, 16 hex digits.
    pub(crate) input_hash: Option<String>,
    /// Of thrash: the file.
    pub(crate) path: Option<String>,
    /// A text for a person.
    pub(crate) summary: String,
    /// Repeated calls, cycles found, or edits that flipped back or changed hands.
    pub(crate) count: i64,
    /// Sessions that had it last in the window.
    pub(crate) sessions: i64,
    /// Of a repetition: calls directly after an equal one.
    pub(crate) in_row: Option<i64>,
    /// Of a repetition: calls with the result of the one before.
    pub(crate) same_result: Option<i64>,
    /// Of a repetition: calls that failed.
    pub(crate) failed: Option<i64>,
    /// Of a cycle: times the period came again.
    pub(crate) repeats: Option<i64>,
    /// Of thrash: edits that flipped back.
    pub(crate) flips: Option<i64>,
    /// Of thrash: edits by another agent than the one before.
    pub(crate) turns: Option<i64>,
    /// What it wasted. A call can be part of more than one pattern.
    pub(crate) wasted: WasteJson,
}

/// What was repeated without need, the most frequent first.
#[utoipa::path(
    get, path = "/api/v1/patterns/repetitions", tag = "read", params(RepetitionsQuery),
    responses((status = 200, body = RepetitionsJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn repetitions(
    State(app): State<App>,
    Params(query): Params<RepetitionsQuery>,
) -> Result<Json<RepetitionsJson>, Problem> {
    let kinds = match text(query.kind).as_deref() {
        None => vec![Kind::Repetition, Kind::Cycle, Kind::Thrash],
        Some("repetition") => vec![Kind::Repetition],
        Some("cycle") => vec![Kind::Cycle],
        Some("thrash") => vec![Kind::Thrash],
        Some(other) => {
            return Err(Problem::BadRequest(format!(
                "kind `{other}` is not known; there are repetition, cycle, thrash"
            )));
        }
    };
    let ask = Ask::of(Given {
        window: query.window,
        app: query.app,
        session: query.session,
        user: query.user,
        limit: query.limit,
        cursor: query.cursor,
    })?;
    app.read(move |reader| read(reader, &ask, &kinds)).await.map(Json)
}

fn read(reader: &Reader, ask: &Ask, kinds: &[Kind]) -> Result<RepetitionsJson, ReadError> {
    let all = |_: &Key| true;
    let mut items = Vec::new();
    for kind in kinds {
        let query = AggregateQuery { skip: 0, limit: MERGED_MAX, ..ask.query(*kind, 0, &all) };
        items.extend(reader.aggregates(&query)?.rows.into_iter().map(pattern_of));
    }
    items.sort_by_key(|one| std::cmp::Reverse(one.count));
    let next = (items.len() > ask.skip.saturating_add(ask.limit)).then(|| ask.skip + ask.limit);
    let quality = ask.totals(reader, Kind::Quality)?.totals;
    Ok(RepetitionsJson {
        window: ask.span(),
        freshness: FreshnessJson::of(reader.digest_backlog()?, ask.to_ms),
        wasted: WasteJson::of(
            Some(at(&quality, quality::WASTED_CALLS)),
            at(&quality, quality::WASTED_MS),
            at(&quality, quality::WASTED_TOKENS),
            at(&quality, quality::WASTED_NANO_USD),
        ),
        items: items.into_iter().skip(ask.skip).take(ask.limit).collect(),
        next_cursor: cursor_of(next),
    })
}

fn pattern_of(row: GroupRow) -> RepetitionJson {
    let get = |slot| row.get(slot);
    let bare = RepetitionJson {
        kind: row.key.kind.name(),
        tools: Vec::new(),
        input_hash: None,
        path: None,
        summary: row.label.clone(),
        count: get(0),
        sessions: get(1),
        in_row: None,
        same_result: None,
        failed: None,
        repeats: None,
        flips: None,
        turns: None,
        wasted: WasteJson::default(),
    };
    match row.key.kind {
        Kind::Cycle => RepetitionJson {
            tools: row.key.name.split(JOINT).map(str::to_owned).collect(),
            repeats: Some(get(cycle::REPEATS)),
            wasted: WasteJson::of(
                Some(get(cycle::WASTED_CALLS)),
                get(cycle::WASTED_MS),
                get(cycle::WASTED_TOKENS),
                get(cycle::WASTED_NANO_USD),
            ),
            ..bare
        },
        Kind::Thrash => RepetitionJson {
            flips: Some(get(thrash::FLIPS)),
            turns: Some(get(thrash::TURNS)),
            wasted: WasteJson::of(
                None,
                get(thrash::WASTED_MS),
                get(thrash::WASTED_TOKENS),
                get(thrash::WASTED_NANO_USD),
            ),
            path: Some(row.key.name),
            ..bare
        },
        _ => RepetitionJson {
            in_row: Some(get(repetition::IN_ROW)),
            same_result: Some(get(repetition::SAME_RESULT)),
            failed: Some(get(repetition::FAILED)),
            wasted: WasteJson::of(
                None,
                get(repetition::WASTED_MS),
                get(repetition::WASTED_TOKENS),
                get(repetition::WASTED_NANO_USD),
            ),
            tools: vec![row.key.tool],
            input_hash: Some(row.key.name),
            ..bare
        },
    }
}
