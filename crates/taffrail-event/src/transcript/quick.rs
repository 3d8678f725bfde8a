//! The quick way to a record: one pass over a line that is written as the client writes it.
//!
//! Nine tenths of a transcript's bytes are strings that no fact is drawn from. [`Marks`] notes where every string of the
//! line ends, [`Cursor`] goes from token to token and checks the line's syntax, and what is here says which values it
//! wants. Nothing is understood that is out of the ordinary: a control character, a key with an escape, half a surrogate
//! pair, a number that may not fit, deep nesting. Then the reader gives up, and serde reads the line. Where it gives a
//! record, serde would give one of which the same facts are drawn: its tests hold it to that.

mod cursor;
mod marks;

use super::lenient::Rare;
use super::record::{
    AgentResult, Blocks, CacheSplit, Content, Inner, Message, Progress, Raw, Record, ServerToolUse, StampOf,
    WireUsage,
};
use cursor::Cursor;
use marks::Marks;

/// Reads line after line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    marks: Marks,
}

impl Reader {
    /// Reads a line into `record`, which is empty; none where it is not an ordinary one, and then `record` is of no use.
    pub(super) fn read<'a>(&mut self, line: &'a [u8], record: &mut Record<'a>) -> Option<()> {
        let text = simdutf8::basic::from_utf8(line).ok()?;
        self.marks.note(line)?;
        let mut cursor = Cursor::new(text, &self.marks);
        cursor.object(|cursor, key| field(cursor, key, record))?;
        cursor.is_at_end().then_some(())
    }
}

fn field<'a>(at: &mut Cursor<'a, '_>, key: &str, record: &mut Record<'a>) -> Option<()> {
    match key {
        "type" => record.kind = at.text()?,
        "subtype" => record.subtype = at.text()?,
        "uuid" => record.uuid = at.text()?,
        "sessionId" | "session_id" => record.session_id = at.text()?,
        "agentId" => record.agent_id = at.text()?,
        "isSidechain" => record.is_sidechain = at.flag()?,
        "isMeta" => record.is_meta = at.flag()?,
        "isCompactSummary" => record.is_compact_summary = at.flag()?,
        "isApiErrorMessage" => record.is_api_error = at.flag()?,
        "timestamp" => record.timestamp = StampOf(Some(at.value()?)),
        "cwd" => record.cwd = at.text()?,
        "gitBranch" => record.git_branch = at.text()?,
        "version" => record.version = at.text()?,
        "promptId" => record.prompt_id = at.text()?,
        "requestId" => record.request_id = at.text()?,
        "effort" => record.effort = at.text()?,
        "attributionAgent" => record.attribution_agent = at.text()?,
        "origin" => record.origin = at.read()?,
        "message" => record.message = message(at)?,
        "costUSD" => record.cost_usd = at.number()?,
        "toolUseResult" => record.tool_use_result = agent_result(at)?,
        "compactMetadata" => record.compact = at.read()?,
        "error" => record.error = at.read()?,
        "apiErrorStatus" => record.error_status = at.number()?,
        "retryInMs" => record.retry_in_ms = at.number()?,
        "retryAttempt" => record.retry_attempt = at.number()?,
        "maxRetries" => record.max_retries = at.number()?,
        "data" => record.data = progress(at)?,
        "parentToolUseID" => record.parent_tool_use_id = at.text()?,
        "summary" => record.summary = at.text()?,
        "aiTitle" => record.ai_title = at.text()?,
        "customTitle" => record.custom_title = at.text()?,
        "totalCostUSD" => record.total_cost_usd = at.number()?,
        "modelUsage" => record.model_usage = at.read()?,
        "hasUnknownModelCost" => record.has_unknown_model = at.flag()?,
        "querySource" => record.query_source = at.text()?,
        _ => at.skip()?,
    }
    Some(())
}

fn message<'a>(at: &mut Cursor<'a, '_>) -> Option<Message<'a>> {
    let mut message = Message::default();
    at.fields(|at, key| {
        match key {
            "id" => message.id = at.text()?,
            "model" => message.model = at.text()?,
            "stop_reason" => message.stop_reason = at.text()?,
            "usage" => message.usage = usage(at)?,
            "content" => message.content = content(at)?,
            _ => at.skip()?,
        }
        Some(())
    })?;
    Some(message)
}

