//! The git commands inside of Bash calls, and what their output says of them.
//!
//! Only ended calls are looked at, failed ones too. Several commands share one output; its lines are given to the
//! commands in order. Limits: [`GIT_OPERATIONS_MAX`] commands, the first [`OUTPUT_MAX_BYTES`] of output,
//! [`COMMAND_MAX_BYTES`] of a command's text.

use std::collections::VecDeque;

use super::build::View;
use super::error::prefix;
use super::fields::Fields;
use super::shell::{self, Command};
use crate::event::{Fact, GitOperation};
use crate::ids::bounded_id;

/// The most git commands of one call.
pub const GIT_OPERATIONS_MAX: usize = 32;

/// The longest command text kept, in bytes.
pub const COMMAND_MAX_BYTES: usize = 1024;

/// How much output is looked at.
const OUTPUT_MAX_BYTES: usize = 256 * 1024;

/// Options before the subcommand that take the next word.
const OPTIONS_WITH_VALUE: &[&str] =
    &["-C", "-c", "--git-dir", "--work-tree", "--namespace", "--exec-path", "--config-env", "--super-prefix"];

/// The git commands that an ended Bash call ran.
pub(super) fn operations(view: &View<'_>, fact: &Fact) -> Vec<GitOperation> {
    if !matches!(fact, Fact::ToolEnd(..)) || view.tool_name != Some("Bash") {
        return Vec::new();
    }
    let Some(command) = view.input.and_then(|input| input.get("command")?.as_str()) else {
        return Vec::new();
    };
    if !command.contains("git") {
        return Vec::new();
    }
    let calls: Vec<GitCall<'_>> =
        shell::commands(command).iter().filter_map(git_call).take(GIT_OPERATIONS_MAX).collect();
    if calls.is_empty() {
        return Vec::new();
    }
    let mut output = Output::read(&output_of(view));
    let mut operations: Vec<GitOperation> = calls.iter().map(|call| call.operation(&mut output)).collect();
    take_ids_shown_after_quiet_commits(&calls, &mut operations, &output);
    operations
}

fn output_of(view: &View<'_>) -> String {
    let mut output = String::new();
    if let Some(raw) = view.response {
        let response = Fields::nested(raw);
        for stream in ["stdout", "stderr"] {
            if let Some(text) = response.str(stream) {
                output.push_str(prefix(&text, OUTPUT_MAX_BYTES));
                output.push('\n');
            }
        }
    }
    output.push_str(prefix(view.error_text.unwrap_or(""), OUTPUT_MAX_BYTES));
    output
}

/// A git command: its text, subcommand and the words after it.
struct GitCall<'a> {
    text: &'a str,
    subcommand: String,
    words: Vec<String>,
}

fn git_call<'a>(command: &Command<'a>) -> Option<GitCall<'a>> {
    if !matches!(command.program(), "git" | "git.exe") {
        return None;
    }
    let mut words = command.words.iter().skip(1);
    let subcommand = loop {
        let word = words.next()?;
        if OPTIONS_WITH_VALUE.contains(&word.text.as_str()) {
            words.next();
        } else if !word.text.starts_with('-') {
            break bounded_id(&word.text);
        }
    };
    // A word that the shell would expand is known only as typed, which is still worth more than nothing, except as a name.
    let words = words.map(|word| if word.expands { String::new() } else { word.text.clone() }).collect();
    Some(GitCall { text: command.text, subcommand, words })
}

