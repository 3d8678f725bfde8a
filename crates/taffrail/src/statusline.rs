//! `taffrail statusline`: one line for the client's status line, from the client's JSON on stdin and the ledger.
//!
//! The client starts it again and again, for every agent on the machine, and shows nothing until it ends: so it opens
//! the database for reading itself (no server, no network), at most [`READERS_MAX`] of them read at once, and after
//! [`DEADLINE`] it says what the client's own JSON gives. It never fails: a status line is no place for an error.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{Confidence, nano_usd};
use taffrail_server::Config;
use taffrail_server::config::Flags;
use taffrail_store::{CostQuery, CostTotals, Options, Reader, Scope};

use crate::cli::Global;
use crate::home::{self, Home};
use crate::print::out;

/// The ledger is given this long; then the line is made without it.
const DEADLINE: Duration = Duration::from_millis(200);
/// Status lines that may read the database at once; one more does without.
const READERS_MAX: usize = 4;
/// Largest JSON read from stdin, in bytes.
const INPUT_MAX_BYTES: u64 = 1 << 20;
/// Longest model name shown, in characters.
const MODEL_MAX_CHARS: usize = 32;
/// Shares from here on are shown in yellow, and in red from [`RED_PERCENT`].
const YELLOW_PERCENT: f64 = 70.0;
/// See [`YELLOW_PERCENT`].
const RED_PERCENT: f64 = 90.0;

