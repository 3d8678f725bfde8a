//! A believable fleet of agents, seeded: the same seed gives the same deliveries, event for event.
//!
//! [`Fleet`] walks a fixed number of sessions at a time through start, prompts, tool calls, subagents, compactions
//! and end. A delivery is first a small [`Step`]; its payload is only rendered when asked for, so that a generator
//! can skip ten million of them in seconds. Time is an argument and only ever moves forward.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::rng::Rng;

/// Projects.
pub(crate) const APPS: &[&str] = &[
    "atlas",
    "billing",
    "checkout",
    "crawler",
    "dashboard",
    "docs",
    "edge-proxy",
    "etl",
    "fleet",
    "gateway",
    "identity",
    "infra",
    "ledger",
    "mobile",
    "notifier",
    "search",
    "site",
    "telemetry",
    "toolbox",
    "warehouse",
];

/// Tools, most used first; the weights are shares of a thousand.
pub(crate) const TOOLS: &[(&str, u64)] = &[
    ("Bash", 300),
    ("Read", 250),
    ("Edit", 150),
    ("Grep", 90),
    ("Write", 50),
    ("Glob", 45),
    ("TodoWrite", 40),
    ("Task", 20),
    ("MultiEdit", 15),
    ("WebFetch", 12),
    ("WebSearch", 10),
    ("LS", 8),
    ("mcp__github__search", 6),
    ("NotebookEdit", 3),
    ("mcp__db__query", 1),
];

/// A tool that is called about once in ten thousand calls: what a filter for rare rows has to find.
pub(crate) const RARE_TOOL: &str = "mcp__vault__rotate";
/// A prompt that is written about once in ten thousand prompts.
pub(crate) const RARE_WORD: &str = "quetzalcoatl";
const RARE_OF: u64 = 10_000;

/// Of a thousand calls, how many fail, and how many get no Post at all (denied, interrupted).
const FAILED_OF_1000: u64 = 40;
const ENDLESS_OF_1000: u64 = 10;
/// Namespaces of derived event ids.
const DERIVED_BASE_MS: u64 = 1_600_000_000_000;

/// What kind of delivery comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    SessionStart,
    Prompt { rare: bool },
    Pre,
    Post,
    Failure,
    SubagentStart,
    SubagentStop,
    PreCompact,
    PostCompact,
    Notification,
    Stop,
    SessionEnd,
}

/// One delivery, not yet rendered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Counts from 0 over the whole fleet.
    pub(crate) index: u64,
    pub(crate) ts_ms: i64,
    pub(crate) kind: Kind,
    pub(crate) session: u64,
    pub(crate) app: usize,
    pub(crate) agent: Option<u64>,
    pub(crate) tool: usize,
    pub(crate) call: u64,
    pub(crate) duration_ms: u64,
}

/// How a fleet is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetOptions {
    pub(crate) seed: u64,
    /// Sessions that run at once.
    pub(crate) at_once: usize,
    /// Deliveries of one session, on average.
    pub(crate) events_per_session: u64,
    /// First delivery.
    pub(crate) from_ms: i64,
    /// Time between two deliveries of the whole fleet, in microseconds, on average.
    pub(crate) gap_us: u64,
}

impl FleetOptions {
    /// A small fleet for load: its times are not used by transports that stamp the delivery themselves.
    pub(crate) const fn load(seed: u64) -> Self {
        Self { seed, at_once: 16, events_per_session: 200, from_ms: 1_790_000_000_000, gap_us: 1_000 }
    }
}

/// An endless iterator of [`Step`]s.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    options: FleetOptions,
    rng: Rng,
    slots: Vec<Session>,
    next_session: u64,
    next_call: u64,
    next_index: u64,
    now_us: u64,
}

#[derive(Clone, Debug)]
struct Session {
    id: u64,
    app: usize,
    left: u64,
    started: bool,
    phase: Phase,
    agent: Option<u64>,
    calls_left: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Idle,
    Working,
    InCall { tool: usize, call: u64 },
    Compacting,
}

impl Fleet {
    pub(crate) fn new(options: FleetOptions) -> Self {
        let mut fleet = Self {
            options,
            rng: Rng::stream(options.seed, 1),
            slots: Vec::new(),
            next_session: 0,
            next_call: 0,
            next_index: 0,
            now_us: 0,
        };
        for _ in 0..options.at_once {
            let session = fleet.new_session();
            fleet.slots.push(session);
        }
        fleet
    }

    fn new_session(&mut self) -> Session {
        let id = self.next_session;
        self.next_session += 1;
        let mean = self.options.events_per_session.max(8);
        let left = self.rng.between(mean / 4, mean + mean * 3 / 4);
        // Squaring skews: the first projects have most of the sessions.
        let share = self.rng.below(1_000) * self.rng.below(1_000) * APPS.len() as u64 / 1_000_000;
        let app = usize::try_from(share).unwrap_or(0);
        Session { id, app, left, started: false, phase: Phase::Idle, agent: None, calls_left: 0 }
    }

