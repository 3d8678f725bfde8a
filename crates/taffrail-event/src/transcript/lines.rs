//! What each type of record tells.

use super::parser::Parser;
use super::record::{ApiError, Block, Blocks, Inner, Iterations, Message, Record, SpawnInput, WireUsage};
use super::{AgentSighting, Mark, MarkKind, lenient::List, merge, prompts};
use crate::ids::{EventId, ID_MAX_BYTES, TimestampMs, bounded_id};
use crate::ledger::{
    ClientModelTotal, ClientTotal, FailureSighting, RequestSighting, Speed, Terms, Usage, Witness, nano_usd,
};
use crate::normalize::one_line;

/// The model of messages that the client wrote itself.
const SYNTHETIC: &str = "<synthetic>";
/// The longest message of a failure that is kept.
const MESSAGE_MAX_CHARS: usize = 512;
/// The type of subagents that early clients wrote into the session's file without an id.
const INLINE_AGENT_TYPE: &str = "sidechain";

/// Days from 1 March of the year 0 to the epoch.
const MARCH_EPOCH_DAYS: i64 = 719_468;

/// Types that are known and tell nothing the ledger needs, beside their time stamp.
const SILENT: &[&str] = &[
    "agent-name",
    "agent-setting",
    "agent-color",
    "api-request",
    "api-request-blob",
    "api-request-shape",
    "atis-latch",
    "attachment",
    "attribution-snapshot",
    "content-replacement",
    "file-history-delta",
    "file-history-snapshot",
    "last-prompt",
    "mode",
    "permission-mode",
    "pr-link",
    "queue-operation",
    "tag",
    "tools-used",
    "worktree-state",
];

/// Where a record belongs.
struct Scene {
    session: String,
    agent: Option<String>,
    agent_type: Option<String>,
    /// None where neither the record nor the file tells a time.
    ts: Option<TimestampMs>,
    born: TimestampMs,
}

impl Parser {
    /// Draws the facts out of one record of a transcript.
    pub(super) fn line(&mut self, record: &Record<'_>) {
        let ts = self.moment(record.timestamp.0.and_then(stamp));
        self.note_session(record);
        let is_session_known = self.known.session.is_some();
        // Lent to the scene, and given back after it.
        let session = self.known.session.take().unwrap_or_else(|| self.session_of_file());
        let own = record.agent_id.get().map(bounded_id);
        let agent = own.or_else(|| self.file.agent_id.clone());
        let inline = agent.is_none() && record.is_sidechain.0;
        let agent_type = record.attribution_agent.get().map(bounded_id);
        let agent_type = agent_type.or_else(|| inline.then(|| INLINE_AGENT_TYPE.to_owned()));
        let born = self.born().or(self.file.modified).unwrap_or(TimestampMs::MIN);
        let scene = Scene { session, agent, agent_type, ts, born };
        match record.kind.get() {
            Some("assistant") => self.assistant(record, &scene),
            Some("user") => self.user(record, &scene),
            Some("system") => self.system(record, &scene),
            Some("progress") => self.progress(record, &scene),
            Some("cost-state") => self.total(record, &scene),
            Some("summary") => self.title(record.summary.get(), 1, &scene),
            Some("ai-title") => self.title(record.ai_title.get(), 2, &scene),
            Some("custom-title") => self.title(record.custom_title.get(), 3, &scene),
            Some(kind) if SILENT.contains(&kind) => {}
            _ => self.facts.counts.unknown += 1,
        }
        self.place(record, &scene);
        self.known.session = is_session_known.then_some(scene.session);
    }

    /// The session and the subagent that a record is of.
    fn place(&mut self, record: &Record<'_>, scene: &Scene) {
        let Some(ts) = scene.ts else { return };
        let waiting = self.known.title.take();
        let session = self.session_seen(&scene.session, ts);
        session.title = waiting.or(session.title.take());
        if session.cwd.is_none() {
            session.cwd = record.cwd.owned();
        }
        if let Some(branch) = record.git_branch.get() {
            set(&mut session.git_branch, branch);
        }
        if let Some(version) = record.version.get() {
            set(&mut session.client_version, version);
        }
        if let Some(agent_id) = &scene.agent {
            let told = AgentSighting {
                session_id: scene.session.clone(),
                agent_id: agent_id.clone(),
                agent_type: scene.agent_type.clone(),
                first: Some(ts),
                last: Some(ts),
                ..AgentSighting::default()
            };
            self.agent_seen(told);
        }
    }

