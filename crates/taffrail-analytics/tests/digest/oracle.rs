//! The contributions of a session by the definitions, read word for word: every question is a scan over all rows.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use taffrail_analytics::digest::*;
use taffrail_analytics::trace::*;

use crate::random::{COMMANDS, trace};

/// (kind, tool, name, detail).
type Name = (Kind, String, String, String);

#[derive(Default)]
struct Sums(BTreeMap<(Name, i64), (Vec<i64>, Histogram)>);

impl Sums {
    fn cell(
        &mut self,
        kind: Kind,
        tool: &str,
        name: &str,
        detail: &str,
        at_ms: i64,
    ) -> &mut (Vec<i64>, Histogram) {
        let key = (kind, tool.to_owned(), name.to_owned(), detail.to_owned());
        let zero = || (vec![0; kind.counters().len()], Histogram::default());
        self.0.entry((key, at_ms.div_euclid(HOUR_MS) * HOUR_MS)).or_insert_with(zero)
    }

    fn put(
        &mut self,
        kind: Kind,
        tool: &str,
        name: &str,
        detail: &str,
        at_ms: i64,
        figures: &[(usize, i64)],
    ) {
        let cell = self.cell(kind, tool, name, detail, at_ms);
        figures.iter().for_each(|(slot, by)| cell.0[*slot] += by);
    }

    fn quality(&mut self, at_ms: i64, figures: &[(usize, i64)]) {
        self.put(Kind::Quality, "", "", "", at_ms, figures);
    }
}

struct Oracle<'t> {
    trace: &'t Trace,
    /// How many agents the digest tells apart, the last for rows of unlisted ones.
    agents: u32,
    sums: Sums,
    wasted: BTreeSet<usize>,
}

fn end(call: &Call) -> i64 {
    call.ended_ms.map_or(call.at_ms, |end| end.max(call.at_ms))
}

fn is_change(call: &Call, path: Option<&str>) -> bool {
    call.files
        .iter()
        .any(|touch| touch.action != FileAction::Read && path.is_none_or(|path| &*touch.path == path))
}

impl<'t> Oracle<'t> {
    fn lane(&self, agent: u32) -> u32 {
        agent.min(self.agents - 1)
    }

    fn calls_of(&self, lane: u32) -> Vec<usize> {
        (0..self.trace.calls.len()).filter(|i| self.lane(self.trace.calls[*i].agent) == lane).collect()
    }