/// `message.usage`.
fn usage<'a>(at: &mut Cursor<'a, '_>) -> Option<Option<WireUsage<'a>>> {
    let mut usage = WireUsage::default();
    if at.peek()? != b'{' {
        return Some((at.value()? != "null").then_some(usage));
    }
    at.object(|at, key| {
        match key {
            "type" => usage.kind = at.text()?,
            "model" => usage.model = at.text()?,
            "input_tokens" => usage.input = at.number()?,
            "output_tokens" => usage.output = at.number()?,
            "cache_read_input_tokens" => usage.cache_read = at.number()?,
            "cache_creation_input_tokens" => usage.cache_write = at.number()?,
            "cache_creation" => usage.cache_split = cache_split(at)?,
            "server_tool_use" => usage.server_tool_use = server_tool_use(at)?,
            "service_tier" => usage.service_tier = at.text()?,
            "inference_geo" => usage.inference_geo = at.text()?,
            "speed" => usage.speed = at.text()?,
            "iterations" => usage.iterations = Raw(Some(at.value()?)),
            _ => at.skip()?,
        }
        Some(())
    })?;
    Some(Some(usage))
}

fn cache_split(at: &mut Cursor<'_, '_>) -> Option<CacheSplit> {
    let mut split = CacheSplit::default();
    at.fields(|at, key| match key {
        "ephemeral_5m_input_tokens" => at.number().map(|number| split.five_minutes = number),
        "ephemeral_1h_input_tokens" => at.number().map(|number| split.one_hour = number),
        _ => at.skip(),
    })?;
    Some(split)
}

fn server_tool_use(at: &mut Cursor<'_, '_>) -> Option<ServerToolUse> {
    let mut told = ServerToolUse::default();
    at.fields(|at, key| match key {
        "web_search_requests" => at.number().map(|number| told.web_searches = number),
        _ => at.skip(),
    })?;
    Some(told)
}

/// `message.content`, and what its blocks are.
fn content<'a>(at: &mut Cursor<'a, '_>) -> Option<Content<'a>> {
    let from = at.place();
    let mut blocks = Blocks::default();
    if at.peek()? == b'[' {
        at.array(|at| {
            // Of a key that stands twice the last counts.
            let (mut is_result, mut is_spawn) = (false, false);
            at.fields(|at, key| {
                match key {
                    "type" => is_result = at.text()?.get() == Some("tool_result"),
                    "name" => is_spawn = matches!(at.text()?.get(), Some("Task" | "Agent")),
                    _ => at.skip()?,
                }
                Some(())
            })?;
            blocks.hold_result |= is_result;
            blocks.may_spawn |= is_spawn;
            Some(())
        })?;
    } else {
        at.skip()?;
    }
    Some(Content { raw: Raw(Some(at.since(from))), blocks: Some(blocks) })
}

/// `toolUseResult`, if it names a subagent: most results are long, and few do.
fn agent_result<'a>(at: &mut Cursor<'a, '_>) -> Option<Rare<AgentResult<'a>>> {
    let mut told = AgentResult::default();
    at.fields(|at, key| {
        match key {
            "agentId" => told.agent_id = at.text()?,
            "agentType" => told.agent_type = at.text()?,
            "description" => told.description = at.text()?,
            _ => at.skip()?,
        }
        Some(())
    })?;
    Some(Rare(told.agent_id.get().is_some().then(|| Box::new(told))))
}

/// `data` of a `progress` record.
fn progress<'a>(at: &mut Cursor<'a, '_>) -> Option<Rare<Progress<'a>>> {
    let mut told = Progress::default();
    at.fields(|at, key| {
        match key {
            "type" => told.kind = at.text()?,
            "agentId" => told.agent_id = at.text()?,
            "message" => told.message = inner(at)?,
            _ => at.skip()?,
        }
        Some(())
    })?;
    Some(Rare(Some(Box::new(told))))
}

/// The subagent's record inside a `progress` record.
fn inner<'a>(at: &mut Cursor<'a, '_>) -> Option<Inner<'a>> {
    let mut inner = Inner::default();
    at.fields(|at, key| {
        match key {
            "type" => inner.kind = at.text()?,
            "uuid" => inner.uuid = at.text()?,
            "timestamp" => inner.timestamp = StampOf(Some(at.value()?)),
            "requestId" => inner.request_id = at.text()?,
            "message" => inner.message = message(at)?,
            _ => at.skip()?,
        }
        Some(())
    })?;
    Some(inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