    fn assistant(&mut self, record: &Record<'_>, scene: &Scene) {
        let message = &record.message;
        if record.is_api_error.0 {
            self.failed_for_good(record, scene);
        }
        let is_main = scene.agent.is_none() && !record.is_sidechain.0;
        if let (true, Some(model), Some(ts)) = (is_main, model_of(message), scene.ts) {
            set(&mut self.session_seen(&scene.session, ts).model, model);
        }
        self.spawns(record, scene);
        let request = Request {
            witness: Witness::Transcript,
            message,
            request_id: record.request_id.get(),
            uuid: record.uuid.get(),
            effort: record.effort.get(),
            query_source: record.query_source.get(),
            told_cost: record.cost_usd.0.and_then(nano_usd),
        };
        self.request(&request, scene);
    }

    /// The request that a message came from; and those that the vendor made within it.
    fn request(&mut self, told: &Request<'_, '_>, scene: &Scene) {
        let (Some(usage), Some(model)) = (&told.message.usage, model_of(told.message)) else { return };
        let Some(ts) = scene.ts else {
            self.facts.counts.unknown += 1;
            return;
        };
        let tokens = usage_of(usage);
        let inner = has_inner_requests(usage);
        let known = self.facts.requests.last().filter(|last| !inner && is_again(last, told, scene));
        // What is known of a message is not told anew.
        let anew =
            |field: fn(&RequestSighting) -> &Option<String>| known.is_none_or(|known| field(known).is_none());
        let message_id = told.message.id.get().filter(|_| known.is_none()).map(bounded_id);
        let request_id = told.request_id.filter(|_| anew(|known| &known.request_id)).map(bounded_id);
        let message_id = message_id.or_else(|| {
            let named = || derived_id(told.uuid, &scene.session, ts, &tokens);
            (known.is_none() && request_id.is_none()).then(named)
        });
        let stop_reason = told.message.stop_reason.get();
        let sighting = RequestSighting {
            witness: told.witness,
            ts,
            message_id,
            request_id,
            session_id: if known.is_some() { String::new() } else { scene.session.clone() },
            born: scene.born,
            agent_id: scene.agent.as_ref().filter(|_| known.is_none()).cloned(),
            agent_type: scene.agent_type.as_ref().filter(|_| anew(|known| &known.agent_type)).cloned(),
            prompt_id: self.known.prompt.as_ref().filter(|_| anew(|known| &known.prompt_id)).cloned(),
            app: None,
            user: None,
            model: bounded_id(model),
            usage: Some(tokens),
            // The zeros of a fork are no last word.
            is_final: stop_reason.is_some() && tokens != Usage::default(),
            terms: terms_of(usage),
            query_source: told.query_source.filter(|_| anew(|known| &known.query_source)).map(bounded_id),
            effort: told.effort.filter(|_| anew(|known| &known.effort)).map(bounded_id),
            stop_reason: stop_reason.filter(|_| anew(|known| &known.stop_reason)).map(bounded_id),
            duration_ms: None,
            ttft_ms: None,
            attempts: None,
            told_cost_nano_usd: told.told_cost,
        };
        if known.is_some() {
            if let Some(last) = self.facts.requests.last_mut() {
                merge(last, sighting);
            }
            return;
        }
        if inner {
            self.iterations(usage, &sighting);
        }
        self.request_seen(sighting);
    }