/// Arguments of `taffrail statusline`.
#[derive(Debug, Args)]
pub(crate) struct StatuslineArgs {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What the client writes on stdin; every part may be missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    session_id: String,
    model: Model,
    cost: Cost,
    context_window: ContextWindow,
    rate_limits: RateLimits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Model {
    id: Option<String>,
    display_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Cost {
    total_cost_usd: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContextWindow {
    total_input_tokens: Option<u64>,
    context_window_size: Option<u64>,
    used_percentage: Option<f64>,
}

/// Present for subscribers, after the session's first answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RateLimits {
    five_hour: Option<RateWindow>,
    seven_day: Option<RateWindow>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct RateWindow {
    used_percentage: Option<f64>,
    /// Seconds since the Unix epoch.
    resets_at: Option<f64>,
}

/// What the ledger says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ledger {
    session: CostTotals,
    /// What a fork's session had from its parent in the client's own total.
    inherited_nano_usd: i64,
    today: CostTotals,
    month_nano_usd: i64,
}

/// Limits in dollars, from the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Budget {
    daily_nano_usd: Option<i64>,
    monthly_nano_usd: Option<i64>,
}

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Figures {
    model: Option<String>,
    context_tokens: Option<u64>,
    context_window: Option<u64>,
    context_percent: Option<f64>,
    session_cost_usd: Option<f64>,
    today_cost_usd: Option<f64>,
    /// Whether some of today's requests have no price: the figure is too low by an unknown amount.
    unpriced_requests: i64,
    /// Whether the figures are at least this, not exactly.
    at_least: bool,
    budget_left_usd: Option<f64>,
    five_hour_percent: Option<f64>,
    five_hour_resets_in_s: Option<i64>,
    seven_day_percent: Option<f64>,
    seven_day_resets_in_s: Option<i64>,
}

/// Prints the line.
///
/// # Errors
/// Only where somebody runs it by hand without input.
pub(crate) fn run(global: &Global, args: &StatuslineArgs) -> Result<()> {
    if std::io::stdin().is_terminal() {
        bail!(
            "statusline reads the client's JSON on stdin\nhint: `taffrail install --statusline` makes the client call it"
        );
    }
    let input = read_input(std::io::stdin());
    let now = jiff::Timestamp::now().as_millisecond();
    let (budget, ledger) = match loaded(global) {
        Some((config, home)) => (budget_of(&config), within_deadline(home, input.session_id.clone(), now)),
        None => (Budget::default(), None),
    };
    let figures = figures(&input, ledger.as_ref(), budget, now);
    if args.json {
        return out(&serde_json::to_string(&figures)?);
    }
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    out(&line(&figures, colours))
}

fn read_input(stdin: impl Read) -> Input {
    let mut bytes = Vec::new();
    // Whatever comes is shown as far as it goes.
    let _ = stdin.take(INPUT_MAX_BYTES).read_to_end(&mut bytes);
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn loaded(global: &Global) -> Option<(Config, Home)> {
    let config = home::load(&Flags { data_dir: global.data_dir.clone(), ..Flags::default() }).ok()?;
    let home = Home::of(&config).ok()?;
    Some((config, home))
}

fn budget_of(config: &Config) -> Budget {
    Budget {
        daily_nano_usd: config.budget.daily_usd.and_then(nano_usd),
        monthly_nano_usd: config.budget.monthly_usd.and_then(nano_usd),
    }
}

/// What the ledger says, unless it takes too long: the reading thread then dies with the process.
fn within_deadline(home: Home, session_id: String, now: i64) -> Option<Ledger> {
    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || {
        let read = Slot::take(home.dir()).and_then(|_slot| read_ledger(&home, session_id, now));
        // Nobody listens any more where the deadline has passed.
        let _ = answer.send(read);
    });
    answered.recv_timeout(DEADLINE).ok().flatten()
}

/// One of the places to read at once; given back when it is dropped.
struct Slot {
    _held: File,
}

impl Slot {
    /// A free place; none where all are taken, or where there is no data directory to hold them.
    fn take(dir: &Path) -> Option<Self> {
        (0..READERS_MAX).find_map(|n| {
            let mut options = OpenOptions::new();
            options.append(true).create(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(dir.join(format!("statusline-{n}.lock"))).ok()?;
            file.try_lock().ok()?;
            Some(Self { _held: file })
        })
    }
}

fn read_ledger(home: &Home, session_id: String, now: i64) -> Option<Ledger> {
    let reader = Reader::open(&Options::new(home.database())).ok()?;
    let (day, month) = starts_of_day_and_month(now, &TimeZone::system())?;
    let totals = |from: Option<TimestampMs>, scope: Scope| {
        let rows = reader.costs(&CostQuery { scope, from, ..CostQuery::default() }).ok()?;
        let mut totals = CostTotals::default();
        rows.iter().for_each(|row| totals.add(&row.totals));
        Some(totals)
    };
    let inherited = reader.reconcile(&session_id).ok().flatten().map_or(0, |r| r.inherited_nano_usd);
    Some(Ledger {
        session: totals(None, Scope { session: Some(session_id), ..Scope::default() })?,
        inherited_nano_usd: inherited,
        today: totals(Some(day), Scope::default())?,
        month_nano_usd: totals(Some(month), Scope::default())?.cost_nano_usd,
    })
}

/// Midnight, and midnight of the month's first day, in that zone.
fn starts_of_day_and_month(now: i64, zone: &TimeZone) -> Option<(TimestampMs, TimestampMs)> {
    let today = jiff::Timestamp::from_millisecond(now).ok()?.to_zoned(zone.clone()).date();
    let start = |date: jiff::civil::Date| {
        let begin = date.to_zoned(zone.clone()).ok()?.timestamp();
        Some(TimestampMs::clamped(begin.as_millisecond()))
    };
    Some((start(today)?, start(today.first_of_month())?))
}

/// Puts both sources together.
///
/// The client's own total is newer than the ledger (which hears of a request a moment later, or not until a server runs
/// again); what it has beyond the ledger counts for the session, the day and the month.
fn figures(input: &Input, ledger: Option<&Ledger>, budget: Budget, now: i64) -> Figures {
    let told = input.cost.total_cost_usd.and_then(nano_usd);
    let ahead = ledger
        .zip(told)
        .map_or(0, |(ledger, told)| (told - ledger.inherited_nano_usd - ledger.session.cost_nano_usd).max(0));
    let session = match (ledger, told) {
        (Some(ledger), _) if ledger.session.requests > 0 => Some(ledger.session.cost_nano_usd + ahead),
        (_, told) => told,
    };
    let today = ledger.map(|ledger| ledger.today.cost_nano_usd + ahead);
    let left = |limit: Option<i64>, spent: Option<i64>| Some(limit? - spent?);
    let day_left = left(budget.daily_nano_usd, today);
    let month_left = left(budget.monthly_nano_usd, ledger.map(|l| l.month_nano_usd + ahead));
    let resets_in = |window: Option<RateWindow>| {
        #[allow(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        let at = window?.resets_at.filter(|at| at.is_finite())? as i64;
        Some((at - now / 1000).max(0))
    };
    let limits = &input.rate_limits;
    Figures {
        model: model_name(&input.model),
        context_tokens: input.context_window.total_input_tokens.filter(|n| *n > 0),
        context_window: input.context_window.context_window_size,
        context_percent: context_percent(&input.context_window),
        session_cost_usd: session.map(usd),
        today_cost_usd: today.map(usd),
        unpriced_requests: ledger.map_or(0, |l| l.today.of(Confidence::Unpriced).requests),
        at_least: ledger.is_some_and(|l| {
            l.today.of(Confidence::LowerBound).requests + l.session.of(Confidence::LowerBound).requests > 0
        }),
        budget_left_usd: [day_left, month_left].into_iter().flatten().min().map(usd),
        five_hour_percent: limits.five_hour.and_then(|w| w.used_percentage),
        five_hour_resets_in_s: resets_in(limits.five_hour),
        seven_day_percent: limits.seven_day.and_then(|w| w.used_percentage),
        seven_day_resets_in_s: resets_in(limits.seven_day),
    }
}

/// Exact where tokens and window are known; the client's own share is a whole number.
fn context_percent(window: &ContextWindow) -> Option<f64> {
    match (window.total_input_tokens, window.context_window_size) {
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        (Some(used), Some(size)) if size > 0 && used > 0 => Some(used as f64 * 100.0 / size as f64),
        _ => window.used_percentage,
    }
}

fn model_name(model: &Model) -> Option<String> {
    let name = model.display_name.as_deref().or(model.id.as_deref())?;
    let clean: String = name.chars().filter(|c| !c.is_control()).take(MODEL_MAX_CHARS).collect();
    (!clean.is_empty()).then_some(clean)
}

#[allow(clippy::cast_precision_loss, reason = "dollars to look at")]
fn usd(nano: i64) -> f64 {
    nano as f64 / 1e9
}

/// The line as it is shown.
fn line(f: &Figures, colours: bool) -> String {
    let paint = |percent: f64, text: String| match percent {
        p if colours && p >= RED_PERCENT => format!("\x1b[31m{text}\x1b[0m"),
        p if colours && p >= YELLOW_PERCENT => format!("\x1b[33m{text}\x1b[0m"),
        _ => text,
    };
    let mut parts = Vec::new();
    parts.extend(f.model.clone());
    if let Some(percent) = f.context_percent {
        let of = match (f.context_tokens, f.context_window) {
            (Some(used), Some(size)) => format!(" {}/{}", tokens(used), tokens(size)),
            _ => String::new(),
        };
        parts.push(paint(percent, format!("ctx {}%{of}", whole(percent))));
    }
    let mark = if f.at_least { "≥" } else { "" };
    parts.extend(f.session_cost_usd.map(|cost| format!("{mark}{} session", dollars(cost))));
    parts.extend(f.today_cost_usd.map(|cost| format!("{mark}{} today", dollars(cost))));
    if f.unpriced_requests > 0 {
        parts.push(paint(100.0, format!("{} unpriced!", f.unpriced_requests)));
    }
    parts.extend(f.budget_left_usd.map(|left| match left {
        left if left < 0.0 => paint(100.0, format!("{} over budget", dollars(-left))),
        left => format!("{} left", dollars(left)),
    }));
    for (name, percent, resets) in [
        ("5h", f.five_hour_percent, f.five_hour_resets_in_s),
        ("7d", f.seven_day_percent, f.seven_day_resets_in_s),
    ] {
        let until = resets.map_or(String::new(), |s| format!(" ↻{}", span(s)));
        parts.extend(percent.map(|percent| paint(percent, format!("{name} {}%{until}", whole(percent)))));
    }
    if parts.is_empty() { "taffrail".to_owned() } else { parts.join(" │ ") }
}

/// Whole percent; a little is not nothing.
fn whole(percent: f64) -> String {
    if percent > 0.0 && percent < 1.0 { "<1".to_owned() } else { format!("{percent:.0}") }
}

fn dollars(usd: f64) -> String {
    if usd > 0.0 && usd < 0.01 { format!("${usd:.4}") } else { format!("${usd:.2}") }
}

fn tokens(n: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a figure to look at")]
    let n = n as f64;
    match n {
        n if n >= 999_500.0 => format!("{:.1}M", n / 1e6).replace(".0M", "M"),
        n if n >= 1_000.0 => format!("{:.0}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// `4d2h`, `2h10m`, `5m`.
fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m"),
        (0, hours) => format!("{hours}h{minutes:02}m"),
        (days, hours) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const INPUT: &str = r#"{"session_id":"s","model":{"id":"claude-opus-5-5","display_name":"Opus 5.5"},
        "cost":{"total_cost_usd":0.5},
        "context_window":{"total_input_tokens":118000,"context_window_size":1000000,"used_percentage":12},
        "rate_limits":{"five_hour":{"used_percentage":71.5,"resets_at":7800},"seven_day":{"used_percentage":41.2,"resets_at":200000}}}"#;

    fn costs(nano: i64, requests: i64) -> CostTotals {
        CostTotals { requests, cost_nano_usd: nano, ..CostTotals::default() }
    }

    #[track_caller]
    fn check(input: &str, ledger: Option<Ledger>, budget: Budget, expected: &str) {
        let figures = figures(&read_input(input.as_bytes()), ledger.as_ref(), budget, 0);
        assert_eq!(line(&figures, false), expected);
    }

    #[test]
    fn both_sources_make_one_line() {
        let ledger = Ledger {
            session: costs(500_000_000, 3),
            today: costs(3_100_000_000, 9),
            month_nano_usd: 40_000_000_000,
            ..Ledger::default()
        };
        let budget = Budget { daily_nano_usd: Some(50_000_000_000), monthly_nano_usd: Some(45_000_000_000) };
        check(
            INPUT,
            Some(ledger),
            budget,
            "Opus 5.5 │ ctx 12% 118k/1M │ $0.50 session │ $3.10 today │ $5.00 left │ 5h 72% ↻2h10m │ 7d 41% ↻2d7h",
        );
    }

    #[test]
    fn without_a_ledger_the_client_is_believed() {
        check(
            INPUT,
            None,
            Budget::default(),
            "Opus 5.5 │ ctx 12% 118k/1M │ $0.50 session │ 5h 72% ↻2h10m │ 7d 41% ↻2d7h",
        );
        check("", None, Budget::default(), "taffrail");
        check("{\"model\":3}", None, Budget::default(), "taffrail");
    }

    #[test]
    fn what_the_client_spent_and_the_ledger_has_not_seen_counts_today() {
        let ledger =
            Ledger { session: costs(200_000_000, 1), today: costs(1_000_000_000, 4), ..Ledger::default() };
        check(
            r#"{"cost":{"total_cost_usd":0.5}}"#,
            Some(ledger),
            Budget { daily_nano_usd: Some(1_000_000_000), monthly_nano_usd: None },
            "$0.50 session │ $1.30 today │ $0.30 over budget",
        );
    }

    #[test]
    fn a_fork_does_not_spend_its_parents_money_again() {
        let ledger = Ledger {
            session: costs(3_522_000, 1),
            inherited_nano_usd: 102_918_000,
            today: costs(106_440_000, 7),
            month_nano_usd: 106_440_000,
        };
        check(
            r#"{"cost":{"total_cost_usd":0.10644}}"#,
            Some(ledger),
            Budget::default(),
            "$0.0035 session │ $0.11 today",
        );
    }

    #[test]
    fn a_model_without_a_price_is_loud() {
        let mut today = costs(0, 2);
        today.by_confidence[4].requests = 2;
        let ledger = Ledger { session: costs(0, 2), today, ..Ledger::default() };
        check("{}", Some(ledger), Budget::default(), "$0.00 session │ $0.00 today │ 2 unpriced!");
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        let input = read_input(&b"{\"model\":{\"display_name\":\"a\\u001b[2Jb\\nc\"}}"[..]);
        assert_eq!(line(&figures(&input, None, Budget::default(), 0), true), "a[2Jbc");
    }

    #[test]
    fn the_day_begins_at_midnight_where_the_user_is() {
        // 2026-11-01 is the day of 25 hours in New York.
        let zone = TimeZone::get("America/New_York").unwrap();
        let (day, month) = starts_of_day_and_month(1_793_570_400_000, &zone).unwrap();
        assert_eq!(day, month);
        assert_eq!(day.get(), 1_793_505_600_000);
    }

    #[test]
    fn all_places_taken_means_none() {
        let dir = tempfile::tempdir().unwrap();
        let held: Vec<Slot> = (0..READERS_MAX).map(|_| Slot::take(dir.path()).unwrap()).collect();
        assert!(Slot::take(dir.path()).is_none());
        drop(held);
        assert!(Slot::take(dir.path()).is_some());
    }
}
