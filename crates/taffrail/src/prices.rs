//! `taffrail prices`: the table, whether all is well with it, and what another table changes in history.
//!
//! `list` and `check` read the files themselves and work with the server down; `reprice` goes through the server, which
//! alone writes.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use taffrail_event::prices::PriceTable;
use taffrail_server::prices::{
    self, Loaded, PriceRowJson, PricesJson, RatesJson, RepriceJson, RepriceRequest, RepriceTotalsJson,
    USER_FILE, UnpricedJson, UserFileJson,
};
use taffrail_store::{Options, Reader, migrate};

use crate::cli::{JsonArgs, PricesCommand, PricesListArgs, RepriceArgs};
use crate::client::{Client, parse};
use crate::home::Home;
use crate::import::sink::Server;
use crate::print::{count, out};

const PRICES_PATH: &str = "/api/v1/prices";
const REPRICE_PATH: &str = "/api/v1/prices/reprice";

/// Runs the command; `check` fails where something needs attention.
pub(crate) fn run(home: &Home, command: &PricesCommand) -> Result<ExitCode> {
    match command {
        PricesCommand::List(args) => list(home, args).map(|()| ExitCode::SUCCESS),
        PricesCommand::Check(args) => check(home, args),
        PricesCommand::Reprice(args) => reprice(home, args).map(|()| ExitCode::SUCCESS),
    }
}

/// `prices list --json`.
#[derive(Serialize)]
struct Listed {
    fingerprint: String,
    user_file: Option<String>,
    rows: Vec<PriceRowJson>,
}

fn list(home: &Home, args: &PricesListArgs) -> Result<()> {
    let Loaded { table, user_file } = prices::load(home.dir())?;
    let only = match &args.model {
        None => None,
        Some(model) => Some(table.name_of(model).map(str::to_owned).with_context(|| {
            format!(
                "no price is known for `{model}`\nhint: give it rows in {}",
                home.dir().join(USER_FILE).display()
            )
        })?),
    };
    let rows: Vec<PriceRowJson> = table
        .rows()
        .filter(|row| only.as_ref().is_none_or(|model| *model == row.model))
        .map(PriceRowJson::of)
        .collect();
    if args.json {
        let user_file = user_file.map(|path| path.display().to_string());
        return json(&Listed { fingerprint: table.fingerprint(), user_file, rows });
    }
    out(&price_table(&rows).to_string())?;
    for note in rows.iter().filter(|_| only.is_some()).filter_map(notes) {
        out(&note)?;
    }
    out("dollars per million tokens; searches per 1,000; --json has sources and places, too")
}

fn price_table(rows: &[PriceRowJson]) -> Table {
    let mut table = table(&[
        "model", "from", "until", "input", "output", "read", "write 5m", "write 1h", "search", "fast",
        "batch", "origin",
    ]);
    for row in rows {
        let maybe = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let times =
            |factor: Option<f64>| factor.map_or_else(|| "-".to_owned(), |f| format!("x{}", number(f)));
        let rates = |first: [String; 3], rates: &RatesJson, last: [String; 4]| {
            let middle = [
                number(rates.input),
                number(rates.output),
                maybe(rates.cache_read),
                maybe(rates.cache_write_5m),
                maybe(rates.cache_write_1h),
            ];
            first.into_iter().chain(middle).chain(last).collect::<Vec<_>>()
        };
        let until = row.effective_until.clone().unwrap_or_default();
        table.add_row(rates(
            [row.model.clone(), row.effective_from.clone(), until],
            &row.rates,
            [maybe(row.web_search), times(row.fast), times(row.batch), row.origin.clone()],
        ));
        for tier in &row.long_context {
            let over = match tier.kind.as_str() {
                "marginal" => format!("  beyond {}", tier.above),
                _ => format!("  prompt over {}", tier.above),
            };
            table.add_row(rates([over, String::new(), String::new()], &tier.rates, Default::default()));
        }
    }
    right(&mut table, 3..=10);
    table
}

