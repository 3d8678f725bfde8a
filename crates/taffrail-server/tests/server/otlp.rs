//! OpenTelemetry in: the three encodings give the same, a retry counts once, and what is wrong is told as OTLP wants it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use serde_json::{Value, json};
use taffrail_server::config::Otlp;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use crate::harness::{Answer, PATIENCE, Server};

/// A server with both of OTLP's own ports, wherever they are free.
fn server() -> Server {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Server::start_with(|config| config.otlp = Otlp { http: Some(any), grpc: Some(any) })
}

fn door(server: &Server, name: &str) -> SocketAddr {
    let health = server.get("/api/v1/health").json();
    let door = &health["data_ingestion"]["evidence"]["otlp"][name];
    assert_eq!(door["state"], "open", "{door}");
    door["address"].as_str().unwrap().parse().unwrap()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/captures")
}

/// The exports of a capture: path and body.
fn exports(scenario: &str) -> Vec<(String, Value)> {
    let path = fixtures().join(scenario).join("otlp.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let whole = lines.filter(|line| line.get("body").is_some());
    whole.map(|mut line| (line["path"].as_str().unwrap().to_owned(), line["body"].take())).collect()
}

fn scenarios() -> Vec<String> {
    let dirs = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let with = dirs.filter(|dir| dir.join("otlp.jsonl").is_file() && !dir.join("otlp").is_dir());
    let mut names: Vec<String> =
        with.map(|dir| dir.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    assert!(names.len() >= 13, "{names:?}");
    names
}

fn protobuf(path: &str, body: &Value) -> Vec<u8> {
    let body = body.clone();
    match path {
        "/v1/logs" => serde_json::from_value::<ExportLogsServiceRequest>(body).unwrap().encode_to_vec(),
        "/v1/metrics" => serde_json::from_value::<ExportMetricsServiceRequest>(body).unwrap().encode_to_vec(),
        "/v1/traces" => serde_json::from_value::<ExportTraceServiceRequest>(body).unwrap().encode_to_vec(),
        other => panic!("{other}"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn post(server: &Server, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
    server.request("POST", path).header("content-type", kind).body(body).send()
}

fn post_json(server: &Server, path: &str, body: &Value) -> Answer {
    post(server, path, "application/json", body.to_string())
}

/// Runs gRPC calls against the server's own port.
fn grpc<T>(server: &Server, call: impl AsyncFnOnce(tonic::transport::Channel) -> T) -> T {
    let address = door(server, "grpc");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        call(endpoint.connect().await.unwrap()).await
    })
}

async fn send_grpc(channel: &tonic::transport::Channel, path: &str, bytes: &[u8]) -> Result<bool, Status> {
    let gzip = CompressionEncoding::Gzip;
    let channel = channel.clone();
    Ok(match path {
        "/v1/logs" => {
            let request = ExportLogsServiceRequest::decode(bytes).unwrap();
            let answer = LogsServiceClient::new(channel).send_compressed(gzip).export(request).await?;
            answer.into_inner().partial_success.is_none()
        }
        "/v1/metrics" => {
            let request = ExportMetricsServiceRequest::decode(bytes).unwrap();
            let answer = MetricsServiceClient::new(channel).send_compressed(gzip).export(request).await?;
            answer.into_inner().partial_success.is_none()
        }
        _ => {
            let request = ExportTraceServiceRequest::decode(bytes).unwrap();
            let answer = TraceServiceClient::new(channel).send_compressed(gzip).export(request).await?;
            answer.into_inner().partial_success.is_none()
        }
    })
}

/// All pages of a list.
fn all(server: &Server, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let glue = if path.contains('?') { '&' } else { '?' };
        let page = server.get(&format!("{path}{glue}limit=500&cursor={cursor}")).json();
        items.extend(page["items"].as_array().unwrap_or_else(|| panic!("{page}")).clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return items,
        }
    }
}

/// What is stored, without what differs between two runs: the ids of rows and when they were received.
fn stored(server: &Server) -> Vec<String> {
    let mut rows = Vec::new();
    for path in ["/api/v1/events", "/api/v1/telemetry", "/api/v1/sessions", "/api/v1/telemetry/names"] {
        for mut row in all(server, path) {
            for key in ["id", "received_ms", "state"] {
                row.as_object_mut().unwrap().remove(key);
            }
            rows.push(format!("{path} {row}"));
        }
    }
    rows.sort();
    rows
}

#[test]
fn the_three_encodings_store_the_same_and_a_retry_counts_once() {
    let (by_json, by_protobuf, by_grpc) = (server(), server(), server());
    let mut exported = Vec::new();
    for scenario in scenarios() {
        exported.extend(exports(&scenario));
    }
    for round in 0..2 {
        for (path, body) in &exported {
            let answer = if round == 0 {
                post_json(&by_json, path, body)
            } else {
                let bytes = gzip(body.to_string().as_bytes());
                let request =
                    by_json.request("POST", path).header("content-type", "application/json; charset=utf-8");
                request.header("content-encoding", "gzip").body(bytes).send()
            };
            assert_eq!((answer.status, answer.text().as_str()), (200, "{}"), "{path}");
            let bytes = gzip(&protobuf(path, body));
            let request = by_protobuf.request("POST", path).header("content-type", "application/x-protobuf");
            let answer = request.header("content-encoding", "gzip").body(bytes).send();
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
            assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
        }
        grpc(&by_grpc, async |channel| {
            for (path, body) in &exported {
                assert!(send_grpc(&channel, path, &protobuf(path, body)).await.unwrap(), "{path}");
            }
        });
        let rows = stored(&by_json);
        assert!(rows.len() > 800, "{}", rows.len());
        assert_eq!(rows, stored(&by_protobuf));
        assert_eq!(rows, stored(&by_grpc));
    }
    let fresh = by_json.figure("taffrail_ingest_events_total{source=\"otlp\",outcome=\"stored\"}");
    let twice = by_json.figure("taffrail_ingest_events_total{source=\"otlp\",outcome=\"duplicate\"}");
    assert!(fresh == twice && fresh > 800.0, "{fresh} {twice}");
    let requests = by_json.figure("taffrail_otlp_records_total{signal=\"log\",class=\"request\"}");
    assert_eq!(requests, 2.0 * 78.0);
}

#[test]
fn what_the_client_sends_as_protobuf_is_taken_as_it_is() {
    let server = server();
    let dir = fixtures().join("quick-edit-protobuf/otlp");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in &files {
        let signal = file.file_stem().unwrap().to_str().unwrap().split_once('-').unwrap().1;
        let answer =
            post(&server, &format!("/v1/{signal}"), "application/x-protobuf", std::fs::read(file).unwrap());
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{}", file.display());
    }
    let requests = all(&server, "/api/v1/events?type=claude_code.api_request");
    assert!(requests.len() >= 4, "{requests:?}");
    let names = server.get("/api/v1/telemetry/names").json();
    let names: Vec<_> =
        names["items"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"claude_code.cost.usage") && names.contains(&"claude_code.llm_request"),
        "{names:?}"
    );
    let spans = all(&server, "/api/v1/telemetry?signal=span&name=claude_code.llm_request");
    assert!(
        !spans.is_empty() && spans.iter().all(|span| span["resource"]["resource"]["department"] == "web")
    );
}

/// What a session's calls and counts are, by tool use.
fn calls(server: &Server) -> (Vec<String>, Vec<String>) {
    let call = |c: &Value| {
        format!(
            "{} {} {} {} {} {}",
            c["tool_use_id"], c["tool_name"], c["status"], c["duration_ms"], c["app"], c["input_hash"]
        )
    };
    let mut calls: Vec<String> = all(server, "/api/v1/calls").iter().map(call).collect();
    calls.sort();
    let session = |s: &Value| {
        let counts =
            ["prompts", "calls", "failed_calls", "subagents", "compactions"].map(|key| s[key].to_string());
        format!("{} {} {}", s["session_id"], s["app"], counts.join(" "))
    };
    (calls, all(server, "/api/v1/sessions").iter().map(session).collect())
}

#[test]
fn hooks_and_telemetry_of_one_run_are_one_run_in_any_order() {
    for scenario in ["subagents-parallel", "dangerous-command", "failing-tests", "git-work", "resume-compact"]
    {
        let text = std::fs::read_to_string(fixtures().join(scenario).join("hooks.jsonl")).unwrap();
        let hooks = |server: &Server| {
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                assert_eq!(server.hook(line["body"].to_string()).status, 200);
            }
        };
        let telemetry = |server: &Server| {
            for (path, body) in exports(scenario) {
                assert_eq!(post_json(server, &path, &body).status, 200);
            }
        };
        let (alone, after, before) = (server(), server(), server());
        hooks(&alone);
        hooks(&after);
        telemetry(&after);
        telemetry(&before);
        hooks(&before);
        let (alone_calls, alone_sessions) = calls(&alone);
        let (after_calls, after_sessions) = calls(&after);
        let (before_calls, before_sessions) = calls(&before);
        assert_eq!(after_calls, before_calls, "{scenario}");
        assert_eq!(after_sessions.len(), alone_sessions.len(), "{scenario}");
        assert_eq!(before_sessions.len(), alone_sessions.len(), "{scenario}");
        assert_eq!(alone_calls.len(), after_calls.len(), "{scenario}: a call is one call");
        let known: BTreeMap<_, _> = after_calls.iter().map(|c| (c.split(' ').next().unwrap(), c)).collect();
        for call in
            alone_calls.iter().filter(|call| !call.contains("\"ended\"") && !call.contains("\"running\""))
        {
            assert_eq!(Some(&call), known.get(call.split(' ').next().unwrap()), "{scenario}");
        }
        for (alone, both) in alone_sessions.iter().zip(&after_sessions) {
            let cut = |line: &str| line.split(' ').take(4).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(cut(alone), cut(both), "{scenario}: prompts and calls do not double");
        }
    }
}

