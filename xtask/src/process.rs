//! Starting other programs: what is run is shown, and a failure says which command it was.

use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, stderr};
use std::process::{Command, Stdio};

/// Runs to the end with inherited output; an exit other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = describe(command);
    eprintln!("  {} {shown}", dim("$"));
    let status = command.status().with_context(|| format!("could not start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs to the end and returns stdout; stderr is inherited.
pub(crate) fn read(command: &mut Command) -> Result<Vec<u8>> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("could not start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}", output.status);
    }
    Ok(output.stdout)
}

/// Whether the command starts and exits with 0, its output thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as a person would type it, without its environment.
pub(crate) fn describe(command: &Command) -> String {
    let mut shown = short_name(&command.get_program().to_string_lossy());
    for arg in command.get_args() {
        shown.push(' ');
        shown.push_str(&arg.to_string_lossy());
    }
    shown
}

fn short_name(program: &str) -> String {
    program.rsplit('/').next().unwrap_or(program).to_owned()
}

fn dim(text: &str) -> String {
    if stderr().is_terminal() { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_by_its_short_name() {
        let mut command = Command::new("/usr/bin/npm");
        command.args(["run", "build"]);
        assert_eq!(describe(&command), "npm run build");
    }

    #[test]
    fn a_failing_command_names_itself() {
        let error = run(Command::new("false").arg("x")).expect_err("false exits with 1");
        assert!(error.to_string().contains("`false x` failed"), "{error}");
    }

    #[test]
    fn a_missing_command_is_not_a_success() {
        assert!(!succeeds(&mut Command::new("no-such-program-here")));
        assert!(succeeds(&mut Command::new("true")));
    }
}
