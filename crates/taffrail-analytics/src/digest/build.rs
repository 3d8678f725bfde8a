//! Puts the analyses of a trace together.

use super::book::Book;
use super::view::{View, time};
use super::{Cut, DIGEST_VERSION, Digest, Limits, SessionFacts};
use crate::trace::Trace;
use crate::{collaboration, context, failures, files, quality, sequences};

pub(super) fn digest(trace: &Trace, limits: &Limits) -> Digest {
    let view = View::new(trace);
    let mut book = Book::default();
    let mut cut = Cut::default();
    let (context, tokens) = context::analyze(&view, limits, &mut book, &mut cut);
    let sequences = sequences::analyze(&view, &tokens, limits, &mut book, &mut cut);
    let collaboration = collaboration::analyze(&view, limits, &mut book, &mut cut);
    let (failures, resolutions) = failures::analyze(&view, limits, &mut book, &mut cut);
    let (files, changes) = files::analyze(&view, limits, &mut book, &mut cut);
    let quality = quality::analyze(&view, &mut book).with_changes(changes);
    let (first_ms, last_ms) = ends(&view);
    let contributions = book.finish(limits, &mut cut);
    let facts = SessionFacts {
        first_ms,
        last_ms,
        calls: trace.calls.len() as u64,
        requests: trace.requests.len() as u64,
        sequences,
        collaboration,
        failures,
        files,
        quality,
        context,
        cut,
    };
    Digest { version: DIGEST_VERSION, facts, contributions, resolutions }
}

/// The first and the last time of anything.
fn ends(view: &View<'_>) -> (Option<i64>, Option<i64>) {
    let trace = view.trace;
    let calls = view.order.iter().flat_map(|&i| [view.begin(i), view.end(i)]);
    let requests = trace.requests.iter().map(|request| time(request.ts_ms));
    let marks = trace.marks.iter().map(|mark| time(mark.ts_ms));
    let times = calls.chain(requests).chain(marks);
    (times.clone().min(), times.max())
}
