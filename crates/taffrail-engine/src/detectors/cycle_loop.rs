//! Cycle loop: an agent goes through the same two to eight calls over and over, and each gives what it gave before.
//!
//! Over one agent's calls in the order they ended, without its own notes: the last `k` calls equal the `k` before them, and
//! so on, `cycles` times, by tool, input and result (or the failure's fingerprint); or `blind_cycles` times by tool and
//! input alone, where results differ or are not known. A cycle of one is a retry loop. A cycle with a call that waits is
//! polling and needs `waits`. A person's prompt begins anew.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use taffrail_analytics::trace::{Call, Outcome};

use super::{Detector, Out, Scene, call_ref};
use crate::bounded::{Ring, key_of};
use crate::config::{Check, ConfigError};
use crate::episode::Reading;
use crate::finding::{Action, CallRef, Evidence, Response, Severity, Unit};
use crate::nature::Nature;

/// What it is.
pub const NOUN: &str = "cycle of calls";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Pause],
    person: "The agent goes in circles. Pause it and give it another approach.",
    agent: "Your last calls repeat a cycle you went through before, with the same results. Stop and choose another approach.",
};

/// The longest cycle that is looked for.
pub const PERIOD_MAX: usize = 8;
/// Calls that are remembered of one agent: how long they match is counted, so two cycles are enough.
const REMEMBERED_MAX: usize = 2 * PERIOD_MAX;

/// `[detectors.cycle_loop]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Full cycles with the same results. 3: two of them happen when an agent checks what it did.
    pub cycles: u32,
    /// Full cycles with the same inputs whatever their results. 6: a build after each of a person's edits looks so, too.
    pub blind_cycles: u32,
    /// Full cycles where one of the calls waits.
    pub waits: u32,
    /// From what was spent since the first cycle on it is critical, in US dollars.
    pub critical_usd: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, cycles: 3, blind_cycles: 6, waits: 20, critical_usd: 5.0 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("cycles", self.cycles, 2, 1_000)?;
        check.count("blind_cycles", self.blind_cycles, 2, 1_000)?;
        check.count("waits", self.waits, 2, 100_000)?;
        check.number("critical_usd", self.critical_usd, 0.0, 1e6)
    }
}

#[derive(Clone, Debug)]
struct Step {
    input: u64,
    /// With its end; none where that is not known.
    whole: Option<u64>,
    waits: bool,
    began_ms: i64,
    tool: Arc<str>,
    call: CallRef,
}

/// How long the calls have matched those `k` places before, and when that began.
#[derive(Clone, Copy, Debug, Default)]
struct Matched {
    length: u32,
    began_ms: i64,
}

/// The state of one agent.
#[derive(Clone, Debug)]
pub(crate) struct CycleLoop {
    steps: Ring<Step>,
    /// By period, from 2 on: whole calls, and inputs alone.
    matched: [[Matched; 2]; PERIOD_MAX - 1],
}

impl Default for CycleLoop {
    fn default() -> Self {
        Self { steps: Ring::new(REMEMBERED_MAX), matched: [[Matched::default(); 2]; PERIOD_MAX - 1] }
    }
}

impl CycleLoop {
    pub(crate) fn ended(&mut self, scene: &Scene<'_>, call: &Call, nature: Nature, out: &mut Out<'_>) {
        if !scene.config.cycle_loop.enabled || nature.bookkeeping {
            return;
        }
        if call.outcome == Outcome::Interrupted || call.input_hash == 0 {
            return self.attended(scene, out);
        }
        let step = step(call, nature);
        let mut told = false;
        for period in 2..=PERIOD_MAX {
            let both = &mut self.matched[period - 2];
            let before = self.steps.back(period - 1);
            let same = [
                before.is_some_and(|before| before.whole.is_some() && before.whole == step.whole),
                before.is_some_and(|before| before.input == step.input),
            ];
            for (matched, same) in both.iter_mut().zip(same) {
                *matched = match (same, matched.length) {
                    (false, _) => Matched::default(),
                    (true, 0) => {
                        Matched { length: 1, began_ms: before.map_or(step.began_ms, |b| b.began_ms) }
                    }
                    (true, length) => {
                        Matched { length: length.saturating_add(1), began_ms: matched.began_ms }
                    }
                };
            }
        }
        self.steps.push(step);
        for period in 2..=PERIOD_MAX {
            // Only the shortest period of a cycle is told.
            told = told || self.judge(period, scene, out);
        }
        if !told {
            out.over_all(scene, Detector::CycleLoop);
        }
    }

