//! The command line that `--compat ccusage` takes: ccusage's own, so that a script need only change the program's name.
//!
//! What ccusage takes and this does not is known by name and refused with a reason, never passed over in silence.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::civil::Weekday;

#[derive(Debug, Parser)]
#[command(name = "taffrail report", about = "Print what ccusage 20 prints", disable_version_flag = true)]
#[command(disable_help_subcommand = true)]
pub(super) struct Line {
    #[command(subcommand)]
    pub(super) report: Report,
}

#[derive(Debug, Subcommand)]
pub(super) enum Report {
    /// Usage by day
    Daily(DailyArgs),
    /// Usage by week
    Weekly(WeeklyArgs),
    /// Usage by month
    Monthly(Shared),
    /// Usage by session
    Session(SessionArgs),
    /// Usage by five-hour block
    Blocks(BlocksArgs),
}

impl Report {
    pub(super) fn shared(&self) -> &Shared {
        match self {
            Self::Daily(args) => &args.shared,
            Self::Weekly(args) => &args.shared,
            Self::Monthly(shared) => shared,
            Self::Session(args) => &args.shared,
            Self::Blocks(args) => &args.shared,
        }
    }
}

/// Which of ccusage's two commands is meant: their rows have other keys, their weeks begin on other days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Flavour {
    /// `ccusage daily`
    #[value(name = "ccusage")]
    All,
    /// `ccusage claude daily`
    #[value(name = "ccusage-claude")]
    Claude,
}

#[derive(Debug, Args)]
pub(super) struct Shared {
    /// ccusage: as `ccusage daily`; ccusage-claude: as `ccusage claude daily`
    #[arg(long, value_enum)]
    pub(super) compat: Flavour,
    /// Print JSON
    #[arg(short, long)]
    pub(super) json: bool,
    /// From this day on: YYYY-MM-DD or YYYYMMDD
    #[arg(short, long, value_name = "DATE", value_parser = compact_date)]
    pub(super) since: Option<String>,
    /// Up to and with this day
    #[arg(short, long, value_name = "DATE", value_parser = compact_date)]
    pub(super) until: Option<String>,
    /// Days of this time zone, an IANA name, or local [default: the system's]
    #[arg(short = 'z', long, value_name = "ZONE")]
    pub(super) timezone: Option<String>,
    /// auto: what the line says, else computed; calculate: always computed; display: only what the line says
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) mode: Mode,
    /// Order of the rows [default: asc, by cost desc for sessions]
    #[arg(short, long, value_enum)]
    pub(super) order: Option<Order>,
    /// A row for each model, in the table
    #[arg(short, long)]
    pub(super) breakdown: bool,
    /// Leave the money out
    #[arg(long)]
    pub(super) no_cost: bool,
    /// Only the columns that a narrow terminal has room for
    #[arg(long)]
    pub(super) compact: bool,
    #[command(flatten)]
    accepted: Accepted,
    #[command(flatten)]
    refused: Refused,
}

/// Taken for the sake of scripts; nothing follows from them here.
#[derive(Debug, Args)]
struct Accepted {
    /// Always so: the prices are those that ccusage 20.0.24 carries
    #[arg(short = 'O', long)]
    offline: bool,
    #[arg(long, hide = true)]
    all: bool,
    #[arg(long, hide = true)]
    single_thread: bool,
    #[arg(long, hide = true)]
    color: bool,
    #[arg(long, hide = true)]
    no_color: bool,
}

/// Options of ccusage that are not taken.
#[derive(Debug, Args)]
struct Refused {
    #[arg(long, hide = true)]
    no_offline: bool,
    #[arg(long, hide = true, value_name = "SECTIONS")]
    sections: Option<String>,
    #[arg(long, hide = true)]
    by_agent: bool,
    #[arg(long, hide = true, value_name = "N")]
    last: Option<String>,
    #[arg(short, long, hide = true, value_name = "FILTER")]
    q: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    config: Option<String>,
    #[arg(short, long, hide = true)]
    debug: bool,
    #[arg(long, hide = true, value_name = "N")]
    debug_samples: Option<String>,
    #[arg(long, hide = true, value_name = "NAMES")]
    project_aliases: Option<String>,
}

impl Shared {
    /// The first option given that is not taken, and what to do instead.
    pub(super) fn refused(&self) -> Option<(&'static str, &'static str)> {
        let no = &self.refused;
        [
            (
                no.no_offline,
                "--no-offline",
                "prices are those that ccusage 20.0.24 carries; nothing is fetched",
            ),
            (no.sections.is_some(), "--sections", "run one report after the other"),
            (no.by_agent, "--by-agent", "only Claude Code is read: a row is that agent's"),
            (no.last.is_some(), "--last", "give the first day with --since"),
            (no.q.is_some(), "--q", "pipe the output of --json into jq"),
            (no.config.is_some(), "--config", "give the options on the command line"),
            (no.debug, "--debug", "`taffrail ledger check` compares what was charged with what was told"),
            (no.debug_samples.is_some(), "--debug-samples", "see `taffrail ledger check`"),
            (no.project_aliases.is_some(), "--project-aliases", "projects have their own names"),
        ]
        .into_iter()
        .find_map(|(given, name, instead)| given.then_some((name, instead)))
    }
}

