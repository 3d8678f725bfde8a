//! What the tests over transcripts share: reading in any pieces, and putting facts together as the store does.

use std::collections::BTreeMap;

use taffrail_event::ledger::{ClientTotal, FailureSighting, RequestSighting, Usage};
use taffrail_event::transcript::{
    AgentSighting, Counts, Facts, FileFacts, Mark, Parser, SessionSighting, merge,
};

/// Facts of several takes as one, whatever their order in the file was: what a store would hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Union {
    pub requests: BTreeMap<String, RequestSighting>,
    pub failures: Vec<FailureSighting>,
    pub marks: Vec<Mark>,
    pub sessions: BTreeMap<String, SessionSighting>,
    pub agents: BTreeMap<(String, String), AgentSighting>,
    pub totals: BTreeMap<String, ClientTotal>,
    pub counts: Counts,
}

impl Union {
    pub fn add(&mut self, facts: Facts) {
        for told in facts.requests {
            let name = told.message_id.as_ref().or(told.request_id.as_ref()).unwrap();
            let key = format!("{name} {} {:?} {:?}", told.session_id, told.agent_id, told.witness);
            match self.requests.get_mut(&key) {
                Some(known) => merge(known, told),
                None => drop(self.requests.insert(key, told)),
            }
        }
        self.failures.extend(facts.failures);
        self.marks.extend(facts.marks);
        for told in facts.sessions {
            self.session(told);
        }
        for told in facts.agents {
            let key = (told.session_id.clone(), told.agent_id.clone());
            let Some(known) = self.agents.get_mut(&key) else {
                self.agents.insert(key, told);
                continue;
            };
            known.agent_type = known.agent_type.take().or(told.agent_type);
            known.description = known.description.take().or(told.description);
            known.tool_use_id = known.tool_use_id.take().or(told.tool_use_id);
            known.first = [known.first, told.first].into_iter().flatten().min();
            known.last = known.last.max(told.last);
        }
        self.totals.extend(facts.totals.into_iter().map(|total| (total.session_id.clone(), total)));
        self.counts.records += facts.counts.records;
        self.counts.bad += facts.counts.bad;
        self.counts.unknown += facts.counts.unknown;
    }

    fn session(&mut self, told: SessionSighting) {
        let Some(known) = self.sessions.get_mut(&told.session_id) else {
            self.sessions.insert(told.session_id.clone(), told);
            return;
        };
        if known.prompted <= told.prompted {
            known.last_prompt = told.last_prompt.or(known.last_prompt.take());
            known.prompted = told.prompted.or(known.prompted);
        }
        known.cwd = known.cwd.take().or(told.cwd);
        known.git_branch = told.git_branch.or(known.git_branch.take());
        known.client_version = told.client_version.or(known.client_version.take());
        known.model = told.model.or(known.model.take());
        known.title = told.title.or(known.title.take());
        known.first = known.first.min(told.first);
        known.last = known.last.max(told.last);
    }

    /// Tokens of all requests, each message once.
    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for usage in self.requests.values().filter_map(|request| request.usage) {
            sum.input += usage.input;
            sum.output += usage.output;
            sum.cache_read += usage.cache_read;
            sum.cache_write_5m += usage.cache_write_5m;
            sum.cache_write_1h += usage.cache_write_1h;
            sum.web_searches += usage.web_searches;
        }
        sum
    }
}

/// Reads a file in one go.
pub fn read(file: &FileFacts, bytes: &[u8]) -> Union {
    let mut parser = Parser::new(file);
    let taken = parser.feed(bytes);
    parser.finish(&bytes[taken..]);
    let mut union = Union::default();
    union.add(parser.take());
    union
}

/// Reads a file in pieces that end at the given places; where `sits` says so, a new parser goes on from the saved
/// context, and the bytes that were not taken are read again.
pub fn read_in_pieces(file: &FileFacts, bytes: &[u8], cuts: &[usize], sits: &[bool]) -> Union {
    let mut union = Union::default();
    let mut parser = Parser::new(file);
    let mut at = 0;
    let mut ends: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    for (n, &end) in ends.iter().enumerate() {
        if end > at {
            at += parser.feed(&bytes[at..end]);
        }
        assert!(at <= end);
        if sits.get(n).copied().unwrap_or(false) {
            let context = parser.context();
            union.add(parser.take());
            parser = Parser::resume(file, &context).expect("its own context");
        }
    }
    parser.finish(&bytes[at..]);
    union.add(parser.take());
    union
}
