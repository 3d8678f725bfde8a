//! Secrets leave the payload here, before anything else sees it.
//!
//! Rules are data: a kind, the words one of which must be there, and a pattern whose group `secret` is replaced by
//! `[REDACTED:<kind>]`. One pass of an automaton over the text finds which rules can match at all, so text without
//! secrets costs that pass alone. Patterns run in linear time (no backtracking). A secret never begins or ends inside
//! of a JSON escape and holds no quote, so JSON stays JSON; redacting twice changes nothing more.
//!
//! Limits: what is not named here is not found. Hashes, UUIDs, git ids and images are left alone on purpose, so a
//! secret without a telling form or a telling name beside it passes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder};

/// How often a text is gone over, since a secret may only be told apart once its neighbour is gone. Text without
/// secrets is gone over once, text with some twice.
const PASSES_MAX: usize = 8;

/// A longer value is data, not a secret.
const VALUE_MAX_BYTES: usize = 4096;

/// The largest compiled pattern, in bytes.
const PATTERN_SIZE_MAX: usize = 4 << 20;

/// A kind of secret, and how it is recognised.
struct Rule {
    kind: &'static str,
    /// In lower case; at least one must be in the text. Matched without regard to case.
    words: &'static [&'static str],
    /// Group `secret` is replaced.
    pattern: &'static str,
    check: Check,
}

/// What else must hold, beside the pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// The form is telling enough where no letter, digit or underscore stands before it.
    Form,
    /// A value beside a telling name: it must look random or be a quoted password, and be no placeholder or code.
    Value,
    /// A password in a place for passwords: anything but a placeholder.
    Password,
}

