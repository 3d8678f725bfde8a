//! Splits Rust source into code, string contents and comments, line by line.
//!
//! It knows just enough of the grammar to tell these apart: line and nested block comments,
//! strings with escapes, raw strings, byte strings, characters and lifetimes. It does not
//! parse, and macros that invent their own lexing would confuse it.

/// One source line, taken apart. The parts that are not of a kind are left out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// What the compiler runs, with `""` for each string.
    pub(crate) code: String,
    /// The contents of string literals, a NUL between one and the next.
    pub(crate) strings: String,
    /// Comments, with their slashes.
    pub(crate) comment: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
}

/// Takes a whole file apart.
pub(crate) fn scan(source: &str) -> Vec<Line> {
    let chars: Vec<char> = source.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        if chars[at] == '\n' {
            if state == State::LineComment {
                state = State::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let line = lines.last_mut().expect("there is always a line");
        at += step(&chars[at..], &mut state, line);
    }
    lines
}

/// Consumes at least one character of a line and returns how many.
fn step(rest: &[char], state: &mut State, line: &mut Line) -> usize {
    match *state {
        State::Code => step_code(rest, state, line),
        State::LineComment => take(rest, 1, &mut line.comment),
        State::BlockComment { depth } => match rest {
            ['*', '/', ..] => {
                *state = if depth == 1 { State::Code } else { State::BlockComment { depth: depth - 1 } };
                take(rest, 2, &mut line.comment)
            }
            ['/', '*', ..] => {
                *state = State::BlockComment { depth: depth + 1 };
                take(rest, 2, &mut line.comment)
            }
            _ => take(rest, 1, &mut line.comment),
        },
        State::Text => match rest {
            ['\\', next, ..] if *next != '\n' => take(rest, 2, &mut line.strings),
            ['"', ..] => {
                *state = State::Code;
                take(rest, 1, &mut line.code)
            }
            _ => take(rest, 1, &mut line.strings),
        },
        State::RawText { hashes } => {
            if rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes {
                *state = State::Code;
                return take(rest, 1 + hashes, &mut line.code);
            }
            take(rest, 1, &mut line.strings)
        }
    }
}

fn step_code(rest: &[char], state: &mut State, line: &mut Line) -> usize {
    match rest {
        ['/', '/', ..] => {
            *state = State::LineComment;
            take(rest, 2, &mut line.comment)
        }
        ['/', '*', ..] => {
            *state = State::BlockComment { depth: 1 };
            take(rest, 2, &mut line.comment)
        }
        ['"', ..] => {
            open(State::Text, state, line);
            take(rest, 1, &mut line.code)
        }
        ['r', next, ..] if (*next == '"' || *next == '#') && !ends_in_word(&line.code) => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                return take(rest, 1, &mut line.code);
            }
            open(State::RawText { hashes }, state, line);
            take(rest, 2 + hashes, &mut line.code)
        }
        ['\'', '\\', ..] => {
            let end = rest[3.min(rest.len())..].iter().position(|c| *c == '\'').map_or(2, |p| p + 4);
            take(rest, end, &mut line.code)
        }
        ['\'', _, '\'', ..] => take(rest, 3, &mut line.code),
        _ => take(rest, 1, &mut line.code),
    }
}

fn open(string: State, state: &mut State, line: &mut Line) {
    *state = string;
    if !line.strings.is_empty() {
        line.strings.push('\0');
    }
}

/// Whether an `r` here would be the end of a name; `br"` and `cr"` are raw strings too.
fn ends_in_word(code: &str) -> bool {
    let word: String = code.chars().rev().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    !(word.is_empty() || word == "b" || word == "c")
}

fn take(rest: &[char], count: usize, into: &mut String) -> usize {
    let count = count.min(rest.len());
    into.extend(&rest[..count]);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, code: &str, strings: &str, comment: &str) {
        let lines = scan(source);
        let join =
            |part: fn(&Line) -> &String| lines.iter().map(part).cloned().collect::<Vec<_>>().join("\n");
        assert_eq!(join(|l| &l.code), code, "code");
        assert_eq!(join(|l| &l.strings), strings, "strings");
        assert_eq!(join(|l| &l.comment), comment, "comment");
    }

    #[test]
    fn strings_and_comments_are_told_from_code() {
        check(r#"let a = "x // \" y"; // z "q""#, r#"let a = ""; "#, r#"x // \" y"#, r#"// z "q""#);
        check("a /* b /* c */ d */ e", "a  e", "", "/* b /* c */ d */");
    }

    #[test]
    fn raw_strings_end_at_their_own_mark() {
        check("f(r#\"a \" b\"#, br\"\\\")", "f(r#\"\"#, br\"\")", "a \" b\0\\", "");
        check("for r in r#type {}", "for r in r#type {}", "", "");
        check("var\"x\"", "var\"\"", "x", "");
    }

    #[test]
    fn characters_and_lifetimes_open_no_string() {
        check("m('\"', '\\'', '\\u{22}', 'a, \"s\")", "m('\"', '\\'', '\\u{22}', 'a, \"\")", "s", "");
    }

    #[test]
    fn a_string_may_span_lines() {
        check("\"a\nb\" + c", "\"\n\" + c", "a\nb", "\n");
    }
}
