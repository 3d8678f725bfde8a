//! Follows a script command by command: variables it sets, directories it enters, wrappers it runs through.
//!
//! Over-approximates where it must: every branch runs, `cd` succeeds, a loop variable has all its values. It never
//! under-approximates what it claims to know, and it says [`UNKNOWN`] for the rest.

use std::collections::HashMap;

use crate::recursive_delete::{self, Targets};
use crate::shell::{self, Atom, SimpleCommand, Unparsed, Word};
use crate::{Context, Verdict};

/// Deepest `sh -c 'sh -c ...'`.
const SCRIPT_DEPTH_LIMIT: usize = 4;
/// Most words that one word may become by braces and variables; beyond, its value counts as unknown.
const EXPANSION_LIMIT: usize = 64;
/// Longest value that a variable is followed with; beyond, it counts as unknown.
const VALUE_LIMIT_BYTES: usize = 16 * 1024;
/// Longest word whose braces are expanded.
const BRACE_LIMIT_CHARS: usize = 2 * 1024;
/// Most simple commands judged over all nested scripts.
const WORK_LIMIT: usize = 20_000;

/// Stands in an expanded word for a value that is not known here.
pub(crate) const UNKNOWN: char = '\u{E000}';
/// Stands for an unquoted `*`, `?` or bracket expression: matches names.
pub(crate) const ANY_NAME: char = '\u{E001}';

/// Judges a script and returns the strictest verdict on any of its commands.
pub(crate) fn judge_script(script: &str, context: &Context<'_>) -> Result<Verdict, Unparsed> {
    let mut walk = Walk {
        context,
        cwd: context.cwd.map(str::to_owned),
        variables: HashMap::new(),
        worst: Verdict::allow(),
        judged: 0,
    };
    walk.script(script, 0)?;
    Ok(walk.worst)
}

struct Walk<'a> {
    context: &'a Context<'a>,
    /// Where the next command runs; `None` when unknown.
    cwd: Option<String>,
    /// All values that a variable may have.
    variables: HashMap<String, Vec<String>>,
    worst: Verdict,
    judged: usize,
}