    /// Requests that the vendor made within one and that its own counts leave out: the advisor's, of another model,
    /// and compactions on the server. (The executor's own iterations are in the message's counts.)
    fn iterations(&mut self, usage: &WireUsage<'_>, outer: &RequestSighting) {
        let json = usage.iterations.json();
        let Ok(List(iterations)) = serde_json::from_str::<Iterations<'_>>(json) else { return };
        let name = outer.message_id.as_deref().or(outer.request_id.as_deref()).unwrap_or_default();
        for (n, iteration) in iterations.iter().enumerate() {
            let Some(kind) = iteration.kind.get().filter(|k| matches!(*k, "advisor_message" | "compaction"))
            else {
                continue;
            };
            let source = kind.trim_end_matches("_message");
            self.request_seen(RequestSighting {
                message_id: Some(bounded_id(&format!("{name}#{source}-{n}"))),
                request_id: None,
                model: iteration.model.get().map_or_else(|| outer.model.clone(), bounded_id),
                usage: Some(usage_of(iteration)),
                query_source: Some(source.to_owned()),
                told_cost_nano_usd: None,
                ..outer.clone()
            });
        }
    }

    /// Calls that start a subagent.
    fn spawns(&mut self, record: &Record<'_>, scene: &Scene) {
        let content = &record.message.content;
        let (Some(ts), None | Some(Blocks { may_spawn: true, .. })) = (scene.ts, content.blocks) else {
            return;
        };
        let content = content.json();
        if !content.contains("\"Task\"") && !content.contains("\"Agent\"") {
            return;
        }
        let Ok(List(blocks)) = serde_json::from_str::<List<Block<'_>>>(content) else { return };
        for block in blocks {
            let (Some("tool_use"), Some("Task" | "Agent"), Some(id)) =
                (block.kind.get(), block.name.get(), block.id.get())
            else {
                continue;
            };
            let input: SpawnInput<'_> = serde_json::from_str(block.input.json()).unwrap_or_default();
            let kind = MarkKind::Spawn {
                tool_use_id: bounded_id(id),
                agent_type: input.agent_type.get().map(bounded_id),
            };
            let summary = one_line(input.description.get().unwrap_or_default());
            self.mark(bounded_id(id), scene, ts, kind, summary);
        }
    }

    fn mark(&mut self, key: String, scene: &Scene, ts: TimestampMs, kind: MarkKind, summary: String) {
        self.facts.marks.push(Mark {
            key,
            session_id: scene.session.clone(),
            born: scene.born,
            agent_id: scene.agent.clone(),
            ts,
            kind,
            summary,
        });
    }

    fn user(&mut self, record: &Record<'_>, scene: &Scene) {
        if let Some(prompt) = record.prompt_id.get()
            && self.known.prompt.as_deref() != Some(prompt)
        {
            self.known.prompt = Some(bounded_id(prompt));
        }
        self.agent_result(record, scene);
        let Some(ts) = scene.ts else { return };
        if record.is_compact_summary.0 {
            // It follows the boundary that announced it; without one it is all that tells of the compaction.
            if !std::mem::take(&mut self.known.compacting) {
                let kind = MarkKind::Compaction { trigger: None, pre_tokens: None, post_tokens: None };
                self.mark(key_of(record), scene, ts, kind, "Conversation compacted".to_owned());
            }
            return;
        }
        let is_agent = scene.agent.is_some() || record.is_sidechain.0;
        let Some(text) = prompts::by_person(record, is_agent) else { return };
        let prompt_id = record.prompt_id.get().map(bounded_id);
        let session = self.session_seen(&scene.session, ts);
        if session.prompted.is_none_or(|before| before <= ts) {
            session.prompted = Some(ts);
            session.last_prompt = Some(text.clone());
        }
        self.mark(key_of(record), scene, ts, MarkKind::Prompt { prompt_id }, text);
    }

    /// The result of a call that started a subagent names it.
    fn agent_result(&mut self, record: &Record<'_>, scene: &Scene) {
        let Some(told) = record.tool_use_result.0.as_deref() else { return };
        let Some(agent_id) = told.agent_id.get() else { return };
        let content = record.message.content.json();
        let blocks = serde_json::from_str::<List<Block<'_>>>(content).unwrap_or_default().0;
        let result = blocks.iter().find(|block| block.kind.get() == Some("tool_result"));
        self.agent_seen(AgentSighting {
            session_id: scene.session.clone(),
            agent_id: bounded_id(agent_id),
            agent_type: told.agent_type.get().map(bounded_id),
            description: told.description.get().map(one_line),
            tool_use_id: result.and_then(|block| block.tool_use_id.get()).map(bounded_id),
            first: None,
            last: None,
        });
    }

