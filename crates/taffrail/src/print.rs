//! stdout, which is data: a closed pipe ends the program quietly, and colours appear on a terminal only.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;

/// One line to stdout. A reader that has gone ends the program as it would any filter.
pub(crate) fn out(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    written(writeln!(stdout, "{line}").and_then(|()| stdout.flush()))
}

/// What a write to stdout came to.
pub(crate) fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// "1 file", "2 files".
pub(crate) fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    On,
    Off,
}

impl Colours {
    /// On for a terminal, unless `NO_COLOR` says otherwise.
    pub(crate) fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !refused { Self::On } else { Self::Off }
    }

    /// `text` in the colour of that SGR code.
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Off => text.to_owned(),
        }
    }
}
