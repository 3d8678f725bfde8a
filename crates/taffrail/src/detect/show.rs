//! What a replay came to, as a table or as JSON.

use anyhow::Result;
use taffrail_event::TimestampMs;
use taffrail_server::calendar::Zone;

use super::replay::{Outcome, Replayed};
use crate::print::{count, out};

/// How much of a session's id a table shows.
const ID_CHARS: usize = 8;

pub(super) fn show(outcome: &Outcome, zone: &Zone, json: bool) -> Result<()> {
    if json {
        return out(&serde_json::to_string(outcome)?);
    }
    for episode in &outcome.episodes {
        out(&line(episode, zone))?;
    }
    let totals = &outcome.totals;
    let fired: Vec<String> = totals.fired.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let fired = if fired.is_empty() { "nothing".to_owned() } else { fired.join(", ") };
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    out(&format!(
        "{} with {} and {} (${:.2}): {fired} fired; {} silent; ${:.2} was spent on what fired, after it had",
        count(number(totals.sessions), "session"),
        count(number(totals.calls), "call"),
        count(number(totals.requests), "request"),
        usd(totals.cost_nano_usd),
        count(number(totals.silent_sessions), "session"),
        usd(totals.saved_nano_usd),
    ))
}

fn line(episode: &Replayed, zone: &Zone) -> String {
    let fired = &episode.fired;
    let session: String = fired.scope.session_id.chars().take(ID_CHARS).collect();
    let agent: String = fired.scope.agent_id.chars().take(ID_CHARS).collect();
    let whose = if agent.is_empty() { session } else { format!("{session}/{agent}") };
    let money = |nano: Option<i64>| nano.map_or_else(|| "-".to_owned(), |nano| format!("${:.2}", usd(nano)));
    format!(
        "{}  {:<18} {:<8} {:<17} {:>8} spent {:>8} after  {}",
        zone.second_of(TimestampMs::clamped(fired.at_ms)),
        fired.detector.name(),
        fired.severity.name(),
        whose,
        money(fired.cost.nano_usd),
        money(episode.saved_nano_usd),
        episode.last.summary,
    )
}

#[allow(clippy::cast_precision_loss, reason = "cents are shown")]
fn usd(nano: i64) -> f64 {
    nano as f64 / 1e9
}
