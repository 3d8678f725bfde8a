//! A thread of low priority that works on its own, rests, and ends when it is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a thread looks at to know that it is to end, and by what it is woken from its rest.
#[derive(Default)]
pub(crate) struct Stopping {
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Stopping {
    pub(crate) fn is(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Rests for that time, or until it is to end.
    pub(crate) fn rest(&self, time: Duration) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the waiting matters, not whether it timed out.
        drop(self.wake.wait_timeout_while(guard, time, |()| !self.is()));
    }

    pub(crate) fn end(&self) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop.store(true, Ordering::Relaxed);
        drop(guard);
        self.wake.notify_all();
    }
}

/// The running thread.
pub(crate) struct Background {
    name: &'static str,
    stopping: Arc<Stopping>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the thread; where the system has none to give, its work is left undone, and that is said.
    pub(crate) fn start(name: &'static str, work: impl FnOnce(Arc<Stopping>) + Send + 'static) -> Self {
        let stopping = Arc::new(Stopping::default());
        let told = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            lower_priority();
            work(told);
        });
        if let Err(error) = &thread {
            tracing::error!(thread = name, %error, "its work is left undone: the thread could not be started");
        }
        Self { name, stopping, thread: thread.ok() }
    }

    /// Ends after what is under way; waits for it.
    pub(crate) fn stop(self) {
        self.stopping.end();
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(thread = self.name, "it had panicked");
        }
    }
}

/// Others go first: on Linux the priority is the thread's own.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::nice(10) {
        tracing::debug!(%error, "the priority of a thread could not be lowered");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
