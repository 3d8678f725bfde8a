//! What a shell command is about, from its summary: what it works on, and whether it runs tests.
//!
//! This is no grammar: quotes are respected, nothing is expanded, substitutions are not looked into. A summary is one line of
//! at most 240 characters, so what stands behind that is not seen. Limits: [`COMMANDS_MAX`] commands, [`WORDS_MAX`] words of each.

use crate::trace::{Call, Outcome};

/// Commands of a line that are looked at.
const COMMANDS_MAX: usize = 32;

/// Words of a command that are looked at.
const WORDS_MAX: usize = 64;

/// How deep `sh -c` and `env` are followed.
const NESTING_MAX: usize = 3;

/// Tools whose summary is a command.
const SHELLS: &[&str] =
    &["Bash", "PowerShell", "shell", "exec_command", "run_shell_command", "run_terminal_cmd", "bash"];

/// Tools whose summary is a path.
const FILE_TOOLS: &[&str] = &[
    "Read",
    "Write",
    "Edit",
    "MultiEdit",
    "NotebookRead",
    "NotebookEdit",
    "read_file",
    "write_file",
    "replace",
    "edit",
    "read",
    "write",
];

/// What stands behind a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    And,
    Or,
    Pipe,
    Always,
    End,
}

struct Command {
    words: Vec<String>,
    then: Then,
}

/// What came of a run of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestOutcome {
    Passed,
    Failed,
    /// The command's end does not tell.
    Unclear,
}

/// What a call works on: the path of a file tool, program and first argument of a shell command; none for other tools.
pub(crate) fn target(call: &Call) -> Option<Box<str>> {
    let tool = &*call.tool;
    if FILE_TOOLS.contains(&tool) {
        let path = call.files.first().map_or("", |touch| &*touch.path);
        let text = if call.summary.is_empty() { path } else { &call.summary };
        return (!text.is_empty()).then(|| text.into());
    }
    if !SHELLS.contains(&tool) {
        return None;
    }
    let commands = commands(&call.summary);
    let main =
        commands.iter().map(|c| program(&c.words)).find(|words| !words.is_empty() && !is_trivial(words))?;
    Some(head(main).into())
}

/// The runner of the tests that a call runs, and what came of them; none where it runs no tests, or did not end.
pub(crate) fn test_run(call: &Call) -> Option<(&'static str, TestOutcome)> {
    if !SHELLS.contains(&&*call.tool)
        || !matches!(call.outcome, Outcome::Succeeded | Outcome::Failed | Outcome::Ended)
    {
        return None;
    }
    let commands = commands(&call.summary);
    let (at, runner) =
        commands.iter().enumerate().find_map(|(at, c)| Some((at, runner(program(&c.words), 0)?)))?;
    Some((runner, outcome(&commands, at, call.outcome)))
}

/// What the end of a list says about one of its commands.
fn outcome(commands: &[Command], at: usize, outcome: Outcome) -> TestOutcome {
    let before = &commands[..at];
    let after = &commands[at + 1..];
    let only_and = |list: &[Command]| list.iter().all(|c| matches!(c.then, Then::And | Then::End));
    // Success: everything joined to it by && succeeded, and it ended the list or was followed by && alone.
    let chained = matches!(commands[at].then, Then::And | Then::End) && only_and(after);
    match outcome {
        Outcome::Succeeded
            if chained && before.last().is_none_or(|c| matches!(c.then, Then::And | Then::Always)) =>
        {
            TestOutcome::Passed
        }
        // Failure: nothing else joined to it is likely to have failed.
        Outcome::Failed if chained => {
            let from = before.iter().rposition(|c| c.then != Then::And);
            let alone = from.is_none_or(|from| before[from].then == Then::Always);
            let joined = &before[from.map_or(0, |from| from + 1)..];
            let tame = joined.iter().chain(after).all(|c| is_trivial(program(&c.words)));
            if alone && tame { TestOutcome::Failed } else { TestOutcome::Unclear }
        }
        _ => TestOutcome::Unclear,
    }
}

