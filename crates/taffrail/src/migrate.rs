//! `taffrail migrate`: the database's schema, shown and changed.

use std::path::Path;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use serde_json::json;
use taffrail_store::migrate::{self, Status};
use taffrail_store::{Options, Reader};

use crate::cli::{JsonArgs, MigrateCommand};
use crate::client::Client;
use crate::home::Home;
use crate::print::out;

pub(crate) fn run(home: &Home, command: &MigrateCommand) -> Result<()> {
    let database = home.database();
    match command {
        MigrateCommand::Status(args) => show(&migrate::status(&database)?, args),
        MigrateCommand::Up(args) => {
            alone(home)?;
            home.make()?;
            show(&migrate::up(&database)?, args)
        }
        MigrateCommand::Down { to, json } => {
            alone(home)?;
            show(&migrate::down(&database, *to)?, json)
        }
    }
}

/// A running server has the schema it was built for.
fn alone(home: &Home) -> Result<()> {
    if let Some(client) = Client::find(home) {
        bail!("a server (pid {}) uses this database\nhint: stop it first with `taffrail down`", client.pid);
    }
    Ok(())
}

/// What the doctor shows of a database, read beside whoever writes it.
pub(crate) fn probe(database: &Path) -> Result<String> {
    let size = Reader::open(&Options::new(database))?.size()?;
    let schema = migrate::status(database)?.current;
    Ok(format!("schema {schema}, {} events, {} bytes", size.events, size.db_bytes))
}

fn show(status: &Status, args: &JsonArgs) -> Result<()> {
    if args.json {
        let steps: Vec<_> = status
            .steps
            .iter()
            .map(|s| json!({ "version": s.version, "name": s.name, "applied_ms": s.applied_ms }))
            .collect();
        return out(&json!({ "current": status.current, "known": status.known, "steps": steps }).to_string());
    }
    out(&format!("schema version {} of {}", status.current, status.known))?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["version", "name", "applied"]);
    for step in &status.steps {
        let applied = match step.applied_ms {
            Some(ms) => {
                jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| t.to_string())
            }
            None => "pending".to_owned(),
        };
        table.add_row([step.version.to_string(), step.name.to_owned(), applied]);
    }
    out(&table.to_string())
}
