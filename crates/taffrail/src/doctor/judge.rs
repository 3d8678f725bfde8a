//! From facts to findings. Pure: the same facts give the same findings.

use taffrail_server::transcripts::Survey;

use super::gather::{Directory, Facts, Program, ScopeFacts, Server, Settings};
use super::{Finding, Level};
use crate::settings::{Scope, UNREGISTERED_EVENTS};

/// Below this the disk counts as full.
const FREE_FAIL_BYTES: u64 = 100 * 1024 * 1024;
/// Below this somebody should make room.
const FREE_WARN_BYTES: u64 = 1024 * 1024 * 1024;
/// Frames that wait although a server runs; it drains thousands a second.
const BACKLOG_WARN_FRAMES: u64 = 5_000;
/// A capture time further in the future than this means that a clock was set back.
const CLOCK_WARN_MS: i64 = 60_000;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![directory(facts)];
    findings.extend(disk(facts));
    findings.extend(database(facts));
    findings.push(server(facts));
    findings.extend(notes(facts));
    findings.extend(spool(facts));
    findings.extend(clock(facts));
    findings.extend(hooks(facts));
    findings.extend(telemetry(facts));
    findings.extend(transcripts(facts));
    findings
}

fn ok(check: &'static str, message: impl Into<String>) -> Finding {
    Finding { check, level: Level::Ok, message: message.into(), hint: None }
}

fn warn(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { check, level: Level::Warn, message: message.into(), hint: Some(hint.into()) }
}

fn fail(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { check, level: Level::Fail, message: message.into(), hint: Some(hint.into()) }
}

fn directory(facts: &Facts) -> Finding {
    const CHECK: &str = "data_dir";
    let Some(home) = &facts.home else {
        return fail(
            CHECK,
            "the data directory is not known",
            "set TAFFRAIL_HOME or HOME, or give --data-dir",
        );
    };
    let home = home.display();
    match &facts.directory {
        Directory::Missing => ok(CHECK, format!("the data directory {home} will be made when it is needed")),
        Directory::OtherFile => fail(
            CHECK,
            format!("{home} is not a directory"),
            "move it away, or set TAFFRAIL_HOME to another place",
        ),
        Directory::Unwritable(why) => fail(
            CHECK,
            format!("the data directory {home} cannot be written: {why}"),
            format!("make it yours (chown, chmod 700 {home}), or set TAFFRAIL_HOME to another place"),
        ),
        Directory::Usable { mode: Some(mode) } if mode & 0o077 != 0 => warn(
            CHECK,
            format!("the data directory {home} is open to others (mode {mode:o})"),
            format!("chmod 700 {home}"),
        ),
        Directory::Usable { .. } => ok(CHECK, format!("the data directory {home} is writable and private")),
    }
}

fn disk(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "disk";
    let free = facts.free_bytes?;
    let message = format!("{} MB free on the disk of the data directory", free / 1_000_000);
    let hint = "make room: the spool keeps events only while there is some";
    Some(match free {
        free if free < FREE_FAIL_BYTES => fail(CHECK, message, hint),
        free if free < FREE_WARN_BYTES => warn(CHECK, message, hint),
        _ => ok(CHECK, message),
    })
}

fn database(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "database";
    Some(match facts.database.as_ref()? {
        Ok(what) => ok(CHECK, format!("the database opens: {what}")),
        Err(why) => fail(
            CHECK,
            format!("the database does not open: {why}"),
            "stop the server, move taffrail.db away and restore a backup; the spool keeps new events meanwhile",
        ),
    })
}

