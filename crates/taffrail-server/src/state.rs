//! What every route shares.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use taffrail_store::{ReadError, Reader, Store};
use tokio::sync::{Semaphore, watch};

use crate::api::windows::Answers;
use crate::config::Config;
use crate::digests::DigestStatus;
use crate::forecasts::Forecasts;
use crate::home::Home;
use crate::ingest::Ingest;
use crate::ingest::otlp::doors::Doors;
use crate::judge::Judge;
use crate::live::Hub;
use crate::metrics::Metrics;
use crate::prices::PriceBook;
use crate::problem::Problem;
use crate::repositories::Repositories;
use crate::security::{Auth, Hosts};
use crate::transcripts::Transcripts;

/// The server's state; clones share it.
#[derive(Clone)]
pub(crate) struct App(pub(crate) Arc<Shared>);

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// See [`App`].
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) home: Home,
    /// Of the user who runs the server: what `~` means to the guard.
    pub(crate) user_home: Option<String>,
    pub(crate) spool_limit_bytes: u64,
    pub(crate) base_url: String,
    pub(crate) started_ms: i64,
    pub(crate) hosts: Hosts,
    pub(crate) auth: Auth,
    pub(crate) store: Store,
    pub(crate) prices: Arc<PriceBook>,
    pub(crate) ingest: Ingest,
    pub(crate) judge: Judge,
    pub(crate) transcripts: Arc<Transcripts>,
    /// OpenTelemetry's own ports.
    pub(crate) doors: Doors,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) forecasts: Forecasts,
    pub(crate) answers: Answers,
    /// Turns true when the server is to stop.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) suggest: crate::suggest::Suggest,
    /// What the last background summary said; the health page shows it.
    pub(crate) analytics: Mutex<Result<(), String>>,
    /// What the worker that digests sessions says of itself.
    pub(crate) digests: Arc<DigestStatus>,
    /// What git itself told of local projects.
    pub(crate) repositories: Repositories,
}

impl App {
    /// Reads from the database on a blocking thread, a bounded number at once.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Problem> {
        let slot = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| Problem::Stopping)?;
        let store = self.store.clone();
        let began = Instant::now();
        let result = tokio::task::spawn_blocking(move || {
            let result = store.reader().and_then(|reader| read(&reader));
            drop(slot);
            result
        })
        .await
        .map_err(|_| Problem::Internal)?;
        self.metrics.read_seconds.observe(began.elapsed().as_secs_f64());
        result.map_err(|error| {
            tracing::error!(%error, "a read failed");
            Problem::Store(error.to_string())
        })
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    pub(crate) fn note_analytics(&self, outcome: Result<(), String>) {
        *self.analytics.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

/// Waits until the server is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and the server with it.
    let _ = stop.wait_for(|stop| *stop).await;
}