/// Commands that hardly fail and are not what a line is about.
fn is_trivial(words: &[String]) -> bool {
    matches!(
        words.first().map_or("", |word| base(word)),
        "" | "cd"
            | "export"
            | "set"
            | "source"
            | "."
            | "echo"
            | "printf"
            | "pushd"
            | "popd"
            | "unset"
            | "mkdir"
            | "sleep"
            | "true"
            | ":"
            | "date"
    )
}

fn base(word: &str) -> &str {
    word.rsplit(['/', '\\']).next().unwrap_or(word)
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// The words from the program on, without what only says how to run it.
fn program(words: &[String]) -> &[String] {
    let mut words = words;
    loop {
        let Some(first) = words.first() else { return words };
        let skip = match base(first) {
            word if is_assignment(word) || is_assignment(first) => 1,
            "sudo" | "command" | "time" | "nohup" | "exec" | "env" | "xvfb-run" | "nice" | "stdbuf"
            | "then" | "do" | "else" | "if" | "!" | "{" | "(" | "doas" | "caffeinate" => {
                1 + flags(&words[1..])
            }
            // Its own flags, of which two have a value, and the duration.
            "timeout" | "gtimeout" => {
                let mut at = 1;
                while let Some(flag) = words.get(at).filter(|word| word.starts_with('-')) {
                    at += if matches!(flag.as_str(), "-k" | "-s" | "--signal" | "--kill-after") {
                        2
                    } else {
                        1
                    };
                }
                at + 1
            }
            _ => return words,
        };
        words = &words[skip.min(words.len())..];
    }
}

fn flags(words: &[String]) -> usize {
    words.iter().take_while(|word| word.starts_with('-')).count()
}

/// Program and first argument that is no flag, or what names the work of a program that runs others.
fn head(words: &[String]) -> String {
    let name = base(&words[0]);
    let own_flags = words[1..]
        .chunks(2)
        .take_while(|pair| name == "git" && matches!(pair[0].as_str(), "-c" | "-C"))
        .count();
    let rest = &words[(1 + 2 * own_flags).min(words.len())..];
    let mut arguments =
        rest.iter().map(String::as_str).filter(|word| !word.starts_with(['-', '+']) && !is_redirection(word));
    if name.starts_with("python") && words.get(1).is_some_and(|word| word == "-m") {
        return format!("{name} -m {}", words.get(2).map_or("", String::as_str));
    }
    match (arguments.next(), arguments.next()) {
        (Some(first @ ("run" | "exec" | "dlx" | "x" | "compose")), Some(second)) => {
            format!("{name} {first} {second}")
        }
        (Some(first), _) => format!("{name} {first}"),
        (None, _) => name.to_owned(),
    }
}

fn is_redirection(word: &str) -> bool {
    word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['<', '>']) || word.starts_with("&>")
}

