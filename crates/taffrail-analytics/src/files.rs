//! Files and git: hot files, churn, rework, repeated reads, agents in one file, commits.
//!
//! A *change* is a write, an edit or a delete. *Rework* is a change of a file at most [`REWORK_MS`] after the change
//! before, by whomever. *Churn* is lines added and lines removed. A *repeated read* is a read by the agent that had
//! read the same part before (tool and input are equal), got the same result as far as both are known, with no change
//! of the file and no compaction of the agent's context between. A *shared change* is a change at most [`SHARED_MS`]
//! after a change of the file by another agent (or begun before that ended). What a shell command does to files is
//! known only as far as normalization reads it. Paths are those of one machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::digest::book::Book;
use crate::digest::view::{View, bounded, figure, keep_top, time};
use crate::digest::{Cut, KEY_MAX_BYTES, Kind, Limits, file, git, quality};
use crate::trace::{FileAction, FileTouch, MarkKind};

/// A change of the same file within this is rework, in milliseconds.
pub const REWORK_MS: i64 = 10 * 60_000;

/// Two agents' changes of one file within this are at a time, in milliseconds.
pub const SHARED_MS: i64 = 10 * 60_000;

/// Branches told of a session.
pub const BRANCHES_MAX: usize = 50;

/// The files of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Files {
    /// Distinct paths touched.
    pub paths: u64,
    /// The most touched first.
    pub hot: Vec<FileFact>,
    /// Two agents that changed one file within minutes, the latest first.
    pub shared: Vec<SharedFile>,
    pub git: GitFacts,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FileFact {
    pub path: String,
    pub reads: u64,
    pub writes: u64,
    pub edits: u64,
    pub deletes: u64,
    pub lines_added: u64,
    pub lines_removed: u64,
    pub rework: u64,
    pub repeated_reads: u64,
    pub repeated_read_bytes: i64,
    pub shared_changes: u64,
    pub agents: u64,
    pub first_ms: i64,
    pub last_ms: i64,
}

/// Two agents in one file at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SharedFile {
    pub path: String,
    /// Agent ids, in order; empty for the main agent.
    pub agents: [String; 2],
    /// Changes within minutes of a change by the other.
    pub changes: u64,
    pub first_ms: i64,
    pub last_ms: i64,
}

/// Git in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct GitFacts {
    pub commands: u64,
    pub commits: u64,
    /// Branches named by a command, sorted.
    pub branches: Vec<String>,
    pub files_changed: u64,
    pub insertions: u64,
    pub deletions: u64,
}

/// Changes of files in a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) all: u64,
    pub(crate) rework: u64,
}

/// Touches of one call that a later one of the same call is compared with.
const TOUCHES_COMPARED_MAX: usize = 256;

/// Finds what was done to files.
pub(crate) fn analyze(view: &View<'_>, limits: &Limits, book: &mut Book, cut: &mut Cut) -> (Files, Changes) {
    let compactions = compactions(view);
    let mut paths: BTreeMap<&str, PathState<'_>> = BTreeMap::new();
    for &i in &view.order {
        let call = view.call(i);
        for (nth, touch) in call.files.iter().enumerate() {
            let lane = view.lane_of(call.agent);
            let state = paths.entry(&touch.path).or_insert_with(|| PathState::new(&touch.path, book));
            state.lines(view, i, touch, book);
            // A call that touches one file twice in the same way did so at once.
            let same = |other: &FileTouch| other.path == touch.path && other.action == touch.action;
            if !call.files[..nth.min(TOUCHES_COMPARED_MAX)].iter().any(same) {
                state.touch(view, i, lane, touch, &compactions[lane], book);
            }
        }
    }
    let quality_place = book.key(Kind::Quality, "", "", "", "");
    let mut changes = Changes::default();
    let mut files = Files { paths: paths.len() as u64, ..Files::default() };
    for state in paths.into_values() {
        changes.all += state.changes.len() as u64;
        changes.rework += state.fact.rework;
        for (at_ms, rework) in &state.changes {
            book.add(quality_place, *at_ms, quality::CHANGES, 1);
            book.add(quality_place, *at_ms, quality::REWORK, i64::from(*rework));
        }
        files.shared.extend(state.shared_files(view));
        files.hot.push(FileFact { agents: state.agents.len() as u64, ..state.fact });
    }
    let touches = |f: &FileFact| f.reads + f.writes + f.edits + f.deletes;
    files.hot.sort_by(|a, b| touches(b).cmp(&touches(a)).then_with(|| a.path.cmp(&b.path)));
    keep_top(&mut files.hot, limits.facts, &mut cut.facts);
    files.shared.sort_by(|a, b| {
        b.last_ms.cmp(&a.last_ms).then_with(|| (&a.path, &a.agents).cmp(&(&b.path, &b.agents)))
    });
    keep_top(&mut files.shared, limits.facts, &mut cut.facts);
    files.git = git_of(view, book, cut);
    (files, changes)
}