#[test]
fn a_metric_alone_makes_no_session_and_is_listed() {
    let server = server();
    let metrics: Vec<_> =
        exports("resume-compact").into_iter().filter(|(path, _)| path == "/v1/metrics").collect();
    for (path, body) in &metrics {
        assert_eq!(post_json(&server, path, body).status, 200);
    }
    assert_eq!(all(&server, "/api/v1/sessions"), Vec::<Value>::new());
    let costs = all(&server, "/api/v1/telemetry?name=claude_code.cost.usage&signal=metric");
    assert!(
        !costs.is_empty()
            && costs.iter().all(|c| c["temporality"] == "delta" && c["value"].as_f64().is_some())
    );
    let one = costs[0]["session_id"].as_str().unwrap();
    let of_one = all(&server, &format!("/api/v1/telemetry?session={one}"));
    assert!(of_one.iter().all(|row| row["session_id"] == one) && of_one.len() > 1);
    assert_eq!(server.get("/api/v1/telemetry?signal=nonsense").problem(), "bad_request");
}

#[test]
fn what_cannot_be_used_is_told_in_a_partial_success() {
    let server = server();
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [7, {}, {"body": {"stringValue": "kept"}}]}]}]});
    let answer = post_json(&server, "/v1/logs", &body);
    assert_eq!(answer.status, 200);
    let partial = &answer.json()["partialSuccess"];
    assert_eq!(partial["rejectedLogRecords"], "2", "{partial}");
    assert!(partial["errorMessage"].as_str().is_some_and(|m| m.contains("no JSON object")), "{partial}");
    assert_eq!(all(&server, "/api/v1/telemetry").len(), 1);
    assert_eq!(server.figure("taffrail_otlp_records_total{signal=\"log\",class=\"rejected\"}"), 2.0);

    let metric = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "empty"}]}]}]});
    let bytes = serde_json::from_value::<ExportMetricsServiceRequest>(metric).unwrap().encode_to_vec();
    let status = grpc(&server, async |channel| send_grpc(&channel, "/v1/metrics", &bytes).await);
    assert!(!status.unwrap(), "a metric without data is a partial success");

    let empty = ExportLogsServiceRequest {
        resource_logs: serde_json::from_value(json!([{"scopeLogs": [{"logRecords": [{}]}]}])).unwrap(),
    };
    let answer = post(&server, "/v1/logs", "application/x-protobuf", empty.encode_to_vec());
    let partial = ExportLogsServiceResponse::decode(answer.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!((answer.status, partial.rejected_log_records), (200, 1));
}

