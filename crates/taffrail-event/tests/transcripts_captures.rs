//! The transcripts of the real client 2.1.330, held against figures checked by hand, and against what the same client
//! told by OTLP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::transcripts::{Union, read};
use common::{shared_dir, workspace_root};
use serde_json::Value;
use taffrail_event::ledger::Usage;
use taffrail_event::transcript::{FileFacts, Mark, MarkKind};

/// Every file of a capture's `projects` folder, by name, read.
fn transcripts(capture: &Path) -> BTreeMap<String, Union> {
    let mut read_files = BTreeMap::new();
    let mut folders = vec![capture.join("transcripts")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = FileFacts::of_path(path.to_str().unwrap()).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            read_files.insert(name, read(&file, &std::fs::read(&path).unwrap()));
        }
    }
    read_files
}

fn fixture(scenario: &str) -> BTreeMap<String, Union> {
    transcripts(&workspace_root().join("fixtures/captures").join(scenario))
}

/// The file whose name begins so.
#[track_caller]
fn of<'f>(files: &'f BTreeMap<String, Union>, name: &str) -> &'f Union {
    let mut found = files.iter().filter(|(file, _)| file.starts_with(name));
    let (_, union) = found.next().unwrap();
    assert!(found.next().is_none(), "{name} is two files");
    union
}

/// `request: input/output/read/5m/1h`, with a `?` where the usage is not final; oldest first.
fn requests(union: &Union) -> Vec<String> {
    let mut requests: Vec<_> = union.requests.values().collect();
    requests.sort_by_key(|request| request.ts);
    requests
        .iter()
        .map(|request| {
            let id = request.request_id.as_deref().unwrap();
            let u = request.usage.unwrap();
            format!(
                "{} {}/{}/{}/{}/{}{}",
                &id[id.len() - 6..],
                u.input,
                u.output,
                u.cache_read,
                u.cache_write_5m,
                u.cache_write_1h,
                if request.is_final { "" } else { "?" }
            )
        })
        .collect()
}

fn marks(union: &Union) -> Vec<String> {
    union.marks.iter().map(shown).collect()
}

fn shown(mark: &Mark) -> String {
    match &mark.kind {
        MarkKind::Prompt { .. } => format!("prompt: {}", mark.summary),
        MarkKind::Compaction { trigger, pre_tokens, post_tokens } => {
            format!("compaction: {} {pre_tokens:?} {post_tokens:?}", trigger.as_deref().unwrap_or("-"))
        }
        MarkKind::Spawn { tool_use_id, agent_type } => {
            format!(
                "spawn: {} {} ({})",
                &tool_use_id[..9],
                agent_type.as_deref().unwrap_or("-"),
                mark.summary
            )
        }
    }
}

#[test]
fn a_session_compacted_and_its_fork() {
    let files = fixture("resume-compact");
    let (parent, fork) = (of(&files, "e6a406ca"), of(&files, "04dba18f"));
    assert_eq!(
        requests(parent),
        [
            "fe6059 10/50/0/14000/0",
            "9bce7a 6/20/14000/150/0",
            "30e84e 8/22/14150/130/0",
            "4bf6e8 8/22/9000/3000/0"
        ]
    );
    // The fork shows two requests of its parent, one of them without its counts, and made one.
    assert_eq!(requests(fork), ["30e84e 0/0/0/0/0?", "4bf6e8 8/22/9000/3000/0", "7759f4 8/22/12000/130/0"]);
    let compaction = "compaction: manual Some(14310) Some(2653)";
    assert_eq!(
        marks(parent),
        ["prompt: Read a.txt", "prompt: Say more", compaction, "prompt: After the compaction"]
    );
    assert_eq!(marks(fork), [compaction, "prompt: After the compaction", "prompt: Forked"]);
    assert_eq!(parent.marks[2].key, fork.marks[0].key);
    let born = |union: &Union| union.requests.values().map(|r| r.born).collect::<BTreeSet<_>>();
    assert_eq!((born(parent).len(), born(fork).len()), (1, 1));
    assert!(born(parent).last() < born(fork).first(), "the parent was begun first");
    let session = fork.sessions.values().next().unwrap();
    assert_eq!(Some(&session.first), born(fork).first(), "a fork does not begin before it was born");
    // The fork's total begins with its parent's: cumulative.
    let total = |union: &Union| union.totals.values().map(|total| total.cost_nano_usd).collect::<Vec<_>>();
    assert_eq!((total(parent), total(fork)), (vec![102_918_000], vec![106_440_000]));
}

