//! Splits a shell script into simple commands: enough of the POSIX and bash grammar to know which words are commands,
//! which are arguments, and which are only text.
//!
//! Not a full grammar on purpose (that is a later step): compound commands are flattened into the simple commands they
//! hold, in order, as if every branch ran. Substitutions come before the command they stand in.

use std::fmt;

/// Longest script that is looked at.
pub const SCRIPT_LIMIT_BYTES: usize = 64 * 1024;
/// Deepest nesting of substitutions inside one script.
pub const DEPTH_LIMIT: usize = 24;
/// Most simple commands in one script.
pub const COMMAND_LIMIT: usize = 10_000;

/// Longest arithmetic expansion that is told from a subshell; a bound that keeps parsing linear.
const ARITHMETIC_LIMIT_CHARS: usize = 4 * 1024;

/// Why a script was not parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparsed {
    /// Over [`SCRIPT_LIMIT_BYTES`].
    TooLong,
    /// Over [`DEPTH_LIMIT`].
    TooDeep,
    /// Over [`COMMAND_LIMIT`].
    TooMany,
    /// A quote, substitution or expansion does not end.
    Unterminated,
}

impl Unparsed {
    /// A few words for a person.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "it is too long",
            Self::TooDeep => "it is nested too deeply",
            Self::TooMany => "it has too many commands",
            Self::Unterminated => "a quote or substitution does not end",
        }
    }
}

impl fmt::Display for Unparsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Unparsed {}

/// One piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Atom {
    /// A character that the shell may still treat as special (`~`, `*`, `{`).
    Bare(char),
    /// A character that quoting has made plain.
    Quoted(char),
    /// A parameter expansion.
    Variable {
        /// Name without `$` and braces.
        name: String,
        /// Inside double quotes: not split into words.
        quoted: bool,
        /// The word of `${name:-word}`.
        default: Option<Word>,
    },
    /// The result of a substitution, unknown here.
    Opaque,
}

/// A word before expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word(pub Vec<Atom>);

impl Word {
    /// The word's text when no expansion is needed to know it.
    #[must_use]
    pub fn literal(&self) -> Option<String> {
        self.0
            .iter()
            .map(|atom| match atom {
                Atom::Bare(c) | Atom::Quoted(c) => Some(*c),
                Atom::Variable { .. } | Atom::Opaque => None,
            })
            .collect()
    }

    /// The word's text when it is written without any quoting, as reserved words must be.
    #[must_use]
    pub fn bare(&self) -> Option<String> {
        self.0
            .iter()
            .map(|atom| match atom {
                Atom::Bare(c) => Some(*c),
                _ => None,
            })
            .collect()
    }
}

/// A command name with its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SimpleCommand {
    /// `NAME=word` in front of the command, or alone.
    pub assignments: Vec<(String, Word)>,
    /// Command name and arguments, without redirections. Reserved words are still there.
    pub words: Vec<Word>,
    /// Text of here-documents and here-strings given to it.
    pub stdin_text: Option<Word>,
    /// Reads the output of the command before it.
    pub piped: bool,
    /// The subshells it runs in, outermost first; each has its own number.
    pub scope: Vec<u32>,
}

/// Splits a script.
///
/// # Errors
/// [`Unparsed`] when a limit is reached or the script ends in the middle of something.
pub fn parse(script: &str) -> Result<Vec<SimpleCommand>, Unparsed> {
    if script.len() > SCRIPT_LIMIT_BYTES {
        return Err(Unparsed::TooLong);
    }
    let chars: Vec<char> = script.chars().collect();
    let mut output = Output::default();
    let mut parser = Parser::new(&chars, 0, &mut output);
    parser.list(Until::End)?;
    Ok(output.commands)
}

#[derive(Default)]
struct Output {
    commands: Vec<SimpleCommand>,
    scope: Vec<u32>,
    scopes: u32,
}

impl Output {
    fn enter(&mut self) {
        self.scopes += 1;
        self.scope.push(self.scopes);
    }

