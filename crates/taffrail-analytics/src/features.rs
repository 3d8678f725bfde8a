//! What the isolation forest sees of a tool call: one row of numbers for each call that ended.
//!
//! Durations, sizes and counts are taken as `ln(1 + x)`: they span orders of magnitude, and a cut at random is as likely in each.
//! The hour of the day is a point on a circle, so that 23:59 lies beside 0:00. What is not known is NaN.
//!
//! [`Tracker`] holds what a row needs of the calls before. It is bounded: [`AGENTS_MAX`] agents with [`REPETITION_CALLS`] calls
//! each. [`rows`] feeds it with a whole session and gives the same rows as feeding it live.

use std::collections::{HashMap, VecDeque};
use std::f64::consts::TAU;

use crate::trace::{Call, Outcome, Trace};

/// Numbers of a row.
pub const COLUMNS: usize = 8;

/// Among how many of the agent's last calls a repetition is looked for.
pub const REPETITION_CALLS: usize = 64;

/// A request that is older than this did not ask for the call.
pub const REQUEST_AGE_MAX_MS: i64 = 600_000;

/// Agents of a session that are followed; beyond, those that were quiet for longest are forgotten.
pub const AGENTS_MAX: usize = 1_024;

const HOUR_MS: i64 = 3_600_000;
const DAY_HOURS: f64 = 24.0;

/// A call as the forest sees it: [`Feature::columns`] says what stands where.
pub type Row = [f32; COLUMNS];

/// Kinds of tools: calls of one family are compared with each other only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Family {
    Shell,
    FileRead,
    FileWrite,
    Search,
    Web,
    /// Starting other agents, and waiting for them.
    Agent,
    Mcp,
    Other,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Shell,
        Self::FileRead,
        Self::FileWrite,
        Self::Search,
        Self::Web,
        Self::Agent,
        Self::Mcp,
        Self::Other,
    ];

    /// The family of a tool, by its name; names of other clients' tools are known too.
    pub fn of(tool: &str) -> Self {
        match tool {
            "Bash" | "BashOutput" | "KillShell" | "KillBash" | "PowerShell" | "Monitor" | "bash"
            | "shell" | "local_shell" | "exec_command" | "write_stdin" | "run_shell_command" => Self::Shell,
            "Read" | "NotebookRead" | "ReadMany" | "read" | "read_file" | "read_many_files"
            | "view_image" => Self::FileRead,
            "Write" | "Edit" | "MultiEdit" | "NotebookEdit" | "write" | "edit" | "multiedit" | "patch"
            | "apply_patch" | "write_file" | "replace" => Self::FileWrite,
            "Grep"
            | "Glob"
            | "LS"
            | "LSP"
            | "ToolSearch"
            | "grep"
            | "glob"
            | "list"
            | "list_directory"
            | "search_file_content"
            | "grep_search"
            | "codebase_search" => Self::Search,
            "WebFetch" | "WebSearch" | "webfetch" | "websearch" | "web_fetch" | "web_search"
            | "google_web_search" => Self::Web,
            "Task" | "Agent" | "TaskOutput" | "AgentOutput" | "AgentOutputTool" | "TaskStop" | "Workflow"
            | "SendMessage" | "TeamCreate" | "TeamDelete" | "task" | "spawn_agent" | "wait_agent" => {
                Self::Agent
            }
            _ if tool.starts_with("mcp__") => Self::Mcp,
            _ => Self::Other,
        }
    }

    /// Its name in the database and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::FileRead => "file_read",
            Self::FileWrite => "file_write",
            Self::Search => "search",
            Self::Web => "web",
            Self::Agent => "agent",
            Self::Mcp => "mcp",
            Self::Other => "other",
        }
    }

    /// The family of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

/// What a person is told of a row: a column, or the two of the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// How long the tool worked.
    Duration,
    /// Output tokens of the API request that asked for the call: how much the model wrote for it.
    Tokens,
    /// Size of what the tool gave back.
    OutputBytes,
    /// Whether it failed.
    Error,
    /// Time since the agent last began or ended a call.
    Gap,
    /// How many of the agent's last [`REPETITION_CALLS`] calls had the same tool and input.
    Repetition,
    /// Hour of the day at which it began.
    Hour,
}

