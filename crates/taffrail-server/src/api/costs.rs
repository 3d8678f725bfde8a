//! What it cost: sums of the ledger by time, project, model, agent, user, session, label or confidence.
//!
//! Limits: [`ROWS_MAX`] rows of an answer, [`crate::calendar::CUTS_MAX`] spans of time, one label and one cut of time at once.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use jiff::civil::Weekday;
use serde::{Deserialize, Serialize};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::Confidence;
use taffrail_store::{
    ConfidenceTotals, CostBy, CostQuery, CostRow, CostTotals, LedgerRow, ReadError, Reader, Scope,
    UnpricedModel,
};

use super::money;
use super::params::{self, Params, text};
use super::types::{CostTotalsJson, UnpricedModelJson};
use crate::calendar::{Cut, Slice, Zone};
use crate::clock;
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Rows of one answer.
const ROWS_MAX: usize = 10_000;
/// The only currency that vendors bill in.
const CURRENCY: &str = "USD";
/// What the sums of the main agent are under.
const MAIN_AGENT: &str = "main";
/// What those of a subagent without a known type are under.
const SUBAGENT: &str = "subagent";
/// What a label's key begins with in `group_by`.
const LABEL: &str = "label:";

/// Which requests, and how they are summed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CostsQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`: that long, up to now. Not together with `from` and `to`; all of history without any.
    window: Option<String>,
    /// First millisecond.
    #[param(value_type = Option<i64>)]
    from: Option<String>,
    /// One past the last millisecond.
    #[param(value_type = Option<i64>)]
    to: Option<String>,
    /// Keys, separated by commas: one of `hour day week month`, and any of `app model agent user session confidence
    /// label:KEY`. One sum of all without it.
    group_by: Option<String>,
    /// IANA name of the zone whose days, weeks, months and hours are meant; the server's own unless told.
    timezone: Option<String>,
    /// `monday` (unless told) or `sunday`: the day weeks begin on.
    week_start: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// The model.
    model: Option<String>,
}

/// Sums of the ledger.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CostsJson {
    /// `USD`.
    currency: &'static str,
    /// The zone whose days, weeks, months and hours are meant.
    timezone: String,
    /// First millisecond that was asked for; null for the beginning.
    from_ms: Option<i64>,
    /// One past the last millisecond; null for the end.
    to_ms: Option<i64>,
    /// The sums: oldest first, and inside one span of time the dearest first.
    rows: Vec<CostRowJson>,
    /// Whether rows were left out: there are more than 10,000. The totals hold them.
    cut: bool,
    /// The sum of all rows.
    totals: CostTotalsJson,
    /// Models in it without a price, most tokens first: what they cost is in no figure.
    unpriced: Vec<UnpricedModelJson>,
}

/// One sum with the keys that were asked for; a key that was not is absent, one that no source told is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub(crate) struct CostRowJson {
    /// `2026-11-22`; of a week its first day; of a month `2026-11`; of an hour `2026-11-22T14:00+01:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<String>,
    /// First millisecond of that day, week, month or hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    date_from_ms: Option<i64>,
    /// One past its last millisecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    date_to_ms: Option<i64>,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    app: Option<Option<String>>,
    /// Who ran the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    user: Option<Option<String>>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    model: Option<Option<String>>,
    /// The subagent's type; `main` for the main agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    agent: Option<Option<String>>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    session_id: Option<Option<String>>,
    /// The label's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    label: Option<Option<String>>,
    /// How sure, where that is a key: `exact`, `repaired`, `lower_bound`, `estimated` or `unpriced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sureness: Option<&'static str>,
    /// The sum.
    #[serde(flatten)]
    totals: CostTotalsJson,
}

