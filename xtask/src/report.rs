//! Numbered steps with their times, and the table of them at the end.
//!
//! A step that fails does not hide the others: what does not need it still runs, what does
//! is skipped with the reason, and the whole run fails.

use anyhow::{Result, bail};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what it should; the note says what, in a few words.
    Passed(String),
    /// The error's full text.
    Failed(String),
    /// Not run, and why.
    Skipped(String),
}

/// One line of the table.
#[derive(Debug, Clone)]
struct Row {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// A run of steps whose number is known from the start.
pub(crate) struct Steps {
    total: usize,
    rows: Vec<Row>,
}

impl Steps {
    /// `total`: how many steps there will be, for the numbering.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, rows: Vec::with_capacity(total) }
    }

    /// Runs one step unless one of `needs` did not pass.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        needs: &[&str],
        work: impl FnOnce() -> Result<String>,
    ) -> bool {
        eprintln!("[{}/{}] {name}", self.rows.len() + 1, self.total);
        let start = Instant::now();
        let outcome = match needs.iter().find(|need| !self.passed(need)) {
            Some(need) => Outcome::Skipped(format!("needs the step `{need}`")),
            None => match work() {
                Ok(note) => Outcome::Passed(note),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            },
        };
        let took = start.elapsed();
        match &outcome {
            Outcome::Passed(note) => eprintln!("      ok in {}{}", seconds(took), prefixed(", ", note)),
            Outcome::Failed(error) => eprintln!("      FAILED after {}: {error}", seconds(took)),
            Outcome::Skipped(why) => eprintln!("      skipped: {why}"),
        }
        let passed = matches!(outcome, Outcome::Passed(_));
        self.rows.push(Row { name, outcome, took });
        passed
    }

    fn passed(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row.name == name && matches!(row.outcome, Outcome::Passed(_)))
    }

    /// Prints the table and the closing line; an error when a step did not pass.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{}", self.table());
        let (passed, failed, skipped) = self.counts();
        println!("steps: {passed} passed, {failed} failed, {skipped} skipped");
        if failed + skipped > 0 {
            bail!("{failed} of {} steps failed, {skipped} could not run", self.rows.len());
        }
        Ok(())
    }

    fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Outcome) -> bool| self.rows.iter().filter(|r| wanted(&r.outcome)).count();
        (
            count(|o| matches!(o, Outcome::Passed(_))),
            count(|o| matches!(o, Outcome::Failed(_))),
            count(|o| matches!(o, Outcome::Skipped(_))),
        )
    }

    fn table(&self) -> String {
        let mut table = String::new();
        for row in &self.rows {
            let (mark, note) = match &row.outcome {
                Outcome::Passed(note) => ("ok", note.as_str()),
                Outcome::Failed(error) => ("FAILED", error.lines().next().unwrap_or_default()),
                Outcome::Skipped(why) => ("skipped", why.as_str()),
            };
            let line = format!("{:<22} {mark:<8} {:>8}  {note}", row.name, seconds(row.took));
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table
    }
}

/// Seconds with one decimal, or minutes where that reads better.
pub(crate) fn seconds(took: Duration) -> String {
    let s = took.as_secs_f64();
    if s < 120.0 { format!("{s:.1} s") } else { format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0) }
}

fn prefixed(prefix: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{prefix}{text}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_skips_what_needs_it_and_fails_the_run() {
        let mut steps = Steps::new(4);
        assert!(steps.step("a", &[], || Ok("fine".into())));
        assert!(!steps.step("b", &["a"], || bail!("broke")));
        assert!(!steps.step("c", &["b"], || Ok(String::new())));
        assert!(steps.step("d", &["a"], || Ok(String::new())));
        assert_eq!(steps.counts(), (2, 1, 1));
        let table = steps.table();
        assert!(table.contains("FAILED") && table.contains("needs the step `b`"), "{table}");
        assert!(steps.finish().unwrap_err().to_string().contains("1 of 4 steps failed, 1 could not run"));
    }

    #[test]
    fn all_passed_is_a_success() {
        let mut steps = Steps::new(1);
        steps.step("a", &[], || Ok(String::new()));
        assert!(steps.finish().is_ok());
    }

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
