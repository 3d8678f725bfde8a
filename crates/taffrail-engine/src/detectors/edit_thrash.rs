//! Edit thrash: a file is changed to and fro.
//!
//! Of one session, since a person's last prompt, three forms:
//! - the very same edit of a file succeeds again `returns` times, with another edit of it in between: each time it must
//!   have been undone;
//! - two agents change one file in turn, `turns` changes of hand within `turns_minutes`;
//! - the very same failure of the same command comes back `futile` times, each time after a file was edited: the edits do
//!   not touch its cause. A failure whose text differs (other line numbers, other times) is not the same.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use taffrail_analytics::trace::{Call, FileAction, Outcome};

use super::{Detector, Out, Scene, call_ref, named};
use crate::bounded::{Lru, Ring, key_of};
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, CALLS_MAX, CallRef, Evidence, Response, Severity, Unit};
use crate::nature::{self, Nature};

/// What it is.
pub const NOUN: &str = "edit thrash";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Pause],
    person: "A file is edited to and fro without progress. Look at its diff, then tell the agent which way it shall go.",
    agent: "Your edits of this file undo each other or do not touch the cause of the failure. Stop editing and find the cause first.",
};

/// Files, and failures, that are remembered of one session.
const FILES_MAX: usize = 32;
/// Edits of one file that are remembered.
const EDITS_MAX: usize = 16;

/// `[detectors.edit_thrash]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Edits that were made before and undone since. 2: one may be a second thought.
    pub returns: u32,
    /// Changes of hand between two agents in one file. 4: two rounds.
    pub turns: u32,
    /// Within so many minutes.
    pub turns_minutes: u32,
    /// Returns of the very same failure after an edit. 4: three different mends that changed nothing.
    pub futile: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, returns: 2, turns: 4, turns_minutes: 10, futile: 4 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("returns", self.returns, 1, 1_000)?;
        check.count("turns", self.turns, 2, 1_000)?;
        check.count("turns_minutes", self.turns_minutes, 1, 10_000)?;
        check.count("futile", self.futile, 2, 1_000)
    }
}

#[derive(Clone, Debug)]
struct Edit {
    change: u64,
    agent: Arc<str>,
    at_ms: i64,
    call: CallRef,
}

#[derive(Clone, Debug)]
struct File {
    edits: Ring<Edit>,
    returns: u32,
    began_ms: i64,
}

/// A failure, and how often it came back after an edit.
#[derive(Clone, Debug)]
struct Failing {
    end: u64,
    count: u32,
    began_ms: i64,
    /// The session's count of edits when it was seen last.
    edits: u64,
    calls: Ring<CallRef>,
}

/// The state of one session.
#[derive(Clone, Debug)]
pub(crate) struct EditThrash {
    files: Lru<Arc<str>, File>,
    failing: Lru<u64, Failing>,
    edits: u64,
    last_path: Arc<str>,
}

impl Default for EditThrash {
    fn default() -> Self {
        Self { files: Lru::new(FILES_MAX), failing: Lru::new(FILES_MAX), edits: 0, last_path: Arc::from("") }
    }
}

impl EditThrash {
    pub(crate) fn ended(&mut self, scene: &Scene<'_>, call: &Call, nature: Nature, out: &mut Out<'_>) {
        if !scene.config.edit_thrash.enabled {
            return;
        }
        if call.outcome == Outcome::Succeeded && !nature::is_shell(&call.tool) && call.input_hash != 0 {
            let edited = call.files.iter().find(|f| matches!(f.action, FileAction::Write | FileAction::Edit));
            if let Some(file) = edited {
                self.edited(scene, call, &file.path, out);
            }
        }
        if nature::is_shell(&call.tool) && !nature.waits && call.input_hash != 0 {
            self.ran(scene, call, out);
        }
    }

    /// A person is there: what went before is attended.
    pub(crate) fn attended(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        self.files.drain().for_each(drop);
        self.failing.drain().for_each(drop);
        out.over_for_session(scene, Detector::EditThrash);
    }

    fn edited(&mut self, scene: &Scene<'_>, call: &Call, path: &Arc<str>, out: &mut Out<'_>) {
        self.edits += 1;
        self.last_path = path.clone();
        let new = || File { edits: Ring::new(EDITS_MAX), returns: 0, began_ms: call.at_ms };
        let (file, _) = self.files.entry(path.clone(), new);
        let change = key_of(&[&call.input_hash.to_le_bytes()]);
        let differs = file.edits.back(0).is_some_and(|last| last.change != change);
        let earlier = file.edits.iter().rev().find(|edit| edit.change == change).map(|edit| edit.at_ms);
        if let Some(at_ms) = earlier.filter(|_| differs) {
            if file.returns == 0 {
                file.began_ms = at_ms;
            }
            file.returns += 1;
        }
        file.edits.push(Edit {
            change,
            agent: scene.agent_id.clone(),
            at_ms: scene.at_ms,
            call: call_ref(call),
        });
        let options = &scene.config.edit_thrash;
        if file.returns >= options.returns {
            let reading = returns(file, path, options.returns, scene);
            out.holds_for_session(scene, Detector::EditThrash, reading);
        }
        if let Some(reading) = turns(file, path, options, scene) {
            out.holds_for_session(scene, Detector::EditThrash, reading);
        }
    }