/// What does not fit into a table, for a model that was asked for.
fn notes(row: &PriceRowJson) -> Option<String> {
    let mut said = Vec::new();
    if !row.aliases.is_empty() {
        said.push(format!("also {}", row.aliases.join(", ")));
    }
    said.extend(row.geo.iter().map(|(place, factor)| format!("x{} in {place}", number(*factor))));
    said.extend(row.bedrock_regional.map(|f| format!("x{} on Bedrock's regional ids", number(f))));
    said.extend(row.bedrock_gov.map(|f| format!("x{} on Bedrock's government ids", number(f))));
    said.extend(row.context_window.map(|tokens| format!("context {tokens}")));
    said.extend(row.context_window_1m.map(|tokens| format!("context {tokens} with [1m]")));
    said.extend(row.retired.as_ref().map(|day| format!("retired {day}")));
    said.extend(row.note.clone());
    if let (Some(source), Some(checked)) = (&row.source, &row.checked) {
        said.push(format!("from {source}, read {checked}"));
    }
    (!said.is_empty()).then(|| format!("{} from {}: {}", row.model, row.effective_from, said.join("; ")))
}

/// `prices check --json`.
#[derive(Debug, Serialize)]
struct Checked {
    ok: bool,
    user_file: UserFileJson,
    /// Of the table as the files are now.
    fingerprint: Option<String>,
    /// Of the table by which history is priced.
    history_fingerprint: Option<String>,
    /// Of the table that the running server prices by.
    server_fingerprint: Option<String>,
    unpriced: Vec<UnpricedJson>,
    problems: Vec<Trouble>,
}

/// Something that needs attention.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Trouble {
    kind: &'static str,
    message: String,
    hint: String,
}

/// What is known before anything is judged.
struct Known {
    loaded: Result<Loaded, prices::PricesError>,
    history_fingerprint: Option<String>,
    server_fingerprint: Option<String>,
    unpriced: Vec<UnpricedJson>,
}

