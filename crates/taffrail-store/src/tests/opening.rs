//! Opening, refusing, migrating, dying.

use rusqlite::Connection;

use super::*;
use crate::{MigrateError, OpenError, Reader, migrate};

fn schema(conn: &Connection) -> Vec<String> {
    let mut statement =
        conn.prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn open_err(options: &Options) -> OpenError {
    Store::open(options).err().expect("it must be refused")
}

#[test]
fn up_down_up_leaves_the_same_schema() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("taffrail.db");
    assert_eq!(migrate::status(&path).unwrap().current, 0);
    let up = migrate::up(&path).unwrap();
    assert_eq!((up.current, up.known), (migrate::KNOWN, migrate::KNOWN));
    assert!(up.steps.iter().all(|step| step.applied_ms.is_some()));
    let first = schema(&Connection::open(&path).unwrap());
    let down = migrate::down(&path, 0).unwrap();
    assert_eq!(down.current, 0);
    assert!(down.steps.iter().all(|step| step.applied_ms.is_none()));
    assert_eq!(schema(&Connection::open(&path).unwrap()).len(), 1, "only the log of migrations is left");
    migrate::up(&path).unwrap();
    assert_eq!(schema(&Connection::open(&path).unwrap()), first);
    assert!(matches!(migrate::down(&path, 99), Err(MigrateError::UnknownVersion { asked: 99, .. })));
}

#[test]
fn a_database_of_schema_1_keeps_its_data_and_goes_back_with_it() {
    use super::ledger::{chunk, line};
    let bed = Bed::new();
    bed.store.append((0..50).map(prompt).collect()).unwrap();
    bed.store.record_transcripts(vec![chunk(vec![line("only in a transcript", 0, 1, 0)])]).unwrap();
    let Bed { dir, store } = bed;
    drop(store);
    let path = dir.path().join("taffrail.db");
    migrate::down(&path, 1).unwrap();
    let conn = Connection::open(&path).unwrap();
    let count = |table: &str| -> i64 {
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("events"), count("payloads"), count("sessions"), count("agents")), (50, 50, 1, 1));
    let v1 = {
        let other = TempDir::new().unwrap();
        let path = other.path().join("taffrail.db");
        migrate::up(&path).unwrap();
        migrate::down(&path, 0).unwrap();
        let fresh = Connection::open(&path).unwrap();
        fresh.execute_batch(include_str!("../migrations/0001_first.up.sql")).unwrap();
        schema(&fresh).len()
    };
    assert_eq!(schema(&conn).len(), v1, "nothing of the ledger is left");
    drop(conn);
    assert!(matches!(Reader::open(&options(&dir)), Err(OpenError::Other { .. })));
    let store = Store::open(&options(&dir)).unwrap();
    let reader = store.reader().unwrap();
    assert_eq!((reader.size().unwrap().events, reader.size().unwrap().schema_version), (50, migrate::KNOWN));
    assert_eq!(reader.session("s").unwrap().unwrap().prompts, 50);
    assert!(reader.costs(&crate::CostQuery::default()).unwrap().is_empty());
    store.record_transcripts(vec![chunk(vec![line("s", 0, 1, 0)])]).unwrap();
    assert_eq!(reader.ledger("s").unwrap()[0].app, "app");
}

#[test]
fn a_migration_that_dies_has_not_happened_and_is_done_at_the_next_opening() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("taffrail.db");
    {
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "BEGIN IMMEDIATE; CREATE TABLE events (id INTEGER PRIMARY KEY); PRAGMA user_version = 1;",
        )
        .unwrap();
        // Dropped in the middle of the transaction, as by kill -9.
    }
    assert_eq!(migrate::status(&path).unwrap().current, 0);
    let store = Store::open(&options(&dir)).unwrap();
    store.append(vec![prompt(0)]).unwrap();
}

