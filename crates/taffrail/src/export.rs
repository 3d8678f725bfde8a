//! `taffrail export`: stored events on stdout, page by page, in the API's shape.
//!
//! The database is opened to read only, beside a server that may be running.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};
use serde_json::Value;
use taffrail_event::{RowId, TimestampMs};
use taffrail_server::types::EventJson;
use taffrail_store::{EventFilter, Options, Payloads, Reader};

use crate::cli::{EventFilterArgs, ExportCommand, ExportEventsArgs, ExportFormat};
use crate::home::Home;
use crate::print::written;

/// Events of a page: a page of large payloads must fit into memory.
const PAGE_EVENTS: usize = 200;

/// Columns of the CSV form and where the native event has them.
const COLUMNS: [(&str, &str); 24] = [
    ("id", "/id"),
    ("event_id", "/event_id"),
    ("ts_ms", "/ts_ms"),
    ("received_ms", "/received_ms"),
    ("source", "/source"),
    ("app", "/app"),
    ("session_id", "/session_id"),
    ("agent_id", "/agent_id"),
    ("agent_type", "/agent_type"),
    ("prompt_id", "/prompt_id"),
    ("tool_use_id", "/tool_use_id"),
    ("user", "/user"),
    ("host", "/host"),
    ("model", "/model"),
    ("type", "/type"),
    ("tool_name", "/tool_name"),
    ("summary", "/summary"),
    ("execution_time_ms", "/metrics/execution_time_ms"),
    ("error_type", "/error/type"),
    ("error_message", "/error/message"),
    ("file_operations", "/file_operations"),
    ("git_operations", "/git_operations"),
    ("payload_bytes", "/payload_bytes"),
    ("payload", "/payload"),
];

pub(crate) fn run(home: &Home, command: &ExportCommand) -> Result<()> {
    let ExportCommand::Events(args) = command;
    let filter = filter(args)?;
    let payloads = if args.no_payload { Payloads::Without } else { Payloads::With };
    let reader = Reader::open(&Options::new(home.database()))
        .with_context(|| format!("cannot export from {}", home.dir().display()))?;
    let mut stdout = BufWriter::new(io::stdout().lock());
    write_events(&reader, &filter, payloads, args.format, &mut stdout)?;
    written(stdout.flush())
}

fn filter(args: &ExportEventsArgs) -> Result<EventFilter> {
    let EventFilterArgs { app, session, type_name, tool, agent } = args.filter.clone();
    let time = |text: &Option<String>| text.as_deref().map(time_ms).transpose();
    Ok(EventFilter {
        app,
        session,
        type_name,
        tool,
        agent,
        q: args.q.clone(),
        from: time(&args.from)?.map(TimestampMs::clamped),
        to: time(&args.to)?.map(TimestampMs::clamped),
    })
}

/// A time as a person writes it, in milliseconds.
fn time_ms(text: &str) -> Result<i64> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let local = text
        .parse::<jiff::civil::DateTime>()
        .ok()
        .and_then(|t| t.to_zoned(jiff::tz::TimeZone::system()).ok());
    let local = local.context(format!(
        "`{text}` is no time\nhint: 2026-11-22, 2026-11-22T10:00, 2026-11-22T10:00:00Z or milliseconds since 1970"
    ))?;
    Ok(local.timestamp().as_millisecond())
}

fn write_events(
    reader: &Reader,
    filter: &EventFilter,
    payloads: Payloads,
    format: ExportFormat,
    to: &mut impl Write,
) -> Result<()> {
    if format == ExportFormat::Csv {
        let header: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        written(writeln!(to, "{}", header.join(",")))?;
    }
    let mut after = RowId(0);
    loop {
        let page = reader.events_after(filter, after, PAGE_EVENTS, payloads)?;
        for event in page.rows {
            let event = EventJson::from(event);
            let line = match format {
                ExportFormat::Jsonl => serde_json::to_string(&event)?,
                ExportFormat::Csv => csv_line(&serde_json::to_value(&event)?),
            };
            written(writeln!(to, "{line}"))?;
        }
        match page.next {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

/// One line of RFC 4180: nested values as JSON, absent ones empty.
fn csv_line(event: &Value) -> String {
    let cells = COLUMNS.iter().map(|(_, pointer)| match event.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => csv_cell(text),
        Some(other) => csv_cell(&other.to_string()),
    });
    cells.collect::<Vec<_>>().join(",")
}

fn csv_cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_csv_line_has_every_column_and_quotes_what_needs_it() {
        let event = serde_json::json!({"id": 1, "summary": "a \"b\", c\nd", "payload": {"x": [1, 2]}});
        let line = csv_line(&event);
        assert!(line.starts_with("1,,,"), "{line}");
        assert!(line.contains(",\"a \"\"b\"\", c\nd\","), "{line}");
        assert!(line.ends_with(",\"{\"\"x\"\":[1,2]}\""), "{line}");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(time_ms("1795333438402").unwrap(), 1_795_333_438_402);
        assert_eq!(time_ms("2026-11-22T10:00:00Z").unwrap(), 1_795_341_600_000);
        assert!(time_ms("2026-11-22").is_ok() && time_ms("2026-11-22T10:00").is_ok());
        assert!(time_ms("yesterday").unwrap_err().to_string().contains("hint:"));
    }
}