    fn call(&self, i: usize) -> &'t Call {
        &self.trace.calls[i]
    }

    fn lanes(&self) -> Vec<Vec<usize>> {
        (0..self.agents).map(|lane| self.calls_of(lane)).collect()
    }

    fn kind_of(&self, lane: u32) -> String {
        match self.trace.agents.get(lane as usize) {
            Some(agent) => agent.agent_type.clone(),
            None if self.trace.agents.is_empty() && lane == 0 => "main".to_owned(),
            None => "unknown".to_owned(),
        }
    }

    /// The request that asked for a call: the last one of the conversation of the same agent at or before its begin.
    fn asker(&self, i: usize) -> Option<i64> {
        let call = self.call(i);
        let of_agent =
            |r: &&Request| self.lane(r.agent) == self.lane(call.agent) && r.query_source != "auxiliary";
        self.trace.requests.iter().filter(of_agent).rfind(|r| r.ts_ms <= call.at_ms).map(|r| r.id)
    }

    fn cost(&self, i: usize) -> i64 {
        let Some(asker) = self.asker(i) else { return 0 };
        let request = self.trace.requests.iter().find(|r| r.id == asker).unwrap();
        let asked: Vec<usize> = (0..self.trace.calls.len())
            .filter(|j| {
                self.lane(self.call(*j).agent) == self.lane(self.call(i).agent)
                    && self.asker(*j) == Some(asker)
            })
            .collect();
        let nth = asked.iter().position(|j| *j == i).unwrap() as i64;
        let (cost, count) = (request.cost_nano_usd.unwrap_or(0), asked.len() as i64);
        cost / count + i64::from(nth < cost % count)
    }

    /// Tokens of a call in a session without requests.
    fn tokens(&self, i: usize) -> i64 {
        (self.call(i).output_bytes.unwrap_or(0) + 3) / 4
    }

    fn chains(&mut self) {
        for lane in self.lanes() {
            for n in 2..=5 {
                for window in lane.windows(n) {
                    let calls: Vec<&Call> = window.iter().map(|i| self.call(*i)).collect();
                    let name = calls.iter().map(|c| &*c.tool).collect::<Vec<_>>().join(" > ");
                    let failed = calls.iter().any(|c| c.outcome == Outcome::Failed);
                    let work: i64 = calls.iter().map(|c| c.duration_ms.unwrap_or(0)).sum();
                    let cell = self.sums.cell(Kind::Chain, "", &name, &n.to_string(), end(calls[n - 1]));
                    cell.0[chain::COUNT] += 1;
                    cell.0[chain::FAILED] += i64::from(failed);
                    cell.0[chain::WORK_MS] += work;
                    if calls.iter().all(|c| c.duration_ms.is_some()) {
                        cell.1.record(work);
                    }
                }
            }
        }
    }

    fn overlap_or_batch(&self, earlier: usize, later: usize) -> bool {
        let gap = self.call(later).at_ms - end(self.call(earlier));
        gap < 0 || (self.asker(later).is_some() && self.asker(later) == self.asker(earlier) && gap <= 1_000)
    }

    fn transitions(&mut self) {
        for lane in self.lanes() {
            for pair in lane.windows(2) {
                let (before, next) = (self.call(pair[0]), self.call(pair[1]));
                let parallel = self.overlap_or_batch(pair[0], pair[1]);
                let cell = self.sums.cell(Kind::Transition, &next.tool, &before.tool, "", end(next));
                cell.0[transition::COUNT] += 1;
                cell.0[transition::FAILED] += i64::from(next.outcome == Outcome::Failed);
                cell.0[transition::PARALLEL] += i64::from(parallel);
                if before.outcome.has_ended() {
                    cell.1.record((next.at_ms - end(before)).max(0));
                }
            }
            for (at, &i) in lane.iter().enumerate() {
                let overlaps = |j: &usize| {
                    let (a, b) = if *j < i { (*j, i) } else { (i, *j) };
                    *j != i && self.call(b).at_ms < end(self.call(a))
                };
                let batch = |a: Option<&usize>, b: Option<&usize>| {
                    a.zip(b).is_some_and(|(a, b)| self.overlap_or_batch(*a, *b))
                };
                let before = at.checked_sub(1).and_then(|at| lane.get(at));
                if lane.iter().any(overlaps) || batch(before, Some(&i)) || batch(Some(&i), lane.get(at + 1)) {
                    let at_ms = end(self.call(i));
                    self.sums.quality(at_ms, &[(quality::PARALLEL, 1)]);
                }
            }
        }
    }

    fn repetitions(&mut self) {
        for lane in self.lanes() {
            for (at, &i) in lane.iter().enumerate() {
                let call = self.call(i);
                let same = |j: &&usize| {
                    self.call(**j).tool == call.tool && self.call(**j).input_hash == call.input_hash
                };
                let Some(&before) = lane[..at].iter().rfind(same).filter(|_| call.input_hash != 0) else {
                    continue;
                };
                let previous = self.call(before);
                let same = call.result_hash.is_some()
                    && call.result_hash == previous.result_hash
                    && call.outcome == previous.outcome;
                let wasted = same && !(before + 1..i).any(|between| is_change(self.call(between), None));
                let mut figures = vec![
                    (repetition::COUNT, 1),
                    (repetition::IN_ROW, i64::from(lane[at - 1] == before)),
                    (repetition::SAME_RESULT, i64::from(same)),
                    (repetition::FAILED, i64::from(call.outcome == Outcome::Failed)),
                ];
                if wasted {
                    self.wasted.insert(i);
                    figures.push((repetition::WASTED_MS, call.duration_ms.unwrap_or(0)));
                    figures.push((repetition::WASTED_TOKENS, self.tokens(i)));
                    figures.push((repetition::WASTED_NANO_USD, self.cost(i)));
                }
                self.sums.put(
                    Kind::Repetition,
                    &call.tool,
                    &format!("{:016x}", call.input_hash),
                    "",
                    end(call),
                    &figures,
                );
            }
        }
    }

    fn equal(&self, a: usize, b: usize) -> bool {
        let key = |i: usize| {
            let c = self.call(i);
            (&c.tool, c.input_hash, c.result_hash, c.outcome)
        };
        self.call(a).input_hash != 0 && self.call(a).outcome.has_ended() && key(a) == key(b)
    }

    fn has_period(&self, calls: &[usize], period: usize) -> bool {
        (period..calls.len()).all(|at| self.equal(calls[at - period], calls[at]))
    }

    /// Every maximal repetition: (start, period, length).
    fn runs(&self, lane: &[usize]) -> Vec<(usize, usize, usize)> {
        let mut runs = Vec::new();
        for period in 1..=8 {
            for start in 0..lane.len() {
                for stop in start + 2 * period..=lane.len() {
                    if !self.has_period(&lane[start..stop], period) {
                        continue;
                    }
                    let longer_left = start > 0 && self.has_period(&lane[start - 1..stop], period);
                    let longer_right = stop < lane.len() && self.has_period(&lane[start..=stop], period);
                    let shorter =
                        (1..period).any(|d| period % d == 0 && self.has_period(&lane[start..stop], d));
                    if self.has_period(&lane[start..stop], period)
                        && !longer_left
                        && !longer_right
                        && !shorter
                    {
                        runs.push((start, period, stop - start));
                    }
                }
            }
        }
        runs
    }

    fn cycles(&mut self) {
        for lane in self.lanes() {
            for (start, period, calls) in self.runs(&lane) {
                let tools: Vec<String> =
                    lane[start..start + period].iter().map(|i| self.call(*i).tool.to_string()).collect();
                let rotations = (0..period).map(|by| [&tools[by..], &tools[..by]].concat());
                let name = rotations.min().unwrap().join(" > ");
                let detail = period.to_string();
                let last = end(self.call(lane[start + calls - 1]));
                let repeats = (calls / period - 1) as i64;
                self.sums.put(
                    Kind::Cycle,
                    "",
                    &name,
                    &detail,
                    last,
                    &[(cycle::COUNT, 1), (cycle::REPEATS, repeats)],
                );
                for &i in &lane[start + period..start + calls] {
                    self.wasted.insert(i);
                    let figures = [
                        (cycle::WASTED_CALLS, 1),
                        (cycle::WASTED_MS, self.call(i).duration_ms.unwrap_or(0)),
                        (cycle::WASTED_TOKENS, self.tokens(i)),
                        (cycle::WASTED_NANO_USD, self.cost(i)),
                    ];
                    self.sums.put(Kind::Cycle, "", &name, &detail, end(self.call(i)), &figures);
                }
            }
        }
    }

    fn paths(&self) -> BTreeSet<&'t str> {
        self.trace.calls.iter().flat_map(|call| &call.files).map(|touch| &*touch.path).collect()
    }

    fn thrash(&mut self) {
        for path in self.paths() {
            let calls: Vec<usize> =
                (0..self.trace.calls.len()).filter(|i| is_change(self.call(*i), Some(path))).collect();
            let marked: Vec<(usize, bool, bool)> = (0..calls.len())
                .map(|at| {
                    let hash = |back: usize| self.call(calls[at - back]).input_hash;
                    let flip = at >= 2 && hash(0) != 0 && hash(0) == hash(2) && hash(0) != hash(1);
                    let turn = at >= 1 && {
                        let (a, b) = (self.call(calls[at - 1]), self.call(calls[at]));
                        self.lane(a.agent) != self.lane(b.agent) && b.at_ms - end(a) <= 600_000
                    };
                    (calls[at], flip, turn)
                })
                .collect();
            if !marked.iter().any(|mark| mark.1) && marked.iter().filter(|mark| mark.2).count() < 3 {
                continue;
            }
            for (i, flip, turn) in marked {
                let call = self.call(i);
                let mut figures = vec![
                    (thrash::COUNT, i64::from(flip || turn)),
                    (thrash::FLIPS, i64::from(flip)),
                    (thrash::TURNS, i64::from(turn)),
                ];
                if flip {
                    self.wasted.insert(i);
                    figures.push((thrash::WASTED_MS, call.duration_ms.unwrap_or(0)));
                    figures.push((thrash::WASTED_TOKENS, self.tokens(i)));
                    figures.push((thrash::WASTED_NANO_USD, self.cost(i)));
                }
                self.sums.put(Kind::Thrash, "", path, "", end(call), &figures);
            }
        }
    }

    fn waste(&mut self) {
        for i in std::mem::take(&mut self.wasted) {
            let figures = [
                (quality::WASTED_CALLS, 1),
                (quality::WASTED_MS, self.call(i).duration_ms.unwrap_or(0)),
                (quality::WASTED_TOKENS, self.tokens(i)),
                (quality::WASTED_NANO_USD, self.cost(i)),
            ];
            self.sums.quality(end(self.call(i)), &figures);
        }
    }

    fn target(call: &Call) -> Option<String> {
        match &*call.tool {
            "Read" | "Edit" | "Write" => Some(call.summary.clone()),
            "Bash" => {
                let heads = ["cargo test", "cargo build", "pytest", "ls src"];
                heads.into_iter().find(|head| call.summary.starts_with(head)).map(str::to_owned)
            }
            _ => None,
        }
    }

    fn same_input(a: &Call, b: &Call) -> bool {
        a.tool == b.tool && a.input_hash == b.input_hash && a.input_hash != 0
    }

    fn same_target(a: &Call, b: &Call) -> bool {
        a.tool == b.tool && Self::target(a).is_some() && Self::target(a) == Self::target(b)
    }

    fn errors(&mut self) {
        for lane in self.lanes() {
            for (at, &i) in lane.iter().enumerate() {
                let call = self.call(i);
                if call.outcome != Outcome::Failed {
                    continue;
                }
                let (class, fingerprint) = call
                    .error
                    .as_ref()
                    .map_or(("unknown", "unknown"), |e| (&*e.class, e.fingerprint.as_str()));
                let earlier = lane[..at].iter().map(|j| self.call(*j)).rfind(|c| Self::same_input(c, call));
                let after: Vec<&Call> =
                    lane[at + 1..].iter().map(|j| self.call(*j)).filter(|c| c.at_ms >= end(call)).collect();
                let solves = |c: &&&Call| {
                    c.outcome == Outcome::Succeeded
                        && (Self::same_input(c, call) || Self::same_target(c, call))
                };
                let by = after.iter().find(solves).copied();
                let figures = [
                    (error::COUNT, 1),
                    (error::ON_RETRY, i64::from(earlier.is_some_and(|c| c.outcome == Outcome::Failed))),
                    (error::RETRIED, i64::from(after.iter().any(|c| Self::same_input(c, call)))),
                    (error::RESOLVED, i64::from(by.is_some())),
                    (error::RESOLVED_SAME_INPUT, i64::from(by.is_some_and(|by| Self::same_input(by, call)))),
                ];
                self.sums.put(Kind::Error, &call.tool, fingerprint, class, end(call), &figures);
                let cell = self.sums.cell(Kind::Error, &call.tool, fingerprint, class, end(call));
                by.iter().for_each(|by| cell.1.record((end(by) - end(call)).max(0)));
                let (what, tool) = self.followed(call, after.first().copied());
                self.sums.put(Kind::ErrorNext, tool, fingerprint, what, end(call), &[(error_next::COUNT, 1)]);
            }
        }
    }

    fn followed(&self, call: &Call, next: Option<&'t Call>) -> (&'static str, &'t str) {
        let said = self.trace.marks.iter().find_map(|mark| {
            let counts = self.lane(mark.agent) == self.lane(call.agent)
                && mark.ts_ms >= end(call)
                && next.is_none_or(|next| mark.ts_ms < next.at_ms);
            match mark.kind {
                MarkKind::Prompt { human: true } if counts => Some("user_prompt"),
                MarkKind::Stop | MarkKind::SubagentStop | MarkKind::StopFailure { .. } if counts => {
                    Some("gave_up")
                }
                _ => None,
            }
        });
        match (said, next) {
            (Some(said), _) => (said, ""),
            (None, None) => ("nothing", ""),
            (None, Some(next)) if &*next.tool == "AskUserQuestion" => ("asked_user", &next.tool),
            (None, Some(next)) if Self::same_input(next, call) => ("retry", &next.tool),
            (None, Some(next)) if Self::same_target(next, call) => ("adjusted", &next.tool),
            (None, Some(next)) => ("other_tool", &next.tool),
        }
    }

    fn api_failures(&mut self) {
        for mark in &self.trace.marks {
            match &mark.kind {
                MarkKind::ApiFailure { retry_in_ms, exhausted, .. } => {
                    let figures = [
                        (api_failure::COUNT, 1),
                        (api_failure::EXHAUSTED, i64::from(*exhausted)),
                        (api_failure::RETRY_WAIT_MS, retry_in_ms.unwrap_or(0)),
                    ];
                    self.sums.put(Kind::ApiFailure, "", "529", "model", mark.ts_ms, &figures);
                }
                MarkKind::StopFailure { class } => {
                    let figures = [(api_failure::COUNT, 1), (api_failure::EXHAUSTED, 1)];
                    self.sums.put(Kind::ApiFailure, "", class, "", mark.ts_ms, &figures);
                }
                MarkKind::Compaction { trigger, .. } => {
                    self.sums.quality(mark.ts_ms, &[(quality::COMPACTIONS, 1)]);
                    let name = trigger.clone().unwrap();
                    self.sums.put(Kind::Compaction, "", &name, "", mark.ts_ms, &[(compaction::COUNT, 1)]);
                }
                _ => {}
            }
        }
    }

    /// The touches of a path: (call, action), doubles within a call once.
    fn touches(&self, path: &str) -> Vec<(usize, FileAction)> {
        let mut touches = Vec::new();
        for (i, call) in self.trace.calls.iter().enumerate() {
            for touch in call.files.iter().filter(|touch| &*touch.path == path) {
                if !touches.contains(&(i, touch.action)) {
                    touches.push((i, touch.action));
                }
            }
        }
        touches
    }

    fn files(&mut self) {
        for path in self.paths() {
            for call in &self.trace.calls {
                for touch in call.files.iter().filter(|touch| &*touch.path == path) {
                    let figures = [
                        (file::LINES_ADDED, i64::from(touch.lines_added.unwrap_or(0))),
                        (file::LINES_REMOVED, i64::from(touch.lines_removed.unwrap_or(0))),
                    ];
                    self.sums.put(Kind::File, "", path, "", end(call), &figures);
                }
            }
            let touches = self.touches(path);
            for (at, &(i, action)) in touches.iter().enumerate() {
                let call = self.call(i);
                let slot = match action {
                    FileAction::Read => file::READS,
                    FileAction::Write => file::WRITES,
                    FileAction::Edit => file::EDITS,
                    FileAction::Delete => file::DELETES,
                };
                self.sums.put(Kind::File, "", path, "", end(call), &[(file::COUNT, 1), (slot, 1)]);
                if action == FileAction::Read {
                    self.read(path, &touches[..at], i);
                    continue;
                }
                let changes: Vec<&Call> = touches[..at]
                    .iter()
                    .filter(|t| t.1 != FileAction::Read)
                    .map(|t| self.call(t.0))
                    .collect();
                let soon = |before: &&Call| call.at_ms - end(before) <= 600_000;
                let rework = i64::from(changes.last().is_some_and(soon));
                let other = changes.iter().rfind(|c| self.lane(c.agent) != self.lane(call.agent));
                let figures =
                    [(file::REWORK, rework), (file::SHARED_CHANGES, i64::from(other.is_some_and(soon)))];
                self.sums.put(Kind::File, "", path, "", end(call), &figures);
                self.sums.quality(end(call), &[(quality::CHANGES, 1), (quality::REWORK, rework)]);
            }
        }
    }

    fn read(&mut self, path: &str, earlier: &[(usize, FileAction)], i: usize) {
        let call = self.call(i);
        let same = |t: &&(usize, FileAction)| {
            t.1 == FileAction::Read
                && self.lane(self.call(t.0).agent) == self.lane(call.agent)
                && Self::same_input(self.call(t.0), call)
        };
        let Some(at) = earlier.iter().rposition(|t| same(&t)) else { return };
        let before = self.call(earlier[at].0);
        let changed = earlier[at + 1..].iter().any(|t| t.1 != FileAction::Read);
        let differs = before.result_hash.is_some()
            && call.result_hash.is_some()
            && before.result_hash != call.result_hash;
        let compacted = self.trace.marks.iter().any(|mark| {
            matches!(mark.kind, MarkKind::Compaction { .. })
                && self.lane(mark.agent) == self.lane(call.agent)
                && (end(before)..=call.at_ms).contains(&mark.ts_ms)
        });
        if !changed && !differs && !compacted {
            let figures =
                [(file::REPEATED_READS, 1), (file::REPEATED_READ_BYTES, call.output_bytes.unwrap_or(0))];
            self.sums.put(Kind::File, "", path, "", end(call), &figures);
        }
    }

    fn git_and_tests(&mut self) {
        for call in &self.trace.calls {
            for touch in &call.git {
                let figures = [
                    (git::COUNT, 1),
                    (git::FAILED, i64::from(call.outcome == Outcome::Failed)),
                    (git::COMMITS, i64::from(touch.subcommand == "commit" && touch.commit.is_some())),
                    (git::INSERTIONS, i64::from(touch.insertions.unwrap_or(0))),
                ];
                let branch = touch.branch.as_deref().unwrap_or("");
                self.sums.put(Kind::Git, "", &touch.subcommand, branch, end(call), &figures);
            }
            let told = COMMANDS.iter().find(|c| c.0 == call.summary && &*call.tool == "Bash");
            let Some((_, Some(runner), passes, fails)) = told else { continue };
            let passed = match call.outcome {
                Outcome::Succeeded => passes.then_some(true),
                Outcome::Failed => fails.then_some(false),
                Outcome::Ended => None,
                _ => continue,
            };
            let slot = |yes: usize, no: usize| passed.map(|passed| (if passed { yes } else { no }, 1));
            let own = slot(test::PASSED, test::FAILED).unwrap_or((test::UNCLEAR, 1));
            self.sums.put(Kind::Test, "", runner, "", end(call), &[(test::COUNT, 1), own]);
            let cell = self.sums.cell(Kind::Test, "", runner, "", end(call));
            call.duration_ms.iter().for_each(|ms| cell.1.record(*ms));
            let figures: Vec<_> =
                [Some((quality::TEST_RUNS, 1)), slot(quality::TESTS_PASSED, quality::TESTS_FAILED)]
                    .into_iter()
                    .flatten()
                    .collect();
            self.sums.quality(end(call), &figures);
        }
    }

    fn outcomes(&mut self) {
        for lane in self.lanes() {
            for (at, &i) in lane.iter().enumerate() {
                let call = self.call(i);
                if !call.outcome.has_ended() {
                    continue;
                }
                let slot = match call.outcome {
                    Outcome::Succeeded => Some(quality::SUCCEEDED),
                    Outcome::Failed => Some(quality::FAILED),
                    Outcome::Denied => Some(quality::DENIED),
                    Outcome::Interrupted => Some(quality::INTERRUPTED),
                    _ => None,
                };
                let figures: Vec<_> =
                    slot.map(|slot| (slot, 1)).into_iter().chain([(quality::COUNT, 1)]).collect();
                self.sums.quality(end(call), &figures);
                let is_try = |c: &&Call| {
                    let same = if Self::target(call).is_some() {
                        Self::same_target(c, call)
                    } else {
                        Self::same_input(c, call)
                    };
                    same && matches!(c.outcome, Outcome::Succeeded | Outcome::Failed)
                };
                if !is_try(&call) {
                    continue;
                }
                let before = lane[..at].iter().map(|j| self.call(*j)).rfind(is_try);
                if before.is_none_or(|before| before.outcome == Outcome::Succeeded) {
                    let succeeded = i64::from(call.outcome == Outcome::Succeeded);
                    self.sums.quality(
                        end(call),
                        &[(quality::FIRST_TRIES, 1), (quality::FIRST_TRY_SUCCEEDED, succeeded)],
                    );
                }
            }
        }
    }

    fn agents(&mut self) {
        for call in &self.trace.calls {
            let kind = self.kind_of(self.lane(call.agent));
            let figures = [
                (agent::CALLS, 1),
                (agent::FAILED, i64::from(call.outcome == Outcome::Failed)),
                (agent::WORK_MS, call.duration_ms.unwrap_or(0)),
            ];
            self.sums.put(Kind::Agent, "", &kind, "", end(call), &figures);
        }
        for request in &self.trace.requests {
            let kind = self.kind_of(self.lane(request.agent));
            let figures = [
                (agent::REQUESTS, 1),
                (agent::INPUT_TOKENS, request.input),
                (agent::OUTPUT_TOKENS, request.output),
                (agent::CACHE_READ_TOKENS, request.cache_read),
                (agent::NANO_USD, request.cost_nano_usd.unwrap_or(0)),
                (agent::UNPRICED_REQUESTS, i64::from(request.cost_nano_usd.is_none())),
            ];
            self.sums.put(Kind::Agent, "", &kind, "", request.ts_ms, &figures);
        }
    }
}