    fn system(&mut self, record: &Record<'_>, scene: &Scene) {
        match (record.subtype.get(), scene.ts) {
            (Some("compact_boundary"), Some(ts)) => {
                self.known.compacting = true;
                let compact = record.compact.0.as_deref();
                let kind = MarkKind::Compaction {
                    trigger: compact.and_then(|compact| compact.trigger.get()).map(bounded_id),
                    pre_tokens: compact.and_then(|compact| compact.pre_tokens.count()),
                    post_tokens: compact.and_then(|compact| compact.post_tokens.count()),
                };
                self.mark(key_of(record), scene, ts, kind, "Conversation compacted".to_owned());
            }
            (Some("api_error"), Some(ts)) => self.failed_attempt(record, scene, ts),
            _ => {}
        }
    }

    fn failed_attempt(&mut self, record: &Record<'_>, scene: &Scene, ts: TimestampMs) {
        let none = ApiError::default();
        let error = record.error.0.as_deref().unwrap_or(&none);
        let request_id = error.request_id.get().or_else(|| error.error.request_id.get());
        let message = [
            &error.formatted,
            &error.error.error.message,
            &error.error.message,
            &error.message,
            &error.cause.code,
            &error.cause.message,
            &error.connection.code,
            &error.error.error.kind,
            &error.error.kind,
        ];
        let message = message.into_iter().find_map(|text| text.get()).unwrap_or("API error");
        self.facts.failures.push(FailureSighting {
            witness: Witness::Transcript,
            ts,
            key: request_id.map_or_else(|| key_of(record), bounded_id),
            session_id: scene.session.clone(),
            agent_id: scene.agent.clone(),
            model: None,
            status_code: error.status.count().and_then(|status| u16::try_from(status).ok()),
            message: message.chars().take(MESSAGE_MAX_CHARS).collect(),
            attempt: small(record.retry_attempt.count()),
            attempts_max: small(record.max_retries.count()),
            retry_in_ms: record.retry_in_ms.count(),
            exhausted: false,
        });
    }

