//! What ccusage charges: its table for Claude models, its way to find a row for a name, its sum.
//!
//! The table is data (`ccusage-20.0.24.tsv`), measured by giving that version one request of each kind. Only models with
//! `claude` in a row's name are in it: for others ccusage also knows prices, and here they count as unpriced.

use super::line::{Speed, Usage};

/// The version whose output is matched.
pub(super) const VERSION: &str = "20.0.24";

const TABLE: &str = include_str!("ccusage-20.0.24.tsv");
/// Above so many tokens the second rate counts.
const LONG: u64 = 200_000;
/// A write that lasts an hour costs twice the input, whatever the table says.
const HOUR_WRITE: f64 = 2.0;
/// A date after a model's name has so many digits; any other number makes it another model.
const DATE_DIGITS: usize = 8;

/// Dollars per token.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    input: f64,
    output: f64,
    write: f64,
    read: f64,
}

/// How the rates above 200,000 tokens apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Long {
    /// To the tokens above, for each kind by itself.
    Marginal,
    /// To the whole request, by its prompt.
    Whole,
}

/// What a model costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Price {
    rates: Rates,
    long: Option<(Long, Rates)>,
    fast: f64,
}

impl Price {
    /// The cost of one entry, in dollars. The order of the sum is ccusage's, so that the last bit is, too.
    pub(super) fn cost(&self, usage: &Usage) -> f64 {
        let (write_5m, write_1h) = match usage.split {
            Some(split) => (split.five_minutes, split.one_hour),
            None => (usage.cache_write, 0),
        };
        let prompt =
            [usage.input, usage.cache_read, write_5m, write_1h].into_iter().fold(0, u64::saturating_add);
        let base = self.rates;
        let kinds = [
            (usage.input, base.input, self.long.map(|(_, r)| r.input)),
            (usage.output, base.output, self.long.map(|(_, r)| r.output)),
            (write_5m, base.write, self.long.map(|(_, r)| r.write)),
            (write_1h, base.input * HOUR_WRITE, self.long.map(|(_, r)| r.input * HOUR_WRITE)),
            (usage.cache_read, base.read, self.long.map(|(_, r)| r.read)),
        ];
        let whole = matches!(self.long, Some((Long::Whole, _)));
        let sum = kinds.into_iter().fold(0.0, |sum, (tokens, rate, above)| {
            sum + match above {
                Some(above) if whole => tokens as f64 * if prompt > LONG { above } else { rate },
                Some(above) if tokens > LONG => LONG as f64 * rate + (tokens - LONG) as f64 * above,
                _ => tokens as f64 * rate,
            }
        });
        sum * if usage.speed == Some(Speed::Fast) { self.fast } else { 1.0 }
    }
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    plain: String,
    exact_only: bool,
    price: Price,
}

/// ccusage's table.
#[derive(Debug)]
pub(super) struct Prices(Vec<Row>);

impl Prices {
    /// The table of [`VERSION`].
    pub(super) fn builtin() -> Self {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(row).collect())
    }

    /// The price of a model by its name: its own row, else the longest row that the name contains or that contains the
    /// name, on word boundaries and never across a version number (`opus-5` is not `opus-5-5`).
    pub(super) fn find(&self, model: &str) -> Option<Price> {
        let own = |exact_only| self.0.iter().find(|row| row.exact_only == exact_only && row.name == model);
        if let Some(row) = own(false).or_else(|| own(true)) {
            return Some(row.price);
        }
        let plain = plain(model);
        if let Some(row) = self.0.iter().find(|row| row.exact_only && row.plain == plain) {
            return Some(row.price);
        }
        let fits = |row: &&Row| {
            !row.exact_only
                && (holds(model, row.name)
                    || holds(row.name, model)
                    || holds(&plain, &row.plain)
                    || holds(&row.plain, &plain))
        };
        let order = |a: &&Row, b: &&Row| a.name.len().cmp(&b.name.len()).then_with(|| b.name.cmp(a.name));
        self.0.iter().filter(fits).max_by(order).map(|row| row.price)
    }
}

