//! Rules over the text of single files.

use super::Finding;
use super::scan::{Line, scan};
use std::path::{Component, Path, PathBuf};

/// rustfmt wraps code at less; this catches comments and what rustfmt gave up on. Tests are left
/// out: rustfmt does not see into the macros of property tests.
const LINE_CHARS_MAX: usize = 140;

/// Starts of SQL statements, as they stand in a string.
const SQL: [&str; 9] = [
    "SELECT ",
    "INSERT INTO",
    "INSERT OR ",
    "DELETE FROM",
    "CREATE TABLE",
    "CREATE INDEX",
    "ALTER TABLE",
    "DROP TABLE",
    "PRAGMA ",
];

/// Crates that may hold SQL: the store, and the bench that measures the store's floor.
const SQL_HOMES: [&str; 2] = ["crates/taffrail-store", "crates/taffrail-bench"];

/// Code that says "not finished" or hides a test.
const UNFINISHED: [(&str, &str); 4] = [
    ("todo!", "finish it, or leave it out"),
    ("unimplemented!", "finish it, or leave it out"),
    ("dbg!", "use tracing, or leave it out"),
    ("#[ignore", "a test that does not run proves nothing: mend it or delete it"),
];

/// Crates that only compute, and what would tie them to a machine. Their tests may.
const PURE_HOMES: [&str; 4] = [
    "crates/taffrail-event/src",
    "crates/taffrail-analytics/src",
    "crates/taffrail-guard/src",
    "crates/taffrail-engine/src",
];
const NOT_PURE: [&str; 6] =
    ["std::fs", "std::env", "std::net", "std::process", "SystemTime::now", "Instant::now"];

/// The one good reason to leave a test out of the run: another test starts it as a process.
const STARTED_BY_ANOTHER: &str = "the child of ";

/// Runs every rule that applies to this file. `file` is relative to the root.
pub(crate) fn check(file: &Path, text: &str, machine: &[String]) -> Vec<Finding> {
    let mut findings = machine_path(file, text, machine);
    match file.extension().and_then(|e| e.to_str()) {
        Some("rs") => findings.extend(check_rust(file, text)),
        Some("vue") => findings.extend(check_vue(file, text)),
        Some("toml") if file.ends_with("Cargo.toml") && file.components().count() > 1 => {
            findings.extend(check_manifest(file, text));
        }
        _ => {}
    }
    findings
}

/// Paths of this very machine that have no place in a file: the checkout, and the tools'
/// folders in the home directory. Home itself is left out: for root it is an everyday word.
pub(crate) fn machine_paths(root: &Path) -> Vec<String> {
    let mut paths = vec![root.to_owned()];
    paths.extend(root.canonicalize());
    if let Some(home) = std::env::home_dir() {
        paths.extend([".cargo", ".rustup", ".npm", ".claude"].map(|folder| home.join(folder)));
    }
    paths.sort();
    paths.dedup();
    let deep_enough = |path: &&PathBuf| path.components().count() > 2;
    paths.iter().filter(deep_enough).map(|path| path.display().to_string()).collect()
}

fn machine_path(file: &Path, text: &str, machine: &[String]) -> Vec<Finding> {
    let holds = |line: &str| machine.iter().any(|path| line.contains(path.as_str()));
    let lines = text.lines().enumerate().filter(|(_, line)| holds(line));
    lines.map(|(at, _)| Finding::new(place(file, at), "holds a path of this machine")).collect()
}

fn check_rust(file: &Path, text: &str) -> Vec<Finding> {
    let lines = scan(text);
    let tests_from = tests_start(file, &lines);
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::new(place(file, 0), "opens without `//!`: say its purpose and limits"));
    }
    for (at, (line, raw)) in lines.iter().zip(text.split('\n')).enumerate() {
        let mut add = |message: String| findings.push(Finding::new(place(file, at), message));
        for (word, advice) in UNFINISHED {
            if line.code.contains(word) && !line.strings.starts_with(STARTED_BY_ANOTHER) {
                add(format!("`{word}`: {advice}"));
            }
        }
        let is_long = at < tests_from && raw.chars().count() > LINE_CHARS_MAX;
        if is_long && line.strings.is_empty() && !raw.contains("://") {
            add(format!("is longer than {LINE_CHARS_MAX} characters"));
        }
        if at < tests_from && PURE_HOMES.iter().any(|home| file.starts_with(home)) {
            for word in NOT_PURE.iter().filter(|word| line.code.contains(**word)) {
                add(format!("`{word}` in a pure crate: take what is needed as an argument"));
            }
        }
        if at < tests_from && !is_sql_home(file) && holds_sql(&line.strings) {
            add("holds SQL: it belongs in taffrail-store".to_owned());
        }
    }
    findings
}

/// The first line of the file's tests; `tests.rs` and what lies under `tests/` is all test.
fn tests_start(file: &Path, lines: &[Line]) -> usize {
    let is_test =
        |part| part == Component::Normal("tests".as_ref()) || part == Component::Normal("tests.rs".as_ref());
    if file.components().any(is_test) {
        return 0;
    }
    lines.iter().position(|line| line.code.contains("#[cfg(test)]")).unwrap_or(lines.len())
}

fn is_sql_home(file: &Path) -> bool {
    let this_file = Path::new("xtask/src/tidy/source.rs");
    file == this_file || SQL_HOMES.iter().any(|home| file.starts_with(home))
}

