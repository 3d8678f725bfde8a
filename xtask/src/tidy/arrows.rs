//! Which crate may use which: the workspace's arrows, and the dependencies kept in one place.

use super::Finding;
use crate::process;
use crate::workspace::{self, Metadata, Package};
use anyhow::{Context, Result};
use std::collections::BTreeSet;

/// One crate of the workspace: whom it may use, and why not more.
struct Arrow {
    name: &'static str,
    may_use: &'static [&'static str],
    reason: &'static str,
}

/// A crate that is not listed here fails the check: whoever adds one says what it may see.
const ARROWS: &[Arrow] = &[
    Arrow { name: "taffrail-event", may_use: &[], reason: "the vocabulary of all others" },
    Arrow { name: "taffrail-analytics", may_use: &[], reason: "pure maths over plain numbers" },
    Arrow { name: "taffrail-guard", may_use: &[], reason: "a judgement depends on its rules alone" },
    Arrow {
        name: "taffrail-engine",
        may_use: &["taffrail-event", "taffrail-analytics", "taffrail-guard"],
        reason: "engine and store never see each other; the server wires them",
    },
    Arrow {
        name: "taffrail-store",
        may_use: &["taffrail-event", "taffrail-analytics"],
        reason: "engine and store never see each other; the server wires them",
    },
    Arrow {
        name: "taffrail-hook",
        may_use: &["taffrail-event", "taffrail-guard"],
        reason: "it starts once per hook event: no store, no server, no runtime",
    },
    Arrow {
        name: "taffrail-server",
        may_use: &[
            "taffrail-event",
            "taffrail-analytics",
            "taffrail-guard",
            "taffrail-engine",
            "taffrail-store",
            "taffrail-hook",
        ],
        reason: "it wires the others, and knows no command line",
    },
    Arrow {
        name: "taffrail",
        may_use: &[
            "taffrail-event",
            "taffrail-analytics",
            "taffrail-guard",
            "taffrail-engine",
            "taffrail-store",
            "taffrail-server",
            "taffrail-hook",
        ],
        reason: "the command line asks the server for what is computed, and replays recordings by itself",
    },
    Arrow {
        name: "taffrail-bench",
        may_use: &["taffrail-event", "taffrail-analytics", "taffrail-store", "taffrail-hook"],
        reason: "it measures the server from outside, as a process",
    },
    Arrow { name: "xtask", may_use: &[], reason: "it is built before everything else" },
];

/// An outside dependency and the only crates that may use it outside their tests.
struct Quarantine {
    dependencies: &'static [&'static str],
    only: &'static [&'static str],
    reason: &'static str,
}

const QUARANTINES: &[Quarantine] = &[
    Quarantine {
        dependencies: &["rusqlite", "libsqlite3-sys"],
        only: &["taffrail-store", "taffrail-bench"],
        reason: "the store holds the only SQL (the bench measures its floor)",
    },
    Quarantine {
        dependencies: &["tokio", "axum", "hyper", "hyper-util", "tower", "tower-http"],
        only: &["taffrail-server"],
        reason: "only the server has a runtime",
    },
];

/// Crates that only compute: what does input, output or time is not for them.
const PURE: &[&str] = &["taffrail-event", "taffrail-analytics", "taffrail-guard", "taffrail-engine"];
const NOT_PURE: &[&str] =
    &["tokio", "axum", "hyper", "rusqlite", "ureq", "libc", "rustix", "notify", "tracing", "tempfile"];

/// What the hook client must not contain, however deep.
const NOT_IN_HOOK: &[&str] = &[
    "tokio",
    "axum",
    "hyper",
    "rusqlite",
    "libsqlite3-sys",
    "ureq",
    "regex",
    "aho-corasick",
    "tracing",
    "clap",
];

/// Second big C builds, and what replaces a choice made on purpose.
const NOT_IN_LOCK: &[(&str, &str)] = &[
    ("zstd-sys", "no second big C build; lz4_flex compresses payloads"),
    ("aws-lc-sys", "no second big C build; rustls uses ring"),
    ("openssl-sys", "no system OpenSSL; rustls uses ring"),
    ("native-tls", "no system OpenSSL; rustls uses ring"),
    ("libduckdb-sys", "the store is SQLite"),
    ("tree-sitter", "no second big C build"),
];

/// Checks every package's declared dependencies and its place in the table.
pub(crate) fn check(metadata: &Metadata) -> Vec<Finding> {
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    metadata.packages.iter().flat_map(|package| check_package(package, &ours)).collect()
}

