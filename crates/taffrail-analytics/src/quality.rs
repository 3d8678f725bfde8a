//! Quality of a session's work: success, first tries, rework, tests, refusals.
//!
//! A *first try* is an agent's first call of a tool on a target (the target of `failures`, else the input) since that
//! last succeeded; only calls that succeeded or failed count. Tests are recognised by the command (`digest::shell` has
//! the list); their outcome is that of the call, where the command's end tells it: not behind a pipe, nor in a list
//! whose other commands may have failed.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::digest::book::Book;
use crate::digest::shell::{self, TestOutcome};
use crate::digest::view::{View, share};
use crate::digest::{Kind, quality, test};
use crate::files::Changes;
use crate::trace::Outcome;

/// The quality of a session. Shares are 0 to 1, none where there is nothing to share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Quality {
    /// Calls that ended.
    pub calls: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub denied: u64,
    pub interrupted: u64,
    /// `succeeded / (calls - denied - interrupted)`.
    pub success_share: Option<f64>,
    pub first_tries: u64,
    pub first_try_succeeded: u64,
    pub first_try_share: Option<f64>,
    pub changes: u64,
    pub rework: u64,
    pub rework_share: Option<f64>,
    pub denied_share: Option<f64>,
    pub test_runs: u64,
    pub tests_passed: u64,
    pub tests_failed: u64,
    /// `tests_passed / (tests_passed + tests_failed)`.
    pub test_pass_share: Option<f64>,
    /// The outcome of the last run that told one.
    pub last_test_passed: Option<bool>,
}

/// Judges the calls of a trace; `changes` and `rework` are counted by `files`.
pub(crate) fn analyze(view: &View<'_>, book: &mut Book) -> Quality {
    let mut sum = Quality::default();
    let place = book.key(Kind::Quality, "", "", "", "");
    for &i in &view.order {
        let outcome = view.call(i).outcome;
        if !outcome.has_ended() {
            continue;
        }
        let cell = book.cell(place, view.end(i));
        cell.add(quality::COUNT, 1);
        sum.calls += 1;
        let told = match outcome {
            Outcome::Succeeded => Some((quality::SUCCEEDED, &mut sum.succeeded)),
            Outcome::Failed => Some((quality::FAILED, &mut sum.failed)),
            Outcome::Denied => Some((quality::DENIED, &mut sum.denied)),
            Outcome::Interrupted => Some((quality::INTERRUPTED, &mut sum.interrupted)),
            Outcome::Ended | Outcome::Running | Outcome::Abandoned => None,
        };
        if let Some((slot, count)) = told {
            *count += 1;
            cell.add(slot, 1);
        }
    }
    first_tries(view, book, &mut sum);
    tests(view, book, &mut sum);
    sum.success_share = share(sum.succeeded, sum.calls - sum.denied - sum.interrupted);
    sum.first_try_share = share(sum.first_try_succeeded, sum.first_tries);
    sum.denied_share = share(sum.denied, sum.calls);
    sum.test_pass_share = share(sum.tests_passed, sum.tests_passed + sum.tests_failed);
    sum
}

impl Quality {
    /// Takes over what `files` counted.
    pub(crate) fn with_changes(mut self, changes: Changes) -> Self {
        (self.changes, self.rework) = (changes.all, changes.rework);
        self.rework_share = share(changes.rework, changes.all);
        self
    }
}

/// What a call is a try of: its target where it has one, else its input.
#[derive(PartialEq, Eq, Hash)]
enum Aim<'v> {
    Target(&'v str),
    Input(i64),
}

fn first_tries(view: &View<'_>, book: &mut Book, sum: &mut Quality) {
    let place = book.key(Kind::Quality, "", "", "", "");
    for lane in &view.lanes {
        // Those whose last try failed.
        let mut open: HashSet<(u32, Aim<'_>)> = HashSet::new();
        for &i in lane {
            let call = view.call(i);
            let succeeded = match call.outcome {
                Outcome::Succeeded => true,
                Outcome::Failed => false,
                _ => continue,
            };
            let aim = match &view.target[i] {
                Some(target) => Aim::Target(target),
                None if call.input_hash != 0 => Aim::Input(call.input_hash),
                None => continue,
            };
            let key = (view.tool[i], aim);
            if !open.contains(&key) {
                sum.first_tries += 1;
                sum.first_try_succeeded += u64::from(succeeded);
                let cell = book.cell(place, view.end(i));
                cell.add(quality::FIRST_TRIES, 1);
                cell.add(quality::FIRST_TRY_SUCCEEDED, i64::from(succeeded));
            }
            if succeeded {
                open.remove(&key);
            } else {
                open.insert(key);
            }
        }
    }
}

fn tests(view: &View<'_>, book: &mut Book, sum: &mut Quality) {
    let place = book.key(Kind::Quality, "", "", "", "");
    for &i in &view.order {
        let Some((runner, outcome)) = shell::test_run(view.call(i)) else { continue };
        let of_runner = book.key(Kind::Test, "", runner, "", "");
        let cell = book.cell(of_runner, view.end(i));
        cell.add(test::COUNT, 1);
        view.duration(i).into_iter().for_each(|ms| cell.histogram.record(ms));
        let (slot, all) = match outcome {
            TestOutcome::Passed => (test::PASSED, Some(quality::TESTS_PASSED)),
            TestOutcome::Failed => (test::FAILED, Some(quality::TESTS_FAILED)),
            TestOutcome::Unclear => (test::UNCLEAR, None),
        };
        cell.add(slot, 1);
        let cell = book.cell(place, view.end(i));
        cell.add(quality::TEST_RUNS, 1);
        all.into_iter().for_each(|slot| cell.add(slot, 1));
        sum.test_runs += 1;
        sum.tests_passed += u64::from(outcome == TestOutcome::Passed);
        sum.tests_failed += u64::from(outcome == TestOutcome::Failed);
        if outcome != TestOutcome::Unclear {
            sum.last_test_passed = Some(outcome == TestOutcome::Passed);
        }
    }
}
