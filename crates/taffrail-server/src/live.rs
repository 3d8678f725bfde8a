//! What was committed goes to every reader of `/stream`, in the order of the commits.
//!
//! The writer's thread hands a batch over and goes on; one task turns it into frames, once per format, and puts them
//! into each reader's own queue. A queue has bounds in frames and bytes: a reader that is too slow loses its oldest
//! frames, and is told how many. Nothing here ever waits for a reader.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use taffrail_event::Event;
use tokio::sync::{Notify, mpsc};

use crate::api::types::{CostFrameJson, EventJson, SessionCostJson};
use crate::ingest::legacy::Echo;
use crate::metrics::Metrics;
use crate::prices::PriceBook;

/// Batches between the writer's thread and the task that makes frames.
const BATCHES_MAX: usize = 1_024;

/// The shape a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The old contract's event.
    Legacy,
    /// [`EventJson`] without payload.
    Native,
}

/// Which events a reader wants; every given part must match.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) app: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) type_name: Option<String>,
    pub(crate) tool: Option<String>,
    /// `""` is the main agent.
    pub(crate) agent: Option<String>,
}

impl Wanted {
    fn takes(&self, draft: &Draft) -> bool {
        let eq =
            |wanted: &Option<String>, has: Option<&str>| wanted.as_deref().is_none_or(|w| has == Some(w));
        eq(&self.app, Some(&draft.app))
            && eq(&self.session, Some(&draft.session_id))
            && eq(&self.type_name, Some(&draft.type_name))
            && eq(&self.tool, draft.tool_name.as_deref())
            && eq(&self.agent, Some(draft.agent_id.as_deref().unwrap_or("")))
    }
}

/// Frames of cost are narrowed by project and session alone: the rest is about events.
impl Wanted {
    fn is_any_cost(&self) -> bool {
        self.app.is_none() && self.session.is_none()
    }

    fn takes_cost(&self, cost: &SessionCostJson) -> bool {
        self.app.as_deref().is_none_or(|app| app == cost.app)
            && self.session.as_deref().is_none_or(|session| session == cost.session_id)
    }
}

/// An event on its way to the readers, before its row id is known.
pub(crate) struct Draft {
    app: String,
    session_id: String,
    agent_id: Option<String>,
    type_name: String,
    tool_name: Option<String>,
    native: Option<Box<EventJson>>,
    legacy: Option<Echo>,
}

/// One line for one reader.
#[derive(Clone)]
pub(crate) struct Frame {
    /// Row id of an event that is new; none for everything else.
    pub(crate) new_event: Option<i64>,
    pub(crate) text: Utf8Bytes,
}

/// Hands frames to readers.
pub(crate) struct Hub {
    readers: Mutex<Vec<Arc<Reader>>>,
    legacy: AtomicUsize,
    native: AtomicUsize,
    batches: mpsc::Sender<Vec<(i64, Draft)>>,
    bounds: Bounds,
    prices: Arc<PriceBook>,
    metrics: Arc<Metrics>,
}

/// What waits for one reader, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// One reader's queue.
pub(crate) struct Reader {
    format: Format,
    wanted: Wanted,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    dropped: u64,
}

/// What a reader gets next.
pub(crate) enum Next {
    Frame(Frame),
    /// So many frames were dropped before the next one.
    Dropped(u64),
}

impl Hub {
    /// The hub, and the batches that [`Hub::run`] takes.
    pub(crate) fn new(
        bounds: Bounds,
        prices: Arc<PriceBook>,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, mpsc::Receiver<Vec<(i64, Draft)>>) {
        let (batches, received) = mpsc::channel(BATCHES_MAX);
        let hub = Self {
            readers: Mutex::default(),
            legacy: AtomicUsize::new(0),
            native: AtomicUsize::new(0),
            batches,
            bounds,
            prices,
            metrics,
        };
        (Arc::new(hub), received)
    }

    /// Makes frames until every sender is gone.
    pub(crate) async fn run(self: Arc<Self>, mut batches: mpsc::Receiver<Vec<(i64, Draft)>>) {
        while let Some(batch) = batches.recv().await {
            for (row_id, draft) in batch {
                self.publish(row_id, draft);
            }
        }
    }

    /// What readers will need of this event; nothing where nobody listens.
    pub(crate) fn draft(&self, event: &Event, echo: Option<&Echo>) -> Option<Draft> {
        let (legacy, native) = (self.legacy.load(Ordering::Relaxed), self.native.load(Ordering::Relaxed));
        if legacy + native == 0 {
            return None;
        }
        Some(Draft {
            app: event.app.clone(),
            session_id: event.session_id.clone(),
            agent_id: event.agent_id.clone(),
            type_name: event.type_name.clone(),
            tool_name: event.tool_name.clone(),
            native: (native > 0).then(|| Box::new(EventJson::of(event, &self.prices.current()))),
            legacy: (legacy > 0).then(|| echo.cloned().unwrap_or_else(|| Echo::of_event(event))),
        })
    }