/// `google.rpc.Status` as protobuf.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[test]
fn a_bad_request_is_refused_in_its_own_encoding() {
    let server = server();
    let send = |kind: &str, encoding: &str, body: Vec<u8>| {
        let request = server.request("POST", "/v1/logs").header("content-type", kind);
        request.header("content-encoding", encoding).body(body).send()
    };
    let json_kind = "application/json";
    let whole = protobuf("/v1/logs", &exports("quick-edit")[0].1);
    let bomb = gzip(&vec![b' '; 80 << 20]);
    let cases = [
        (json_kind, "identity", b"{\"resourceLogs\":[".to_vec(), 400, Code::InvalidArgument, "no OTLP JSON"),
        (json_kind, "identity", b"[]".to_vec(), 400, Code::InvalidArgument, "no JSON object"),
        (json_kind, "gzip", b"{}".to_vec(), 400, Code::InvalidArgument, "no gzip"),
        (json_kind, "zstd", b"{}".to_vec(), 415, Code::Unimplemented, "zstd"),
        (json_kind, "gzip", bomb.clone(), 413, Code::ResourceExhausted, "decompressed"),
    ];
    for (kind, encoding, body, status, code, word) in cases {
        let answer = send(kind, encoding, body);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/json")));
        let said = answer.json();
        assert_eq!(said["code"], code as i32, "{said}");
        assert!(said["message"].as_str().unwrap().contains(word), "{said}");
    }
    let kind = "application/x-protobuf";
    for (encoding, body, status, code) in [
        ("identity", whole[..whole.len() - 7].to_vec(), 400, Code::InvalidArgument),
        ("identity", b"\xff\xff\xff\xff".to_vec(), 400, Code::InvalidArgument),
        ("zstd", whole.clone(), 415, Code::Unimplemented),
        ("gzip", bomb, 413, Code::ResourceExhausted),
    ] {
        let answer = send(kind, encoding, body);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(kind)));
        let said = RpcStatus::decode(answer.body.as_slice()).unwrap();
        assert!(said.code == code as i32 && !said.message.is_empty(), "{said:?}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/grpc"] {
        let answer = post(&server, "/v1/traces", kind, "{}");
        assert_eq!(
            (answer.status, answer.json()["code"].as_i64()),
            (415, Some(Code::Unimplemented as i64)),
            "{kind}"
        );
    }
    assert_eq!(server.request("GET", "/v1/logs").send().status, 405);
    assert_eq!(server.stored(), 0);
    assert_eq!(server.figure("taffrail_otlp_records_total{signal=\"log\",class=\"undecodable\"}"), 4.0);
    assert!(server.figure("taffrail_http_refused_total{reason=\"encoding\"}") >= 2.0);
}

