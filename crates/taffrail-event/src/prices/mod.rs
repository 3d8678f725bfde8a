//! What a request costs: a dated table, exact models, integer arithmetic.
//!
//! The table of this version is `prices.toml` beside this file; a user's file of the same form goes in front of it. Flow:
//! `file` reads rows, this module orders them by model and day, `name` finds the model, `quote` does the sums.
//! Nothing is guessed: a model, a rate or a multiplier that the table does not have makes a request unpriced, never free.

mod file;
mod name;
mod quote;
mod row;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};

use crate::ids::TimestampMs;
use crate::ledger::{Terms, Usage};
use name::Found;

pub use file::{FACTOR_MAX, FILE_MAX_BYTES, RATE_MAX_USD, ROWS_MAX};
pub use quote::Quote;
pub use row::{Day, Factor, Origin, PriceRow, Rate, Rates, Tier, TierKind};

/// Counts up when names or sums are computed otherwise, so that the fingerprint changes with them.
const RULES_VERSION: u32 = 1;
const BUILTIN: &str = include_str!("prices.toml");
/// Hex digits of a fingerprint.
const FINGERPRINT_DIGITS: usize = 16;

/// The price table. Cheap to ask, so share it in an [`Arc`].
#[derive(Clone, Debug)]
pub struct PriceTable {
    /// By model's name, and then by origin and day.
    models: Vec<Model>,
    /// Every name and alias to its model.
    names: HashMap<String, usize>,
    fingerprint: String,
}

/// One model's rows.
#[derive(Clone, Debug)]
struct Model {
    name: String,
    /// Of this version, by day.
    builtin: Vec<PriceRow>,
    /// The user's, by day.
    user: Vec<PriceRow>,
}

/// Why a price file is refused: one line for a person with the line in the file, and a second with a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceError(pub String);

impl std::fmt::Display for PriceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PriceError {}

impl Default for PriceTable {
    /// A table that prices nothing.
    fn default() -> Self {
        let empty = Self { models: Vec::new(), names: HashMap::new(), fingerprint: String::new() };
        Self { fingerprint: empty.compute_fingerprint(), ..empty }
    }
}

impl PriceTable {
    /// The table of this version.
    pub fn builtin() -> Arc<Self> {
        static TABLE: LazyLock<Arc<PriceTable>> = LazyLock::new(|| {
            // A test holds that the table of this version is sound; without it every model would be unpriced, loudly.
            let rows = file::parse(BUILTIN, Origin::Builtin);
            debug_assert!(rows.is_ok(), "prices.toml: {rows:?}");
            Arc::new(rows.and_then(PriceTable::of).unwrap_or_default())
        });
        Arc::clone(&TABLE)
    }

    /// This table with the rows of a user's file in front: where a user's row holds, it decides. A row of the same model
    /// and day as one that is there replaces it.
    ///
    /// # Errors
    /// The file is no price table; the message says where, and what would be right.
    pub fn with_overrides(&self, toml: &str) -> Result<Self, PriceError> {
        let user = file::parse(toml, Origin::User)?;
        let mut rows: Vec<PriceRow> = self.rows().cloned().collect();
        rows.retain(|row| {
            !user.iter().any(|own| (&own.model, own.effective_from) == (&row.model, row.effective_from))
        });
        rows.extend(user);
        Self::of(rows)
    }

    fn of(mut rows: Vec<PriceRow>) -> Result<Self, PriceError> {
        rows.sort_by(|a, b| {
            (&a.model, a.origin, a.effective_from).cmp(&(&b.model, b.origin, b.effective_from))
        });
        let mut models: Vec<Model> = Vec::new();
        for row in rows {
            if models.last().is_none_or(|model| model.name != row.model) {
                models.push(Model { name: row.model.clone(), builtin: Vec::new(), user: Vec::new() });
            }
            if let Some(model) = models.last_mut() {
                match row.origin {
                    Origin::Builtin => model.builtin.push(row),
                    Origin::User => model.user.push(row),
                }
            }
        }
        let names = names(&models)?;
        let table = Self { models, names, fingerprint: String::new() };
        Ok(Self { fingerprint: table.compute_fingerprint(), ..table })
    }

