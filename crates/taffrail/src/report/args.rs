//! What `taffrail report` takes.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use taffrail_store::CostBy;

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// One line a day
    Daily(SumArgs),
    /// One line a week
    Weekly(WeeklyArgs),
    /// One line a month
    Monthly(SumArgs),
    /// One line a session, by its last request
    Session(SumArgs),
    /// The five-hour blocks in which the vendor counts usage: burn rate, time left, limit
    Blocks(BlocksArgs),
}

/// Which requests.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WhichArgs {
    /// First day: 2026-11-01 or 20261101
    #[arg(long, value_name = "DATE")]
    pub(crate) since: Option<String>,
    /// Last day
    #[arg(long, value_name = "DATE")]
    pub(crate) until: Option<String>,
    /// Where days begin: a name such as Europe/Berlin, UTC, or local
    #[arg(long, value_name = "ZONE", default_value = "local")]
    pub(crate) timezone: String,
    /// Only this project
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Only this user
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only this session; the beginning of its id is enough
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Only this model
    #[arg(long)]
    pub(crate) model: Option<String>,
}

/// How it is shown.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct HowArgs {
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Print comma-separated values, with a header line
    #[arg(long)]
    pub(crate) csv: bool,
    /// Oldest first, or newest first
    #[arg(long, value_enum, default_value_t)]
    pub(crate) order: Order,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SumArgs {
    /// Also split by model, app, agent (the subagent's type), user or label:KEY; repeatable
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub(crate) by: Vec<Key>,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WeeklyArgs {
    #[command(flatten)]
    pub(crate) sum: SumArgs,
    /// The first day of a week
    #[arg(long, value_enum, default_value_t, value_name = "DAY")]
    pub(crate) start_of_week: WeekDay,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BlocksArgs {
    /// Only the block that runs now
    #[arg(long)]
    pub(crate) active: bool,
    /// Only blocks of the last three days
    #[arg(long)]
    pub(crate) recent: bool,
    /// Tokens that a block may use; `max`: as many as the largest finished one has
    #[arg(long, value_name = "N|max")]
    pub(crate) token_limit: Option<TokenLimit>,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Oldest first
    #[default]
    Asc,
    /// Newest first
    Desc,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeekDay {
    #[default]
    Monday,
    Sunday,
}

/// One value of `--by`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Model,
    App,
    Agent,
    User,
    Label(String),
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.trim() {
            "model" => Self::Model,
            "app" => Self::App,
            "agent" => Self::Agent,
            "user" => Self::User,
            other => match other.strip_prefix("label:") {
                Some(key) if !key.is_empty() => Self::Label(key.to_owned()),
                _ => return Err("possible keys: model, app, agent, user, label:KEY".to_owned()),
            },
        })
    }
}

/// The keys of all `--by`; two labels at once cannot be had.
pub(crate) fn cost_by(keys: &[Key]) -> anyhow::Result<CostBy> {
    let mut by = CostBy::default();
    for key in keys {
        match key {
            Key::Model => by.model = true,
            Key::App => by.app = true,
            Key::Agent => by.agent = true,
            Key::User => by.user = true,
            Key::Label(label) => {
                if let Some(first) = by.label.as_ref().filter(|first| *first != label) {
                    anyhow::bail!(
                        "cannot split by two labels at once ({first} and {label})\nhint: ask for one report each"
                    );
                }
                by.label = Some(label.clone());
            }
        }
    }
    Ok(by)
}

/// A value of `--token-limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenLimit {
    Tokens(u64),
    Max,
}

impl FromStr for TokenLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.replace([',', '_'], "").parse() {
            Ok(tokens) if tokens > 0 => Ok(Self::Tokens(tokens)),
            _ => Err("a number of tokens above 0, or max".to_owned()),
        }
    }
}
