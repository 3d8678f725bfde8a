//! The price table in use: that of this version, with the user's `prices.toml` in front, and its shapes in the API.
//!
//! A broken file is refused at the start instead of being left out: figures that silently follow other prices than the
//! user wrote are worse than a server that says what to mend. Hooks lose nothing meanwhile, since they spool.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use taffrail_event::prices::{
    FILE_MAX_BYTES, Factor, PriceError, PriceRow, PriceTable, Rate, Rates, Tier, TierKind,
};
use taffrail_store::{RepriceEffect, Store, UnpricedModel};
use utoipa::ToSchema;

/// The user's file in the data directory.
pub const USER_FILE: &str = "prices.toml";

/// Why there is no price table.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum PricesError {
    #[error("cannot read {}: {source}\nhint: check its owner and permissions, or move it away", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {FILE_MAX_BYTES} bytes\nhint: it holds the prices that differ only", path.display())]
    TooLarge { path: PathBuf },
    // Not its `source`: what it says would be said twice.
    #[error("{}, {error}", path.display())]
    Broken { path: PathBuf, error: PriceError },
}

/// A table, and whether the user has a part in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The table.
    pub table: Arc<PriceTable>,
    /// The user's file, where there is one.
    pub user_file: Option<PathBuf>,
}

/// The table of a data directory.
///
/// # Errors
/// There is a `prices.toml` and it cannot be read or is no price table.
pub fn load(data_dir: &Path) -> Result<Loaded, PricesError> {
    let path = data_dir.join(USER_FILE);
    let builtin = PriceTable::builtin();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    match read {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Loaded { table: builtin, user_file: None });
        }
        Err(source) => return Err(PricesError::Read { path, source }),
        Ok(_) => {}
    }
    if bytes.len() > FILE_MAX_BYTES {
        return Err(PricesError::TooLarge { path });
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        PriceError(format!("byte {} is no UTF-8 text\nhint: save it as UTF-8", e.utf8_error().valid_up_to()))
    });
    match text.and_then(|text| builtin.with_overrides(&text)) {
        Ok(table) => Ok(Loaded { table: Arc::new(table), user_file: Some(path) }),
        Err(error) => Err(PricesError::Broken { path, error }),
    }
}

/// What a running server prices by; another table takes its place when history is repriced.
#[derive(Debug)]
pub(crate) struct PriceBook {
    data_dir: PathBuf,
    current: RwLock<Arc<PriceTable>>,
}

impl PriceBook {
    pub(crate) fn open(data_dir: &Path) -> Result<Self, PricesError> {
        let loaded = load(data_dir)?;
        if let Some(path) = &loaded.user_file {
            tracing::info!(path = %path.display(), fingerprint = loaded.table.fingerprint(), "own prices");
        }
        Ok(Self { data_dir: data_dir.to_owned(), current: RwLock::new(loaded.table) })
    }

    /// The table of this version alone.
    #[cfg(test)]
    pub(crate) fn builtin() -> Self {
        Self { data_dir: PathBuf::new(), current: RwLock::new(PriceTable::builtin()) }
    }

    /// The table in use.
    pub(crate) fn current(&self) -> Arc<PriceTable> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The table as the user's file is now.
    pub(crate) fn reread(&self) -> Result<Loaded, PricesError> {
        load(&self.data_dir)
    }

