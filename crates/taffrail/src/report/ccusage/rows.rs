//! Sums: by day, week, month and session. The order in which costs are added is ccusage's, so that the last bit is, too.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

use super::args::{Flavour, Order};
use super::entry::Entry;
use super::files::File;
use super::load::Loaded;
use super::time;

/// Tokens by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cache_write: u64,
    pub(super) cache_read: u64,
}

impl Counts {
    fn of(entry: &Entry) -> Self {
        let usage = &entry.usage;
        Self {
            input: usage.input,
            output: usage.output,
            cache_write: usage.written(),
            cache_read: usage.cache_read,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
        self.cache_read = self.cache_read.saturating_add(other.cache_read);
    }

    pub(super) fn add_entry(&mut self, entry: &Entry) {
        self.add(Self::of(entry));
    }

    pub(super) fn total(self) -> u64 {
        [self.input, self.output, self.cache_write, self.cache_read].into_iter().fold(0, u64::saturating_add)
    }
}

/// The share of one model in a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelShare {
    pub(super) model: String,
    pub(super) counts: Counts,
    pub(super) cost: f64,
    pub(super) unpriced: bool,
}

/// What a row is of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Label {
    Day { day: Date, project: Option<String> },
    Week(Date),
    Month(Date),
    Session { id: String, project_path: String, first_ms: i64, last_ms: i64 },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) label: Label,
    pub(super) counts: Counts,
    pub(super) cost: f64,
    /// In the order in which they came.
    pub(super) models: Vec<String>,
    /// The dearest first.
    pub(super) shares: Vec<ModelShare>,
}

/// A row that is being added up.
#[derive(Debug, Default)]
struct Sum {
    counts: Counts,
    cost: f64,
    models: Vec<String>,
    shares: Vec<ModelShare>,
    by_model: HashMap<String, usize>,
}

impl Sum {
    fn add_entry(&mut self, entry: &Entry, models: &[String]) {
        self.counts.add_entry(entry);
        self.cost += entry.cost;
        if let Some(model) = entry.model.and_then(|model| models.get(model as usize)) {
            let share = self.share(model);
            share.counts.add_entry(entry);
            share.cost += entry.cost;
            share.unpriced |= entry.unpriced;
        }
    }

    fn add_row(&mut self, row: &Row) {
        self.counts.add(row.counts);
        self.cost += row.cost;
        for model in &row.models {
            self.model(model);
        }
        for of in &row.shares {
            let share = self.share(&of.model);
            share.counts.add(of.counts);
            share.cost += of.cost;
            share.unpriced |= of.unpriced;
        }
    }

    fn model(&mut self, model: &str) {
        if !self.models.iter().any(|known| known == model) {
            self.models.push(model.to_owned());
        }
    }

    fn share(&mut self, model: &str) -> &mut ModelShare {
        let index = match self.by_model.get(model) {
            Some(index) => *index,
            None => {
                self.model(model);
                let model = model.to_owned();
                self.by_model.insert(model.clone(), self.shares.len());
                self.shares.push(ModelShare { model, counts: Counts::default(), cost: 0.0, unpriced: false });
                self.shares.len() - 1
            }
        };
        &mut self.shares[index]
    }

    fn into_row(mut self, label: Label) -> Row {
        self.shares.sort_by(|a, b| b.cost.total_cmp(&a.cost));
        Row { label, counts: self.counts, cost: self.cost, models: self.models, shares: self.shares }
    }
}

/// Which days count, as `YYYYMMDD`, both inclusive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range<'a> {
    pub(super) since: Option<&'a str>,
    pub(super) until: Option<&'a str>,
}

impl Range<'_> {
    pub(super) fn has(&self, day: Date) -> bool {
        self.has_text(&day.strftime("%Y%m%d").to_string())
    }

    /// Compared as text: a day with a time of day comes after the day itself.
    fn has_text(&self, day: &str) -> bool {
        self.since.is_none_or(|since| day >= since) && self.until.is_none_or(|until| day <= until)
    }
}

