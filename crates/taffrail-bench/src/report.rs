//! What a run found: figures beside their floors, as a table for the terminal, as JSON and as Markdown.
//!
//! The JSON file is also the state of a run: written after every section, read back by `--resume`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::{Samples, Spread};

/// Between these two lines of a Markdown file the program writes; the rest is a person's.
const BEGIN: &str = "<!-- figures: begin (written by the program) -->";
const END: &str = "<!-- figures: end -->";

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) title: String,
    pub(crate) command: String,
    pub(crate) size: String,
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) sections: Vec<Section>,
}

/// One question and its figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    /// What is asked.
    pub(crate) question: String,
    /// How it was measured, what the floor is.
    pub(crate) method: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) targets: Vec<Target>,
    pub(crate) seconds: f64,
}

/// One line of a table: a distribution or a single value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) case: String,
    pub(crate) unit: String,
    pub(crate) spread: Option<Spread>,
    pub(crate) value: Option<f64>,
}

/// A target and what was reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) limit: f64,
    pub(crate) reached: f64,
    pub(crate) unit: String,
    pub(crate) met: bool,
}

impl Section {
    pub(crate) fn new(name: &str, question: &str, method: &str) -> Self {
        Self {
            name: name.to_owned(),
            question: question.to_owned(),
            method: method.to_owned(),
            figures: Vec::new(),
            targets: Vec::new(),
            seconds: 0.0,
        }
    }

    pub(crate) fn spread(&mut self, case: impl Into<String>, unit: &str, samples: &Samples) {
        let spread = samples.spread();
        self.figures.push(Figure { case: case.into(), unit: unit.to_owned(), spread, value: None });
    }

    pub(crate) fn value(&mut self, case: impl Into<String>, unit: &str, value: f64) {
        self.figures.push(Figure {
            case: case.into(),
            unit: unit.to_owned(),
            spread: None,
            value: Some(value),
        });
    }

    pub(crate) fn at_most(&mut self, what: impl Into<String>, unit: &str, limit: f64, reached: f64) {
        let met = reached <= limit;
        self.targets.push(Target {
            what: format!("{} at most", what.into()),
            limit,
            reached,
            unit: unit.into(),
            met,
        });
    }

    pub(crate) fn at_least(&mut self, what: impl Into<String>, unit: &str, limit: f64, reached: f64) {
        let met = reached >= limit;
        self.targets.push(Target {
            what: format!("{} at least", what.into()),
            limit,
            reached,
            unit: unit.into(),
            met,
        });
    }

    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("### {}\n\n{}\n\n{}\n\n", self.name, self.question, self.method);
        let distributions: Vec<_> = self.figures.iter().filter_map(|f| Some((f, f.spread?))).collect();
        if !distributions.is_empty() {
            out.push_str(
                "| Case | Unit | n | min | p50 | p95 | p99 | max |\n|---|---|--:|--:|--:|--:|--:|--:|\n",
            );
        }
        for (figure, s) in distributions {
            let cells = [s.min, s.p50, s.p95, s.p99, s.max].map(number).join(" | ");
            let _ = writeln!(out, "| {} | {} | {} | {cells} |", figure.case, figure.unit, s.n);
        }
        let values: Vec<_> = self.figures.iter().filter_map(|f| Some((f, f.value?))).collect();
        if !values.is_empty() {
            out.push_str("\n| Case | Value | Unit |\n|---|--:|---|\n");
        }
        for (figure, value) in values {
            let _ = writeln!(out, "| {} | {} | {} |", figure.case, number(value), figure.unit);
        }
        if !self.targets.is_empty() {
            out.push_str("\n| Target | Limit | Reached | |\n|---|--:|--:|---|\n");
        }
        for t in &self.targets {
            let met = if t.met { "met" } else { "**missed**" };
            let (limit, reached) = (number(t.limit), number(t.reached));
            let _ = writeln!(out, "| {} | {limit} {} | {reached} {} | {met} |", t.what, t.unit, t.unit);
        }
        let _ = writeln!(out, "\nTook {:.0} s.\n", self.seconds);
        out
    }
}

impl Report {
    /// As Markdown, without the lines around it.
    pub(crate) fn markdown(&self) -> String {
        let m = &self.machine;
        let mut out = format!(
            "{}, {} size, {}.\n\nCommand: `{}`\n\nMachine: {}, {} cores, {} MB memory, Linux {}, {}; load average {} \
             when the run began.\n\n",
            self.title,
            self.size,
            self.date,
            self.command,
            m.cpu,
            m.cores,
            m.memory_mb,
            m.kernel,
            m.filesystem,
            m.load
        );
        for section in &self.sections {
            out.push_str(&section.markdown());
        }
        out
    }

    pub(crate) fn has(&self, section: &str) -> bool {
        self.sections.iter().any(|done| done.name == section)
    }

    /// Writes the JSON file whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        write_whole(path, &text)
    }

    /// Reads one back; none where there is no file.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(serde_json::from_str(&text).with_context(|| format!("{} is not a report", path.display()))?))
    }
}

/// Puts `figures` between the marks of the file; a file without them is replaced, a missing one made.
pub(crate) fn write_markdown(path: &Path, figures: &str) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_default();
    write_whole(path, &with_figures(&old, figures))
}

fn with_figures(old: &str, figures: &str) -> String {
    let marked = format!("{BEGIN}\n\n{}\n\n{END}\n", figures.trim());
    match (old.find(BEGIN), old.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            let rest = old[end + END.len()..].trim_start_matches('\n');
            let gap = if rest.is_empty() { "" } else { "\n" };
            format!("{}{marked}{gap}{rest}", &old[..begin])
        }
        _ => marked,
    }
}

fn write_whole(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("tmp");
    fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Three significant digits below a thousand, whole numbers above.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 {
        return group(value.round());
    }
    let decimals = match size {
        s if s >= 100.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

pub(crate) fn group(whole: f64) -> String {
    let digits = format!("{:.0}", whole.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if whole < 0.0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        for (value, shown) in
            [(0.0, "0"), (0.123_4, "0.123"), (-1.5, "-1.5"), (98.76, "98.8"), (123_456.7, "123,457")]
        {
            assert_eq!(number(value), shown);
        }
    }

    #[test]
    fn figures_replace_only_what_stands_between_the_marks() {
        let old = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nEnd.\n");
        let new = with_figures(&old, "new\n");
        assert_eq!(new, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nEnd.\n"));
        assert_eq!(with_figures(&new, "new"), new);
    }
}
