//! What a session adds to the aggregate tables: counters and a histogram by (hour, kind, key), all additive.
//!
//! An aggregate is the sum of its sessions' contributions; a session that changed is replaced by adding [`difference`] of its
//! new and its old ones. Sums wrap around instead of saturating, so that taking away what was added is always exact;
//! every figure that goes in is clamped to 0..=[`FIGURE_MAX`] first, so no honest sum comes near.
//!
//! Distinct sessions cannot be summed over hours. So every kind counts `sessions` once per session and key, in the
//! hour of the *last* occurrence: over any span that ends now the sum is exactly the number of distinct sessions.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// Length of a bucket, in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;

/// The name under which everything over a limit is counted.
pub const OTHER: &str = "(other)";

/// Any single figure of a trace counts as at most this (tokens, bytes, milliseconds, lines; ten thousand dollars).
pub const FIGURE_MAX: i64 = 10_000_000_000_000;

/// One key's figures in one hour of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// Where the hour begins: a multiple of [`HOUR_MS`], milliseconds since the Unix epoch.
    pub hour_ms: i64,
    /// What is counted.
    pub key: Key,
    /// A text for a person, the same for equal keys as far as the data allow; never part of the key, empty where none.
    pub label: String,
    /// One for each of [`Kind::counters`], in that order.
    pub counters: Vec<i64>,
    /// What [`Kind::histogram`] says, in milliseconds; empty where the kind has none.
    pub histogram: Histogram,
}

/// What is counted; the meaning of the parts is said at each [`Kind`]. Each part has at most
/// [`KEY_MAX_BYTES`](super::KEY_MAX_BYTES) bytes; parts that a kind does not use are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see above")]
pub struct Key {
    pub kind: Kind,
    pub tool: String,
    pub name: String,
    pub detail: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $module:ident, $histogram:expr, {
        $($(#[$slot_doc:meta])* $slot:ident $column:literal,)*
    })*) => {
        /// A family of aggregates. Numbers and names are stored: never reuse them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in JSON and in the database.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($module),)* }
            }

            /// The kind of that number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$kind),)* _ => None }
            }

            /// The names of its counters; the first two are always `count` and `sessions`.
            pub const fn counters(self) -> &'static [&'static str] {
                match self { $(Self::$kind => $module::NAMES,)* }
            }

            /// What its histogram holds; none where it has none.
            pub const fn histogram(self) -> Option<&'static str> {
                match self { $(Self::$kind => $histogram,)* }
            }
        }

        $(
            #[doc = concat!("Places of the counters of [`Kind::", stringify!($kind), "`].")]
            #[allow(missing_docs, reason = "the names and units say it")]
            pub mod $module {
                #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "names of constants")]
                #[derive(Clone, Copy)]
                enum Slot { $($slot,)* }
                $($(#[$slot_doc])* pub const $slot: usize = Slot::$slot as usize;)*
                /// Their names.
                pub const NAMES: &[&str] = &[$($column,)*];
            }
        )*
    };
}

