//! What the engine needs of an event or a request: drawn before the commit, told after it.

use std::sync::Arc;

use taffrail_analytics::trace::{Call, Failure, FileAction, FileTouch, GitTouch, MarkKind, Outcome, Request};
use taffrail_engine::signal::{SessionKey, Told, Via, What};
use taffrail_event::event::{
    Arrival, CallStatus, Fact, FileOperationKind, PromptOrigin, Source, ToolOutcome, ToolRef,
};
use taffrail_event::ids::bounded_id;
use taffrail_event::{Event, RowId};
use taffrail_store::LedgerChange;

/// Files and git commands of one call that the engine is told of.
const TOUCHES_MAX: usize = 64;
/// The longest head of an error message that it is told, in characters.
const MESSAGE_MAX_CHARS: usize = 240;

/// What an event tells the engine; nothing for a recording, and for what no detector looks at.
pub(crate) fn of_event(event: &Event) -> Vec<Told> {
    if event.arrival == Arrival::Recorded {
        return Vec::new();
    }
    let mut told = Vec::new();
    let via = match event.source {
        Source::Otlp | Source::Transcript => Via::Witness,
        _ => Via::Hook,
    };
    let key = SessionKey {
        session_id: Arc::from(event.session_id.as_str()),
        app: Arc::from(event.app.as_str()),
        user: Arc::from(event.user.as_deref().unwrap_or_default()),
    };
    let agent_id: Arc<str> = Arc::from(event.agent_id.as_deref().unwrap_or_default());
    let agent_type: Arc<str> = match (event.agent_id.as_deref(), event.agent_type.as_deref()) {
        (None | Some(""), _) => Arc::from("main"),
        (Some(_), None | Some("")) => Arc::from("subagent"),
        (Some(_), Some(told)) => Arc::from(told),
    };
    let mut tell = |what: What| {
        told.push(Told {
            key: key.clone(),
            agent_id: Arc::clone(&agent_id),
            agent_type: Arc::clone(&agent_type),
            at_ms: event.ts.get(),
            via,
            what,
        });
    };
    if let Some(failure) = &event.failure {
        tell(What::Mark(MarkKind::ApiFailure {
            model: failure.model.clone(),
            status_code: failure.status_code.map(i64::from),
            retry_in_ms: failure.retry_in_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            exhausted: failure.exhausted,
        }));
    }
    let asked = |tool: &ToolRef| (Arc::from(tool.tool_name.as_str()), tool.input_hash);
    match &event.fact {
        Fact::ToolStart(tool) => tell(What::CallStarted(Box::new(call_of(event, tool, None)))),
        Fact::ToolEnd(tool, outcome) | Fact::ToolTold(tool, outcome) => {
            tell(What::CallEnded(Box::new(call_of(event, tool, Some(*outcome)))));
        }
        Fact::PermissionRequest(tool) => {
            let (tool, input_hash) = asked(tool);
            tell(What::Mark(MarkKind::PermissionRequest { tool, input_hash }));
        }
        Fact::PermissionDenied(tool) => {
            let denied = ToolOutcome { status: CallStatus::Denied, duration_ms: None };
            let call = call_of(event, tool, Some(denied));
            let (tool, input_hash) = asked(tool);
            tell(What::Mark(MarkKind::PermissionDenied { tool, input_hash }));
            tell(What::CallEnded(Box::new(call)));
        }
        // What it says of a call that ended well the call's own end says better.
        Fact::ToolBatch(calls) => {
            for call in calls {
                if matches!(call.status, CallStatus::Failed | CallStatus::Denied | CallStatus::Interrupted) {
                    let outcome = ToolOutcome { status: call.status, duration_ms: None };
                    tell(What::CallEnded(Box::new(call_of(event, &call.tool, Some(outcome)))));
                }
            }
        }
        Fact::SessionStart { .. } => tell(What::Mark(MarkKind::SessionStart)),
        Fact::SessionEnd { .. } => tell(What::Mark(MarkKind::SessionEnd)),
        Fact::Prompt { origin } => {
            tell(What::Mark(MarkKind::Prompt { human: *origin == PromptOrigin::Human }));
        }
        Fact::Stop => tell(What::Mark(MarkKind::Stop)),
        Fact::StopFailure => {
            let class = event.error.as_ref().map_or("unknown", |error| error.class);
            tell(What::Mark(MarkKind::StopFailure { class: Arc::from(class) }));
        }
        Fact::SubagentStart => {
            tell(What::AgentStarted);
            tell(What::Mark(MarkKind::SubagentStart));
        }
        Fact::SubagentStop { compaction: false } => {
            tell(What::AgentEnded);
            tell(What::Mark(MarkKind::SubagentStop));
        }
        Fact::PostCompact => {
            tell(What::Mark(MarkKind::Compaction { trigger: None, pre_tokens: None, post_tokens: None }));
        }
        Fact::Notification { notification_type } => {
            tell(What::Mark(MarkKind::Notification { kind: notification_type.clone() }));
        }
        _ => {}
    }
    told
}

