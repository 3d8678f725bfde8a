//! The JSON documents, key for key. ccusage writes keys in alphabetical order, two spaces deep.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::args::Flavour;
use super::blocks::Block;
use super::entry::Entry;
use super::load::Loaded;
use super::rows::{Counts, Label, ModelShare, Row};
use super::time;

/// A projection above this share of the limit is a warning.
const WARNING_SHARE: f64 = 0.8;
/// What `--no-cost` takes out.
const MONEY: [&str; 4] = ["cost", "costPerHour", "costUSD", "totalCost"];

/// `{"daily": [...], "totals": {...}}`
pub(super) fn rows(name: &str, rows: &[Row], flavour: Flavour) -> Value {
    let list: Vec<Value> = rows.iter().map(|row| row_value(row, flavour)).collect();
    object([(name, Value::Array(list)), ("totals", totals(rows, flavour))])
}

/// `{"projects": {"name": [...]}, "totals": {...}}`
pub(super) fn projects(rows: &[Row]) -> Value {
    let mut projects = Map::new();
    for row in rows {
        let Label::Day { project, .. } = &row.label else { continue };
        let name = project.clone().unwrap_or_default();
        let list = projects.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.push(row_value(row, Flavour::Claude));
        }
    }
    object([("projects", Value::Object(projects)), ("totals", totals(rows, Flavour::Claude))])
}

fn row_value(row: &Row, flavour: Flavour) -> Value {
    let mut value = counts(row.counts);
    value.insert("totalCost".into(), dollars(row.cost, flavour));
    value.insert("modelBreakdowns".into(), row.shares.iter().map(share).collect());
    let mut models = row.models.clone();
    if flavour == Flavour::All && !matches!(row.label, Label::Session { .. }) {
        models.sort_unstable();
    }
    value.insert("modelsUsed".into(), json!(models));
    match flavour {
        Flavour::All => name_of_all(&mut value, &row.label),
        Flavour::Claude => name_of_claude(&mut value, &row.label),
    }
    Value::Object(value)
}

fn name_of_all(value: &mut Map<String, Value>, label: &Label) {
    let (period, agent, metadata) = match label {
        Label::Session { id, last_ms, .. } => {
            (id.clone(), "claude", json!({ "lastActivity": time::rfc3339(*last_ms) }))
        }
        other => (period(other), "all", json!({ "agents": ["claude"] })),
    };
    value.insert("period".into(), json!(period));
    value.insert("agent".into(), json!(agent));
    value.insert("metadata".into(), metadata);
}

fn name_of_claude(value: &mut Map<String, Value>, label: &Label) {
    match label {
        Label::Day { project, .. } => {
            value.insert("date".into(), json!(period(label)));
            if let Some(project) = project {
                value.insert("project".into(), json!(project));
            }
        }
        Label::Week(_) => {
            value.insert("week".into(), json!(period(label)));
        }
        Label::Month(_) => {
            value.insert("month".into(), json!(period(label)));
        }
        Label::Session { id, project_path, first_ms, last_ms } => {
            value.insert("sessionId".into(), json!(id));
            value.insert("projectPath".into(), json!(project_path));
            value.insert("firstActivity".into(), json!(time::rfc3339(*first_ms)));
            value.insert("lastActivity".into(), json!(time::rfc3339(*last_ms)));
        }
    }
}

/// The row's name in a table and in `period`.
pub(super) fn period(label: &Label) -> String {
    match label {
        Label::Day { day, .. } | Label::Week(day) => day.to_string(),
        Label::Month(day) => day.strftime("%Y-%m").to_string(),
        Label::Session { id, .. } => id.clone(),
    }
}

fn counts(counts: Counts) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("inputTokens".into(), json!(counts.input));
    value.insert("outputTokens".into(), json!(counts.output));
    value.insert("cacheCreationTokens".into(), json!(counts.cache_write));
    value.insert("cacheReadTokens".into(), json!(counts.cache_read));
    value.insert("totalTokens".into(), json!(counts.total()));
    value
}

fn share(share: &ModelShare) -> Value {
    let mut value = counts(share.counts);
    value.remove("totalTokens");
    value.insert("modelName".into(), json!(share.model));
    value.insert("cost".into(), json!(share.cost));
    if share.unpriced {
        value.insert("missingPricing".into(), json!(true));
    }
    Value::Object(value)
}

fn totals(rows: &[Row], flavour: Flavour) -> Value {
    let mut sum = Counts::default();
    rows.iter().for_each(|row| sum.add(row.counts));
    let mut value = counts(sum);
    value.insert("totalCost".into(), dollars(rows.iter().map(|row| row.cost).sum(), flavour));
    let unpriced = unpriced(rows);
    if !unpriced.is_empty() {
        value.insert("unpricedModels".into(), json!(unpriced));
    }
    Value::Object(value)
}