/// By day, and by project where asked for; ascending.
pub(super) fn by_day(
    loaded: &Loaded,
    files: &[File],
    zone: &TimeZone,
    range: Range<'_>,
    by_project: bool,
) -> Vec<Row> {
    let mut sums: BTreeMap<(Date, Option<&str>), Sum> = BTreeMap::new();
    for entry in &loaded.entries {
        let project =
            by_project.then(|| files.get(entry.file as usize).map_or("", |file| file.project.as_str()));
        let key = (time::day(entry.at_ms, zone), project);
        sums.entry(key).or_default().add_entry(entry, &loaded.models);
    }
    sums.into_iter()
        .filter(|((day, _), _)| range.has(*day))
        .map(|((day, project), sum)| sum.into_row(Label::Day { day, project: project.map(str::to_owned) }))
        .collect()
}

/// Days put together to weeks that begin on `first`, or to months; ascending.
pub(super) fn by_bucket(days: &[Row], first: Option<Weekday>) -> Vec<Row> {
    let mut sums: BTreeMap<Date, Sum> = BTreeMap::new();
    for row in days {
        let Label::Day { day, .. } = row.label else { continue };
        let bucket = first.map_or_else(|| day.first_of_month(), |first| time::week_of(day, first));
        sums.entry(bucket).or_default().add_row(row);
    }
    let label = |date| if first.is_some() { Label::Week(date) } else { Label::Month(date) };
    sums.into_iter().map(|(date, sum)| sum.into_row(label(date))).collect()
}

/// Where `ccusage session` puts sessions that cost the same: by name, then by project.
fn place(label: &Label) -> (&str, &str) {
    match label {
        Label::Session { id, project_path, .. } => (id, project_path),
        _ => ("", ""),
    }
}

/// By session, the dearest first.
pub(super) fn by_session(
    loaded: &Loaded,
    files: &[File],
    zone: &TimeZone,
    range: Range<'_>,
    flavour: Flavour,
    order: Order,
) -> Vec<Row> {
    let mut sums: Vec<(Sum, &File, i64, i64)> = Vec::new();
    let mut by_path: HashMap<(&str, &str), usize> = HashMap::new();
    // `ccusage claude session` leaves out the entries of other days, `ccusage session` the sessions that ended on others;
    // the latter compares the whole time stamp, so that what ended on the last day itself never counts.
    let has = |at_ms| flavour == Flavour::All || range.has(time::day(at_ms, zone));
    let ended_in_range =
        |last_ms| flavour == Flavour::Claude || range.has_text(&time::rfc3339(last_ms).replace('-', ""));
    for entry in loaded.entries.iter().filter(|entry| has(entry.at_ms)) {
        let Some(file) = files.get(entry.file as usize) else { continue };
        let index = *by_path.entry((&file.project_path, &file.session)).or_insert_with(|| {
            sums.push((Sum::default(), file, entry.at_ms, entry.at_ms));
            sums.len() - 1
        });
        let (sum, _, first_ms, last_ms) = &mut sums[index];
        sum.add_entry(entry, &loaded.models);
        *first_ms = entry.at_ms.min(*first_ms);
        *last_ms = entry.at_ms.max(*last_ms);
    }
    let mut rows: Vec<Row> = sums
        .into_iter()
        .filter(|(sum, _, _, last_ms)| ended_in_range(*last_ms) && sum.counts.total() > 0)
        .map(|(sum, file, first_ms, last_ms)| {
            let (id, project_path) = (file.session.clone(), file.project_path.clone());
            sum.into_row(Label::Session { id, project_path, first_ms, last_ms })
        })
        .collect();
    if flavour == Flavour::All {
        rows.sort_by(|a, b| place(&a.label).cmp(&place(&b.label)));
    }
    rows.sort_by(|a, b| match order {
        Order::Asc => a.cost.total_cmp(&b.cost),
        Order::Desc => b.cost.total_cmp(&a.cost),
    });
    rows
}