fn server(facts: &Facts) -> Finding {
    const CHECK: &str = "server";
    match &facts.server {
        Server::NotRunning { default_port_taken: false } => {
            warn(CHECK, "no server runs; hooks keep events in the spool until one does", "taffrail up")
        }
        Server::NotRunning { default_port_taken: true } => warn(
            CHECK,
            "no server runs for this data directory, and something else listens on 127.0.0.1:4000",
            "stop it, or start with `taffrail serve --listen 127.0.0.1:PORT`",
        ),
        Server::Gone { listen } => warn(
            CHECK,
            format!("the server that was on {listen} is gone without a goodbye; the spool keeps events"),
            "taffrail up",
        ),
        Server::Stranger { listen } => fail(
            CHECK,
            format!("what answers on {listen} is not Taffrail"),
            "another program took the port: stop it, or start with `taffrail serve --listen 127.0.0.1:PORT`",
        ),
        Server::Running { listen, version, .. } if version != facts.version => warn(
            CHECK,
            format!("the server on {listen} is version {version}, this is {}", facts.version),
            "taffrail down, then taffrail up",
        ),
        // The server's words for itself: anything but these two means that a part of it is in trouble.
        Server::Running { listen, status, .. } if !matches!(status.as_str(), "ok" | "healthy") => warn(
            CHECK,
            format!("the server on {listen} says it is {status}"),
            "taffrail health tells which part",
        ),
        Server::Running { listen, version, .. } => {
            ok(CHECK, format!("the server {version} answers on {listen}"))
        }
    }
}

/// What the running server wants a person to know, such as a port of OpenTelemetry that something else holds.
fn notes(facts: &Facts) -> Vec<Finding> {
    let Server::Running { notes, .. } = &facts.server else { return Vec::new() };
    let hint = "free the port, or move it in the table [otlp] of config.toml";
    notes.iter().map(|note| warn("otlp", note.clone(), hint)).collect()
}

fn spool(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "spool";
    let backlog = match &facts.backlog {
        Ok(backlog) => *backlog,
        Err(why) => {
            let hint = "look at the data directory's owner and what stands in the place of `spool`";
            return vec![fail(CHECK, format!("the spool cannot be read: {why}"), hint)];
        }
    };
    let runs = matches!(facts.server, Server::Running { .. });
    let mut findings = Vec::new();
    if backlog.full {
        findings.push(fail(
            CHECK,
            format!(
                "the spool is full ({} events, {} MB): new events are dropped",
                backlog.frames,
                backlog.bytes / 1_000_000
            ),
            "start the server, which drains it: taffrail up",
        ));
    } else if runs && backlog.frames > BACKLOG_WARN_FRAMES {
        findings.push(warn(
            CHECK,
            format!("{} events wait in the spool although the server runs", backlog.frames),
            "see whether the number falls; if not, the server's log says why",
        ));
    } else {
        findings.push(ok(CHECK, format!("{} events wait in the spool", backlog.frames)));
    }
    if backlog.dropped > 0 {
        findings.push(warn(
            "spool_dropped",
            format!("{} events were dropped since the spool exists", backlog.dropped),
            "the spool was full or could not be written then; keep the server running or raise TAFFRAIL_SPOOL_LIMIT_BYTES",
        ));
    }
    if backlog.torn > 0 {
        findings.push(warn(
            "spool_torn",
            format!("{} damaged frames were set aside in spool/torn", backlog.torn),
            "hooks were killed while they wrote, or the machine stopped; delete the files when you have looked",
        ));
    }
    findings
}

fn clock(facts: &Facts) -> Option<Finding> {
    let ahead_ms = facts.newest_ms? - facts.now_ms;
    (ahead_ms > CLOCK_WARN_MS).then(|| {
        warn(
            "clock",
            format!("an event in the spool is {} s in the future", ahead_ms / 1000),
            "the clock was set back; events sort by the time that they were captured",
        )
    })
}

