//! Transcripts as others see them: followed by a real server, imported by its API, and the same totals whatever the order.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use taffrail_server::transcripts::{self, ImportRequest, Totals};
use taffrail_server::{Config, TranscriptsConfig};
use taffrail_store::{CostQuery, CostTotals, Options, Reader};

use crate::harness::{Server, eventually, shared};

/// A line of one API request.
fn line(session: &str, n: u32) -> String {
    json!({
        "type": "assistant", "uuid": format!("u{n}"), "sessionId": session, "cwd": "/nonexistent/lighthouse",
        "timestamp": format!("2026-03-01T00:{:02}:{:02}.000Z", n / 60 % 60, n % 60), "requestId": format!("req_{n}"),
        "message": {
            "id": format!("msg_{n}"), "type": "message", "role": "assistant", "model": "claude-opus-4-5",
            "content": [{"type": "text", "text": "done"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": n, "output_tokens": 2, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0},
        },
    })
    .to_string()
}

fn lines(session: &str, numbers: impl IntoIterator<Item = u32>) -> String {
    numbers.into_iter().map(|n| line(session, n) + "\n").collect()
}

/// A client's folder and a data directory.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("client/projects/-demo")).unwrap();
        Self { dir }
    }

    fn client(&self) -> PathBuf {
        self.dir.path().join("client")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.client().join("projects/-demo").join(name)
    }

    fn config(&self) -> Config {
        let mut config = Config::for_dir(&self.dir.path().join("home"));
        config.transcripts = TranscriptsConfig {
            tail: true,
            archive: false,
            archive_after_hours: 24,
            rescan_seconds: 1,
            roots: vec![self.client()],
        };
        config
    }

    fn serve(&self) -> Server {
        Server::try_start(self.config()).unwrap()
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn requests(&self, session: &str) -> Vec<u64> {
        let reader = Reader::open(&Options::new(self.dir.path().join("home/taffrail.db"))).unwrap();
        let mut inputs: Vec<u64> =
            reader.ledger(session).unwrap().iter().map(|row| row.usage.input).collect();
        inputs.sort_unstable();
        inputs
    }

    #[track_caller]
    fn wait_for(&self, session: &str, numbers: impl IntoIterator<Item = u64>) {
        let expected: Vec<u64> = numbers.into_iter().collect();
        eventually(&format!("{expected:?} of {session}"), || self.requests(session) == expected);
    }
}

fn evidence(server: &Server) -> Value {
    server.get("/api/v1/health").json()["data_ingestion"].clone()
}

#[test]
fn what_is_written_is_in_the_ledger_a_moment_later_wherever_it_appears() {
    let world = World::new();
    world.append("old.jsonl", &lines("old", 1..=50));
    let server = world.serve();
    world.wait_for("old", 1..=50);

    world.append("live.jsonl", &lines("live", 51..=52));
    world.wait_for("live", 51..=52);
    let torn = line("live", 53);
    world.append("live.jsonl", &torn[..40]);
    world.append("old.jsonl", &lines("old", [54]));
    world.wait_for("old", (1..=50).chain([54]));
    assert_eq!(world.requests("live"), [51, 52], "half a line is none");
    world.append("live.jsonl", &torn[40..]);
    world.wait_for("live", 51..=53);

    // Folders that appear with files in them.
    let agents = world.client().join("projects/-new/deep/subagents");
    fs::create_dir_all(&agents).unwrap();
    fs::write(agents.join("agent-a1.jsonl"), lines("deep", [60])).unwrap();
    fs::write(agents.join("agent-a1.meta.json"), r#"{"agentType":"Explore","toolUseId":"toolu_1"}"#).unwrap();
    world.wait_for("deep", [60]);
    eventually("all files counted", || evidence(&server)["evidence"]["transcripts"]["files"] == 4);
    let seen = evidence(&server);
    assert_eq!(seen["evidence"]["transcripts"]["roots"][0]["state"], "watched", "{seen}");
    assert!(server.figure("taffrail_transcript_records") >= 54.0);
    assert!(server.get("/metrics").text().contains("taffrail_transcript_lag_seconds"));
}

#[test]
fn a_file_rotated_truncated_rewritten_or_deleted_while_it_is_followed_loses_and_doubles_nothing() {
    let world = World::new();
    let server = world.serve();
    let path = world.path("s.jsonl");
    world.append("s.jsonl", &lines("s", 1..=5));
    world.wait_for("s", 1..=5);

    fs::rename(&path, world.path("s.jsonl.1")).unwrap();
    world.append("s.jsonl", &lines("s", 6..=7));
    world.wait_for("s", 1..=7);

    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    world.append("s.jsonl", &lines("s", 8..=8));
    world.wait_for("s", 1..=8);

    let other = world.path("s.tmp");
    fs::write(&other, lines("s", [8, 2, 9])).unwrap();
    fs::rename(&other, &path).unwrap();
    world.wait_for("s", 1..=9);

    fs::remove_file(&path).unwrap();
    let home = world.dir.path().join("home/taffrail.db");
    let gone = || {
        let reader = Reader::open(&Options::new(&home)).unwrap();
        reader.transcript_file(&path).unwrap().is_some_and(|file| file.gone.is_some())
    };
    eventually("the file noted as gone", gone);
    assert_eq!(world.requests("s"), (1..=9).collect::<Vec<u64>>());

    // There again, while nobody looks.
    server.stop();
    world.append("s.jsonl", &lines("s", 3..=10));
    let _server = world.serve();
    world.wait_for("s", 1..=10);
    eventually("the file noted as there", || !gone());
}

#[test]
fn a_clock_that_runs_backwards_hides_nothing() {
    let world = World::new();
    let _server = world.serve();
    let path = world.path("s.jsonl");
    for n in 1..=5u32 {
        world.append("s.jsonl", &lines("s", [n]));
        let at =
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(2_000_000_000 - u64::from(n) * 86_400);
        File::options().append(true).open(&path).unwrap().set_modified(at).unwrap();
        world.wait_for("s", 1..=n.into());
    }
}

#[test]
fn a_root_that_comes_later_is_followed_and_a_missing_one_is_said() {
    let world = World::new();
    let aside = world.dir.path().join("aside");
    fs::rename(world.client(), &aside).unwrap();
    let server = world.serve();
    let state = || evidence(&server)["evidence"]["transcripts"]["roots"][0]["state"].clone();
    eventually("a missing root", || state() == "missing");
    assert_eq!(evidence(&server)["status"], "ok");
    fs::rename(&aside, world.client()).unwrap();
    world.append("s.jsonl", &lines("s", [1]));
    world.wait_for("s", [1]);
    eventually("a watched root", || state() == "watched");

    // Another folder in its place.
    fs::rename(world.client(), &aside).unwrap();
    fs::create_dir_all(world.client().join("projects/-demo")).unwrap();
    world.append("t.jsonl", &lines("t", [2]));
    world.wait_for("t", [2]);
    world.append("t.jsonl", &lines("t", [3]));
    world.wait_for("t", [2, 3]);
    assert_eq!(world.requests("s"), [1]);
}

#[test]
#[cfg(unix)]
fn an_unreadable_file_is_named_and_read_once_it_can_be() {
    let world = World::new();
    std::os::unix::fs::symlink("s.jsonl", world.path("s.jsonl")).unwrap();
    let server = world.serve();
    eventually("the file named", || evidence(&server)["status"] == "degraded");
    let seen = evidence(&server);
    assert!(seen["detail"].as_str().unwrap().contains("s.jsonl"), "{seen}");
    assert_eq!(seen["evidence"]["transcripts"]["unreadable_files"], 1, "{seen}");
    fs::remove_file(world.path("s.jsonl")).unwrap();
    world.append("s.jsonl", &lines("s", [1]));
    world.wait_for("s", [1]);
    eventually("all well", || evidence(&server)["status"] == "ok");
}

#[test]
#[cfg(unix)]
fn a_file_that_may_not_be_read_is_named_and_read_once_it_may() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.append("s.jsonl", &lines("s", [1]));
    let allow = |mode| fs::set_permissions(world.path("s.jsonl"), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    if File::open(world.path("s.jsonl")).is_ok() {
        eprintln!("SKIPPED: this user may read everything");
        return;
    }
    let server = world.serve();
    eventually("the file named", || evidence(&server)["status"] == "degraded");
    allow(0o600);
    world.wait_for("s", [1]);
    eventually("all well", || evidence(&server)["status"] == "ok");
}

#[test]
fn with_the_tail_off_nothing_is_read() {
    let world = World::new();
    world.append("s.jsonl", &lines("s", [1]));
    let mut config = world.config();
    config.transcripts.tail = false;
    let server = Server::try_start(config).unwrap();
    // An import of another file shows that time has passed and the way is open.
    let elsewhere = world.dir.path().join("elsewhere.txt");
    fs::write(&elsewhere, lines("t", [2])).unwrap();
    import_by_api(&server, &json!({"paths": [elsewhere]}));
    assert_eq!((world.requests("t"), world.requests("s")), (vec![2], vec![]));
    // The client's folders, asked for.
    let totals = import_by_api(&server, &json!({}));
    assert_eq!((totals.files, totals.requests_new), (1, 1));
}

/// Imports by the API and gives the totals.
#[track_caller]
fn import_by_api(server: &Server, request: &Value) -> Totals {
    let answer =
        server.request("POST", "/api/v1/imports/transcripts").token().body(request.to_string()).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = unchunked(&answer.text());
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(text.lines().count() >= 2, "progress comes first: {text}");
    serde_json::from_value(last["totals"].clone()).unwrap()
}

/// The lines of JSON of a chunked answer.
fn unchunked(text: &str) -> String {
    text.lines().filter(|line| line.starts_with('{')).map(|line| format!("{line}\n")).collect()
}

#[test]
fn an_import_by_the_api_tells_how_far_it_is_and_what_failed() {
    let world = World::new();
    let server = world.serve();
    let folder = world.dir.path().join("copies");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("one.json"), format!("[{},\n{}]", line("s", 1), line("s", 2))).unwrap();
    fs::write(folder.join("two.jsonl"), format!("{}no json\n{}", lines("s", [2]), line("s", 3))).unwrap();
    let absent = folder.join("absent.jsonl");
    let request = json!({"paths": [folder, absent], "app": "told"});
    let totals = import_by_api(&server, &request);
    assert_eq!((totals.files, totals.records, totals.bad, totals.sessions), (2, 4, 1, 1), "{totals:?}");
    assert_eq!((totals.requests_new, totals.failed), (3, 1), "{totals:?}");
    assert_eq!(totals.errors[0].path, absent);
    let again = import_by_api(&server, &request);
    assert_eq!((again.unchanged, again.bytes, again.requests_new, again.requests_changed), (2, 0, 0, 0));
    assert_eq!(world.requests("s"), [1, 2, 3]);
    let reader = Reader::open(&Options::new(world.dir.path().join("home/taffrail.db"))).unwrap();
    assert_eq!(reader.ledger("s").unwrap()[0].app, "told");
}

#[test]
fn imports_at_once_wait_for_each_other_and_the_second_finds_nothing_new() {
    let world = World::new();
    let server = world.serve();
    let folder = world.dir.path().join("copies");
    fs::create_dir_all(&folder).unwrap();
    for n in 0..20 {
        fs::write(folder.join(format!("{n}.jsonl")), lines("s", n * 50..(n + 1) * 50)).unwrap();
    }
    let request = json!({"paths": [folder]});
    let new: Vec<u64> = std::thread::scope(|scope| {
        let imports: Vec<_> =
            (0..24).map(|_| scope.spawn(|| import_by_api(&server, &request).requests_new)).collect();
        imports.into_iter().map(|import| import.join().unwrap()).collect()
    });
    assert_eq!((new.iter().sum::<u64>(), new.iter().filter(|n| **n > 0).count()), (1_000, 1), "{new:?}");
    assert_eq!(world.requests("s").len(), 1_000);
}

#[test]
fn an_import_needs_the_token_and_absolute_paths() {
    let server = Server::start();
    let path = "/api/v1/imports/transcripts";
    assert_eq!(server.post(path, "{}").problem(), "unauthorized");
    for bad in [r#"{"paths":["relative"]}"#, r#"{"path":["/x"]}"#, "no json"] {
        assert_eq!(server.request("POST", path).token().body(bad).send().problem(), "bad_request", "{bad}");
    }
}

/// Imports into a data directory without a server.
fn import(home: &Path, path: &Path) -> Totals {
    let request = ImportRequest { paths: vec![path.to_owned()], ..ImportRequest::default() };
    let totals = transcripts::import(&Config::for_dir(home), &request, &mut |_| {}).unwrap();
    assert_eq!(totals.failed, 0, "{totals:?}");
    totals
}

fn sums(home: &Path) -> CostTotals {
    let reader = Reader::open(&Options::new(home.join("taffrail.db"))).unwrap();
    let rows = reader.costs(&CostQuery::default()).unwrap();
    rows.iter().fold(CostTotals::default(), |mut sum, row| {
        sum.add(&row.totals);
        sum
    })
}

/// Every order of the versions, each told by its number.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let with = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(move |at| with(order, at))).collect()
}