/// Gives the calls of a told event the row under which the store first saw them: that of this event, where no earlier
/// one is known.
pub(crate) fn set_row(told: &mut [Told], row: RowId) {
    for told in told {
        if let What::CallStarted(call) | What::CallEnded(call) = &mut told.what {
            call.id = row.0;
        }
    }
}

fn call_of(event: &Event, tool: &ToolRef, outcome: Option<ToolOutcome>) -> Call {
    let ts = event.ts.get();
    let duration_ms = outcome.and_then(|o| o.duration_ms).map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let own = matches!(event.fact, Fact::ToolEnd(..) | Fact::ToolTold(..));
    let error = event.error.as_ref().filter(|_| outcome.is_some()).map(|error| Failure {
        class: Arc::from(error.class),
        fingerprint: error.fingerprint.clone(),
        message: error.message.chars().take(MESSAGE_MAX_CHARS).collect(),
    });
    Call {
        id: 0,
        agent: 0,
        tool_use_id: tool.tool_use_id.clone(),
        tool: Arc::from(bounded_id(&tool.tool_name)),
        at_ms: ts.saturating_sub(duration_ms.unwrap_or(0)),
        ended_ms: outcome.map(|_| ts),
        duration_ms,
        outcome: outcome.map_or(Outcome::Running, |outcome| outcome_of(outcome.status)),
        input_hash: tool.input_hash,
        result_hash: event.metrics.result_hash.filter(|_| own),
        output_bytes: event
            .metrics
            .output_bytes
            .filter(|_| own)
            .map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
        summary: event.summary.clone(),
        error,
        files: event.file_operations.iter().take(TOUCHES_MAX).map(file_touch).collect(),
        git: event.git_operations.iter().take(TOUCHES_MAX).map(git_touch).collect(),
    }
}

const fn outcome_of(status: CallStatus) -> Outcome {
    match status {
        CallStatus::Running => Outcome::Running,
        CallStatus::Abandoned => Outcome::Abandoned,
        CallStatus::Ended => Outcome::Ended,
        CallStatus::Denied => Outcome::Denied,
        CallStatus::Interrupted => Outcome::Interrupted,
        CallStatus::Failed => Outcome::Failed,
        CallStatus::Succeeded => Outcome::Succeeded,
    }
}

fn file_touch(operation: &taffrail_event::event::FileOperation) -> FileTouch {
    FileTouch {
        action: match operation.kind {
            FileOperationKind::Read => FileAction::Read,
            FileOperationKind::Write => FileAction::Write,
            FileOperationKind::Edit => FileAction::Edit,
            FileOperationKind::Delete => FileAction::Delete,
        },
        path: Arc::from(operation.path.as_str()),
        size_bytes: operation.size_bytes.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
        lines_added: operation.lines_added,
        lines_removed: operation.lines_removed,
    }
}

fn git_touch(operation: &taffrail_event::event::GitOperation) -> GitTouch {
    GitTouch {
        subcommand: operation.subcommand.clone(),
        branch: operation.branch.clone(),
        files_changed: operation.files_changed,
        insertions: operation.insertions,
        deletions: operation.deletions,
        commit: operation.commit.clone(),
    }
}

/// What a change of the ledger tells the engine; nothing where it is of no request of its own.
pub(crate) fn of_request(change: &LedgerChange) -> Option<Told> {
    let request = change.request.as_ref()?;
    let tokens = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let agent_id = change.agent_id.as_deref().unwrap_or_default();
    Some(Told {
        key: SessionKey {
            session_id: Arc::from(change.session_id.as_str()),
            app: Arc::from(change.app.as_str()),
            user: Arc::from(change.user.as_deref().unwrap_or_default()),
        },
        agent_id: Arc::from(agent_id),
        agent_type: Arc::from(if agent_id.is_empty() { "main" } else { "subagent" }),
        at_ms: change.ts.get(),
        via: Via::Witness,
        what: What::Request(Box::new(Request {
            id: request.id,
            agent: 0,
            ts_ms: change.ts.get(),
            model: Arc::from(change.model.as_str()),
            input: tokens(request.usage.input),
            output: tokens(request.usage.output),
            cache_read: tokens(request.usage.cache_read),
            cache_write_5m: tokens(request.usage.cache_write_5m),
            cache_write_1h: tokens(request.usage.cache_write_1h),
            cost_nano_usd: request.cost_nano_usd,
            duration_ms: request.duration_ms.map(tokens),
            context_window: request.context_window,
            query_source: request.query_source.clone().unwrap_or_default(),
        })),
    })
}