/// A server takes in what is unread by itself.
fn transcripts(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "transcripts";
    let surveys = facts.transcripts.as_ref()?;
    let sum = |of: fn(&Survey) -> u64| surveys.iter().map(of).sum::<u64>();
    let (files, unread) = (sum(|s| s.files), sum(|s| s.unread_files));
    if let Some(error) = surveys.iter().flat_map(|survey| &survey.errors).next() {
        let message = format!("a transcript cannot be looked at: {}: {}", error.path.display(), error.error);
        return Some(warn(CHECK, message, "check its owner and permissions; its cost is not counted"));
    }
    if unread > 0 && !matches!(facts.server, Server::Running { .. }) {
        let message = format!("{unread} of {files} transcripts have something that is not in the ledger");
        return Some(warn(
            CHECK,
            message,
            "`taffrail import transcripts` takes it in, or `taffrail up` and it stays so",
        ));
    }
    let there: Vec<_> = surveys.iter().filter(|s| s.exists).map(|s| s.root.display().to_string()).collect();
    let message = match there.is_empty() {
        true => "no transcripts yet".to_owned(),
        false => format!("{files} transcripts in {}", there.join(", ")),
    };
    Some(ok(CHECK, message))
}

fn hooks(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        facts.scopes.iter().flat_map(|scope| scope_findings(scope, facts)).collect();
    let installed: Vec<Scope> =
        facts.scopes.iter().filter(|scope| has_hooks(scope)).map(|scope| scope.scope).collect();
    if installed.is_empty() {
        findings.push(fail("hooks", "no hooks are installed: nothing is recorded", "taffrail install"));
    } else if installed.len() > 1 {
        let names: Vec<&str> = installed.iter().map(|scope| scope.as_str()).collect();
        findings.push(warn(
            "hooks_twice",
            format!(
                "hooks are installed in more than one place ({}): each event is recorded twice",
                names.join(", ")
            ),
            "keep one: taffrail uninstall --scope SCOPE",
        ));
    }
    if facts.managed.only_managed_hooks || facts.managed.disables_all_hooks {
        findings.push(fail(
            "hooks_managed",
            "the organisation's managed settings switch these hooks off",
            "ask whoever manages them to add Taffrail's hooks there",
        ));
    }
    findings
}

/// Without the client's telemetry costs are what transcripts tell: at least the truth, and without compactions.
fn telemetry(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "telemetry";
    if !facts.scopes.iter().any(has_hooks) {
        return None;
    }
    let endpoint = facts.scopes.iter().find_map(|scope| match &scope.settings {
        Settings::Read { extras, .. } => extras.otlp_endpoint.as_deref(),
        _ => None,
    });
    let Some(endpoint) = endpoint else {
        return Some(ok(
            CHECK,
            "the client's telemetry is not wired: costs come from transcripts alone; `taffrail install --otel` adds final \
             token counts and what compactions cost",
        ));
    };
    Some(match &facts.server {
        Server::Running { listen, .. } if endpoint != format!("http://{listen}") => warn(
            CHECK,
            format!("the client's telemetry goes to {endpoint}, but the server listens on {listen}"),
            "taffrail install --otel, while the server runs",
        ),
        _ => ok(CHECK, format!("the client's telemetry goes to {endpoint}")),
    })
}

fn has_hooks(scope: &ScopeFacts) -> bool {
    matches!(&scope.settings, Settings::Read { hooks, .. } if !hooks.is_empty())
}