/// The totals of these files in this order, each in its own path or all in one.
fn totals_of(versions: &[PathBuf], order: &[usize], in_one_path: bool) -> CostTotals {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    for &version in order {
        let name = if in_one_path { "s.jsonl".to_owned() } else { format!("v{version}.jsonl") };
        let path = dir.path().join(name);
        fs::copy(&versions[version], &path).unwrap();
        import(&home, &path);
    }
    sums(&home)
}

/// Sessions of the shared data with their versions, and whether the last version holds all that came before.
const GROWN: [(&str, bool); 3] = [
    ("bd9318a3-e9c5-457f-853d-3e1b3f3e4f49", true),
    ("cc432c40-914a-4c1a-a972-0103199a736a", true),
    ("be437104-4a61-49d9-b754-592ad3e357ce", false),
];
/// Orders tried of each session: all of the short ones, the first of the long.
const ORDERS_MAX: usize = 8;

#[test]
fn versions_of_a_file_in_any_order_give_the_totals_of_the_last_or_of_their_union() {
    let Some(shared) = shared() else { return };
    for (session, grows) in GROWN {
        let folder = shared.join("data/claude-transcripts/entireio-cli-growth").join(session);
        let mut versions: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        versions.sort();
        let last = totals_of(&versions, &[versions.len() - 1], true);
        let each: i64 = (0..versions.len()).map(|v| totals_of(&versions, &[v], true).requests).sum();
        assert!(last.requests > 0, "{session}");
        let mut all_orders = orders(versions.len());
        // Spread over all of them.
        let step = all_orders.len().div_ceil(ORDERS_MAX);
        all_orders = all_orders.into_iter().step_by(step).collect();
        let mut union = None;
        for order in all_orders {
            let twice: Vec<usize> = order.iter().chain(&order).copied().collect();
            for (order, in_one_path) in [(&order, true), (&order, false), (&twice, true), (&twice, false)] {
                let totals = totals_of(&versions, order, in_one_path);
                if grows {
                    assert_eq!(totals, last, "{session} {order:?} {in_one_path}");
                } else {
                    assert_eq!(totals.requests, each, "disjoint slices: {session} {order:?} {in_one_path}");
                    assert_eq!(totals, *union.get_or_insert(totals), "{session} {order:?} {in_one_path}");
                }
            }
        }
    }
}

#[test]
fn every_shared_transcript_goes_in_and_a_second_time_nothing_is_opened() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = shared.join("data/claude-transcripts");
    let first = import(dir.path(), &folder);
    assert!(first.files > 80 && first.requests_new > 1_000, "{first:?}");
    let before = sums(dir.path());
    let second = import(dir.path(), &folder);
    assert_eq!((second.unchanged, second.bytes, second.requests_new), (first.files, 0, 0));
    assert_eq!(sums(dir.path()), before);
}