impl Feature {
    /// All of them, in the order of their columns.
    pub const ALL: [Self; 7] = [
        Self::Duration,
        Self::Tokens,
        Self::OutputBytes,
        Self::Error,
        Self::Gap,
        Self::Repetition,
        Self::Hour,
    ];

    /// Its name, which ends in its unit where it has one: in models, the database and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duration => "duration_ms",
            Self::Tokens => "output_tokens",
            Self::OutputBytes => "output_bytes",
            Self::Error => "error",
            Self::Gap => "gap_ms",
            Self::Repetition => "repetitions",
            Self::Hour => "hour",
        }
    }

    /// Its unit, for a person; empty for a plain number.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Duration | Self::Gap => "ms",
            Self::Tokens => "tokens",
            Self::OutputBytes => "bytes",
            Self::Hour => "h",
            Self::Error | Self::Repetition => "",
        }
    }

    /// Where its columns stand in a row.
    pub const fn columns(self) -> std::ops::Range<usize> {
        let first = self as usize;
        match self {
            Self::Hour => first..first + 2,
            _ => first..first + 1,
        }
    }

    /// Its value in a row, in its unit; none where it is not known. An error is 0 or 1, the hour 0 to below 24.
    pub fn value(self, row: &Row) -> Option<f64> {
        let first = f64::from(row[self.columns().start]);
        let value = match self {
            Self::Hour => {
                let second = f64::from(row[self.columns().start + 1]);
                (first.atan2(second) / TAU * DAY_HOURS).rem_euclid(DAY_HOURS)
            }
            _ => self.unscaled(first),
        };
        (!value.is_nan()).then_some(value)
    }

    /// A number of its column in its unit. The hour has no such: it stays as it is.
    pub fn unscaled(self, scaled: f64) -> f64 {
        match self {
            Self::Duration | Self::Tokens | Self::OutputBytes | Self::Gap | Self::Repetition => {
                scaled.exp_m1()
            }
            Self::Error | Self::Hour => scaled,
        }
    }
}

/// What a row needs of the calls before, known when the call begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// See [`Feature::Gap`]; none for an agent's first call.
    pub gap_ms: Option<i64>,
    /// See [`Feature::Repetition`]; none where the input is not known.
    pub repetitions: Option<u32>,
    /// See [`Feature::Tokens`].
    pub output_tokens: Option<i64>,
}

/// What happened to the agents of a session up to now.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    agents: HashMap<u32, Track>,
    /// Counts what came, so that the quiet can be told from the busy.
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Track {
    active_ms: Option<i64>,
    /// Of the last calls; 0 where the input is not known.
    inputs: VecDeque<i64>,
    /// Of the latest request: when, and its output tokens.
    request: Option<(i64, i64)>,
    touched: u64,
}

impl Tracker {
    /// An API request of the agent is complete.
    pub fn request(&mut self, agent: u32, ts_ms: i64, output_tokens: i64) {
        let track = self.track(agent);
        if track.request.is_none_or(|(known_ms, _)| ts_ms >= known_ms) {
            track.request = Some((ts_ms, output_tokens));
        }
    }

    /// A call of the agent begins; `input_hash` is 0 where the input is not known.
    pub fn begin(&mut self, agent: u32, at_ms: i64, input_hash: i64) -> Lead {
        let track = self.track(agent);
        let lead = Lead {
            gap_ms: track.active_ms.map(|active_ms| at_ms.saturating_sub(active_ms).max(0)),
            repetitions: (input_hash != 0)
                .then(|| track.inputs.iter().filter(|&&other| other == input_hash).count() as u32),
            output_tokens: track.request.and_then(|(ts_ms, output_tokens)| {
                (0..=REQUEST_AGE_MAX_MS).contains(&at_ms.saturating_sub(ts_ms)).then_some(output_tokens)
            }),
        };
        track.active_ms = track.active_ms.max(Some(at_ms));
        if track.inputs.len() == REPETITION_CALLS {
            track.inputs.pop_front();
        }
        track.inputs.push_back(input_hash);
        lead
    }