#[test]
fn subagents_in_files_of_their_own() {
    let files = fixture("subagents-parallel");
    let main = of(&files, "724ad327");
    assert_eq!(
        requests(main),
        [
            "6b66ae 14/260/0/15300/0",
            "fb74cf 8/120/15300/700/0",
            "f98167 8/40/16000/200/0",
            "289b2e 8/44/16200/260/0"
        ]
    );
    assert_eq!(
        marks(main),
        [
            "prompt: Survey api/ and ui/ with one agent each, then sum up",
            "spawn: toolu_01d Explore (Survey api)",
            "spawn: toolu_013 general-purpose (Survey ui)",
            "spawn: toolu_014 general-purpose (Count lines)"
        ]
    );
    // Each subagent is told of three times: by its file, its .meta.json and the result of the call that started it.
    let told = [
        ("agent-aede29c731eccd73d", "Explore", "Survey api", 3, "toolu_01d8904581927a6b033603d45e"),
        ("agent-a4dce43ebc3ced707", "general-purpose", "Survey ui", 3, "toolu_013e764bec8cb73263733dfd7e"),
        ("agent-af2ccda4ee962ac01", "general-purpose", "Count lines", 2, "toolu_01407b41800a6025f07c8ab6db"),
    ];
    for (name, agent_type, description, count, tool_use_id) in told {
        let id = name.strip_prefix("agent-").unwrap();
        let meta = of(&files, &format!("{name}.meta.json"));
        let agent = meta.agents.values().next().unwrap();
        assert_eq!(agent.agent_id, id);
        assert_eq!(agent.session_id, "724ad327-e961-4634-b5b1-e68833d2d922");
        assert_eq!(agent.agent_type.as_deref(), Some(agent_type));
        assert_eq!(agent.description.as_deref(), Some(description));
        assert_eq!(agent.tool_use_id.as_deref(), Some(tool_use_id));
        let started = &main.agents[&(agent.session_id.clone(), id.to_owned())];
        assert_eq!(started.tool_use_id.as_deref(), Some(tool_use_id));
        let own = of(&files, &format!("{name}.jsonl"));
        assert_eq!(own.requests.len(), count);
        assert!(own.requests.values().all(|r| r.agent_id.as_deref() == Some(id)));
        assert!(own.requests.values().all(|r| r.agent_type.as_deref() == Some(agent_type)));
        assert_eq!(marks(own), [] as [&str; 0], "its prompt is by its parent");
    }
    let total = main.totals.values().next().unwrap();
    let models: Vec<_> =
        total.models.iter().map(|m| (m.model.as_str(), m.usage.context(), m.cost_nano_usd)).collect();
    assert_eq!(models, [("claude-opus-5-5", 95_466, 172_630_000), ("claude-haiku-5-5", 18_142, 941_950)]);
    // What all files show is what the client counted.
    let all = files.values().flat_map(|union| union.requests.values());
    let context: u64 = all.map(|request| request.usage.unwrap().context()).sum();
    assert_eq!(context, 95_466 + 18_142);
}

#[test]
fn failed_attempts_and_giving_up() {
    let files = fixture("api-overload");
    let union = of(&files, "e0549758");
    let failures: Vec<String> = union
        .failures
        .iter()
        .map(|f| {
            let id = &f.key[f.key.len() - 6..];
            let status = f.status_code.map_or("-".to_owned(), |status| status.to_string());
            let attempt = f.attempt.map_or("-".to_owned(), |n| format!("{n}/{}", f.attempts_max.unwrap()));
            let message: String = f.message.chars().take(50).collect();
            format!("{id} {status} {attempt} {:?} {}: {message}", f.retry_in_ms, f.exhausted)
        })
        .collect();
    assert_eq!(
        failures,
        [
            "21518d 529 1/4 Some(580) false: 529 Overloaded",
            "51fed8 529 2/4 Some(1226) false: 529 Overloaded",
            "66e28d 429 1/4 Some(1235) false: 429 This request would exceed your rate limit",
            "c10838 - 2/4 Some(1202) false: Connection dropped (ECONNRESET)",
            "dbc7a7 500 1/4 Some(574) false: 500 Internal server error",
            "42a8c0 500 2/4 Some(1233) false: 500 Internal server error",
            "33ac94 500 3/4 Some(2363) false: 500 Internal server error",
            "ae7ee3 500 4/4 Some(4581) false: 500 Internal server error",
            "6b86d4 500 - None true: API Error: 500 Internal server error. This is a se",
        ]
    );
}

