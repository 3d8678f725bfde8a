//! Episodes: a pattern is told when it begins, when its level has doubled or it became more severe, and when it is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::detectors::Detector;
use crate::finding::{Cost, Evidence, Finding, Phase, Scope, Severity};
use crate::signal::SessionKey;

/// Open episodes of one session, and of all that is no session's; the oldest makes room and is told to be over.
pub(crate) const EPISODES_MAX: usize = 64;
/// How much the level has grown when an episode is told again.
const ESCALATES_BY: f64 = 2.0;

/// What a detector reads while its trigger holds.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Which pattern, among those of the detector and the scope.
    pub(crate) pattern: u64,
    /// What grows while it goes on: a count, a ratio. Positive.
    pub(crate) level: f64,
    pub(crate) severity: Severity,
    pub(crate) began_ms: i64,
    pub(crate) summary: String,
    pub(crate) evidence: Evidence,
    pub(crate) cost: Cost,
}

#[derive(Clone, Debug)]
struct Episode {
    /// As of the last telling.
    level: f64,
    severity: Severity,
    newest: Finding,
    opened: u64,
}

/// The episodes of one scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Episodes {
    open: BTreeMap<(Detector, Arc<str>, u64), Episode>,
    opened: u64,
}

/// Whom a reading is about.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) key: &'a SessionKey,
    /// Empty for the main agent and for the session.
    pub(crate) agent_id: &'a Arc<str>,
    pub(crate) agent_type: &'a Arc<str>,
}

impl Episodes {
    /// Notes a reading; what is to be told goes to `out`.
    pub(crate) fn holds(
        &mut self,
        about: About<'_>,
        detector: Detector,
        at_ms: i64,
        reading: Reading,
        out: &mut Vec<Finding>,
    ) {
        let place = (detector, about.agent_id.clone(), reading.pattern);
        if let Some(episode) = self.open.get_mut(&place) {
            let worse = reading.level >= episode.level * ESCALATES_BY || reading.severity > episode.severity;
            let severity = reading.severity.max(episode.severity);
            episode.newest = Finding {
                phase: Phase::Escalated,
                severity,
                at_ms,
                summary: reading.summary,
                evidence: reading.evidence,
                cost: reading.cost,
                ..episode.newest.clone()
            };
            if worse {
                (episode.level, episode.severity) = (reading.level, severity);
                out.push(episode.newest.clone());
            }
            return;
        }
        if self.open.len() >= EPISODES_MAX {
            self.end_oldest(at_ms, out);
        }
        let finding = new(about, detector, at_ms, reading.clone());
        out.push(finding.clone());
        self.opened += 1;
        let (level, severity) = (reading.level, reading.severity);
        self.open.insert(place, Episode { level, severity, newest: finding, opened: self.opened });
    }

    /// A pattern is over.
    pub(crate) fn over(
        &mut self,
        detector: Detector,
        agent_id: &Arc<str>,
        pattern: u64,
        at_ms: i64,
        out: &mut Vec<Finding>,
    ) {
        if !self.open.is_empty()
            && let Some(episode) = self.open.remove(&(detector, agent_id.clone(), pattern))
        {
            out.push(resolved(episode, at_ms));
        }
    }

    /// Whether the detector has an open episode.
    pub(crate) fn is_open(&self, detector: Detector) -> bool {
        self.open.keys().any(|(open, ..)| *open == detector)
    }

    /// Every pattern of a detector is over, of one agent, or of all.
    pub(crate) fn over_all(
        &mut self,
        detector: Detector,
        agent_id: Option<&Arc<str>>,
        at_ms: i64,
        out: &mut Vec<Finding>,
    ) {
        self.end_where(at_ms, out, |open, agent, _| {
            open == detector && agent_id.is_none_or(|id| id == agent)
        });
    }