    fn leave(&mut self) {
        self.scope.pop();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    End,
    ClosingParenthesis,
}

struct HereDocument {
    delimiter: String,
    strip_tabs: bool,
    expands: bool,
    /// Index of its command in the output; `None` while that command is still being read.
    command: Option<usize>,
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    depth: usize,
    output: &'a mut Output,
    current: SimpleCommand,
    here_documents: Vec<HereDocument>,
}

impl<'a> Parser<'a> {
    fn new(chars: &'a [char], depth: usize, output: &'a mut Output) -> Self {
        Self { chars, at: 0, depth, output, current: SimpleCommand::default(), here_documents: Vec::new() }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn looking_at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(offset, c)| self.chars.get(self.at + offset) == Some(&c))
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.looking_at(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    /// Reads commands up to the end of the script or of the substitution.
    fn list(&mut self, until: Until) -> Result<(), Unparsed> {
        let mut subshells = 0_usize;
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' => self.at += 1,
                '\\' if self.looking_at("\\\n") => self.at += 2,
                '#' => self.comment(),
                '\n' => {
                    self.at += 1;
                    self.finish_command(false)?;
                    self.read_here_documents()?;
                }
                '(' => {
                    self.at += 1;
                    self.finish_command(false)?;
                    self.output.enter();
                    subshells += 1;
                }
                ')' => {
                    self.at += 1;
                    self.finish_command(false)?;
                    if subshells > 0 {
                        subshells -= 1;
                        self.output.leave();
                    } else if until == Until::ClosingParenthesis {
                        return Ok(());
                    }
                }
                ';' => {
                    self.at += 1;
                    self.finish_command(false)?;
                }
                '&' | '|' => self.operator()?,
                '<' | '>' => self.redirection()?,
                _ => self.argument()?,
            }
        }
        self.finish_command(false)?;
        self.read_here_documents()?;
        if until == Until::ClosingParenthesis { Err(Unparsed::Unterminated) } else { Ok(()) }
    }

