//! `taffrail report`: what it cost, by day, week, month, session or five-hour block.
//!
//! The database is opened to read only, beside a server that may be running or not; nothing is imported and no runtime
//! is started. stdout has the figures, stderr what to know of them: models without a price, transcripts not yet read.

pub(crate) mod args;
mod blocks;
mod blocks_show;
pub(crate) mod ccusage;
pub(crate) mod fold;
mod sessions;
pub(crate) mod show;
pub(crate) mod stale;
mod sums;
pub(crate) mod text;

use anyhow::{Context, Result, bail};
use taffrail_event::TimestampMs;
use taffrail_server::calendar::{CalendarError, Cut, Zone};
use taffrail_store::{CostBy, CostQuery, Options, Reader, Scope};

use crate::home::Home;

use args::{ReportCommand, WeekDay, WhichArgs};

/// Sessions named when a prefix fits several.
const NAMED_MAX: usize = 5;

pub(crate) fn run(home: &Home, command: &ReportCommand) -> Result<()> {
    let reader = open(home)?;
    let look = stale::Look::begin(home)?;
    let reported = report(home, &reader, command);
    look.finish()?;
    reported
}

fn report(home: &Home, reader: &Reader, command: &ReportCommand) -> Result<()> {
    match command {
        ReportCommand::Daily(args) => sums::run(home, reader, Cut::Day, args),
        ReportCommand::Weekly(args) => {
            let first = match args.start_of_week {
                WeekDay::Monday => jiff::civil::Weekday::Monday,
                WeekDay::Sunday => jiff::civil::Weekday::Sunday,
            };
            sums::run(home, reader, Cut::Week(first), &args.sum)
        }
        ReportCommand::Monthly(args) => sums::run(home, reader, Cut::Month, args),
        ReportCommand::Session(args) => sessions::run(home, reader, args),
        ReportCommand::Blocks(args) => blocks_show::run(home, reader, args, now()),
    }
}

/// The database to read only; one that is not there yet is no fault, and is told so.
pub(crate) fn open(home: &Home) -> Result<Reader> {
    let database = home.database();
    if !database.exists() {
        bail!(
            "nothing is recorded in {} yet\nhint: `taffrail import transcripts` takes in what the client has kept so \
             far, `taffrail install` with `taffrail up` records from now on; --data-dir names another data directory",
            home.dir().display()
        );
    }
    Reader::open(&Options::new(&database)).with_context(|| format!("cannot read {}", database.display()))
}

/// The clock.
pub(crate) fn now() -> TimestampMs {
    TimestampMs::clamped(jiff::Timestamp::now().as_millisecond())
}

/// The zone of that name; `local` is the machine's.
pub(crate) fn zone(name: &str) -> Result<Zone> {
    Zone::named((name != "local").then_some(name)).map_err(|e| told(&e))
}

/// First millisecond, and one past the last, of the days asked for.
pub(crate) fn span(
    zone: &Zone,
    since: Option<&str>,
    until: Option<&str>,
) -> Result<(Option<TimestampMs>, Option<TimestampMs>)> {
    let from = since.map(|day| zone.day(day)).transpose().map_err(|e| told(&e))?.map(|(from, _)| from);
    let to = until.map(|day| zone.day(day)).transpose().map_err(|e| told(&e))?.map(|(_, to)| to);
    if let (Some(from), Some(to), Some(since), Some(until)) = (from, to, since, until)
        && from >= to
    {
        bail!("--since {since} is after --until {until}\nhint: exchange them");
    }
    Ok((from, to))
}

/// Which requests, and the zone in which their days are.
fn which(reader: &Reader, args: &WhichArgs) -> Result<(Zone, CostQuery)> {
    let zone = zone(&args.timezone)?;
    let (from, to) = span(&zone, args.since.as_deref(), args.until.as_deref())?;
    let session = args.session.as_deref().map(|id| session_of(reader, id)).transpose()?;
    let scope = Scope { app: args.app.clone(), user: args.user.clone(), session };
    Ok((zone, CostQuery { scope, model: args.model.clone(), from, to, ..CostQuery::default() }))
}

/// The session of that id, or the only one whose id begins so.
pub(crate) fn session_of(reader: &Reader, id: &str) -> Result<String> {
    if reader.session(id)?.is_some() {
        return Ok(id.to_owned());
    }
    let by = CostBy { session: true, ..CostBy::default() };
    let rows = reader.costs(&CostQuery { by, ..CostQuery::default() })?;
    let mut fitting: Vec<String> =
        rows.into_iter().filter_map(|row| row.session).filter(|s| s.starts_with(id)).collect();
    fitting.sort();
    fitting.dedup();
    match fitting.as_slice() {
        _ if fitting.iter().any(|session| session == id) => Ok(id.to_owned()),
        [] => bail!(
            "no session `{id}` is in the ledger\nhint: `taffrail report session` lists them; `taffrail import \
             transcripts` takes in what is not recorded yet"
        ),
        [only] => Ok(only.clone()),
        several => bail!(
            "{} sessions begin with `{id}`\nhint: one of {}{}",
            several.len(),
            several[..several.len().min(NAMED_MAX)].join(", "),
            if several.len() > NAMED_MAX { ", ..." } else { "" }
        ),
    }
}

/// An error of the calendar, its hint on a line of its own as everywhere here.
fn told(error: &CalendarError) -> anyhow::Error {
    anyhow::anyhow!("{}", error.to_string().replace("; hint: ", "\nhint: "))
}

/// An instant as JSON has it.
pub(crate) fn rfc3339(at: TimestampMs) -> String {
    jiff::Timestamp::from_millisecond(at.get()).map_or_else(|_| at.get().to_string(), |t| t.to_string())
}
