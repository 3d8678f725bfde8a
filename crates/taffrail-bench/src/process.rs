//! One short process, started the way an agent starts a hook: pipes for all three streams, wait for the end.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::scratch;

/// A process that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// From before the spawn until it was reaped.
    pub(crate) took: Duration,
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs `command` with `stdin` on its standard input. A process that does not read it all is no error.
pub(crate) fn run(command: &mut Command, stdin: &[u8]) -> io::Result<Ended> {
    let begun = Instant::now();
    let mut child =
        scratch::spawn_short(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    if let Some(mut pipe) = child.stdin.take() {
        match pipe.write_all(stdin) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout)?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_end(&mut stderr)?;
    }
    let status = child.wait()?;
    Ok(Ended { took: begun.elapsed(), code: status.code(), stdout, stderr })
}
