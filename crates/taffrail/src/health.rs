//! `taffrail health`: what the server says of itself.

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use serde_json::Value;

use crate::cli::JsonArgs;
use crate::client::Client;
use crate::home::Home;
use crate::print::out;

pub(crate) fn health(home: &Home, args: &JsonArgs) -> Result<()> {
    let client = Client::require(home)?;
    let answer = client.get("/api/v1/health")?;
    let health: Value = crate::client::parse("/api/v1/health", &answer.body)?;
    if args.json {
        out(&answer.body)?;
    } else {
        out(&format!("{} (pid {})", client.base(), client.pid))?;
        out(&table(&health).to_string())?;
    }
    match answer.status {
        200 => Ok(()),
        status => bail!("the server is not well ({status})\nhint: see {}", home.log_file().display()),
    }
}

/// A row for each part: its status and what it says.
fn table(health: &Value) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["part", "status", "detail"]);
    for (part, value) in health.as_object().into_iter().flatten() {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        match value {
            Value::Object(_) => table.add_row([part.clone(), text("status"), text("detail")]),
            Value::String(status) => table.add_row([part.clone(), status.clone(), String::new()]),
            _ => &mut table,
        };
    }
    table
}