/// Sums of the ledger by any of its keys.
#[utoipa::path(
    get, path = "/api/v1/costs", tag = "read", params(CostsQuery),
    responses((status = 200, body = CostsJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn costs(
    State(app): State<App>,
    Params(query): Params<CostsQuery>,
) -> Result<Json<CostsJson>, Problem> {
    let asked = Asked::of(query)?;
    let (asked, sums) = app
        .read(move |reader| {
            let sums = asked.read(reader)?;
            Ok((asked, sums))
        })
        .await?;
    Ok(Json(asked.answer(sums?)))
}

/// Parsed and checked.
struct Asked {
    query: CostQuery,
    cut: Option<Cut>,
    zone: Zone,
    by_confidence: bool,
}

/// A sum on its way out.
struct Sum {
    row: CostRow,
    sureness: Option<Confidence>,
}

struct Sums {
    rows: Vec<Sum>,
    slices: Vec<Slice>,
    totals: CostTotals,
    unpriced: Vec<UnpricedModel>,
}

impl Asked {
    fn of(query: CostsQuery) -> Result<Self, Problem> {
        let zone = Zone::named(query.timezone.as_deref())?;
        let first = match query.week_start.as_deref() {
            None | Some("" | "monday") => Weekday::Monday,
            Some("sunday") => Weekday::Sunday,
            Some(other) => {
                return Err(Problem::BadRequest(format!("week_start is `{other}`; give monday or sunday")));
            }
        };
        let (from, to) = span(&query)?;
        let (by, cut, by_confidence) = keys(query.group_by.as_deref().unwrap_or(""), first)?;
        let scope = Scope { app: text(query.app), session: text(query.session), user: text(query.user) };
        let query = CostQuery { scope, model: text(query.model), from, to, by, ..CostQuery::default() };
        Ok(Self { query, cut, zone, by_confidence })
    }

    /// The inner error is the asker's: too many spans of time.
    fn read(&self, reader: &Reader) -> Result<Result<Sums, Problem>, ReadError> {
        let totals = money::total(reader, &self.query)?;
        let slices = match (self.cut, totals.first, totals.last) {
            (Some(cut), Some(first), Some(last)) => {
                match self.zone.cuts(cut, first, TimestampMs::clamped(last.get() + 1)) {
                    Ok(slices) => slices,
                    Err(error) => return Ok(Err(error.into())),
                }
            }
            _ => Vec::new(),
        };
        let query = CostQuery { cuts: slices.iter().map(|slice| slice.from).collect(), ..self.query.clone() };
        let rows = if self.by_confidence {
            by_confidence(reader, &query)?
        } else {
            let rows = money::read(reader, &query)?;
            rows.into_iter().map(|row| Sum { row, sureness: None }).collect()
        };
        let unpriced = if totals.of(Confidence::Unpriced).requests == 0 {
            Vec::new()
        } else {
            unpriced(reader, &self.query)?
        };
        Ok(Ok(Sums { rows, slices, totals, unpriced }))
    }

    fn answer(&self, sums: Sums) -> CostsJson {
        let mut rows = sums.rows;
        rows.retain(|sum| sum.row.totals != CostTotals::default());
        // A stable sort: rows that cost the same stay in the order of their keys.
        rows.sort_by_key(|sum| (sum.row.bucket, std::cmp::Reverse(sum.row.totals.cost_nano_usd)));
        let cut = rows.len() > ROWS_MAX;
        rows.truncate(ROWS_MAX);
        CostsJson {
            currency: CURRENCY,
            timezone: self.zone.name().to_owned(),
            from_ms: self.query.from.map(TimestampMs::get),
            to_ms: self.query.to.map(TimestampMs::get),
            rows: rows.into_iter().map(|sum| self.row(sum, &sums.slices)).collect(),
            cut,
            totals: (&sums.totals).into(),
            unpriced: sums.unpriced.iter().map(UnpricedModelJson::from).collect(),
        }
    }

    fn row(&self, sum: Sum, slices: &[Slice]) -> CostRowJson {
        let by = &self.query.by;
        let slice = slices.get(sum.row.bucket);
        CostRowJson {
            date: slice.map(|slice| slice.label.clone()),
            date_from_ms: slice.map(|slice| slice.from.get()),
            date_to_ms: slice.map(|slice| slice.to.get()),
            app: by.app.then(|| told(sum.row.app)),
            user: by.user.then(|| told(sum.row.user)),
            model: by.model.then(|| told(sum.row.model)),
            agent: by.agent.then(|| told(sum.row.agent)),
            session_id: by.session.then(|| told(sum.row.session)),
            label: by.label.is_some().then(|| told(sum.row.label)),
            sureness: sum.sureness.map(Confidence::name),
            totals: (&sum.row.totals).into(),
        }
    }
}

/// The store keeps what nobody told as empty.
fn told(key: Option<String>) -> Option<String> {
    key.filter(|key| !key.is_empty())
}

fn span(query: &CostsQuery) -> Result<(Option<TimestampMs>, Option<TimestampMs>), Problem> {
    let from = params::time("from", query.from.as_deref())?;
    let to = params::time("to", query.to.as_deref())?;
    match query.window.as_deref() {
        None | Some("") => Ok((from, to)),
        Some(_) if from.is_some() || to.is_some() => {
            Err(Problem::BadRequest("window and from or to exclude each other; give one of them".to_owned()))
        }
        Some(name) => {
            let now = clock::now();
            let bounds = params::window(name)?.bounds(now.get());
            Ok((Some(TimestampMs::clamped(bounds.from)), Some(TimestampMs::clamped(bounds.to + 1))))
        }
    }
}

/// `group_by` as the store's keys, the cut of time, and whether by confidence.
fn keys(group_by: &str, first: Weekday) -> Result<(CostBy, Option<Cut>, bool), Problem> {
    let (mut by, mut cut, mut by_confidence) = (CostBy::default(), None, false);
    for key in group_by.split(',').map(str::trim).filter(|key| !key.is_empty()) {
        let time = match key {
            "hour" => Some(Cut::Hour),
            "day" => Some(Cut::Day),
            "week" => Some(Cut::Week(first)),
            "month" => Some(Cut::Month),
            _ => None,
        };
        let twice = match (key, key.strip_prefix(LABEL)) {
            _ if time.is_some() => std::mem::replace(&mut cut, time).is_some(),
            (_, Some(label)) if !label.is_empty() => by.label.replace(label.to_owned()).is_some(),
            ("app", _) => std::mem::replace(&mut by.app, true),
            ("model", _) => std::mem::replace(&mut by.model, true),
            ("agent", _) => std::mem::replace(&mut by.agent, true),
            ("user", _) => std::mem::replace(&mut by.user, true),
            ("session", _) => std::mem::replace(&mut by.session, true),
            ("confidence", _) => std::mem::replace(&mut by_confidence, true),
            _ => {
                let key: String = key.chars().take(64).collect();
                return Err(Problem::Refused {
                    detail: format!("group_by has `{key}`, which is not known"),
                    hint:
                        "give any of hour day week month app model agent user session confidence label:KEY, \
                           separated by commas"
                            .to_owned(),
                });
            }
        };
        if twice {
            return Err(Problem::Refused {
                detail: format!("group_by has a second key of the kind of `{key}`"),
                hint: "give each key once, at most one of hour day week month, and at most one label"
                    .to_owned(),
            });
        }
    }
    Ok((by, cut, by_confidence))
}

/// The store's sums do not tell tokens by confidence: the rows do.
fn by_confidence(reader: &Reader, query: &CostQuery) -> Result<Vec<Sum>, ReadError> {
    let by = &query.by;
    let labels = match &by.label {
        Some(_) => labels_of_sessions(reader, query)?,
        None => HashMap::new(),
    };
    let mut sums: BTreeMap<_, Sum> = BTreeMap::new();
    reader.each_request(query, &mut |request| {
        let bucket = query.cuts.partition_point(|cut| *cut <= request.ts);
        if bucket == 0 && !query.cuts.is_empty() {
            return;
        }
        let Some(sureness) = request.confidence else { return };
        let agent = request.agent_type.clone().filter(|_| request.agent_id.is_some());
        let row = CostRow {
            bucket: bucket.saturating_sub(1),
            app: by.app.then(|| request.app.clone()),
            user: by.user.then(|| request.user.clone().unwrap_or_default()),
            model: by.model.then(|| request.model.clone()),
            agent: by.agent.then(|| match (&request.agent_id, agent) {
                (None, _) => MAIN_AGENT.to_owned(),
                (Some(_), kind) => kind.unwrap_or_else(|| SUBAGENT.to_owned()),
            }),
            session: by.session.then(|| request.session_id.clone()),
            label: labels.get(&request.session_id).cloned(),
            totals: CostTotals::default(),
        };
        let key = (
            row.bucket,
            row.app.clone(),
            row.user.clone(),
            row.model.clone(),
            row.agent.clone(),
            row.session.clone(),
            row.label.clone(),
            sureness,
        );
        let sum = sums.entry(key).or_insert(Sum { row, sureness: Some(sureness) });
        sum.row.totals.add(&totals_of(request, sureness));
    })?;
    Ok(sums.into_values().collect())
}

fn labels_of_sessions(reader: &Reader, query: &CostQuery) -> Result<HashMap<String, String>, ReadError> {
    let by = CostBy { session: true, label: query.by.label.clone(), ..CostBy::default() };
    let rows = money::read(reader, &CostQuery { cuts: Vec::new(), by, ..query.clone() })?;
    Ok(rows.into_iter().filter_map(|row| Some((row.session?, row.label?))).collect())
}

/// One request as a sum. What is only derived from the client's total is no request.
pub(crate) fn totals_of(request: &LedgerRow, confidence: Confidence) -> CostTotals {
    let requests = i64::from(request.sources != 0);
    let cost_nano_usd = request.cost_nano_usd.unwrap_or(0);
    let mut totals = CostTotals {
        requests,
        usage: request.usage,
        cost_nano_usd,
        first: Some(request.ts),
        last: Some(request.ts),
        ..CostTotals::default()
    };
    if let Some(at) = Confidence::ALL.iter().position(|one| *one == confidence) {
        totals.by_confidence[at] = ConfidenceTotals { requests, cost_nano_usd };
    }
    totals
}

/// Models with requests that have no price, most tokens first.
fn unpriced(reader: &Reader, query: &CostQuery) -> Result<Vec<UnpricedModel>, ReadError> {
    let by = CostBy { model: true, ..CostBy::default() };
    let rows = money::read(reader, &CostQuery { cuts: Vec::new(), by, ..query.clone() })?;
    let mut models = Vec::new();
    for row in rows {
        let unpriced = row.totals.of(Confidence::Unpriced).requests;
        let (Some(model), Some(first), Some(last)) = (row.model, row.totals.first, row.totals.last) else {
            continue;
        };
        if unpriced == 0 {
            continue;
        }
        let mut found = UnpricedModel { model, requests: unpriced, usage: row.totals.usage, first, last };
        if unpriced < row.totals.requests {
            // Priced from some day on: what came before is told apart by the rows.
            let mut totals = CostTotals::default();
            let of_model = CostQuery { model: Some(found.model.clone()), ..query.clone() };
            reader.each_request(&of_model, &mut |request| {
                if request.confidence == Some(Confidence::Unpriced) {
                    totals.add(&totals_of(request, Confidence::Unpriced));
                }
            })?;
            found.usage = totals.usage;
        }
        models.push(found);
    }
    models.sort_by_key(|model| std::cmp::Reverse(model.usage.total()));
    Ok(models)
}