    /// The next delivery.
    pub(crate) fn step(&mut self) -> Step {
        let at = usize::try_from(self.rng.below(self.slots.len() as u64)).unwrap_or(0);
        self.now_us += self.rng.below(self.options.gap_us * 2 + 1);
        let index = self.next_index;
        self.next_index += 1;
        let ts_ms = self.options.from_ms + i64::try_from(self.now_us / 1_000).unwrap_or(i64::MAX);
        let (kind, tool, call) = self.advance(at);
        let session = &self.slots[at];
        let duration_ms = self.rng.log_between(3.0, 60_000.0) as u64;
        let step = Step {
            index,
            ts_ms,
            kind,
            session: session.id,
            app: session.app,
            agent: session.agent,
            tool,
            call,
            duration_ms,
        };
        if kind == Kind::SessionEnd {
            self.slots[at] = self.new_session();
        } else if kind == Kind::SubagentStop {
            self.slots[at].agent = None;
        }
        step
    }

    fn advance(&mut self, at: usize) -> (Kind, usize, u64) {
        let rng = &mut self.rng;
        let session = &mut self.slots[at];
        session.left = session.left.saturating_sub(1);
        let kind = match session.phase {
            Phase::Idle if !session.started => {
                session.started = true;
                Kind::SessionStart
            }
            Phase::Idle if session.left == 0 => Kind::SessionEnd,
            Phase::Idle if rng.chance(1, 20) => Kind::Notification,
            Phase::Idle => {
                session.phase = Phase::Working;
                session.calls_left = rng.between(1, 24);
                Kind::Prompt { rare: rng.chance(1, RARE_OF) }
            }
            Phase::Compacting => {
                session.phase = Phase::Working;
                Kind::PostCompact
            }
            Phase::InCall { tool, call } => {
                session.phase = Phase::Working;
                let luck = rng.below(1_000);
                if luck < FAILED_OF_1000 {
                    return (Kind::Failure, tool, call);
                }
                if luck >= FAILED_OF_1000 + ENDLESS_OF_1000 {
                    return (Kind::Post, tool, call);
                }
                working(rng, session)
            }
            Phase::Working => working(rng, session),
        };
        if kind != Kind::Pre {
            return (kind, 0, 0);
        }
        let tool = pick_tool(rng);
        let call = self.next_call;
        self.next_call += 1;
        session.phase = Phase::InCall { tool, call };
        (Kind::Pre, tool, call)
    }
}

fn working(rng: &mut Rng, session: &mut Session) -> Kind {
    if session.calls_left == 0 || session.left == 0 {
        if session.agent.is_some() {
            return Kind::SubagentStop;
        }
        session.phase = Phase::Idle;
        return Kind::Stop;
    }
    session.calls_left -= 1;
    if session.agent.is_none() && rng.chance(1, 60) {
        session.agent = Some(rng.next());
        return Kind::SubagentStart;
    }
    if rng.chance(1, 400) {
        session.phase = Phase::Compacting;
        return Kind::PreCompact;
    }
    Kind::Pre
}

/// An index into [`TOOLS`]; one past its end is [`RARE_TOOL`].
fn pick_tool(rng: &mut Rng) -> usize {
    if rng.chance(1, RARE_OF) {
        return TOOLS.len();
    }
    let mut ticket = rng.below(TOOLS.iter().map(|(_, weight)| weight).sum());
    for (at, (_, weight)) in TOOLS.iter().enumerate() {
        if ticket < *weight {
            return at;
        }
        ticket -= weight;
    }
    0
}

impl Step {
    /// The delivery's id: the same for the same seed and index.
    pub(crate) fn event_id(&self, seed: u64) -> Uuid {
        let mut rng = Rng::stream(seed, self.index.wrapping_add(1 << 40));
        uuid::Builder::from_unix_timestamp_millis(DERIVED_BASE_MS + self.index, &rng.bytes10()).into_uuid()
    }

    pub(crate) fn session_id(&self, seed: u64) -> String {
        session_id(seed, self.session)
    }

