//! What is priced at what, held against the client's own figures, the vendor's rules by hand, and properties.
//!
//! Recordings come from `fixtures/captures`; see its README.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::ledger::{Speed, nano_usd};

fn day(text: &str) -> TimestampMs {
    Day::of(text.parse().unwrap()).begin()
}

const NOW: &str = "2026-11-22";

fn usage(input: u64, output: u64, cache_read: u64, write_5m: u64, write_1h: u64) -> Usage {
    Usage { input, output, cache_read, cache_write_5m: write_5m, cache_write_1h: write_1h, web_searches: 0 }
}

/// Dollars of a request on standard terms; NaN where it is unpriced.
#[track_caller]
fn usd(table: &PriceTable, model: &str, usage: &Usage, terms: &Terms, at: &str) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "small")]
    table.quote(model, usage, terms, day(at)).map_or(f64::NAN, |quote| quote.total_nano_usd as f64 / 1e9)
}

#[track_caller]
fn check(model: &str, tokens: Usage, terms: &Terms, at: &str, expected: f64) {
    let table = PriceTable::builtin();
    let got = table.quote(model, &tokens, terms, day(at)).map(|quote| quote.total_nano_usd);
    assert_eq!(got, nano_usd(expected), "{model} {tokens:?} {terms:?} {at}");
}

fn standard() -> Terms {
    Terms::default()
}

fn fast() -> Terms {
    Terms { speed: Speed::Fast, ..Terms::default() }
}

fn batch() -> Terms {
    Terms { service_tier: Some("batch".to_owned()), ..Terms::default() }
}

fn geo(place: &str) -> Terms {
    Terms { inference_geo: Some(place.to_owned()), ..Terms::default() }
}

#[test]
fn the_table_of_this_version_is_sound_and_every_row_names_its_source() {
    let rows = file::parse(BUILTIN, Origin::Builtin).unwrap();
    assert!(rows.len() > 40, "{}", rows.len());
    for row in &rows {
        assert!(row.source.is_some() && row.checked.is_some(), "{}", row.model);
        assert!(row.model == "<synthetic>" || row.context_window.is_some(), "{}", row.model);
    }
    let table = PriceTable::of(rows).unwrap();
    assert_eq!(table.fingerprint(), PriceTable::builtin().fingerprint());
    assert_eq!(table.fingerprint().len(), 16);
}

/// What the client itself charges for 100,000 tokens of one kind, for every model that was measured.
#[test]
fn the_clients_own_prices_are_reproduced() {
    let observed: Value =
        serde_json::from_str(include_str!("../../../../fixtures/captures/prices-observed.json")).unwrap();
    let table = PriceTable::builtin();
    let models = observed["models"].as_object().unwrap();
    assert!(models.len() >= 12);
    for (model, rates) in models {
        let kinds = [
            ("input", usage(100_000, 0, 0, 0, 0)),
            ("output", usage(0, 100_000, 0, 0, 0)),
            ("cache_read", usage(0, 0, 100_000, 0, 0)),
            ("cache_write_5m", usage(0, 0, 0, 100_000, 0)),
            ("cache_write_1h", usage(0, 0, 0, 0, 100_000)),
        ];
        for (kind, tokens) in kinds {
            check(model, tokens, &standard(), NOW, rates[kind].as_f64().unwrap() / 10.0);
        }
        assert_eq!(table.context_window(model), rates["context_window"].as_u64(), "{model}");
    }
}

/// Every API request of the recordings costs what the client says it did, to the nano-dollar.
#[test]
fn every_recorded_request_costs_what_the_client_says() {
    let records = include_str!("../../../../fixtures/captures/priced-requests.jsonl");
    let table = PriceTable::builtin();
    let mut checked = 0;
    for line in records.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let count = |name: &str| record[name].as_u64().unwrap();
        let tokens = usage(
            count("input_tokens"),
            count("output_tokens"),
            count("cache_read_tokens"),
            count("cache_creation_5m_tokens"),
            count("cache_creation_1h_tokens"),
        );
        assert_eq!(tokens.cache_write_5m + tokens.cache_write_1h, count("cache_creation_tokens"), "{line}");
        let nanos: i64 = record["time_unix_nano"].as_str().unwrap().parse().unwrap();
        let terms = Terms { speed: Speed::of(record["speed"].as_str()), ..Terms::default() };
        let quote = table.quote(
            record["model"].as_str().unwrap(),
            &tokens,
            &terms,
            TimestampMs::clamped(nanos / 1_000_000),
        );
        let told = nano_usd(record["cost_usd"].as_f64().unwrap());
        assert_eq!(quote.map(|q| q.total_nano_usd), told, "{line}");
        checked += 1;
    }
    assert_eq!(checked, 78);
}

