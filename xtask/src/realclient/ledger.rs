//! Holding the ledger against what the model really served and what the client itself says it cost.

use super::model::Model;
use crate::http;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the ledger is looked at while the client works.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the last cost may take to be there; what is later is missing.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a total that is complete is watched for growing beyond it.
const WATCHED_ON: Duration = Duration::from_millis(1500);

/// The result for one scenario.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paid {
    /// Whole answers that the model sent.
    pub(crate) served: usize,
    /// Requests in the ledger.
    pub(crate) requests: usize,
    /// What they cost, in nano-dollars.
    pub(crate) cost_nano_usd: i64,
    /// From the end of an answer until its cost could be read, the slowest, in milliseconds.
    pub(crate) seen_ms_max: u128,
    /// Everything that does not add up, in words.
    pub(crate) differences: Vec<String>,
}

/// Looks at the ledger's number of requests until it is told to stop.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Vec<(Instant, usize)>>,
}

impl Watch {
    pub(crate) fn start(address: SocketAddr, token: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let looking = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !told.load(Ordering::Relaxed) {
                if let Ok(requests) = requests(address, &token)
                    && seen.last().is_none_or(|(_, before)| *before != requests)
                {
                    seen.push((Instant::now(), requests));
                }
                std::thread::sleep(LOOK_EVERY);
            }
            seen
        });
        Self { stop, looking }
    }

    /// When the ledger had so many requests.
    fn end(self) -> Vec<(Instant, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.join().unwrap_or_default()
    }
}

/// Waits until everything served is in the ledger, and looks whether it adds up. Without a watch the server was away
/// while the client worked: then the telemetry is lost, and what no transcript shows is derived from the client's total.
pub(crate) fn compare(watch: Option<Watch>, model: &Model, address: SocketAddr, token: &str) -> Result<Paid> {
    let served = model.served();
    let (was_there, timeout) = (watch.is_some(), if watch.is_some() { SETTLE_TIMEOUT } else { WATCHED_ON });
    let start = Instant::now();
    while requests(address, token)? < served.len() && start.elapsed() < timeout {
        std::thread::sleep(LOOK_EVERY);
    }
    std::thread::sleep(WATCHED_ON);
    let seen = watch.map(Watch::end).unwrap_or_default();
    let mut paid = Paid { served: served.len(), requests: requests(address, token)?, ..Paid::default() };
    if paid.requests > paid.served || (was_there && paid.requests < paid.served) {
        paid.differences
            .push(format!("{} answers served, {} requests in the ledger", paid.served, paid.requests));
    }
    let delays = served.iter().enumerate().filter_map(|(n, sent)| {
        let (at, _) = seen.iter().find(|(_, requests)| *requests > n)?;
        Some(at.saturating_duration_since(*sent).as_millis())
    });
    paid.seen_ms_max = delays.max().unwrap_or(0);
    for session in list(address, token, "/api/v1/sessions?limit=1000")? {
        let id = session["session_id"].as_str().context("a session without an id")?;
        let ledger = get(address, token, &format!("/api/v1/sessions/{id}/ledger"))?;
        check_session(&ledger, was_there, &mut paid);
    }
    Ok(paid)
}

fn check_session(ledger: &Value, was_there: bool, paid: &mut Paid) {
    for row in ledger["items"].as_array().into_iter().flatten() {
        let which = row["request_id"].as_str().unwrap_or("a row that is no request");
        let cost = row["cost_usd"].as_f64().map(nano);
        paid.cost_nano_usd += cost.unwrap_or(0);
        let told = row["told_cost_usd"].as_f64().map(nano);
        if told.is_some() && told != cost {
            paid.differences
                .push(format!("{which}: the client says {told:?} nano-dollars, the ledger {cost:?}"));
        }
        let is_derived = row["confidence"] == "estimated" && !was_there;
        if row["confidence"] != "exact" && !is_derived {
            paid.differences.push(format!("{which} is {}", row["confidence"]));
        }
    }
    let told = &ledger["reconciliation"];
    if told["client_usd"].is_number() && told["drift_usd"].as_f64().map(nano) != Some(0) {
        paid.differences.push(format!("the client's own total differs: {told}"));
    }
}

#[allow(clippy::cast_possible_truncation, reason = "dollars of a scripted session")]
fn nano(usd: f64) -> i64 {
    (usd * 1e9).round() as i64
}

fn requests(address: SocketAddr, token: &str) -> Result<usize> {
    let costs = get(address, token, "/api/v1/costs?window=30d")?;
    let requests = costs["totals"]["requests"].as_u64().context("costs without totals.requests")?;
    Ok(usize::try_from(requests)?)
}

fn list(address: SocketAddr, token: &str, target: &str) -> Result<Vec<Value>> {
    let page = get(address, token, target)?;
    Ok(page["items"].as_array().context("a page without items")?.clone())
}

fn get(address: SocketAddr, token: &str, target: &str) -> Result<Value> {
    let (status, body) = http::get(address, target, Some(token))?;
    if status != 200 {
        bail!("GET {target} answered {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body)?)
}
