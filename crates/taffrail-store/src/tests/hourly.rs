//! Sums by steps agree with the rows, late and moved ones too.

use std::collections::BTreeMap;

use proptest::prelude::*;
use taffrail_event::ledger::{Confidence, RequestSighting};

use super::ledger::{chunk, line};
use super::*;
use crate::{CallFilter, CostQuery, Reader, Scope, StepSums, SumStep};

const MINUTE: i64 = 60_000;

fn scopes() -> Vec<Scope> {
    let of = |app: Option<&str>, user: Option<&str>| Scope {
        app: app.map(str::to_owned),
        user: user.map(str::to_owned),
        session: None,
    };
    vec![
        of(None, None),
        of(Some("app"), None),
        of(None, Some("ann")),
        of(Some("app"), Some("ann")),
        of(Some("none"), None),
    ]
}

/// The slow way: values by step, from the first step that has one to the last that is over.
fn by_step(told: &[(i64, f64)], step: SumStep, steps: i64, now: i64) -> Vec<f64> {
    let length = step.ms();
    let last = now / length;
    let mut sums: BTreeMap<i64, f64> = BTreeMap::new();
    for (ts, value) in told {
        let place = ts / length;
        if place < last && place >= last - steps {
            *sums.entry(place).or_default() += value;
        }
    }
    let Some(first) = sums.keys().next().copied() else { return Vec::new() };
    (first..last).map(|place| sums.get(&place).copied().unwrap_or(0.0)).collect()
}

fn expected(reader: &Reader, scope: &Scope, step: SumStep, steps: i64, now: i64) -> StepSums {
    let filter = CallFilter { app: scope.app.clone(), ..CallFilter::default() };
    // Every event of these tests is by ann; a scope of nobody has none.
    let calls = reader.calls(&filter, None, 1_000).unwrap().rows;
    let ended: Vec<(i64, f64)> = calls.iter().filter_map(|call| Some((call.ended?.get(), 1.0))).collect();
    let events = reader
        .events(
            &crate::EventFilter { app: scope.app.clone(), ..Default::default() },
            None,
            1_000,
            crate::Payloads::Without,
        )
        .unwrap();
    let begun: Vec<(i64, f64)> = events.rows.iter().map(|stored| (stored.ts.get(), 0.0)).collect();
    let (mut tokens, mut cost, mut unpriced) = (Vec::new(), Vec::new(), 0);
    let query = CostQuery { scope: scope.clone(), ..CostQuery::default() };
    reader
        .each_request(&query, &mut |row| {
            let ts = row.ts.get();
            tokens.push((ts, row.usage.total() as f64));
            let last = now / step.ms();
            match row.confidence {
                Some(Confidence::Unpriced) => {
                    unpriced += i64::from((last - steps..last).contains(&(ts / step.ms())));
                }
                _ => cost.push((ts, row.cost_nano_usd.unwrap_or(0) as f64)),
            }
        })
        .unwrap();
    StepSums {
        calls: by_step(&[ended, begun].concat(), step, steps, now),
        tokens: by_step(&tokens, step, steps, now),
        cost_nano_usd: by_step(&cost, step, steps, now),
        unpriced_requests: unpriced,
    }
}

fn check(bed: &Bed, now: i64) {
    let reader = bed.store.reader().unwrap();
    for scope in scopes() {
        for (step, steps) in [(SumStep::Quarter, 20), (SumStep::Hour, 6), (SumStep::Hour, 500)] {
            let found = reader.step_sums(&scope, step, steps as usize, TimestampMs::clamped(now)).unwrap();
            assert_eq!(found, expected(&reader, &scope, step, steps, now), "{scope:?} {step:?} {steps}");
        }
    }
}

fn request(id: usize, at: i64, is_priced: bool) -> RequestSighting {
    let mut request = line("s", 0, id, at);
    request.app = Some("app".to_owned());
    request.user = Some("ann".to_owned());
    if !is_priced {
        request.model = "model-without-a-price".to_owned();
    }
    request
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn sums_by_steps_are_those_of_the_rows_in_any_order(
        calls in prop::collection::vec(0..600i64, 0..25),
        requests in prop::collection::vec((0..600i64, any::<bool>()), 0..25),
        now in 0..700i64,
    ) {
        let bed = Bed::new();
        for (id, minute) in calls.iter().enumerate() {
            let id = format!("tool{id}");
            let mut ended = post(minute * MINUTE, Some(&id), "Bash", Some(5));
            ended.event_id = EventId::derived(&[id.as_bytes()]);
            bed.store.append(vec![ended]).unwrap();
        }
        let told = requests.iter().enumerate().map(|(id, (minute, is_priced))| request(id, minute * MINUTE, *is_priced));
        bed.store.record_transcripts(vec![chunk(told.collect())]).unwrap();
        check(&bed, T0 + now * MINUTE);
    }
}

#[test]
fn nothing_is_no_history_and_a_quiet_hour_between_is_zero() {
    let bed = Bed::new();
    let read = |now: i64| {
        let now = TimestampMs::clamped(T0 + now);
        bed.store.reader().unwrap().step_sums(&Scope::default(), SumStep::Hour, 100, now).unwrap()
    };
    assert_eq!(read(0), StepSums::default());
    bed.store
        .append(vec![post(0, Some("a"), "Bash", None), post(130 * MINUTE, Some("b"), "Bash", None)])
        .unwrap();
    // A quarter past ten and half past twelve, asked at a quarter past one.
    assert_eq!(read(180 * MINUTE).calls, [1.0, 0.0, 1.0]);
    assert_eq!(read(50 * MINUTE).calls, [1.0], "the hour that runs is not whole");
}