    pub(crate) fn replace(&self, table: Arc<PriceTable>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    pub(crate) fn user_file(&self) -> PathBuf {
        self.data_dir.join(USER_FILE)
    }
}

/// Says in the log when history has other prices than what comes from now on. Reads the database.
pub(crate) fn warn_of_history(store: &Store, table: &PriceTable) {
    let history = store.reader().and_then(|reader| reader.priced_by());
    if let Ok(Some(history)) = history
        && history != table.fingerprint()
    {
        tracing::warn!(
            history,
            now = table.fingerprint(),
            "history was priced by another table; `taffrail prices reprice` shows the difference"
        );
    }
}

/// One row of the price table, in the terms of `prices.toml`: dollars per million tokens.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PriceRowJson {
    /// Exact name, without date.
    pub model: String,
    /// Further exact names.
    pub aliases: Vec<String>,
    /// First day, UTC.
    pub effective_from: String,
    /// First day on which it no longer holds; null: until the model's next row.
    #[schema(required)]
    pub effective_until: Option<String>,
    /// When the vendor stopped serving the model.
    #[schema(required)]
    pub retired: Option<String>,
    /// Rates up to the first tier.
    #[serde(flatten)]
    pub rates: RatesJson,
    /// Other rates for long prompts, lowest threshold first.
    pub long_context: Vec<TierJson>,
    /// Dollars per 1,000 web searches; null where they are not sold or not known.
    #[schema(required)]
    pub web_search: Option<f64>,
    /// Multiplier of fast mode; null where it is not sold or not known.
    #[schema(required)]
    pub fast: Option<f64>,
    /// Multiplier of the batch API; null where it is not sold or not known.
    #[schema(required)]
    pub batch: Option<f64>,
    /// Multipliers by `inference_geo`.
    pub geo: BTreeMap<String, f64>,
    /// Multiplier of Bedrock's regional ids.
    #[schema(required)]
    pub bedrock_regional: Option<f64>,
    /// Multiplier of Bedrock's ids for government regions.
    #[schema(required)]
    pub bedrock_gov: Option<f64>,
    /// Tokens that the client lets into the context.
    #[schema(required)]
    pub context_window: Option<u64>,
    /// The same where the model's name ends with `[1m]`.
    #[schema(required)]
    pub context_window_1m: Option<u64>,
    /// Where the figures were read.
    #[schema(required)]
    pub source: Option<String>,
    /// When they were read.
    #[schema(required)]
    pub checked: Option<String>,
    /// What else there is to say.
    #[schema(required)]
    pub note: Option<String>,
    /// `builtin` or `user`.
    pub origin: String,
}

/// Dollars per million tokens; null where a kind is not sold or its rate is not known.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub struct RatesJson {
    pub input: f64,
    pub output: f64,
    #[schema(required)]
    pub cache_read: Option<f64>,
    #[schema(required)]
    pub cache_write_5m: Option<f64>,
    #[schema(required)]
    pub cache_write_1h: Option<f64>,
}

/// Other rates for long prompts.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TierJson {
    /// The tier holds for more tokens than this.
    pub above: u64,
    /// `whole_request`: for every token of a request whose prompt is longer. `marginal`: for the tokens beyond, by kind.
    pub kind: String,
    /// Its rates.
    #[serde(flatten)]
    pub rates: RatesJson,
}

impl PriceRowJson {
    /// The shape of a row.
    pub fn of(row: &PriceRow) -> Self {
        let factor = |f: Option<Factor>| f.map(Factor::value);
        Self {
            model: row.model.clone(),
            aliases: row.aliases.clone(),
            effective_from: row.effective_from.to_string(),
            effective_until: row.effective_until.map(|day| day.to_string()),
            retired: row.retired.map(|day| day.to_string()),
            rates: RatesJson::of(&row.rates),
            long_context: row.tiers.iter().map(|tier| TierJson::of(tier, row.tier_kind)).collect(),
            web_search: row.web_search_usd_per_1000(),
            fast: factor(row.fast),
            batch: factor(row.batch),
            geo: row.geo.iter().map(|(name, f)| (name.clone(), f.value())).collect(),
            bedrock_regional: factor(row.bedrock_regional),
            bedrock_gov: factor(row.bedrock_gov),
            context_window: row.context_window,
            context_window_1m: row.context_window_1m,
            source: row.source.clone(),
            checked: row.checked.map(|day| day.to_string()),
            note: row.note.clone(),
            origin: row.origin.name().to_owned(),
        }
    }
}

impl RatesJson {
    fn of(rates: &Rates) -> Self {
        Self {
            input: rates.input.usd_per_million(),
            output: rates.output.usd_per_million(),
            cache_read: rates.cache_read.map(Rate::usd_per_million),
            cache_write_5m: rates.cache_write_5m.map(Rate::usd_per_million),
            cache_write_1h: rates.cache_write_1h.map(Rate::usd_per_million),
        }
    }
}

impl TierJson {
    fn of(tier: &Tier, kind: TierKind) -> Self {
        Self { above: tier.above, kind: kind.name().to_owned(), rates: RatesJson::of(&tier.rates) }
    }
}