/// One gRPC call with a frame of one's own making.
async fn raw_call(
    channel: &mut tonic::transport::Channel,
    path: &str,
    encoding: &str,
    frame: Vec<u8>,
) -> (i32, String) {
    use http_body_util::{BodyExt, Full};
    use tower::{Service, ServiceExt};
    let body = tonic::body::Body::new(Full::new(axum::body::Bytes::from(frame)));
    let mut request = axum::http::Request::post(path).header("content-type", "application/grpc");
    if !encoding.is_empty() {
        request = request.header("grpc-encoding", encoding);
    }
    let response = channel.ready().await.unwrap().call(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let headers = [&parts.headers, &trailers];
    let get = |name: &str| headers.iter().find_map(|h| Some(h.get(name)?.to_str().unwrap().to_owned()));
    (get("grpc-status").unwrap().parse().unwrap(), get("grpc-message").unwrap_or_default())
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

#[test]
fn a_bad_call_has_the_code_that_otlp_wants() {
    let server = server();
    let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    let whole = protobuf("/v1/logs", &exports("quick-edit")[0].1);
    let bomb = gzip(&vec![0; 80 << 20]);
    let mut cut = frame(0, &whole);
    cut.truncate(100);
    let cases = [
        (path, "", frame(0, &whole[..whole.len() - 7]), Code::InvalidArgument),
        (path, "", frame(1, &whole), Code::InvalidArgument),
        (path, "", frame(9, &whole), Code::InvalidArgument),
        (path, "", cut, Code::InvalidArgument),
        (path, "", b"xy".to_vec(), Code::InvalidArgument),
        (path, "gzip", frame(1, b"no gzip"), Code::InvalidArgument),
        (path, "gzip", frame(1, &bomb), Code::ResourceExhausted),
        (path, "zstd", frame(1, &whole), Code::Unimplemented),
        ("/opentelemetry.proto.collector.logs.v1.LogsService/Import", "", frame(0, b""), Code::Unimplemented),
        ("/v1/logs", "", frame(0, b""), Code::Unimplemented),
        (path, "gzip", frame(0, &whole), Code::Ok),
    ];
    grpc(&server, async |mut channel| {
        for (path, encoding, frame, code) in cases {
            let bytes = frame.len();
            let (status, message) = raw_call(&mut channel, path, encoding, frame).await;
            assert_eq!(status, code as i32, "{path} {encoding} {bytes}: {message}");
        }
    });
}

#[test]
fn a_full_queue_says_try_again() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start_with(|config| {
        config.limits.queue_events = 1;
        config.otlp.grpc = Some(any);
    });
    let (path, body) =
        exports("subagents-parallel").into_iter().max_by_key(|(_, b)| b.to_string().len()).unwrap();
    let senders: Vec<_> = (0..16)
        .map(|n| {
            let text = body.to_string().replace("timeUnixNano\":\"1", &format!("timeUnixNano\":\"1{n:02}"));
            (n, text)
        })
        .collect();
    let mut refused = 0;
    std::thread::scope(|scope| {
        let sent: Vec<_> = senders
            .iter()
            .map(|(_, text)| {
                let (server, path) = (&server, &path);
                scope.spawn(move || {
                    (0..8)
                        .filter(|_| {
                            let answer = post(server, path, "application/json", text.as_str());
                            if answer.status == 503 {
                                assert_eq!(answer.header("retry-after"), Some("1"));
                                assert_eq!(answer.json()["code"], Code::Unavailable as i32);
                            }
                            answer.status == 503
                        })
                        .count()
                })
            })
            .collect();
        refused += sent.into_iter().map(|sender| sender.join().unwrap()).sum::<usize>();
    });
    assert!(refused > 0, "sixteen senders fill a queue of one");
    // What was refused is stored when it comes again.
    assert_eq!(post_json(&server, &path, &body).status, 200);
    let bytes = protobuf(&path, &body);
    let codes = grpc(&server, async |channel| {
        let calls = (0..64).map(|_| send_grpc(&channel, &path, &bytes));
        futures_util::future::join_all(calls).await
    });
    for code in codes.into_iter().filter_map(Result::err) {
        assert_eq!(code.code(), Code::Unavailable, "{code:?}");
    }
}

#[test]
fn the_ports_of_otlp_serve_nothing_else_and_check_who_asks() {
    let server = server();
    let http = door(&server, "http");
    let ask = |method: &str, path: &str, headers: &str, body: &str| {
        let mut stream = std::net::TcpStream::connect(http).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\
             content-type: application/json\r\n{headers}\r\n{body}"
        )
        .unwrap();
        Answer::read(&mut stream)
    };
    let host = format!("host: localhost:{}\r\n", http.port());
    assert_eq!(ask("POST", "/v1/logs", &host, "{}").status, 200);
    for path in ["/", "/api/v1/events", "/v1/hooks/claude-code", "/metrics", "/events"] {
        assert_eq!(ask("GET", path, &host, "").status, 404, "{path}");
    }
    assert_eq!(ask("POST", "/v1/logs", "host: evil.example\r\n", "{}").problem(), "host_not_allowed");
    let cross = format!("{host}origin: http://evil.example\r\n");
    assert_eq!(ask("POST", "/v1/logs", &cross, "{}").problem(), "origin_not_allowed");

    let chunked = format!("{host}transfer-encoding: chunked\r\n").replace("content-length: 0\r\n", "");
    let mut stream = std::net::TcpStream::connect(http).unwrap();
    write!(
        stream,
        "POST /v1/logs HTTP/1.1\r\nconnection: close\r\ncontent-type: application/json\r\n{chunked}\r\n\
         1\r\n{{\r\n12\r\n\"resourceLogs\":[]}}\r\n0\r\n\r\n"
    )
    .unwrap();
    assert_eq!(Answer::read(&mut stream).status, 200);

    let grpc_address = door(&server, "grpc");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{grpc_address}")).unwrap();
        let endpoint = endpoint.origin("http://evil.example:4317".parse().unwrap());
        let channel = endpoint.connect().await.unwrap();
        LogsServiceClient::new(channel).export(ExportLogsServiceRequest::default()).await.unwrap_err()
    });
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
}

#[test]
fn a_peer_that_never_speaks_http2_is_let_go() {
    use std::io::Read;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start_with(|config| {
        config.limits.header_read_ms = 100;
        config.otlp.grpc = Some(any);
    });
    for said in ["", "PRI * HTTP", "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let mut stream = std::net::TcpStream::connect(door(&server, "grpc")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        let mut rest = Vec::new();
        // The end of the connection, or its reset; a peer that is kept would time out here.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{said:?}");
        }
    }
}

#[test]
fn a_port_that_is_held_is_said_and_the_server_goes_on() {
    let held = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = held.local_addr().unwrap();
    let server = Server::start_with(|config| config.otlp.http = Some(address));
    let health = server.get("/api/v1/health").json();
    let ingestion = &health["data_ingestion"];
    assert_eq!(ingestion["evidence"]["otlp"]["http"]["state"], "unavailable", "{ingestion}");
    assert_eq!(ingestion["evidence"]["otlp"]["grpc"]["state"], "off", "{ingestion}");
    assert!(ingestion["detail"].as_str().unwrap().contains(&address.to_string()), "{ingestion}");
    assert_eq!(ingestion["status"], "ok");
    assert_eq!(post_json(&server, "/v1/logs", &json!({})).status, 200);
}
