//! Files read, written, edited and deleted, from what Post events say was done.
//!
//! Lines are counted from the client's own patch where it gives one, else by a line diff of what was asked. A
//! deletion is taken from `rm` and `git rm` only where the command's own success follows from the call's and
//! its words are plain paths. Limits: [`FILE_OPERATIONS_MAX`] operations of one call; a line diff of more than
//! [`DIFF_CELLS_MAX`] cells counts the changed middle as replaced.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::build::View;
use super::fields::Fields;
use super::shell::{self, Separator};
use crate::event::{CallStatus, Fact, FileOperation, FileOperationKind};

/// The most file operations of one call.
pub const FILE_OPERATIONS_MAX: usize = 256;

/// The longest path kept, in bytes.
const PATH_MAX_BYTES: usize = 4096;

/// The largest table that a line diff may fill.
const DIFF_CELLS_MAX: usize = 1 << 20;

/// What a successful call did to files.
pub(super) fn operations(view: &View<'_>, fact: &Fact) -> Vec<FileOperation> {
    match fact {
        Fact::ToolEnd(_, outcome) if outcome.status == CallStatus::Succeeded => {}
        _ => return Vec::new(),
    }
    let mut operations = match view.tool_name {
        Some("Read" | "NotebookRead") => read(view),
        Some("Write") => write(view),
        Some("Edit" | "MultiEdit" | "NotebookEdit") => edit(view),
        Some("Bash") => bash(view),
        _ => Vec::new(),
    };
    operations.truncate(FILE_OPERATIONS_MAX);
    for operation in &mut operations {
        operation.duration_ms = view.duration_ms;
    }
    operations
}

fn operation(kind: FileOperationKind, path: &str) -> FileOperation {
    let path = super::error::prefix(path, PATH_MAX_BYTES).to_owned();
    FileOperation { kind, path, size_bytes: None, duration_ms: None, lines_added: None, lines_removed: None }
}

/// The path that a call was given.
fn input_path<'a>(view: &View<'a>) -> Option<&'a str> {
    let input = view.input?;
    let path = input.get("file_path").or_else(|| input.get("notebook_path")).or_else(|| input.get("path"))?;
    path.as_str().filter(|path| !path.is_empty())
}

fn input_str<'a>(input: &'a Value, name: &str) -> &'a str {
    input.get(name).and_then(Value::as_str).unwrap_or("")
}

/// `tool_response.file`: its content as shown, `originalSize` for an image.
fn read(view: &View<'_>) -> Vec<FileOperation> {
    let Some(path) = input_path(view) else { return Vec::new() };
    let mut operation = operation(FileOperationKind::Read, path);
    let response = view.response.map(Fields::nested).unwrap_or_default();
    let file = response.raw("file").map(Fields::nested).unwrap_or_default();
    operation.size_bytes =
        file.u64("originalSize").or_else(|| file.str("content").map(|content| content.len() as u64));
    vec![operation]
}

fn write(view: &View<'_>) -> Vec<FileOperation> {
    let (Some(path), Some(input)) = (input_path(view), view.input) else { return Vec::new() };
    let content = input_str(input, "content");
    let mut operation = operation(FileOperationKind::Write, path);
    operation.size_bytes = Some(content.len() as u64);
    let response = view.response.map(Fields::nested).unwrap_or_default();
    let lines = match response.raw("structuredPatch").and_then(patch_lines) {
        Some(lines) if lines != (0, 0) => Some(lines),
        // A new file has an empty patch; of an overwritten one an empty patch says that nothing changed.
        _ if response.str("type").is_some_and(|kind| kind == "update") => {
            Some(response.str("originalFile").map_or((0, 0), |original| diff(&original, content)))
        }
        _ => Some((count(content.lines().count()), 0)),
    };
    set_lines(&mut operation, lines);
    vec![operation]
}

fn edit(view: &View<'_>) -> Vec<FileOperation> {
    let (Some(path), Some(input)) = (input_path(view), view.input) else { return Vec::new() };
    let mut operation = operation(FileOperationKind::Edit, path);
    let patch =
        view.response.and_then(|raw| Fields::nested(raw).raw("structuredPatch").and_then(patch_lines));
    let lines = patch.filter(|lines| *lines != (0, 0)).unwrap_or_else(|| asked_lines(input));
    set_lines(&mut operation, Some(lines));
    vec![operation]
}