const RULES: &[Rule] = &[
    form("anthropic_key", &["sk-ant-"], r"(?P<secret>sk-ant-[A-Za-z0-9_-]{20,})"),
    form(
        "openai_key",
        &["sk-"],
        r"(?P<secret>sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{48})",
    ),
    form("openrouter_key", &["sk-or-"], r"(?P<secret>sk-or-v1-[0-9a-f]{64})"),
    form(
        "github_token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        r"(?P<secret>gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})",
    ),
    form(
        "gitlab_token",
        &["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"],
        r"(?P<secret>gl(?:pat|dt|rt|cbt|ptt)-[A-Za-z0-9_-]{20,})",
    ),
    form(
        "aws_access_key",
        &["akia", "asia", "abia", "acca"],
        r"(?P<secret>(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})",
    ),
    value(
        "aws_secret_key",
        &["aws_secret", "secretaccesskey", "secret_access_key"],
        r#"(?i:(?:aws_?)?secret_?(?:access_?)?key)(?:\\*["'])?\s{0,8}(?:=>|:=|[:=])\s{0,8}(?:\\*["'])?(?P<secret>[A-Za-z0-9/+=]{40})"#,
    ),
    form("google_api_key", &["aiza"], r"(?P<secret>AIza[A-Za-z0-9_-]{35})"),
    form(
        "google_oauth",
        &["gocspx-", "ya29."],
        r"(?P<secret>GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{30,})",
    ),
    form(
        "slack_token",
        &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe", "xapp-"],
        r"(?P<secret>xox[bpars]-[A-Za-z0-9-]{20,}|xoxe(?:\.xox[bp])?-[A-Za-z0-9-]{20,}|xapp-[0-9]-[A-Z0-9]{8,16}-[0-9]{8,16}-[a-f0-9]{40,})",
    ),
    form(
        "slack_webhook",
        &["hooks.slack.com"],
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<secret>[A-Za-z0-9_/+-]{20,})",
    ),
    form(
        "discord_webhook",
        &["/api/webhooks/"],
        r"discord(?:app)?\.com/api/webhooks/(?P<secret>[0-9]{16,20}/[A-Za-z0-9_-]{60,})",
    ),
    form(
        "telegram_token",
        &["api.telegram.org/bot"],
        r"api\.telegram\.org/bot(?P<secret>[0-9]{8,12}:[A-Za-z0-9_-]{35})",
    ),
    form(
        "stripe_key",
        &["sk_live_", "rk_live_", "sk_test_", "rk_test_", "whsec_"],
        r"(?P<secret>[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,})",
    ),
    form("npm_token", &["npm_"], r"(?P<secret>npm_[A-Za-z0-9]{36})"),
    form("pypi_token", &["pypi-age"], r"(?P<secret>pypi-AgE[A-Za-z0-9_-]{50,})"),
    form("huggingface_token", &["hf_"], r"(?P<secret>hf_[A-Za-z]{34})"),
    form("sendgrid_key", &["sg."], r"(?P<secret>SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})"),
    form("digitalocean_token", &["dop_v1_", "doo_v1_", "dor_v1_"], r"(?P<secret>do[opr]_v1_[a-f0-9]{64})"),
    form(
        "shopify_token",
        &["shpat_", "shpca_", "shppa_", "shpss_"],
        r"(?P<secret>shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32})",
    ),
    form("linear_key", &["lin_api_"], r"(?P<secret>lin_api_[A-Za-z0-9]{40})"),
    form("notion_token", &["ntn_", "secret_"], r"(?P<secret>ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43})"),
    form(
        "age_key",
        &["age-secret-key-1"],
        r"(?P<secret>AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})",
    ),
    form("jwt", &["eyj"], r"(?P<secret>eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"),
    form(
        "private_key",
        &["private key"],
        r"(?P<secret>-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\s:,.()-]|\\+[nrt])*?-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----)",
    ),
    Rule {
        kind: "url_password",
        words: &["://"],
        pattern: r"://[A-Za-z0-9._~%+-]{0,100}:(?P<secret>[A-Za-z0-9._~%!$&*+,;=-]{3,})@[A-Za-z0-9\[]",
        check: Check::Password,
    },
    value("bearer_token", &["bearer"], r"(?i:bearer) {1,4}(?P<secret>[A-Za-z0-9._~+/-]{16,}={0,2})"),
    value(
        "basic_auth",
        &["basic"],
        r#"(?i:authorization)(?:\\*["'])?\s{0,4}:\s{0,4}(?:\\*["'])?(?i:basic) {1,4}(?P<secret>[A-Za-z0-9+/]{12,}={0,2})"#,
    ),
    value(
        "session_cookie",
        &["cookie"],
        r"(?i:(?:set-)?cookie): (?:[A-Za-z0-9_-]{1,40}=[A-Za-z0-9._%-]{0,40}; ){0,8}(?i:[A-Za-z0-9_-]{0,20}(?:sess(?:ion)?(?:id)?|auth|token))=(?P<secret>[A-Za-z0-9._%+/=-]{16,})",
    ),
    value(
        "secret_value",
        &[
            "password",
            "passwd",
            "secret",
            "token",
            "api_key",
            "apikey",
            "api-key",
            "access_key",
            "private_key",
            "credential",
        ],
        r#"(?i:(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)(?:_?(?:key|value|hash))?)(?:\\*["'])?\s{0,8}(?:=>|:=|[:=])\s{0,8}(?:\\*["'])?(?P<secret>[A-Za-z0-9_.~!@#%^&*+/=-]{8,})"#,
    ),
];