/// The price table in use, and how history stands to it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PricesJson {
    /// Of the table by which requests are priced now.
    pub fingerprint: String,
    /// Of the table by which history is priced; null before the first request.
    #[schema(required)]
    pub history_fingerprint: Option<String>,
    /// The user's file.
    pub user_file: UserFileJson,
    /// Every row, by model and day.
    pub rows: Vec<PriceRowJson>,
    /// Models of which requests were seen that have no price, most tokens first.
    pub unpriced: Vec<UnpricedJson>,
}

/// The user's `prices.toml`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UserFileJson {
    /// Where it is, or would be.
    pub path: String,
    /// Whether it is there.
    pub exists: bool,
    /// Of the table with the file as it is now; differs from the one in use when the file was changed since.
    #[schema(required)]
    pub fingerprint: Option<String>,
    /// Why it cannot be used.
    #[schema(required)]
    pub error: Option<String>,
}

impl UserFileJson {
    /// What the file is now.
    pub fn of(path: &Path, loaded: &Result<Loaded, PricesError>) -> Self {
        Self {
            path: path.display().to_string(),
            exists: !matches!(loaded, Ok(Loaded { user_file: None, .. })),
            fingerprint: loaded.as_ref().ok().map(|loaded| loaded.table.fingerprint()),
            error: loaded.as_ref().err().map(ToString::to_string),
        }
    }
}

/// A model without a price.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct UnpricedJson {
    pub model: String,
    pub requests: i64,
    pub tokens: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_5m_tokens: u64,
    pub cache_write_1h_tokens: u64,
    pub first_ms: i64,
    pub last_ms: i64,
}

impl UnpricedJson {
    /// The shape of a model without a price.
    pub fn of(model: &UnpricedModel) -> Self {
        Self {
            model: model.model.clone(),
            requests: model.requests,
            tokens: model.usage.total(),
            input_tokens: model.usage.input,
            output_tokens: model.usage.output,
            cache_read_tokens: model.usage.cache_read,
            cache_write_5m_tokens: model.usage.cache_write_5m,
            cache_write_1h_tokens: model.usage.cache_write_1h,
            first_ms: model.first.get(),
            last_ms: model.last.get(),
        }
    }
}

/// Whether history is to be changed, or only what would change is to be said.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RepriceRequest {
    /// True unless told: nothing is changed.
    #[serde(default = "yes")]
    pub dry_run: bool,
}

fn yes() -> bool {
    true
}

/// What the present prices change in history.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RepriceJson {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Of the table by which history was priced before; null before the first request.
    #[schema(required)]
    pub history_fingerprint: Option<String>,
    /// Of the table that the effects are computed with: `prices.toml` as it is now.
    pub fingerprint: String,
    /// By model and month, in this order.
    pub effects: Vec<RepriceEffectJson>,
    /// Their sums.
    pub totals: RepriceTotalsJson,
}

/// One model's month.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RepriceEffectJson {
    /// The model, as its sources name it.
    pub model: String,
    /// UTC, such as `2026-11`.
    pub month: String,
    /// The figures.
    #[serde(flatten)]
    pub totals: RepriceTotalsJson,
}

/// What changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RepriceTotalsJson {
    /// All requests.
    pub requests: i64,
    /// Requests whose cost differs.
    pub changed: i64,
    /// What the priced ones cost before, in dollars.
    pub before_usd: f64,
    /// What they cost then.
    pub after_usd: f64,
    /// `after_usd - before_usd`.
    pub difference_usd: f64,
    /// Requests without a price before.
    pub unpriced_before: i64,
    /// Requests without a price then.
    pub unpriced_after: i64,
}