/// What the input asks for: one replacement, a list of them, or a notebook cell.
fn asked_lines(input: &Value) -> (u32, u32) {
    if let Some(source) = input.get("new_source").and_then(Value::as_str) {
        return (count(source.lines().count()), 0);
    }
    let one = std::slice::from_ref(input);
    let edits = input.get("edits").and_then(Value::as_array).map_or(one, Vec::as_slice);
    edits.iter().take(FILE_OPERATIONS_MAX).fold((0, 0), |(added, removed): (u32, u32), edit| {
        let (a, r) = diff(input_str(edit, "old_string"), input_str(edit, "new_string"));
        (added.saturating_add(a), removed.saturating_add(r))
    })
}

fn bash(view: &View<'_>) -> Vec<FileOperation> {
    let mut operations = view.response.map(bash_edits).unwrap_or_default();
    if let Some(command) = view.input.map(|input| input_str(input, "command")) {
        operations.extend(deletions(command, view.cwd));
    }
    operations
}

/// `bashEditDiff` of the Bash tool's response: what a command changed, as the client saw it.
fn bash_edits(response: &str) -> Vec<FileOperation> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Edited<'a> {
        file_path: String,
        #[serde(default)]
        created: bool,
        #[serde(default)]
        deleted: bool,
        #[serde(borrow)]
        hunks: Option<&'a RawValue>,
    }
    let response = Fields::nested(response);
    let Some(raw) = response.raw("bashEditDiff") else { return Vec::new() };
    let edits = Fields::nested(raw);
    let files: Vec<&RawValue> =
        edits.raw("files").and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
    let mut operations = Vec::new();
    for raw in files.into_iter().take(FILE_OPERATIONS_MAX) {
        let Ok(file) = serde_json::from_str::<Edited<'_>>(raw.get()) else { continue };
        let kind = match (file.deleted, file.created) {
            (true, _) => FileOperationKind::Delete,
            (false, true) => FileOperationKind::Write,
            (false, false) => FileOperationKind::Edit,
        };
        let mut operation = operation(kind, &file.file_path);
        set_lines(&mut operation, file.hunks.and_then(|raw| patch_lines(raw.get())));
        operations.push(operation);
    }
    // Files beyond those with a diff are only named.
    let changed: Vec<String> = edits.parse("changedFiles").unwrap_or_default();
    let named: std::collections::HashSet<String> = operations.iter().map(|op| op.path.clone()).collect();
    let unnamed = changed.iter().filter(|path| !named.contains(*path)).take(FILE_OPERATIONS_MAX);
    operations.extend(unnamed.map(|path| operation(FileOperationKind::Edit, path)));
    operations
}

/// Files that `rm` and `git rm` deleted. A command's success follows from the call's where all that comes after it
/// ran only because it succeeded; a `cd` before makes relative paths unknown.
fn deletions(command: &str, cwd: Option<&str>) -> Vec<FileOperation> {
    if !command.contains("rm") {
        return Vec::new();
    }
    let commands = shell::commands(command);
    let mut paths = Vec::new();
    for (index, command) in commands.iter().enumerate() {
        if matches!(command.program(), "cd" | "pushd" | "popd") {
            break;
        }
        let succeeded = commands[index..].iter().all(|c| matches!(c.then, Separator::And | Separator::End));
        let was_run = index == 0 || matches!(commands[index - 1].then, Separator::And | Separator::Always);
        if !succeeded || !was_run {
            continue;
        }
        let words = match command.program() {
            "rm" | "unlink" => &command.words[1..],
            "git" if command.words.get(1).is_some_and(|word| word.text == "rm") => &command.words[2..],
            _ => continue,
        };
        if words.iter().any(|word| word.text == "--cached" || word.text == "-n" || word.text == "--dry-run") {
            continue;
        }
        let is_path =
            |word: &&shell::Word| !word.expands && !word.text.starts_with('-') && !word.text.is_empty();
        paths.extend(words.iter().filter(is_path).map(|word| resolved(&word.text, cwd)));
    }
    paths.iter().take(FILE_OPERATIONS_MAX).map(|path| operation(FileOperationKind::Delete, path)).collect()
}