const fn form(kind: &'static str, words: &'static [&'static str], pattern: &'static str) -> Rule {
    Rule { kind, words, pattern, check: Check::Form }
}

const fn value(kind: &'static str, words: &'static [&'static str], pattern: &'static str) -> Rule {
    Rule { kind, words, pattern, check: Check::Value }
}

/// Finds and replaces secrets.
pub struct Redactor {
    /// One pattern for all words of all rules.
    prefilter: AhoCorasick,
    /// Which rule each word of the prefilter belongs to.
    rule_of_word: Vec<usize>,
    /// Compiled when a text first needs it.
    patterns: Vec<LazyLock<Regex, Box<dyn FnOnce() -> Regex + Send>>>,
}

/// A text without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted<'a> {
    /// The text; borrowed where nothing was replaced.
    pub text: Cow<'a, str>,
    /// How many of each kind were replaced, by kind.
    pub counts: Vec<(&'static str, u32)>,
}

impl Redacted<'_> {
    /// How many secrets were replaced.
    pub fn total(&self) -> u32 {
        self.counts.iter().map(|(_, count)| count).sum()
    }
}

/// A secret's place.
struct Span {
    start: usize,
    end: usize,
    kind: &'static str,
}

impl Redactor {
    /// The redactor with the rules above, built once. Patterns are compiled when first needed.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Redactor> = LazyLock::new(Redactor::new);
        &BUILTIN
    }

    /// The kinds it knows.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        RULES.iter().map(|rule| rule.kind)
    }

    fn new() -> Self {
        let words: Vec<(usize, &str)> = RULES
            .iter()
            .enumerate()
            .flat_map(|(index, rule)| rule.words.iter().map(move |word| (index, *word)))
            .collect();
        let prefilter = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(words.iter().map(|(_, word)| word))
            .expect("a few dozen short words; a test builds it");
        let patterns = RULES
            .iter()
            .map(|rule| {
                let compile: Box<dyn FnOnce() -> Regex + Send> = Box::new(|| compile(rule.pattern));
                LazyLock::new(compile)
            })
            .collect();
        Self { prefilter, rule_of_word: words.into_iter().map(|(index, _)| index).collect(), patterns }
    }

    /// Replaces every secret in a text, JSON or not; JSON stays valid.
    pub fn redact<'a>(&self, text: &'a str) -> Redacted<'a> {
        let mut text = Cow::Borrowed(text);
        let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
        for _ in 0..PASSES_MAX {
            let spans = self.spans(&text);
            if spans.is_empty() {
                break;
            }
            for span in &spans {
                *counts.entry(span.kind).or_default() += 1;
            }
            text = Cow::Owned(replaced(&text, &spans));
        }
        Redacted { text, counts: counts.into_iter().collect() }
    }

    /// The secrets of a text, in order and without overlap: the earlier wins, of two at one place the rule named first.
    fn spans(&self, text: &str) -> Vec<Span> {
        let mut possible = vec![false; RULES.len()];
        for found in self.prefilter.find_overlapping_iter(text) {
            possible[self.rule_of_word[found.pattern().as_usize()]] = true;
        }
        let mut found = Vec::new();
        for (index, rule) in RULES.iter().enumerate().filter(|(index, _)| possible[*index]) {
            for captures in self.patterns[index].captures_iter(text.as_bytes()) {
                if let Some(secret) = captures.name("secret") {
                    found.push((index, Span { start: secret.start(), end: secret.end(), kind: rule.kind }));
                }
            }
        }
        found.sort_by_key(|(index, span)| (span.start, *index));
        let mut kept: Vec<Span> = Vec::with_capacity(found.len());
        for (index, span) in found {
            let last_end = kept.last().map_or(0, |last| last.end);
            if span.start >= last_end && holds(RULES[index].check, text, &span, last_end) {
                kept.push(span);
            }
        }
        kept
    }
}

fn compile(pattern: &str) -> Regex {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(PATTERN_SIZE_MAX)
        .build()
        .expect("a constant pattern that a test compiles")
}

fn replaced(text: &str, spans: &[Span]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for span in spans {
        out.push_str(&text[at..span.start]);
        out.push_str("[REDACTED:");
        out.push_str(span.kind);
        out.push(']');
        at = span.end;
    }
    out.push_str(&text[at..]);
    out
}

