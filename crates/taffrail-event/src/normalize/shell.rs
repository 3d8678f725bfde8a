//! The simple commands of a shell script, as far as an observer needs them.
//!
//! This is no grammar and judges nothing: quotes, escapes, substitutions and heredocs are respected where commands
//! are told apart, words come without their quotes, and a word that the shell would expand is marked so. Commands inside of
//! substitutions are not looked at. Limits: [`COMMANDS_MAX`] commands, the first [`SCRIPT_MAX_BYTES`] of a script.

/// The most commands of a script that are looked at.
const COMMANDS_MAX: usize = 128;

/// How much of a script is looked at.
const SCRIPT_MAX_BYTES: usize = 64 * 1024;

/// The deepest nesting of substitutions that is followed.
const NESTING_MAX: usize = 16;

/// One simple command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command<'a> {
    /// The text as typed.
    pub(super) text: &'a str,
    /// Its words, assignments and redirections left out.
    pub(super) words: Vec<Word>,
    /// What stands between it and the next one.
    pub(super) then: Separator,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// Without quotes and escapes.
    pub(super) text: String,
    /// Whether the shell makes something else of it: variables, substitutions, globs, braces, a tilde.
    pub(super) expands: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Separator {
    /// `;`, a newline, a bracket: the next command runs in any case.
    Always,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `|`
    Pipe,
    /// `&`
    Background,
    /// The script ends.
    #[default]
    End,
}

impl Command<'_> {
    /// The program's name without its folder.
    pub(super) fn program(&self) -> &str {
        self.words.first().map_or("", |word| word.text.rsplit('/').next().unwrap_or(&word.text))
    }
}

/// Words before a command that change nothing of what it does.
const PREFIXES: &[&str] =
    &["sudo", "command", "time", "nohup", "exec", "then", "do", "else", "!", "{", "if", "while"];

/// The simple commands of a script, in order.
pub(super) fn commands(script: &str) -> Vec<Command<'_>> {
    let mut scanner = Scanner {
        text: super::error::prefix(script, SCRIPT_MAX_BYTES),
        at: 0,
        heredocs: Vec::new(),
        nesting: 0,
    };
    let mut commands = Vec::new();
    while scanner.at < scanner.text.len() && commands.len() < COMMANDS_MAX {
        let command = scanner.command();
        if !command.words.is_empty() {
            commands.push(command);
        }
    }
    commands
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The ends of heredocs whose bodies begin after this line.
    heredocs: Vec<String>,
    /// How many substitutions are open.
    nesting: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn starts_with(&self, what: &str) -> bool {
        self.text.as_bytes()[self.at..].starts_with(what.as_bytes())
    }

    fn command(&mut self) -> Command<'a> {
        let start = self.at;
        let mut words = Vec::new();
        let (end, then) = loop {
            let here = self.at;
            let Some(byte) = self.peek() else { break (here, Separator::End) };
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.starts_with("\\\n") => self.at += 2,
                b'#' => self.skip_line(),
                b'\n' => {
                    self.at += 1;
                    self.skip_heredocs();
                    break (here, Separator::Always);
                }
                b';' | b'(' | b')' => {
                    self.at += 1;
                    break (here, Separator::Always);
                }
                b'&' if self.starts_with("&>") => self.redirection(),
                b'&' | b'|' => break (here, self.operator()),
                b'<' | b'>' => self.redirection(),
                _ => {
                    if let Some(word) = self.word() {
                        words.push(word);
                    }
                }
            }
        };
        Command { text: self.text[start..end].trim(), words: without_prefixes(words), then }
    }

    fn operator(&mut self) -> Separator {
        for (operator, separator) in
            [("&&", Separator::And), ("||", Separator::Or), ("|&", Separator::Pipe), ("|", Separator::Pipe)]
        {
            if self.starts_with(operator) {
                self.at += operator.len();
                return separator;
            }
        }
        self.at += 1;
        Separator::Background
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.find('\n').unwrap_or(rest.len());
    }

    /// `>file`, `2>&1`, `<<EOF`, `<<<word`: taken off, the end of a heredoc remembered.
    fn redirection(&mut self) {
        let is_heredoc = self.starts_with("<<") && !self.starts_with("<<<");
        while self.peek().is_some_and(|b| matches!(b, b'<' | b'>' | b'&' | b'|')) {
            self.at += 1;
        }
        if is_heredoc && self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'(') {
            // A process substitution is a word.
            self.at += 1;
            self.substitution();
            return;
        }
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            self.at += 1;
        }
        if let Some(word) = self.word()
            && is_heredoc
        {
            self.heredocs.push(word.text);
        }
    }

    fn skip_heredocs(&mut self) {
        for end in std::mem::take(&mut self.heredocs) {
            while self.at < self.text.len() {
                let rest = &self.text[self.at..];
                let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
                self.at += (line.len() + 1).min(rest.len());
                if line.trim_start_matches('\t').trim_end_matches('\r') == end {
                    break;
                }
            }
        }
    }

    /// One word; none where a separator stands, or where it is the number of a redirection.
    fn word(&mut self) -> Option<Word> {
        let start = self.at;
        let mut word = Word::default();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
                b'\'' => self.single_quoted(&mut word),
                b'"' => self.double_quoted(&mut word),
                b'\\' => self.escaped(&mut word),
                b'$' | b'`' => self.expansion(&mut word),
                b'*' | b'?' | b'[' | b'{' | b'~' => {
                    // A tilde expands only at the start; `HEAD~1` and `{` alone are themselves.
                    word.expands |= byte != b'~' || self.at == start;
                    self.push(&mut word);
                }
                _ => self.push(&mut word),
            }
        }
        if self.at == start {
            return None;
        }
        let is_descriptor =
            matches!(self.peek(), Some(b'<' | b'>')) && word.text.bytes().all(|b| b.is_ascii_digit());
        (!is_descriptor).then_some(word)
    }

    fn push(&mut self, word: &mut Word) {
        if let Some(c) = self.text[self.at..].chars().next() {
            word.text.push(c);
            self.at += c.len_utf8();
        }
    }

    fn single_quoted(&mut self, word: &mut Word) {
        let rest = &self.text[self.at + 1..];
        let length = rest.find('\'').unwrap_or(rest.len());
        word.text.push_str(&rest[..length]);
        self.at = (self.at + length + 2).min(self.text.len());
    }

    fn escaped(&mut self, word: &mut Word) {
        self.at += 1;
        if self.peek() == Some(b'\n') {
            self.at += 1;
        } else {
            self.push(word);
        }
    }

    fn double_quoted(&mut self, word: &mut Word) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'\\' => self.escaped(word),
                b'$' | b'`' => self.expansion(word),
                _ => self.push(word),
            }
        }
    }

    /// `$x`, `${x}`, `$(...)`, backquotes: kept as typed and marked.
    fn expansion(&mut self, word: &mut Word) {
        let start = self.at;
        word.expands = true;
        if self.starts_with("$(") {
            self.at += 2;
            self.substitution();
        } else if self.peek() == Some(b'`') {
            let rest = &self.text[self.at + 1..];
            self.at = (self.at + rest.find('`').unwrap_or(rest.len()) + 2).min(self.text.len());
        } else {
            self.at += 1;
            if self.peek() == Some(b'{') {
                let rest = &self.text[self.at..];
                self.at += rest.find('}').map_or(rest.len(), |end| end + 1);
            }
        }
        word.text.push_str(&self.text[start..self.at]);
    }

    /// To the bracket that ends a substitution, over quotes, brackets and heredocs inside of it.
    fn substitution(&mut self) {
        self.nesting += 1;
        let outer = std::mem::take(&mut self.heredocs);
        let mut ignored = Word::default();
        let mut open = 1usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'(' => {
                    open += 1;
                    self.at += 1;
                }
                b')' => {
                    open -= 1;
                    self.at += 1;
                    if open == 0 {
                        break;
                    }
                }
                b'\'' => self.single_quoted(&mut ignored),
                b'"' if self.nesting < NESTING_MAX => self.double_quoted(&mut ignored),
                b'\\' => self.escaped(&mut ignored),
                b'$' if self.nesting < NESTING_MAX => self.expansion(&mut ignored),
                b'<' if self.nesting < NESTING_MAX && self.starts_with("<<") => self.redirection(),
                b'\n' => {
                    self.at += 1;
                    self.skip_heredocs();
                }
                _ => self.push(&mut ignored),
            }
            ignored.text.clear();
        }
        self.heredocs = outer;
        self.nesting -= 1;
    }
}

