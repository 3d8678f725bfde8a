//! Budget threshold: an hour, a day or a session has used up a part of its budget.
//!
//! Sums what requests cost by the hour and the day they were made in (days begin `utc_offset_minutes` from UTC), over all,
//! for each app, and for each session. Each of `percents` tells once a period: the last of them and what is above 100 %
//! is critical, the one before it a warning, earlier ones for information. Requests without a price are counted beside it:
//! a budget cannot be held against them. No budget is set by default.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Detector, Scene};
use crate::bounded::{Lru, key_of};
use crate::config::{Check, ConfigError};
use crate::episode::{About, Episodes, Reading};
use crate::finding::{Action, Cost, Evidence, Finding, Response, Severity, Unit, usd};
use crate::signal::SessionKey;

/// What it is.
pub const NOUN: &str = "budget threshold";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Throttle, Action::Pause],
    person: "A budget is used up to the part shown. Raise it, or pause what can wait.",
    agent: "The budget for this work is nearly used up. Finish the step you are at, say what is open, and stop.",
};

/// Apps whose periods are summed.
pub const APPS_MAX: usize = 256;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// `[detectors.budget_threshold]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// All sessions together, an hour, in US dollars.
    pub hour_usd: Option<f64>,
    /// All sessions together, a day.
    pub day_usd: Option<f64>,
    /// Each app, a day.
    pub app_day_usd: Option<f64>,
    /// Each session, from its beginning.
    pub session_usd: Option<f64>,
    /// Parts of a budget that tell, in percent, ascending.
    pub percents: Vec<u32>,
    /// Where days begin, in minutes east of UTC.
    pub utc_offset_minutes: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: true,
            hour_usd: None,
            day_usd: None,
            app_day_usd: None,
            session_usd: None,
            percents: vec![50, 80, 100],
            utc_offset_minutes: 0,
        }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        let budgets = [
            ("hour_usd", self.hour_usd),
            ("day_usd", self.day_usd),
            ("app_day_usd", self.app_day_usd),
            ("session_usd", self.session_usd),
        ];
        for (field, budget) in budgets {
            if let Some(usd) = budget {
                check.number(field, usd, 0.01, 1e6)?;
            }
        }
        let ascending = self.percents.windows(2).all(|pair| pair[0] < pair[1]);
        let held = (1..=8).contains(&self.percents.len())
            && ascending
            && self.percents.iter().all(|p| (1..=1_000).contains(p));
        check.held(held, "percents", format!("{:?}", self.percents), || {
            "1 to 8 ascending parts from 1 to 1000".to_owned()
        })?;
        check.number("utc_offset_minutes", f64::from(self.utc_offset_minutes), -1_080.0, 1_080.0)
    }

    fn is_set(&self) -> bool {
        self.enabled
            && [self.hour_usd, self.day_usd, self.app_day_usd, self.session_usd].iter().any(Option::is_some)
    }
}

/// One period's sums.
#[derive(Clone, Copy, Debug, Default)]
struct Period {
    nth: i64,
    nano_usd: i64,
    requests: u64,
    unpriced: u64,
}

impl Period {
    /// Adds to the period; false where the request is of an earlier one.
    fn add(&mut self, nth: i64, nano_usd: Option<i64>, new: bool) -> bool {
        if nth < self.nth {
            return false;
        }
        if nth > self.nth {
            *self = Self { nth, ..Self::default() };
        }
        self.nano_usd = self.nano_usd.saturating_add(nano_usd.unwrap_or(0));
        self.requests += u64::from(new);
        self.unpriced += u64::from(new && nano_usd.is_none());
        true
    }

    fn cost(self) -> Cost {
        Cost::of(self.nano_usd, self.requests, self.unpriced)
    }
}

/// The sums of all and of each app.
#[derive(Clone, Debug)]
pub(crate) struct Budgets {
    hour: Period,
    day: Period,
    apps: Lru<Arc<str>, Period>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { hour: Period::default(), day: Period::default(), apps: Lru::new(APPS_MAX) }
    }
}

/// A budget, and how much of it is used.
struct Used<'a> {
    name: &'static str,
    key: &'a SessionKey,
    budget_usd: f64,
    began_ms: i64,
    cost: Cost,
}