/// Whether a match is a secret, and may be cut out of the text as it stands.
fn holds(check: Check, text: &str, span: &Span, last_end: usize) -> bool {
    let bytes = text.as_bytes();
    let before = &bytes[..span.start];
    if is_escaped(before) {
        // The first letter belongs to an escape.
        return false;
    }
    let secret = &text[span.start..span.end];
    match check {
        // Tokens that run into each other begin where the one before ends.
        Check::Form => begins_a_word(before) || span.start == last_end,
        Check::Password => !is_placeholder(secret) && !is_port(secret),
        Check::Value => {
            let next = bytes.get(span.end).copied();
            let quoted =
                matches!(before.last(), Some(b'"' | b'\'')) && matches!(next, Some(b'"' | b'\'' | b'\\'));
            secret.len() <= VALUE_MAX_BYTES
                && !is_placeholder(secret)
                && !is_code(secret, next)
                && is_random(secret, quoted)
        }
    }
}

/// Whether an odd number of backslashes stands at the end.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Whether a word may begin after this: the letter of an escape (`\n`) is none of the word before.
fn begins_a_word(before: &[u8]) -> bool {
    match before.split_last() {
        None => true,
        Some((b'n' | b'r' | b't' | b'b' | b'f', rest)) if is_escaped(rest) => true,
        Some((last, _)) => !(last.is_ascii_alphanumeric() || *last == b'_'),
    }
}

/// `http://localhost:3000@other` has a port where a password would stand.
fn is_port(secret: &str) -> bool {
    secret.len() <= 5 && secret.bytes().all(|byte| byte.is_ascii_digit())
}

/// Words that stand where a secret would.
fn is_placeholder(secret: &str) -> bool {
    const WORDS: &[&str] = &[
        "example",
        "your",
        "changeme",
        "change_me",
        "placeholder",
        "redacted",
        "xxxx",
        "****",
        "....",
        "dummy",
        "sample",
        "insert",
        "todo",
        "replace",
        "foobar",
        "123456789",
    ];
    let lower = secret.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
        || matches!(
            lower.as_str(),
            "password" | "passwd" | "pass" | "secret" | "token" | "user" | "username" | "pwd"
        )
        || secret.bytes().all(|byte| byte == secret.as_bytes()[0])
}

/// Names and expressions of source code: `os.environ`, `getToken(`, `config.api_key`, `userToken`.
fn is_code(secret: &str, next: Option<u8>) -> bool {
    matches!(next, Some(b'(' | b'[' | b'{' | b'$' | b'<'))
        || secret.starts_with(['.', '/', '-', '*', '&', '=', '#', '%', '!'])
        || secret.contains('.') && secret.split('.').all(|part| part.split('_').all(is_identifier))
        || is_identifier(secret)
}

/// Letters and underscores, or words with a number at their end, as names are written.
fn is_identifier(text: &str) -> bool {
    let words = text.trim_end_matches(|c: char| c.is_ascii_digit());
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && words.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-'))
}

/// Whether a value looks made by chance: letters and digits mixed, and many different ones for its length.
fn is_random(secret: &str, quoted: bool) -> bool {
    let has_digit = secret.bytes().any(|byte| byte.is_ascii_digit());
    let has_letter = secret.bytes().any(|byte| byte.is_ascii_alphabetic());
    let (length_min, entropy_min) = if quoted { (10, 2.8) } else { (16, 3.2) };
    has_digit && has_letter && secret.len() >= length_min && entropy_bits(secret) >= entropy_min
}