/// A statement at the start of a string or of a line of it; prose may hold the words.
fn holds_sql(strings: &str) -> bool {
    strings.split('\0').any(|string| SQL.iter().any(|start| string.trim_start().starts_with(start)))
}

fn check_vue(file: &Path, text: &str) -> Vec<Finding> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.contains("v-html"));
    lines.map(|(at, _)| Finding::new(place(file, at), "`v-html`: payloads are untrusted text")).collect()
}

fn check_manifest(file: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (wanted, why) in [
        ("[lints]\nworkspace = true", "every crate takes the workspace's lints"),
        ("publish.workspace = true", "every crate says whether it is published"),
        ("license.workspace = true", "every crate carries the licence"),
        ("description = ", "every crate says in a line what it is for"),
    ] {
        if !text.contains(wanted) {
            let wanted = wanted.replace('\n', " ");
            findings.push(Finding::new(file.display().to_string(), format!("lacks `{wanted}`: {why}")));
        }
    }
    findings
}

fn place(file: &Path, line_index: usize) -> String {
    format!("{}:{}", file.display(), line_index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "//! Purpose.\n";

    #[track_caller]
    fn fails(file: &str, text: &str, message: &str) {
        let findings = check(Path::new(file), text, &["/srv/checkout".to_owned()]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].message.contains(message), "{findings:?}");
    }

    #[track_caller]
    fn passes(file: &str, text: &str) {
        assert_eq!(check(Path::new(file), text, &["/srv/checkout".to_owned()]), []);
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        fails("crates/a/src/lib.rs", "fn a() {}\n", "opens without");
        passes("crates/a/src/lib.rs", HEAD);
    }

    #[test]
    fn unfinished_code_and_hidden_tests_fail() {
        for code in ["todo!()", "unimplemented!()", "dbg!(1)", "#[ignore] fn t() {}"] {
            fails("src/a.rs", &format!("{HEAD}fn a() {{ {code} }}\n"), "`");
        }
        passes("src/a.rs", &format!("{HEAD}#[ignore = \"the child of the_test\"]\nfn t() {{}}\n"));
        passes("src/a.rs", &format!("{HEAD}// a todo!() in words\nconst A: &str = \"todo!()\";\n"));
    }

    #[test]
    fn sql_stays_in_the_store() {
        let sql = format!("{HEAD}const Q: &str = \"SELECT 1\";\n");
        fails("crates/taffrail-server/src/a.rs", &sql, "holds SQL");
        fails("src/a.rs", &format!("{HEAD}const Q: &str = r#\"\n  CREATE TABLE t\"#;\n"), "holds SQL");
        fails("src/a.rs", &format!("{HEAD}const Q: [&str; 2] = [\"a\", \"PRAGMA x\"];\n"), "holds SQL");
        passes("crates/taffrail-store/src/a.rs", &sql);
        passes("crates/taffrail-server/tests/a.rs", &sql);
        passes("src/a.rs", &format!("{HEAD}#[cfg(test)]\nmod tests {{ const Q: &str = \"SELECT 1\"; }}\n"));
        passes("src/a.rs", &format!("{HEAD}// SELECT is SQL\nconst Q: &str = \"please SELECT one\";\n"));
    }

    #[test]
    fn a_pure_crate_touches_no_machine_outside_its_tests() {
        let clock = format!("{HEAD}fn a() {{ let _ = std::time::SystemTime::now(); }}\n");
        fails("crates/taffrail-event/src/a.rs", &clock, "pure crate");
        fails("crates/taffrail-guard/src/a.rs", &format!("{HEAD}use std::fs;\n"), "pure crate");
        passes("crates/taffrail-hook/src/a.rs", &clock);
        passes("crates/taffrail-event/src/tests.rs", &clock);
        passes(
            "crates/taffrail-event/src/a.rs",
            &format!("{HEAD}#[cfg(test)]\nmod tests {{ use std::fs; }}\n"),
        );
    }

    #[test]
    fn long_lines_fail_unless_a_text_or_an_address_makes_them_long() {
        let long = "x".repeat(LINE_CHARS_MAX);
        fails("src/a.rs", &format!("{HEAD}// {long}\n"), "longer than");
        passes("src/a.rs", &format!("{HEAD}const A: &str = \"{long}\";\n// http://{long}\n"));
    }

    #[test]
    fn a_path_of_this_machine_fails_in_any_text() {
        fails("docs/a.md", "see /srv/checkout/docs\n", "path of this machine");
        passes("docs/a.md", "see /srv/other\n");
        assert!(machine_paths(Path::new("/srv/checkout")).contains(&"/srv/checkout".to_owned()));
    }

    #[test]
    fn a_page_shows_no_raw_html() {
        fails("web/src/A.vue", "<p v-html=\"x\" />\n", "untrusted");
    }

    #[test]
    fn a_manifest_takes_the_workspace_rules() {
        let whole = "description = \"x\"\nlicense.workspace = true\npublish.workspace = true\n\n[lints]\nworkspace = true\n";
        passes("crates/a/Cargo.toml", whole);
        fails(
            "crates/a/Cargo.toml",
            &whole.replace("[lints]\nworkspace = true\n", ""),
            "takes the workspace's lints",
        );
    }
}