/// The path as seen from the working directory, by text alone.
fn resolved(path: &str, cwd: Option<&str>) -> String {
    let is_absolute = path.starts_with(['/', '\\']) || path.as_bytes().get(1) == Some(&b':');
    match cwd {
        Some(cwd) if !is_absolute => {
            format!("{}/{}", cwd.trim_end_matches('/'), path.strip_prefix("./").unwrap_or(path))
        }
        _ => path.to_owned(),
    }
}

fn set_lines(operation: &mut FileOperation, lines: Option<(u32, u32)>) {
    operation.lines_added = lines.map(|(added, _)| added);
    operation.lines_removed = lines.map(|(_, removed)| removed);
}

/// Lines added and removed by a patch: `[{"lines": [" same", "-old", "+new"]}]`.
fn patch_lines(raw: &str) -> Option<(u32, u32)> {
    #[derive(Deserialize)]
    struct Hunk<'a> {
        #[serde(borrow, default)]
        lines: Vec<&'a RawValue>,
    }
    let hunks: Vec<Hunk<'_>> = serde_json::from_str(raw).ok()?;
    let (mut added, mut removed) = (0usize, 0usize);
    for line in hunks.iter().flat_map(|hunk| &hunk.lines) {
        match line.get().as_bytes().get(1) {
            Some(b'+') => added += 1,
            Some(b'-') => removed += 1,
            _ => {}
        }
    }
    Some((count(added), count(removed)))
}

fn count(lines: usize) -> u32 {
    u32::try_from(lines).unwrap_or(u32::MAX)
}

/// Lines added and removed between two texts, by their longest common subsequence.
fn diff(old: &str, new: &str) -> (u32, u32) {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let same_head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same_head..], &new[same_head..]);
    let same_tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - same_tail], &new[..new.len() - same_tail]);
    let common =
        if old.len().saturating_mul(new.len()) <= DIFF_CELLS_MAX { common_lines(old, new) } else { 0 };
    (count(new.len() - common), count(old.len() - common))
}

/// The length of the longest common subsequence, in one row.
fn common_lines(old: &[&str], new: &[&str]) -> usize {
    let mut row = vec![0usize; new.len() + 1];
    for a in old {
        let mut diagonal = 0;
        for (index, b) in new.iter().enumerate() {
            let above = row[index + 1];
            row[index + 1] = if a == b { diagonal + 1 } else { above.max(row[index]) };
            diagonal = above;
        }
    }
    row[new.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_as_a_diff_counts_them() {
        let table = [
            ("", "", (0, 0)),
            ("a\n", "a\n", (0, 0)),
            ("", "a\nb\n", (2, 0)),
            ("a\nb", "", (0, 2)),
            ("a\nb\nc\n", "a\nx\nc\n", (1, 1)),
            ("a\nb\nc\nd", "b\nx\nd\ny", (2, 2)),
            ("    return w * h\n", "    return w * h\n\n\ndef p(w, h):\n    return 2\n", (4, 0)),
        ];
        for (old, new, want) in table {
            assert_eq!(diff(old, new), want, "{old:?} -> {new:?}");
        }
        let long: String = (0..3000).map(|n| format!("{n}\n")).collect();
        let other: String = (0..3000).map(|n| format!("x{n}\n")).collect();
        assert_eq!(diff(&long, &other), (3000, 3000));
    }

    #[test]
    fn only_sure_deletions_count() {
        let paths = |command: &str| -> Vec<String> {
            deletions(command, Some("/p")).into_iter().map(|op| op.path).collect()
        };
        assert_eq!(paths("rm -f a.txt ./b/c.txt /tmp/d"), ["/p/a.txt", "/p/b/c.txt", "/tmp/d"]);
        assert_eq!(paths("make && git rm -q 'old file' && git commit -qm x"), ["/p/old file"]);
        assert_eq!(paths("ls; rm a"), ["/p/a"]);
        for unsure in [
            "rm a; ls",
            "rm a || true",
            "rm *.o",
            "rm $X",
            "cd x && rm a",
            "git rm --cached a",
            "echo rm a",
            "false || rm a",
            "rm a &",
            "rm a | cat",
        ] {
            assert_eq!(paths(unsure), [""; 0], "{unsure}");
        }
    }
}