fn check(home: &Home, args: &JsonArgs) -> Result<ExitCode> {
    let (history_fingerprint, unpriced) = history(home)?;
    let server_fingerprint = match Client::find(home) {
        Some(client) => Some(client.get_json::<PricesJson>(PRICES_PATH)?.fingerprint),
        None => None,
    };
    let known = Known { loaded: prices::load(home.dir()), history_fingerprint, server_fingerprint, unpriced };
    let problems = judge(&known);
    let user_file = UserFileJson::of(&home.dir().join(USER_FILE), &known.loaded);
    let checked = Checked {
        ok: problems.is_empty(),
        fingerprint: user_file.fingerprint.clone(),
        user_file,
        history_fingerprint: known.history_fingerprint,
        server_fingerprint: known.server_fingerprint,
        unpriced: known.unpriced,
        problems,
    };
    if args.json {
        json(&checked)?;
    } else {
        show(&checked)?;
    }
    Ok(if checked.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the ledger says, where there is one.
fn history(home: &Home) -> Result<(Option<String>, Vec<UnpricedJson>)> {
    let database = home.database();
    if !database.exists() {
        return Ok((None, Vec::new()));
    }
    let schema = migrate::status(&database)?;
    if schema.current < schema.known {
        bail!(
            "the database of {} has schema {} and this taffrail needs {}\nhint: `taffrail up` or `taffrail migrate up` brings it there",
            home.dir().display(),
            schema.current,
            schema.known
        );
    }
    let reader = Reader::open(&Options::new(&database))
        .with_context(|| format!("cannot read the ledger of {}", home.dir().display()))?;
    Ok((reader.priced_by()?, reader.unpriced()?.iter().map(UnpricedJson::of).collect()))
}

fn judge(known: &Known) -> Vec<Trouble> {
    let mut problems = Vec::new();
    let table = match &known.loaded {
        Ok(loaded) => &loaded.table,
        Err(error) => {
            let said = error.to_string();
            let (message, hint) = said.split_once("\nhint: ").unwrap_or((&said, "mend it or move it away"));
            problems.push(Trouble {
                kind: "user_file",
                message: message.to_owned(),
                hint: hint.replace("\nhint: ", "; "),
            });
            return problems;
        }
    };
    let now = table.fingerprint();
    if let Some(server) = known.server_fingerprint.as_ref().filter(|server| **server != now) {
        problems.push(Trouble {
            kind: "server",
            message: format!(
                "the running server prices by another table ({server}) than the files have now ({now})"
            ),
            hint: "`taffrail prices reprice --apply` takes the files over, and so does a restart".to_owned(),
        });
    }
    if let Some(history) = known.history_fingerprint.as_ref().filter(|history| **history != now) {
        problems.push(Trouble {
            kind: "history",
            message: format!("history is priced by another table ({history}) than the present one ({now})"),
            hint: "`taffrail prices reprice` shows what would change".to_owned(),
        });
    }
    problems.extend(known.unpriced.iter().map(|model| unpriced(model, table)));
    problems
}

fn unpriced(model: &UnpricedJson, table: &PriceTable) -> Trouble {
    let tokens = count(model.tokens, "token");
    let requests = count(u64::try_from(model.requests).unwrap_or(0), "request");
    let hint = match table.name_of(&model.model) {
        Some(name) => format!(
            "the table has {name}: `taffrail prices reprice` prices these now, unless a rate is missing in its rows"
        ),
        None => {
            format!("give `{}` a [[price]] in {USER_FILE} of the data directory", model.model.escape_debug())
        }
    };
    Trouble {
        kind: "unpriced",
        message: format!(
            "`{}` has no price: {requests} with {tokens} cost an unknown amount",
            model.model.escape_debug()
        ),
        hint,
    }
}

fn show(checked: &Checked) -> Result<()> {
    let UserFileJson { path, exists, .. } = &checked.user_file;
    let own = if *exists { format!("with {path}") } else { "without prices of your own".to_owned() };
    out(&format!("prices {} ({own})", checked.fingerprint.as_deref().unwrap_or("are not usable")))?;
    if !checked.unpriced.is_empty() {
        let mut table = table(&["unpriced model", "requests", "tokens", "first", "last"]);
        for model in &checked.unpriced {
            table.add_row([
                model.model.escape_debug().to_string(),
                model.requests.to_string(),
                model.tokens.to_string(),
                day(model.first_ms),
                day(model.last_ms),
            ]);
        }
        right(&mut table, 1..=2);
        out(&table.to_string())?;
    }
    for trouble in &checked.problems {
        out(&format!("{}: {}\n  {}", trouble.kind, trouble.message, trouble.hint))?;
    }
    if checked.ok { out("nothing needs attention") } else { Ok(()) }
}

fn reprice(home: &Home, args: &RepriceArgs) -> Result<()> {
    if !home.database().exists() {
        bail!(
            "{} has no database yet, so there is nothing to price\nhint: name its data directory with --data-dir, or record something first",
            home.dir().display()
        );
    }
    // Before anything is started: a broken file is the user's to mend.
    prices::load(home.dir())?;
    let server = Server::of(home)?;
    let request = serde_json::to_vec(&RepriceRequest { dry_run: !args.apply })?;
    let answer = server.client.post(REPRICE_PATH, "application/json", &request)?;
    let body = answer.expect_success("to price history anew")?;
    server.stop()?;
    if args.json {
        return out(&body);
    }
    show_effects(&parse(REPRICE_PATH, &body)?)
}

fn show_effects(done: &RepriceJson) -> Result<()> {
    let moves =
        |totals: &RepriceTotalsJson| totals.changed != 0 || totals.unpriced_before != totals.unpriced_after;
    if done.effects.iter().any(|effect| moves(&effect.totals)) {
        let mut table =
            table(&["model", "month", "requests", "changed", "before", "after", "difference", "unpriced"]);
        for effect in done.effects.iter().filter(|effect| moves(&effect.totals)) {
            table.add_row(effect_row(&effect.model, &effect.month, &effect.totals));
        }
        table.add_row(effect_row("all, with what stays", "", &done.totals));
        right(&mut table, 2..=7);
        out(&table.to_string())?;
    } else {
        out(&format!(
            "no cost changes, of {}",
            count(u64::try_from(done.totals.requests).unwrap_or(0), "request")
        ))?;
    }
    match (done.dry_run, &done.history_fingerprint) {
        (true, Some(history)) if *history == done.fingerprint => {
            out("history is priced by the present table already")
        }
        (true, _) => out("nothing was changed; `taffrail prices reprice --apply` does it"),
        (false, _) => out(&format!("history is priced by {} now", done.fingerprint)),
    }
}

fn effect_row(model: &str, month: &str, totals: &RepriceTotalsJson) -> [String; 8] {
    let unpriced = match (totals.unpriced_before, totals.unpriced_after) {
        (before, after) if before == after => before.to_string(),
        (before, after) => format!("{before} -> {after}"),
    };
    [
        model.escape_debug().to_string(),
        month.to_owned(),
        totals.requests.to_string(),
        totals.changed.to_string(),
        format!("${:.4}", totals.before_usd),
        format!("${:.4}", totals.after_usd),
        format!("{}${:.4}", if totals.difference_usd < 0.0 { '-' } else { '+' }, totals.difference_usd.abs()),
        unpriced,
    ]
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

fn right(table: &mut Table, columns: std::ops::RangeInclusive<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A figure without needless zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn day(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| ms.to_string(), |t| t.strftime("%Y-%m-%d").to_string())
}

fn json<T: Serialize>(value: &T) -> Result<()> {
    out(&serde_json::to_string_pretty(value)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn known(loaded: Result<Loaded, prices::PricesError>) -> Known {
        Known { loaded, history_fingerprint: None, server_fingerprint: None, unpriced: Vec::new() }
    }

    fn builtin() -> Loaded {
        Loaded { table: PriceTable::builtin(), user_file: None }
    }

    fn seen(model: &str) -> UnpricedJson {
        UnpricedJson {
            model: model.to_owned(),
            requests: 3,
            tokens: 1_200,
            input_tokens: 1_000,
            output_tokens: 200,
            cache_read_tokens: 0,
            cache_write_5m_tokens: 0,
            cache_write_1h_tokens: 0,
            first_ms: 1_795_000_000_000,
            last_ms: 1_795_000_000_000,
        }
    }

    fn kinds(known: &Known) -> Vec<&'static str> {
        judge(known).iter().map(|trouble| trouble.kind).collect()
    }

    #[test]
    fn nothing_is_wrong_with_a_ledger_that_the_present_table_priced() {
        let now = PriceTable::builtin().fingerprint();
        assert_eq!(kinds(&known(Ok(builtin()))), Vec::<&str>::new());
        let priced = Known {
            history_fingerprint: Some(now.clone()),
            server_fingerprint: Some(now),
            ..known(Ok(builtin()))
        };
        assert_eq!(kinds(&priced), Vec::<&str>::new());
    }

    #[test]
    fn another_table_in_history_or_server_and_unpriced_models_need_attention() {
        let other = Some("0000000000000000".to_owned());
        let wrong = Known {
            history_fingerprint: other.clone(),
            server_fingerprint: other,
            unpriced: vec![seen("claude-opus-9"), seen("claude-opus-5-5")],
            ..known(Ok(builtin()))
        };
        assert_eq!(kinds(&wrong), ["server", "history", "unpriced", "unpriced"]);
        let said = judge(&wrong);
        assert_eq!(
            said[2].message,
            "`claude-opus-9` has no price: 3 requests with 1200 tokens cost an unknown amount"
        );
        assert!(said[2].hint.contains("prices.toml") && said[3].hint.contains("reprice"), "{said:?}");
    }

    #[test]
    fn a_broken_file_is_all_there_is_to_say() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(USER_FILE), "[[price]]\nmodel = \"m\"\ninptu = 1\n").unwrap();
        let said = judge(&known(prices::load(dir.path())));
        assert_eq!(said.len(), 1);
        assert!(said[0].message.contains("line ") && !said[0].hint.contains('\n'), "{said:?}");
    }

    #[test]
    fn a_price_row_shows_its_tiers_and_its_notes() {
        let table = PriceTable::builtin();
        let rows: Vec<PriceRowJson> =
            table.rows().filter(|row| row.model == "claude-haiku-5-5").map(PriceRowJson::of).collect();
        let shown = price_table(&rows).to_string();
        for word in
            ["claude-haiku-5-5", "2026-10-07", "0.01", "prompt over 100000", "0.625", "x0.5", "builtin"]
        {
            assert!(shown.contains(word), "{word} in\n{shown}");
        }
        let note = notes(&rows[0]).unwrap();
        assert!(note.contains("also claude-haiku-5.5; x1.1 in us; x1.1 on Bedrock's regional ids"), "{note}");
        assert_eq!(
            (number(0.1), number(20.0), number(0.0), number(3.125)),
            ("0.1".into(), "20".into(), "0".into(), "3.125".into())
        );
    }

    #[test]
    fn a_users_table_is_told_by_its_fingerprint() {
        let own = "[[price]]\nmodel = \"m\"\neffective_from = 2026-01-01\ninput = 1\noutput = 1\n";
        let table = Arc::new(PriceTable::builtin().with_overrides(own).unwrap());
        let own = Known {
            history_fingerprint: Some(PriceTable::builtin().fingerprint()),
            ..known(Ok(Loaded { table, user_file: None }))
        };
        assert_eq!(kinds(&own), ["history"]);
    }
}