    /// A message of the client's own that stands where an answer should: it has given up.
    fn failed_for_good(&mut self, record: &Record<'_>, scene: &Scene) {
        let Some(ts) = scene.ts else { return };
        let text = prompts::text(&record.message.content).unwrap_or_default();
        let status = record.error_status.count().or_else(|| {
            text.strip_prefix("API Error: ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok())
        });
        self.facts.failures.push(FailureSighting {
            witness: Witness::Transcript,
            ts,
            key: record.request_id.get().map_or_else(|| key_of(record), bounded_id),
            session_id: scene.session.clone(),
            agent_id: scene.agent.clone(),
            model: None,
            status_code: status.and_then(|status| u16::try_from(status).ok()),
            message: text.chars().take(MESSAGE_MAX_CHARS).collect(),
            attempt: None,
            attempts_max: None,
            retry_in_ms: None,
            exhausted: true,
        });
    }

    fn progress(&mut self, record: &Record<'_>, scene: &Scene) {
        let progress = record.data.0.as_deref();
        let Some(data) = progress.filter(|data| data.kind.get() == Some("agent_progress")) else { return };
        let Some(agent_id) = data.agent_id.get().map(bounded_id) else { return };
        let inner: &Inner<'_> = &data.message;
        let ts = inner.timestamp.0.and_then(stamp).map(TimestampMs::clamped).or(scene.ts);
        self.agent_seen(AgentSighting {
            session_id: scene.session.clone(),
            agent_id: agent_id.clone(),
            tool_use_id: record.parent_tool_use_id.get().map(bounded_id),
            first: ts,
            last: ts,
            ..AgentSighting::default()
        });
        if inner.kind.get() != Some("assistant") {
            return;
        }
        let session = scene.session.clone();
        let scene = Scene { session, agent: Some(agent_id), agent_type: None, ts, born: scene.born };
        let request = Request {
            witness: Witness::Progress,
            message: &inner.message,
            request_id: inner.request_id.get(),
            uuid: inner.uuid.get(),
            effort: None,
            query_source: None,
            told_cost: None,
        };
        self.request(&request, &scene);
    }

    fn total(&mut self, record: &Record<'_>, scene: &Scene) {
        let Some(cost_nano_usd) = record.total_cost_usd.0.and_then(nano_usd) else { return };
        let models = record.model_usage.0.iter().map(|(model, told)| {
            let flat = told.cache_write.count().unwrap_or(0);
            let one_hour = told.cache_write_1h.count().unwrap_or(0);
            let five_minutes = told.cache_write_5m.count().unwrap_or(0);
            ClientModelTotal {
                model: bounded_id(model),
                usage: Usage {
                    input: told.input.count().unwrap_or(0),
                    output: told.output.count().unwrap_or(0),
                    cache_read: told.cache_read.count().unwrap_or(0),
                    cache_write_5m: five_minutes.max(flat.saturating_sub(one_hour)),
                    cache_write_1h: one_hour,
                    web_searches: told.web_searches.count().unwrap_or(0),
                },
                cost_nano_usd: told.cost_usd.0.and_then(nano_usd).unwrap_or(0),
            }
        });
        let total = ClientTotal {
            session_id: scene.session.clone(),
            cost_nano_usd,
            models: models.collect(),
            has_unknown_model: record.has_unknown_model.0,
        };
        // Of one session the last counts.
        self.facts.totals.retain(|before| before.session_id != total.session_id);
        self.facts.totals.push(total);
    }

    fn title(&mut self, title: Option<&str>, rank: u8, scene: &Scene) {
        let Some(title) = title.map(one_line).filter(|title| !title.is_empty()) else { return };
        if rank < self.known.title_rank {
            return;
        }
        self.known.title_rank = rank;
        match scene.ts {
            Some(ts) => self.session_seen(&scene.session, ts).title = Some(title),
            None => self.known.title = Some(title),
        }
    }
}

/// What is told of one request, by whichever form.
struct Request<'m, 'a> {
    witness: Witness,
    message: &'m Message<'a>,
    request_id: Option<&'m str>,
    uuid: Option<&'m str>,
    effort: Option<&'m str>,
    query_source: Option<&'m str>,
    told_cost: Option<i64>,
}

/// Whether a line is another one of the message seen last, which most are. One whose id is too long is looked for as any.
fn is_again(last: &RequestSighting, told: &Request<'_, '_>, scene: &Scene) -> bool {
    let id = told.message.id.get().filter(|id| id.len() <= ID_MAX_BYTES);
    id.is_some()
        && last.message_id.as_deref() == id
        && last.witness == told.witness
        && last.session_id == scene.session
        && last.agent_id == scene.agent
}

/// Whether the vendor made requests within this one.
fn has_inner_requests(usage: &WireUsage<'_>) -> bool {
    let json = usage.iterations.json();
    json.contains("advisor_message") || json.contains("compaction")
}

/// The model, if the message came from one.
fn model_of<'m>(message: &'m Message<'_>) -> Option<&'m str> {
    let model = message.model.get().unwrap_or_default();
    let told = message.usage.as_ref().is_some_and(|usage| usage.input.0.or(usage.output.0).is_some());
    (told && model != SYNTHETIC).then_some(model)
}

/// All of the cache writes: what the split leaves out of the flat count was written for five minutes. A fork shows
/// messages of its parent with every count set to zero but the split, which is of no request then.
fn usage_of(usage: &WireUsage<'_>) -> Usage {
    let count = |number: super::lenient::Number| number.count().unwrap_or(0);
    let counts = [usage.input, usage.output, usage.cache_read, usage.cache_write];
    if counts.iter().all(|number| number.count() == Some(0)) {
        return Usage::default();
    }
    let (five_minutes, one_hour) = (count(usage.cache_split.five_minutes), count(usage.cache_split.one_hour));
    Usage {
        input: count(usage.input),
        output: count(usage.output),
        cache_read: count(usage.cache_read),
        cache_write_5m: five_minutes.max(count(usage.cache_write).saturating_sub(one_hour)),
        cache_write_1h: one_hour,
        web_searches: count(usage.server_tool_use.web_searches),
    }
}

fn terms_of(usage: &WireUsage<'_>) -> Terms {
    Terms {
        speed: Speed::of(usage.speed.get()),
        service_tier: usage.service_tier.get().map(bounded_id),
        inference_geo: usage.inference_geo.get().filter(|geo| *geo != "not_available").map(bounded_id),
    }
}

/// A name for a message that has none: of its record, else of what it says.
fn derived_id(uuid: Option<&str>, session: &str, ts: TimestampMs, usage: &Usage) -> String {
    if let Some(uuid) = uuid {
        return bounded_id(&format!("uuid:{uuid}"));
    }
    let counts = format!("{} {usage:?}", ts.get());
    format!("line:{}", EventId::derived(&[session.as_bytes(), counts.as_bytes()]))
}

/// What makes another telling of a record the same: its `uuid`, else a hash of what it says.
fn key_of(record: &Record<'_>) -> String {
    if let Some(uuid) = record.uuid.get() {
        return bounded_id(uuid);
    }
    let parts = [record.kind.get(), record.subtype.get(), record.prompt_id.get()];
    let head = parts.map(|part| part.unwrap_or_default().as_bytes());
    let time = record.timestamp.0.unwrap_or_default().as_bytes();
    let content = record.message.content.json().as_bytes();
    format!("line:{}", EventId::derived(&[head[0], head[1], head[2], time, content]))
}

/// Milliseconds since the epoch of a time stamp: RFC 3339, or a number of seconds or milliseconds.
pub(super) fn stamp(json: &str) -> Option<i64> {
    let Some(text) = json.strip_prefix('"') else {
        let number: f64 = json.parse().ok()?;
        let ms = if number.abs() < 1e11 { number * 1000.0 } else { number };
        #[allow(clippy::cast_possible_truncation, reason = "in range")]
        return (ms.abs() < 9e15).then_some(ms as i64);
    };
    let text = text.strip_suffix('"')?;
    usual_stamp(text.as_bytes())
        .or_else(|| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond))
}

