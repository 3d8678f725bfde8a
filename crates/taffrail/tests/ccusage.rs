//! `report --compat ccusage` against what ccusage 20.0.24 itself answered, byte for byte.
//!
//! The answers stand in `fixtures/ccusage/<case>/recorded`, a file for each command of `commands.txt`; `cargo xtask ccusage
//! --record` asks anew. The case `open` reads the open transcripts where they are, and says loudly where they are not.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/ccusage").canonicalize().unwrap()
}

/// Where the open transcripts are, which are no part of the repository: below `TAFFRAIL_SHARED`, else `../shared`.
fn open_transcripts() -> Option<PathBuf> {
    let shared = std::env::var_os("TAFFRAIL_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let open = shared.join("data/claude-transcripts");
    if open.is_dir() {
        return Some(open);
    }
    eprintln!("!!! NOT TESTED: no open transcripts in {}; set TAFFRAIL_SHARED", open.display());
    None
}

/// `claude daily --order desc` is ccusage's line; ours names the flavour instead.
fn taffrail(config_dir: &Path, line: &str) -> Output {
    let (flavour, line) = match line.strip_prefix("claude ") {
        Some(rest) => ("ccusage-claude", rest),
        None => ("ccusage", line),
    };
    let mut words = line.split(' ');
    Command::new(env!("CARGO_BIN_EXE_taffrail"))
        .args(["report", words.next().unwrap(), "--compat", flavour])
        .args(words)
        .env_clear()
        .env("HOME", config_dir)
        .env("TZ", "UTC")
        .env("CLAUDE_CONFIG_DIR", config_dir)
        .output()
        .unwrap()
}

/// Compares every recorded answer of a case, the transcripts being those of `config_dir`.
fn check(case: &str, config_dir: &Path) {
    let dir = fixtures().join(case);
    let commands = fs::read_to_string(dir.join("commands.txt")).unwrap();
    assert!(!commands.trim().is_empty(), "{case} asks for nothing");
    for line in commands.lines() {
        let name = format!("{}.json", line.replace(' ', "+").replace('/', "~"));
        let recorded = fs::read_to_string(dir.join("recorded").join(&name)).unwrap();
        let output = taffrail(config_dir, &format!("{line} --json"));
        assert!(output.status.success(), "{case}, {line}: {}", String::from_utf8_lossy(&output.stderr));
        let own = String::from_utf8(output.stdout).unwrap();
        let differs =
            recorded.lines().zip(own.lines()).enumerate().find(|(_, (theirs, ours))| theirs != ours);
        assert!(
            recorded == own,
            "{case}, {line}: line {differs:?}, {} and {} bytes",
            recorded.len(),
            own.len()
        );
    }
}

#[test]
fn every_case_is_answered_as_ccusage_answers_it() {
    let mut cases = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.join("projects").is_dir() {
            check(path.file_name().unwrap().to_str().unwrap(), &path);
            cases += 1;
        }
    }
    assert!(cases >= 10, "only {cases} cases");
}

#[test]
fn the_open_transcripts_are_answered_as_ccusage_answers_them() {
    let Some(open) = open_transcripts() else { return };
    let config_dir = tempfile::tempdir().unwrap();
    // A link in place of `projects` is followed, those below it are not: so nothing is copied.
    std::os::unix::fs::symlink(open.canonicalize().unwrap(), config_dir.path().join("projects")).unwrap();
    check("open", config_dir.path());
}

