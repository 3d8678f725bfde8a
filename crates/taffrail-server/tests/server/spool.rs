//! The hook client's way in: frames on disk, a poke, a question.
#![cfg(unix)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use taffrail_event::frame::{FrameHeader, FrameVerdict, encode, encode_head};
use taffrail_hook::spool::{SpoolDir, append};
use taffrail_hook::{HOOK_SOCKET, POKE_SOCKET};
use uuid::Uuid;

use crate::harness::{Server, eventually, prompt};

const NO_LIMIT: u64 = u64::MAX;

/// Leaves a frame as the hook client would.
fn put(home: &Path, id: Uuid, payload: &[u8]) {
    let mut header = FrameHeader::new(id, 1_790_000_000_000, payload.len() as u64);
    header.app = Some("demo".to_owned());
    header.user = Some("someone".to_owned());
    header.hook_wall_us = Some(900);
    let head = encode_head(&header, &[payload]).unwrap();
    append(home, id, &head, &[payload], NO_LIMIT).unwrap();
}

fn drained(server: &Server) -> bool {
    SpoolDir::look(server.dir()).backlog().unwrap().frames == 0
}

#[test]
fn what_waited_for_the_server_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<Uuid> = (0..2_500).map(|_| Uuid::now_v7()).collect();
    for (n, id) in ids.iter().enumerate() {
        put(dir.path(), *id, prompt("s", &format!("number {n}")).as_bytes());
    }
    let server = Server::start_in(dir.path());
    eventually("an empty spool", || drained(&server));
    assert_eq!(server.stored(), 2_500);
    server.stop();

    // As after a crash between commit and unlink.
    for (n, id) in ids.iter().take(100).enumerate() {
        put(dir.path(), *id, prompt("s", &format!("number {n}")).as_bytes());
    }
    let server = Server::start_in(dir.path());
    eventually("an empty spool", || drained(&server));
    assert_eq!(server.stored(), 2_500);
    let event = &server.get("/api/v1/events?limit=1").json()["items"][0];
    assert_eq!((event["app"].as_str(), event["user"].as_str()), (Some("demo"), Some("someone")));
    assert_eq!(event["metrics"]["hook_wall_us"], 900);
}

#[test]
fn a_poke_drains_at_once_and_without_one_the_clock_does() {
    let server = Server::start();
    std::thread::sleep(std::time::Duration::from_millis(100));
    put(server.dir(), Uuid::now_v7(), prompt("s", "poked").as_bytes());
    UnixDatagram::unbound().unwrap().send_to(&[1], server.dir().join(POKE_SOCKET)).unwrap();
    eventually("the poked event", || server.stored() == 1);
    put(server.dir(), Uuid::now_v7(), prompt("s", "found").as_bytes());
    eventually("the event nobody spoke of", || server.stored() == 2);
    eventually("an empty spool", || drained(&server));
}

#[test]
fn torn_frames_are_set_aside_and_the_rest_goes_in() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), Uuid::now_v7(), prompt("s", "one").as_bytes());
    let torn = Uuid::now_v7();
    put(dir.path(), torn, prompt("s", "two").as_bytes());
    let path = SpoolDir::look(dir.path()).frame_path(torn);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    put(dir.path(), Uuid::now_v7(), b"not json");
    let server = Server::start_in(dir.path());
    eventually("an empty spool", || drained(&server));
    assert_eq!(server.stored(), 2);
    assert_eq!(SpoolDir::look(dir.path()).backlog().unwrap().torn, 1);
    assert_eq!(server.figure("taffrail_spool_torn_total"), 1.0);
    let health = server.get("/api/v1/health").json();
    assert_eq!(health["processing"]["status"], "degraded");
}

#[test]
fn what_the_guard_said_stays_with_the_event() {
    let server = Server::start();
    let payload = br#"{"session_id":"s","hook_event_name":"PreToolUse","tool_name":"Bash","tool_use_id":"t","tool_input":{"command":"rm -rf /"}}"#;
    let id = Uuid::now_v7();
    let mut header = FrameHeader::new(id, 1_790_000_000_000, payload.len() as u64);
    header.verdict = Some(FrameVerdict {
        decision: "deny".to_owned(),
        rule: "recursive-delete".to_owned(),
        reason: "no".to_owned(),
    });
    let head = encode_head(&header, &[payload]).unwrap();
    append(server.dir(), id, &head, &[payload], NO_LIMIT).unwrap();
    eventually("the event", || server.stored() == 1);
    let warnings = server.get("/api/v1/events").json()["items"][0]["warnings"].to_string();
    assert!(warnings.contains("guard.recursive-delete") && warnings.contains("critical"), "{warnings}");
}

#[test]
fn a_question_is_answered_from_memory() {
    let server = Server::start();
    let payload = prompt("s", "may I?");
    let id = Uuid::now_v7();
    let header = FrameHeader::new(id, 1_790_000_000_000, payload.len() as u64);
    let question = encode(&header, payload.as_bytes()).unwrap();
    let mut took: Vec<_> = (0..50)
        .map(|_| {
            let began = std::time::Instant::now();
            assert_eq!(ask(server.dir(), &question).as_deref(), Some("{}"));
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    assert!(took[25] < std::time::Duration::from_millis(25), "half took longer than {:?}", took[25]);
    assert_eq!(ask(server.dir(), b"nonsense"), None, "what is no frame is closed");
    assert_eq!(server.figure("taffrail_hook_answers_total"), 50.0);
}

fn ask(home: &Path, question: &[u8]) -> Option<String> {
    let mut stream = UnixStream::connect(home.join(HOOK_SOCKET)).unwrap();
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    stream.write_all(&u32::try_from(question.len()).unwrap().to_le_bytes()).unwrap();
    stream.write_all(question).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut answer).ok()?;
    String::from_utf8(answer).ok()
}

#[test]
fn a_data_directory_with_a_long_path_has_sockets_too() {
    let own = tempfile::tempdir().unwrap();
    let dir = own.path().join("d".repeat(90)).join("e".repeat(60));
    let server = Server::start_in(&dir);
    assert!(dir.join(HOOK_SOCKET).exists() && dir.join(POKE_SOCKET).exists());
    server.stop();
    assert!(!dir.join(HOOK_SOCKET).exists() && !dir.join(POKE_SOCKET).exists());
}