    /// Called on the writer's thread after the commit: never waits.
    pub(crate) fn committed(&self, batch: Vec<(i64, Draft)>) {
        if batch.is_empty() {
            return;
        }
        let events = batch.len() as u64;
        if self.batches.try_send(batch).is_err() {
            self.metrics.live_dropped.inc_by(events);
            self.each(|reader| reader.drop_frames(events));
        }
    }

    /// An event changed: everybody gets it again, in the old format.
    pub(crate) fn changed(&self, echo: &Echo) {
        let Some(frame) = frame_of("event", echo, None) else { return };
        self.each(|reader| {
            if reader.format == Format::Legacy {
                reader.push(frame.clone(), self);
            }
        });
    }

    /// A frame for every reader of either format.
    pub(crate) fn announce(&self, kind: &str, data: &impl Serialize) {
        let Some(frame) = frame_of(kind, data, None) else { return };
        self.each(|reader| reader.push(frame.clone(), self));
    }

    /// What the ledger took in, to native readers: the old page knows no such frame. A reader that asked for one project
    /// or session hears of those alone.
    pub(crate) fn costs(&self, frame: &CostFrameJson) {
        let mut whole = None;
        self.each(|reader| {
            if reader.format != Format::Native {
                return;
            }
            let made = if reader.wanted.is_any_cost() {
                whole.get_or_insert_with(|| frame_of("cost", frame, None)).clone()
            } else {
                let sessions: Vec<SessionCostJson> = frame
                    .sessions
                    .iter()
                    .filter(|session| reader.wanted.takes_cost(session))
                    .cloned()
                    .collect();
                let part = CostFrameJson { sessions, ..frame.clone() };
                (!part.sessions.is_empty()).then(|| frame_of("cost", &part, None)).flatten()
            };
            if let Some(made) = made {
                reader.push(made, self);
            }
        });
    }

    fn publish(&self, row_id: i64, mut draft: Draft) {
        let mut native = None;
        let mut legacy = None;
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for reader in readers {
            if !reader.wanted.takes(&draft) {
                continue;
            }
            let made = match reader.format {
                Format::Native => native.get_or_insert_with(|| {
                    let event = draft.native.as_mut()?;
                    event.id = row_id;
                    frame_of("event", event, Some(row_id))
                }),
                Format::Legacy => legacy.get_or_insert_with(|| {
                    let echo = draft.legacy.as_mut()?;
                    echo.set_id(row_id);
                    frame_of("event", echo, Some(row_id))
                }),
            };
            match made {
                Some(frame) => reader.push(frame.clone(), self),
                // The reader came between the draft and the commit, in a format that nobody had asked for before.
                None => reader.drop_frames(1),
            }
        }
    }

    /// A new reader, unless there are `max` already. Its queue fills from now on.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        format: Format,
        wanted: Wanted,
        max: usize,
    ) -> Option<Subscription> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() >= max {
            return None;
        }
        let reader = Arc::new(Reader { format, wanted, queue: Mutex::default(), wake: Notify::new() });
        readers.push(Arc::clone(&reader));
        self.count(format).fetch_add(1, Ordering::Relaxed);
        Some(Subscription { hub: Arc::clone(self), reader })
    }

    /// How many listen.
    pub(crate) fn clients(&self) -> usize {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many of them take the native format.
    pub(crate) fn native_clients(&self) -> usize {
        self.native.load(Ordering::Relaxed)
    }

    fn count(&self, format: Format) -> &AtomicUsize {
        match format {
            Format::Legacy => &self.legacy,
            Format::Native => &self.native,
        }
    }

    fn each(&self, mut act: impl FnMut(&Reader)) {
        for reader in self.readers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            act(reader);
        }
    }
}

impl Reader {
    fn push(&self, frame: Frame, hub: &Hub) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.bytes += frame.text.len();
        queue.frames.push_back(frame);
        // A single frame over the byte bound still goes: it exists anyway, and only one does.
        while queue.frames.len() > hub.bounds.frames
            || (queue.bytes > hub.bounds.bytes && queue.frames.len() > 1)
        {
            if let Some(oldest) = queue.frames.pop_front() {
                queue.bytes -= oldest.text.len();
                queue.dropped += 1;
                hub.metrics.live_dropped.inc();
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    fn drop_frames(&self, frames: u64) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).dropped += frames;
        self.wake.notify_one();
    }