#[test]
fn an_interactive_session_with_commands_typed_at_the_client() {
    let files = fixture("interactive-session");
    let (first, second) = (of(&files, "5c3f7860"), of(&files, "8f8ffc7d"));
    // `!` commands, `/compact` and `/clear` run in the client: a person typed them, but they are no prompts.
    assert_eq!(
        marks(first),
        [
            "prompt: Make b.txt and run a command",
            "prompt: Second prompt",
            "compaction: manual Some(14784) Some(3041)"
        ]
    );
    assert_eq!(marks(second), ["prompt: Third prompt"]);
    assert_eq!(requests(second), ["5ae2a2 8/60/14600/200/0"]);
    let session = first.sessions.values().next().unwrap();
    assert_eq!(session.cwd.as_deref(), Some("/home/user/project"));
    assert_eq!(session.git_branch.as_deref(), Some("main"));
    assert_eq!(session.client_version.as_deref(), Some("2.1.330"));
    assert_eq!(session.model.as_deref(), Some("claude-opus-5-5"));
    assert_eq!(session.last_prompt.as_deref(), Some("Second prompt"));
}

/// The attributes of the `api_request` records in OTLP exports, by request id.
fn told_by_otlp(capture: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut told = BTreeMap::new();
    let Ok(text) = std::fs::read_to_string(capture.join("otlp.jsonl")) else { return told };
    for line in text.lines() {
        let export: Value = serde_json::from_str(line).unwrap();
        let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let scopes =
            list(&export["body"], "resourceLogs").into_iter().flat_map(|logs| list(&logs, "scopeLogs"));
        for record in scopes.flat_map(|scope| list(&scope, "logRecords")) {
            let attributes: BTreeMap<String, String> = list(&record, "attributes")
                .iter()
                .map(|attribute| {
                    let value = attribute["value"].as_object().unwrap().values().next().unwrap();
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    (attribute["key"].as_str().unwrap().to_owned(), text)
                })
                .collect();
            if attributes.get("event.name").is_some_and(|name| name == "api_request") {
                told.insert(attributes["request_id"].clone(), attributes);
            }
        }
    }
    told
}

/// Requests that no transcript shows: where the client asks for itself.
fn is_hidden(query_source: &str) -> bool {
    !matches!(query_source, "sdk" | "repl_main_thread") && !query_source.starts_with("agent:")
}