/// A time stamp as the client writes every one, `2026-02-08T23:02:32.645Z`; none where it is another, or on one of the
/// days that not every month has.
fn usual_stamp(text: &[u8]) -> Option<i64> {
    let text: &[u8; 24] = text.try_into().ok()?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
    if marks.iter().any(|&(at, mark)| text[at] != mark) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        text[range]
            .iter()
            .try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let is_usual = (1970..=9000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=28).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_usual {
        return None;
    }
    // Days since the epoch, in years that begin in March: then the leap day is the last one.
    let march_year = if month <= 2 { year - 1 } else { year };
    let march_month = (month + 9) % 12;
    let leap_days = march_year / 4 - march_year / 100 + march_year / 400;
    let days = march_year * 365 + leap_days + (march_month * 153 + 2) / 5 + day - 1 - MARCH_EPOCH_DAYS;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + number(20..23)?)
}

fn small(count: Option<u64>) -> Option<u32> {
    count.and_then(|count| u32::try_from(count).ok())
}

/// Replaces a text that has changed, and keeps its memory where it has not.
fn set(field: &mut Option<String>, text: &str) {
    if field.as_deref() != Some(text) {
        *field = Some(text.to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::usual_stamp;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_usual_stamp_is_read_as_any_other(
            (year, month, day) in (1960..9999u16, 0..14u8, 0..33u8),
            (hour, minute, second, ms) in (0..25u8, 0..61u8, 0..62u8, 0..1000u16),
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
            let slow = text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
            let quick = usual_stamp(text.as_bytes());
            prop_assert!(quick.is_none() || quick == slow, "{text}: {quick:?} {slow:?}");
            let is_usual = (1970..=9000).contains(&year) && (1..=28).contains(&day);
            prop_assert!(quick.is_some() || slow.is_none() || !is_usual || second == 60, "{text} is left to jiff");
        }

        #[test]
        fn what_is_no_stamp_is_left(at in 0..24usize, byte in any::<u8>()) {
            let mut text = *b"2026-02-08T23:02:32.645Z";
            text[at] = byte;
            let slow = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let quick = usual_stamp(&text);
            prop_assert!(quick.is_none() || quick == slow.map(jiff::Timestamp::as_millisecond));
        }
    }
}