impl Walk<'_> {
    fn script(&mut self, script: &str, depth: usize) -> Result<(), Unparsed> {
        if depth > SCRIPT_DEPTH_LIMIT {
            return Err(Unparsed::TooDeep);
        }
        let commands = shell::parse(script)?;
        let mut left: Vec<(u32, Option<String>)> = Vec::new();
        let mut output_text = None;
        for command in &commands {
            self.judged += 1;
            if self.judged > WORK_LIMIT {
                return Err(Unparsed::TooMany);
            }
            self.enter_scope(&mut left, &command.scope);
            let input = command.stdin_text.as_ref().map(|word| self.text(word));
            let input = input.or(if command.piped { output_text.take() } else { None });
            output_text = self.command(command, input, depth)?;
        }
        self.enter_scope(&mut left, &[]);
        Ok(())
    }

    /// A subshell's `cd` ends with it: `left` remembers where each open one started.
    fn enter_scope(&mut self, left: &mut Vec<(u32, Option<String>)>, scope: &[u32]) {
        let shared = left.iter().zip(scope).take_while(|((id, _), wanted)| id == *wanted).count();
        if let Some((_, cwd)) = left.drain(shared..).next() {
            self.cwd = cwd;
        }
        left.extend(scope[shared..].iter().map(|id| (*id, self.cwd.clone())));
    }

    /// Judges one command; returns what it prints, when that is known.
    fn command(
        &mut self,
        command: &SimpleCommand,
        input: Option<String>,
        depth: usize,
    ) -> Result<Option<String>, Unparsed> {
        for (name, word) in &command.assignments {
            let value = self.text(word);
            self.assign(name, vec![value]);
        }
        let words = without_reserved(&command.words);
        if let Some((name, values)) = loop_variable(words) {
            let values = values.iter().flat_map(|word| self.fields(word)).take(EXPANSION_LIMIT).collect();
            self.assign(&name, values);
            return Ok(None);
        }
        let arguments: Vec<String> = words.iter().flat_map(|word| self.fields(word)).collect();
        self.run(&arguments, input, depth)
    }

    fn run(
        &mut self,
        arguments: &[String],
        input: Option<String>,
        depth: usize,
    ) -> Result<Option<String>, Unparsed> {
        let Unwrapped { arguments, from_input } = unwrap_wrappers(arguments);
        let Some((name, rest)) = arguments.split_first() else { return Ok(None) };
        match base_name(name) {
            "cd" | "pushd" => self.change_directory(rest),
            "echo" | "printf" => return Ok(Some(without_options(rest).join(" "))),
            "cat" | "tee" => return Ok(input),
            "eval" => self.script(&rest.join(" "), depth + 1)?,
            "export" | "declare" | "local" | "readonly" | "typeset" => self.declare(rest),
            "sh" | "bash" | "zsh" | "dash" | "ksh" | "ash" | "fish" => {
                if let Some(script) = inline_script(rest).or(input) {
                    self.inner_script(&script, depth + 1)?;
                }
            }
            "rm" => {
                let mut targets = Targets::read(rest);
                if from_input {
                    targets.paths.extend(input.unwrap_or_default().split_whitespace().map(str::to_owned));
                }
                self.judge(&targets);
            }
            _ if name.contains(UNKNOWN) => {
                let targets = Targets::read(rest);
                self.judge(&Targets { certain: false, ..targets });
            }
            _ => {}
        }
        Ok(None)
    }

    /// A shell of its own starts here: what it changes stays inside.
    fn inner_script(&mut self, script: &str, depth: usize) -> Result<(), Unparsed> {
        let cwd = self.cwd.clone();
        self.script(script, depth)?;
        self.cwd = cwd;
        Ok(())
    }

    fn judge(&mut self, targets: &Targets) {
        let verdict = recursive_delete::judge(targets, self.cwd.as_deref(), self.context);
        if verdict.decision > self.worst.decision {
            self.worst = verdict;
        }
    }

    fn change_directory(&mut self, arguments: &[String]) {
        let target = without_options(arguments).first();
        let target = match target {
            Some(target) if target == "-" => None,
            Some(target) => Some(target.clone()),
            None => Some(self.home()),
        };
        self.cwd = target.and_then(|target| recursive_delete::absolute(&target, self.cwd.as_deref()));
    }

    fn declare(&mut self, arguments: &[String]) {
        for argument in arguments {
            if let Some((name, value)) = argument.split_once('=') {
                self.assign(name, vec![value.to_owned()]);
            }
        }
    }

    /// A variable that is set twice may hold either value: branches and loops are not told apart.
    fn assign(&mut self, name: &str, values: Vec<String>) {
        let known = self.variables.entry(name.to_owned()).or_default();
        for value in values {
            if known.len() < EXPANSION_LIMIT && !known.contains(&value) {
                known.push(value);
            }
        }
    }

    fn values(&self, name: &str, default: Option<&Word>) -> Vec<String> {
        if let Some(values) = self.variables.get(name).filter(|values| !values.is_empty()) {
            return values.clone();
        }
        let known = match name {
            "HOME" => Some(self.home()),
            "PWD" => self.cwd.clone(),
            "CLAUDE_PROJECT_DIR" => self.context.cwd.map(str::to_owned),
            "TAFFRAIL_HOME" => self.context.taffrail_home.map(str::to_owned),
            _ => None,
        };
        match (known, default) {
            (Some(value), _) => vec![value],
            (None, Some(word)) => vec![self.text(word)],
            (None, None) => vec![UNKNOWN.to_string()],
        }
    }

    /// The value of a word that is not split: an assignment, a here-document. Patterns stay plain text.
    fn text(&self, word: &Word) -> String {
        let tilde = self.tilde(&word.0);
        let rest = &word.0[usize::from(tilde.is_some())..];
        let mut text = tilde.unwrap_or_default();
        for atom in rest {
            match atom {
                Atom::Bare(c) | Atom::Quoted(c) => text.push(*c),
                Atom::Opaque => text.push(UNKNOWN),
                Atom::Variable { name, default, .. } => {
                    match self.values(name, default.as_ref()).as_slice() {
                        [value] if text.len() + value.len() <= VALUE_LIMIT_BYTES => text.push_str(value),
                        _ => text.push(UNKNOWN),
                    }
                }
            }
        }
        text
    }

    /// The arguments that a word becomes: braces, tilde, variables and splitting; patterns become [`ANY_NAME`].
    fn fields(&self, word: &Word) -> Vec<String> {
        expand_braces(&word.0).iter().flat_map(|atoms| self.expand(atoms)).collect()
    }

    fn expand(&self, atoms: &[Atom]) -> Vec<String> {
        let tilde = self.tilde(atoms);
        let rest = &atoms[usize::from(tilde.is_some())..];
        let mut results = vec![vec![tilde.unwrap_or_default()]];
        let mut at = 0;
        while let Some(atom) = rest.get(at) {
            at += 1;
            match atom {
                Atom::Bare('*' | '?') => append(&mut results, &ANY_NAME.to_string()),
                Atom::Bare('[') => {
                    let end = rest[at..].iter().position(|a| *a == Atom::Bare(']'));
                    append(&mut results, &end.map_or('[', |_| ANY_NAME).to_string());
                    at += end.map_or(0, |end| end + 1);
                }
                Atom::Bare(c) | Atom::Quoted(c) => append(&mut results, c.encode_utf8(&mut [0; 4])),
                Atom::Opaque => append(&mut results, &UNKNOWN.to_string()),
                Atom::Variable { name, quoted, default } => {
                    let values = self.values(name, default.as_ref());
                    results = append_values(&results, &values, *quoted);
                }
            }
        }
        let dropped_if_empty = atoms.iter().all(|a| matches!(a, Atom::Variable { quoted: false, .. }));
        let keeps_empty = !dropped_if_empty || atoms.is_empty();
        results.into_iter().flatten().filter(|field| keeps_empty || !field.is_empty()).collect()
    }

    /// The user's home, or a name that the rules take for one.
    fn home(&self) -> String {
        self.context.home.unwrap_or("/home/~").to_owned()
    }

    /// The directory that a leading tilde stands for; consumes exactly the first atom.
    fn tilde(&self, atoms: &[Atom]) -> Option<String> {
        let is_tilde = atoms.first() == Some(&Atom::Bare('~'));
        let alone = matches!(atoms.get(1), None | Some(Atom::Bare('/')));
        match (is_tilde, alone) {
            (true, true) => Some(self.home()),
            // `~name`: somebody's home, which the rules know by where homes live.
            (true, false) if matches!(atoms.get(1), Some(Atom::Bare(c)) if c.is_ascii_alphabetic()) => {
                Some("/home/".to_owned())
            }
            _ => None,
        }
    }
}