#[test]
fn every_capture_shows_the_requests_that_otlp_shows() {
    let Some(shared) = shared_dir() else { return };
    let mut captures: Vec<PathBuf> = std::fs::read_dir(shared.join("realclient/captures"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("transcripts").is_dir())
        .collect();
    captures.sort();
    let (mut compared, mut hidden) = (0, 0);
    for capture in &captures {
        let files = transcripts(capture);
        let mut seen: BTreeMap<String, Usage> = BTreeMap::new();
        for union in files.values() {
            assert_eq!((union.counts.bad, union.counts.unknown), (0, 0), "{}", capture.display());
            for request in union.requests.values().filter(|request| request.is_final) {
                seen.insert(request.request_id.clone().unwrap(), request.usage.unwrap());
            }
        }
        let told = told_by_otlp(capture);
        for (id, attributes) in &told {
            let source = attributes["query_source"].as_str();
            let Some(usage) = seen.remove(id) else {
                assert!(is_hidden(source), "{source} {id} of {}", capture.display());
                hidden += 1;
                continue;
            };
            let count = |key: &str| attributes[key].parse::<u64>().unwrap();
            assert_eq!(usage.input, count("input_tokens"), "{id}");
            assert_eq!(usage.output, count("output_tokens"), "{id}");
            assert_eq!(usage.cache_read, count("cache_read_tokens"), "{id}");
            assert_eq!(usage.cache_write_5m + usage.cache_write_1h, count("cache_creation_tokens"), "{id}");
            compared += 1;
        }
        assert!(told.is_empty() || seen.is_empty(), "{seen:?} of {}", capture.display());
    }
    // The two that are hidden are compactions.
    assert_eq!((captures.len(), compared, hidden), (12, 66, 2));
}

/// `file: requests input/output/read/5m, prompts, compactions, spawns, failures, the client's total in nano-dollars`.
fn row(name: &str, union: &Union) -> String {
    let usage = union.usage();
    let kinds = |is: fn(&MarkKind) -> bool| union.marks.iter().filter(|mark| is(&mark.kind)).count();
    let total = union.totals.values().map(|total| total.cost_nano_usd).sum::<i64>();
    format!(
        "{} {} {}/{}/{}/{} {} {} {} {} {total}",
        &name[..8],
        union.requests.len(),
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write_5m,
        kinds(|kind| matches!(kind, MarkKind::Prompt { .. })),
        kinds(|kind| matches!(kind, MarkKind::Compaction { .. })),
        kinds(|kind| matches!(kind, MarkKind::Spawn { .. })),
        union.failures.len(),
    )
}

#[test]
fn every_capture_in_figures() {
    let Some(shared) = shared_dir() else { return };
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(shared.join("realclient/captures")).unwrap() {
        let files = transcripts(&entry.unwrap().path());
        let sessions = files.iter().filter(|(name, _)| !name.starts_with("agent-"));
        rows.extend(sessions.map(|(name, union)| row(name, union)));
        // What the sessions' files and their subagents show of a session is what the client counted, but for what
        // only it knows: compactions, and what a fork inherited.
        for (name, union) in
            files.iter().filter(|(name, union)| !name.starts_with("agent-") && !union.totals.is_empty())
        {
            let total = union.totals.values().next().unwrap();
            let told: u64 = total.models.iter().map(|model| model.usage.total()).sum();
            let shown = files.values().flat_map(|union| union.requests.values());
            let shown: u64 = shown
                .filter(|r| r.session_id == total.session_id)
                .map(|request| request.usage.unwrap().total())
                .sum();
            match &name[..8] {
                "e6a406ca" => assert_eq!(told - shown, 20 + 180 + 15_000, "one compaction"),
                "5c3f7860" => assert_eq!(told - shown, 20 + 180 + 15_000, "one compaction"),
                "04dba18f" => assert_eq!(told, 81_936, "a fork's begins with its parent's"),
                _ => assert_eq!(told, shown, "{name}"),
            }
        }
    }
    rows.sort();
    assert_eq!(
        rows,
        [
            "04dba18f 3 16/44/21000/3130 2 1 0 0 106440000",
            "4bbb96d9 4 36/170/42600/14550 1 0 0 0 84814000",
            "4ddd77a2 1 10/50/14000/300 1 0 0 0 5340000",
            "5c3f7860 4 34/240/42600/14600 2 1 0 0 86698000",
            "5e14197a 5 35/449/58786/15192 1 0 0 0 96837200",
            "724ad327 4 38/464/47500/16460 1 0 3 0 173571950",
            "7c140194 3 30/150/42000/900 1 0 0 0 16020000",
            "7c168fc6 9 67/667/126270/16470 1 0 0 0 121212000",
            "8f8ffc7d 1 8/60/14600/200 1 0 0 0 201800",
            "a58c7649 7 48/623/93830/16280 1 0 0 0 112818000",
            "d79859e1 3 22/540/28900/15050 1 0 0 0 91918000",
            "d7a41309 11 102/490/148400/15900 1 0 0 0 119388000",
            "e0549758 2 17/64/14000/14150 2 0 0 9 74898000",
            "e6a406ca 4 32/114/37150/17280 3 1 0 0 102918000",
            "e77a6d99 1 10/50/14000/300 1 0 0 0 5340000",
        ]
    );
}