/// Contributions as the definitions give them; of [`Kind::Agent`] what rows tell, nothing of [`Kind::Fill`].
fn oracle(trace: &Trace) -> Sums {
    let agents = trace.agents.len().max(1) as u32 + 1;
    let mut oracle = Oracle { trace, agents, sums: Sums::default(), wasted: BTreeSet::new() };
    oracle.chains();
    oracle.transitions();
    oracle.repetitions();
    oracle.cycles();
    oracle.thrash();
    oracle.waste();
    oracle.errors();
    oracle.api_failures();
    oracle.files();
    oracle.git_and_tests();
    oracle.outcomes();
    oracle.agents();
    oracle
        .sums
        .0
        .retain(|_, (counters, histogram)| !histogram.is_empty() || counters.iter().any(|n| *n != 0));
    oracle.sums
}

/// Counters that another test checks.
fn is_elsewhere(kind: Kind, slot: usize, with_requests: bool) -> bool {
    match kind {
        Kind::Agent => matches!(slot, agent::COUNT | agent::SESSIONS | agent::WAITING_MS | agent::HANDOFFS),
        Kind::Compaction => slot != compaction::COUNT && slot != compaction::SESSIONS,
        Kind::Quality if slot == quality::SUBAGENTS_PARALLEL_MS || slot == quality::SESSIONS => true,
        // What a result put into the context is measured then.
        _ => with_requests && kind.counters()[slot] == "wasted_tokens",
    }
}

