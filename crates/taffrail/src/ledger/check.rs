//! `taffrail ledger check`: the ledger against transcripts, OTLP and the client's own totals.
//!
//! What is found is decided on figures alone ([`judge`]), each finding with what can cause it and what to do. A fault
//! ends the command with 1; a note does not.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use taffrail_event::ledger::Confidence;
use taffrail_server::prices;
use taffrail_store::{CostBy, CostQuery, CostTotals, Reader, Reconciliation, Scope};

use crate::home::Home;
use crate::print::{count, out, written};
use crate::report::fold::{self, Unpriced};
use crate::report::show::{self as sums, SumsJson, requests};
use crate::report::text::{self, Column, Grid, Look, Tone};
use crate::report::{rfc3339, session_of, span, zone};

use super::CheckArgs;

/// A session whose ledger and client's total are this close adds up, in nano-dollars: a cent.
const DRIFT_TOLERANCE_NANO_USD: i64 = 10_000_000;
/// And so does one within this part of the client's total.
const DRIFT_TOLERANCE_PERCENT: i64 = 1;
/// Findings about single sessions that are printed; JSON has all.
const FINDINGS_SHOWN_MAX: usize = 20;
/// Characters of a session's id in the table.
const ID_CHARS: usize = 8;

/// What is looked at.
#[derive(Debug, Default)]
struct Figures {
    sessions: Vec<Reconciliation>,
    unpriced: Vec<Unpriced>,
    /// The table that priced history, and the one in force; none where nothing is priced yet.
    priced_by: Option<String>,
    priced_now: String,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// It does not add up.
    Fault,
    /// It adds up; this is to be known of it.
    Note,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    session_id: Option<String>,
    message: String,
    /// What can cause it.
    cause: &'static str,
    /// What to do.
    hint: &'static str,
}

pub(crate) fn run(home: &Home, reader: &Reader, args: &CheckArgs) -> Result<ExitCode> {
    let figures = gather(home, reader, args)?;
    let findings = judge(&figures);
    if args.json {
        out(&serde_json::to_string_pretty(&json(&figures, &findings)?)?)?;
    } else {
        let every = args.all || args.session.is_some();
        let text = shown(&figures, &findings, every, Look::of_stdout());
        written(std::io::stdout().lock().write_all(text.as_bytes()))?;
    }
    let is_sound = findings.iter().all(|finding| finding.level == Level::Note);
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn gather(home: &Home, reader: &Reader, args: &CheckArgs) -> Result<Figures> {
    let zone = zone(&args.timezone)?;
    let (from, to) = span(&zone, args.since.as_deref(), args.until.as_deref())?;
    let session = args.session.as_deref().map(|id| session_of(reader, id)).transpose()?;
    let sessions = match &session {
        Some(id) => reader.reconcile(id)?.into_iter().collect(),
        None => reader.reconcile_all(from, to)?,
    };
    let query = CostQuery {
        scope: Scope { session, ..Scope::default() },
        from,
        to,
        by: CostBy { model: true, ..CostBy::default() },
        ..CostQuery::default()
    };
    let models = reader.costs(&query)?;
    let unpriced =
        fold::unpriced(models.iter().map(|row| (row.model.as_deref().unwrap_or_default(), &row.totals)));
    Ok(Figures {
        sessions,
        unpriced,
        priced_by: reader.priced_by()?,
        priced_now: prices::load(home.dir())?.table.fingerprint(),
    })
}

/// What does not add up, faults first.
fn judge(figures: &Figures) -> Vec<Finding> {
    let mut findings: Vec<Finding> = figures.sessions.iter().flat_map(judge_session).collect();
    findings.extend(figures.unpriced.iter().map(|unpriced| Finding {
        check: "unpriced",
        level: Level::Fault,
        session_id: None,
        message: format!(
            "no price is known for `{}`: {} with {} tokens are in no dollar figure",
            text::plain(&unpriced.model, 80),
            requests(unpriced.requests),
            text::thousands(unpriced.tokens)
        ),
        cause: "the model is newer than the price table of this version, or is no model of the vendor",
        hint: "give its prices in prices.toml of the data directory, then `taffrail prices reprice`",
    }));
    if figures.priced_by.as_ref().is_some_and(|by| *by != figures.priced_now) {
        findings.push(Finding {
            check: "prices",
            level: Level::Fault,
            session_id: None,
            message: "history is priced by another table than the one in force".to_owned(),
            cause: "this version has other prices, or prices.toml was changed",
            hint: "`taffrail prices reprice` shows the effect before it applies it",
        });
    }
    let all = fold::sum(figures.sessions.iter().map(|session| &session.ledger));
    findings.extend(judge_confidence(&all));
    findings.sort_by_key(|finding| finding.level);
    findings
}

/// How far a total may be off, in nano-dollars.
fn tolerance(client_nano_usd: i64) -> i64 {
    DRIFT_TOLERANCE_NANO_USD.max(client_nano_usd.abs() / 100 * DRIFT_TOLERANCE_PERCENT)
}

fn judge_session(session: &Reconciliation) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut push = |check, message, cause, hint| {
        let session_id = Some(session.session_id.clone());
        findings.push(Finding { check, level: Level::Fault, session_id, message, cause, hint });
    };
    let allowed = tolerance(session.client_nano_usd.unwrap_or(0));
    match session.drift_nano_usd {
        Some(drift) if drift > allowed => push(
            "drift",
            format!("the client counts {} more than the ledger has", text::usd_fine(drift)),
            "requests that no source shows: compaction and other auxiliary requests without OTLP, or a transcript \
             that was deleted before it was read",
            "`taffrail import transcripts` if some are not read yet; `taffrail install --otel` for what is to come",
        ),
        Some(drift) if drift < -allowed => push(
            "drift",
            format!("the ledger has {} more than the client counts", text::usd_fine(-drift)),
            "the client wrote its total before the session's last requests, or did not write it again after a \
             resume; or it counts a model at another price",
            "`taffrail ledger show` has the client's figure beside ours where OTLP tells it; a price that differs \
             belongs into prices.toml",
        ),
        _ => {}
    }
    if let Some(otlp) = session.otlp_nano_usd
        && session.otlp_requests == session.ledger.requests
        && session.ledger.of(Confidence::Unpriced).requests == 0
    {
        let ours = session.ledger.cost_nano_usd - session.ledger.of(Confidence::Estimated).cost_nano_usd;
        if (ours - otlp).abs() > tolerance(otlp) {
            push(
                "price",
                format!(
                    "the same requests cost {} by our prices and {} by the client's",
                    text::usd_fine(ours),
                    text::usd_fine(otlp)
                ),
                "a price changed, or the client does not know a model and takes another one's price",
                "compare `taffrail prices list` with the vendor's page; correct it in prices.toml, then `taffrail \
                 prices reprice`",
            );
        }
    }
    findings
}