impl RepriceJson {
    /// The shape of a reprice.
    pub fn of(
        dry_run: bool,
        history_fingerprint: Option<String>,
        fingerprint: String,
        effects: &[RepriceEffect],
    ) -> Self {
        let mut sum = RepriceEffect::default();
        for effect in effects {
            sum.requests = sum.requests.saturating_add(effect.requests);
            sum.changed = sum.changed.saturating_add(effect.changed);
            sum.before_nano_usd = sum.before_nano_usd.saturating_add(effect.before_nano_usd);
            sum.after_nano_usd = sum.after_nano_usd.saturating_add(effect.after_nano_usd);
            sum.unpriced_before = sum.unpriced_before.saturating_add(effect.unpriced_before);
            sum.unpriced_after = sum.unpriced_after.saturating_add(effect.unpriced_after);
        }
        let mut rows: Vec<RepriceEffectJson> = effects
            .iter()
            .map(|effect| RepriceEffectJson {
                model: effect.model.clone(),
                month: effect.month.clone(),
                totals: RepriceTotalsJson::of(effect),
            })
            .collect();
        rows.sort_by(|a, b| (&a.model, &a.month).cmp(&(&b.model, &b.month)));
        Self { dry_run, history_fingerprint, fingerprint, effects: rows, totals: RepriceTotalsJson::of(&sum) }
    }
}

impl RepriceTotalsJson {
    fn of(effect: &RepriceEffect) -> Self {
        Self {
            requests: effect.requests,
            changed: effect.changed,
            before_usd: usd(effect.before_nano_usd),
            after_usd: usd(effect.after_nano_usd),
            difference_usd: usd(effect.after_nano_usd.saturating_sub(effect.before_nano_usd)),
            unpriced_before: effect.unpriced_before,
            unpriced_after: effect.unpriced_after,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for showing: exact below nine million dollars")]
fn usd(nano: i64) -> f64 {
    nano as f64 / 1e9
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_the_prices_of_this_version_hold() {
        let dir = tempfile::tempdir().unwrap();
        for dir in [dir.path().to_owned(), dir.path().join("not-there")] {
            let loaded = load(&dir).unwrap();
            assert_eq!(loaded.table.fingerprint(), PriceTable::builtin().fingerprint());
            assert_eq!(loaded.user_file, None);
        }
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(USER_FILE);
        for (bytes, word) in [
            (b"[[price]]\nmodel = 5\n".to_vec(), "line 2"),
            (b"\xff".to_vec(), "UTF-8"),
            (vec![b' '; FILE_MAX_BYTES + 1], "larger"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let said = load(dir.path()).unwrap_err().to_string();
            assert!(
                said.contains(path.to_str().unwrap()) && said.contains(word) && said.contains("\nhint: "),
                "{said}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(load(dir.path()).unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn the_totals_are_the_sums_and_saturate() {
        let effect = |model: &str, before, after| RepriceEffect {
            model: model.to_owned(),
            month: "2026-11".to_owned(),
            requests: 2,
            changed: 1,
            before_nano_usd: before,
            after_nano_usd: after,
            unpriced_before: 1,
            unpriced_after: 0,
        };
        let json = RepriceJson::of(
            true,
            None,
            "f".to_owned(),
            &[effect("b", 1_500_000_000, 1_000_000_000), effect("a", 0, 2_000_000_000)],
        );
        assert_eq!(json.effects.iter().map(|e| e.model.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let totals = json.totals;
        assert_eq!(
            (totals.requests, totals.changed, totals.unpriced_before, totals.unpriced_after),
            (4, 2, 2, 0)
        );
        assert!((totals.before_usd - 1.5).abs() < 1e-12 && (totals.difference_usd - 1.5).abs() < 1e-12);
        let most = RepriceJson::of(
            true,
            None,
            String::new(),
            &[effect("a", i64::MAX, i64::MIN), effect("b", i64::MAX, i64::MIN)],
        );
        assert!(most.totals.before_usd > 9e9 && most.totals.difference_usd < -9e9);
    }

    #[test]
    fn a_row_as_json_says_what_the_file_says() {
        let row = PriceTable::builtin();
        let row = row.rows().find(|row| row.model == "claude-haiku-5-5").unwrap();
        let json = serde_json::to_value(PriceRowJson::of(row)).unwrap();
        assert_eq!(json["input"], 0.1);
        assert_eq!(json["long_context"][0]["above"], 100_000);
        assert_eq!(json["long_context"][0]["kind"], "whole_request");
        assert_eq!(json["long_context"][0]["cache_write_1h"], 1.0);
        assert_eq!(json["geo"]["us"], 1.1);
        assert_eq!(json["web_search"], 10.0);
        assert_eq!(json["fast"], serde_json::Value::Null);
        assert_eq!(json["effective_from"], "2026-10-07");
    }
}
