//! What is kept of a line: numbers and hashes, no text, so that a million lines fit into memory.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use super::args::Mode;
use super::line::{Reader, Record, Speed, Usage};
use super::prices::{Price, Prices};
use super::time::Stamp;

/// 128 bits of text: equal means the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, u64);

impl Key {
    pub(super) fn of<T: Hash + ?Sized>(value: &T) -> Self {
        let half = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            seed.hash(&mut hasher);
            value.hash(&mut hasher);
            hasher.finish()
        };
        Self(half(0), half(1))
    }
}

/// What makes two entries copies of one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Message and request; without a request message and session, by day also the time.
    pub(super) exact: Key,
    /// Message and session: how a sidechain's copy is found.
    pub(super) replay: Key,
}

/// One counted entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) at_ms: i64,
    pub(super) usage: Usage,
    pub(super) cost: f64,
    /// What the line itself says that it cost.
    pub(super) told: Option<f64>,
    /// None without a message id: such entries have no copies.
    pub(super) identity: Option<Identity>,
    /// The line's own session id, else the path's.
    pub(super) session: Key,
    /// Index of the model as the line names it.
    pub(super) named: Option<u32>,
    /// Index of the model it counts for; none for `<synthetic>`. Fast mode counts as a model of its own.
    pub(super) model: Option<u32>,
    pub(super) stamp: Stamp,
    pub(super) file: u32,
    pub(super) sidechain: bool,
    /// No price was found for it.
    pub(super) unpriced: bool,
    /// When a used-up limit comes back, where the line says so.
    pub(super) limit_reset_ms: Option<i64>,
}

/// What pricing an entry needs.
#[derive(Debug)]
pub(super) struct Pricing {
    mode: Mode,
    models: Mutex<Models>,
}

#[derive(Debug)]
struct Models {
    prices: Prices,
    names: Vec<String>,
    by_name: HashMap<String, u32>,
}

/// A thread's own view of the models, so that the lock is taken once a name.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<String, (u32, Option<Price>)>);

impl Pricing {
    pub(super) fn new(mode: Mode) -> Self {
        let models = Models { prices: Prices::builtin(), names: Vec::new(), by_name: HashMap::new() };
        Self { mode, models: Mutex::new(models) }
    }

    /// The names, by index.
    pub(super) fn into_names(self) -> Vec<String> {
        self.models.into_inner().unwrap_or_else(PoisonError::into_inner).names
    }

    fn model(&self, name: &str, known: &mut Known) -> (u32, Option<Price>) {
        if let Some(found) = known.0.get(name) {
            return *found;
        }
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(models.names.len()).unwrap_or(u32::MAX);
        let index = *models.by_name.entry(name.to_owned()).or_insert(next);
        if index == next {
            models.names.push(name.to_owned());
        }
        let found = (index, models.prices.find(name));
        known.0.insert(name.to_owned(), found);
        found
    }

    /// Cost in dollars, and whether a price was missed.
    fn cost(&self, price: Option<Price>, usage: &Usage, told: Option<f64>, named: bool) -> (f64, bool) {
        let computed =
            || (price.map_or(0.0, |price| price.cost(usage)), named && price.is_none() && usage.total() > 0);
        match (self.mode, told) {
            (Mode::Display, told) => (told.unwrap_or(0.0), false),
            (Mode::Auto, Some(told)) => (told, false),
            (Mode::Auto, None) | (Mode::Calculate, _) => computed(),
        }
    }
}

/// Where an entry was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) reader: Reader,
    pub(super) file: u32,
    /// The session that the path says.
    pub(super) session: &'a str,
}

/// The entry of a record, and those of its advisers.
pub(super) fn entries(
    record: &Record<'_>,
    line: &[u8],
    place: Place<'_>,
    pricing: &Pricing,
    known: &mut Known,
    into: &mut Vec<Entry>,
) {
    let Some((at_ms, stamp)) = super::time::parse(record.timestamp.as_str()) else { return };
    let session = record.session_id.as_ref().map_or(place.session, |id| id.as_str());
    let request = record.request_id.as_ref().map(|id| id.as_str());
    let id = record.message.id.as_ref().map(|id| id.as_str());
    let name = record.message.model.as_ref().map(|model| model.as_str());
    let usage = record.message.usage;
    let named = name.map(|name| pricing.model(name, known));
    let price = named.and_then(|(_, price)| price);
    let (cost, unpriced) = pricing.cost(price, &usage, record.cost_usd, name.is_some());
    let model = name.filter(|name| *name != "<synthetic>").map(|name| match usage.speed {
        Some(Speed::Fast) => pricing.model(&format!("{name}-fast"), known).0,
        _ => pricing.model(name, known).0,
    });
    let entry = Entry {
        at_ms,
        usage,
        cost,
        told: record.cost_usd,
        identity: id.map(|id| identity(id, request, session, at_ms, place.reader)),
        session: Key::of(session),
        named: named.map(|(index, _)| index),
        model,
        stamp,
        file: place.file,
        sidechain: record.is_sidechain == Some(true),
        unpriced,
        limit_reset_ms: limit_reset(line, record.is_api_error_message),
    };
    into.push(entry);
    for (n, advice) in super::line::advice(line).into_iter().enumerate() {
        let name = advice.model.unwrap_or_default();
        let (index, price) = pricing.model(&name, known);
        let (cost, unpriced) = pricing.cost(price, &advice.usage, None, true);
        let identity =
            id.map(|id| identity(&format!("{id}:advisor:{n}"), request, session, at_ms, place.reader));
        let index = Some(index);
        into.push(Entry {
            usage: advice.usage,
            cost,
            told: None,
            identity,
            named: index,
            model: index,
            unpriced,
            ..entry
        });
    }
}

fn identity(id: &str, request: Option<&str>, session: &str, at_ms: i64, reader: Reader) -> Identity {
    let exact_at = (reader == Reader::Days).then_some(at_ms);
    let exact = match request {
        Some(request) => Key::of(&("request", id, request)),
        None => Key::of(&("session", id, session, exact_at)),
    };
    Identity { exact, replay: Key::of(&("replay", id, session)) }
}

/// `Claude AI usage limit reached|1767355200` in an error message: seconds since 1970.
fn limit_reset(line: &[u8], is_error: Option<bool>) -> Option<i64> {
    const MARK: &[u8] = b"Claude AI usage limit reached";
    if is_error != Some(true) {
        return None;
    }
    let after = &line[memchr::memmem::find(line, MARK)?..];
    let digits = &after[memchr::memchr(b'|', after)? + 1..];
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    let seconds: i64 = std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?;
    (seconds > 0).then(|| seconds.checked_mul(1_000)).flatten()
}
