//! From what a source calls a model to the names of the table: exact, in a fixed order, never by likeness.
//!
//! Each step takes off one thing that is known not to change the model, and the rest must be a name of the table:
//!
//! 1. the name as it is;
//! 2. without the client's `[1m]` (long context) at the end;
//! 3. without a route before it: `anthropic/`, `bedrock/`, `vertex_ai/`, `publishers/anthropic/models/`, `openai/`,
//!    `google/`, `gemini/`, `models/`, `moonshotai/`, `moonshot/`, `xai/`, and of a Bedrock ARN all up to its last `/`;
//! 4. without Bedrock's `anthropic.` and the region before it (`us. eu. apac. au. jp. us-gov. global.`), and then without
//!    Bedrock's version at the end (`-v1:0`, `-v1`, `-v1:0:200k`);
//! 5. without Vertex's version (`@20250929`, `@default`, `@latest`);
//! 6. without a date (`-20250929`, `-2025-09-29`) or `-latest`.

/// Where Bedrock's id binds a request to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere, or it is not Bedrock.
    #[default]
    Anywhere,
    /// One region or a group of them.
    Region,
    /// Government regions.
    Government,
}

/// What a name was found to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub(super) what: T,
    pub(super) place: Place,
    /// Whether `[1m]` was there.
    pub(super) long: bool,
}

/// Longest name that is looked at: longer ones are no models.
pub(super) const NAME_MAX_BYTES: usize = 256;

const LONG: &str = "[1m]";
const ROUTES: [&str; 11] = [
    "anthropic/",
    "bedrock/",
    "vertex_ai/",
    "publishers/anthropic/models/",
    "openai/",
    "google/",
    "gemini/",
    "models/",
    "moonshotai/",
    "moonshot/",
    "xai/",
];
const REGIONS: [(&str, Place); 7] = [
    ("us.", Place::Region),
    ("eu.", Place::Region),
    ("apac.", Place::Region),
    ("au.", Place::Region),
    ("jp.", Place::Region),
    ("us-gov.", Place::Government),
    ("global.", Place::Anywhere),
];
const BEDROCK: &str = "anthropic.";

/// The first of the names that `name` may stand for which `known` has.
pub(super) fn find<T>(name: &str, known: impl Fn(&str) -> Option<T>) -> Option<Found<T>> {
    if name.len() > NAME_MAX_BYTES {
        return None;
    }
    let found = |what, place, long| Some(Found { what, place, long });
    if let Some(what) = known(name) {
        return found(what, Place::Anywhere, false);
    }
    let (name, long) = name.strip_suffix(LONG).map_or((name, false), |rest| (rest, true));
    let name = without_route(name);
    let (name, place) = match bedrock(name) {
        Some((rest, place)) => {
            if let Some(what) = known(rest) {
                return found(what, place, long);
            }
            (without_bedrock_version(rest), place)
        }
        None => (name, Place::Anywhere),
    };
    let bare = name.split_once('@').map_or(name, |(rest, version)| match is_vertex_version(version) {
        true => rest,
        false => name,
    });
    let undated = without_date(bare);
    [name, bare, undated].into_iter().find_map(&known).and_then(|what| found(what, place, long))
}

fn without_route(name: &str) -> &str {
    if name.starts_with("arn:") {
        return name.rsplit_once('/').map_or(name, |(_, last)| last);
    }
    ROUTES.iter().find_map(|route| name.strip_prefix(route)).unwrap_or(name)
}

/// What follows `anthropic.`, and where the region before it binds to.
fn bedrock(name: &str) -> Option<(&str, Place)> {
    if let Some(rest) = name.strip_prefix(BEDROCK) {
        return Some((rest, Place::Anywhere));
    }
    REGIONS.iter().find_map(|(region, place)| {
        let rest = name.strip_prefix(region)?.strip_prefix(BEDROCK)?;
        Some((rest, *place))
    })
}

/// Without `-v1`, `-v1:0`, `-v1:0:200k`.
fn without_bedrock_version(name: &str) -> &str {
    let Some((rest, version)) = name.rsplit_once("-v") else { return name };
    let mut parts = version.split(':');
    let version = parts.next().is_some_and(is_number);
    let revision = parts.next().is_none_or(is_number);
    let window = parts.next().is_none_or(|w| w.strip_suffix('k').is_some_and(is_number));
    if version && revision && window && parts.next().is_none() { rest } else { name }
}

fn is_vertex_version(version: &str) -> bool {
    matches!(version, "default" | "latest") || (version.len() == 8 && is_number(version))
}

/// Without `-20250929`, `-2025-09-29` or `-latest`.
fn without_date(name: &str) -> &str {
    if let Some(rest) = name.strip_suffix("-latest") {
        return rest;
    }
    let at = |bytes: usize| name.len().checked_sub(bytes).and_then(|at| name.split_at_checked(at));
    if let Some((rest, tail)) = at(9)
        && tail.strip_prefix('-').is_some_and(is_day)
    {
        return rest;
    }
    if let Some((rest, tail)) = at(11)
        && let [b'-', y @ .., b'-', m1, m2, b'-', d1, d2] = tail.as_bytes()
        && y.len() == 4
        && let Ok(day) = std::str::from_utf8(&[y, &[*m1, *m2, *d1, *d2]].concat())
        && is_day(day)
    {
        return rest;
    }
    name
}

/// `20250929`: eight digits that can be a day.
fn is_day(text: &str) -> bool {
    let within = |from: usize, to: usize, low: u8, high: u8| {
        text.get(from..to).and_then(|part| part.parse().ok()).is_some_and(|n: u8| (low..=high).contains(&n))
    };
    text.len() == 8 && is_number(text) && text.starts_with("20") && within(4, 6, 1, 12) && within(6, 8, 1, 31)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