fn append(results: &mut [Vec<String>], text: &str) {
    for fields in results {
        if let Some(last) = fields.last_mut() {
            last.push_str(text);
        }
    }
}

/// Each result so far, continued by each value; an unquoted value is split at blanks.
fn append_values(results: &[Vec<String>], values: &[String], quoted: bool) -> Vec<Vec<String>> {
    let unknown = [UNKNOWN.to_string()];
    let size: usize = results.iter().flatten().map(String::len).sum();
    let added: usize = values.iter().map(String::len).sum();
    let too_much = results.len() * values.len() > EXPANSION_LIMIT
        || size * values.len() + added * results.len() > EXPANSION_LIMIT * VALUE_LIMIT_BYTES / 4;
    let values = if too_much { &unknown } else { values };
    let mut continued = Vec::new();
    for fields in results {
        for value in values {
            let mut fields = fields.clone();
            let globbed: String;
            let mut parts: Vec<&str> = vec![value];
            if !quoted {
                globbed = value.replace(['*', '?'], &ANY_NAME.to_string());
                parts = globbed.split(char::is_whitespace).collect();
            }
            for (index, part) in parts.into_iter().enumerate() {
                if index > 0 {
                    fields.push(String::new());
                }
                if let Some(last) = fields.last_mut() {
                    last.push_str(part);
                }
            }
            continued.push(fields);
        }
    }
    continued
}

/// `a{b,c}d` becomes `abd acd`. Sequences (`{1..9}`) stay as they are; too many results leave the word unexpanded with
/// its braces unknown.
fn expand_braces(atoms: &[Atom]) -> Vec<Vec<Atom>> {
    if atoms.len() > BRACE_LIMIT_CHARS {
        return vec![atoms.to_vec()];
    }
    let mut pending = vec![atoms.to_vec()];
    let mut done = Vec::new();
    while let Some(word) = pending.pop() {
        let Some((open, commas, close)) = first_braces(&word) else {
            done.push(word);
            continue;
        };
        if pending.len() + done.len() + commas.len() + 1 > EXPANSION_LIMIT {
            let unknown = [&word[..open], &[Atom::Opaque], &word[close + 1..]].concat();
            done.push(unknown);
            continue;
        }
        let mut start = open + 1;
        for end in commas.into_iter().chain([close]) {
            pending.push([&word[..open], &word[start..end], &word[close + 1..]].concat());
            start = end + 1;
        }
    }
    done
}

/// The first brace pair with a comma at its own level: where it opens, its commas, where it closes.
fn first_braces(word: &[Atom]) -> Option<(usize, Vec<usize>, usize)> {
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    for (at, atom) in word.iter().enumerate() {
        match atom {
            Atom::Bare('{') => open.push((at, Vec::new())),
            Atom::Bare(',') => {
                if let Some((_, commas)) = open.last_mut() {
                    commas.push(at);
                }
            }
            Atom::Bare('}') => match open.pop() {
                Some((start, commas)) if !commas.is_empty() => return Some((start, commas, at)),
                _ => {}
            },
            _ => {}
        }
    }
    None
}

