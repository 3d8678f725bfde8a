//! What is read back: pages, filters, sessions, timelines, summaries, themes.

use serde_json::json;
use taffrail_analytics::Window;
use taffrail_event::RowId;
use taffrail_event::event::{Fact, FileOperation, FileOperationKind, Issue, Severity, Warning};

use super::*;
use crate::themes::{self, SortOrder, Theme, ThemeQuery, ThemeSort};
use crate::{
    CallFilter, EventFilter, Page, Payloads, Reader, SCAN_ROWS_MAX, Scope, SessionFilter, SessionState,
    StoredEvent, WriteError,
};

const NO_FILTER: EventFilter = EventFilter {
    app: None,
    session: None,
    type_name: None,
    tool: None,
    agent: None,
    q: None,
    from: None,
    to: None,
};

/// Ten seconds apart: prompts, calls of two agents and two sessions, an end.
fn some_life() -> Vec<Event> {
    let mut life = vec![
        event(0, "SessionStart", Fact::SessionStart { start_source: Some("startup".to_owned()) }),
        prompt(10_000),
        pre(20_000, Some("t1"), "Bash"),
        post(30_000, Some("t1"), "Bash", Some(9_000)),
        of_agent(pre(31_000, Some("t2"), "Read"), "a1"),
        of_agent(pre(32_000, Some("t3"), "Grep"), "a1"),
        of_agent(post(40_000, Some("t2"), "Read", Some(8_000)), "a1"),
        of_agent(failure(41_000, Some("t3"), "Grep"), "a1"),
        of_agent(event(50_000, "SubagentStop", Fact::SubagentStop { compaction: false }), "a1"),
        event(60_000, "Stop", Fact::Stop),
        event(70_000, "SessionEnd", Fact::SessionEnd { reason: Some("other".to_owned()) }),
    ];
    let mut other = of_session(prompt(15_000), "s2");
    other.app = "100%_other".to_owned();
    other.user = None;
    other.summary = "Fix the LOGIN page".to_owned();
    other.warnings =
        vec![Warning { rule: "r".to_owned(), severity: Severity::Critical, message: "m".to_owned() }];
    other.issues = vec![Issue::UnknownField("odd".to_owned()), Issue::TooDeep];
    life.push(other);
    life
}

fn lived() -> (Bed, Reader) {
    let bed = Bed::new();
    bed.store.append(some_life()).unwrap();
    let reader = bed.store.reader().unwrap();
    (bed, reader)
}