fn scope_findings(scope: &ScopeFacts, facts: &Facts) -> Vec<Finding> {
    let path = scope.path.display();
    let (hooks, programs, disabled, old_hooks) = match &scope.settings {
        Settings::Missing => return Vec::new(),
        Settings::Broken(why) => {
            let hint = "mend the file: the client ignores it as a whole while it is broken";
            return vec![fail("settings", format!("{path} is not usable: {why}"), hint)];
        }
        Settings::Read { hooks, programs, disables_all_hooks, old_hooks, .. } => {
            (hooks, programs, *disables_all_hooks, old_hooks)
        }
    };
    let mut findings = Vec::new();
    if disabled {
        let hint = format!("remove disableAllHooks from {path}");
        findings.push(fail("hooks_disabled", format!("{path} disables all hooks"), hint));
    }
    if hooks.is_empty() {
        return findings;
    }
    let name = scope.scope.as_str();
    let again = format!("taffrail install --scope {name}");
    let mut broken = false;
    for (program, state) in programs {
        if let Some(finding) = program_finding(program, state, facts, &again) {
            broken |= finding.level == Level::Fail;
            findings.push(finding);
        }
    }
    for event in UNREGISTERED_EVENTS {
        if hooks.iter().any(|hook| hook.event == event.name()) {
            let message = format!("{path} registers {}, which disturbs the client", event.name());
            findings.push(fail("hooks_harmful", message, again.as_str()));
        }
    }
    if !old_hooks.is_empty() {
        findings.push(warn(
            "hooks_old",
            format!(
                "{path} still calls the old Python hooks ({}): each event is sent twice",
                old_hooks.len()
            ),
            "remove the send_event.py entries once the new hooks work",
        ));
    }
    if !broken {
        findings.push(ok("hooks", format!("{} hooks in the {name} settings {path}", hooks.len())));
    }
    findings
}