#[test]
fn a_price_holds_from_its_day_on() {
    let million = usage(0, 0, 1_000_000, 0, 0);
    check("claude-sonnet-5-5", million, &standard(), "2026-10-06", 0.20);
    check("claude-sonnet-5-5", million, &standard(), "2026-10-07", 0.10);
    let table = PriceTable::builtin();
    let last = TimestampMs::clamped(day("2026-10-07").get() - 1);
    assert_eq!(
        table.quote("claude-sonnet-5-5", &million, &standard(), last).unwrap().total_nano_usd,
        200_000_000
    );
    // A missing time stamp and a clock that runs wrong do not make a model unpriced.
    check("claude-sonnet-5-5", million, &standard(), "2021-01-01", 0.20);
    check("claude-sonnet-5-5", million, &standard(), "2060-01-01", 0.10);
}

/// By hand from the vendor's rule: over the threshold every token of the request has the higher rate.
#[test]
fn long_prompts_cost_what_the_vendor_bills() {
    let then = "2025-12-01";
    check("claude-sonnet-4-5", usage(250_000, 1_000, 0, 0, 0), &standard(), then, 1.5 + 0.0225);
    check("claude-sonnet-4-5", usage(200_000, 1_000, 0, 0, 0), &standard(), then, 0.6 + 0.015);
    check("claude-sonnet-4-5", usage(200_001, 0, 0, 0, 0), &standard(), then, 1.200_006);
    // What was read from the cache and written to it is prompt, too; output is not.
    check("claude-sonnet-4", usage(1, 0, 150_000, 50_000, 0), &standard(), then, 0.000_006 + 0.09 + 0.375);
    check("claude-sonnet-4", usage(1, 300_000, 0, 0, 0), &standard(), then, 0.000_003 + 4.5);
    // Opus and Sonnet 4.6 lost the tier on 2026-03-13.
    check("claude-opus-4-6", usage(300_000, 1_000, 0, 0, 0), &standard(), "2026-03-12", 3.0 + 0.0375);
    check("claude-opus-4-6", usage(300_000, 1_000, 0, 0, 0), &standard(), "2026-03-13", 1.5 + 0.025);
    check("claude-sonnet-4-6", usage(300_000, 0, 0, 0, 0), &standard(), "2026-03-12", 1.8);
    check("claude-sonnet-4-6", usage(300_000, 0, 0, 0, 0), &standard(), "2026-03-13", 0.9);
    // Haiku 5.5: five times the price over 100k.
    check("claude-haiku-5-5", usage(100_000, 1_000, 0, 0, 0), &standard(), NOW, 0.01 + 0.0005);
    check("claude-haiku-5-5", usage(100_001, 1_000, 0, 0, 0), &standard(), NOW, 0.050_000_5 + 0.0025);
    check(
        "claude-haiku-5-5",
        usage(1_000, 1_000, 99_001, 0, 0),
        &standard(),
        NOW,
        0.0005 + 0.0025 + 0.004_950_05,
    );
    check("claude-haiku-5-5", usage(0, 0, 0, 0, 200_000), &standard(), NOW, 0.2);
    // One price for the whole window.
    check("claude-opus-5-5", usage(900_000, 1_000, 0, 0, 0), &standard(), NOW, 3.6 + 0.02);
}

#[test]
fn a_marginal_tier_counts_only_what_is_over_it() {
    let table = PriceTable::builtin()
        .with_overrides(
            r#"
            [[price]]
            model = "m"
            effective_from = 2026-01-01
            input = 3
            output = 15
            cache_read = 0.3
            long_context = [
                { above = 200_000, kind = "marginal", input = 6, output = 22.5 },
                { above = 400_000, kind = "marginal", input = 12, output = 45 },
            ]
            "#,
        )
        .unwrap();
    let cost = |tokens| usd(&table, "m", &tokens, &standard(), NOW);
    assert!((cost(usage(250_000, 1_000, 0, 0, 0)) - 0.915).abs() < 1e-9);
    assert!((cost(usage(500_000, 0, 0, 0, 0)) - (0.6 + 1.2 + 1.2)).abs() < 1e-9);
    assert!((cost(usage(200_000, 0, 200_000, 0, 0)) - 0.66).abs() < 1e-9);
    assert!(cost(usage(0, 0, 200_001, 0, 0)).is_nan(), "the tier does not tell a rate for cache reads");
}

