//! The records of a transcript as they lie in the file: only the fields that facts are drawn from.
//!
//! `message.content` and what else may be large stays raw; it is looked into only where the record's type asks for it.

use serde_json::value::RawValue;

use super::lenient::{Entries, Flag, List, Number, Rare, Text, lenient};

lenient! {
    /// One record of any type.
    struct Record<'a> {
        kind: Text<'a> = "type",
        subtype: Text<'a> = "subtype",
        uuid: Text<'a> = "uuid",
        session_id: Text<'a> = "sessionId" | "session_id",
        agent_id: Text<'a> = "agentId",
        is_sidechain: Flag = "isSidechain",
        is_meta: Flag = "isMeta",
        is_compact_summary: Flag = "isCompactSummary",
        is_api_error: Flag = "isApiErrorMessage",
        timestamp: Stamp<'a> = "timestamp",
        cwd: Text<'a> = "cwd",
        git_branch: Text<'a> = "gitBranch",
        version: Text<'a> = "version",
        prompt_id: Text<'a> = "promptId",
        request_id: Text<'a> = "requestId",
        effort: Text<'a> = "effort",
        attribution_agent: Text<'a> = "attributionAgent",
        origin: Origin<'a> = "origin",
        message: Message<'a> = "message",
        cost_usd: Number = "costUSD",
        tool_use_result: Rare<AgentResult<'a>> = "toolUseResult",
        compact: Rare<Compact<'a>> = "compactMetadata",
        error: Rare<ApiError<'a>> = "error",
        error_status: Number = "apiErrorStatus",
        retry_in_ms: Number = "retryInMs",
        retry_attempt: Number = "retryAttempt",
        max_retries: Number = "maxRetries",
        data: Rare<Progress<'a>> = "data",
        parent_tool_use_id: Text<'a> = "parentToolUseID",
        summary: Text<'a> = "summary",
        ai_title: Text<'a> = "aiTitle",
        custom_title: Text<'a> = "customTitle",
        total_cost_usd: Number = "totalCostUSD",
        model_usage: Entries<ModelTotal> = "modelUsage",
        has_unknown_model: Flag = "hasUnknownModelCost",
        query_source: Text<'a> = "querySource",
    }
}

/// A time as text, or as a number of seconds or milliseconds.
pub(super) type Stamp<'a> = StampOf<'a>;

/// See [`Stamp`].
#[derive(Clone, Debug, Default)]
pub(super) struct StampOf<'a>(pub(super) Option<&'a str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for StampOf<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw.get())))
    }
}

/// Any JSON, not looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Raw<'a>(pub(super) Option<&'a str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Raw<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw.get())))
    }
}

impl<'a> Raw<'a> {
    /// The JSON text; `null` where there is none.
    pub(super) fn json(&self) -> &'a str {
        self.0.unwrap_or("null")
    }
}

/// `message.content`.
#[derive(Clone, Debug, Default)]
pub(super) struct Content<'a> {
    pub(super) raw: Raw<'a>,
    /// What is known of its blocks, where they were looked at.
    pub(super) blocks: Option<Blocks>,
}

/// What the blocks of a `message.content` are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Blocks {
    /// One is a tool's result.
    pub(super) hold_result: bool,
    /// One has the name of a tool that starts a subagent.
    pub(super) may_spawn: bool,
}

impl<'a> Content<'a> {
    /// The JSON text.
    pub(super) fn json(&self) -> &'a str {
        self.raw.json()
    }
}

impl<'de: 'a, 'a> serde::Deserialize<'de> for Content<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Raw::deserialize(deserializer).map(|raw| Self { raw, blocks: None })
    }
}

lenient! {
    /// Who a prompt comes from.
    struct Origin<'a> { kind: Text<'a> = "kind" }
}

lenient! {
    /// The vendor's message.
    struct Message<'a> {
        id: Text<'a> = "id",
        model: Text<'a> = "model",
        stop_reason: Text<'a> = "stop_reason",
        usage: Option<WireUsage<'a>> = "usage",
        content: Content<'a> = "content",
    }
}