/// Words that only shape the script stand in front of the command.
fn without_reserved(words: &[Word]) -> &[Word] {
    const RESERVED: [&str; 15] = [
        "if", "then", "elif", "else", "fi", "do", "done", "while", "until", "!", "{", "}", "esac", "coproc",
        "time",
    ];
    let skipped =
        words.iter().take_while(|w| w.bare().is_some_and(|w| RESERVED.contains(&w.as_str()))).count();
    &words[skipped..]
}

/// `for NAME in WORD...`
fn loop_variable(words: &[Word]) -> Option<(String, &[Word])> {
    let [keyword, name, r#in, values @ ..] = words else { return None };
    let is_loop = matches!(keyword.bare()?.as_str(), "for" | "select") && r#in.bare()? == "in";
    Some((name.bare()?, values)).filter(|_| is_loop)
}

fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn without_options(arguments: &[String]) -> &[String] {
    let options = arguments.iter().take_while(|a| a.len() > 1 && a.starts_with('-')).count();
    &arguments[options..]
}

/// The script of `sh -c SCRIPT`, also as `-lc` or `-x -c`.
fn inline_script(arguments: &[String]) -> Option<String> {
    let options = arguments.iter().take_while(|a| a.starts_with(['-', '+'])).count();
    let takes_script = arguments[..options].iter().any(|a| !a.starts_with("--") && a.contains('c'));
    takes_script.then(|| arguments.get(options).cloned()).flatten()
}

struct Unwrapped<'a> {
    arguments: &'a [String],
    /// `xargs`: more arguments come from its input.
    from_input: bool,
}

/// Takes off the commands that only run another command: `sudo`, `env`, `timeout`, ...
fn unwrap_wrappers(arguments: &[String]) -> Unwrapped<'_> {
    let mut unwrapped = Unwrapped { arguments, from_input: false };
    while let Some((name, rest)) = unwrapped.arguments.split_first() {
        let Some(wrapper) = wrapper(base_name(name)) else { break };
        unwrapped.from_input |= base_name(name) == "xargs";
        unwrapped.arguments = wrapper.strip(rest);
    }
    unwrapped
}

/// How a wrapper's own arguments are told from the command it runs.
struct Wrapper {
    /// Short options that take the next argument as their value.
    valued: &'static str,
    /// Long options that take the next argument as their value.
    valued_long: &'static [&'static str],
    /// Plain arguments before the command.
    operands: usize,
}

fn wrapper(name: &str) -> Option<Wrapper> {
    let plain = |valued, operands| Some(Wrapper { valued, valued_long: &[], operands });
    match name {
        "sudo" => Some(Wrapper {
            valued: "ugpCDhrtTU",
            valued_long: &["--user", "--group", "--prompt", "--chdir", "--host", "--role", "--type"],
            operands: 0,
        }),
        "doas" => plain("uC", 0),
        "env" => Some(Wrapper { valued: "uCS", valued_long: &["--unset", "--chdir"], operands: 0 }),
        "command" | "builtin" | "nohup" | "setsid" | "busybox" | "toybox" | "noglob" => plain("", 0),
        "exec" => plain("a", 0),
        "time" => plain("fo", 0),
        "nice" => Some(Wrapper { valued: "n", valued_long: &["--adjustment"], operands: 0 }),
        "ionice" => plain("cnpPu", 0),
        "chrt" | "taskset" => plain("", 1),
        "stdbuf" => plain("ioe", 0),
        "timeout" => Some(Wrapper { valued: "ks", valued_long: &["--kill-after", "--signal"], operands: 1 }),
        "xargs" => Some(Wrapper {
            valued: "adEILnPs",
            valued_long: &[
                "--arg-file",
                "--delimiter",
                "--max-args",
                "--max-procs",
                "--max-lines",
                "--replace",
            ],
            operands: 0,
        }),
        _ => None,
    }
}

impl Wrapper {
    fn strip<'a>(&self, arguments: &'a [String]) -> &'a [String] {
        let mut at = 0;
        while let Some(argument) = arguments.get(at) {
            let is_option = argument.len() > 1 && argument.starts_with('-');
            if argument == "--" {
                at += 1;
                break;
            } else if is_option {
                at += if self.takes_value(argument) { 2 } else { 1 };
            } else if is_assignment(argument) {
                at += 1;
            } else {
                break;
            }
        }
        arguments.get(at + self.operands..).unwrap_or_default()
    }

    fn takes_value(&self, option: &str) -> bool {
        match option.strip_prefix("--") {
            Some(_) => self.valued_long.contains(&option),
            // `-u NAME`, not `-uNAME`: the value is the next argument only when the letter stands last.
            None => option.chars().last().is_some_and(|letter| {
                let first_valued = option.chars().skip(1).position(|c| self.valued.contains(c));
                self.valued.contains(letter) && first_valued == Some(option.chars().count() - 2)
            }),
        }
    }
}

fn is_assignment(argument: &str) -> bool {
    argument.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}