/// When each agent's context was compacted, in order.
fn compactions(view: &View<'_>) -> Vec<Vec<i64>> {
    let of_lane = |marks: &Vec<usize>| {
        let marks = marks.iter().map(|&mark| &view.trace.marks[mark]);
        marks
            .filter(|mark| matches!(mark.kind, MarkKind::Compaction { .. }))
            .map(|mark| time(mark.ts_ms))
            .collect()
    };
    view.marks.iter().map(of_lane).collect()
}

/// A path on its way through the session.
struct PathState<'t> {
    fact: FileFact,
    place: crate::digest::book::Place,
    agents: BTreeSet<usize>,
    /// Calls that changed it so far.
    version: u64,
    /// (end, lane) of the last change, and of the last one by another agent than that.
    last_change: Option<(i64, usize)>,
    last_by_other: Option<(i64, usize)>,
    /// (when, whether it is rework).
    changes: Vec<(i64, bool)>,
    /// By (lane, tool, input).
    reads: HashMap<(usize, &'t str, i64), LastRead>,
    shared: BTreeMap<(usize, usize), SharedFile>,
}

/// The version that was read, when, and the result.
type LastRead = (u64, i64, Option<i64>);

impl<'t> PathState<'t> {
    fn new(path: &str, book: &mut Book) -> Self {
        Self {
            fact: FileFact {
                path: bounded(path, KEY_MAX_BYTES),
                first_ms: i64::MAX,
                last_ms: i64::MIN,
                ..FileFact::default()
            },
            place: book.key(Kind::File, "", path, "", ""),
            agents: BTreeSet::new(),
            version: 0,
            last_change: None,
            last_by_other: None,
            changes: Vec::new(),
            reads: HashMap::new(),
            shared: BTreeMap::new(),
        }
    }

    fn lines(&mut self, view: &View<'t>, i: usize, touch: &FileTouch, book: &mut Book) {
        let (added, removed) = (touch.lines_added.unwrap_or(0), touch.lines_removed.unwrap_or(0));
        self.fact.lines_added += u64::from(added);
        self.fact.lines_removed += u64::from(removed);
        let cell = book.cell(self.place, view.end(i));
        cell.add(file::LINES_ADDED, i64::from(added));
        cell.add(file::LINES_REMOVED, i64::from(removed));
    }

    fn touch(
        &mut self,
        view: &View<'t>,
        i: usize,
        lane: usize,
        touch: &FileTouch,
        compactions: &[i64],
        book: &mut Book,
    ) {
        let end = view.end(i);
        self.agents.insert(lane);
        let (fact, place) = (&mut self.fact, self.place);
        fact.first_ms = fact.first_ms.min(view.begin(i));
        fact.last_ms = fact.last_ms.max(end);
        let (slot, count) = match touch.action {
            FileAction::Read => (file::READS, &mut fact.reads),
            FileAction::Write => (file::WRITES, &mut fact.writes),
            FileAction::Edit => (file::EDITS, &mut fact.edits),
            FileAction::Delete => (file::DELETES, &mut fact.deletes),
        };
        *count += 1;
        let cell = book.cell(place, end);
        cell.add(file::COUNT, 1);
        cell.add(slot, 1);
        if touch.action == FileAction::Read {
            self.read(view, i, lane, compactions, book);
        } else {
            self.change(view, i, lane, book);
        }
    }

