//! Retry loop: an agent makes the same call again and again, gets the same answer, and changes nothing in between.
//!
//! Three forms, each of one agent, since its last prompt by a person and since anything may have changed (a file, git, or
//! a command that is not known only to look):
//! - the same tool and input failed, or was denied, the same way `failures` times;
//! - calls at the same target failed with the same error `same_error` times, whatever their input;
//! - the same tool and input gave the same result `same_result` times.
//!
//! Calls that wait (`sleep 30 && gh run view`) need `waits` repetitions, the agent's own notes never count, and of all the
//! agent's calls since the first at least one in [`DENSITY`] must be a repetition.

use serde::{Deserialize, Serialize};
use taffrail_analytics::trace::{Call, Outcome};

use super::{Detector, Out, Scene, call_ref, named};
use crate::bounded::{Lru, Ring, key_of};
use crate::config::{Check, ConfigError};
use crate::episode::Reading;
use crate::finding::{Action, CALLS_MAX, CallRef, Evidence, Response, Severity, Unit};
use crate::nature::{self, Nature};

/// What it is.
pub const NOUN: &str = "retry loop";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Pause],
    person: "The agent repeats a call that cannot succeed as things are. Pause it and tell it what is wrong.",
    agent: "You have made this same call several times with the same result. Do not repeat it: change something, or ask.",
};

/// Inputs that are remembered of one agent: with one call in four a repetition, more cannot loop at once.
const INPUTS_MAX: usize = 24;
/// Errors that are remembered of one agent.
const ERRORS_MAX: usize = 12;
/// One call in so many must be a repetition.
pub const DENSITY: u64 = 4;

/// `[detectors.retry_loop]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// The same call failed so often, the same way. 3: a second try is prudence, a third without a change is a loop.
    pub failures: u32,
    /// The same error from the same target so often, by different inputs. 5: an agent may feel its way.
    pub same_error: u32,
    /// The same call gave the same result so often. 5: looking again is cheap and at times right.
    pub same_result: u32,
    /// So often for calls that wait. 20: ten minutes of polling by half minutes.
    pub waits: u32,
    /// From what was spent since the first call on it is critical, in US dollars.
    pub critical_usd: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, failures: 3, same_error: 5, same_result: 5, waits: 20, critical_usd: 5.0 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("failures", self.failures, 2, 1_000)?;
        check.count("same_error", self.same_error, 2, 1_000)?;
        check.count("same_result", self.same_result, 2, 1_000)?;
        check.count("waits", self.waits, 2, 100_000)?;
        check.number("critical_usd", self.critical_usd, 0.0, 1e6)
    }
}

/// What was tried, and how often with the same end.
#[derive(Clone, Debug)]
struct Attempts {
    /// How it ended.
    end: u64,
    count: u32,
    began_ms: i64,
    last_ended_ms: i64,
    first_step: u64,
    tool_ms: i64,
    calls: Ring<CallRef>,
}

impl Attempts {
    fn new(end: u64, call: &Call, step: u64) -> Self {
        Self {
            end,
            count: 0,
            began_ms: call.at_ms,
            last_ended_ms: i64::MIN,
            first_step: step,
            tool_ms: 0,
            calls: Ring::new(CALLS_MAX),
        }
    }

    fn add(&mut self, call: &Call, at_ms: i64) {
        self.count = self.count.saturating_add(1);
        self.last_ended_ms = self.last_ended_ms.max(at_ms);
        self.tool_ms = self.tool_ms.saturating_add(call.duration_ms.unwrap_or(0).max(0));
        self.calls.push(call_ref(call));
    }

    /// Whether the repetitions are most of what the agent does.
    fn is_dense(&self, step: u64) -> bool {
        u64::from(self.count) * DENSITY > step.saturating_sub(self.first_step)
    }
}

/// The state of one agent.
#[derive(Clone, Debug)]
pub(crate) struct RetryLoop {
    by_input: Lru<u64, Attempts>,
    by_error: Lru<u64, Attempts>,
    step: u64,
}

impl Default for RetryLoop {
    fn default() -> Self {
        Self { by_input: Lru::new(INPUTS_MAX), by_error: Lru::new(ERRORS_MAX), step: 0 }
    }
}

impl RetryLoop {
    pub(crate) fn ended(&mut self, scene: &Scene<'_>, call: &Call, nature: Nature, out: &mut Out<'_>) {
        if !scene.config.retry_loop.enabled || nature.bookkeeping {
            return;
        }
        self.step += 1;
        if call.outcome == Outcome::Interrupted {
            return self.attended(scene, out);
        }
        #[allow(clippy::cast_sign_loss, reason = "a hash")]
        let input = (call.input_hash != 0).then_some(call.input_hash as u64);
        if nature.may_have_changed {
            self.changed(input, scene, out);
        }
        let Some((end, failed)) = end_of(call) else {
            if let Some(input) = input.filter(|input| self.by_input.remove(input).is_some()) {
                out.over(scene, Detector::RetryLoop, input);
            }
            return;
        };
        let repeated =
            input.is_some_and(|input| self.same_call(input, end, failed, scene, call, nature, out));
        if failed && !repeated && !nature.waits {
            self.same_error(scene, call, out);
        }
    }

