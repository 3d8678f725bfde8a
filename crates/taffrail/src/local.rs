//! A server inside this process, for a command that needs one while none runs.
//!
//! It serves the data directory like any other (lock, spool, hooks) on the address of its configuration.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use taffrail_server::config::Config;

use crate::client::Client;
use crate::home::Home;

/// How long it may take to be ready: a large database may need a migration.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// A running server of this process.
pub(crate) struct Local {
    client: Client,
    stop: Arc<Stop>,
    thread: JoinHandle<Result<()>>,
}

/// Who ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Only [`Local::stop`]; an interrupt ends the process at once, which the database survives.
    Stopped,
    /// An interrupt, too: what is under way is finished first.
    Interrupted,
}

impl Local {
    pub(crate) fn start(home: &Home, config: Config, until: Until) -> Result<Self> {
        let stop = Arc::new(Stop::default());
        let told = Arc::clone(&stop);
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let ready = move |addr| {
                // Nobody waits any more when the starter gave up.
                let _ = ready.send(addr);
            };
            match until {
                Until::Interrupted => taffrail_server::run(config, ready),
                Until::Stopped => taffrail_server::run_until(config, ready, Told(told)),
            }
        });
        match is_ready.recv_timeout(READY_TIMEOUT) {
            Ok(addr) => {
                let client = Client::new(&format!("http://{addr}"), &home.token()?, std::process::id());
                Ok(Self { client, stop, thread })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                join(thread)?;
                Err(anyhow!("the server ended before it was ready"))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Err(anyhow!("the server was not ready in time")),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it still serves.
    pub(crate) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits until its last commit is on disk, after telling it to stop where only we can.
    pub(crate) fn stop(self) -> Result<()> {
        self.stop.tell();
        join(self.thread)
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("the server panicked")).and_then(|result| result)
}

/// A word that the server waits for.
#[derive(Default)]
struct Stop(Mutex<Said>);

#[derive(Default)]
struct Said {
    stop: bool,
    waker: Option<Waker>,
}

impl Stop {
    fn tell(&self) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.stop = true;
        if let Some(waker) = said.waker.take() {
            waker.wake();
        }
    }
}

/// Done once it is told.
struct Told(Arc<Stop>);

impl Future for Told {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<()> {
        let mut said = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.stop {
            return Poll::Ready(());
        }
        said.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