impl Budgets {
    /// A request's cost; `own` are the episodes of its session, `common` those of all.
    pub(crate) fn spent(
        &mut self,
        scene: &Scene<'_>,
        nano_usd: Option<i64>,
        new: bool,
        common: &mut Episodes,
        own: &mut Episodes,
        out: &mut Vec<Finding>,
    ) {
        let options = &scene.config.budget_threshold;
        if !options.is_set() {
            return;
        }
        let offset_ms = i64::from(options.utc_offset_minutes) * 60_000;
        let local_ms = scene.at_ms.saturating_add(offset_ms);
        let (hour, day) = (local_ms.div_euclid(HOUR_MS), local_ms.div_euclid(DAY_MS));
        let began = |nth: i64, length: i64| nth.saturating_mul(length).saturating_sub(offset_ms);
        let all = SessionKey::default();
        if let Some(budget_usd) = options.hour_usd
            && self.hour.add(hour, nano_usd, new)
        {
            let cost = self.hour.cost();
            let used = Used { name: "hour", key: &all, budget_usd, began_ms: began(hour, HOUR_MS), cost };
            judge(&used, scene, common, out);
        }
        if let Some(budget_usd) = options.day_usd
            && self.day.add(day, nano_usd, new)
        {
            let cost = self.day.cost();
            let used = Used { name: "day", key: &all, budget_usd, began_ms: began(day, DAY_MS), cost };
            judge(&used, scene, common, out);
        }
        if let Some(budget_usd) = options.app_day_usd {
            let (period, _) = self.apps.entry(scene.key.app.clone(), Period::default);
            if period.add(day, nano_usd, new) {
                let key = SessionKey { app: scene.key.app.clone(), ..SessionKey::default() };
                let cost = period.cost();
                let used =
                    Used { name: "app and day", key: &key, budget_usd, began_ms: began(day, DAY_MS), cost };
                judge(&used, scene, common, out);
            }
        }
        if let Some(budget_usd) = options.session_usd {
            let cost = scene.session_spend.total();
            judge(&Used { name: "session", key: scene.key, budget_usd, began_ms: 0, cost }, scene, own, out);
        }
    }
}

fn judge(used: &Used<'_>, scene: &Scene<'_>, episodes: &mut Episodes, out: &mut Vec<Finding>) {
    let percents = &scene.config.budget_threshold.percents;
    let percent = used.cost.known_usd() * 100.0 / used.budget_usd;
    let nobody: Arc<str> = Arc::from("");
    let Some(reached) = percents.iter().rposition(|part| percent >= f64::from(*part)) else {
        // A new period has begun.
        let pattern = key_of(&[used.name.as_bytes(), used.key.app.as_bytes()]);
        return episodes.over(Detector::BudgetThreshold, &nobody, pattern, scene.at_ms, out);
    };
    let severity = match percents.len() - 1 - reached {
        0 => Severity::Critical,
        1 => Severity::Warning,
        _ => Severity::Info,
    };
    let mut evidence = Evidence::default()
        .against("used", percent, Unit::Percent, f64::from(percents[reached]))
        .figure("spent", used.cost.known_usd(), Unit::Usd)
        .figure("budget", used.budget_usd, Unit::Usd);
    if used.cost.unpriced > 0 {
        #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
        let unpriced = used.cost.unpriced as f64;
        evidence = evidence.figure("requests_without_a_price", unpriced, Unit::Count);
    }
    let reading = Reading {
        pattern: key_of(&[used.name.as_bytes(), used.key.app.as_bytes()]),
        level: (percent / 100.0).floor().max(1.0),
        severity,
        began_ms: used.began_ms,
        summary: format!(
            "{percent:.0} % of the budget of one {} is used: ${:.2} of ${:.2}",
            used.name,
            usd(used.cost.nano_usd.unwrap_or(0)),
            used.budget_usd
        ),
        evidence,
        cost: used.cost,
    };
    let about = About { key: used.key, agent_id: &nobody, agent_type: &nobody };
    episodes.holds(about, Detector::BudgetThreshold, scene.at_ms, reading, out);
}