/// Models that no price was found for, each once.
pub(super) fn unpriced(rows: &[Row]) -> Vec<String> {
    let shares = rows.iter().flat_map(|row| &row.shares).filter(|share| share.unpriced);
    let mut models: Vec<String> = shares.map(|share| share.model.clone()).collect();
    models.sort_unstable();
    models.dedup();
    models
}

/// `ccusage daily` writes whole dollars without a fraction, `ccusage claude daily` with one.
fn dollars(value: f64, flavour: Flavour) -> Value {
    if flavour == Flavour::All && value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// The entries of one session.
pub(super) fn session(id: &str, entries: &[Entry], loaded: &Loaded) -> Value {
    if entries.is_empty() {
        return Value::Null;
    }
    let name = |entry: &Entry| entry.named.and_then(|named| loaded.models.get(named as usize));
    let list: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "timestamp": time::as_written(entry.at_ms, entry.stamp),
                "inputTokens": entry.usage.input,
                "outputTokens": entry.usage.output,
                "cacheCreationTokens": entry.usage.cache_write,
                "cacheReadTokens": entry.usage.cache_read,
                "model": name(entry).map_or("unknown", String::as_str),
                "costUSD": entry.told.unwrap_or(0.0),
            })
        })
        .collect();
    json!({
        "sessionId": id,
        "totalCost": entries.iter().map(|entry| entry.cost).sum::<f64>(),
        "totalTokens": entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.usage.total())),
        "entries": list,
    })
}

/// `{"blocks": [...]}`
pub(super) fn blocks(blocks: &[Block], models: &[String], limit: Option<u64>, now_ms: i64) -> Value {
    let list: Vec<Value> = blocks.iter().map(|block| block_value(block, models, limit, now_ms)).collect();
    json!({ "blocks": list })
}

fn block_value(block: &Block, models: &[String], limit: Option<u64>, now_ms: i64) -> Value {
    let start = time::rfc3339(block.start_ms);
    let id = if block.of.is_some() { start.clone() } else { format!("gap-{start}") };
    let of = block.of.as_ref();
    let counts = of.map(|of| of.counts).unwrap_or_default();
    let named = |of: &super::blocks::Content| -> Vec<String> {
        of.models.iter().filter_map(|model| models.get(*model as usize).cloned()).collect()
    };
    let burn = block.burn().map(|burn| {
        json!({
            "tokensPerMinute": burn.tokens_per_minute,
            "tokensPerMinuteForIndicator": burn.own_tokens_per_minute,
            "costPerHour": burn.cost_per_hour,
        })
    });
    let projection = block.projection(now_ms);
    let mut value = json!({
        "id": id,
        "startTime": start,
        "endTime": time::rfc3339(block.end_ms),
        "actualEndTime": of.map(|of| time::rfc3339(of.last_ms)),
        "isActive": block.is_active(),
        "isGap": of.is_none(),
        "entries": of.map_or(0, |of| of.entries),
        "tokenCounts": {
            "inputTokens": counts.input,
            "outputTokens": counts.output,
            "cacheCreationInputTokens": counts.cache_write,
            "cacheReadInputTokens": counts.cache_read,
        },
        "totalTokens": counts.total(),
        "costUSD": dollars(of.map_or(0.0, |of| of.cost), Flavour::All),
        "models": of.map(named).unwrap_or_default(),
        "burnRate": burn,
        "projection": projection.map(|p| json!({
            "totalTokens": p.tokens,
            "totalCost": p.cost,
            "remainingMinutes": p.remaining_minutes,
        })),
    });
    if let (Some(limit), Some(projection)) = (limit, projection) {
        let share = projection.tokens as f64 / limit as f64;
        value["tokenLimitStatus"] = json!({
            "limit": limit,
            "projectedUsage": projection.tokens,
            "percentUsed": share * 100.0,
            "status": match share {
                _ if projection.tokens > limit => "exceeds",
                share if share > WARNING_SHARE => "warning",
                _ => "ok",
            },
        });
    }
    if let Some(reset_ms) = of.and_then(|of| of.limit_reset_ms) {
        value["usageLimitResetTime"] = json!(time::rfc3339(reset_ms));
    }
    value
}

/// As text: keys in order, without money where it is not wanted.
pub(super) fn text(mut value: Value, no_cost: bool) -> Result<String> {
    tidy(&mut value, no_cost);
    Ok(serde_json::to_string_pretty(&value)?)
}

fn tidy(value: &mut Value, no_cost: bool) {
    match value {
        Value::Object(fields) => {
            if no_cost {
                fields.retain(|name, _| !MONEY.contains(&name.as_str()));
            }
            fields.sort_keys();
            fields.values_mut().for_each(|value| tidy(value, no_cost));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| tidy(value, no_cost)),
        _ => {}
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