/// What to know of the figures as a whole.
fn judge_confidence(all: &CostTotals) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut push = |check, message, cause, hint| {
        findings.push(Finding { check, level: Level::Note, session_id: None, message, cause, hint });
    };
    let lower = all.of(Confidence::LowerBound);
    if lower.requests > 0 {
        push(
            "lower_bound",
            format!(
                "{} of {} ({} %) are known by provisional output only, {} in all: they cost at least that",
                text::count(lower.requests),
                requests(all.requests),
                lower.requests * 100 / all.requests.max(1),
                text::usd(lower.cost_nano_usd)
            ),
            "the client writes a message into the transcript before it is complete, and seldom again after it",
            "OTLP has the final figure: `taffrail install --otel`",
        );
    }
    let estimated = all.of(Confidence::Estimated).cost_nano_usd;
    if estimated != 0 {
        push(
            "estimated",
            format!("{} of it is known by the client's own total only", text::usd(estimated)),
            "compaction and other auxiliary requests are in no transcript",
            "OTLP shows each of them: `taffrail install --otel`",
        );
    }
    findings
}

#[derive(Debug, Serialize)]
struct CheckJson<'a> {
    status: &'static str,
    drift_tolerance_usd: f64,
    drift_tolerance_percent: i64,
    priced_by: Option<&'a str>,
    priced_now: &'a str,
    findings: &'a [Finding],
    sessions: Vec<SessionJson<'a>>,
    totals: SumsJson,
}

#[derive(Debug, Serialize)]
struct SessionJson<'a> {
    session_id: &'a str,
    app: &'a str,
    last: Option<String>,
    ledger_usd: Option<f64>,
    ledger_requests: i64,
    transcript_usd: Option<f64>,
    transcript_requests: i64,
    otlp_usd: Option<f64>,
    otlp_requests: i64,
    client_usd: Option<f64>,
    inherited_usd: f64,
    drift_usd: Option<f64>,
    lower_bound_requests: i64,
    estimated_usd: f64,
    unpriced_requests: i64,
    failed_attempts: i64,
    adds_up: bool,
}

