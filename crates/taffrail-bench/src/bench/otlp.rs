//! OpenTelemetry log records of the real client, replayed as many sessions, beside an echo server.
//!
//! The records are those of the recordings in `fixtures/captures`, in their order and with their sizes; ids, sessions and
//! times are made anew for each round, so that none is a repetition. What the client says of itself (hooks that began and
//! ended) is among them, as it is in an export of the real client.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use serde_json::{Value, json};

use super::Bench;
use crate::check;
use crate::http::{Connection, EchoServer, Request};
use crate::report::Section;
use crate::server::Server;
use crate::stats::Samples;

const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Records of one export: what the client's exporter sends at most.
const RECORDS_A_REQUEST: usize = 500;
/// Exporters at once.
const CONNECTIONS: usize = 2;
/// Log records a second on two cores.
const TARGET_RECORDS_A_SECOND: f64 = 20_000.0;
/// Records of one replayed session.
const RECORDS_A_SESSION: usize = 200;

/// How an export is written.
#[derive(Clone, Copy, Debug)]
enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }
}

/// Log records a second, as JSON and as protobuf.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut section = Section::new(
        "",
        "How many log records of the client's telemetry a second are taken, mapped, committed and synced?",
        &format!(
            "`POST /v1/logs`, {RECORDS_A_REQUEST} records a request, {CONNECTIONS} connections over loopback, requests made \
             beforehand, rounds in turn with the same requests to an echo server of this program's own. The records are the \
             real client's (`fixtures/captures`), with new ids, sessions and times. Sender and server share the cores."
        ),
    );
    let records = recorded()?;
    let echo = EchoServer::start()?;
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        rounds(bench, &echo, &records, encoding, &mut section)?;
    }
    Ok(section)
}

fn rounds(
    bench: &Bench,
    echo: &EchoServer,
    records: &[Value],
    encoding: Encoding,
    section: &mut Section,
) -> Result<()> {
    let (rounds, requests) = bench.size.of((1, 2), (3, 20), (7, 60));
    let (dir, log) = bench.data_dir(&format!("otlp-{encoding:?}"))?;
    let server = Server::start(&bench.binaries.taffrail, &dir, &log)?;
    let (mut floor, mut measured) = (Samples::default(), Samples::default());
    let mut sent = 0;
    for _ in 0..rounds {
        let bodies: Vec<Vec<u8>> = (0..requests)
            .map(|_| {
                let body = export(records, sent, encoding);
                sent += RECORDS_A_REQUEST;
                body
            })
            .collect::<Result<_>>()?;
        let records = bodies.len() * RECORDS_A_REQUEST;
        floor.push(records as f64 / send_all(echo.addr(), &bodies, encoding)?);
        measured.push(records as f64 / send_all(server.addr(), &bodies, encoding)?);
    }
    server.stop()?;
    let stored = check::count_events(&dir)? + check::count_telemetry(&dir)?;
    ensure!(stored == sent as u64, "{sent} records acknowledged as {encoding:?}, {stored} stored");
    let median = measured.spread().context("nothing was measured")?.p50;
    section.spread(format!("{encoding:?}: rate"), "records/s", &measured);
    section.spread(format!("{encoding:?}: floor, echo server"), "records/s", &floor);
    section.at_least(
        format!("log records as {encoding:?}, median"),
        "records/s",
        TARGET_RECORDS_A_SECOND,
        median,
    );
    Ok(())
}

/// Seconds it took to have all of them answered.
fn send_all(addr: SocketAddr, bodies: &[Vec<u8>], encoding: Encoding) -> Result<f64> {
    let begun = Instant::now();
    let done: Vec<Result<()>> = std::thread::scope(|scope| {
        let parts = bodies.chunks(bodies.len().div_ceil(CONNECTIONS));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || send(addr, part, encoding))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a sender panicked"))).collect()
    });
    done.into_iter().collect::<Result<()>>()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn send(addr: SocketAddr, bodies: &[Vec<u8>], encoding: Encoding) -> Result<()> {
    let mut connection = Connection::open(addr, REQUEST_LIMIT)?;
    let headers = [("content-type", encoding.content_type())];
    for body in bodies {
        let answer = connection.send(&Request::post("/v1/logs", &headers, body))?;
        ensure!(answer.is_success(), "/v1/logs said {}: {}", answer.status, answer.text());
    }
    Ok(())
}

/// Every log record of the recordings.
fn recorded() -> Result<Vec<Value>> {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/captures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&captures)
        .with_context(|| format!("no recordings in {}", captures.display()))?
        .filter_map(|entry| Some(entry.ok()?.path().join("otlp.jsonl")))
        .filter(|file| file.is_file())
        .collect();
    files.sort();
    let mut records = Vec::new();
    for file in files {
        for line in std::fs::read_to_string(&file)?.lines() {
            let mut line: Value = serde_json::from_str(line)?;
            for resource in line["body"]["resourceLogs"].as_array_mut().into_iter().flatten() {
                for scope in resource["scopeLogs"].as_array_mut().into_iter().flatten() {
                    records.extend(scope["logRecords"].as_array_mut().into_iter().flat_map(std::mem::take));
                }
            }
        }
    }
    ensure!(!records.is_empty(), "no log record in {}", captures.display());
    Ok(records)
}

/// One export of records that nobody sent before: `from` is the number of the first.
fn export(records: &[Value], from: usize, encoding: Encoding) -> Result<Vec<u8>> {
    let logs: Vec<Value> =
        (from..from + RECORDS_A_REQUEST).map(|n| made_new(&records[n % records.len()], n)).collect();
    let body = json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "claude-code"}}], "droppedAttributesCount": 0},
        "scopeLogs": [{"scope": {"name": "com.anthropic.claude_code.events", "version": "2.1.330"}, "logRecords": logs}],
    }]});
    Ok(match encoding {
        Encoding::Json => body.to_string().into_bytes(),
        Encoding::Protobuf => {
            serde_json::from_value::<ExportLogsServiceRequest>(body).context("not OTLP")?.encode_to_vec()
        }
    })
}

/// The record with ids, session and time of its own.
fn made_new(record: &Value, n: usize) -> Value {
    let mut record = record.clone();
    let ns = (1_795_000_000_000_000_000 + n as u64 * 20_000_000).to_string();
    record["timeUnixNano"] = json!(ns);
    record["observedTimeUnixNano"] = json!(ns);
    for attribute in record["attributes"].as_array_mut().into_iter().flatten() {
        let value = match attribute["key"].as_str().unwrap_or_default() {
            "session.id" => json!({"stringValue": format!("bench-{:08}", n / RECORDS_A_SESSION)}),
            "request_id" => json!({"stringValue": format!("req_bench{n:020}")}),
            "tool_use_id" => json!({"stringValue": format!("toolu_bench{n:020}")}),
            "event.sequence" => json!({"intValue": n}),
            _ => continue,
        };
        attribute["value"] = value;
    }
    record
}