impl GitCall<'_> {
    fn has(&self, options: &[&str]) -> bool {
        self.words.iter().any(|word| options.contains(&word.as_str()))
    }

    /// The word after one of these options.
    fn value_of(&self, options: &[&str]) -> Option<String> {
        let at = self.words.iter().position(|word| options.contains(&word.as_str()))?;
        self.words.get(at + 1).and_then(|word| name(word))
    }

    /// Words that are no options, up to `--`.
    fn plain(&self) -> impl Iterator<Item = &str> {
        self.words
            .iter()
            .map(String::as_str)
            .take_while(|word| *word != "--")
            .filter(|word| !word.starts_with('-'))
    }

    fn operation(&self, output: &mut Output) -> GitOperation {
        let mut operation = GitOperation {
            command: prefix(self.text, COMMAND_MAX_BYTES).to_owned(),
            subcommand: self.subcommand.clone(),
            ..GitOperation::default()
        };
        match self.subcommand.as_str() {
            "commit" | "cherry-pick" | "revert" => self.commit(&mut operation, output),
            "checkout" | "switch" => {
                let created =
                    self.value_of(&["-b", "-B", "-c", "-C", "--create", "--force-create", "--orphan"]);
                let switched = output.switched.pop_front();
                operation.branch = created.or(switched);
            }
            "push" => {
                let shown = output.pushed.pop_front();
                operation.branch = self.pushed_branch().or(shown);
            }
            "pull" | "merge" | "rebase" => {
                let skip = usize::from(self.subcommand == "pull");
                operation.branch = self.plain().nth(skip).and_then(name);
                stats(&mut operation, output.stats.pop_front());
            }
            "branch" => operation.branch = self.plain().next().and_then(name),
            "worktree" => operation.branch = self.value_of(&["-b", "-B"]),
            "diff" | "show" | "stash" if self.has(&["--stat", "--shortstat"]) => {
                stats(&mut operation, output.stats.pop_front());
            }
            _ => {}
        }
        operation
    }

    fn is_quiet(&self) -> bool {
        self.has(&["-q", "--quiet"])
    }

    fn commit(&self, operation: &mut GitOperation, output: &mut Output) {
        if self.is_quiet() {
            return;
        }
        let Some(commit) = output.commits.pop_front() else { return };
        operation.branch = commit.branch;
        operation.commit = Some(commit.id);
        stats(operation, commit.stats);
    }

    /// `push origin a:b` pushes to b; `push origin HEAD` says no name.
    fn pushed_branch(&self) -> Option<String> {
        let refspec = self.plain().nth(1)?;
        let target = refspec.rsplit(':').next().unwrap_or(refspec).trim_start_matches('+');
        let target = target.strip_prefix("refs/heads/").unwrap_or(target);
        (target != "HEAD").then(|| name(target)).flatten()
    }
}

fn name(word: &str) -> Option<String> {
    (!word.is_empty() && !word.starts_with('-')).then(|| bounded_id(word))
}

fn stats(operation: &mut GitOperation, stats: Option<Stats>) {
    if let Some(stats) = stats {
        operation.files_changed = Some(stats.files);
        operation.insertions = Some(stats.insertions);
        operation.deletions = Some(stats.deletions);
    }
}