#[test]
fn terms_multiply_token_rates_and_not_searches() {
    let million = usage(100_000, 100_000, 0, 0, 0);
    check("claude-opus-5-5", million, &fast(), NOW, 0.8 + 4.0);
    check("claude-opus-4-6", million, &fast(), "2026-06-01", 3.0 + 15.0);
    check("claude-fable-5-2", usage(0, 0, 1_000_000, 1_000_000, 0), &fast(), NOW, 0.4 + 20.0);
    check("claude-opus-5-5", million, &batch(), NOW, 0.2 + 1.0);
    check("claude-opus-5-5", million, &geo("us"), NOW, 0.44 + 2.2);
    for place in ["global", "not_available", ""] {
        check("claude-opus-5-5", million, &geo(place), NOW, 0.4 + 2.0);
    }
    let searches = Usage { web_searches: 7, ..million };
    check("claude-opus-5-5", searches, &batch(), NOW, 0.2 + 1.0 + 0.07);
    check("claude-opus-5-5", Usage { web_searches: 1, ..Usage::default() }, &geo("us"), NOW, 0.01);
}

#[test]
fn what_the_table_does_not_tell_makes_a_request_unpriced() {
    let table = PriceTable::builtin();
    let ask = |model: &str, tokens: Usage, terms: &Terms| table.quote(model, &tokens, terms, day(NOW));
    let one = usage(1, 1, 0, 0, 0);
    for model in
        ["", "claude", "claude-opus-6", "claude-opus-5-5-turbo", "opus", "haiku", "CLAUDE-OPUS-5-5", "gpt-9"]
    {
        assert_eq!(ask(model, one, &standard()), None, "{model}");
        assert_eq!(table.context_window(model), None, "{model}");
    }
    assert_eq!(ask("claude-sonnet-5-5", one, &fast()), None, "fast mode is not sold");
    assert_eq!(ask("claude-2.1", one, &batch()), None, "batches were not sold");
    assert_eq!(ask("claude-2.1", usage(0, 0, 1, 0, 0), &standard()), None, "it had no cache");
    assert_eq!(ask("claude-3-opus", Usage { web_searches: 1, ..one }, &standard()), None);
    assert_eq!(ask("us-gov.anthropic.claude-fable-5-2", one, &standard()), None);
    assert!(ask("claude-2.1", one, &standard()).is_some());
}

#[test]
fn what_the_client_answered_itself_costs_nothing_and_is_priced() {
    let table = PriceTable::builtin();
    let odd = Usage { web_searches: 3, ..usage(1, 2, 3, 4, 5) };
    for tokens in [Usage::default(), odd] {
        for terms in [standard(), fast(), batch(), geo("us")] {
            let quote = table.quote("<synthetic>", &tokens, &terms, TimestampMs::clamped(0));
            assert_eq!(quote, Some(Quote::default()));
        }
    }
    assert_eq!(table.context_window("<synthetic>"), None);
}