fn json(figures: &Figures, findings: &[Finding]) -> serde_json::Result<serde_json::Value> {
    let is_sound = findings.iter().all(|finding| finding.level == Level::Note);
    let sessions = figures.sessions.iter().map(|s| SessionJson {
        session_id: &s.session_id,
        app: &s.app,
        last: s.last.map(rfc3339),
        ledger_usd: s.ledger.known_cost_nano_usd().map(text::usd_number),
        ledger_requests: s.ledger.requests,
        transcript_usd: s.transcript_nano_usd.map(text::usd_number),
        transcript_requests: s.transcript_requests,
        otlp_usd: s.otlp_nano_usd.map(text::usd_number),
        otlp_requests: s.otlp_requests,
        client_usd: s.client_nano_usd.map(text::usd_number),
        inherited_usd: text::usd_number(s.inherited_nano_usd),
        drift_usd: s.drift_nano_usd.map(text::usd_number),
        lower_bound_requests: s.ledger.of(Confidence::LowerBound).requests,
        estimated_usd: text::usd_number(s.ledger.of(Confidence::Estimated).cost_nano_usd),
        unpriced_requests: s.ledger.of(Confidence::Unpriced).requests,
        failed_attempts: s.failed_attempts,
        adds_up: !is_off(s),
    });
    let check = CheckJson {
        status: if is_sound { "ok" } else { "fault" },
        drift_tolerance_usd: text::usd_number(DRIFT_TOLERANCE_NANO_USD),
        drift_tolerance_percent: DRIFT_TOLERANCE_PERCENT,
        priced_by: figures.priced_by.as_deref(),
        priced_now: &figures.priced_now,
        findings,
        sessions: sessions.collect(),
        totals: SumsJson::from(&fold::sum(figures.sessions.iter().map(|s| &s.ledger))),
    };
    serde_json::to_value(check)
}

fn is_off(session: &Reconciliation) -> bool {
    !judge_session(session).is_empty() || session.ledger.of(Confidence::Unpriced).requests > 0
}

fn shown(figures: &Figures, findings: &[Finding], every: bool, look: Look) -> String {
    if figures.sessions.is_empty() {
        return "no session in that time\n".to_owned();
    }
    let mut text = String::new();
    let listed: Vec<&Reconciliation> = figures.sessions.iter().filter(|s| every || is_off(s)).collect();
    if !listed.is_empty() {
        text.push_str(&grid(&listed).render(look));
        text.push('\n');
    }
    let all = fold::sum(figures.sessions.iter().map(|s| &s.ledger));
    let told = figures.sessions.iter().filter(|s| s.client_nano_usd.is_some()).count() as u64;
    let even = figures.sessions.iter().filter(|s| s.client_nano_usd.is_some() && !is_off(s)).count() as u64;
    let sessions = figures.sessions.len() as u64;
    text.push_str(&format!(
        "{}, {}, {}\n",
        count(sessions, "session"),
        requests(all.requests),
        sums::cost(&all)
    ));
    text.push_str(&match told {
        0 => "the client's own total is known of none of them\n".to_owned(),
        _ => format!(
            "the client's own total is known of {told} of them: {} within {} or {DRIFT_TOLERANCE_PERCENT} % of the ledger\n",
            if even == told { "all".to_owned() } else { even.to_string() },
            text::usd(DRIFT_TOLERANCE_NANO_USD),
        ),
    });
    let (shown, rest) = findings.split_at(findings.len().min(FINDINGS_SHOWN_MAX));
    for finding in shown {
        text.push_str(&said(finding, look));
    }
    if !rest.is_empty() {
        text.push_str(&format!("\nand {} more; --json has them all\n", count(rest.len() as u64, "finding")));
    }
    if findings.is_empty() {
        text.push_str("everything adds up\n");
    }
    text
}

fn said(finding: &Finding, look: Look) -> String {
    let level = match finding.level {
        Level::Fault => look.colours.paint("31", "FAULT"),
        Level::Note => "note ".to_owned(),
    };
    let session = finding.session_id.as_ref().map(|id| format!("{}: ", short(id))).unwrap_or_default();
    format!(
        "\n{level}  {session}{}\n       cause: {}\n       hint: {}\n",
        finding.message, finding.cause, finding.hint
    )
}

fn short(session_id: &str) -> String {
    text::plain(session_id, usize::MAX).chars().take(ID_CHARS).collect()
}