fn check_package(package: &Package, ours: &BTreeSet<&str>) -> Vec<Finding> {
    let place = format!("crate {}", package.name);
    let Some(arrow) = ARROWS.iter().find(|arrow| arrow.name == package.name) else {
        let message = "has no line in the table of arrows (xtask/src/tidy/arrows.rs)";
        return vec![Finding::new(place, message)];
    };
    let mut findings = Vec::new();
    for dependency in package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
        let name = dependency.name.as_str();
        if ours.contains(name) && !arrow.may_use.contains(&name) {
            findings.push(Finding::new(&place, format!("must not use {name}: {}", arrow.reason)));
        }
        if PURE.contains(&arrow.name) && NOT_PURE.contains(&name) {
            findings.push(Finding::new(&place, format!("is pure and must not use {name}")));
        }
        for quarantine in QUARANTINES.iter().filter(|q| q.dependencies.contains(&name)) {
            if !quarantine.only.contains(&arrow.name) {
                let message = format!("must not use {name}: {}", quarantine.reason);
                findings.push(Finding::new(&place, message));
            }
        }
    }
    findings
}

/// The names of everything that `taffrail-hook` is made of, by its own features.
pub(crate) fn hook_closure() -> Result<Vec<String>> {
    let args = ["tree", "-p", "taffrail-hook", "-e", "normal,no-proc-macro", "--prefix", "none", "--offline"];
    let tree = process::read(workspace::cargo().args(args).args(["--locked", "--format", "{p}"]))?;
    let tree = String::from_utf8(tree).context("cargo tree printed something unexpected")?;
    Ok(tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// The hook client stays free of what would make it slow to start.
pub(crate) fn check_hook_closure(names: &[String]) -> Vec<Finding> {
    NOT_IN_HOOK
        .iter()
        .filter(|banned| names.iter().any(|name| name == *banned))
        .map(|banned| Finding::new("crate taffrail-hook", format!("contains {banned} through a dependency")))
        .collect()
}

/// What must not come in through anybody's dependency.
pub(crate) fn check_lock(lock: &str) -> Vec<Finding> {
    let names: BTreeSet<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    NOT_IN_LOCK
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(name, reason)| Finding::new("Cargo.lock", format!("holds {name}: {reason}")))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    /// The findings for one crate with one dependency, in a workspace of a few crates.
    fn findings(name: &str, dependency: &str, kind: Option<&str>) -> Vec<String> {
        let others = ["taffrail-event", "taffrail-store", "taffrail-engine", "taffrail-server"];
        let mut packages = vec![json!({
            "name": name,
            "dependencies": [{"name": dependency, "kind": kind}],
        })];
        for other in others.iter().filter(|other| **other != name) {
            packages.push(json!({"name": other, "dependencies": []}));
        }
        let metadata = json!({"packages": packages, "target_directory": "target"});
        check(&serde_json::from_value(metadata).unwrap()).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_fails() {
        for (name, dependency) in [
            ("taffrail-store", "taffrail-engine"),
            ("taffrail-engine", "taffrail-store"),
            ("taffrail-hook", "taffrail-store"),
            ("taffrail-hook", "taffrail-server"),
            ("taffrail-event", "taffrail-store"),
            ("xtask", "taffrail-event"),
        ] {
            let found = findings(name, dependency, None);
            assert_eq!(found.len(), 1, "{name} -> {dependency}: {found:?}");
            assert!(found[0].contains("must not use"), "{found:?}");
        }
        assert_eq!(findings("taffrail-store", "taffrail-event", None), [""; 0]);
    }

    #[test]
    fn a_quarantined_dependency_stays_where_it_is() {
        assert_eq!(findings("taffrail-server", "rusqlite", None).len(), 1);
        assert_eq!(findings("taffrail", "tokio", None).len(), 1);
        assert_eq!(findings("taffrail-store", "rusqlite", None), [""; 0]);
        assert_eq!(findings("taffrail-server", "tokio", None), [""; 0]);
    }

    #[test]
    fn a_pure_crate_does_no_input_or_output() {
        assert_eq!(
            findings("taffrail-guard", "rustix", None),
            ["crate taffrail-guard: is pure and must not use rustix"]
        );
        assert_eq!(findings("taffrail-event", "libc", Some("build")).len(), 1);
        assert_eq!(findings("taffrail-analytics", "tempfile", Some("dev")), [""; 0], "tests may");
    }

    #[test]
    fn a_crate_without_a_line_fails() {
        assert!(findings("taffrail-extra", "serde", None)[0].contains("no line in the table"));
    }

    #[test]
    fn the_hook_client_stays_small() {
        let names = ["taffrail-hook", "serde_json", "regex"].map(str::to_owned);
        assert_eq!(check_hook_closure(&names).len(), 1);
        assert_eq!(check_hook_closure(&names[..2]), []);
    }

    #[test]
    fn a_banned_package_in_the_lock_file_fails() {
        assert_eq!(check_lock("[[package]]\nname = \"zstd-sys\"\n").len(), 1);
        assert_eq!(check_lock("[[package]]\nname = \"zstd-safe-not\"\n"), []);
    }
}
