//! The context: what fills it, how full it is when work begins, how often it is compacted.

use std::collections::HashMap;

use taffrail_analytics::trace::{Call, FileAction, MarkKind, Outcome, Request};

use super::kind::Kind;
use super::view::{BYTES_PER_TOKEN, Sights, View, context, cost};
use crate::nature::is_shell;

/// An output of a shell above this is a flood, in bytes ...
const SHELL_FLOOD_BYTES: i64 = 20_000;
/// ... and what is left of it by the proposed bound.
pub(super) const SHELL_KEPT_BYTES: i64 = 10_000;
/// The same of other tools.
const FLOOD_BYTES: i64 = 40_000;
/// See [`FLOOD_BYTES`].
pub(super) const KEPT_BYTES: i64 = 20_000;
/// A context is nearly full above this share of the window.
const NEARLY_FULL_PERCENT: i64 = 70;
/// The share of the window that a cleared context would have stayed below.
const CLEARED_PERCENT: i64 = 50;
/// A compaction is soon after another within so many milliseconds.
const SOON_MS: i64 = 30 * 60_000;
/// Distinct reads that are remembered of a session.
const READS_MAX: usize = 20_000;

pub(super) fn see(view: &View<'_>, sights: &mut Sights) {
    see_reads(view, sights);
    for call in &view.calls {
        see_output(view, call, sights);
    }
    see_prompts(view, sights);
    see_compactions(view, sights);
}

/// The same read of the same agent gave the same, and the first was not compacted away.
fn see_reads(view: &View<'_>, sights: &mut Sights) {
    let compactions = view.compactions();
    let mut known: HashMap<(u32, i64), (i64, i64)> = HashMap::new();
    for call in view.calls.iter().filter(|call| &*call.tool == "Read" && call.outcome == Outcome::Succeeded) {
        let Some(result) = call.result_hash.filter(|_| call.input_hash != 0) else { continue };
        let sight = sights.of(Kind::RepeatedReads, "");
        sight.chances += 1;
        let before = known.get(&(call.agent, call.input_hash)).copied();
        if known.len() < READS_MAX || before.is_some() {
            known.insert((call.agent, call.input_hash), (result, call.at_ms));
        }
        let Some((same, at_ms)) = before.filter(|(same, _)| *same == result) else { continue };
        debug_assert_eq!(same, result, "filtered");
        let gone = compactions.get(&call.agent).is_some_and(|all| {
            let next = all.partition_point(|ms| *ms < at_ms);
            all.get(next).is_some_and(|ms| *ms <= call.at_ms)
        });
        if gone {
            continue;
        }
        let bytes = call.output_bytes.unwrap_or(0).max(0);
        sight.hits += 1;
        sight.bytes = sight.bytes.saturating_add(bytes);
        sight.tokens = sight.tokens.saturating_add(bytes / BYTES_PER_TOKEN);
        sight.cost(view.carried(call, bytes / BYTES_PER_TOKEN));
        sight.time(call.duration_ms.unwrap_or(0));
        sight.call(call.id);
        if let Some(file) = call.files.iter().find(|file| file.action == FileAction::Read) {
            sight.part(&file.path);
        }
    }
}

fn see_output(view: &View<'_>, call: &Call, sights: &mut Sights) {
    let Some(bytes) = call.output_bytes.filter(|_| call.outcome.has_ended()) else { return };
    let (flood, kept) = match is_shell(&call.tool) {
        true => (SHELL_FLOOD_BYTES, SHELL_KEPT_BYTES),
        false => (FLOOD_BYTES, KEPT_BYTES),
    };
    let sight = sights.of(Kind::OutputFlood, &call.tool);
    sight.chances += 1;
    if bytes <= flood {
        return;
    }
    let tokens = (bytes - kept) / BYTES_PER_TOKEN;
    sight.hits += 1;
    sight.bytes = sight.bytes.saturating_add(bytes);
    sight.tokens = sight.tokens.saturating_add(tokens);
    sight.cost(view.carried(call, tokens));
    sight.call(call.id);
    sight.part(&call.summary);
}

/// A person's prompt in a nearly full context: every request up to the next prompt reads what is above half a window.
fn see_prompts(view: &View<'_>, sights: &mut Sights) {
    let Some(asked) = view.asked.get(&0) else { return };
    let prompts: Vec<i64> = view
        .marks
        .iter()
        .filter(|mark| matches!(mark.kind, MarkKind::Prompt { human: true }))
        .map(|mark| mark.ts_ms)
        .collect();
    for (place, at_ms) in prompts.iter().enumerate() {
        let sight = sights.of(Kind::OversizedContext, "");
        sight.chances += 1;
        let first = asked.requests.partition_point(|(request, _)| request.ts_ms <= *at_ms);
        let Some((before, _)) = first.checked_sub(1).and_then(|before| asked.requests.get(before)) else {
            continue;
        };
        let Some(window) = before.context_window.filter(|window| *window > 0) else { continue };
        if i128::from(context(before)) * 100 < i128::from(window) * i128::from(NEARLY_FULL_PERCENT) {
            continue;
        }
        sight.hits += 1;
        let until = prompts.get(place + 1).copied().unwrap_or(i64::MAX);
        let cleared = window / 100 * CLEARED_PERCENT;
        for (request, rates) in
            asked.requests[first..].iter().take_while(|(request, _)| request.ts_ms <= until)
        {
            let above = context(request).saturating_sub(cleared).max(0).min(request.cache_read);
            sight.tokens = sight.tokens.saturating_add(above);
            sight.cost(rates.map(|rates| cost(above, rates.read)));
        }
    }
}

fn see_compactions(view: &View<'_>, sights: &mut Sights) {
    let own: Vec<&Request> = view.trace.requests.iter().filter(|r| r.query_source == "compact").collect();
    let mut last: HashMap<u32, i64> = HashMap::new();
    for mark in &view.marks {
        let MarkKind::Compaction { trigger, pre_tokens, .. } = &mark.kind else { continue };
        let sight = sights.of(Kind::CompactionChurn, "");
        sight.chances += 1;
        let before = last.insert(mark.agent, mark.ts_ms);
        let is_soon = before.is_some_and(|before| mark.ts_ms.saturating_sub(before) <= SOON_MS);
        // One that a person asked for is no churn.
        if !is_soon || trigger.as_deref() == Some("manual") {
            continue;
        }
        sight.hits += 1;
        sight.tokens = sight.tokens.saturating_add(pre_tokens.unwrap_or(0));
        // Only telemetry tells what a compaction cost, as a request of its own.
        let next =
            own.partition_point(|request| request.ts_ms < mark.ts_ms.saturating_sub(COMPACT_REQUEST_MS));
        let own = own.get(next).filter(|r| r.ts_ms <= mark.ts_ms.saturating_add(COMPACT_REQUEST_MS));
        sight.cost(own.and_then(|request| request.cost_nano_usd));
    }
}

/// How far a compaction's own request and its mark are apart, in milliseconds.
const COMPACT_REQUEST_MS: i64 = 2 * 60_000;