    fn read(&mut self, view: &View<'t>, i: usize, lane: usize, compactions: &[i64], book: &mut Book) {
        let call = view.call(i);
        if call.input_hash == 0 {
            return;
        }
        let end = view.end(i);
        let now = (self.version, end, call.result_hash);
        let before = self.reads.insert((lane, &call.tool, call.input_hash), now);
        let Some((version, read_ms, result)) = before else { return };
        let compacted = compactions
            .get(compactions.partition_point(|at| *at < read_ms))
            .is_some_and(|at| *at <= view.begin(i));
        let same = result.is_none() || call.result_hash.is_none() || result == call.result_hash;
        if version == self.version && same && !compacted {
            let bytes = figure(call.output_bytes.unwrap_or(0));
            self.fact.repeated_reads += 1;
            self.fact.repeated_read_bytes = self.fact.repeated_read_bytes.saturating_add(bytes);
            let cell = book.cell(self.place, end);
            cell.add(file::REPEATED_READS, 1);
            cell.add(file::REPEATED_READ_BYTES, bytes);
        }
    }

    fn change(&mut self, view: &View<'t>, i: usize, lane: usize, book: &mut Book) {
        let (begin, end) = (view.begin(i), view.end(i));
        self.version += 1;
        let rework = self.last_change.is_some_and(|(before, _)| begin - before <= REWORK_MS);
        self.fact.rework += u64::from(rework);
        self.changes.push((end, rework));
        book.add(self.place, end, file::REWORK, i64::from(rework));
        let other = match self.last_change {
            Some((_, by)) if by == lane => self.last_by_other,
            last => last,
        };
        if let Some((_, by)) = other.filter(|(before, _)| begin - before <= SHARED_MS) {
            self.fact.shared_changes += 1;
            book.add(self.place, end, file::SHARED_CHANGES, 1);
            let pair = (lane.min(by), lane.max(by));
            if self.shared.len() < SHARED_PAIRS_MAX || self.shared.contains_key(&pair) {
                let shared = self
                    .shared
                    .entry(pair)
                    .or_insert_with(|| SharedFile { first_ms: end, ..SharedFile::default() });
                shared.changes += 1;
                shared.first_ms = shared.first_ms.min(end);
                shared.last_ms = shared.last_ms.max(end);
            }
        }
        if let Some(last) = self.last_change.filter(|(_, by)| *by != lane) {
            self.last_by_other = Some(last);
        }
        self.last_change = Some((end, lane));
    }

    fn shared_files(&self, view: &View<'_>) -> Vec<SharedFile> {
        let named = |(&(a, b), shared): (&(usize, usize), &SharedFile)| SharedFile {
            path: self.fact.path.clone(),
            agents: [view.agents[a].id.clone(), view.agents[b].id.clone()],
            ..shared.clone()
        };
        self.shared.iter().map(named).collect()
    }
}

/// Pairs of agents told of one file.
const SHARED_PAIRS_MAX: usize = 20;

fn git_of(view: &View<'_>, book: &mut Book, cut: &mut Cut) -> GitFacts {
    let mut facts = GitFacts::default();
    let mut branches: BTreeSet<String> = BTreeSet::new();
    for &i in &view.order {
        for touch in &view.call(i).git {
            let branch = touch.branch.as_deref().unwrap_or("");
            let is_commit = touch.subcommand == "commit" && touch.commit.is_some();
            let figures =
                [touch.files_changed, touch.insertions, touch.deletions].map(|n| i64::from(n.unwrap_or(0)));
            let place = book.key(Kind::Git, "", &touch.subcommand, branch, "");
            let cell = book.cell(place, view.end(i));
            cell.add(git::COUNT, 1);
            cell.add(git::FAILED, i64::from(view.failed(i)));
            cell.add(git::COMMITS, i64::from(is_commit));
            cell.add(git::FILES_CHANGED, figures[0]);
            cell.add(git::INSERTIONS, figures[1]);
            cell.add(git::DELETIONS, figures[2]);
            facts.commands += 1;
            facts.commits += u64::from(is_commit);
            facts.files_changed += figures[0] as u64;
            facts.insertions += figures[1] as u64;
            facts.deletions += figures[2] as u64;
            if !branch.is_empty() {
                branches.insert(bounded(branch, KEY_MAX_BYTES));
            }
        }
    }
    facts.branches = branches.into_iter().collect();
    keep_top(&mut facts.branches, BRANCHES_MAX, &mut cut.facts);
    facts
}
