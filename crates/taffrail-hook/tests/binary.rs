//! The real binary, as the agent starts it.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use taffrail_event::frame::Frame;
use taffrail_hook::spool::SpoolDir;
use tempfile::TempDir;

const SESSION: &str = "5e14197a-2d3d-4797-a267-37071f474da3";

/// A data directory of its own and the hook binary in it.
struct Hook {
    home: TempDir,
}

impl Hook {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taffrail-hook"));
        command
            .env_clear()
            .env("TAFFRAIL_HOME", self.home.path())
            .env("HOME", "/home/user")
            .env("USER", "user");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, payload: &[u8]) -> Output {
        run(self.command(), payload)
    }

    fn frames(&self) -> Vec<Frame> {
        let spool = SpoolDir::look(self.home.path());
        let pending = spool.pending().unwrap();
        pending.iter().map(|path| spool.read(path).unwrap()).collect()
    }

    fn only_frame(&self) -> Frame {
        let mut frames = self.frames();
        assert_eq!(frames.len(), 1);
        frames.remove(0)
    }
}

fn run(mut command: Command, payload: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let payload = payload.to_vec();
    // A hook that is turned off leaves before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(&payload));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

fn event(name: &str) -> Vec<u8> {
    format!(r#"{{"session_id":"{SESSION}","cwd":"/home/user/project","hook_event_name":"{name}"}}"#)
        .into_bytes()
}

fn bash(command: &str) -> Vec<u8> {
    let input = serde_json::json!({"session_id": SESSION, "cwd": "/home/user/project",
        "hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": command}});
    input.to_string().into_bytes()
}

#[track_caller]
fn assert_silent(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

fn said(output: &Output) -> (String, String) {
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |pointer: &str| answer.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    assert_eq!(text("/hookSpecificOutput/hookEventName"), "PreToolUse");
    (text("/hookSpecificOutput/permissionDecision"), text("/hookSpecificOutput/permissionDecisionReason"))
}

#[test]
fn every_event_is_recorded_and_nothing_said() {
    let names = "SessionStart Setup UserPromptSubmit UserPromptExpansion PreToolUse PermissionRequest \
        PermissionDenied PostToolUse PostToolUseFailure PostToolBatch Notification MessageDisplay SubagentStart \
        SubagentStop TaskCreated TaskCompleted Stop StopFailure TeammateIdle InstructionsLoaded ConfigChange \
        CwdChanged DirectoryAdded FileChanged WorktreeCreate WorktreeRemove PreCompact PostCompact Elicitation \
        ElicitationResult SessionEnd SomethingNew";
    for name in names.split_whitespace() {
        let hook = Hook::new();
        let mut command = hook.command();
        command.env("TAFFRAIL_APP", "my-app").env("ANTHROPIC_API_KEY", "never-recorded");
        assert_silent(&run(command, &event(name)));
        let frame = hook.only_frame();
        assert_eq!(frame.payload, event(name));
        let header = frame.header;
        assert_eq!(header.hook_event_name.as_deref(), Some(name));
        assert_eq!((header.source.as_str(), header.app.as_deref()), ("hook", Some("my-app")));
        assert_eq!(header.user.as_deref(), Some("user"));
        assert_eq!(header.client_pid, Some(std::process::id()));
        assert_eq!(header.event_id.get_version_num(), 7);
        assert_eq!(header.payload_bytes, event(name).len() as u64);
        assert!(header.hook_wall_us.is_some() && header.host.is_some() && header.captured_ms > 0);
        assert!(header.verdict.is_none() && !header.truncated);
        let file = SpoolDir::look(hook.home.path()).pending().unwrap().remove(0);
        assert!(!String::from_utf8_lossy(&fs::read(file).unwrap()).contains("never-recorded"));
    }
}

#[test]
fn a_deny_is_said_twice_and_recorded() {
    let hook = Hook::new();
    let output = hook.run(&bash("cd x && sudo rm -rf /"));
    assert_eq!(output.status.code(), Some(2));
    let (decision, reason) = said(&output);
    assert_eq!(decision, "deny");
    assert_eq!(String::from_utf8(output.stderr).unwrap().trim_end(), reason);
    let verdict = hook.only_frame().header.verdict.unwrap();
    assert_eq!((verdict.decision.as_str(), verdict.rule.as_str()), ("deny", "recursive-delete"));
    assert_eq!(verdict.reason, reason);
}

#[test]
fn an_ask_is_said_once_with_exit_code_zero() {
    let hook = Hook::new();
    let output = hook.run(&bash("rm -rf / 'unterminated"));
    assert_eq!((output.status.code(), said(&output).0.as_str()), (Some(0), "ask"));
    assert!(output.stderr.is_empty());
    assert_eq!(hook.only_frame().header.verdict.unwrap().decision, "ask");
}

#[test]
fn a_warning_is_recorded_but_not_said() {
    let hook = Hook::new();
    assert_silent(&hook.run(&bash("rm -rf ./*")));
    assert_eq!(hook.only_frame().header.verdict.unwrap().decision, "warn");
}

#[test]
fn only_calls_that_have_not_run_are_judged() {
    let hook = Hook::new();
    let after = String::from_utf8(bash("rm -rf /")).unwrap().replace("PreToolUse", "PostToolUse");
    assert_silent(&hook.run(after.as_bytes()));
    assert!(hook.only_frame().header.verdict.is_none());
}

#[test]
fn the_recorders_own_data_is_guarded() {
    let hook = Hook::new();
    let output = hook.run(&bash(&format!("rm -rf {}", hook.home.path().display())));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn sixteen_at_once_say_what_one_alone_says() {
    let commands =
        ["rm -rf /", "ls", "rm -rf ../sibling", "rm -rf node_modules", "echo 'rm -rf /'", "rm -rf ~"];
    let alone: Vec<(Option<i32>, Vec<u8>)> = commands
        .iter()
        .map(|command| Hook::new().run(&bash(command)))
        .map(|output| (output.status.code(), output.stdout))
        .collect();
    let hook = Hook::new();
    let run_nth = |n: usize| hook.run(&bash(commands[n % commands.len()]));
    for _ in 0..6 {
        let together: Vec<Output> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..16)
                .map(|n| {
                    scope.spawn({
                        let run_nth = &run_nth;
                        move || run_nth(n)
                    })
                })
                .collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (n, output) in together.into_iter().enumerate() {
            assert_eq!((output.status.code(), output.stdout), alone[n % commands.len()]);
        }
    }
    assert_eq!(hook.frames().len(), 96);
}

#[test]
fn whatever_comes_in_is_recorded_as_it_is() {
    let deep = format!(r#"{{"hook_event_name":"Stop","x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    let invalid = b"{\"hook_event_name\":\"PostToolUse\",\"x\":\"\xff\xfe\"}";
    let nul = b"{\"hook_event_name\":\"PostToolUse\",\"x\":\"\0\"}";
    let cases: [&[u8]; 7] = [b"", b"not json", b"[1,2]", b"{\"half\":", invalid, nul, deep.as_bytes()];
    for payload in cases {
        let hook = Hook::new();
        assert_silent(&hook.run(payload));
        assert_eq!(hook.only_frame().payload, payload);
    }
}

#[test]
fn the_event_of_the_command_line_helps_where_the_payload_does_not() {
    let hook = Hook::new();
    let mut command = hook.command();
    command.arg("SessionStart");
    assert_silent(&run(command, b"broken"));
    assert_eq!(hook.only_frame().header.hook_event_name.as_deref(), Some("SessionStart"));
}

#[test]
fn a_destructive_command_in_a_broken_payload_is_asked_about() {
    let hook = Hook::new();
    let mut broken = bash("rm -rf / #");
    broken.truncate(broken.len() - 3);
    let output = hook.run(&broken);
    assert_eq!((output.status.code(), said(&output).0.as_str()), (Some(0), "ask"));
    let mut invalid = bash("rm -rf /");
    invalid.splice(2..2, *b"\xff\":1,\"");
    assert_eq!(said(&hook.run(&invalid)).0, "ask");
}

#[test]
fn six_megabytes_are_kept_whole() {
    let hook = Hook::new();
    let payload = format!(r#"{{"hook_event_name":"PostToolUse","x":"{}"}}"#, "é".repeat(3_000_000));
    assert_silent(&hook.run(payload.as_bytes()));
    let frame = hook.only_frame();
    assert!(frame.payload == payload.as_bytes());
    assert!(!frame.header.truncated);
}

#[test]
fn more_than_the_limit_keeps_head_tail_size_and_hash() {
    let hook = Hook::new();
    let filler = "x".repeat(20_000_000);
    let payload = format!(r#"{{"hook_event_name":"PostToolUse","x":"{filler}","tool_use_id":"t"}}"#);
    assert_silent(&hook.run(payload.as_bytes()));
    let frame = hook.only_frame();
    assert_eq!(frame.header.hook_event_name.as_deref(), Some("PostToolUse"));
    assert!(frame.header.truncated && frame.header.payload_sha256.is_some());
    assert_eq!(frame.header.payload_bytes, payload.len() as u64);
    let head = usize::try_from(frame.header.payload_head_bytes.unwrap()).unwrap();
    assert!(payload.as_bytes().starts_with(&frame.payload[..head]));
    assert!(payload.as_bytes().ends_with(&frame.payload[head..]));
    assert!(frame.payload.ends_with(b"\"tool_use_id\":\"t\"}"));
}

#[test]
fn turned_off_it_does_nothing() {
    let hook = Hook::new();
    let mut command = hook.command();
    command.env("TAFFRAIL_DISABLE", "1");
    assert_silent(&run(command, &bash("rm -rf /")));
    assert_eq!(fs::read_dir(hook.home.path()).unwrap().count(), 0);
}

#[test]
fn it_tells_its_version_without_waiting_for_input() {
    let hook = Hook::new();
    let mut command = hook.command();
    let output = command.arg("--version").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.stdout, concat!("taffrail-hook ", env!("CARGO_PKG_VERSION"), "\n").as_bytes());
    assert!(fs::read_dir(hook.home.path()).unwrap().next().is_none());
}

#[test]
fn without_any_directory_it_still_guards() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taffrail-hook"));
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    assert_eq!(run(command, &bash("rm -rf /")).status.code(), Some(2));
}

#[test]
fn an_unwritable_spool_is_not_the_agents_problem() {
    let hook = Hook::new();
    fs::write(hook.home.path().join("spool"), b"a file in the directory's place").unwrap();
    assert_silent(&hook.run(&event("Stop")));
    assert_silent(&hook.run(&bash("ls")));
    assert_eq!(hook.run(&bash("rm -rf /")).status.code(), Some(2));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_counted_and_leaves_nothing_half_written() {
    // Files of this process may not grow beyond 256 KiB: what a full disk does to a large frame, without one.
    let hook = Hook::new();
    assert_silent(&hook.run(&event("SessionStart")));
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_taffrail-hook")]);
    command.env_clear().env("TAFFRAIL_HOME", hook.home.path()).env("PATH", "/usr/bin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    assert_silent(&run(command, format!("{{\"x\":\"{}\"}}", "y".repeat(1_000_000)).as_bytes()));
    let backlog = SpoolDir::look(hook.home.path()).backlog().unwrap();
    assert_eq!((backlog.frames, backlog.unfinished, backlog.dropped), (1, 0, 1));
}

#[test]
fn the_bound_is_kept_and_drops_are_counted() {
    let hook = Hook::new();
    let limited = || {
        let mut command = hook.command();
        command.env("TAFFRAIL_SPOOL_LIMIT_BYTES", "8192");
        command
    };
    for _ in 0..5 {
        assert_silent(&run(limited(), &event("Stop")));
    }
    assert_eq!(run(limited(), &bash("rm -rf /")).status.code(), Some(2), "the guard needs no spool");
    let backlog = SpoolDir::look(hook.home.path()).backlog().unwrap();
    assert_eq!((backlog.frames, backlog.dropped, backlog.full), (2, 4, true));
}

#[test]
#[cfg(unix)]
fn killed_before_it_is_done_it_leaves_nothing_that_looks_whole() {
    // The child waits for the rest of its input when it dies; other points are the fault campaign's.
    let hook = Hook::new();
    for _ in 0..20 {
        let mut child = hook.command().spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"{\"hook_event_name\":").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut names = Vec::new();
    if let Ok(entries) = fs::read_dir(hook.home.path().join("spool")) {
        names.extend(entries.map(|entry| entry.unwrap().file_name()));
    }
    assert!(names.iter().all(|name| Path::new(name).extension().is_none_or(|x| x != "frame")), "{names:?}");
}

#[cfg(unix)]
mod with_a_server {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use taffrail_event::frame;

    /// Reads one question and returns its frame.
    fn question(stream: &mut UnixStream) -> Frame {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut bytes).unwrap();
        frame::decode(&bytes).unwrap()
    }

    fn answer(stream: &mut UnixStream, body: &[u8]) {
        stream.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).unwrap();
        stream.write_all(body).unwrap();
    }

    /// Runs one hook against a server that gives one answer; returns the hook's output and the question.
    fn ask(hook: &Hook, payload: &[u8], body: &'static [u8]) -> (Output, Frame) {
        let listener = UnixListener::bind(hook.home.path().join("hook.sock")).unwrap();
        let spool = SpoolDir::look(hook.home.path());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let asked = question(&mut stream);
            assert!(spool.frame_path(asked.header.event_id).exists(), "the frame comes before the question");
            answer(&mut stream, body);
            asked
        });
        let mut command = hook.command();
        // A loaded machine must not turn an answer into none here.
        command.env("TAFFRAIL_HOOK_BUDGET_MS", "60000");
        let output = run(command, payload);
        fs::remove_file(hook.home.path().join("hook.sock")).unwrap();
        (output, server.join().unwrap())
    }

    #[test]
    fn an_answer_is_printed_as_it_is() {
        for name in taffrail_hook::ANSWERED_EVENTS {
            let hook = Hook::new();
            let (output, asked) = ask(&hook, &event(name), br#"{"systemMessage": "paused"}"#);
            assert_eq!(output.stdout, br#"{"systemMessage": "paused"}"#, "{name}");
            assert_eq!(output.status.code(), Some(0));
            assert_eq!(asked, hook.only_frame(), "the question is the frame");
        }
    }

    #[test]
    fn no_opinion_and_nonsense_print_nothing() {
        for body in [b"".as_slice(), b"{}", b"plain text", b"[1]", b"{\"half\":", b"\xff\xff"] {
            assert_silent(&ask(&Hook::new(), &event("Stop"), body).0);
        }
    }

    #[test]
    fn a_large_payload_is_named_not_sent() {
        let hook = Hook::new();
        let payload = format!(r#"{{"hook_event_name":"PreToolUse","x":"{}"}}"#, "y".repeat(300_000));
        let (output, asked) = ask(&hook, payload.as_bytes(), b"{}");
        assert_silent(&output);
        assert!(asked.header.truncated && asked.payload.is_empty());
        assert_eq!(asked.header.payload_bytes, payload.len() as u64);
        assert!(!hook.only_frame().header.truncated, "the spool has it whole");
    }

    #[test]
    fn the_server_tightens_an_ask_and_never_lifts_it() {
        let deny = br#"{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"deny"}}"#;
        let output = ask(&Hook::new(), &bash("rm -rf ../x"), deny).0;
        assert_eq!(output.stdout, deny);
        let allow = br#"{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"allow"}}"#;
        let output = ask(&Hook::new(), &bash("rm -rf ../x"), allow).0;
        assert_eq!(said(&output).0, "ask");
    }

    #[test]
    fn a_hung_server_costs_the_budget_and_nothing_else() {
        let hook = Hook::new();
        // Accepted by the kernel, never read.
        let _listener = UnixListener::bind(hook.home.path().join("hook.sock")).unwrap();
        assert_silent(&hook.run(&bash("ls")));
        assert_eq!(hook.run(&bash("rm -rf /")).status.code(), Some(2));
        assert_eq!(hook.frames().len(), 2);
    }

    #[test]
    fn a_hung_server_with_a_full_queue_is_left_alone_too() {
        let hook = Hook::new();
        let path = hook.home.path().join("hook.sock");
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        let listener =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None)
                .unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert_silent(&hook.run(&event("PreToolUse")));
        assert_eq!(hook.frames().len(), 1);
    }

    #[test]
    fn a_server_that_hangs_up_is_no_server() {
        let hook = Hook::new();
        let path = hook.home.path().join("hook.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert_silent(&hook.run(&event("Stop")));
        server.join().unwrap();
        assert_silent(&hook.run(&event("Stop")));
        assert_eq!(hook.frames().len(), 2);
    }

    #[test]
    fn other_events_and_denials_only_poke() {
        let hook = Hook::new();
        let poke = UnixDatagram::bind(hook.home.path().join("poke.sock")).unwrap();
        let questions = UnixListener::bind(hook.home.path().join("hook.sock")).unwrap();
        questions.set_nonblocking(true).unwrap();
        for payload in [event("PostToolUse"), event("SessionStart"), bash("rm -rf /")] {
            hook.run(&payload);
            assert_eq!(poke.recv(&mut [0; 8]).unwrap(), 1);
        }
        assert!(questions.accept().is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn paths_longer_than_a_socket_address_work() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("d".repeat(120));
        fs::create_dir(&home).unwrap();
        // Bound through a short name for the same directory.
        let short = root.path().join("s");
        std::os::unix::fs::symlink(&home, &short).unwrap();
        let poke = UnixDatagram::bind(short.join("poke.sock")).unwrap();
        let hook = Hook::new();
        let mut command = hook.command();
        command.env("TAFFRAIL_HOME", &home);
        assert_silent(&run(command, &event("PostToolUse")));
        assert_eq!(poke.recv(&mut [0; 8]).unwrap(), 1);
    }
}