/// The test runner that a command starts.
fn runner(words: &[String], depth: usize) -> Option<&'static str> {
    let name = base(words.first()?);
    let name = name.strip_suffix(".exe").or_else(|| name.strip_suffix(".cmd")).unwrap_or(name);
    let arguments = &words[1..];
    let plain: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|word| !word.starts_with(['-', '+']) && !is_redirection(word))
        .collect();
    let first = plain.first().copied().unwrap_or("");
    let second = plain.get(1).copied().unwrap_or("");
    let nested = |from: usize| {
        let inner = program(arguments.get(from..)?);
        (depth < NESTING_MAX).then(|| runner(inner, depth + 1)).flatten()
    };
    match name {
        "cargo" => cargo(&plain),
        "pytest" | "py.test" => Some("pytest"),
        "tox" | "nox" => Some("tox"),
        _ if name.starts_with("python") => python(arguments),
        "uv" | "poetry" | "pipenv" | "rye" | "hatch" | "pdm" | "bundle" | "npx" | "bunx" | "dotenv"
        | "rtk" => {
            let skip = arguments
                .iter()
                .take_while(|w| w.starts_with('-') || matches!(w.as_str(), "run" | "exec"))
                .count();
            nested(skip)
        }
        "npm" | "pnpm" | "yarn" | "bun" | "deno" => node(name, first, second).or_else(|| {
            let skip = arguments
                .iter()
                .take_while(|w| w.starts_with('-') || matches!(w.as_str(), "exec" | "dlx" | "x" | "run"))
                .count();
            nested(skip)
        }),
        "vitest" => Some("vitest"),
        "jest" => Some("jest"),
        "mocha" | "ava" | "tap" | "jasmine" | "karma" => Some("mocha"),
        "playwright" if first == "test" => Some("playwright"),
        "cypress" if first == "run" => Some("cypress"),
        "node" if arguments.iter().any(|word| word == "--test") => Some("node --test"),
        "go" if first == "test" => Some("go test"),
        "gotestsum" => Some("go test"),
        "mvn" | "mvnw" if plain.iter().any(|w| matches!(*w, "test" | "verify" | "integration-test")) => {
            Some("mvn test")
        }
        "gradle" | "gradlew"
            if plain.iter().any(|w| *w == "check" || w.to_ascii_lowercase().ends_with("test")) =>
        {
            Some("gradle test")
        }
        "rspec" => Some("rspec"),
        "rake" | "rails" if first == "test" || first == "spec" || first.starts_with("test:") => {
            Some("rake test")
        }
        "phpunit" | "pest" => Some("phpunit"),
        "composer" if first == "test" => Some("phpunit"),
        "dotnet" if first == "test" => Some("dotnet test"),
        "ctest" => Some("ctest"),
        "meson" if first == "test" => Some("meson test"),
        "bazel" | "bazelisk" if first == "test" => Some("bazel test"),
        "swift" if first == "test" => Some("swift test"),
        "xcodebuild" if plain.contains(&"test") => Some("xcodebuild test"),
        "flutter" | "dart" if first == "test" => Some("dart test"),
        "mix" if first == "test" => Some("mix test"),
        "sbt" if plain.iter().any(|w| w.starts_with("test")) => Some("sbt test"),
        "zig" if first == "test" || (first == "build" && second == "test") => Some("zig test"),
        "bats" => Some("bats"),
        "make" | "gmake" | "just" | "task" | "ninja" | "mise" | "turbo" | "nx" | "moon"
            if plain.iter().any(|w| is_test_goal(w)) =>
        {
            Some("make test")
        }
        "bash" | "sh" | "zsh" | "dash" => {
            let script = arguments.iter().skip_while(|w| !w.ends_with('c') || !w.starts_with('-')).nth(1)?;
            (depth < NESTING_MAX)
                .then(|| commands(script).iter().find_map(|c| runner(program(&c.words), depth + 1)))
                .flatten()
        }
        _ => None,
    }
}

fn is_test_goal(word: &str) -> bool {
    matches!(word, "test" | "tests" | "check")
        || word.starts_with("test-")
        || word.starts_with("test_")
        || word.starts_with("test:")
}

fn cargo(plain: &[&str]) -> Option<&'static str> {
    match (plain.first().copied()?, plain.get(1).copied()) {
        ("test" | "t", _) => Some("cargo test"),
        ("nextest", Some("run" | "r") | None) => Some("cargo nextest"),
        ("llvm-cov" | "tarpaulin" | "mutants", _) => Some("cargo test"),
        _ => None,
    }
}

fn python(arguments: &[String]) -> Option<&'static str> {
    let at = arguments.iter().position(|word| word == "-m");
    match at.and_then(|at| arguments.get(at + 1)).map(String::as_str) {
        Some("pytest") => return Some("pytest"),
        Some("unittest" | "nose2" | "nose" | "doctest") => return Some("unittest"),
        Some("tox" | "nox") => return Some("tox"),
        _ => {}
    }
    let script = arguments.iter().find(|word| !word.starts_with('-')).map_or("", |word| base(word));
    let django = script == "manage.py" && arguments.iter().any(|word| word == "test");
    if django { Some("django test") } else { None }
}

/// `npm test`, `yarn run test:unit`, `bun test`, ...
fn node(name: &str, first: &str, second: &str) -> Option<&'static str> {
    let script = if first == "run" || first == "task" { second } else { first };
    let is_test = matches!(script, "test" | "tests" | "t" | "tst")
        || script.starts_with("test:")
        || script.starts_with("test-");
    let runner = match name {
        "npm" => "npm test",
        "pnpm" => "pnpm test",
        "yarn" => "yarn test",
        "bun" => "bun test",
        _ => "deno test",
    };
    is_test.then_some(runner)
}