/// Takes assignments (`A=b cmd`) and words like `sudo` off the front.
fn without_prefixes(words: Vec<Word>) -> Vec<Word> {
    let is_assignment = |word: &Word| {
        word.text.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !name.as_bytes()[0].is_ascii_digit()
        })
    };
    let skipped =
        words.iter().take_while(|word| is_assignment(word) || PREFIXES.contains(&word.text.as_str())).count();
    words.into_iter().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(script: &str, want: &[&[&str]]) {
        let commands = commands(script);
        let got: Vec<Vec<&str>> = commands
            .iter()
            .map(|command| command.words.iter().map(|word| word.text.as_str()).collect())
            .collect();
        assert_eq!(got, want, "{script}");
    }

    #[test]
    fn commands_are_told_apart() {
        check("git status --short && git log", &[&["git", "status", "--short"], &["git", "log"]]);
        check("a; b | c || d & e\nf", &[&["a"], &["b"], &["c"], &["d"], &["e"], &["f"]]);
        check("A=1 B='x y' git -C 'a b' log", &[&["git", "-C", "a b", "log"]]);
        check("echo \"a; b\" 'c && d' e\\;f # g; h", &[&["echo", "a; b", "c && d", "e;f"]]);
        check("make 2>&1 >out.txt | tail -5", &[&["make"], &["tail", "-5"]]);
        check("cat <<EOF > x\nrm -rf /\nEOF\nls", &[&["cat"], &["ls"]]);
        check("if true; then sudo rm a; fi", &[&["true"], &["rm", "a"], &["fi"]]);
        check("(cd a && b)", &[&["cd", "a"], &["b"]]);
    }

    #[test]
    fn a_heredoc_in_a_substitution_in_quotes_is_one_word() {
        let script =
            "git add x && git commit -m \"$(cat <<'EOF'\nDon't stop (\n\nCo: \"A\"\nEOF\n)\" && git log -1";
        let commands = commands(script);
        let words: Vec<usize> = commands.iter().map(|command| command.words.len()).collect();
        assert_eq!(words, [3, 4, 3], "{commands:?}");
        assert!(commands[1].words[3].expands);
    }

    proptest! {
        #[test]
        fn any_text_ends_without_a_panic(script in r#"[ab \n'"$(){}`<>|&;\\#=*~é-]{0,80}"#) {
            let _ = commands(&script);
        }
    }
}