#[test]
fn names_are_matched_exactly_after_the_documented_removals() {
    let table = PriceTable::builtin();
    for (said, model) in [
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-opus-5-5[1m]", "claude-opus-5-5"),
        ("claude-opus-4-5-20251101", "claude-opus-4-5"),
        ("claude-sonnet-4-5-20250929[1m]", "claude-sonnet-4-5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-sonnet-4-0", "claude-sonnet-4"),
        ("claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("claude-haiku-5-5-20261007", "claude-haiku-5-5"),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0[1m]", "claude-sonnet-4-5"),
        ("global.anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("eu.anthropic.claude-opus-5-5", "claude-opus-5-5"),
        ("anthropic.claude-3-sonnet-20240229-v1:0:200k", "claude-3-sonnet"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet"),
        ("anthropic.claude-v2", "claude-2"),
        ("anthropic.claude-v2:1", "claude-2.1"),
        ("anthropic.claude-instant-v1", "claude-instant-1"),
        ("bedrock/us.anthropic.claude-opus-5-5", "claude-opus-5-5"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5-5",
            "claude-opus-5-5",
        ),
        ("claude-opus-4-5@20251101", "claude-opus-4-5"),
        ("vertex_ai/claude-opus-5-5@default", "claude-opus-5-5"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet"),
        ("publishers/anthropic/models/claude-sonnet-5", "claude-sonnet-5"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("gpt-5.2-2025-12-11", "gpt-5.2"),
        ("gpt-5.6-sol", "gpt-5.6-sol"),
        ("openai/gpt-5.6", "gpt-5.6-sol"),
    ] {
        assert_eq!(table.name_of(said), Some(model), "{said}");
    }
    for said in [
        "claude-opus-5-5-20261399",
        "claude-opus-5-5-2026",
        "claude-opus-5-5-",
        "claude-opus-5-5[2m]",
        "x.anthropic.claude-opus-5-5",
        "anthropic.claude-opus-5-5-vx",
        "claude-opus-5-5@anything",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdef123456",
        "claude-opus-5-5 ",
        "claude-opus-4-9",
    ] {
        assert_eq!(table.name_of(said), None, "{said}");
    }
    assert_eq!(table.name_of(&"x".repeat(100_000)), None);
}

#[test]
fn bedrocks_regional_ids_cost_more_where_it_says_so() {
    let million = usage(1_000_000, 0, 0, 0, 0);
    check("us.anthropic.claude-opus-5-5", million, &standard(), NOW, 4.4);
    check("us.anthropic.claude-opus-5-5", million, &geo("us"), NOW, 4.4);
    check("global.anthropic.claude-opus-5-5", million, &standard(), NOW, 4.0);
    check("anthropic.claude-opus-5-5", million, &standard(), NOW, 4.0);
    check("us-gov.anthropic.claude-opus-5-5", million, &standard(), NOW, 4.8);
    check("eu.anthropic.claude-3-7-sonnet-20250219-v1:0", usage(100_000, 0, 0, 0, 0), &standard(), NOW, 0.3);
}

#[test]
fn the_context_window_is_the_clients() {
    let table = PriceTable::builtin();
    for (model, tokens) in [
        ("claude-opus-4-6", 200_000),
        ("claude-opus-4-6[1m]", 1_000_000),
        ("claude-sonnet-4-5-20250929[1m]", 1_000_000),
        ("claude-opus-5-5", 1_000_000),
        ("claude-opus-5-5[1m]", 1_000_000),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", 200_000),
        // It has one window only.
        ("claude-haiku-4-5[1m]", 200_000),
    ] {
        assert_eq!(table.context_window(model), Some(tokens), "{model}");
    }
}

const OWN: &str = r#"
[[price]]
model = "claude-opus-5-5"
effective_from = 2026-09-22
input = 2
output = 10
cache_read = 0.1
cache_write_5m = 2.5
cache_write_1h = 4

[[price]]
model = "claude-sonnet-5-5"
effective_from = 2026-10-01
effective_until = 2026-11-01
input = 1
output = 1
cache_read = 0.05

[[price]]
model = "in-house"
aliases = ["in-house-latest-build"]
effective_from = 2026-01-01
input = 0.000001
output = 0
"#;

#[test]
fn a_users_row_goes_in_front_for_as_long_as_it_holds() {
    let builtin = PriceTable::builtin();
    let table = builtin.with_overrides(OWN).unwrap();
    let cost = |model: &str, at: &str| usd(&table, model, &usage(0, 0, 1_000_000, 0, 0), &standard(), at);
    // The same day replaces: nothing of the row of this version is left.
    assert_eq!(table.rows().filter(|row| row.model == "claude-opus-5-5").count(), 1);
    assert!((cost("claude-opus-5-5", NOW) - 0.1).abs() < 1e-12);
    assert_eq!(table.row_at("claude-opus-5-5", day(NOW)).unwrap().origin, Origin::User);
    assert!(cost("claude-opus-5-5", "2026-01-01") > 0.0, "the first row prices what claims to be older");
    // Another day is added, and decides while it holds, over the row of this version that begins meanwhile.
    assert!((cost("claude-sonnet-5-5", "2026-09-30") - 0.2).abs() < 1e-12);
    assert!((cost("claude-sonnet-5-5", "2026-10-02") - 0.05).abs() < 1e-12);
    assert!((cost("claude-sonnet-5-5", "2026-10-20") - 0.05).abs() < 1e-12);
    assert!((cost("claude-sonnet-5-5", "2026-11-01") - 0.1).abs() < 1e-12);
    assert!(cost("claude-sonnet-5-5", "2020-01-01") > 0.19, "what is older has the price of this version");
    // A new model, with one decimal more than is usual.
    let quote = table.quote("in-house-latest-build", &usage(1_000_000, 0, 0, 0, 0), &standard(), day(NOW));
    assert_eq!(quote.unwrap().total_nano_usd, 1_000);
    // Everything else is as it was.
    let tokens = usage(5, 4, 3, 2, 1);
    assert_eq!(
        table.quote("claude-haiku-5-5", &tokens, &standard(), day(NOW)),
        builtin.quote("claude-haiku-5-5", &tokens, &standard(), day(NOW))
    );
    // A row that is about prices alone leaves the context window as it was.
    assert_eq!(table.context_window("claude-sonnet-5-5"), Some(1_000_000));
    // Once more on top of it: the newer file replaces the older one's rows.
    let again = table.with_overrides(&OWN.replace("cache_read = 0.1", "cache_read = 0.2")).unwrap();
    assert!(
        (usd(&again, "claude-opus-5-5", &usage(0, 0, 1_000_000, 0, 0), &standard(), NOW) - 0.2).abs() < 1e-12
    );
}

#[test]
fn an_empty_file_changes_nothing() {
    let builtin = PriceTable::builtin();
    for text in ["", "# nothing yet\n", "version = 1\n"] {
        assert_eq!(builtin.with_overrides(text).unwrap().fingerprint(), builtin.fingerprint());
    }
}

#[test]
fn the_fingerprint_changes_with_what_decides_a_price_and_with_nothing_else() {
    let builtin = PriceTable::builtin();
    let of = |text: &str| builtin.with_overrides(text).unwrap().fingerprint();
    let own = of(OWN);
    assert_ne!(own, builtin.fingerprint());
    assert_eq!(own, of(OWN));
    for (from, to) in [
        ("input = 2", "input = 2.000001"),
        ("effective_from = 2026-10-01", "effective_from = 2026-10-02"),
        ("effective_until = 2026-11-01", "effective_until = 2026-11-02"),
        ("\"in-house\"", "\"in-house-2\""),
        ("output = 0\n", "output = 0\nfast = 2\n"),
        ("output = 0\n", "output = 0\nbatch = 0.5\n"),
        ("output = 0\n", "output = 0\nweb_search = 10\n"),
        ("output = 0\n", "output = 0\ngeo = { us = 1.1 }\n"),
        (
            "output = 0\n",
            "output = 0\nlong_context = [{ above = 5, kind = \"marginal\", input = 1, output = 1 }]\n",
        ),
        ("latest-build", "newest-build"),
    ] {
        assert!(OWN.contains(from));
        assert_ne!(of(&OWN.replace(from, to)), own, "{to}");
    }
    for to in
        ["output = 0\nnote = \"x\"\n", "output = 0\nsource = \"x\"\n", "output = 0\ncontext_window = 9\n"]
    {
        assert_eq!(of(&OWN.replace("output = 0\n", to)), own, "{to}");
    }
}

#[test]
fn a_broken_file_is_refused_with_line_and_hint() {
    let row = "[[price]]\nmodel = \"m\"\neffective_from = 2026-01-01\ninput = 1\noutput = 1\n";
    let tier = |text: &str| format!("{row}long_context = [{text}]\n");
    for (text, line, words) in [
        ("[[price]\n".to_owned(), 1, ""),
        (format!("{row}inptu = 1\n"), 6, "inptu"),
        ("[[prices]]\nmodel = \"m\"\n".to_owned(), 1, "prices"),
        (row.replace("input = 1", "input = -1"), 4, "`input` cannot be -1"),
        (row.replace("input = 1", "input = nan"), 4, "`input` cannot be NaN"),
        (row.replace("input = 1", "input = inf"), 4, "`input` cannot be inf"),
        (row.replace("input = 1", "input = 1e9"), 4, "20000"),
        (row.replace("input = 1", "input = 0.0000001"), 4, "six decimals"),
        (row.replace("input = 1", "input = \"1\""), 4, "bare number"),
        (row.replace("input = 1\n", ""), 1, "needs model, effective_from, input and output"),
        (row.replace("model = \"m\"", "model = \"\""), 2, "no model's name"),
        (row.replace("model = \"m\"", "model = \"a b\""), 2, "no model's name"),
        (row.replace("2026-01-01", "\"2026-01-01\""), 3, "write days bare"),
        (row.replace("2026-01-01", "2026-01-01T00:00:00Z"), 3, "write days bare"),
        (row.replace("2026-01-01", "2026-02-30"), 3, ""),
        (format!("{row}effective_until = 2026-01-01\n"), 6, "not after"),
        (format!("{row}fast = -1\n"), 6, "`fast` cannot be -1"),
        (format!("{row}batch = 101\n"), 6, "`batch` cannot be 101"),
        (format!("{row}geo = {{ us = 1.10001 }}\n"), 6, "three decimals"),
        (format!("{row}context_window = 0\n"), 6, "`context_window` cannot be 0"),
        (tier("{ above = -1, kind = \"marginal\", input = 1, output = 1 }"), 6, "`above` cannot be -1"),
        (tier("{ above = 1, kind = \"other\", input = 1, output = 1 }"), 6, "whole_request"),
        (
            tier(
                "{ above = 2, kind = \"marginal\", input = 1, output = 1 }, { above = 2, kind = \"marginal\", input = 1, output = 1 }",
            ),
            6,
            "do not rise",
        ),
        (
            tier(
                "{ above = 2, kind = \"marginal\", input = 1, output = 1 }, { above = 3, kind = \"whole_request\", input = 1, output = 1 }",
            ),
            6,
            "two kinds",
        ),
        (format!("{row}\n{row}"), 7, "in line 1"),
        ("version = 2\n".to_owned(), 1, "version 2"),
    ] {
        let PriceError(said) = PriceTable::builtin().with_overrides(&text).unwrap_err();
        let (first, hint) = said.split_once("\nhint: ").unwrap_or_else(|| panic!("no hint: {said}"));
        assert!(first.starts_with(&format!("line {line}: ")) && !first.contains('\n'), "{text}\n{said}");
        assert!(said.contains(words) && !hint.is_empty(), "{said}");
    }
    let clash = "[[price]]\nmodel = \"m\"\naliases = [\"claude-opus-5-5\"]\neffective_from = 2026-01-01\ninput = 1\noutput = 1\n";
    let PriceError(said) = PriceTable::builtin().with_overrides(clash).unwrap_err();
    assert!(said.contains("claude-opus-5-5") && said.contains("hint: "), "{said}");
    assert!(PriceTable::builtin().with_overrides(&" ".repeat(FILE_MAX_BYTES + 1)).is_err());
}

#[test]
fn a_table_without_rows_prices_nothing() {
    let empty = PriceTable::default();
    assert_eq!(empty.quote("claude-opus-5-5", &usage(1, 1, 1, 1, 1), &standard(), day(NOW)), None);
    assert_eq!(empty.fingerprint().len(), 16);
    assert_ne!(empty.fingerprint(), PriceTable::builtin().fingerprint());
}

fn any_usage(max: u64) -> impl Strategy<Value = Usage> {
    (0..=max, 0..=max, 0..=max, 0..=max, 0..=max, 0..=max).prop_map(
        |(input, output, cache_read, cache_write_5m, cache_write_1h, web_searches)| Usage {
            input,
            output,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            web_searches,
        },
    )
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let text = |names: &'static [&'static str]| {
        proptest::option::of(proptest::sample::select(names).prop_map(str::to_owned))
    };
    (any::<bool>(), text(&["batch", "standard", "priority"]), text(&["us", "global", "not_available"]))
        .prop_map(|(fast, service_tier, inference_geo)| Terms {
            speed: if fast { Speed::Fast } else { Speed::Standard },
            service_tier,
            inference_geo,
        })
}

/// A model of the table, as it is or as a cloud names it.
fn any_model() -> impl Strategy<Value = String> {
    let names: Vec<String> = PriceTable::builtin().rows().map(|row| row.model.clone()).collect();
    (proptest::sample::select(names), 0..4_u8).prop_map(|(name, form)| match form {
        0 => format!("us.anthropic.{name}-20260101-v1:0"),
        1 => format!("{name}[1m]"),
        _ => name,
    })
}

fn sum(a: &Usage, b: &Usage) -> Usage {
    Usage {
        input: a.input + b.input,
        output: a.output + b.output,
        cache_read: a.cache_read + b.cache_read,
        cache_write_5m: a.cache_write_5m + b.cache_write_5m,
        cache_write_1h: a.cache_write_1h + b.cache_write_1h,
        web_searches: a.web_searches + b.web_searches,
    }
}

fn parts(quote: &Quote) -> [i64; 5] {
    [
        quote.input_nano_usd,
        quote.output_nano_usd,
        quote.cache_read_nano_usd,
        quote.cache_write_nano_usd,
        quote.web_search_nano_usd,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Where no tier comes between, two requests cost what one of both would, but for the two roundings.
    #[test]
    fn costs_add_up(
        model in any_model(), terms in any_terms(), a in any_usage(12_000), b in any_usage(12_000), ms in 1_600_000_000_000..1_900_000_000_000_i64
    ) {
        let table = PriceTable::builtin();
        let at = TimestampMs::clamped(ms);
        let ask = |usage: &Usage| table.quote(&model, usage, &terms, at).map(|q| q.total_nano_usd);
        if let (Some(one), Some(other), Some(both)) = (ask(&a), ask(&b), ask(&sum(&a, &b))) {
            prop_assert!((one + other - both).abs() <= 1, "{one} + {other} = {both}");
        }
    }

    /// The kinds add up to the total, and each is what it costs alone, but for its rounding.
    #[test]
    fn the_kinds_add_up_to_the_total(model in any_model(), terms in any_terms(), usage in any_usage(15_000)) {
        let table = PriceTable::builtin();
        if let Some(quote) = table.quote(&model, &usage, &terms, day(NOW)) {
            prop_assert_eq!(parts(&quote).iter().sum::<i64>(), quote.total_nano_usd);
            prop_assert!(parts(&quote).iter().all(|part| *part >= 0));
            let output = Usage { output: usage.output, ..Usage::default() };
            let alone = table.quote(&model, &output, &terms, day(NOW)).unwrap();
            prop_assert!((alone.total_nano_usd - quote.output_nano_usd).abs() <= 1);
        }
    }

    /// More tokens never cost less, over tiers and up to the largest counts there are.
    #[test]
    fn more_never_costs_less(model in any_model(), terms in any_terms(), a in any_usage(u64::MAX / 2), shift in 0..64_u32, more in any_usage(u64::MAX / 2), shift_more in 0..64_u32) {
        let table = PriceTable::builtin();
        let small = |u: &Usage, by: u32| Usage {
            input: u.input >> by, output: u.output >> by, cache_read: u.cache_read >> by,
            cache_write_5m: u.cache_write_5m >> by, cache_write_1h: u.cache_write_1h >> by, web_searches: u.web_searches >> by,
        };
        let (a, more) = (small(&a, shift), small(&more, shift_more));
        let ask = |usage: &Usage| table.quote(&model, usage, &terms, day(NOW)).map(|q| q.total_nano_usd);
        if let (Some(less), Some(all)) = (ask(&a), ask(&sum(&a, &more))) {
            prop_assert!(0 <= less && less <= all, "{less} > {all}");
        }
    }

    /// Any counts, names and times give an answer.
    #[test]
    fn nothing_panics(model in "\\PC{0,40}|(us\\.)?anthropic\\.claude[-a-z0-9:.@]{0,20}|[a-z0-9.-]{0,12}-[0-9]{8}", usage in any_usage(u64::MAX), terms in any_terms(), ms in any::<i64>()) {
        let table = PriceTable::builtin();
        let _ = table.quote(&model, &usage, &terms, TimestampMs::clamped(ms));
        let _ = table.context_window(&model);
        let largest = table.quote("claude-opus-5-5", &usage, &terms, TimestampMs::clamped(ms)).unwrap();
        prop_assert!(largest.total_nano_usd >= 0);
        prop_assert_eq!(parts(&largest).iter().sum::<i64>(), largest.total_nano_usd);
    }

    /// A user's file that is any text is taken or refused with a word, never with a panic.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}|(\\[\\[price\\]\\]\n(model|input|output|effective_from|geo|fast) = [-0-9.\"a-z{}]{1,12}\n){0,6}") {
        if let Err(PriceError(said)) = PriceTable::builtin().with_overrides(&text) {
            prop_assert!(!said.is_empty());
        }
    }
}