/// `git commit -q && git log --oneline -1` shows the id after all.
fn take_ids_shown_after_quiet_commits(
    calls: &[GitCall<'_>],
    operations: &mut [GitOperation],
    output: &Output,
) {
    let Some(shown) = &output.last_id else { return };
    let Some(last) = calls.len().checked_sub(1) else { return };
    let shows_head = match calls[last].subcommand.as_str() {
        "log" => calls[last].has(&["-1", "-n1"]) || calls[last].value_of(&["-n"]).as_deref() == Some("1"),
        "rev-parse" => calls[last].has(&["HEAD"]),
        _ => false,
    };
    if !shows_head || last == 0 || calls[last - 1].subcommand != "commit" {
        return;
    }
    let commit = &mut operations[last - 1];
    if commit.commit.is_none() {
        commit.commit = Some(shown.clone());
    }
}

/// What the output of git commands says, in order.
#[derive(Debug, Default)]
struct Output {
    commits: VecDeque<Commit>,
    /// Stat lines that follow no commit line.
    stats: VecDeque<Stats>,
    switched: VecDeque<String>,
    pushed: VecDeque<String>,
    /// The id that the last line not empty begins with.
    last_id: Option<String>,
}

#[derive(Debug)]
struct Commit {
    branch: Option<String>,
    id: String,
    stats: Option<Stats>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stats {
    files: u32,
    insertions: u32,
    deletions: u32,
}

impl Output {
    fn read(text: &str) -> Self {
        let mut output = Self::default();
        for line in text.lines() {
            if let Some(commit) = commit_line(line) {
                output.commits.push_back(commit);
            } else if let Some(stats) = stat_line(line) {
                match output.commits.back_mut() {
                    Some(commit) if commit.stats.is_none() => commit.stats = Some(stats),
                    _ => output.stats.push_back(stats),
                }
            } else if let Some(branch) = switch_line(line) {
                output.switched.push_back(branch);
            } else if let Some(branch) = push_line(line) {
                output.pushed.push_back(branch);
            }
            if let Some(first) = line.split_whitespace().next() {
                output.last_id = is_id(first).then(|| first.to_owned());
            }
        }
        output
    }
}

fn is_id(word: &str) -> bool {
    (7..=64).contains(&word.len()) && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `[main abc1234] message`, `[main (root-commit) abc1234] message`, `[detached HEAD abc1234] message`
fn commit_line(line: &str) -> Option<Commit> {
    let (head, _) = line.strip_prefix('[')?.split_once(']')?;
    let (branch, id) = head.rsplit_once(' ')?;
    if !is_id(id) {
        return None;
    }
    let branch = branch.strip_suffix(" (root-commit)").unwrap_or(branch);
    let branch = (branch != "detached HEAD").then(|| name(branch)).flatten();
    Some(Commit { branch, id: id.to_owned(), stats: None })
}

/// ` 3 files changed, 10 insertions(+), 2 deletions(-)`
fn stat_line(line: &str) -> Option<Stats> {
    let mut stats = Stats { files: 0, insertions: 0, deletions: 0 };
    for (index, part) in line.trim().split(", ").enumerate() {
        let (number, what) = part.split_once(' ')?;
        let number: u32 = number.parse().ok()?;
        match (index, what) {
            (0, "file changed" | "files changed") => stats.files = number,
            (1.., "insertion(+)" | "insertions(+)") => stats.insertions = number,
            (1.., "deletion(-)" | "deletions(-)") => stats.deletions = number,
            _ => return None,
        }
    }
    Some(stats)
}

/// `Switched to a new branch 'x'`, `Switched to branch 'x'`, `Already on 'x'`
fn switch_line(line: &str) -> Option<String> {
    let rest = [
        "Switched to a new branch '",
        "Switched to and reset branch '",
        "Switched to branch '",
        "Already on '",
    ]
    .iter()
    .find_map(|start| line.strip_prefix(start))?;
    name(rest.trim_end().strip_suffix('\'')?)
}

/// `   1a2b3c4..5d6e7f8  main -> main`, ` * [new branch]      x -> x`, ` + 1a2...3b4 x -> x (forced update)`
fn push_line(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" -> ")?;
    let first = left.trim_start().trim_start_matches(['*', '+', '!', ' ']);
    let is_range = first.split_whitespace().next().is_some_and(|word| word.contains(".."));
    if !(is_range || first.starts_with("[new branch]") || first.starts_with("[rejected]")) {
        return None;
    }
    let target = right.split_whitespace().next()?;
    // A fetch writes `main -> origin/main`: nothing was pushed.
    let source = left.split_whitespace().last()?;
    (!target.ends_with(&format!("/{source}"))).then(|| name(target)).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn run(command: &str, output: &str) -> Vec<GitOperation> {
        let calls: Vec<_> = shell::commands(command).iter().filter_map(git_call).collect();
        let mut read = Output::read(output);
        let mut operations: Vec<_> = calls.iter().map(|call| call.operation(&mut read)).collect();
        take_ids_shown_after_quiet_commits(&calls, &mut operations, &read);
        operations
    }

    /// Subcommand, branch, (files, insertions, deletions), commit.
    type Want<'a> = (&'a str, Option<&'a str>, Option<(u32, u32, u32)>, Option<&'a str>);

    fn check(command: &str, output: &str, want: &[Want<'_>]) {
        let got = run(command, output);
        let got: Vec<_> = got
            .iter()
            .map(|op| {
                let stats =
                    op.files_changed.map(|files| (files, op.insertions.unwrap(), op.deletions.unwrap()));
                (op.subcommand.as_str(), op.branch.as_deref(), stats, op.commit.as_deref())
            })
            .collect();
        assert_eq!(got, want, "{command}");
    }

    #[test]
    fn commands_and_their_output_give_these_operations() {
        check(
            "git status --short && git log --oneline -5",
            "0ce9e45 Start",
            &[("status", None, None, None), ("log", None, None, None)],
        );
        check(
            "git checkout -b feature/perimeter",
            "Switched to a new branch 'feature/perimeter'",
            &[("checkout", Some("feature/perimeter"), None, None)],
        );
        check("git checkout main", "Already on 'main'", &[("checkout", Some("main"), None, None)]);
        check("git checkout -- a.txt", "", &[("checkout", None, None, None)]);
        check(
            "git switch -c x && git switch -",
            "Switched to a new branch 'x'\nSwitched to branch 'main'",
            &[("switch", Some("x"), None, None), ("switch", Some("main"), None, None)],
        );
        check(
            "git add -A; git commit -m 'a; b'",
            "[main abc1234] a; b\n 3 files changed, 10 insertions(+), 2 deletions(-)\n create mode 100644 x",
            &[("add", None, None, None), ("commit", Some("main"), Some((3, 10, 2)), Some("abc1234"))],
        );
        check(
            "git commit -am x",
            "[main (root-commit) abc1234] x\n 1 file changed, 1 deletion(-)",
            &[("commit", Some("main"), Some((1, 0, 1)), Some("abc1234"))],
        );
        check(
            "git commit -am x",
            "[detached HEAD abc1234] x\n 1 file changed, 1 insertion(+)",
            &[("commit", None, Some((1, 1, 0)), Some("abc1234"))],
        );
        check(
            "git add shapes.py && git commit -q -m \"$(cat <<'EOF'\nAdd perimeter()\n\nDon't\nEOF\n)\" && git log --oneline -1",
            "e7f7b7a Add perimeter()",
            &[("add", None, None, None), ("commit", None, None, Some("e7f7b7a")), ("log", None, None, None)],
        );
        check(
            "git push -q -u origin feature/perimeter && git diff --stat main",
            " shapes.py | 4 ++++\n 1 file changed, 4 insertions(+)",
            &[("push", Some("feature/perimeter"), None, None), ("diff", None, Some((1, 4, 0)), None)],
        );
        check(
            "git push",
            "To github.com:a/b\n   1a2b3c4..5d6e7f8  main -> main",
            &[("push", Some("main"), None, None)],
        );
        check("git push -u origin HEAD", " * [new branch]      x -> x", &[("push", Some("x"), None, None)]);
        check("git push origin a:refs/heads/b", "", &[("push", Some("b"), None, None)]);
        check(
            "git pull origin main",
            "   1a2b3c4..5d6e7f8  main -> origin/main\nFast-forward\n 2 files changed, 5 insertions(+)",
            &[("pull", Some("main"), Some((2, 5, 0)), None)],
        );
        check(
            "git merge --no-ff feature",
            "Merge made by the 'ort' strategy.\n a | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)",
            &[("merge", Some("feature"), Some((1, 1, 1)), None)],
        );
        check("GIT_DIR=x git -C /repo -c user.name='A B' --no-pager log", "", &[("log", None, None, None)]);
        check("cd a && /usr/bin/git branch -d old | cat", "", &[("branch", Some("old"), None, None)]);
        check(
            "git checkout -b \"$NAME\"",
            "Switched to a new branch 'x'",
            &[("checkout", Some("x"), None, None)],
        );
        check("git --version; echo git commit; # git push", "", &[]);
        check("git worktree add -b w ../w", "", &[("worktree", Some("w"), None, None)]);
    }

    #[test]
    fn a_long_command_is_cut() {
        let command = format!("git commit -m '{}'", "é".repeat(2000));
        let operations = run(&command, "");
        assert!(operations[0].command.len() <= COMMAND_MAX_BYTES);
    }
}
