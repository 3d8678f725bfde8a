//! The bound before the writer, counted in events and in bytes of payload.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How much waits, and how much may.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    room: Condvar,
    events_max: usize,
    bytes_max: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    closed: bool,
}

/// Why something may not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

impl Queue {
    pub(crate) fn new(events_max: usize, bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), room: Condvar::new(), events_max, bytes_max }
    }

    /// Takes a place, or none.
    pub(crate) fn enter(&self, events: usize, bytes: usize) -> Result<(), Refused> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Refused::Closed);
        }
        if !self.fits(*waiting, events, bytes) {
            return Err(Refused::Full);
        }
        waiting.events += events;
        waiting.bytes += bytes;
        Ok(())
    }

    /// Waits until there is a place.
    pub(crate) fn enter_when_room(&self, events: usize, bytes: usize) -> Result<(), Refused> {
        let mut waiting = self.lock();
        while !waiting.closed && !self.fits(*waiting, events, bytes) {
            waiting = self.room.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.closed {
            return Err(Refused::Closed);
        }
        waiting.events += events;
        waiting.bytes += bytes;
        Ok(())
    }

    /// Gives places back.
    pub(crate) fn leave(&self, events: usize, bytes: usize) {
        let mut waiting = self.lock();
        waiting.events = waiting.events.saturating_sub(events);
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        self.room.notify_all();
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }

    pub(crate) fn events_max(&self) -> usize {
        self.events_max
    }

    pub(crate) fn waiting(&self) -> Waiting {
        *self.lock()
    }

    /// One submission alone always fits, however large: it could never enter otherwise.
    fn fits(&self, waiting: Waiting, events: usize, bytes: usize) -> bool {
        waiting.events == 0
            || (waiting.events + events <= self.events_max && waiting.bytes + bytes <= self.bytes_max)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