#[test]
fn a_newer_database_is_refused_unharmed() {
    let bed = Bed::new();
    bed.store.append(vec![prompt(0)]).unwrap();
    let Bed { dir, store } = bed;
    drop(store);
    let path = dir.path().join("taffrail.db");
    for newer in [migrate::KNOWN + 1, 99] {
        Connection::open(&path).unwrap().pragma_update(None, "user_version", newer).unwrap();
        let before = std::fs::read(&path).unwrap();
        let refused = open_err(&options(&dir));
        let is_told = matches!(refused, OpenError::Newer { found, known: migrate::KNOWN } if found == newer);
        assert!(is_told, "{refused}");
        assert!(refused.to_string().contains("hint:"));
        assert!(matches!(Reader::open(&options(&dir)), Err(OpenError::Newer { .. })));
        assert!(migrate::up(&path).is_err() && migrate::down(&path, 0).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

/// A database of schema 1 with one event, and its path.
fn database_of_schema_1(dir: &TempDir) -> std::path::PathBuf {
    let store = Store::open(&options(dir)).unwrap();
    let mut event = prompt(0);
    event.metrics.output_bytes = Some(7);
    store.append(vec![event]).unwrap();
    drop(store);
    let path = dir.path().join("taffrail.db");
    migrate::down(&path, 1).unwrap();
    path
}

#[test]
fn the_ledgers_migration_dies_anywhere_and_has_not_happened() {
    let dir = TempDir::new().unwrap();
    let path = database_of_schema_1(&dir);
    let before = schema(&Connection::open(&path).unwrap());
    let statements: Vec<&str> =
        include_str!("../migrations/0002_ledger.up.sql").split_inclusive(";\n").collect();
    assert!(statements.len() > 20);
    for done in 1..=statements.len() {
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        conn.execute_batch(&statements[..done].concat()).unwrap();
        // Dropped in the middle of the transaction, as by kill -9.
        drop(conn);
        assert_eq!(migrate::status(&path).unwrap().current, 1, "after {done} statements");
    }
    assert_eq!(schema(&Connection::open(&path).unwrap()), before);
    let store = Store::open(&options(&dir)).unwrap();
    assert_eq!(store.reader().unwrap().recent(9).unwrap().len(), 1);
    assert_eq!(store.reader().unwrap().size().unwrap().schema_version, migrate::KNOWN);
}

#[test]
fn a_migration_that_fails_in_its_middle_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let path = database_of_schema_1(&dir);
    let before = {
        let conn = Connection::open(&path).unwrap();
        // The last table of the step is somebody else's.
        conn.execute_batch("CREATE TABLE ledger_settings (mine)").unwrap();
        schema(&conn)
    };
    let refused = migrate::up(&path).unwrap_err();
    assert!(matches!(refused, MigrateError::Step { version: 2, name: "ledger", .. }), "{refused}");
    open_err(&options(&dir));
    assert_eq!(migrate::status(&path).unwrap().current, 1);
    let conn = Connection::open(&path).unwrap();
    assert_eq!(schema(&conn), before);
    conn.execute_batch("DROP TABLE ledger_settings").unwrap();
    drop(conn);
    assert_eq!(migrate::up(&path).unwrap().current, migrate::KNOWN);
}

#[test]
fn the_ledger_comes_to_a_large_database_without_writing_it_anew() {
    const EVENTS: i64 = 100_000;
    let dir = TempDir::new().unwrap();
    let path = database_of_schema_1(&dir);
    let conn = Connection::open(&path).unwrap();
    for (table, id) in [("events", "id"), ("payloads", "event_id"), ("event_metrics", "event_id")] {
        let columns: Vec<String> = conn
            .prepare("SELECT name FROM pragma_table_info(?1)")
            .unwrap()
            .query_map([table], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let values: Vec<String> = columns
            .iter()
            .map(|column| match column.as_str() {
                column if column == id => format!("{id} + n.n"),
                "dedup_key" => "CAST('key' || n.n AS BLOB)".to_owned(),
                column => column.to_owned(),
            })
            .collect();
        let copy = format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {EVENTS})
                INSERT INTO {table} ({}) SELECT {} FROM {table}, n",
            columns.join(", "),
            values.join(", ")
        );
        assert_eq!(conn.execute(&copy, []).unwrap() as i64, EVENTS - 1);
    }
    let pages =
        |conn: &Connection| -> i64 { conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap() };
    let before = pages(&conn);
    drop(conn);
    let changes = {
        migrate::up(&path).unwrap();
        let conn = Connection::open(&path).unwrap();
        let count: i64 = conn.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
        assert_eq!(count, EVENTS);
        pages(&conn) - before
    };
    // A root for each new table and index, and the schema's own rows.
    assert!(before > 5_000 && (1..100).contains(&changes), "{before} pages, {changes} more");
    let store = Store::open(&options(&dir)).unwrap();
    assert!(store.reader().unwrap().costs(&crate::CostQuery::default()).unwrap().is_empty());
}

#[test]
fn a_damaged_database_is_refused_unharmed() {
    let check = |damage: &dyn Fn(&mut Vec<u8>)| {
        let bed = Bed::new();
        bed.store.append((0..50).map(prompt).collect()).unwrap();
        let Bed { dir, store } = bed;
        drop(store);
        let path = dir.path().join("taffrail.db");
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let refused = open_err(&options(&dir));
        assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
        assert!(refused.to_string().contains("move the file aside"));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    };
    check(&|bytes| *bytes = b"this is no database, whatever it may be called".repeat(10));
    check(&|bytes| bytes.truncate(bytes.len() / 2));
    check(&|bytes| bytes[100..4_096].fill(0xAA));
    check(&|bytes| bytes.truncate(50));
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    let dir = TempDir::new().unwrap();
    let a_directory = Options::new(dir.path());
    assert!(matches!(open_err(&a_directory), OpenError::Unwritable { .. }));
    let nowhere = Options::new(dir.path().join("no/such/place.db"));
    let refused = open_err(&nowhere);
    assert!(matches!(refused, OpenError::Unwritable { .. }) && refused.to_string().contains("hint:"));
    assert!(matches!(Reader::open(&nowhere), Err(OpenError::Unwritable { .. })));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_refused_at_opening_and_survived_at_work() {
    // The kernel's own small file system; it needs the right to mount, which tests run as root in a container often lack.
    let dir = TempDir::new().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!(
            "SKIPPED: a_full_disk_is_refused_at_opening_and_survived_at_work: no right to mount a tmpfs"
        );
        return;
    }
    let outcome = std::panic::catch_unwind(|| full_disk(&dir));
    let unmounted = std::process::Command::new("umount").arg(dir.path()).status();
    assert!(outcome.is_ok() && unmounted.is_ok_and(|status| status.success()));
}

#[cfg(target_os = "linux")]
fn full_disk(dir: &TempDir) {
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![0u8; 900 * 1024]).unwrap();
    let refused = open_err(&options(dir));
    assert!(matches!(refused, OpenError::Full { .. }), "{refused}");
    for file in ["taffrail.db", "taffrail.db-wal", "taffrail.db-shm"] {
        drop(std::fs::remove_file(dir.path().join(file)));
    }
    std::fs::remove_file(&ballast).unwrap();
    let store = Store::open(&options(dir)).unwrap();
    let mut stored = 0;
    let full = loop {
        match store.append((stored..stored + 50).map(prompt).collect()) {
            Ok(appended) => stored += i64::try_from(appended.len()).unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, crate::AppendError::DiskFull(_)), "{full}");
    assert_eq!(
        store.reader().unwrap().size().unwrap().events,
        stored,
        "what was acknowledged is there, and no more"
    );
}