#[derive(Debug, Args)]
pub(super) struct DailyArgs {
    #[command(flatten)]
    pub(super) shared: Shared,
    /// By project as well
    #[arg(short, long)]
    pub(super) instances: bool,
    /// Only this project
    #[arg(short, long, value_name = "NAME")]
    pub(super) project: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct WeeklyArgs {
    #[command(flatten)]
    pub(super) shared: Shared,
    /// First day of the week [default: sunday]
    #[arg(short = 'w', long, value_enum, value_name = "DAY")]
    pub(super) start_of_week: Option<Day>,
}

#[derive(Debug, Args)]
pub(super) struct SessionArgs {
    #[command(flatten)]
    pub(super) shared: Shared,
    /// Only this session, entry by entry
    #[arg(short, long, value_name = "ID")]
    pub(super) id: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct BlocksArgs {
    #[command(flatten)]
    pub(super) shared: Shared,
    /// Only the block that is running
    #[arg(short, long)]
    pub(super) active: bool,
    /// Blocks of the last three days
    #[arg(short, long)]
    pub(super) recent: bool,
    /// Tokens that a block may use, or max: the most that one used
    #[arg(short, long, value_name = "TOKENS")]
    pub(super) token_limit: Option<String>,
    /// Hours of a block
    #[arg(short = 'n', long, value_name = "HOURS", default_value_t = 5.0)]
    pub(super) session_length: f64,
}

/// Where the cost of an entry comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    #[default]
    Auto,
    Calculate,
    Display,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    Asc,
    Desc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Day {
    Sunday,
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
}

impl From<Day> for Weekday {
    fn from(day: Day) -> Self {
        match day {
            Day::Sunday => Self::Sunday,
            Day::Monday => Self::Monday,
            Day::Tuesday => Self::Tuesday,
            Day::Wednesday => Self::Wednesday,
            Day::Thursday => Self::Thursday,
            Day::Friday => Self::Friday,
            Day::Saturday => Self::Saturday,
        }
    }
}

/// `YYYYMMDD` of either spelling.
fn compact_date(text: &str) -> Result<String, String> {
    let compact = match text.len() {
        10 if text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-' => text.replace('-', ""),
        _ => text.to_owned(),
    };
    let date = (compact.len() == 8 && compact.bytes().all(|b| b.is_ascii_digit()))
        .then(|| jiff::civil::Date::strptime("%Y%m%d", &compact).ok());
    date.flatten().map(|_| compact).ok_or_else(|| "not a day\nhint: YYYY-MM-DD or YYYYMMDD".to_owned())
}

/// Whether this command line, without the program's name, asks for the compatible output.
pub(super) fn is_meant(line: &[OsString]) -> bool {
    let words = || line.iter().filter_map(|word| word.to_str());
    let mut before = words().take_while(|word| *word != "--compat").peekable();
    before.by_ref().any(|word| word == "report")
        && words().any(|word| word == "--compat" || word.starts_with("--compat="))
}

/// The arguments after `report`, without `--data-dir`: nothing of Taffrail's own data is read.
pub(super) fn after_report(line: &[OsString]) -> Vec<OsString> {
    let mut out = vec![OsString::from("taffrail report")];
    let mut seen_report = false;
    let mut words = line.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--data-dir") => {
                words.next();
            }
            Some(text) if text.starts_with("--data-dir=") => {}
            Some("report") if !seen_report => seen_report = true,
            _ => out.push(word.clone()),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn only_a_report_with_compat_is_meant() {
        assert!(is_meant(&words("report daily --compat ccusage")));
        assert!(is_meant(&words("--data-dir /x report daily --compat=ccusage --json")));
        assert!(!is_meant(&words("report daily --json")));
        assert!(!is_meant(&words("tail --compat ccusage")));
    }

    #[test]
    fn the_data_directory_is_passed_over() {
        let line = after_report(&words("--data-dir /x report daily --data-dir=/y --compat ccusage"));
        let parsed = Line::try_parse_from(line).unwrap();
        assert_eq!(parsed.report.shared().compat, Flavour::All);
    }

    #[test]
    fn dates_have_two_spellings() {
        assert_eq!(compact_date("2026-02-03").unwrap(), "20260203");
        assert_eq!(compact_date("20260203").unwrap(), "20260203");
        for wrong in ["2026", "2026-2-3", "20261301", "abc", "2026-02-3x"] {
            assert!(compact_date(wrong).is_err(), "{wrong}");
        }
    }
}