    /// A person is there: what went before is attended.
    pub(crate) fn attended(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        self.steps.clear();
        self.matched = Default::default();
        out.over_all(scene, Detector::CycleLoop);
    }

    fn judge(&self, period: usize, scene: &Scene<'_>, out: &mut Out<'_>) -> bool {
        let options = &scene.config.cycle_loop;
        let last: Vec<&Step> = self.steps.iter().rev().take(period).collect();
        // A cycle of fewer is told by its own period, one of equal calls by the retry loop.
        let uniform = last.iter().all(|step| step.input == last[0].input);
        if last.len() < period || uniform {
            return false;
        }
        let waits = last.iter().any(|step| step.waits);
        let period_steps = u32::try_from(period).unwrap_or(u32::MAX);
        for (matched, usual) in self.matched[period - 2].iter().zip([options.cycles, options.blind_cycles]) {
            let cycles = matched.length / period_steps + 1;
            let threshold = if waits { options.waits.max(usual) } else { usual };
            if cycles >= threshold {
                out.holds(
                    scene,
                    Detector::CycleLoop,
                    reading(&last, cycles, threshold, matched.began_ms, scene),
                );
                return true;
            }
        }
        false
    }
}

fn step(call: &Call, nature: Nature) -> Step {
    #[allow(clippy::cast_sign_loss, reason = "a hash")]
    let input = call.input_hash as u64;
    let end = match call.outcome {
        Outcome::Failed => call.error.as_ref().map(|e| key_of(&[b"failed", e.fingerprint.as_bytes()])),
        Outcome::Denied => Some(key_of(&[b"denied"])),
        _ => call.result_hash.map(|hash| key_of(&[b"result", &hash.to_le_bytes()])),
    };
    Step {
        input,
        whole: end.map(|end| key_of(&[&input.to_le_bytes(), &end.to_le_bytes()])),
        waits: nature.waits,
        began_ms: call.at_ms,
        tool: call.tool.clone(),
        call: call_ref(call),
    }
}

fn reading(last: &[&Step], cycles: u32, threshold: u32, began_ms: i64, scene: &Scene<'_>) -> Reading {
    // The same whichever of its calls came last: the sum does not depend on where the cycle is cut.
    let pattern = last.iter().fold(last.len() as u64, |sum, step| sum.wrapping_add(step.input));
    let cost = scene.spend.since(began_ms);
    let critical = scene.config.cycle_loop.critical_usd;
    let is_critical = cycles >= 3 * threshold || (critical > 0.0 && cost.known_usd() >= critical);
    let tools: Vec<&str> = last.iter().rev().map(|step| &*step.tool).collect();
    let period = u32::try_from(last.len()).unwrap_or(u32::MAX);
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of one loop")]
    let span_ms = scene.at_ms.saturating_sub(began_ms).max(0) as f64;
    Reading {
        pattern,
        level: f64::from(cycles),
        severity: if is_critical { Severity::Critical } else { Severity::Warning },
        began_ms,
        summary: crate::finding::capped(&format!(
            "the same {period} calls were made {cycles} times over: {}",
            tools.join(", ")
        )),
        evidence: Evidence::default()
            .against("cycles", f64::from(cycles), Unit::Count, f64::from(threshold))
            .figure("calls_per_cycle", f64::from(period), Unit::Count)
            .figure("span", span_ms, Unit::Ms)
            .text("tools", &tools.join(", "))
            .calls(last.iter().rev().map(|step| step.call.clone())),
        cost,
    }
}
