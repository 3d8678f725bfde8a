//! `prices.toml` as written: parsed and checked, with the line of whatever is wrong.
//!
//! Limits: [`FILE_MAX_BYTES`], [`ROWS_MAX`], [`RATE_MAX_USD`], [`FACTOR_MAX`], names of [`super::name::NAME_MAX_BYTES`].

use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use toml::Spanned;
use toml::value::Datetime;

use super::PriceError;
use super::name::NAME_MAX_BYTES;
use super::row::{Day, Factor, Origin, PriceRow, Rate, Rates, Tier, TierKind};

/// Largest file.
pub const FILE_MAX_BYTES: usize = 1 << 20;
/// Most rows of one file.
pub const ROWS_MAX: usize = 5_000;
/// Highest rate, in dollars per million tokens or per 1,000 searches: a hundred times the dearest model there is.
pub const RATE_MAX_USD: f64 = 20_000.0;
/// Highest multiplier.
pub const FACTOR_MAX: f64 = 100.0;
const TIERS_MAX: usize = 8;
const ALIASES_MAX: usize = 32;
const GEOS_MAX: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    version: Option<Spanned<i64>>,
    #[serde(default)]
    price: Vec<Spanned<RawRow>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    model: Spanned<String>,
    #[serde(default)]
    aliases: Vec<Spanned<String>>,
    effective_from: Spanned<Datetime>,
    effective_until: Option<Spanned<Datetime>>,
    retired: Option<Spanned<Datetime>>,
    input: Spanned<f64>,
    output: Spanned<f64>,
    cache_read: Option<Spanned<f64>>,
    cache_write_5m: Option<Spanned<f64>>,
    cache_write_1h: Option<Spanned<f64>>,
    #[serde(default)]
    long_context: Vec<Spanned<RawTier>>,
    web_search: Option<Spanned<f64>>,
    fast: Option<Spanned<f64>>,
    batch: Option<Spanned<f64>>,
    #[serde(default)]
    geo: BTreeMap<String, Spanned<f64>>,
    bedrock_regional: Option<Spanned<f64>>,
    bedrock_gov: Option<Spanned<f64>>,
    context_window: Option<Spanned<i64>>,
    context_window_1m: Option<Spanned<i64>>,
    source: Option<String>,
    checked: Option<Spanned<Datetime>>,
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTier {
    above: Spanned<i64>,
    kind: RawKind,
    input: Spanned<f64>,
    output: Spanned<f64>,
    cache_read: Option<Spanned<f64>>,
    cache_write_5m: Option<Spanned<f64>>,
    cache_write_1h: Option<Spanned<f64>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawKind {
    WholeRequest,
    Marginal,
}

/// The rows of a file, as they stand in it.
pub(super) fn parse(text: &str, origin: Origin) -> Result<Vec<PriceRow>, PriceError> {
    if text.len() > FILE_MAX_BYTES {
        return Err(PriceError(format!("the file is larger than {FILE_MAX_BYTES} bytes")));
    }
    let file: RawFile = toml::from_str(text).map_err(|e| syntax(text, &e))?;
    let check = Check { text };
    if let Some(version) = file.version.filter(|v| *v.get_ref() != 1) {
        return check.refuse(
            &version,
            format_args!("version {} is not known", version.get_ref()),
            "this version reads version = 1",
        );
    }
    if file.price.len() > ROWS_MAX {
        return Err(PriceError(format!("more than {ROWS_MAX} rows")));
    }
    let mut rows = Vec::with_capacity(file.price.len());
    let mut seen = HashMap::new();
    for raw in file.price {
        let row = check.row(raw.get_ref(), origin)?;
        let key = (row.model.clone(), row.effective_from);
        if let Some(first) = seen.insert(key, check.line(&raw)) {
            return check.refuse(
                &raw,
                format_args!("{} has a row from {} already, in line {first}", row.model, row.effective_from),
                "one row for each day on which a price changes",
            );
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What the TOML reader says, with its line, on one line.
fn syntax(text: &str, error: &toml::de::Error) -> PriceError {
    let line = error.span().map_or(1, |span| line_at(text, span.start));
    let said = error.message().trim().replace('\n', " ");
    let hint = if said.contains("missing field") {
        "a [[price]] needs model, effective_from, input and output"
    } else if said.contains("datetime") {
        "write days bare, such as 2026-11-22"
    } else if said.contains("f64") || said.contains("floating") {
        "write dollars per million tokens as a bare number, such as 2.5"
    } else {
        "`taffrail prices list --json` shows what a row holds"
    };
    PriceError(format!("line {line}: {said}\nhint: {hint}"))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

struct Check<'a> {
    text: &'a str,
}

impl Check<'_> {
    fn line<T>(&self, at: &Spanned<T>) -> usize {
        line_at(self.text, at.span().start)
    }

    fn refuse<T, R>(
        &self,
        at: &Spanned<T>,
        what: std::fmt::Arguments<'_>,
        hint: &str,
    ) -> Result<R, PriceError> {
        Err(PriceError(format!("line {}: {what}\nhint: {hint}", self.line(at))))
    }

    fn row(&self, raw: &RawRow, origin: Origin) -> Result<PriceRow, PriceError> {
        let effective_from = self.day("effective_from", &raw.effective_from)?;
        let effective_until = self.maybe(raw.effective_until.as_ref(), |d| self.day("effective_until", d))?;
        if let Some(until) = raw.effective_until.as_ref().filter(|_| effective_until <= Some(effective_from))
        {
            return self.refuse(
                until,
                format_args!("`effective_until` is not after `effective_from`"),
                "it is the first day on which the row no longer holds",
            );
        }
        if raw.aliases.len() > ALIASES_MAX || raw.geo.len() > GEOS_MAX {
            return self.refuse(
                &raw.model,
                format_args!("too many aliases or places"),
                "at most 32 of each in a row",
            );
        }
        let (tier_kind, tiers) = self.tiers(&raw.long_context)?;
        let factor =
            |name, value: &Option<Spanned<f64>>| self.maybe(value.as_ref(), |f| self.factor(name, f));
        Ok(PriceRow {
            model: self.name(&raw.model)?,
            aliases: raw.aliases.iter().map(|alias| self.name(alias)).collect::<Result<_, _>>()?,
            effective_from,
            effective_until,
            retired: self.maybe(raw.retired.as_ref(), |d| self.day("retired", d))?,
            rates: self.rates(
                &raw.input,
                &raw.output,
                [&raw.cache_read, &raw.cache_write_5m, &raw.cache_write_1h],
            )?,
            tier_kind,
            tiers,
            // Dollars per 1,000 are a thousand times dearer than dollars per million.
            web_search_pico_usd: self
                .maybe(raw.web_search.as_ref(), |usd| self.rate("web_search", usd))?
                .map(|rate| rate.0 * 1_000),
            fast: factor("fast", &raw.fast)?,
            batch: factor("batch", &raw.batch)?,
            geo: raw
                .geo
                .iter()
                .map(|(name, value)| Ok((name.clone(), self.factor("geo", value)?)))
                .collect::<Result<_, PriceError>>()?,
            bedrock_regional: factor("bedrock_regional", &raw.bedrock_regional)?,
            bedrock_gov: factor("bedrock_gov", &raw.bedrock_gov)?,
            context_window: self.maybe(raw.context_window.as_ref(), |n| self.tokens("context_window", n))?,
            context_window_1m: self
                .maybe(raw.context_window_1m.as_ref(), |n| self.tokens("context_window_1m", n))?,
            source: raw.source.clone(),
            checked: self.maybe(raw.checked.as_ref(), |d| self.day("checked", d))?,
            note: raw.note.clone(),
            origin,
        })
    }

    fn tiers(&self, raw: &[Spanned<RawTier>]) -> Result<(TierKind, Vec<Tier>), PriceError> {
        let mut tiers: Vec<Tier> = Vec::with_capacity(raw.len());
        for spanned in raw {
            let tier = spanned.get_ref();
            let above = self.tokens("above", &tier.above)?;
            if tiers.len() == TIERS_MAX || tiers.last().is_some_and(|last| last.above >= above) {
                return self.refuse(
                    spanned,
                    format_args!("the tiers do not rise"),
                    "lowest threshold first, each once, at most 8",
                );
            }
            if tier.kind != raw[0].get_ref().kind {
                return self.refuse(
                    spanned,
                    format_args!("the tiers of a row are of two kinds"),
                    "all are \"whole_request\" or all are \"marginal\"",
                );
            }
            let cache = [&tier.cache_read, &tier.cache_write_5m, &tier.cache_write_1h];
            tiers.push(Tier { above, rates: self.rates(&tier.input, &tier.output, cache)? });
        }
        let kind = match raw.first().map(|tier| tier.get_ref().kind) {
            Some(RawKind::Marginal) => TierKind::Marginal,
            Some(RawKind::WholeRequest) | None => TierKind::WholeRequest,
        };
        Ok((kind, tiers))
    }

    fn rates(
        &self,
        input: &Spanned<f64>,
        output: &Spanned<f64>,
        [read, write_5m, write_1h]: [&Option<Spanned<f64>>; 3],
    ) -> Result<Rates, PriceError> {
        let maybe = |name, value: &Option<Spanned<f64>>| self.maybe(value.as_ref(), |v| self.rate(name, v));
        Ok(Rates {
            input: self.rate("input", input)?,
            output: self.rate("output", output)?,
            cache_read: maybe("cache_read", read)?,
            cache_write_5m: maybe("cache_write_5m", write_5m)?,
            cache_write_1h: maybe("cache_write_1h", write_1h)?,
        })
    }

    fn maybe<T, R>(
        &self,
        value: Option<&T>,
        read: impl FnOnce(&T) -> Result<R, PriceError>,
    ) -> Result<Option<R>, PriceError> {
        value.map(read).transpose()
    }

    fn name(&self, raw: &Spanned<String>) -> Result<String, PriceError> {
        let name = raw.get_ref();
        if name.is_empty()
            || name.len() > NAME_MAX_BYTES
            || name.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return self.refuse(
                raw,
                format_args!("`{}` is no model's name", name.escape_debug()),
                "a name has 1 to 256 bytes and no spaces",
            );
        }
        Ok(name.clone())
    }

    fn day(&self, what: &str, raw: &Spanned<Datetime>) -> Result<Day, PriceError> {
        let said = raw.get_ref();
        let day = said.date.filter(|_| said.time.is_none() && said.offset.is_none()).and_then(|date| {
            let part = |n: u8| i8::try_from(n).ok();
            let year = i16::try_from(date.year).ok()?;
            jiff::civil::Date::new(year, part(date.month)?, part(date.day)?).ok()
        });
        match day {
            Some(day) => Ok(Day::of(day)),
            None => {
                self.refuse(raw, format_args!("`{what}` is no day"), "write days bare, such as 2026-11-22")
            }
        }
    }

    /// Dollars per million as pico-dollars a token: at most six decimals, so that nothing is rounded here.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded here")]
    fn rate(&self, what: &str, raw: &Spanned<f64>) -> Result<Rate, PriceError> {
        match scaled(*raw.get_ref(), 1e6, RATE_MAX_USD) {
            Some(pico) => Ok(Rate(pico)),
            None => self.refuse(
                raw,
                format_args!("`{what}` cannot be {}", raw.get_ref()),
                &format!("dollars from 0 to {RATE_MAX_USD}, with at most six decimals"),
            ),
        }
    }

    fn factor(&self, what: &str, raw: &Spanned<f64>) -> Result<Factor, PriceError> {
        match scaled(*raw.get_ref(), 1e3, FACTOR_MAX).and_then(|f| u32::try_from(f).ok()) {
            Some(factor) => Ok(Factor(factor)),
            None => self.refuse(
                raw,
                format_args!("`{what}` cannot be {}", raw.get_ref()),
                &format!("a multiplier from 0 to {FACTOR_MAX}, with at most three decimals"),
            ),
        }
    }

    fn tokens(&self, what: &str, raw: &Spanned<i64>) -> Result<u64, PriceError> {
        match u64::try_from(*raw.get_ref()) {
            Ok(tokens) if tokens > 0 => Ok(tokens),
            _ => self.refuse(raw, format_args!("`{what}` cannot be {}", raw.get_ref()), "a number of tokens"),
        }
    }
}

/// `value` times `scale` as an integer; none where it is none, out of bounds, or has more decimals than that.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded here")]
fn scaled(value: f64, scale: f64, max: f64) -> Option<u64> {
    // NaN is in no range, and -0 is 0.
    if !(0.0..=max).contains(&value) {
        return None;
    }
    let product = value * scale;
    let integer = product.round();
    ((product - integer).abs() < 1e-4).then_some(integer as u64)
}