/// The simple commands of a line.
fn commands(line: &str) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let then = match c {
            '\'' => {
                let text = word.get_or_insert_default();
                text.extend(chars.by_ref().take_while(|c| *c != '\''));
                continue;
            }
            '"' => {
                let text = word.get_or_insert_default();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => text.extend(chars.next()),
                        c => text.push(c),
                    }
                }
                continue;
            }
            '\\' => {
                word.get_or_insert_default().extend(chars.next());
                continue;
            }
            c if c.is_whitespace() => {
                push_word(&mut words, word.take());
                if c != '\n' {
                    continue;
                }
                Then::Always
            }
            '&' if chars.peek() == Some(&'&') => {
                chars.next();
                Then::And
            }
            // `2>&1`, `&>file`
            '&' if word.as_deref().is_some_and(|w| w.ends_with(['>', '<'])) || chars.peek() == Some(&'>') => {
                word.get_or_insert_default().push('&');
                continue;
            }
            '|' if chars.peek() == Some(&'|') => {
                chars.next();
                Then::Or
            }
            '|' => {
                if chars.peek() == Some(&'&') {
                    chars.next();
                }
                Then::Pipe
            }
            ';' | '&' | '(' | ')' => Then::Always,
            '#' if word.is_none() => break,
            c => {
                word.get_or_insert_default().push(c);
                continue;
            }
        };
        push_word(&mut words, word.take());
        if !words.is_empty() {
            commands.push(Command { words: std::mem::take(&mut words), then });
            if commands.len() == COMMANDS_MAX {
                return commands;
            }
        }
    }
    push_word(&mut words, word);
    if !words.is_empty() {
        commands.push(Command { words, then: Then::End });
    } else if let Some(last) = commands.last_mut().filter(|last| last.then == Then::Always) {
        last.then = Then::End;
    }
    commands
}