fn program_finding(program: &str, state: &Program, facts: &Facts, again: &str) -> Option<Finding> {
    const CHECK: &str = "hook_program";
    match state {
        Program::Missing => Some(fail(CHECK, format!("the hook client {program} does not exist"), again)),
        Program::NotExecutable => Some(fail(
            CHECK,
            format!("the hook client {program} is not executable"),
            format!("chmod +x {program}"),
        )),
        Program::Usable { version: Some(version) } if version != facts.version => Some(warn(
            CHECK,
            format!("the hook client {program} is version {version}, this is {}", facts.version),
            "build or install both from the same version",
        )),
        Program::Usable { version: None } if facts.expected_program.as_deref() != Some(program) => Some(
            warn(CHECK, format!("the hooks call {program}, not the hook client beside this program"), again),
        ),
        Program::Usable { .. } => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::doctor::gather::Managed;
    use crate::settings::{Wiring, extras, hooks_in, with_hooks};
    use taffrail_hook::spool::Backlog;

    const PROGRAM: &str = "/t/taffrail-hook";

    fn scope(scope: Scope, settings: Settings) -> ScopeFacts {
        ScopeFacts { scope, path: format!("/{}.json", scope.as_str()).into(), settings }
    }

    fn installed() -> Settings {
        let wiring = Wiring { program: PROGRAM.to_owned(), arguments: Vec::new(), http_url: None };
        Settings::Read {
            hooks: hooks_in(&with_hooks("{}", &wiring).unwrap()).unwrap(),
            programs: vec![(PROGRAM.to_owned(), Program::Usable { version: Some("1.0".to_owned()) })],
            disables_all_hooks: false,
            old_hooks: Vec::new(),
            extras: extras::Found {
                otlp_endpoint: Some("http://127.0.0.1:4000".to_owned()),
                statusline: None,
            },
        }
    }

    fn healthy() -> Facts {
        Facts {
            home: Some("/data".into()),
            directory: Directory::Usable { mode: Some(0o700) },
            free_bytes: Some(u64::MAX),
            database: Some(Ok("schema 1".to_owned())),
            server: Server::Running {
                listen: "127.0.0.1:4000".to_owned(),
                version: "1.0".to_owned(),
                status: "ok".to_owned(),
                notes: Vec::new(),
            },
            backlog: Ok(Backlog::default()),
            newest_ms: Some(1_000_000),
            now_ms: 1_000_000,
            scopes: vec![scope(Scope::User, installed()), scope(Scope::Project, Settings::Missing)],
            managed: Managed::default(),
            transcripts: Some(vec![Survey {
                root: "/c/projects".into(),
                exists: true,
                files: 3,
                ..Survey::default()
            }]),
            expected_program: Some(PROGRAM.to_owned()),
            version: "1.0",
        }
    }

    /// Changes one fact of a healthy machine and expects exactly these checks to be other than ok.
    #[track_caller]
    fn check(expected: &[(&str, Level)], change: impl FnOnce(&mut Facts)) {
        let mut facts = healthy();
        change(&mut facts);
        let findings = findings(&facts);
        let found: Vec<(&str, Level)> =
            findings.iter().filter(|f| f.level != Level::Ok).map(|f| (f.check, f.level)).collect();
        assert_eq!(found, expected, "{findings:#?}");
        assert!(findings.iter().all(|f| (f.level == Level::Ok) == f.hint.is_none()), "{findings:#?}");
    }

    fn with_settings(facts: &mut Facts, change: impl FnOnce(&mut Settings)) {
        change(&mut facts.scopes[0].settings);
    }

    #[test]
    fn a_healthy_machine_has_nothing_to_mend() {
        check(&[], |_| {});
        check(&[], |facts| facts.directory = Directory::Missing);
        check(&[], |facts| facts.database = None);
    }

    #[test]
    fn data_directory_and_disk() {
        check(&[("data_dir", Level::Fail)], |facts| facts.home = None);
        check(&[("data_dir", Level::Fail)], |facts| facts.directory = Directory::OtherFile);
        check(&[("data_dir", Level::Fail)], |facts| facts.directory = Directory::Unwritable("no".to_owned()));
        check(&[("data_dir", Level::Warn)], |facts| {
            facts.directory = Directory::Usable { mode: Some(0o755) }
        });
        check(&[("disk", Level::Warn)], |facts| facts.free_bytes = Some(FREE_WARN_BYTES - 1));
        check(&[("disk", Level::Fail)], |facts| facts.free_bytes = Some(0));
        check(&[("database", Level::Fail)], |facts| facts.database = Some(Err("malformed".to_owned())));
    }

    #[test]
    fn the_server() {
        let listen = || "127.0.0.1:4000".to_owned();
        check(&[("server", Level::Warn)], |facts| {
            facts.server = Server::NotRunning { default_port_taken: false }
        });
        check(&[("server", Level::Warn)], |facts| {
            facts.server = Server::NotRunning { default_port_taken: true }
        });
        check(&[("server", Level::Warn)], |facts| facts.server = Server::Gone { listen: listen() });
        check(&[("server", Level::Fail)], |facts| facts.server = Server::Stranger { listen: listen() });
        let running = |version: &str, status: &str| Server::Running {
            listen: listen(),
            version: version.to_owned(),
            status: status.to_owned(),
            notes: Vec::new(),
        };
        check(&[("otlp", Level::Warn)], |facts| {
            if let Server::Running { notes, .. } = &mut facts.server {
                notes.push(
                    "OTLP over HTTP is not served on 127.0.0.1:4318: another process holds it".to_owned(),
                );
            }
        });
        check(&[("server", Level::Warn)], |facts| facts.server = running("0.9", "ok"));
        check(&[("server", Level::Warn)], |facts| facts.server = running("1.0", "degraded"));
    }

    #[test]
    fn the_spool_and_the_clock() {
        let backlog = |change: fn(&mut Backlog)| {
            let mut backlog = Backlog::default();
            change(&mut backlog);
            Ok(backlog)
        };
        check(&[("spool", Level::Fail)], |facts| facts.backlog = Err("no".to_owned()));
        check(&[("spool", Level::Fail)], |facts| facts.backlog = backlog(|b| b.full = true));
        check(&[("spool", Level::Warn)], |facts| {
            facts.backlog = backlog(|b| b.frames = BACKLOG_WARN_FRAMES + 1);
        });
        check(&[("spool_dropped", Level::Warn)], |facts| facts.backlog = backlog(|b| b.dropped = 1));
        check(&[("spool_torn", Level::Warn)], |facts| facts.backlog = backlog(|b| b.torn = 1));
        check(&[("server", Level::Warn)], |facts| {
            facts.backlog = backlog(|b| b.frames = BACKLOG_WARN_FRAMES + 1);
            facts.server = Server::NotRunning { default_port_taken: false };
        });
        check(&[("clock", Level::Warn)], |facts| facts.newest_ms = Some(facts.now_ms + CLOCK_WARN_MS + 1));
        check(&[], |facts| facts.newest_ms = Some(0));
    }

    #[test]
    fn transcripts_that_are_unread_or_unreadable() {
        check(&[], |facts| facts.transcripts = None);
        let with = |facts: &mut Facts, change: fn(&mut Survey)| {
            facts.transcripts.iter_mut().flatten().for_each(change);
        };
        check(&[], |facts| with(facts, |survey| survey.unread_files = 2));
        check(&[("server", Level::Warn), ("transcripts", Level::Warn)], |facts| {
            with(facts, |survey| survey.unread_files = 2);
            facts.server = Server::NotRunning { default_port_taken: false };
        });
        check(&[("transcripts", Level::Warn)], |facts| {
            with(facts, |survey| {
                let path = "/c/projects/x.jsonl".into();
                survey
                    .errors
                    .push(taffrail_server::transcripts::FileError { path, error: "denied".to_owned() });
            });
        });
    }

    #[test]
    fn hooks_that_are_missing_doubled_or_switched_off() {
        check(&[("hooks", Level::Fail)], |facts| facts.scopes.clear());
        check(&[("settings", Level::Fail), ("hooks", Level::Fail)], |facts| {
            with_settings(facts, |settings| *settings = Settings::Broken("line 1".to_owned()));
        });
        check(&[("hooks_twice", Level::Warn)], |facts| facts.scopes[1].settings = installed());
        check(&[("hooks_managed", Level::Fail)], |facts| facts.managed.only_managed_hooks = true);
        check(&[("hooks_managed", Level::Fail)], |facts| facts.managed.disables_all_hooks = true);
        check(&[("hooks_disabled", Level::Fail)], |facts| {
            with_settings(facts, |settings| {
                let Settings::Read { disables_all_hooks, .. } = settings else { panic!() };
                *disables_all_hooks = true;
            });
        });
        check(&[("hooks_old", Level::Warn)], |facts| {
            with_settings(facts, |settings| {
                let Settings::Read { old_hooks, .. } = settings else { panic!() };
                old_hooks.push("uv run send_event.py".to_owned());
            });
        });
        check(&[("hooks_harmful", Level::Fail)], |facts| {
            with_settings(facts, |settings| {
                let Settings::Read { hooks, .. } = settings else { panic!() };
                hooks[0].event = "WorktreeCreate".to_owned();
            });
        });
    }

    #[test]
    fn telemetry_that_misses_the_server() {
        let sent_to = |endpoint: Option<&str>| {
            let endpoint = endpoint.map(str::to_owned);
            move |facts: &mut Facts| {
                with_settings(facts, |settings| {
                    let Settings::Read { extras, .. } = settings else { panic!() };
                    extras.otlp_endpoint = endpoint;
                });
            }
        };
        check(&[], sent_to(None));
        check(&[("telemetry", Level::Warn)], sent_to(Some("http://127.0.0.1:4001")));
    }

    #[test]
    fn the_hook_program() {
        let state = |state: Program| {
            move |facts: &mut Facts| {
                with_settings(facts, |settings| {
                    let Settings::Read { programs, .. } = settings else { panic!() };
                    programs[0].1 = state;
                });
            }
        };
        check(&[("hook_program", Level::Fail)], state(Program::Missing));
        check(&[("hook_program", Level::Fail)], state(Program::NotExecutable));
        check(&[("hook_program", Level::Warn)], state(Program::Usable { version: Some("0.9".to_owned()) }));
        check(&[("hook_program", Level::Warn)], |facts| {
            facts.expected_program = Some("/elsewhere/taffrail-hook".to_owned());
            state(Program::Usable { version: None })(facts);
        });
    }
}