kinds! {
    /// Tools in a row of one agent. name: the tools joined by ` > `; detail: how many, `2` to `5`. Hour: of the last call.
    #[default]
    Chain = 1, chain, Some("sum of the calls' durations, of chains whose every call has one"), {
        COUNT "count",
        SESSIONS "sessions",
        /// Chains in which a call failed.
        FAILED "failed",
        /// Time the tools worked, over all chains, unknown durations as 0.
        WORK_MS "work_ms",
    }
    /// A tool and the next one of the same agent. name: the previous tool; tool: the next one. Hour: of the next call.
    Transition = 2, transition, Some("from the end of the previous call to the begin of the next; 0 where they overlap"), {
        COUNT "count",
        SESSIONS "sessions",
        /// The next call failed.
        FAILED "failed",
        /// The two are parallel (see `sequences`).
        PARALLEL "parallel",
    }
    /// The same tool and input more than once by one agent. tool: the tool; name: the input's hash, 16 hex digits;
    /// label: the call's summary. Count: the calls after the first.
    Repetition = 3, repetition, None, {
        /// Calls after the first.
        COUNT "count",
        SESSIONS "sessions",
        /// Of these, the ones that directly follow an equal call.
        IN_ROW "in_row",
        /// Of these, the ones that gave the same result as the one before: nothing was learned.
        SAME_RESULT "same_result",
        /// Of these, the ones that failed.
        FAILED "failed",
        /// Time, tokens and money of the ones with the same result.
        WASTED_MS "wasted_ms",
        WASTED_TOKENS "wasted_tokens",
        WASTED_NANO_USD "wasted_nano_usd",
    }
    /// A period of calls with equal inputs and results, at least twice in a row by one agent. name: its tools joined by ` > `, in the
    /// rotation that comes first; detail: the period. Count: cycles found, at the hour of their last call.
    Cycle = 4, cycle, None, {
        COUNT "count",
        SESSIONS "sessions",
        /// Times the period came again.
        REPEATS "repeats",
        /// Calls after the first period, and what they took.
        WASTED_CALLS "wasted_calls",
        WASTED_MS "wasted_ms",
        WASTED_TOKENS "wasted_tokens",
        WASTED_NANO_USD "wasted_nano_usd",
    }
    /// Alternating edits of one file. name: the path. Count: edits that flipped back or changed hands.
    Thrash = 5, thrash, None, {
        COUNT "count",
        SESSIONS "sessions",
        /// An edit equal to the one before the last, with another between.
        FLIPS "flips",
        /// An edit by another agent than the one before, within minutes.
        TURNS "turns",
        WASTED_MS "wasted_ms",
        WASTED_TOKENS "wasted_tokens",
        WASTED_NANO_USD "wasted_nano_usd",
    }
    /// Failed calls. tool: the tool; name: the fingerprint; detail: the class; label: the message. Hour: of the failure.
    Error = 6, error, Some("from the failure to the end of the call that resolved it"), {
        COUNT "count",
        SESSIONS "sessions",
        /// Failures of a call that was itself a retry.
        ON_RETRY "on_retry",
        /// Failures after which the same tool and input was called again.
        RETRIED "retried",
        /// Failures that a later success resolved.
        RESOLVED "resolved",
        /// Of these, by the same tool and input; the others by the same tool and target.
        RESOLVED_SAME_INPUT "resolved_same_input",
    }
    /// What came after a failed call. name: the fingerprint; detail: `retry`, `adjusted`, `other_tool`, `asked_user`, `user_prompt`,
    /// `gave_up`, `nothing`; tool: the next tool, where a call followed.
    ErrorNext = 7, error_next, None, {
        COUNT "count",
        SESSIONS "sessions",
    }
    /// Failed attempts at API requests. name: status code, else the class, else `unknown`; detail: the model.
    ApiFailure = 8, api_failure, None, {
        COUNT "count",
        SESSIONS "sessions",
        /// The client gave up.
        EXHAUSTED "exhausted",
        /// Time until the next attempts.
        RETRY_WAIT_MS "retry_wait_ms",
    }
    /// Touches of a file. name: the path. Count: touches of every kind.
    File = 9, file, None, {
        COUNT "count",
        SESSIONS "sessions",
        READS "reads",
        WRITES "writes",
        EDITS "edits",
        DELETES "deletes",
        LINES_ADDED "lines_added",
        LINES_REMOVED "lines_removed",
        /// Changes within 10 minutes of the one before (rework).
        REWORK "rework",
        /// Reads that told the agent nothing new, and their bytes.
        REPEATED_READS "repeated_reads",
        REPEATED_READ_BYTES "repeated_read_bytes",
        /// Changes within 10 minutes of a change by another agent.
        SHARED_CHANGES "shared_changes",
    }
    /// Git commands. name: the subcommand; detail: the branch.
    Git = 10, git, None, {
        COUNT "count",
        SESSIONS "sessions",
        /// Commands of calls that failed.
        FAILED "failed",
        COMMITS "commits",
        FILES_CHANGED "files_changed",
        INSERTIONS "insertions",
        DELETIONS "deletions",
    }
    /// Quality and parallelism; one key. Count: calls that ended.
    Quality = 11, quality, None, {
        COUNT "count",
        SESSIONS "sessions",
        SUCCEEDED "succeeded",
        FAILED "failed",
        DENIED "denied",
        INTERRUPTED "interrupted",
        /// First calls on a target since it last succeeded, and those of them that succeeded.
        FIRST_TRIES "first_tries",
        FIRST_TRY_SUCCEEDED "first_try_succeeded",
        /// Changes of files, and those within 10 minutes of another of the same file.
        CHANGES "changes",
        REWORK "rework",
        TEST_RUNS "test_runs",
        TESTS_PASSED "tests_passed",
        TESTS_FAILED "tests_failed",
        /// Calls of one batch or whose spans overlap.
        PARALLEL "parallel",
        /// Calls that an analysis found wasted (each once, however many patterns it is part of), and what they took.
        WASTED_CALLS "wasted_calls",
        WASTED_MS "wasted_ms",
        WASTED_TOKENS "wasted_tokens",
        WASTED_NANO_USD "wasted_nano_usd",
        /// Time in which two or more subagents worked at once.
        SUBAGENTS_PARALLEL_MS "subagents_parallel_ms",
        /// Compactions of every agent.
        COMPACTIONS "compactions",
    }
    /// Commands that run tests. name: the runner (`cargo test`, `pytest`, ...).
    Test = 12, test, Some("duration of the call"), {
        COUNT "count",
        SESSIONS "sessions",
        PASSED "passed",
        FAILED "failed",
        /// The command's end does not tell the tests' end (a pipe, a list).
        UNCLEAR "unclear",
    }
    /// Agents by type. name: the type. Count: agents that started.
    Agent = 13, agent, Some("from the start of a subagent to its end"), {
        COUNT "count",
        SESSIONS "sessions",
        CALLS "calls",
        FAILED "failed",
        WORK_MS "work_ms",
        /// Time in which the agent had nothing running but subagents.
        WAITING_MS "waiting_ms",
        REQUESTS "requests",
        INPUT_TOKENS "input_tokens",
        OUTPUT_TOKENS "output_tokens",
        CACHE_READ_TOKENS "cache_read_tokens",
        CACHE_WRITE_TOKENS "cache_write_tokens",
        NANO_USD "nano_usd",
        /// Requests without a known price: their money is not in `nano_usd`.
        UNPRICED_REQUESTS "unpriced_requests",
        /// Given over to a subagent, and back.
        HANDOFFS "handoffs",
    }
    /// What filled the context. name: `initial`, `model_output`, `tool_result`, `prompt`, `after_compaction`, `other`; tool: of a result;
    /// detail: `measured` or `estimated`. Count: results, prompts or requests that filled it.
    Fill = 14, fill, None, {
        COUNT "count",
        SESSIONS "sessions",
        TOKENS "tokens",
        /// Bytes of the tool results.
        BYTES "bytes",
    }
    /// Compactions. name: the trigger (`auto`, `manual`, `unknown`).
    Compaction = 15, compaction, None, {
        COUNT "count",
        SESSIONS "sessions",
        /// Tokens before and after, over compactions that tell both, and how many those are.
        PRE_TOKENS "pre_tokens",
        POST_TOKENS "post_tokens",
        MEASURED "measured",
    }
}