    fn take(&self) -> Option<Next> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.dropped > 0 {
            return Some(Next::Dropped(std::mem::take(&mut queue.dropped)));
        }
        let frame = queue.frames.pop_front()?;
        queue.bytes -= frame.text.len();
        Some(Next::Frame(frame))
    }
}

/// A reader's end of its queue; dropping it ends the subscription.
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    reader: Arc<Reader>,
}

impl Subscription {
    /// Waits for what comes next.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.reader.take() {
                return next;
            }
            self.reader.wake.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut readers = self.hub.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        self.hub.count(self.reader.format).fetch_sub(1, Ordering::Relaxed);
    }
}

/// `{"type": kind, "data": data}`.
pub(crate) fn frame_of(kind: &str, data: &impl Serialize, new_event: Option<i64>) -> Option<Frame> {
    #[derive(Serialize)]
    struct Line<'a, T> {
        #[serde(rename = "type")]
        kind: &'a str,
        data: &'a T,
    }
    match serde_json::to_string(&Line { kind, data }) {
        Ok(text) => Some(Frame { new_event, text: text.into() }),
        Err(error) => {
            tracing::error!(%error, kind, "a frame could not be written as JSON");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(frames_max: usize, bytes_max: usize) -> Arc<Hub> {
        let bounds = Bounds { frames: frames_max, bytes: bytes_max };
        Hub::new(bounds, Arc::new(PriceBook::builtin()), Arc::new(Metrics::new())).0
    }

    fn drain(subscription: &Subscription) -> (u64, Vec<String>) {
        let (mut dropped, mut texts) = (0, Vec::new());
        while let Some(next) = subscription.reader.take() {
            match next {
                Next::Dropped(n) => dropped += n,
                Next::Frame(frame) => texts.push(frame.text.to_string()),
            }
        }
        (dropped, texts)
    }

    #[test]
    fn a_slow_reader_keeps_the_newest_and_is_told_what_it_lost() {
        let hub = hub(3, usize::MAX);
        let slow = hub.subscribe(Format::Native, Wanted::default(), 8).into_iter().next();
        let slow = slow.as_ref();
        for i in 0..10 {
            hub.announce("n", &i);
        }
        let (dropped, texts) = slow.map(drain).unwrap_or_default();
        assert_eq!(dropped, 7);
        assert_eq!(texts.last().map(String::as_str), Some(r#"{"type":"n","data":9}"#));
        assert_eq!(texts.len(), 3);
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_too() {
        let hub = hub(1_000, 100);
        let Some(slow) = hub.subscribe(Format::Legacy, Wanted::default(), 8) else { panic!("no room") };
        for _ in 0..50 {
            hub.announce("n", &"x".repeat(30));
        }
        let (dropped, texts) = drain(&slow);
        assert!(texts.iter().map(String::len).sum::<usize>() <= 100);
        assert_eq!(dropped as usize + texts.len(), 50);
    }

    #[test]
    fn frames_of_cost_go_to_native_readers_of_that_project_only() {
        let hub = hub(8, usize::MAX);
        let wanted = |app: Option<&str>| Wanted { app: app.map(str::to_owned), ..Wanted::default() };
        let readers = [
            (Format::Legacy, None),
            (Format::Native, None),
            (Format::Native, Some("harbour")),
            (Format::Native, Some("elsewhere")),
        ];
        let subscriptions: Vec<_> =
            readers.iter().filter_map(|(format, app)| hub.subscribe(*format, wanted(*app), 8)).collect();
        let of = |app: &str| SessionCostJson {
            session_id: app.to_owned(),
            app: app.to_owned(),
            cost_usd: Some(0.5),
            delta_usd: 0.25,
            requests: 2,
            new_requests: 1,
            confidence: "exact".to_owned(),
        };
        hub.costs(&CostFrameJson { sessions: vec![of("harbour"), of("quay")], ..CostFrameJson::default() });
        let heard: Vec<usize> = subscriptions
            .iter()
            .map(|s| drain(s).1.iter().map(|text| text.matches("session_id").count()).sum())
            .collect();
        assert_eq!(heard, [0, 2, 1, 0]);
    }

    #[test]
    fn readers_are_bounded_and_leave() {
        let hub = hub(1, 1);
        let first = hub.subscribe(Format::Native, Wanted::default(), 1);
        assert!(first.is_some() && hub.subscribe(Format::Native, Wanted::default(), 1).is_none());
        drop(first);
        assert_eq!((hub.clients(), hub.native.load(Ordering::Relaxed)), (0, 0));
    }
}