fn push_word(words: &mut Vec<String>, word: Option<String>) {
    if let Some(word) = word
        && words.len() < WORDS_MAX
    {
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::FileTouch;

    fn bash(summary: &str, outcome: Outcome) -> Call {
        Call { tool: "Bash".into(), summary: summary.to_owned(), outcome, ..Call::default() }
    }

    #[track_caller]
    fn check(command: &str, runner: Option<&str>, ok: TestOutcome, failed: TestOutcome) {
        let run = test_run(&bash(command, Outcome::Succeeded));
        assert_eq!(run.map(|run| run.0), runner, "{command}");
        if runner.is_some() {
            assert_eq!(run.map(|run| run.1), Some(ok), "{command} succeeded");
            assert_eq!(
                test_run(&bash(command, Outcome::Failed)).map(|run| run.1),
                Some(failed),
                "{command} failed"
            );
        }
    }

    #[test]
    fn runners_are_recognised() {
        use TestOutcome::{Failed, Passed};
        for (command, runner) in [
            ("cargo test", "cargo test"),
            ("cargo +nightly test -p x -- --nocapture", "cargo test"),
            ("RUST_LOG=debug RUST_BACKTRACE=1 cargo nextest run --workspace", "cargo nextest"),
            ("cd /srv/app && cargo test 2>&1", "cargo test"),
            ("pytest -q tests/test_a.py::test_b", "pytest"),
            ("python -m pytest -x", "pytest"),
            ("python3.12 -m unittest discover", "unittest"),
            ("python manage.py test app", "django test"),
            ("uv run pytest -k \"a && b\"", "pytest"),
            ("poetry run python -m pytest", "pytest"),
            (".venv/bin/pytest", "pytest"),
            ("npm test", "npm test"),
            ("npm run test:unit -- --watch=false", "npm test"),
            ("pnpm test", "pnpm test"),
            ("yarn test", "yarn test"),
            ("pnpm exec vitest run", "vitest"),
            ("npx --yes jest --ci", "jest"),
            ("npx vitest run src/a.test.ts", "vitest"),
            ("bun test", "bun test"),
            ("deno test -A", "deno test"),
            ("node --test", "node --test"),
            ("go test ./...", "go test"),
            ("mvn -q test", "mvn test"),
            ("./gradlew :app:test --info", "gradle test"),
            ("bundle exec rspec spec/a_spec.rb", "rspec"),
            ("vendor/bin/phpunit", "phpunit"),
            ("dotnet test --no-build", "dotnet test"),
            ("ctest --output-on-failure", "ctest"),
            ("make -j4 test", "make test"),
            ("make check", "make test"),
            ("mise run test:ci", "make test"),
            ("timeout 60 cargo test", "cargo test"),
            ("timeout -k 5 60 cargo test", "cargo test"),
            ("bash -c 'cd x && cargo test'", "cargo test"),
            ("time env A=1 pytest", "pytest"),
            ("export A=1; cd b; pytest", "pytest"),
        ] {
            check(command, Some(runner), Passed, Failed);
        }
    }

    #[test]
    fn what_runs_no_tests_is_none() {
        for command in [
            "cargo build",
            "cargo check",
            "grep -rn 'cargo test' src",
            "echo pytest",
            "cat tests/pytest.ini",
            "git commit -m \"run npm test && go test\"",
            "npm install jest",
            "make",
            "python test.py",
            "ls test",
            "go vet ./...",
            "",
            "&& || ; |",
            "# cargo test",
        ] {
            check(command, None, TestOutcome::Unclear, TestOutcome::Unclear);
        }
        assert_eq!(test_run(&bash("cargo test", Outcome::Denied)), None);
        assert_eq!(test_run(&Call { tool: "Read".into(), ..bash("pytest", Outcome::Succeeded) }), None);
    }

    #[test]
    fn the_end_of_a_list_tells_only_what_it_can() {
        use TestOutcome::{Failed, Passed, Unclear};
        check("cargo test | tail -5", Some("cargo test"), Unclear, Unclear);
        check("cargo test; echo done", Some("cargo test"), Unclear, Unclear);
        check("cargo test || true", Some("cargo test"), Unclear, Unclear);
        check("cargo build && cargo test", Some("cargo test"), Passed, Unclear);
        check("cargo test && git push", Some("cargo test"), Passed, Unclear);
        check("cargo test && echo ok", Some("cargo test"), Passed, Failed);
        check("false || cargo test", Some("cargo test"), Unclear, Unclear);
        check("cargo build; cargo test", Some("cargo test"), Passed, Failed);
        check("cargo test;", Some("cargo test"), Passed, Failed);
        check("sleep 5 && cargo test 2>&1", Some("cargo test"), Passed, Failed);
        check("cargo test 2>&1 | tee log", Some("cargo test"), Unclear, Unclear);
    }

    #[test]
    fn targets_are_paths_and_heads_of_commands() {
        let of = |summary: &str| target(&bash(summary, Outcome::Failed)).map(String::from);
        assert_eq!(of("cd x && cargo test -p a").as_deref(), Some("cargo test"));
        assert_eq!(of("git -c a=b commit -m 'x'").as_deref(), Some("git commit"));
        assert_eq!(of("npm run build").as_deref(), Some("npm run build"));
        assert_eq!(of("A=1 sudo /usr/bin/python3 -m http.server").as_deref(), Some("python3 -m http.server"));
        assert_eq!(of("cat a.txt > b").as_deref(), Some("cat a.txt"));
        assert_eq!(of("make").as_deref(), Some("make"));
        assert_eq!(of("cd x"), None);
        let edit = Call { tool: "Edit".into(), summary: "src/a.rs".to_owned(), ..Call::default() };
        assert_eq!(target(&edit).as_deref(), Some("src/a.rs"));
        let touch = FileTouch { path: "b.rs".into(), ..FileTouch::default() };
        let unsaid = Call { summary: String::new(), files: vec![touch], ..edit };
        assert_eq!(target(&unsaid).as_deref(), Some("b.rs"));
        assert_eq!(target(&Call { tool: "WebFetch".into(), ..unsaid }), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in "[a-z &|;'\"\\\\()<>=$#./-]{0,60}|\\PC{0,80}") {
            let call = bash(&line, Outcome::Failed);
            let _ = (target(&call), test_run(&call));
            prop_assert!(commands(&line).len() <= COMMANDS_MAX);
        }
    }
}