#[test]
fn there_is_one_writer() {
    let bed = Bed::new();
    let refused = open_err(&options(&bed.dir));
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    // Readers may be many.
    bed.store.append(vec![prompt(0)]).unwrap();
    let reader = Reader::open(&options(&bed.dir)).unwrap();
    assert_eq!(reader.recent(10).unwrap().len(), 1);
    let bed = bed.reopen();
    bed.store.append(vec![prompt(1)]).unwrap();
    assert_eq!(reader.recent(10).unwrap().len(), 2);
}

#[test]
fn a_database_held_by_another_program_is_locked() {
    let dir = TempDir::new().unwrap();
    migrate::up(&dir.path().join("taffrail.db")).unwrap();
    let other = Connection::open(dir.path().join("taffrail.db")).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let refused = open_err(&options(&dir));
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
}

#[test]
fn another_programs_database_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("taffrail.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE events (id INTEGER PRIMARY KEY, payload TEXT)")
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = open_err(&options(&dir));
    assert!(refused.to_string().contains("another program"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn the_database_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new();
    bed.store.append(vec![prompt(0)]).unwrap();
    for entry in std::fs::read_dir(bed.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

/// Set for the child of the next test: where it writes.
const CHILD_ENV: &str = "TAFFRAIL_STORE_TEST_CRASH_DB";

#[test]
fn what_was_acknowledged_survives_kill_9() {
    use std::io::{BufRead, BufReader};
    let dir = TempDir::new().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::opening::child_that_appends_until_it_is_killed",
            "--nocapture",
            "--ignored",
        ])
        .env(CHILD_ENV, dir.path().join("taffrail.db"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = 0i64;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Some(count) = line.unwrap().strip_prefix("ack ").and_then(|n| n.parse().ok()) else { continue };
        acknowledged = count;
        if acknowledged >= 700 {
            child.kill().unwrap();
            break;
        }
    }
    child.wait().unwrap();
    assert!(acknowledged >= 700, "the child did not work");
    let store = Store::open(&options(&dir)).unwrap();
    let events = store.reader().unwrap().size().unwrap().events;
    assert!(events >= acknowledged, "{events} of {acknowledged} acknowledged events are there");
    let conn = Connection::open(dir.path().join("taffrail.db")).unwrap();
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    // Row and sums are of one commit.
    let rows: i64 = conn.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, events);
}

#[test]
#[ignore = "the child of what_was_acknowledged_survives_kill_9"]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn child_that_appends_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD_ENV) else { return };
    let store = Store::open(&Options::new(path)).unwrap();
    for batch in 0i64..100_000 {
        store.append((batch * 7..batch * 7 + 7).map(prompt).collect()).unwrap();
        println!("ack {}", (batch + 1) * 7);
    }
}