lenient! {
    /// `message.usage`, and one of its `iterations`.
    struct WireUsage<'a> {
        kind: Text<'a> = "type",
        model: Text<'a> = "model",
        input: Number = "input_tokens",
        output: Number = "output_tokens",
        cache_read: Number = "cache_read_input_tokens",
        cache_write: Number = "cache_creation_input_tokens",
        cache_split: CacheSplit = "cache_creation",
        server_tool_use: ServerToolUse = "server_tool_use",
        service_tier: Text<'a> = "service_tier",
        inference_geo: Text<'a> = "inference_geo",
        speed: Text<'a> = "speed",
        iterations: Raw<'a> = "iterations",
    }
}

lenient! {
    /// Cache writes by how long they last.
    struct CacheSplit { five_minutes: Number = "ephemeral_5m_input_tokens", one_hour: Number = "ephemeral_1h_input_tokens" }
}

lenient! {
    /// What the vendor's own tools did.
    struct ServerToolUse { web_searches: Number = "web_search_requests" }
}

lenient! {
    /// One block of `message.content`; `input` of a call and `content` of a result stay raw.
    struct Block<'a> {
        kind: Text<'a> = "type",
        id: Text<'a> = "id",
        name: Text<'a> = "name",
        input: Raw<'a> = "input",
        text: Raw<'a> = "text",
        tool_use_id: Text<'a> = "tool_use_id",
    }
}

lenient! {
    /// The input of a call that starts a subagent.
    struct SpawnInput<'a> { agent_type: Text<'a> = "subagent_type", description: Text<'a> = "description" }
}

lenient! {
    /// `toolUseResult` of a call that started a subagent.
    struct AgentResult<'a> {
        agent_id: Text<'a> = "agentId",
        agent_type: Text<'a> = "agentType",
        description: Text<'a> = "description",
    }
}

lenient! {
    /// `compactMetadata`.
    struct Compact<'a> {
        trigger: Text<'a> = "trigger",
        pre_tokens: Number = "preTokens" | "pre_tokens" | "preCompactTokenCount",
        post_tokens: Number = "postTokens" | "post_tokens" | "postCompactTokenCount",
    }
}

lenient! {
    /// `error` of `system/api_error`, in the spellings of 2.0 to 2.1: the vendor's body may lie one or two levels deeper.
    struct ApiError<'a> {
        status: Number = "status",
        request_id: Text<'a> = "requestId" | "requestID" | "request_id",
        message: Text<'a> = "message",
        formatted: Text<'a> = "formatted",
        error: VendorError<'a> = "error",
        cause: Cause<'a> = "cause",
        connection: Cause<'a> = "connection",
    }
}

lenient! {
    /// The vendor's error body.
    struct VendorError<'a> {
        message: Text<'a> = "message",
        kind: Text<'a> = "type",
        request_id: Text<'a> = "request_id",
        error: VendorCause<'a> = "error",
    }
}

lenient! {
    /// What the vendor's error body holds.
    struct VendorCause<'a> { message: Text<'a> = "message", kind: Text<'a> = "type" }
}

lenient! {
    /// A connection that failed.
    struct Cause<'a> { code: Text<'a> = "code", message: Text<'a> = "message" }
}

lenient! {
    /// `data` of a `progress` record; of `agent_progress` it holds a record of the subagent.
    struct Progress<'a> {
        kind: Text<'a> = "type",
        agent_id: Text<'a> = "agentId",
        message: Inner<'a> = "message",
    }
}

lenient! {
    /// The subagent's record inside a `progress` record.
    struct Inner<'a> {
        kind: Text<'a> = "type",
        uuid: Text<'a> = "uuid",
        timestamp: Stamp<'a> = "timestamp",
        request_id: Text<'a> = "requestId",
        message: Message<'a> = "message",
    }
}

lenient! {
    /// One model's part of `cost-state`.
    struct ModelTotal {
        input: Number = "inputTokens",
        output: Number = "outputTokens",
        cache_read: Number = "cacheReadInputTokens",
        cache_write: Number = "cacheCreationInputTokens",
        cache_write_5m: Number = "cacheCreationEphemeral5mInputTokens",
        cache_write_1h: Number = "cacheCreationEphemeral1hInputTokens",
        web_searches: Number = "webSearchRequests",
        cost_usd: Number = "costUSD",
    }
}

lenient! {
    /// `agent-<id>.meta.json`.
    struct Meta<'a> {
        agent_type: Text<'a> = "agentType",
        description: Text<'a> = "description",
        tool_use_id: Text<'a> = "toolUseId" | "toolUseID" | "tool_use_id",
    }
}

/// `usage.iterations`.
pub(super) type Iterations<'a> = List<WireUsage<'a>>;