fn row(line: &'static str) -> Option<Row> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, how, input, output, write, read, long, way, fast] = fields[..] else { return None };
    let long = match long.split(' ').collect::<Vec<_>>()[..] {
        [i, o, w, r] => Some((if way == "whole" { Long::Whole } else { Long::Marginal }, rates(i, o, w, r)?)),
        _ => None,
    };
    let price = Price { rates: rates(input, output, write, read)?, long, fast: fast.parse().ok()? };
    Some(Row { name, plain: plain(name), exact_only: how == "exact", price })
}

fn rates(input: &str, output: &str, write: &str, read: &str) -> Option<Rates> {
    // The decimal is shifted in the text, so that it is rounded once, as in ccusage's own table.
    let per_token = |text: &str| format!("{text}e-6").parse().ok();
    Some(Rates {
        input: per_token(input)?,
        output: per_token(output)?,
        write: per_token(write)?,
        read: per_token(read)?,
    })
}

/// The name with one separator: vendors write `4.6`, `4-6` and `@20260205`.
fn plain(name: &str) -> String {
    name.replace(['.', '@'], "-")
}

/// Whether `text` holds `part` as whole words, with no version number going on after it.
fn holds(text: &str, part: &str) -> bool {
    !part.is_empty()
        && text.match_indices(part).any(|(at, _)| {
            let before = text[..at].bytes().next_back();
            before.is_none_or(|b| !b.is_ascii_alphanumeric()) && may_follow(part, &text[at + part.len()..])
        })
}

/// Whether what follows a name leaves it the same model.
fn may_follow(part: &str, rest: &str) -> bool {
    let Some(first) = rest.bytes().next() else { return true };
    if first.is_ascii_alphanumeric() {
        return false;
    }
    if !part.bytes().next_back().is_some_and(|b| b.is_ascii_digit()) || !matches!(first, b'-' | b'.' | b'@') {
        return true;
    }
    let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
    digits == 0 || digits == DATE_DIGITS
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn dollars(model: &str, usage: &Usage) -> Option<f64> {
        Prices::builtin().find(model).map(|price| price.cost(usage))
    }

    fn input(tokens: u64) -> Usage {
        Usage { input: tokens, ..Usage::default() }
    }

    /// What the real program answered for a million input tokens at the low rate (measured with 1,000).
    #[test]
    fn names_find_the_row_that_ccusage_finds() {
        let found = [
            ("claude-opus-4-6", Some(5.0)),
            ("claude-opus-4.6", Some(5.0)),
            ("anthropic/claude-opus-4-6", Some(5.0)),
            ("claude-opus-4-6[1m]", Some(5.0)),
            ("claude-opus-4-6-20260101-1", Some(5.0)),
            ("us.anthropic.claude-opus-4-6-v1", Some(5.5)),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-6-v1", Some(5.5)),
            ("claude-opus-5-20260701", Some(5.0)),
            ("claude-opus-5-fast", Some(10.0)),
            ("claude-opus-5-eu", Some(5.5)),
            ("claude-opus-4_6", Some(15.0)),
            ("claude-opus-4-", Some(15.0)),
            ("opus", Some(5.0)),
            ("claude", Some(3.0)),
            ("haiku", Some(1.0)),
            ("fable", Some(10.0)),
            ("4-6", Some(5.0)),
            ("claude-opus-5-5", None),
            ("claude-opus-5.5", None),
            ("claude-haiku-5-5", None),
            ("claude-opus-4-0", None),
            ("claude-opus-4-6x", None),
            ("xclaude-opus-4-6", None),
            ("claude-opus-4-60", None),
            ("claude-opus-4-6-1", None),
            ("claude-opus-4-6-1234567", None),
            ("CLAUDE-OPUS-4-6", None),
            ("", None),
        ];
        for (model, per_million) in found {
            let cost = dollars(model, &input(1_000)).map(|cost| (cost * 1e3 * 1e6).round() / 1e6);
            assert_eq!(cost, per_million, "{model}");
        }
    }

    #[test]
    fn above_200k_only_the_tokens_above_cost_more() {
        let usage = Usage { input: 250_000, output: 1_000, ..Usage::default() };
        assert!((dollars("claude-sonnet-4-5-20250929", &usage).unwrap() - 0.915).abs() < 1e-12);
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(Prices::builtin().0.len(), rows);
        assert!(rows > 150, "{rows}");
    }
}