fn check(trace: &Trace) -> Result<(), TestCaseError> {
    let digest = digest(trace, &Limits::default());
    prop_assert_eq!(&digest.facts.cut, &Cut::default());
    let sorted = digest.contributions.is_sorted_by(|a, b| (&a.key, a.hour_ms) < (&b.key, b.hour_ms));
    prop_assert!(sorted);
    let with_requests = !trace.requests.is_empty();
    let mut want = oracle(trace).0;
    // `sessions` counts once, in the last hour of each key.
    let last: BTreeMap<Name, i64> = want.keys().map(|(name, hour)| (name.clone(), *hour)).collect();
    for (name, hour) in last {
        want.get_mut(&(name, hour)).unwrap().0[1] += 1;
    }
    for one in digest.contributions.iter().filter(|one| one.key.kind != Kind::Fill) {
        prop_assert!(!one.is_zero());
        let key = one.key.clone();
        let place = ((key.kind, key.tool, key.name, key.detail), one.hour_ms);
        let zero = (vec![0; one.counters.len()], Histogram::default());
        let (counters, histogram) = want.remove(&place).unwrap_or(zero);
        for (slot, name) in key.kind.counters().iter().enumerate() {
            if !is_elsewhere(key.kind, slot, with_requests) {
                prop_assert_eq!(one.get(slot), counters[slot], "{} of {:?}", name, place);
            }
        }
        if key.kind != Kind::Agent {
            prop_assert_eq!(&one.histogram, &histogram, "{:?}", place);
        }
    }
    prop_assert!(want.is_empty(), "missing: {:?}", want.keys().collect::<Vec<_>>());
    prop_assert_eq!(digest.resolutions.len() as u64, digest.facts.failures.failed);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cycles_are_the_maximal_repetitions(trace in crate::watch::symbols()) {
        check(&trace)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn contributions_are_those_of_the_definitions(trace in trace(0)) {
        check(&trace)?;
    }

    #[test]
    fn contributions_are_those_of_the_definitions_with_requests(trace in trace(30)) {
        check(&trace)?;
    }

    #[test]
    fn the_order_of_rows_does_not_matter(trace in trace(30), seed in any::<u64>()) {
        let mut shuffled = trace.clone();
        let turn = seed as usize;
        if !trace.calls.is_empty() {
            shuffled.calls.rotate_left(turn % trace.calls.len());
        }
        shuffled.requests.reverse();
        prop_assert_eq!(digest(&shuffled, &Limits::default()), digest(&trace, &Limits::default()));
    }

    #[test]
    fn what_entered_a_context_and_left_it_is_what_is_in_it(trace in trace(40)) {
        let digest = digest(&trace, &Limits::default());
        let agents = trace.agents.len().max(1) as u32 + 1;
        let lane_of = |agent: u32| agent.min(agents - 1);
        let mut sizes = 0;
        for lane in 0..agents {
            let requests: Vec<&Request> = trace.requests.iter()
                .filter(|r| lane_of(r.agent) == lane && r.query_source.is_empty() && r.context() > 0)
                .collect();
            for (at, request) in requests.iter().enumerate() {
                let next = requests.get(at + 1);
                let compacted = |next: &&Request| trace.marks.iter().any(|mark| {
                    lane_of(mark.agent) == lane
                        && matches!(mark.kind, MarkKind::Compaction { .. })
                        && mark.ts_ms > request.ts_ms
                        && mark.ts_ms <= next.ts_ms
                });
                if next.is_none_or(compacted) {
                    sizes += request.context();
                }
            }
        }
        let measured: i64 = digest.facts.context.fill.iter().filter(|fill| !fill.estimated).map(|fill| fill.tokens).sum();
        let shrunk: i64 = digest.facts.context.agents.iter().map(|agent| agent.shrunk).sum();
        prop_assert_eq!(measured - shrunk, sizes);
        let contributed: i64 = digest.contributions.iter()
            .filter(|one| one.key.kind == Kind::Fill && one.key.detail == "measured")
            .map(|one| one.get(fill::TOKENS))
            .sum();
        prop_assert_eq!(contributed, measured);
        for fill in &digest.facts.context.fill {
            prop_assert!(fill.tokens >= 0 && (fill.source != "tool_result" || fill.tokens <= fill.bytes));
        }
    }

    #[test]
    fn times_of_agents_are_those_of_a_count_of_every_stretch(trace in trace(0)) {
        let digest = digest(&trace, &Limits::default());
        let found = &digest.facts.collaboration;
        let lives: Vec<(i64, i64)> = found.agents.iter().skip(1)
            .map(|a| (a.started_ms, a.ended_ms.unwrap_or(a.last_ms)))
            .collect();
        let mut edges: Vec<i64> = trace.calls.iter().flat_map(|c| [c.at_ms, end(c)]).collect();
        edges.extend(lives.iter().flat_map(|life| [life.0, life.1]));
        edges.sort_unstable();
        edges.dedup();
        let (mut together, mut most, mut waiting) = (0, 0, 0);
        let starts = |i: usize| found.agents.iter().any(|a| a.parent_call == Some(trace.calls[i].id));
        for edge in edges.windows(2) {
            let covers = |span: (i64, i64)| span.0 <= edge[0] && span.1 >= edge[1];
            let alive = lives.iter().filter(|life| covers(**life)).count();
            together += if alive >= 2 { edge[1] - edge[0] } else { 0 };
            most = most.max(alive as u64);
            let agents = trace.agents.len().max(1) as u32 + 1;
            for lane in 0..agents {
                let own = (0..trace.calls.len()).filter(|i| trace.calls[*i].agent.min(agents - 1) == lane);
                let span = |i: usize| {
                    let call = &trace.calls[i];
                    let children = found.agents.iter().filter(|a| a.parent_call == Some(call.id));
                    let lived = children.map(|a| a.ended_ms.unwrap_or(a.last_ms)).max();
                    (call.at_ms, if call.ended_ms.is_some() { end(call) } else { lived.unwrap_or(call.at_ms) })
                };
                let open: Vec<usize> = own.filter(|i| covers(span(*i))).collect();
                if open.iter().any(|i| starts(*i)) && !open.iter().any(|i| !starts(*i)) {
                    waiting += edge[1] - edge[0];
                }
            }
        }
        prop_assert_eq!(found.subagents_parallel_ms, together);
        prop_assert_eq!(found.waiting_ms, waiting);
        prop_assert!(found.subagents_max >= most);
        let sum = |kind: Kind, slot: usize| {
            let own = digest.contributions.iter().filter(|one| one.key.kind == kind);
            own.map(|one| one.get(slot)).sum::<i64>()
        };
        prop_assert_eq!(sum(Kind::Quality, quality::SUBAGENTS_PARALLEL_MS), together);
        prop_assert_eq!(sum(Kind::Agent, agent::WAITING_MS), waiting);
        prop_assert_eq!(sum(Kind::Agent, agent::COUNT) as u64, found.agents_total);
        prop_assert_eq!(sum(Kind::Agent, agent::HANDOFFS) as u64, found.handoffs);
        // The tree: every agent below its parent, and one root.
        for agent in &found.agents {
            let depth = agent.parent.map_or(0, |parent| found.agents[parent as usize].depth + 1);
            prop_assert_eq!(agent.depth, depth);
        }
        let roots = found.agents.iter().filter(|agent| agent.parent.is_none()).count() as u64;
        prop_assert_eq!(roots, found.agents_total.min(1));
        prop_assert_eq!(found.agents.iter().map(|agent| agent.children).sum::<u64>() + roots, found.agents_total);
    }
}