    /// A call of the agent ended.
    pub fn end(&mut self, agent: u32, ended_ms: i64) {
        let track = self.track(agent);
        track.active_ms = track.active_ms.max(Some(ended_ms));
    }

    fn track(&mut self, agent: u32) -> &mut Track {
        self.clock += 1;
        if self.agents.len() >= AGENTS_MAX && !self.agents.contains_key(&agent) {
            let mut touched: Vec<u64> = self.agents.values().map(|track| track.touched).collect();
            let middle = touched.len() / 2;
            let (_, &mut median, _) = touched.select_nth_unstable(middle);
            self.agents.retain(|_, track| track.touched >= median);
        }
        let track = self.agents.entry(agent).or_default();
        track.touched = self.clock;
        track
    }
}

/// The row of a call that ended, so that it says something about its tool: not one that was denied, or interrupted.
/// `utc_offset_ms` is what local time is ahead of UTC.
pub fn row(call: &Call, lead: Lead, utc_offset_ms: i64) -> Option<Row> {
    let failed = match call.outcome {
        Outcome::Failed => true,
        Outcome::Succeeded | Outcome::Ended => false,
        Outcome::Running | Outcome::Abandoned | Outcome::Denied | Outcome::Interrupted => return None,
    };
    let duration_ms = call.duration_ms.or_else(|| Some(call.ended_ms?.saturating_sub(call.at_ms)));
    let angle = hour_of(call.at_ms, utc_offset_ms) / DAY_HOURS * TAU;
    Some([
        log_scaled(duration_ms),
        log_scaled(lead.output_tokens),
        log_scaled(call.output_bytes),
        f32::from(u8::from(failed)),
        log_scaled(lead.gap_ms),
        log_scaled(lead.repetitions.map(i64::from)),
        angle.sin() as f32,
        angle.cos() as f32,
    ])
}

/// A call of a trace with its row.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct CallRow {
    /// Of the trace's call.
    pub call_id: i64,
    pub family: Family,
    pub row: Row,
}

/// The rows of a session's calls that ended, in the order of the trace.
pub fn rows(trace: &Trace, utc_offset_ms: i64) -> Vec<CallRow> {
    let leads = leads(trace);
    let rows = trace.calls.iter().zip(leads).filter_map(|(call, lead)| {
        let row = row(call, lead, utc_offset_ms)?;
        Some(CallRow { call_id: call.id, family: Family::of(&call.tool), row })
    });
    rows.collect()
}

/// Replays the session through a tracker; one lead for each call.
fn leads(trace: &Trace) -> Vec<Lead> {
    // At the same time a request is before an end, an end before a beginning, and a beginning before its own end.
    let requests = trace.requests.iter().enumerate().map(|(at, request)| (request.ts_ms, 0, at));
    let ends = trace.calls.iter().enumerate().filter_map(|(at, call)| {
        let ended_ms = call.ended_ms?;
        Some(if ended_ms > call.at_ms { (ended_ms, 1, at) } else { (call.at_ms, 3, at) })
    });
    let begins = trace.calls.iter().enumerate().map(|(at, call)| (call.at_ms, 2, at));
    let mut happenings: Vec<(i64, u8, usize)> = requests.chain(ends).chain(begins).collect();
    happenings.sort_unstable();
    let mut tracker = Tracker::default();
    let mut leads = vec![Lead::default(); trace.calls.len()];
    for (ts_ms, kind, at) in happenings {
        match kind {
            0 => tracker.request(trace.requests[at].agent, ts_ms, trace.requests[at].output),
            1 | 3 => tracker.end(trace.calls[at].agent, ts_ms),
            _ => leads[at] = tracker.begin(trace.calls[at].agent, ts_ms, trace.calls[at].input_hash),
        }
    }
    leads
}

fn log_scaled(value: Option<i64>) -> f32 {
    value.map_or(f32::NAN, |value| (value.max(0) as f64).ln_1p() as f32)
}

/// Hour of the day, 0 to below 24, with its parts.
fn hour_of(at_ms: i64, utc_offset_ms: i64) -> f64 {
    at_ms.saturating_add(utc_offset_ms).rem_euclid(24 * HOUR_MS) as f64 / HOUR_MS as f64
}

#[cfg(test)]
mod tests;