    fn comment(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.at += 1;
        }
    }

    fn operator(&mut self) -> Result<(), Unparsed> {
        if self.looking_at("&>") {
            self.at += 1;
            return self.redirection();
        }
        if self.take("||") || self.take("&&") {
            return self.finish_command(false);
        }
        if self.take("|&") || self.take("|") {
            return self.finish_command(true);
        }
        self.at += 1;
        self.finish_command(false)
    }

    /// Ends the current command; `pipes` says that the next one reads its output.
    fn finish_command(&mut self, pipes: bool) -> Result<(), Unparsed> {
        let next = SimpleCommand { piped: pipes, ..SimpleCommand::default() };
        let mut done = std::mem::replace(&mut self.current, next);
        if done.words.is_empty() && done.assignments.is_empty() && done.stdin_text.is_none() {
            self.current.piped |= done.piped;
            return Ok(());
        }
        if self.output.commands.len() >= COMMAND_LIMIT {
            return Err(Unparsed::TooMany);
        }
        done.scope.clone_from(&self.output.scope);
        let index = self.output.commands.len();
        for document in &mut self.here_documents {
            document.command.get_or_insert(index);
        }
        self.output.commands.push(done);
        Ok(())
    }

    fn argument(&mut self) -> Result<(), Unparsed> {
        let word = self.word()?;
        // `2>&1`: digits that touch a redirection are a file descriptor, not an argument.
        let touches_redirection = matches!(self.peek(), Some('<' | '>'));
        if touches_redirection && word.bare().is_some_and(|w| w.chars().all(|c| c.is_ascii_digit())) {
            return Ok(());
        }
        match split_assignment(&word) {
            Some(assignment) if self.current.words.is_empty() => self.current.assignments.push(assignment),
            _ => self.current.words.push(word),
        }
        Ok(())
    }

    fn redirection(&mut self) -> Result<(), Unparsed> {
        if self.take("<(") || self.take(">(") {
            self.substitution()?;
            self.current.words.push(Word(vec![Atom::Opaque]));
            return Ok(());
        }
        if self.take("<<<") {
            self.blanks();
            self.current.stdin_text = Some(self.word()?);
            return Ok(());
        }
        if self.take("<<") {
            let strip_tabs = self.take("-");
            self.blanks();
            let word = self.word()?;
            let expands = word.bare().is_some();
            let delimiter = word.literal().unwrap_or_default();
            // A here-document can be all there is to a command; keep it so that the body finds its place.
            self.current.stdin_text.get_or_insert_default();
            self.here_documents.push(HereDocument { delimiter, strip_tabs, expands, command: None });
            return Ok(());
        }
        while matches!(self.peek(), Some('<' | '>' | '&' | '|')) {
            self.at += 1;
        }
        self.blanks();
        if self.peek().is_some_and(|c| !ends_word(c)) {
            self.word()?;
        }
        Ok(())
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.at += 1;
        }
    }

    fn read_here_documents(&mut self) -> Result<(), Unparsed> {
        for document in std::mem::take(&mut self.here_documents) {
            let mut body = String::new();
            while self.at < self.chars.len() {
                let end = self.chars[self.at..].iter().position(|c| *c == '\n').map(|n| self.at + n);
                let line: String = self.chars[self.at..end.unwrap_or(self.chars.len())].iter().collect();
                self.at = end.map_or(self.chars.len(), |end| end + 1);
                let line = if document.strip_tabs { line.trim_start_matches('\t') } else { line.as_str() };
                if line == document.delimiter {
                    break;
                }
                body.push_str(line);
                body.push('\n');
            }
            let word = if document.expands { self.expand_text(&body)? } else { quoted(&body) };
            if let Some(command) = document.command.and_then(|index| self.output.commands.get_mut(index)) {
                command.stdin_text = Some(word);
            }
        }
        Ok(())
    }

    /// Reads one word; the caller has made sure that one starts here.
    fn word(&mut self) -> Result<Word, Unparsed> {
        let mut atoms = Vec::new();
        while let Some(c) = self.peek() {
            if ends_word(c) {
                break;
            }
            self.word_piece(c, &mut atoms)?;
        }
        Ok(Word(atoms))
    }

    fn word_piece(&mut self, c: char, atoms: &mut Vec<Atom>) -> Result<(), Unparsed> {
        self.at += 1;
        match c {
            '\'' => {
                let end = self.find('\'').ok_or(Unparsed::Unterminated)?;
                atoms.extend(self.chars[self.at..end].iter().copied().map(Atom::Quoted));
                self.at = end + 1;
            }
            '"' => self.double_quoted(atoms, Some('"'))?,
            '\\' => match self.peek() {
                Some('\n') => self.at += 1,
                Some(next) => {
                    atoms.push(Atom::Quoted(next));
                    self.at += 1;
                }
                None => return Err(Unparsed::Unterminated),
            },
            '$' if self.peek() == Some('\'') => self.ansi_c_quoted(atoms)?,
            '$' if self.peek() == Some('"') => {}
            '$' => self.dollar(atoms, false)?,
            '`' => self.backticks(atoms)?,
            _ => atoms.push(Atom::Bare(c)),
        }
        Ok(())
    }

    fn find(&self, wanted: char) -> Option<usize> {
        self.chars[self.at..].iter().position(|c| *c == wanted).map(|offset| self.at + offset)
    }

    /// Reads up to the closing character, or to the end where there is none to find.
    fn double_quoted(&mut self, atoms: &mut Vec<Atom>, closing: Option<char>) -> Result<(), Unparsed> {
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                _ if Some(c) == closing => return Ok(()),
                '\\' => match self.peek() {
                    Some('\n') => self.at += 1,
                    Some(next @ ('$' | '`' | '"' | '\\')) => {
                        atoms.push(Atom::Quoted(next));
                        self.at += 1;
                    }
                    _ => atoms.push(Atom::Quoted('\\')),
                },
                '$' => self.dollar(atoms, true)?,
                '`' => self.backticks(atoms)?,
                _ => atoms.push(Atom::Quoted(c)),
            }
        }
        if closing.is_some() { Err(Unparsed::Unterminated) } else { Ok(()) }
    }

    /// `$'...'`: the escapes that can spell a command.
    fn ansi_c_quoted(&mut self, atoms: &mut Vec<Atom>) -> Result<(), Unparsed> {
        self.at += 1;
        loop {
            let c = self.peek().ok_or(Unparsed::Unterminated)?;
            self.at += 1;
            match c {
                '\'' => return Ok(()),
                '\\' => {
                    let escape = self.peek().ok_or(Unparsed::Unterminated)?;
                    self.at += 1;
                    let plain = match escape {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'x' => self.number(16, 2),
                        'u' => self.number(16, 4),
                        'U' => self.number(16, 8),
                        '0'..='7' => {
                            self.at -= 1;
                            self.number(8, 3)
                        }
                        other => other,
                    };
                    atoms.push(Atom::Quoted(plain));
                }
                _ => atoms.push(Atom::Quoted(c)),
            }
        }
    }

    fn number(&mut self, radix: u32, digits: usize) -> char {
        let mut value = 0_u32;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            value = value.wrapping_mul(radix) | digit;
            self.at += 1;
        }
        char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    /// Reads what follows a `$`.
    fn dollar(&mut self, atoms: &mut Vec<Atom>, quoted: bool) -> Result<(), Unparsed> {
        match self.peek() {
            Some('(') => {
                if let Some(end) = self.arithmetic_end() {
                    let inner: String = self.chars[self.at + 2..end].iter().collect();
                    self.expand_text(&inner)?;
                    self.at = end + 2;
                } else {
                    self.at += 1;
                    self.substitution()?;
                }
                atoms.push(Atom::Opaque);
            }
            Some('{') => {
                self.at += 1;
                atoms.push(self.braced_parameter(quoted)?);
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.name();
                atoms.push(Atom::Variable { name, quoted, default: None });
            }
            Some('0'..='9' | '@' | '*' | '#' | '?' | '!' | '$' | '-') => {
                self.at += 1;
                atoms.push(Atom::Opaque);
            }
            _ if quoted => atoms.push(Atom::Quoted('$')),
            _ => atoms.push(Atom::Bare('$')),
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    /// Where the `))` of a `$((` stands, when this is an arithmetic expansion and not a subshell in a substitution.
    fn arithmetic_end(&self) -> Option<usize> {
        if !self.looking_at("((") {
            return None;
        }
        let mut open = 0_usize;
        for at in self.at..self.chars.len().min(self.at + ARITHMETIC_LIMIT_CHARS) {
            match self.chars[at] {
                '(' => open += 1,
                ')' if open == 2 => return (self.chars.get(at + 1) == Some(&')')).then_some(at),
                ')' => open = open.saturating_sub(1),
                '\'' | '"' | ';' | '\n' => return None,
                _ => {}
            }
        }
        None
    }

    fn braced_parameter(&mut self, quoted: bool) -> Result<Atom, Unparsed> {
        let name = self.name();
        if name.is_empty() {
            self.skip_braced()?;
            return Ok(Atom::Opaque);
        }
        if self.take("}") {
            return Ok(Atom::Variable { name, quoted, default: None });
        }
        let takes_default = self.take(":-") || self.take("-") || self.take(":=") || self.take("=");
        if takes_default {
            let mut atoms = Vec::new();
            self.deeper()?;
            while self.peek() != Some('}') {
                let c = self.peek().ok_or(Unparsed::Unterminated)?;
                self.word_piece(c, &mut atoms)?;
            }
            self.depth -= 1;
            self.at += 1;
            return Ok(Atom::Variable { name, quoted, default: Some(Word(atoms)) });
        }
        let requires_value = self.looking_at(":?") || self.looking_at("?");
        self.skip_braced()?;
        if requires_value { Ok(Atom::Variable { name, quoted, default: None }) } else { Ok(Atom::Opaque) }
    }

    /// Reads on behind the `}` of an expansion whose result is not known here, but whose substitutions still run.
    fn skip_braced(&mut self) -> Result<(), Unparsed> {
        self.deeper()?;
        let mut ignored = Vec::new();
        while let Some(c) = self.peek() {
            if c == '}' {
                self.at += 1;
                self.depth -= 1;
                return Ok(());
            }
            self.word_piece(c, &mut ignored)?;
        }
        Err(Unparsed::Unterminated)
    }

    fn deeper(&mut self) -> Result<(), Unparsed> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT { Err(Unparsed::TooDeep) } else { Ok(()) }
    }

    /// Reads the commands of a substitution whose opening parenthesis has been read.
    fn substitution(&mut self) -> Result<(), Unparsed> {
        self.deeper()?;
        self.output.enter();
        let scope_depth = self.output.scope.len();
        let mut inner = Parser::new(self.chars, self.depth, self.output);
        inner.at = self.at;
        inner.list(Until::ClosingParenthesis)?;
        self.at = inner.at;
        self.output.scope.truncate(scope_depth);
        self.output.leave();
        self.depth -= 1;
        Ok(())
    }

    /// Reads a backtick substitution; inside, a backslash takes the meaning from `` ` ``, `$` and itself.
    fn backticks(&mut self, atoms: &mut Vec<Atom>) -> Result<(), Unparsed> {
        let mut script = Vec::new();
        loop {
            let c = self.peek().ok_or(Unparsed::Unterminated)?;
            self.at += 1;
            match (c, self.peek()) {
                ('`', _) => break,
                ('\\', Some(next @ ('`' | '$' | '\\'))) => {
                    script.push(next);
                    self.at += 1;
                }
                _ => script.push(c),
            }
        }
        self.deeper()?;
        self.output.enter();
        let scope_depth = self.output.scope.len();
        Parser::new(&script, self.depth, self.output).list(Until::End)?;
        self.output.scope.truncate(scope_depth);
        self.output.leave();
        self.depth -= 1;
        atoms.push(Atom::Opaque);
        Ok(())
    }

    /// Expands text as if in double quotes without an end: the body of a here-document, an arithmetic expression.
    fn expand_text(&mut self, text: &str) -> Result<Word, Unparsed> {
        self.deeper()?;
        let chars: Vec<char> = text.chars().collect();
        let mut atoms = Vec::new();
        Parser::new(&chars, self.depth, self.output).double_quoted(&mut atoms, None)?;
        self.depth -= 1;
        Ok(Word(atoms))
    }
}

fn ends_word(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>')
}

fn quoted(text: &str) -> Word {
    Word(text.chars().map(Atom::Quoted).collect())
}

/// `NAME=word`, `NAME+=word`.
fn split_assignment(word: &Word) -> Option<(String, Word)> {
    let equals = word.0.iter().position(|atom| *atom == Atom::Bare('='))?;
    let mut name = Word(word.0[..equals].to_vec()).bare()?;
    if name.ends_with('+') {
        name.pop();
    }
    let mut letters = name.chars();
    let starts_well = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let is_name = starts_well && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| (name, Word(word.0[equals + 1..].to_vec())))
}