    /// Those of an agent that is gone, or all of a session's.
    pub(crate) fn over_for(&mut self, agent_id: Option<&Arc<str>>, at_ms: i64, out: &mut Vec<Finding>) {
        self.end_where(at_ms, out, |_, agent, _| agent_id.is_none_or(|id| id == agent));
    }

    fn end_where(
        &mut self,
        at_ms: i64,
        out: &mut Vec<Finding>,
        mut is_over: impl FnMut(Detector, &Arc<str>, u64) -> bool,
    ) {
        let over: Vec<_> = self
            .open
            .keys()
            .filter(|(open, agent, pattern)| is_over(*open, agent, *pattern))
            .cloned()
            .collect();
        for place in over {
            out.extend(self.open.remove(&place).map(|episode| resolved(episode, at_ms)));
        }
    }

    fn end_oldest(&mut self, at_ms: i64, out: &mut Vec<Finding>) {
        let oldest =
            self.open.iter().min_by_key(|(_, episode)| episode.opened).map(|(place, _)| place.clone());
        out.extend(oldest.and_then(|place| self.open.remove(&place)).map(|episode| resolved(episode, at_ms)));
    }
}

fn new(about: About<'_>, detector: Detector, at_ms: i64, reading: Reading) -> Finding {
    let SessionKey { session_id, app, user } = about.key.clone();
    let agent = about.agent_id;
    Finding {
        id: format!("{}:{session_id}:{agent}:{:016x}:{}", detector.name(), reading.pattern, reading.began_ms),
        detector,
        phase: Phase::Fired,
        severity: reading.severity,
        scope: Scope { session_id, app, user, agent_id: agent.clone(), agent_type: about.agent_type.clone() },
        began_ms: reading.began_ms,
        at_ms,
        summary: reading.summary,
        evidence: reading.evidence,
        cost: reading.cost,
        response: detector.response(),
    }
}

fn resolved(episode: Episode, at_ms: i64) -> Finding {
    Finding { phase: Phase::Resolved, at_ms, ..episode.newest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(pattern: u64, level: f64) -> Reading {
        Reading {
            pattern,
            level,
            severity: Severity::Warning,
            began_ms: 7,
            summary: String::new(),
            evidence: Evidence::default(),
            cost: Cost::default(),
        }
    }

    #[test]
    fn an_episode_is_told_once_then_when_it_doubles_then_when_it_is_over() {
        let key = SessionKey::default();
        let none: Arc<str> = Arc::from("");
        let about = About { key: &key, agent_id: &none, agent_type: &none };
        let mut episodes = Episodes::default();
        let mut out = Vec::new();
        for level in [3.0, 4.0, 5.0, 6.0, 7.0, 11.0, 12.0] {
            episodes.holds(about, Detector::RetryLoop, 1, reading(1, level), &mut out);
        }
        episodes.over(Detector::RetryLoop, &none, 1, 2, &mut out);
        episodes.over(Detector::RetryLoop, &none, 1, 2, &mut out);
        let phases: Vec<Phase> = out.iter().map(|finding| finding.phase).collect();
        assert_eq!(phases, [Phase::Fired, Phase::Escalated, Phase::Escalated, Phase::Resolved]);
        assert!(out.iter().all(|finding| finding.id == out[0].id), "one episode, one id");
    }

    #[test]
    fn the_oldest_episode_makes_room_and_is_told_to_be_over() {
        let key = SessionKey::default();
        let none: Arc<str> = Arc::from("");
        let about = About { key: &key, agent_id: &none, agent_type: &none };
        let mut episodes = Episodes::default();
        let mut out = Vec::new();
        for pattern in 0..=EPISODES_MAX as u64 {
            episodes.holds(about, Detector::RetryLoop, 1, reading(pattern, 1.0), &mut out);
        }
        let over: Vec<_> = out.iter().filter(|finding| finding.phase == Phase::Resolved).collect();
        assert_eq!(over.len(), 1);
        assert!(over[0].id.contains(":0000000000000000:"));
    }
}