    /// A person is there: what went before is attended.
    pub(crate) fn attended(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        self.by_input.drain().for_each(drop);
        self.by_error.drain().for_each(drop);
        out.over_all(scene, Detector::RetryLoop);
    }

    /// What failed before may succeed now; only a repetition of the very call goes on.
    fn changed(&mut self, own: Option<u64>, scene: &Scene<'_>, out: &mut Out<'_>) {
        for (input, _) in self.by_input.iter().filter(|(input, _)| Some(*input) != own) {
            out.over(scene, Detector::RetryLoop, *input);
        }
        self.by_input.retain(|input, _| Some(*input) == own);
        for (error, _) in self.by_error.drain() {
            out.over(scene, Detector::RetryLoop, error);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one call")]
    fn same_call(
        &mut self,
        input: u64,
        end: u64,
        failed: bool,
        scene: &Scene<'_>,
        call: &Call,
        nature: Nature,
        out: &mut Out<'_>,
    ) -> bool {
        let options = &scene.config.retry_loop;
        let step = self.step;
        let (attempts, gone) = self.by_input.entry(input, || Attempts::new(end, call, step));
        if let Some((gone, _)) = gone {
            out.over(scene, Detector::RetryLoop, gone);
        }
        if attempts.end != end {
            *attempts = Attempts::new(end, call, step);
            out.over(scene, Detector::RetryLoop, input);
        }
        // One of several at once is no repetition.
        if attempts.count > 0 && call.at_ms < attempts.last_ended_ms {
            return false;
        }
        attempts.add(call, scene.at_ms);
        let usual = if failed { options.failures } else { options.same_result };
        let threshold = if nature.waits { options.waits } else { usual };
        if attempts.count < threshold || !attempts.is_dense(step) {
            return false;
        }
        let what = if failed { "failed the same way" } else { "gave the same result" };
        let reading = reading(input, attempts, threshold, what, scene, call);
        out.holds(scene, Detector::RetryLoop, reading);
        true
    }

    fn same_error(&mut self, scene: &Scene<'_>, call: &Call, out: &mut Out<'_>) {
        let Some(failure) = &call.error else { return };
        let target = nature::target(call);
        let error =
            key_of(&[b"error", failure.fingerprint.as_bytes(), call.tool.as_bytes(), target.as_bytes()]);
        let step = self.step;
        let (attempts, gone) = self.by_error.entry(error, || Attempts::new(error, call, step));
        if let Some((gone, _)) = gone {
            out.over(scene, Detector::RetryLoop, gone);
        }
        if attempts.count > 0 && call.at_ms < attempts.last_ended_ms {
            return;
        }
        attempts.add(call, scene.at_ms);
        let threshold = scene.config.retry_loop.same_error;
        if attempts.count >= threshold && attempts.is_dense(step) {
            let reading = reading(
                error,
                attempts,
                threshold,
                "and others like it failed with the same error",
                scene,
                call,
            );
            out.holds(scene, Detector::RetryLoop, reading);
        }
    }
}

/// How a call ended, as far as it tells, and whether badly.
fn end_of(call: &Call) -> Option<(u64, bool)> {
    match call.outcome {
        Outcome::Failed => {
            let error = call.error.as_ref();
            let fingerprint = error.map_or("", |error| error.fingerprint.as_str());
            Some((key_of(&[b"failed", fingerprint.as_bytes()]), true))
        }
        Outcome::Denied => Some((key_of(&[b"denied"]), true)),
        Outcome::Succeeded | Outcome::Ended => {
            Some((key_of(&[b"result", &call.result_hash?.to_le_bytes()]), false))
        }
        Outcome::Running | Outcome::Abandoned | Outcome::Interrupted => None,
    }
}

fn reading(
    pattern: u64,
    attempts: &Attempts,
    threshold: u32,
    what: &str,
    scene: &Scene<'_>,
    call: &Call,
) -> Reading {
    let cost = scene.spend.since(attempts.began_ms);
    let critical = scene.config.retry_loop.critical_usd;
    let is_critical = attempts.count >= 3 * threshold || (critical > 0.0 && cost.known_usd() >= critical);
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of one loop")]
    let (tool_ms, span_ms) =
        (attempts.tool_ms as f64, scene.at_ms.saturating_sub(attempts.began_ms).max(0) as f64);
    let mut evidence = Evidence::default()
        .against("repetitions", f64::from(attempts.count), Unit::Count, f64::from(threshold))
        .figure("span", span_ms, Unit::Ms)
        .figure("tool_time", tool_ms, Unit::Ms)
        .text("call", &named(call))
        .calls(attempts.calls.iter().cloned());
    if let Some(error) = &call.error {
        evidence = evidence.text("error", &error.message);
    }
    Reading {
        pattern,
        level: f64::from(attempts.count),
        severity: if is_critical { Severity::Critical } else { Severity::Warning },
        began_ms: attempts.began_ms,
        summary: format!(
            "the same call {what} {} times, and nothing changed in between: {}",
            attempts.count,
            named(call)
        ),
        evidence,
        cost,
    }
}
