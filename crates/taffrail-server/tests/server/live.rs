//! The stream: both formats, filters, slow readers; and the agent that waits for an answer.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::harness::{PATIENCE, Server, prompt};

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Connects; the error is the status of a refusal.
async fn connect(
    addr: SocketAddr,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, u16> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let mut request = format!("ws://{addr}/stream{query}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn open(server: &Server, query: &str) -> WebSocketStream<TcpStream> {
    connect(server.addr, query, &[("authorization", &format!("Bearer {}", server.token))]).await.unwrap()
}

/// The next frame that is not one of the timed ones.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        if let Message::Text(text) = message {
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] != "analytics" {
                return frame;
            }
        }
    }
}

/// An agent's WebSocket: its URL, and the first thing it hears.
pub(crate) fn listen_as_agent() -> (String, mpsc::Receiver<String>) {
    let (heard, hears) = mpsc::channel();
    let (bound, address) = mpsc::channel();
    std::thread::spawn(move || {
        on_runtime(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            if let Some(Ok(Message::Text(text))) = socket.next().await {
                heard.send(text.to_string()).unwrap();
            }
        });
    });
    (format!("ws://localhost:{}", address.recv().unwrap().port()), hears)
}

#[test]
fn the_old_page_gets_what_is_there_then_what_comes() {
    let server = Server::start();
    for n in 0..3 {
        server.hook(prompt("s", &format!("before {n}")));
    }
    on_runtime(async {
        let mut socket = open(&server, "").await;
        let first = next(&mut socket).await;
        assert_eq!(first["type"], "initial");
        let prompts: Vec<&str> = first["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["payload"]["prompt"].as_str().unwrap())
            .collect();
        assert_eq!(prompts, ["before 0", "before 1", "before 2"]);

        let posted = json!({"source_app": "a", "session_id": "s", "hook_event_type": "Notification", "payload": {"x": 1}, "odd": true});
        let stored = server.post("/events", posted.to_string()).json();
        let frame = next(&mut socket).await;
        assert_eq!((&frame["type"], &frame["data"]), (&json!("event"), &stored));
        socket.send(Message::text("anything")).await.unwrap();
        server.hook(prompt("s", "after"));
        let frame = next(&mut socket).await;
        assert_eq!(
            (&frame["data"]["hook_event_type"], &frame["data"]["payload"]["prompt"]),
            (&json!("UserPromptSubmit"), &json!("after"))
        );
        assert!(frame["data"]["id"].as_i64().unwrap() > 0);
    });
}

#[test]
fn the_native_stream_has_no_payload_and_takes_filters() {
    let server = Server::start();
    server.hook(prompt("one", "before"));
    server.hook(prompt("two", "before"));
    on_runtime(async {
        let mut socket = open(&server, "?format=native&session=two&limit=5").await;
        let first = next(&mut socket).await;
        assert_eq!(first["data"].as_array().unwrap().len(), 1);
        assert!(first["data"][0].get("payload").is_none());
        server.hook(prompt("one", "not for us"));
        server.hook(prompt("two", "for us"));
        let frame = next(&mut socket).await;
        assert_eq!((&frame["type"], &frame["data"]["session_id"]), (&json!("event"), &json!("two")));
        assert_eq!(frame["data"]["summary"], "for us");
        let same = server.get(&format!("/api/v1/events/{}", frame["data"]["id"])).json();
        assert_eq!(same["event_id"], frame["data"]["event_id"]);
        assert_eq!(
            connect(server.addr, "?format=odd", &[("authorization", &format!("Bearer {}", server.token))])
                .await
                .err(),
            Some(400)
        );
    });
}

#[test]
fn a_duplicate_is_not_shown_twice() {
    let server = Server::start();
    on_runtime(async {
        let mut socket = open(&server, "?format=native").await;
        next(&mut socket).await;
        for text in ["same", "same", "other"] {
            let id = if text == "same" {
                "01890a5d-ac96-774b-bcce-b302099a8057"
            } else {
                "01890a5d-ac96-774b-bcce-b302099a8058"
            };
            let request = server.request("POST", "/v1/hooks/claude-code").header("x-taffrail-event-id", id);
            assert_eq!(request.body(prompt("s", text)).send().status, 200);
        }
        assert_eq!(next(&mut socket).await["data"]["summary"], "same");
        assert_eq!(next(&mut socket).await["data"]["summary"], "other");
    });
}

#[test]
fn a_slow_reader_is_told_what_it_missed() {
    let server = Server::start_with(|c| c.limits.live_frames = 8);
    on_runtime(async {
        let mut socket = open(&server, "").await;
        assert_eq!(next(&mut socket).await["type"], "initial");
        // Far more than the sockets between hold.
        let filler = "x".repeat(200_000);
        for n in 0..150 {
            assert_eq!(server.hook(prompt("s", &format!("{n} {filler}"))).status, 200);
        }
        let (mut events, mut dropped) = (0, 0);
        while events + dropped < 150 {
            let frame = next(&mut socket).await;
            match frame["type"].as_str().unwrap() {
                "event" => events += 1,
                "dropped" => dropped += frame["data"].as_u64().unwrap(),
                other => panic!("{other}"),
            }
        }
        assert!(dropped > 0, "all {events} fitted");
        assert_eq!(events + dropped, 150, "every event was sent or counted");
    });
    assert!(server.figure("taffrail_live_dropped_total") > 0.0);
}

#[test]
fn readers_are_bounded_and_checked() {
    let server = Server::start_with(|c| c.limits.live_clients = 1);
    let bearer = format!("Bearer {}", server.token);
    on_runtime(async {
        assert_eq!(connect(server.addr, "", &[]).await.err(), Some(401));
        let foreign = [("authorization", bearer.as_str()), ("origin", "http://evil.example")];
        assert_eq!(connect(server.addr, "", &foreign).await.err(), Some(403));
        let first = open(&server, "").await;
        assert_eq!(connect(server.addr, "", &[("authorization", &bearer)]).await.err(), Some(503));
        drop(first);
        let began = std::time::Instant::now();
        while connect(server.addr, "", &[("authorization", &bearer)]).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "a reader that left makes room");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn a_summary_of_the_last_minute_comes_every_five_seconds() {
    let server = Server::start();
    on_runtime(async {
        let mut socket = open(&server, "?format=native").await;
        server.hook(prompt("s", "hello"));
        loop {
            let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == "analytics" && frame["data"]["window"]["events"] == 1 {
                assert_eq!(frame["data"]["window"]["name"], "1m");
                break;
            }
        }
    });
}

#[test]
fn a_stop_closes_streams_and_does_not_wait_for_them() {
    let server = Server::start();
    let addr = server.addr;
    let bearer = format!("Bearer {}", server.token);
    let (opened, is_open) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        on_runtime(async {
            let mut socket = connect(addr, "", &[("authorization", &bearer)]).await.unwrap();
            next(&mut socket).await;
            opened.send(()).unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Close(Some(frame)) = message {
                    return u16::from(frame.code);
                }
            }
            0
        })
    });
    is_open.recv().unwrap();
    let began = std::time::Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(reader.join().unwrap(), 1012);
}