    /// What a request costs; none where the model, its price at that time, or a rate that it needs is not known.
    /// `<synthetic>`, which the client writes for what it answered itself, costs 0.
    pub fn quote(&self, model: &str, usage: &Usage, terms: &Terms, at: TimestampMs) -> Option<Quote> {
        let found = self.find(model)?;
        quote::quote(found.what.at(at)?, usage, terms, found.place)
    }

    /// The model's context window, in tokens, as the client has it: a name with `[1m]` has the longer one.
    pub fn context_window(&self, model: &str) -> Option<u64> {
        let found = self.find(model)?;
        let row = found.what.newest_with_window()?;
        row.context_window_1m.filter(|_| found.long).or(row.context_window)
    }

    /// The table's own name of a model, whatever a source calls it.
    pub fn name_of(&self, model: &str) -> Option<&str> {
        self.find(model).map(|found| found.what.name.as_str())
    }

    /// The row that prices a model at a time.
    pub fn row_at(&self, model: &str, at: TimestampMs) -> Option<&PriceRow> {
        self.find(model)?.what.at(at)
    }

    /// Every row, by model; of a model those of this version first, then the user's, each by day.
    pub fn rows(&self) -> impl Iterator<Item = &PriceRow> {
        self.models.iter().flat_map(|model| model.builtin.iter().chain(&model.user))
    }

    /// 16 hex digits over everything that decides a price: the same table has the same.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn find(&self, model: &str) -> Option<Found<&Model>> {
        name::find(model, |name| self.names.get(name).and_then(|at| self.models.get(*at)))
    }

    fn compute_fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(RULES_VERSION.to_le_bytes());
        for row in self.rows() {
            // Rust's own notation of these fields tells any two apart: strings are quoted, lists bracketed.
            let until = row.effective_until.map(|day| day.begin().get());
            let decides = (
                (&row.model, &row.aliases, row.effective_from.begin().get(), until, row.origin),
                (row.rates, row.tier_kind.name(), &row.tiers, row.web_search_pico_usd),
                (row.fast, row.batch, &row.geo, row.bedrock_regional, row.bedrock_gov),
            );
            hash.update(format!("{decides:?}\n"));
        }
        let mut digits = String::with_capacity(2 * FINGERPRINT_DIGITS);
        for byte in hash.finalize().iter().take(FINGERPRINT_DIGITS / 2) {
            digits.push_str(&format!("{byte:02x}"));
        }
        digits
    }
}

impl Model {
    /// The row that holds at a time: the user's before that of this version. What is older than the first row is priced
    /// by it: nobody asked a model before it was there, but clocks go wrong and time stamps are missing.
    fn at(&self, at: TimestampMs) -> Option<&PriceRow> {
        let holds = |rows: &'_ [PriceRow]| {
            let last = rows.partition_point(|row| row.effective_from.begin() <= at).checked_sub(1)?;
            rows[last].effective_until.is_none_or(|until| at < until.begin()).then_some(last)
        };
        if let Some(user) = holds(&self.user) {
            return self.user.get(user);
        }
        if let Some(builtin) = holds(&self.builtin) {
            return self.builtin.get(builtin);
        }
        let first = [self.builtin.first(), self.user.first()]
            .into_iter()
            .flatten()
            .min_by_key(|r| r.effective_from)?;
        (at < first.effective_from.begin()).then_some(first)
    }

    /// The newest row that tells a context window; the user's first, which mostly are about prices alone.
    fn newest_with_window(&self) -> Option<&PriceRow> {
        let rows = self.user.iter().rev().chain(self.builtin.iter().rev());
        rows.into_iter().find(|row| row.context_window.is_some())
    }
}

/// Every name to its model. One name for two models would make the price a matter of luck.
fn names(models: &[Model]) -> Result<HashMap<String, usize>, PriceError> {
    let mut names: HashMap<String, usize> =
        models.iter().enumerate().map(|(at, model)| (model.name.clone(), at)).collect();
    for (at, model) in models.iter().enumerate() {
        for alias in model.builtin.iter().chain(&model.user).flat_map(|row| &row.aliases) {
            let owner = *names.entry(alias.clone()).or_insert(at);
            if owner != at {
                return Err(PriceError(format!(
                    "the alias `{alias}` of {} is a name of {} already\nhint: give rows to {} instead",
                    model.name, models[owner].name, models[owner].name
                )));
            }
        }
    }
    Ok(names)
}