    pub(crate) fn tool_name(&self) -> &'static str {
        TOOLS.get(self.tool).map_or(RARE_TOOL, |(name, _)| name)
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::SessionStart => "SessionStart",
            Kind::Prompt { .. } => "UserPromptSubmit",
            Kind::Pre => "PreToolUse",
            Kind::Post => "PostToolUse",
            Kind::Failure => "PostToolUseFailure",
            Kind::SubagentStart => "SubagentStart",
            Kind::SubagentStop => "SubagentStop",
            Kind::PreCompact => "PreCompact",
            Kind::PostCompact => "PostCompact",
            Kind::Notification => "Notification",
            Kind::Stop => "Stop",
            Kind::SessionEnd => "SessionEnd",
        }
    }

    /// The payload as Claude Code 2.1 writes it to a hook's stdin.
    pub(crate) fn payload(&self, seed: u64) -> String {
        let session = self.session_id(seed);
        let app = APPS[self.app];
        let mut out = String::with_capacity(1_024);
        let _ = write!(
            out,
            r#"{{"session_id":"{session}","transcript_path":"/home/dev/.claude/projects/-home-dev-src-{app}/{session}.jsonl","cwd":"/home/dev/src/{app}","permission_mode":"acceptEdits","hook_event_name":"{}""#,
            self.type_name()
        );
        if let Some(agent) = self.agent {
            let _ = write!(out, r#","agent_id":"a{:012x}","agent_type":"general-purpose""#, agent >> 16);
        }
        self.write_fact(&mut out, seed);
        out.push('}');
        out
    }

    fn write_fact(&self, out: &mut String, seed: u64) {
        let mut rng = Rng::stream(seed, self.index.wrapping_add(1 << 42));
        let _ = match self.kind {
            Kind::SessionStart => write!(out, r#","source":"startup","model":"claude-sonnet-4-5""#),
            Kind::Prompt { rare } => {
                let words = sentence(&mut rng, 12);
                let rare = if rare { RARE_WORD } else { "" };
                write!(out, r#","prompt":"{words} {rare}""#)
            }
            Kind::Pre | Kind::Post | Kind::Failure => {
                self.write_tool(out, seed);
                Ok(())
            }
            Kind::SubagentStart => Ok(()),
            Kind::SubagentStop | Kind::Stop => {
                write!(
                    out,
                    r#","stop_hook_active":false,"last_assistant_message":"{}""#,
                    sentence(&mut rng, 30)
                )
            }
            Kind::PreCompact | Kind::PostCompact => write!(out, r#","trigger":"auto""#),
            Kind::Notification => {
                write!(
                    out,
                    r#","message":"Claude is waiting for your input","notification_type":"idle_prompt""#
                )
            }
            Kind::SessionEnd => write!(out, r#","reason":"prompt_input_exit""#),
        };
    }

    fn write_tool(&self, out: &mut String, seed: u64) {
        // Pre and Post of one call have the same input.
        let mut rng = Rng::stream(seed, self.call.wrapping_add(1 << 43));
        let tool = self.tool_name();
        let path = format!("/home/dev/src/{}/src/{}/{}.rs", APPS[self.app], rng.pick(WORDS), rng.pick(WORDS));
        let input = match tool {
            "Bash" => bash_input(&mut rng),
            "Read" => format!(r#"{{"file_path":"{path}"}}"#),
            "Edit" | "MultiEdit" => format!(
                r#"{{"file_path":"{path}","old_string":"{}","new_string":"{}"}}"#,
                sentence(&mut rng, 14),
                sentence(&mut rng, 20)
            ),
            "Write" => format!(r#"{{"file_path":"{path}","content":"{}"}}"#, sentence(&mut rng, 60)),
            "Grep" | "Glob" => format!(r#"{{"pattern":"{}","path":"{path}"}}"#, rng.pick(WORDS)),
            _ => format!(r#"{{"query":"{}"}}"#, sentence(&mut rng, 6)),
        };
        let _ = write!(
            out,
            r#","tool_name":"{tool}","tool_input":{input},"tool_use_id":"toolu_{:08x}{:012x}""#,
            seed & 0xffff_ffff,
            self.call
        );
        let _ = match self.kind {
            Kind::Post => {
                let words = rng.between(4, 60);
                write!(
                    out,
                    r#","tool_response":{{"stdout":"{}","stderr":"","interrupted":false}},"duration_ms":{}"#,
                    sentence(&mut rng, words),
                    self.duration_ms
                )
            }
            Kind::Failure => write!(
                out,
                r#","error":"Exit code {}\n{}","is_interrupt":false,"duration_ms":{}"#,
                rng.between(1, 3),
                rng.pick(FAILURES),
                self.duration_ms
            ),
            _ => Ok(()),
        };
    }
}

/// The id of session `n` of the fleet with that seed.
pub(crate) fn session_id(seed: u64, n: u64) -> String {
    let mut rng = Rng::stream(seed, n.wrapping_add(1 << 41));
    let (high, low) = (rng.next(), rng.next());
    Uuid::from_u64_pair(high, low).hyphenated().to_string()
}

fn bash_input(rng: &mut Rng) -> String {
    let command = match rng.below(8) {
        0 => format!("git commit -am '{}'", sentence(rng, 5)),
        1 => "git status --short".to_owned(),
        2 => format!("cargo test -p {}", rng.pick(WORDS)),
        3 => format!("rg -n '{}' src | head -20", rng.pick(WORDS)),
        4 => format!("ls -la src/{}", rng.pick(WORDS)),
        5 => format!("sed -n 1,80p src/{}.rs", rng.pick(WORDS)),
        6 => "npm run build".to_owned(),
        _ => format!("python3 scripts/{}.py --{}", rng.pick(WORDS), rng.pick(WORDS)),
    };
    format!(r#"{{"command":"{command}","description":"{}"}}"#, sentence(rng, 4))
}

fn sentence(rng: &mut Rng, words: u64) -> String {
    let mut out = String::new();
    for n in 0..words {
        if n > 0 {
            out.push(' ');
        }
        out.push_str(rng.pick::<&str>(WORDS));
    }
    out
}

const FAILURES: &[&str] = &[
    "error[E0308]: mismatched types",
    "bash: line 1: foo: command not found",
    "ENOENT: no such file or directory, open 'config.json'",
    "Permission denied (publickey)",
    "Command timed out after 2m 0.0s",
    "fatal: not a git repository (or any of the parent directories): .git",
];

const WORDS: &[&str] = &[
    "account", "after", "align", "array", "async", "batch", "before", "between", "bound", "branch", "buffer",
    "build", "cache", "check", "client", "close", "code", "column", "commit", "config", "count", "cursor",
    "data", "delay", "delete", "draft", "edge", "engine", "error", "event", "field", "file", "filter", "fix",
    "flag", "format", "frame", "guard", "handle", "header", "index", "input", "invoice", "item", "join",
    "key", "label", "latency", "layer", "ledger", "limit", "list", "loader", "lock", "log", "map", "merge",
    "metric", "model", "module", "name", "node", "order", "output", "page", "parse", "path", "payload",
    "pool", "query", "queue", "range", "read", "record", "render", "reply", "report", "retry", "route",
    "row", "rule", "schema", "scope", "search", "session", "shape", "signal", "sketch", "socket", "source",
    "state", "store", "stream", "summary", "table", "task", "test", "time", "token", "trace", "tree", "type",
    "unit", "update", "user", "value", "view", "window", "worker", "write",
];

/// A payload of one tool event of about `bytes` bytes: what the hook client is measured with.
pub(crate) fn sized_payload(type_name: &str, call: u64, bytes: usize) -> String {
    let head = format!(
        r#"{{"session_id":"5e14197a-2d3d-4797-a267-37071f474da3","transcript_path":"/home/dev/.claude/projects/-home-dev-src-atlas/5e14197a.jsonl","cwd":"/home/dev/src/atlas","permission_mode":"acceptEdits","hook_event_name":"{type_name}","tool_name":"Bash","tool_input":{{"command":"cargo test -p parser --quiet","description":"Run the tests"}},"tool_use_id":"toolu_{call:020x}""#
    );
    let filler_key = if type_name == "PreToolUse" { "note" } else { "tool_response" };
    let overhead = head.len() + filler_key.len() + r#","":"""#.len() + 1;
    let filler: String = "test result: ok. ".chars().cycle().take(bytes.saturating_sub(overhead)).collect();
    format!(r#"{head},"{filler_key}":"{filler}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn options(seed: u64) -> FleetOptions {
        FleetOptions::load(seed)
    }

    #[test]
    fn the_same_seed_gives_the_same_deliveries() {
        let render = |seed| {
            let mut fleet = Fleet::new(options(seed));
            (0..500).map(|_| fleet.step().payload(seed)).collect::<Vec<_>>()
        };
        assert_eq!(render(7), render(7));
        assert_ne!(render(7), render(8));
    }

    #[test]
    fn every_payload_is_json_and_ids_never_repeat() -> serde_json::Result<()> {
        let mut fleet = Fleet::new(options(3));
        let mut ids = std::collections::HashSet::new();
        let mut calls = std::collections::HashSet::new();
        let mut last = i64::MIN;
        for _ in 0..20_000 {
            let step = fleet.step();
            let payload: Value = serde_json::from_str(&step.payload(3))?;
            assert_eq!(payload["hook_event_name"], step.type_name());
            assert!(ids.insert(step.event_id(3)));
            if let Some(call) = payload["tool_use_id"].as_str() {
                assert!(calls.insert((call.to_owned(), step.type_name())), "a tool fact was told twice");
            }
            assert!(step.ts_ms >= last);
            last = step.ts_ms;
        }
        Ok(())
    }

    #[test]
    fn sized_payloads_have_their_size_and_are_json() -> serde_json::Result<()> {
        for (kind, bytes) in [("PreToolUse", 2_048), ("PostToolUse", 2_048), ("PostToolUse", 1 << 20)] {
            let payload = sized_payload(kind, 9, bytes);
            assert_eq!(payload.len(), bytes);
            serde_json::from_str::<Value>(&payload)?;
        }
        Ok(())
    }
}