#[test]
fn what_a_response_cost_is_on_the_native_stream_and_not_on_the_old_one() {
    let client = tempfile::tempdir().unwrap();
    let folder = client.path().join("projects/-demo");
    std::fs::create_dir_all(&folder).unwrap();
    let server = Server::start_with(|config| {
        config.transcripts.roots = vec![client.path().to_owned()];
        config.transcripts.tail = true;
    });
    // Haiku: 1,000 fresh tokens for 1,000,000 nano-dollars, 100 out for 500,000.
    let line = |session: &str, n: u32, model: &str| {
        let body = json!({
            "type": "assistant", "uuid": format!("u{n}"), "sessionId": session, "cwd": "/nonexistent/harbour",
            "timestamp": format!("2026-11-01T00:00:{n:02}.000Z"), "requestId": format!("req_{n}"),
            "message": {
                "id": format!("msg_{n}"), "type": "message", "role": "assistant", "model": model,
                "content": [{"type": "text", "text": "done"}], "stop_reason": "end_turn",
                "usage": {"input_tokens": 1_000, "output_tokens": 100, "cache_read_input_tokens": 0,
                    "cache_creation_input_tokens": 0},
            },
        });
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(format!("{session}.jsonl")))
            .and_then(|mut file| std::io::Write::write_all(&mut file, format!("{body}\n").as_bytes()))
            .unwrap();
    };
    on_runtime(async {
        let mut old = open(&server, "").await;
        let mut native = open(&server, "?format=native").await;
        let mut other = open(&server, "?format=native&session=other").await;
        for socket in [&mut old, &mut native, &mut other] {
            assert_eq!(next(socket).await["type"], "initial");
        }
        line("one", 1, "claude-haiku-4-5");
        let frame = next(&mut native).await;
        assert_eq!(
            frame,
            json!({"type": "cost", "data": {"unpriced_models": [], "more_sessions": 0, "sessions": [{
                "session_id": "one", "app": "harbour", "cost_usd": 0.0015, "delta_usd": 0.0015, "requests": 1,
                "new_requests": 1, "confidence": "exact",
            }]}})
        );
        line("one", 2, "made-up-model-1");
        let frame = next(&mut native).await;
        assert_eq!(frame["data"]["unpriced_models"], json!(["made-up-model-1"]));
        let session = &frame["data"]["sessions"][0];
        assert_eq!((&session["cost_usd"], &session["requests"]), (&json!(0.0015), &json!(2)));
        assert_eq!((&session["delta_usd"], &session["confidence"]), (&json!(0.0), &json!("unpriced")));
        line("other", 3, "claude-haiku-4-5");
        assert_eq!(
            next(&mut other).await["data"]["sessions"][0]["session_id"],
            "other",
            "and nothing of one before"
        );
        server.hook(prompt("one", "after"));
        assert_eq!(next(&mut old).await["type"], "event", "the old page sees events only");
    });
}
