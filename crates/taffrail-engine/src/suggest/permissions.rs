//! A person's word on calls: asked for again and again, or never given.

use std::collections::{HashMap, HashSet};

use taffrail_analytics::trace::{Call, MarkKind, Outcome};

use super::kind::Kind;
use super::view::{Sights, View};

/// The longest wait that counts, in milliseconds: whoever is longer away waits for other reasons.
const WAIT_MAX_MS: i64 = 10 * 60_000;
/// Calls of the same input that may run at once when a question comes.
const ALIKE_MAX: usize = 16;
/// The tool whose commands are permitted one by one.
const SHELL: &str = "Bash";

/// What a permission would be about: the command of a shell, the name of any other tool.
fn subject(call: &Call) -> String {
    if &*call.tool == SHELL { call.summary.clone() } else { format!("tool:{}", call.tool) }
}

pub(super) fn see(view: &View<'_>, sights: &mut Sights) {
    let mut by_input: HashMap<(&str, i64), Vec<&Call>> = HashMap::new();
    for call in &view.calls {
        by_input.entry((&*call.tool, call.input_hash)).or_default().push(call);
    }
    for mark in &view.marks {
        let MarkKind::PermissionRequest { tool, input_hash } = &mark.kind else { continue };
        let Some(calls) = by_input.get(&(&**tool, *input_hash)) else { continue };
        let is_it = |call: &&&Call| call.ended_ms.is_none_or(|ended| ended >= mark.ts_ms);
        let begun = calls.partition_point(|call| call.at_ms <= mark.ts_ms);
        let Some(call) = calls[..begun].iter().rev().take(ALIKE_MAX).find(is_it) else { continue };
        see_request(call, mark.ts_ms, sights);
    }
    let mut counted = HashSet::new();
    for call in view.calls.iter().filter(|call| &*call.tool == SHELL && !call.summary.is_empty()) {
        let refused = call.outcome == Outcome::Denied;
        sights.of(Kind::PermissionStall, &call.summary).chances += 1;
        if refused {
            sights.of(Kind::PermissionStall, &call.summary).against += 1;
        }
        let sight = sights.of(Kind::PermissionDeniedRepeat, &call.summary);
        if refused {
            sight.hits += 1;
            sight.cost(view.asked_for(call, &mut counted));
            sight.call(call.id);
        } else if call.outcome.has_ended() {
            sight.against += 1;
        }
    }
}

fn see_request(call: &Call, asked_ms: i64, sights: &mut Sights) {
    let approved = matches!(call.outcome, Outcome::Succeeded | Outcome::Failed | Outcome::Ended);
    let Some(ended) = call.ended_ms.filter(|_| approved) else { return };
    let sight = sights.of(Kind::PermissionStall, &subject(call));
    let waited = ended.saturating_sub(asked_ms).saturating_sub(call.duration_ms.unwrap_or(0));
    sight.hits += 1;
    if &*call.tool != SHELL {
        sight.chances += 1;
    }
    sight.time(waited.clamp(0, WAIT_MAX_MS));
    sight.call(call.id);
    // Money is not what waiting costs.
    sight.unpriced += 1;
}