    fn ran(&mut self, scene: &Scene<'_>, call: &Call, out: &mut Out<'_>) {
        let nobody: Arc<str> = Arc::from("");
        #[allow(clippy::cast_sign_loss, reason = "a hash")]
        let command = call.input_hash as u64;
        let end = (call.outcome == Outcome::Failed).then_some(call.result_hash).flatten();
        let Some(end) = end else {
            if matches!(call.outcome, Outcome::Succeeded | Outcome::Failed)
                && self.failing.remove(&command).is_some()
            {
                out.episodes.over(Detector::EditThrash, &nobody, command, scene.at_ms, out.findings);
            }
            return;
        };
        let end = key_of(&[&end.to_le_bytes()]);
        let edits = self.edits;
        let new = || Failing { end, count: 0, began_ms: call.at_ms, edits, calls: Ring::new(CALLS_MAX) };
        let (failing, _) = self.failing.entry(command, new);
        if failing.end != end {
            *failing = new();
            out.episodes.over(Detector::EditThrash, &nobody, command, scene.at_ms, out.findings);
        }
        if failing.count == 0 || failing.edits < edits {
            failing.count += 1;
            failing.edits = edits;
            failing.calls.push(call_ref(call));
        }
        let threshold = scene.config.edit_thrash.futile;
        if failing.count > threshold {
            let reading = futile(failing, command, &self.last_path, threshold, scene, call);
            out.holds_for_session(scene, Detector::EditThrash, reading);
        }
    }
}

fn returns(file: &File, path: &str, threshold: u32, scene: &Scene<'_>) -> Reading {
    Reading {
        pattern: key_of(&[b"returns", path.as_bytes()]),
        level: f64::from(file.returns),
        severity: if file.returns >= 2 * threshold { Severity::Critical } else { Severity::Warning },
        began_ms: file.began_ms,
        summary: crate::finding::capped(&format!(
            "{} edits were made again after they had been undone: {path}",
            file.returns
        )),
        evidence: Evidence::default()
            .against("returns", f64::from(file.returns), Unit::Count, f64::from(threshold))
            .text("path", path)
            .calls(newest(file)),
        cost: scene.session_spend.since(file.began_ms),
    }
}

fn turns(file: &File, path: &str, options: &Options, scene: &Scene<'_>) -> Option<Reading> {
    let since_ms = scene.at_ms.saturating_sub(minutes_ms(options.turns_minutes));
    let recent: Vec<&Edit> = file.edits.iter().filter(|edit| edit.at_ms >= since_ms).collect();
    let turns = recent.windows(2).filter(|pair| pair[0].agent != pair[1].agent).count();
    let turns = u32::try_from(turns).unwrap_or(u32::MAX);
    let began_ms = recent.first()?.at_ms;
    (turns >= options.turns).then(|| Reading {
        pattern: key_of(&[b"turns", path.as_bytes()]),
        level: f64::from(turns),
        severity: Severity::Warning,
        began_ms,
        summary: crate::finding::capped(&format!(
            "two agents change one file in turn, {turns} changes of hand: {path}"
        )),
        evidence: Evidence::default()
            .against("turns", f64::from(turns), Unit::Count, f64::from(options.turns))
            .text("path", path)
            .calls(newest(file)),
        cost: scene.session_spend.since(began_ms),
    })
}

fn futile(
    failing: &Failing,
    pattern: u64,
    path: &str,
    threshold: u32,
    scene: &Scene<'_>,
    call: &Call,
) -> Reading {
    let after = failing.count - 1;
    Reading {
        pattern,
        level: f64::from(after),
        severity: if after >= 2 * threshold { Severity::Critical } else { Severity::Warning },
        began_ms: failing.began_ms,
        summary: format!("the very same failure came back after each of {after} edits: {}", named(call)),
        evidence: Evidence::default()
            .against("returns_of_the_failure", f64::from(after), Unit::Count, f64::from(threshold))
            .text("command", &named(call))
            .text("edited_last", path)
            .calls(failing.calls.iter().cloned()),
        cost: scene.session_spend.since(failing.began_ms),
    }
}

fn newest(file: &File) -> Vec<CallRef> {
    let skipped = file.edits.len().saturating_sub(CALLS_MAX);
    file.edits.iter().skip(skipped).map(|edit| edit.call.clone()).collect()
}