/// Shannon entropy of the bytes, in bits each.
fn entropy_bits(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    for byte in text.bytes() {
        counts[byte as usize] += 1;
    }
    let length = text.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / length;
            -share * share.log2()
        })
        .sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn redact(text: &str) -> (String, Vec<(&'static str, u32)>) {
        let redacted = Redactor::builtin().redact(text);
        (redacted.text.into_owned(), redacted.counts)
    }

    /// Put together here so that no scanner takes this file for a leak.
    fn sample(head: &str, tail: &str) -> String {
        format!("{head}{tail}")
    }

    fn samples() -> Vec<(&'static str, String)> {
        let letters = "aB3dE5gH7jK9mN1pQ2sT4vW6xY8zA0cD2eF4gH6iJ8kL0mN2oP4qR6sT8uV0wX2yZ4";
        let hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        vec![
            ("anthropic_key", sample("sk-ant-api03-", letters)),
            ("openai_key", sample("sk-proj-", letters)),
            ("openai_key", sample("sk-", &letters[..48])),
            ("openrouter_key", sample("sk-or-v1-", hex)),
            ("github_token", sample("ghp_", &letters[..36])),
            ("github_token", sample("github_pat_", &format!("{}_{}", &letters[..22], &letters[..59]))),
            ("gitlab_token", sample("glpat-", &letters[..20])),
            ("aws_access_key", sample("AKIA", "IOSFODNN7ABCDEFG")),
            ("google_api_key", sample("AIza", &letters[..35])),
            ("google_oauth", sample("GOCSPX-", &letters[..28])),
            ("slack_token", sample("xoxb-", "123456789012-123456789012-abcdefABCDEF")),
            ("stripe_key", sample("sk_live_", &letters[..24])),
            ("npm_token", sample("npm_", &letters[..36])),
            ("pypi_token", sample("pypi-AgE", &letters[..60])),
            ("huggingface_token", sample("hf_", "abcdefghijklmnopqrstuvwxyzabcdefgh")),
            ("sendgrid_key", sample("SG.", &format!("{}.{}", &letters[..22], &letters[..43]))),
            ("digitalocean_token", sample("dop_v1_", hex)),
            ("shopify_token", sample("shpat_", &hex[..32])),
            ("linear_key", sample("lin_api_", &letters[..40])),
            ("notion_token", sample("ntn_", &letters[..44])),
            (
                "age_key",
                sample(
                    "AGE-SECRET-KEY-1",
                    &"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"[..58],
                ),
            ),
            (
                "jwt",
                sample(
                    "eyJhbGciOiJIUzI1NiJ9",
                    ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
                ),
            ),
        ]
    }

    #[test]
    fn every_pattern_compiles_and_has_its_group_and_kinds_are_unique() {
        let mut kinds: Vec<_> = Redactor::kinds().collect();
        for rule in RULES {
            let regex = compile(rule.pattern);
            assert!(regex.capture_names().flatten().any(|name| name == "secret"), "{}", rule.kind);
            assert!(rule.words.iter().all(|word| *word == word.to_ascii_lowercase()), "{}", rule.kind);
        }
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), RULES.len());
    }

    #[test]
    fn tokens_are_found_wherever_they_stand() {
        for (kind, secret) in samples() {
            for text in [
                secret.clone(),
                format!("curl -H 'x: {secret}'"),
                json!({ "command": format!("a\n{secret}\nb") }).to_string(),
                json!({ "nested": json!({ "x": format!("k={secret}\"") }).to_string() }).to_string(),
            ] {
                let (redacted, counts) = redact(&text);
                assert!(!redacted.contains(&secret), "{kind} in {text}: {redacted}");
                assert!(redacted.contains(&format!("[REDACTED:{kind}]")), "{kind} in {text}: {redacted}");
                assert_eq!(counts, [(kind, 1)], "{text}");
            }
        }
    }

    #[test]
    fn secrets_beside_a_telling_name_are_found() {
        let table = [
            (r#"{"password": "hunter2Xy9!z"}"#, r#"{"password": "[REDACTED:secret_value]"}"#),
            ("export DB_PASSWORD=s3cr3tV4lu3abcd9q", "export DB_PASSWORD=[REDACTED:secret_value]"),
            ("API_KEY='a8f5f167f44f4964e6c998dee827110c'", "API_KEY='[REDACTED:secret_value]'"),
            (
                "Authorization: Bearer 9f86d081884c7d659a2feaa0c55ad015",
                "Authorization: Bearer [REDACTED:bearer_token]",
            ),
            ("postgres://admin:s3cret@db:5432/x", "postgres://admin:[REDACTED:url_password]@db:5432/x"),
            (
                "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzKEY",
                "aws_secret_access_key = [REDACTED:aws_secret_key]",
            ),
            (
                r#"{"c":"x \"token\": \"9f86d081884c7d65\" y"}"#,
                r#"{"c":"x \"token\": \"[REDACTED:secret_value]\" y"}"#,
            ),
        ];
        for (text, want) in table {
            assert_eq!(redact(text).0, want);
        }
    }

    #[test]
    fn private_keys_are_found_raw_and_in_json() {
        let key = format!(
            "-----BEGIN RSA {} KEY-----\nMIIEpAIBAAKCAQEA7\nabc+/=\n-----END RSA {} KEY-----",
            "PRIVATE", "PRIVATE"
        );
        assert_eq!(redact(&key).0, "[REDACTED:private_key]");
        let nested = json!({ "a": json!({ "k": key }).to_string() }).to_string();
        let (redacted, _) = redact(&nested);
        assert!(!redacted.contains("MIIE"), "{redacted}");
        assert!(serde_json::from_str::<Value>(&redacted).is_ok());
    }

    #[test]
    fn code_hashes_ids_and_images_are_left_alone() {
        for text in [
            "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
            "id 123e4567-e89b-12d3-a456-426614174000",
            "let token = getToken(user);",
            "password: string;",
            "const apiKey = process.env.OPENAI_API_KEY;",
            "token = os.environ[\"GITHUB_TOKEN\"]",
            "PASSWORD=${DB_PASSWORD}",
            "password=your_password_here1",
            "max_tokens=4096, total_tokens: 123456",
            "\"input_tokens\":12345,\"output_tokens\":99",
            "secret = \"changeme123\"",
            "src=\"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk\"",
            "sha256-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "https://example.com:8080/a@b",
            "ssh git@github.com:a/b.git",
            "toolu_01dbe1131412d273bc3ce8e076",
            "fn check_token(token: &str, secret: SecretKey) -> Result<Token, Error>",
            "task-sk-learn and risk-free",
            "-----BEGIN PUBLIC KEY-----",
            "client_secret: env.AUTH0_CLIENT_SECRET,\\n",
            "http://localhost:3000@evil.com",
            "the token is stored in ~/.config/app/token.json",
        ] {
            let redacted = Redactor::builtin().redact(text);
            assert!(matches!(redacted.text, Cow::Borrowed(_)), "{text} -> {}", redacted.text);
        }
    }

    /// Text of pieces that secrets, escapes and quotes are made of.
    fn adversarial() -> impl Strategy<Value = String> {
        let tokens: Vec<String> = samples().into_iter().map(|(_, secret)| secret).collect();
        let piece = prop_oneof![
            3 => prop::sample::select(tokens),
            2 => prop::sample::select(vec!["\n", "\\", "\"", "\\n", "é", "\u{0}", " ", "=", ": ", "'", "@", "://", "-", ".", ","]).prop_map(str::to_owned),
            2 => prop::sample::select(vec!["password", "token", "Bearer ", "https://u:", "secret_", "npm_", "n", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "sk-", "AKIA"]).prop_map(str::to_owned),
            1 => "[a-zA-Z0-9+/_.-]{1,40}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn json_stays_json_and_redacting_twice_changes_nothing(text in adversarial(), key in adversarial()) {
            let inner = json!({ key.as_str(): text, "n": [text] }).to_string();
            for json in [json!({ "a": inner, key: text }).to_string(), inner] {
                let (once, _) = redact(&json);
                prop_assert!(serde_json::from_str::<Value>(&once).is_ok(), "{json} -> {once}");
                let (twice, counts) = redact(&once);
                prop_assert_eq!(&once, &twice);
                prop_assert!(counts.is_empty());
            }
        }

        #[test]
        fn any_text_is_taken(text in any::<String>()) {
            let (once, _) = redact(&text);
            prop_assert_eq!(&redact(&once).0, &once);
        }
    }
}