fn types(page: &[StoredEvent]) -> Vec<&str> {
    page.iter().map(|event| event.type_name.as_str()).collect()
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn pages_follow_each_other_and_end() {
    let (_bed, reader) = lived();
    let mut cursor = None;
    let mut all = Vec::new();
    loop {
        let Page { rows, next } = reader.events(&NO_FILTER, cursor, 5, Payloads::Without).unwrap();
        assert!(rows.len() <= 5);
        all.extend(rows);
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(all.len(), 12);
    assert!(all.windows(2).all(|pair| pair[0].row_id > pair[1].row_id), "newest first");
    let tail = reader.events_after(&NO_FILTER, all[3].row_id, 2, Payloads::Without).unwrap();
    assert_eq!(tail.rows.iter().map(|e| e.row_id).collect::<Vec<_>>(), [all[2].row_id, all[1].row_id]);
    let rest = reader.events_after(&NO_FILTER, tail.next.unwrap(), 9, Payloads::Without).unwrap();
    assert_eq!((rest.rows.len(), rest.next), (1, None));
    assert_eq!(
        reader.recent(3).unwrap().iter().map(|e| e.row_id).collect::<Vec<_>>().last(),
        Some(&all[0].row_id)
    );
}

#[test]
fn every_filter_narrows_and_they_add_up() {
    let (_bed, reader) = lived();
    let check = |filter: EventFilter, expected: &[&str]| {
        let page = reader.events(&filter, None, 100, Payloads::Without).unwrap();
        assert_eq!(types(&page.rows), expected, "{filter:?}");
        assert_eq!(page.next, None);
        let mut upward = reader.events_after(&filter, RowId(0), 100, Payloads::Without).unwrap().rows;
        upward.reverse();
        assert_eq!(types(&upward), expected);
    };
    check(EventFilter { app: some("100%_other"), ..NO_FILTER }, &["UserPromptSubmit"]);
    check(EventFilter { app: some("nowhere"), ..NO_FILTER }, &[]);
    check(EventFilter { session: some("s2"), ..NO_FILTER }, &["UserPromptSubmit"]);
    check(EventFilter { type_name: some("PreToolUse"), ..NO_FILTER }, &["PreToolUse"; 3]);
    check(
        EventFilter { type_name: some("PreToolUse"), app: some("app"), tool: some("Grep"), ..NO_FILTER },
        &["PreToolUse"],
    );
    check(EventFilter { tool: some("Read"), ..NO_FILTER }, &["PostToolUse", "PreToolUse"]);
    check(EventFilter { agent: some("a1"), type_name: some("SubagentStop"), ..NO_FILTER }, &["SubagentStop"]);
    check(EventFilter { agent: some(""), tool: some("Bash"), ..NO_FILTER }, &["PostToolUse", "PreToolUse"]);
    check(EventFilter { q: some("login"), ..NO_FILTER }, &["UserPromptSubmit"]);
    check(EventFilter { q: some("100%_o"), ..NO_FILTER }, &["UserPromptSubmit"]);
    check(EventFilter { q: some("1%o"), ..NO_FILTER }, &[]);
    check(EventFilter { q: some("subagentstop"), ..NO_FILTER }, &["SubagentStop"]);
    let at = |ms| Some(TimestampMs::clamped(T0 + ms));
    check(EventFilter { from: at(60_000), ..NO_FILTER }, &["SessionEnd", "Stop"]);
    check(EventFilter { from: at(15_000), to: at(30_000), ..NO_FILTER }, &["PreToolUse", "UserPromptSubmit"]);
}

#[test]
fn a_text_search_reads_only_so_many_rows_and_goes_on() {
    let bed = Bed::new();
    let mut needle = prompt(0);
    needle.summary = "the needle".to_owned();
    bed.store.append(vec![needle]).unwrap();
    let hay = i64::try_from(SCAN_ROWS_MAX).unwrap() + 10;
    for part in (1..=hay).collect::<Vec<_>>().chunks(1_000) {
        bed.store.append(part.iter().map(|ms| prompt(*ms)).collect()).unwrap();
    }
    let reader = bed.store.reader().unwrap();
    let filter = EventFilter { q: some("needle"), ..NO_FILTER };
    let first = reader.events(&filter, None, 10, Payloads::Without).unwrap();
    assert!(first.rows.is_empty() && first.next.is_some());
    let second = reader.events(&filter, first.next, 10, Payloads::Without).unwrap();
    assert_eq!((second.rows.len(), second.next), (1, None));
}

#[test]
fn filter_options_count_without_a_scan() {
    let (bed, _) = lived();
    let bed = bed.reopen();
    let options = bed.store.reader().unwrap().filter_options().unwrap();
    let pairs =
        |facets: &[crate::Facet]| facets.iter().map(|f| (f.value.clone(), f.count)).collect::<Vec<_>>();
    assert_eq!(pairs(&options.apps), [("100%_other".to_owned(), 1), ("app".to_owned(), 11)]);
    assert_eq!(
        pairs(&options.tools),
        [("Bash".to_owned(), 2), ("Grep".to_owned(), 2), ("Read".to_owned(), 2)]
    );
    assert!(pairs(&options.types).contains(&("UserPromptSubmit".to_owned(), 2)));
    assert_eq!(options.sessions.iter().map(|s| s.session_id.as_str()).collect::<Vec<_>>(), ["s", "s2"]);
}

#[test]
fn what_a_person_should_know_comes_back() {
    let (_bed, reader) = lived();
    let filter = EventFilter { session: some("s2"), ..NO_FILTER };
    let event = reader.events(&filter, None, 1, Payloads::With).unwrap().rows.remove(0);
    assert_eq!((event.warnings[0].severity.as_str(), event.warnings[0].rule.as_str()), ("critical", "r"));
    assert_eq!(
        event.issues,
        [json!({"issue": "unknown_field", "detail": "odd"}), json!({"issue": "too_deep"})]
    );
    assert_eq!((event.source.as_str(), event.user), ("hook", None));
}

#[test]
fn a_session_and_its_agents_are_told_as_they_went() {
    let (bed, reader) = lived();
    let session = reader.session("s").unwrap().unwrap();
    assert_eq!((session.events, session.prompts, session.calls, session.failed_calls), (11, 1, 3, 1));
    assert_eq!((session.subagents, session.start_source.as_deref()), (1, Some("startup")));
    assert_eq!((session.ended.unwrap().get(), session.end_reason.as_deref()), (T0 + 70_000, Some("other")));
    assert_eq!(session.last_prompt.as_deref(), Some("UserPromptSubmit at 10000"));
    assert_eq!(session.state(session.last_event), SessionState::Ended);
    let agents = reader.agents("s").unwrap();
    assert_eq!(agents.iter().map(|a| a.agent_id.as_deref()).collect::<Vec<_>>(), [None, Some("a1")]);
    assert_eq!((agents[1].calls, agents[1].failed_calls, agents[1].events), (2, 1, 5));
    assert_eq!((agents[0].ended.unwrap().get(), agents[1].ended.unwrap().get()), (T0 + 70_000, T0 + 50_000));
    assert!(reader.session("none").unwrap().is_none() && reader.timeline("none").unwrap().is_none());
    // A prompt after the end: it was resumed.
    bed.store.append(vec![prompt(90_000)]).unwrap();
    let session = reader.session("s").unwrap().unwrap();
    assert_eq!((session.ended, session.state(session.last_event)), (None, SessionState::Active));
    assert_eq!(session.state(TimestampMs::clamped(T0 + 90_000 + crate::ACTIVE_MS + 1)), SessionState::Idle);
}

#[test]
fn sessions_page_by_their_newest_event() {
    let bed = Bed::new();
    for n in 0..7 {
        bed.store.append(vec![of_session(prompt(n % 3), &format!("s{n}"))]).unwrap();
    }
    let reader = bed.store.reader().unwrap();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = reader.sessions(&SessionFilter::default(), cursor, 2).unwrap();
        seen.extend(page.rows.into_iter().map(|s| s.session_id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["s5", "s2", "s4", "s1", "s6", "s3", "s0"]);
    let none = SessionFilter { app: some("other"), ..SessionFilter::default() };
    assert!(reader.sessions(&none, None, 9).unwrap().rows.is_empty());
}

#[test]
fn a_timeline_has_calls_with_neighbours_and_marks() {
    let (_bed, reader) = lived();
    let timeline = reader.timeline("s").unwrap().unwrap();
    let chains: Vec<_> = timeline
        .calls
        .iter()
        .map(|c| {
            (
                c.tool_name.as_str(),
                c.tool_chain.previous_tool.as_deref(),
                c.tool_chain.next_tool.as_deref(),
                c.tool_chain.is_parallel,
            )
        })
        .collect();
    assert_eq!(
        chains,
        [("Bash", None, None, false), ("Read", None, Some("Grep"), true), ("Grep", Some("Read"), None, true),]
    );
    assert_eq!(
        types(&timeline.marks),
        ["SessionStart", "UserPromptSubmit", "SubagentStop", "Stop", "SessionEnd"]
    );
    assert_eq!((timeline.agents.len(), timeline.cut), (2, false));
    let failed = CallFilter { status: some("failed"), agent: some("a1"), ..CallFilter::default() };
    let failed = reader.calls(&failed, None, 10).unwrap().rows;
    assert_eq!((failed.len(), failed[0].error_type.as_deref()), (1, Some("timeout")));
    let event = reader.event(failed[0].end_event.unwrap()).unwrap().unwrap();
    assert_eq!(event.tool_chain.unwrap().previous_tool.as_deref(), Some("Read"));
}

#[test]
fn a_summary_tells_the_window_for_every_scope() {
    let (bed, reader) = lived();
    let mut read_file = event(42_000, "FileChanged", Fact::FileChanged);
    read_file.file_operations = vec![FileOperation {
        kind: FileOperationKind::Write,
        path: "a".to_owned(),
        size_bytes: Some(1),
        duration_ms: None,
        lines_added: Some(5),
        lines_removed: Some(2),
    }];
    bed.store.append(vec![read_file]).unwrap();
    let now = TimestampMs::clamped(T0 + 90_000);
    for window in Window::ALL {
        // The store's own clock is years away from these events, so there are no latencies to speak of.
        let all = reader.summary(*window, &Scope::default(), now).unwrap();
        let (app, user, session) = (some("app"), some("ann"), some("s"));
        for scope in [
            Scope { app: app.clone(), ..Scope::default() },
            Scope { user: user.clone(), ..Scope::default() },
            Scope { app, user, ..Scope::default() },
            Scope { session, ..Scope::default() },
        ] {
            let one = reader.summary(*window, &scope, now).unwrap();
            assert_eq!((one.totals.events, one.sessions.seen), (12, 1), "{window:?} {scope:?}");
            assert_eq!(one.totals.calls, all.totals.calls);
            assert_eq!((one.tools.clone(), &one.execution_ms), (all.tools.clone(), &all.execution_ms));
            assert_eq!(one.errors, all.errors);
            assert_eq!(one.totals.files, all.totals.files);
            assert_eq!(one.concurrency_max, all.concurrency_max);
        }
        assert_eq!((all.totals.events, all.totals.calls, all.totals.failed), (13, 3, 1), "{window:?}");
        assert_eq!((all.totals.prompts, all.sessions.seen, all.sessions.active), (2, 2, 1));
        assert_eq!((all.totals.files.write, all.totals.files.lines_added), (1, 5));
        assert_eq!((all.errors[0].class.as_str(), all.errors[0].count), ("timeout", 1));
        assert_eq!(all.concurrency_max, Some(2));
        let (avg, p99) = (all.execution_ms.avg.unwrap(), all.execution_ms.p99.unwrap());
        assert!((avg - (9_000.0 + 8_000.0 + 20.0) / 3.0).abs() < 60.0, "{avg}");
        assert!((7_900.0..9_100.0).contains(&p99), "{p99}");
        assert_eq!(all.history.len(), crate::HISTORY_STEPS);
        assert_eq!(
            all.history.iter().map(|s| s.calls).sum::<i64>(),
            in_history(*window, now, &[30_000, 40_000, 41_000])
        );
        assert_eq!(all.previous, None);
        let none = Scope { app: some("elsewhere"), ..Scope::default() };
        assert_eq!(reader.summary(*window, &none, now).unwrap().totals, crate::WindowTotals::default());
    }
    let later = TimestampMs::clamped(T0 + 90_000 + 3_600_000);
    let hour = reader.summary(Window::H1, &Scope::default(), later).unwrap();
    assert_eq!((hour.totals.calls, hour.previous.unwrap().calls), (0, 3));
}

/// The 1m window begins at a whole minute, its history at now minus one minute.
fn in_history(window: Window, now: TimestampMs, ended: &[i64]) -> i64 {
    let bounds = window.bounds(now.get());
    ended.iter().filter(|ms| bounds.step_of(T0 + **ms).is_some()).count() as i64
}

#[test]
fn themes_are_kept_as_the_old_server_kept_them() {
    let bed = Bed::new();
    let theme = |id: &str, name: &str, is_public| Theme {
        id: id.to_owned(),
        name: name.to_owned(),
        display_name: format!("The {name}"),
        description: None,
        colors: json!({"primary": "#fff"}),
        is_public,
        author_id: some("ann"),
        author_name: None,
        created_ms: T0,
        updated_ms: T0,
        tags: vec!["dark".to_owned()],
        download_count: 0,
        rating: 0.0,
        rating_count: 0,
    };
    themes::create(&bed.store, &theme("1", "ocean", true)).unwrap();
    themes::create(&bed.store, &theme("2", "forest", false)).unwrap();
    let taken = themes::create(&bed.store, &theme("3", "ocean", true));
    assert!(matches!(taken, Err(WriteError::Conflict(column)) if column.contains("name")));
    themes::count_download(&bed.store, "1").unwrap();
    let changed =
        Theme { display_name: "Sea".to_owned(), name: "other".to_owned(), ..theme("1", "ocean", true) };
    assert!(themes::update(&bed.store, &changed).unwrap());
    assert!(!themes::update(&bed.store, &theme("9", "none", true)).unwrap());
    let reader = bed.store.reader().unwrap();
    let ocean = themes::get(&reader, "1").unwrap().unwrap();
    assert_eq!((ocean.display_name.as_str(), ocean.name.as_str(), ocean.download_count), ("Sea", "ocean", 1));
    assert_eq!(
        (ocean.tags.as_slice(), &ocean.colors),
        (["dark".to_owned()].as_slice(), &json!({"primary": "#fff"}))
    );
    let by_name =
        ThemeQuery { sort_by: ThemeSort::Name, order: SortOrder::Ascending, ..ThemeQuery::default() };
    let names = |query: &ThemeQuery| -> Vec<String> {
        themes::list(&reader, query).unwrap().into_iter().map(|t| t.name).collect()
    };
    assert_eq!(names(&by_name), ["forest", "ocean"]);
    assert_eq!(names(&ThemeQuery { is_public: Some(true), ..by_name.clone() }), ["ocean"]);
    assert_eq!(names(&ThemeQuery { query: some("FOREST"), ..by_name.clone() }), ["forest"]);
    assert_eq!(names(&ThemeQuery { limit: Some(1), offset: 1, ..by_name }), ["ocean"]);
    let stats = themes::stats(&reader).unwrap();
    assert_eq!((stats.total, stats.public, stats.private, stats.downloads), (2, 1, 1, 1));
    assert!(themes::delete(&bed.store, "2").unwrap() && !themes::delete(&bed.store, "2").unwrap());
}

#[test]
fn a_recording_says_nothing_about_delays() {
    let Bed { store, dir: _dir } = Bed::new();
    let reader = |store: &Store| store.reader().unwrap();
    let now = TimestampMs::clamped(T0 + 60_000);
    let mut old = prompt(1_000);
    old.arrival = Arrival::Recorded;
    store.append(vec![old]).unwrap();
    for scope in [Scope::default(), Scope { session: Some("s".to_owned()), ..Scope::default() }] {
        let rows = reader(&store).summary(Window::H1, &scope, now).unwrap();
        assert_eq!((rows.totals.events, rows.latency_ms.avg), (1, None));
    }
    store.append(vec![prompt(2_000)]).unwrap();
    for scope in [Scope::default(), Scope { session: Some("s".to_owned()), ..Scope::default() }] {
        assert!(reader(&store).summary(Window::H1, &scope, now).unwrap().latency_ms.avg.is_some());
    }
}
