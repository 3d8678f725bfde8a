//! Transcripts and recorded hook payloads as traces.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use taffrail_event::event::Issue;
use taffrail_event::normalize::{Delivery, hook};
use taffrail_event::redact::Redactor;
use taffrail_event::transcript::calls::{Calls, Context as CallContext};
use taffrail_event::transcript::{FileFacts, FileKind, Parser};
use taffrail_event::{EventId, Source, TimestampMs};

use super::traces::Traces;
use super::{DetectArgs, Found, bounded};
use crate::home::Home;
use crate::import::hooks;
use crate::import::stream::Decoder;
use crate::report;

/// How much of a transcript is read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Payloads without a time follow each other so closely: their order is all that is known.
const UNTIMED_STEP_MS: i64 = 1_000;

pub(super) fn read(home: &Home, args: &DetectArgs) -> Result<Found> {
    let prices = taffrail_server::prices::load(home.dir())?.table;
    let mut found = Found::default();
    let mut traces = Traces::default();
    let files = hooks::files_of(if args.hooks.is_empty() { &args.transcripts } else { &args.hooks })?;
    for path in &files {
        let done = match args.hooks.is_empty() {
            true => transcript(path, &mut traces),
            false => payloads(path, &mut traces, &mut found),
        };
        done.with_context(|| format!("cannot read {}", path.display()))?;
        bounded(traces.rows())?;
    }
    found.traces = traces.finish(&prices);
    Ok(found)
}

/// One file, once for its calls and once for everything else.
fn transcript(path: &Path, traces: &mut Traces) -> Result<()> {
    let Some(mut file) = FileFacts::of_path(&path.to_string_lossy()) else { return Ok(()) };
    let meta = std::fs::metadata(path)?;
    let modified = meta.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let modified = modified.and_then(|at| i64::try_from(at.as_millis()).ok()).map(TimestampMs::clamped);
    file.modified = modified;
    let mut parser = Parser::new(&file);
    let context = CallContext {
        received: modified.unwrap_or_else(report::now),
        redactor: Redactor::builtin(),
        app: None,
        user: None,
        resolve_app: &|_| None,
    };
    let mut calls = Calls::new(&file, context);
    let of_calls = file.kind == FileKind::Transcript;
    let mut reader = std::fs::File::open(path)?;
    let (mut facts_wait, mut calls_wait) = (Vec::new(), Vec::new());
    let mut events = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        facts_wait.extend_from_slice(&chunk[..read]);
        let taken = parser.feed(&facts_wait);
        facts_wait.drain(..taken);
        if of_calls {
            calls_wait.extend_from_slice(&chunk[..read]);
            let taken = calls.feed(&calls_wait);
            calls_wait.drain(..taken);
            events.extend(calls.take());
        }
    }
    parser.finish(&facts_wait);
    calls.finish(&calls_wait);
    events.extend(calls.take());
    let born = parser.born().or(modified).unwrap_or(TimestampMs::MIN);
    traces.facts(&parser.take());
    for event in &events {
        traces.event(event, born);
    }
    Ok(())
}

fn payloads(path: &Path, traces: &mut Traces, found: &mut Found) -> Result<()> {
    let mut decoder = Decoder::new(std::fs::File::open(path)?);
    let redactor = Redactor::builtin();
    let received = report::now();
    let (mut last_ms, mut untimed, mut nth) = (None::<i64>, 0u64, 0u64);
    while let Some(item) = decoder.next()? {
        let recorded = hooks::understand(&item);
        let text = String::from_utf8_lossy(&recorded.payload);
        let redacted = redactor.redact(&text);
        nth += 1;
        let delivery = Delivery {
            event_id: EventId::derived(&[path.to_string_lossy().as_bytes(), &nth.to_le_bytes()]),
            source: Source::Hook,
            captured: recorded.captured_ms.map(TimestampMs::clamped),
            received,
            app: None,
            user: None,
            host: None,
            payload: redacted.text.as_bytes(),
            payload_bytes: recorded.payload.len() as u64,
            truncated: false,
            redactions: redacted.total(),
            hook_wall_us: None,
        };
        let mut event = hook(&delivery, &|_| None);
        if event.issues.contains(&Issue::NoTimestamp) {
            untimed += 1;
            let after_ms = last_ms.unwrap_or(TimestampMs::MIN.get());
            event.ts = TimestampMs::clamped(after_ms + UNTIMED_STEP_MS);
            event.issues.retain(|issue| *issue != Issue::NoTimestamp);
        }
        last_ms = Some(event.ts.get());
        traces.event(&event, event.ts);
    }
    if untimed > 0 {
        found.warnings.push(format!(
            "{}: {untimed} of {nth} payloads have no time; they count as {} s apart",
            path.display(),
            UNTIMED_STEP_MS / 1_000
        ));
    }
    Ok(())
}
