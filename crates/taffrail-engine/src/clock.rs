//! Time as the engine counts it. The wall clock may jump: a laptop sleeps, a clock is set. Silence is therefore measured
//! in awake time, which only grows, and by no more than [`STEP_MAX_MS`] from one step to the next.

/// The most awake time that passes between two steps, in milliseconds; ticks come far more often.
pub(crate) const STEP_MAX_MS: i64 = 120_000;
/// How far ahead of the engine's clock a signal's own time may lie; beyond it the engine's counts.
pub(crate) const AHEAD_MAX_MS: i64 = 300_000;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    last_ms: Option<i64>,
    awake_ms: i64,
    pub(crate) jumps: u64,
}

impl Clock {
    /// Goes to `now_ms`, and gives awake time since the first step, in milliseconds.
    pub(crate) fn step(&mut self, now_ms: i64) -> i64 {
        let passed = self.last_ms.map_or(0, |last| now_ms.saturating_sub(last));
        if !(-1_000..=STEP_MAX_MS).contains(&passed) {
            self.jumps += 1;
        }
        self.awake_ms = self.awake_ms.saturating_add(passed.clamp(0, STEP_MAX_MS));
        self.last_ms = Some(now_ms);
        self.awake_ms
    }
}

/// When a signal happened: as it says, but never far in the future.
pub(crate) fn moment(at_ms: i64, now_ms: i64) -> i64 {
    if at_ms > now_ms.saturating_add(AHEAD_MAX_MS) { now_ms } else { at_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_counts_for_little_and_never_backwards() {
        let mut clock = Clock::default();
        assert_eq!(clock.step(1_000), 0);
        assert_eq!(clock.step(31_000), 30_000);
        assert_eq!(clock.step(i64::MAX), 30_000 + STEP_MAX_MS);
        assert_eq!(clock.step(i64::MIN), 30_000 + STEP_MAX_MS);
        assert_eq!(clock.step(i64::MIN + 5), 30_005 + STEP_MAX_MS);
        assert_eq!(clock.jumps, 2);
    }

    #[test]
    fn a_time_far_ahead_is_now() {
        assert_eq!(moment(i64::MAX, 5), 5);
        assert_eq!(moment(7, 5), 7);
        assert_eq!(moment(i64::MIN, i64::MAX), i64::MIN);
    }
}