fn grid(sessions: &[&Reconciliation]) -> Grid {
    let mut grid = Grid::new(vec![
        Column::left("session"),
        Column::left("app").spare(3),
        Column::right("requests").spare(1),
        Column::right("ledger"),
        Column::right("transcript"),
        Column::right("OTLP"),
        Column::right("client"),
        Column::right("inherited").spare(2),
        Column::right("drift"),
        Column::right("failed").spare(4),
        Column::left("adds up"),
    ]);
    let usd = |nano: Option<i64>| nano.map_or_else(|| "-".to_owned(), text::usd);
    for session in sessions {
        let is_off = is_off(session);
        grid.row(
            if is_off { Tone::Loud } else { Tone::Plain },
            vec![
                short(&session.session_id),
                text::plain(&session.app, 30),
                text::count(session.ledger.requests),
                sums::cost(&session.ledger),
                usd(session.transcript_nano_usd),
                usd(session.otlp_nano_usd),
                usd(session.client_nano_usd),
                text::usd(session.inherited_nano_usd),
                session.drift_nano_usd.map_or_else(|| "-".to_owned(), text::usd_fine),
                text::count(session.failed_attempts),
                if is_off { "no" } else { "yes" }.to_owned(),
            ],
        );
    }
    grid
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const CENT: i64 = 10_000_000;

    fn session(client: i64, drift: i64) -> Reconciliation {
        let mut session = Reconciliation {
            session_id: "5e551011-0000".to_owned(),
            app: "api".to_owned(),
            client_nano_usd: Some(client),
            drift_nano_usd: Some(drift),
            ..Reconciliation::default()
        };
        session.ledger.requests = 4;
        session.ledger.cost_nano_usd = client - drift;
        session.ledger.by_confidence[0].requests = 4;
        session.ledger.by_confidence[0].cost_nano_usd = client - drift;
        session
    }

    fn judged(session: Reconciliation) -> Vec<(&'static str, Level)> {
        let figures = Figures { sessions: vec![session], ..Figures::default() };
        judge(&figures).iter().map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn drift_is_a_fault_above_a_cent_and_above_a_hundredth() {
        assert_eq!(judged(session(50 * CENT, CENT)), []);
        assert_eq!(judged(session(50 * CENT, CENT + 1)), [("drift", Level::Fault)]);
        assert_eq!(judged(session(50 * CENT, -CENT - 1)), [("drift", Level::Fault)]);
        assert_eq!(judged(session(5_000 * CENT, 50 * CENT)), []);
        assert_eq!(judged(session(5_000 * CENT, 50 * CENT + 1)), [("drift", Level::Fault)]);
    }

    #[test]
    fn another_price_for_the_same_requests_is_a_fault() {
        let mut same = session(100 * CENT, 0);
        (same.otlp_requests, same.otlp_nano_usd) = (4, Some(90 * CENT));
        assert_eq!(judged(same.clone()), [("price", Level::Fault)]);
        // OTLP was on for a part only: the two sums are not of the same requests.
        same.otlp_requests = 3;
        assert_eq!(judged(same), []);
    }

    #[test]
    fn what_is_only_less_sure_is_a_note() {
        let mut unsure = session(100 * CENT, 0);
        unsure.ledger.by_confidence[2].requests = 3;
        unsure.ledger.by_confidence[3].cost_nano_usd = CENT;
        assert_eq!(judged(unsure), [("lower_bound", Level::Note), ("estimated", Level::Note)]);
    }

    #[test]
    fn unpriced_models_and_other_prices_are_faults_and_come_first() {
        let mut sure = session(100 * CENT, 0);
        sure.ledger.by_confidence[2].requests = 1;
        let figures = Figures {
            sessions: vec![sure],
            unpriced: vec![Unpriced { model: "x\x1b[2J".to_owned(), requests: 1, tokens: 2_000 }],
            priced_by: Some("a".to_owned()),
            priced_now: "b".to_owned(),
        };
        let findings = judge(&figures);
        let checks: Vec<_> = findings.iter().map(|f| (f.check, f.level)).collect();
        assert_eq!(
            checks,
            [("unpriced", Level::Fault), ("prices", Level::Fault), ("lower_bound", Level::Note)]
        );
        assert!(findings[0].message.contains("1 request with 2,000 tokens"), "{}", findings[0].message);
        assert!(!findings[0].message.contains('\x1b'));
        let never = Figures { priced_by: None, priced_now: "b".to_owned(), ..Figures::default() };
        assert_eq!(judge(&never), []);
    }

    #[test]
    fn the_table_lists_what_is_off_and_says_why() {
        let figures = Figures {
            sessions: vec![session(50 * CENT, 0), session(80 * CENT, 20 * CENT)],
            ..Figures::default()
        };
        let look = Look { width: None, colours: crate::print::Colours::Off };
        let text = shown(&figures, &judge(&figures), false, look);
        let expected = " session   app  requests  ledger  transcript  OTLP  client  inherited    drift  failed  adds up
 5e551011  api         4   $0.60           -     -   $0.80      $0.00  $0.2000       0  no

2 sessions, 8 requests, $1.10
the client's own total is known of 2 of them: 1 within $0.01 or 1 % of the ledger

FAULT  5e551011: the client counts $0.2000 more than the ledger has
       cause: requests that no source shows: compaction and other auxiliary requests without OTLP, or a transcript that was deleted before it was read
       hint: `taffrail import transcripts` if some are not read yet; `taffrail install --otel` for what is to come
";
        assert_eq!(text, expected);
        assert!(shown(&figures, &[], true, look).lines().filter(|l| l.starts_with(" 5e5")).count() == 2);
    }
}