#[test]
fn tables_have_the_figures() {
    let config_dir = fixtures().join("captures");
    for (line, json) in
        [("claude daily", "claude+daily"), ("daily", "daily"), ("claude session", "claude+session")]
    {
        let recorded = fixtures().join(format!("captures/recorded/{json}.json"));
        let document: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(recorded).unwrap()).unwrap();
        let output = taffrail(&config_dir, line);
        assert!(output.status.success());
        let table = String::from_utf8(output.stdout).unwrap();
        let digits: String = table.chars().filter(|c| *c != ',').collect();
        for kind in ["inputTokens", "outputTokens", "cacheCreationTokens", "cacheReadTokens", "totalTokens"] {
            let total = document["totals"][kind].to_string();
            assert!(digits.contains(&format!(" {total} ")), "{line}: {kind} {total} in\n{table}");
        }
        let cost = format!("${:.2}", document["totals"]["totalCost"].as_f64().unwrap());
        assert!(table.contains(&cost), "{line}: {cost} in\n{table}");
    }
}

#[test]
fn models_without_a_price_are_named() {
    let output = taffrail(&fixtures().join("prices"), "claude daily");
    let stderr = String::from_utf8(output.stderr).unwrap();
    for model in ["claude-opus-5-5", "claude-haiku-5-5", "claude-sonnet-5-5", "unknown"] {
        assert!(stderr.contains(&format!("no price for {model}:")), "{model} in {stderr}");
    }
}

#[test]
fn what_is_not_taken_is_refused_with_a_hint() {
    let dir = fixtures().join("empty");
    let refused = [
        "daily --no-offline",
        "daily --sections daily,weekly",
        "daily --by-agent",
        "daily --last 3",
        "daily --config x.json",
        "daily --debug",
        "daily --instances",
        "weekly --start-of-week monday",
        "daily --timezone Nowhere/Land",
        "blocks --session-length 0",
        "claude daily --project-aliases a=b",
    ];
    for line in refused {
        let output = taffrail(&dir, line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains("hint: "), "{line}: {stderr}");
    }
    for line in ["daily --since 2026", "daily --mode dear", "daily --bogus"] {
        assert_eq!(taffrail(&dir, line).status.code(), Some(2), "{line}");
    }
    let nowhere = taffrail(Path::new("/nonexistent"), "daily");
    assert!(String::from_utf8(nowhere.stderr).unwrap().contains("CLAUDE_CONFIG_DIR"));
}

/// What one row of `docs/CCUSAGE.md` says: the message's usage, other fields of the line, and what it costs.
struct Difference {
    what: &'static str,
    model: &'static str,
    usages: &'static [&'static str],
    line: &'static str,
    ledger: Option<f64>,
    ccusage: f64,
}

const OPUS: &str = "claude-opus-4-6";
const IN: &str = r#""input_tokens":100000,"output_tokens":0"#;

const fn one(
    what: &'static str,
    model: &'static str,
    usages: &'static [&'static str],
    line: &'static str,
    ledger: Option<f64>,
    ccusage: f64,
) -> Difference {
    Difference { what, model, usages, line, ledger, ccusage }
}

/// `{N}` is what differs between the two lines of a message.
const PLAIN: &str = r#""requestId":"req_1","timestamp":"2026-01-02T12:00:00.000Z""#;