impl Contribution {
    /// The counter at that place, 0 where there is none.
    pub fn get(&self, slot: usize) -> i64 {
        self.counters.get(slot).copied().unwrap_or(0)
    }

    /// Adds the figures of another of the same key.
    pub fn add(&mut self, other: &Self) {
        add_all(&mut self.counters, &other.counters, i64::wrapping_add);
        self.histogram.add(&other.histogram);
    }

    /// Takes the figures of another of the same key away.
    pub fn subtract(&mut self, other: &Self) {
        add_all(&mut self.counters, &other.counters, i64::wrapping_sub);
        self.histogram.subtract(&other.histogram);
    }

    /// Whether adding it changes nothing.
    pub fn is_zero(&self) -> bool {
        self.histogram.is_empty() && self.counters.iter().all(|value| *value == 0)
    }

    fn place(&self) -> (&Key, i64) {
        (&self.key, self.hour_ms)
    }
}

fn add_all(sum: &mut Vec<i64>, other: &[i64], operation: fn(i64, i64) -> i64) {
    sum.resize(sum.len().max(other.len()), 0);
    for (sum, value) in sum.iter_mut().zip(other) {
        *sum = operation(*sum, *value);
    }
}

/// What must be added to an aggregate that holds `old` so that it holds `new` instead. Both sorted by (key, hour) without doubles,
/// as [`digest`](super::digest) gives them; so is the answer. Contributions that stay as they are do not come.
pub fn difference(new: &[Contribution], old: &[Contribution]) -> Vec<Contribution> {
    let mut delta = Vec::new();
    let (mut new, mut old) = (new.iter().peekable(), old.iter().peekable());
    loop {
        let order = match (new.peek(), old.peek()) {
            (None, None) => return delta,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.place().cmp(&b.place()),
        };
        let mut change = match order {
            Ordering::Less | Ordering::Equal => new.next().cloned().unwrap_or_default(),
            Ordering::Greater => {
                let gone = old.peek().copied().cloned().unwrap_or_default();
                Contribution {
                    counters: vec![0; gone.counters.len()],
                    histogram: Histogram::default(),
                    ..gone
                }
            }
        };
        if order != Ordering::Less
            && let Some(gone) = old.next()
        {
            change.subtract(gone);
        }
        if !change.is_zero() {
            delta.push(change);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_counts_and_counts_sessions_first() {
        for &kind in Kind::ALL {
            assert_eq!(kind.counters()[..2], ["count", "sessions"], "{kind:?}");
            assert_eq!(Kind::from_number(kind as u8), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert_eq!(Kind::from_number(0), None);
    }

    type Sums = BTreeMap<(Key, i64), Contribution>;

    fn contributions() -> impl Strategy<Value = Vec<Contribution>> {
        let one = (
            0..4i64,
            0..3usize,
            prop::collection::vec(any::<i64>(), 4),
            prop::collection::vec(0..9i64, 0..4),
        );
        prop::collection::vec(one, 0..20).prop_map(|all| {
            let mut sums = Sums::new();
            for (hour, name, counters, durations) in all {
                let key = Key { name: ["a", "b", "c"][name].to_owned(), ..Key::default() };
                let mut histogram = Histogram::default();
                durations.iter().for_each(|value| histogram.record(*value));
                let one = Contribution {
                    hour_ms: hour * HOUR_MS,
                    key: key.clone(),
                    counters,
                    histogram,
                    ..Default::default()
                };
                add_to(&mut sums, &one);
            }
            sums.into_values().collect()
        })
    }

    fn add_to(sums: &mut Sums, one: &Contribution) {
        let zero = Contribution {
            counters: vec![0; 4],
            hour_ms: one.hour_ms,
            key: one.key.clone(),
            ..Default::default()
        };
        let sum = sums.entry((one.key.clone(), one.hour_ms)).or_insert(zero);
        sum.add(one);
        if sum.is_zero() {
            sums.remove(&(one.key.clone(), one.hour_ms));
        }
    }

    proptest! {
        #[test]
        fn replacing_by_difference_equals_adding_the_new(
            other in contributions(), old in contributions(), new in contributions(),
        ) {
            let (mut patched, mut fresh) = (Sums::new(), Sums::new());
            other.iter().chain(&old).for_each(|one| add_to(&mut patched, one));
            let delta = difference(&new, &old);
            prop_assert!(delta.is_sorted_by(|a, b| a.place() < b.place()));
            delta.iter().for_each(|one| add_to(&mut patched, one));
            other.iter().chain(&new).for_each(|one| add_to(&mut fresh, one));
            prop_assert_eq!(patched, fresh);
            prop_assert_eq!(difference(&new, &new), Vec::new());
        }
    }
}