const DIFFERENCES: [Difference; 19] = [
    one(
        "whole request above 200,000",
        "claude-sonnet-4-5-20250929",
        &[r#""input_tokens":250000,"output_tokens":1000"#],
        PLAIN,
        Some(1.5225),
        0.915,
    ),
    one(
        "a model without a price there",
        "claude-opus-5-5",
        &[r#""input_tokens":100000,"output_tokens":1000"#],
        PLAIN,
        Some(0.42),
        0.0,
    ),
    one("an unknown model", "claude-zeta-9", &[IN], PLAIN, None, 0.0),
    one("a name that only resembles", "claude-opus-4-6-preview", &[IN], PLAIN, None, 0.5),
    one(
        "fast mode without a price",
        "claude-fable-5-1",
        &[r#""input_tokens":100000,"output_tokens":0,"speed":"fast""#],
        PLAIN,
        None,
        1.0,
    ),
    one(
        "web searches",
        OPUS,
        &[r#""input_tokens":1000,"output_tokens":0,"server_tool_use":{"web_search_requests":10}"#],
        PLAIN,
        Some(0.105),
        0.005,
    ),
    one(
        "geography",
        OPUS,
        &[r#""input_tokens":100000,"output_tokens":0,"inference_geo":"us""#],
        PLAIN,
        Some(0.55),
        0.5,
    ),
    one(
        "batch",
        OPUS,
        &[r#""input_tokens":100000,"output_tokens":0,"service_tier":"batch""#],
        PLAIN,
        Some(0.25),
        0.5,
    ),
    one(
        "costUSD in the line",
        OPUS,
        &[IN],
        r#""requestId":"req_1","timestamp":"2026-01-02T12:00:00.000Z","costUSD":9.99"#,
        Some(0.5),
        9.99,
    ),
    one(
        "a partial split",
        OPUS,
        &[
            r#""input_tokens":0,"output_tokens":0,"cache_creation_input_tokens":100000,"cache_creation":{"ephemeral_5m_input_tokens":30000}"#,
        ],
        PLAIN,
        Some(0.625),
        0.1875,
    ),
    one(
        "written for an hour",
        OPUS,
        &[
            r#""input_tokens":0,"output_tokens":0,"cache_creation_input_tokens":100000,"cache_creation":{"ephemeral_1h_input_tokens":100000}"#,
        ],
        PLAIN,
        Some(1.0),
        1.0,
    ),
    one("no request id", OPUS, &[IN, IN], r#""timestamp":"2026-01-02T12:00:0{N}.000Z""#, Some(0.5), 1.0),
    one(
        "two request ids",
        OPUS,
        &[IN, IN],
        r#""requestId":"req_{N}","timestamp":"2026-01-02T12:00:00.000Z""#,
        Some(0.5),
        1.0,
    ),
    one(
        "less in all, more output",
        OPUS,
        &[r#""input_tokens":200000,"output_tokens":5"#, r#""input_tokens":100000,"output_tokens":50000"#],
        PLAIN,
        Some(1.75),
        1.000_125,
    ),
    one(
        "a null request id",
        OPUS,
        &[IN],
        r#""requestId":null,"timestamp":"2026-01-02T12:00:00.000Z""#,
        Some(0.5),
        0.0,
    ),
    one("a blank before the usage", OPUS, &[" "], PLAIN, Some(0.5), 0.0),
    one(
        "microseconds",
        OPUS,
        &[IN],
        r#""requestId":"req_1","timestamp":"2026-01-02T12:00:00.123456Z""#,
        Some(0.5),
        0.0,
    ),
    one(
        "an adviser",
        OPUS,
        &[
            r#""input_tokens":1000,"output_tokens":0,"iterations":[{"type":"advisor_message","model":"claude-opus-4-1","input_tokens":100000,"output_tokens":7}]"#,
        ],
        PLAIN,
        Some(1.505_525),
        1.505_525,
    ),
    one("synthetic", "<synthetic>", &[IN], PLAIN, Some(0.0), 0.0),
];

fn transcript(of: &Difference) -> String {
    let lines = of.usages.iter().enumerate().map(|(n, usage)| {
        let usage = if *usage == " " { format!(r#""usage": {{{IN}}}"#) } else { format!(r#""usage":{{{usage}}}"#) };
        let line = of.line.replace("{N}", &n.to_string());
        let model = of.model;
        format!(
            r#"{{"type":"assistant","uuid":"00000000-0000-4000-8000-00000000000{n}","sessionId":"00000000-0000-4000-8000-00000000000a",{line},"message":{{"id":"msg_1","role":"assistant","model":"{model}","stop_reason":"end_turn","content":[],{usage}}}}}"#
        ) + "\n"
    });
    lines.collect()
}

/// The ledger's total over a directory of transcripts, and its rows by model.
fn ledger(config_dir: &Path, data_dir: &Path) -> serde_json::Value {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taffrail"));
        command.arg("--data-dir").arg(data_dir).args(args).env_clear().env("HOME", data_dir).env("TZ", "UTC");
        let output = command.env("CLAUDE_CONFIG_DIR", config_dir).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["import", "transcripts", "--json"]);
    serde_json::from_slice(&run(&["report", "daily", "--by", "model", "--json"])).unwrap()
}

fn compat(config_dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&taffrail(config_dir, "daily --json").stdout).unwrap()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn differences_are_those_of_the_docs() {
    for of in &DIFFERENCES {
        let scratch = tempfile::tempdir().unwrap();
        let project = scratch.path().join("config/projects/p");
        fs::create_dir_all(&project).unwrap();
        fs::write(project.join("00000000-0000-4000-8000-00000000000a.jsonl"), transcript(of)).unwrap();
        let config_dir = scratch.path().join("config");
        let totals = &ledger(&config_dir, &scratch.path().join("data"))["totals"];
        let theirs = compat(&config_dir)["totals"]["totalCost"].as_f64().unwrap();
        eprintln!("{:<32} ledger {:<12} ccusage {theirs}", of.what, totals["cost_usd"].to_string());
        let same = match of.ledger {
            Some(cost) => totals["cost_usd"].as_f64().is_some_and(|own| near(own, cost)),
            None => totals["cost_usd"].is_null(),
        };
        assert!(same && near(theirs, of.ccusage), "{}: {totals}, {theirs}", of.what);
    }
}

/// Over the open transcripts two causes explain all of the difference: with the blanks after `"usage":` taken out, every
/// model but the one with long prompts costs the same by the ledger and by ccusage.
#[test]
fn the_difference_over_the_open_transcripts_is_explained() {
    let Some(open) = open_transcripts() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (as_is, without) = (scratch.path().join("as-is"), scratch.path().join("without"));
    copy(&open, &as_is.join("projects"), |text| text);
    copy(&open, &without.join("projects"), |text| text.replace(r#""usage": {"#, r#""usage":{"#));
    let (own, theirs, repaired) =
        (ledger(&as_is, &scratch.path().join("data")), compat(&as_is), compat(&without));
    let total = |document: &serde_json::Value| document["totals"]["totalCost"].as_f64().unwrap();
    let ledger = own["totals"]["cost_usd"].as_f64().unwrap();
    let blanks = total(&repaired) - total(&theirs);
    eprintln!(
        "ledger {ledger:.6}, ccusage {:.6}; blanks {blanks:.6}, long prompts {:.6}",
        total(&theirs),
        ledger - total(&repaired)
    );
    let sums = |rows: &serde_json::Value, model: &str, cost: &str| {
        let mut sums = std::collections::BTreeMap::<String, f64>::new();
        for row in rows.as_array().unwrap() {
            let name = row[model].as_str().unwrap_or_default().to_owned();
            *sums.entry(name).or_default() += row[cost].as_f64().unwrap_or(0.0);
        }
        sums
    };
    let ours = sums(&own["rows"], "model", "cost_usd");
    let shares: Vec<_> = repaired["daily"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row["modelBreakdowns"].as_array().unwrap().clone())
        .collect();
    let theirs = sums(&shares.into(), "modelName", "cost");
    for (model, cost) in &ours {
        let other = theirs.get(model).copied().unwrap_or(0.0);
        assert!(near(*cost, other) != (model == "claude-sonnet-4-20250514"), "{model}: {cost}, {other}");
    }
    assert!((blanks - 0.466_251).abs() < 1e-6 && (ledger - total(&repaired) - 15.439_079).abs() < 1e-6);
}

fn copy(from: &Path, to: &Path, change: impl Fn(String) -> String + Copy) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, change);
        } else if path.extension().is_some_and(|ext| ext == "jsonl") {
            fs::write(target, change(fs::read_to_string(&path).unwrap())).unwrap();
        }
    }
}
