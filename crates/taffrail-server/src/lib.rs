//! Ingest, API and live stream: the only tokio and axum.
//!
//! Flow: `listen` accepts, `security` checks who asks, `ingest` turns what comes into events and stores them, `live`
//! shows what was committed, `api` reads. `run` wires all of it and takes it down again.

mod api;
#[cfg(unix)]
mod ask;
mod assets;
mod background;
pub mod calendar;
mod clock;
pub mod config;
mod cost_feed;
mod digests;
mod forecasts;
mod home;
mod human;
mod ingest;
mod investigate;
mod judge;
mod learn;
mod listen;
mod live;
mod metrics;
pub mod prices;
mod problem;
mod repositories;
mod run;
mod security;
mod state;
mod stream;
mod suggest;
pub mod transcripts;

pub use api::{openapi, types};
pub use config::{Config, ConfigError, Flags, Limits, TranscriptsConfig};
pub use run::{run, run_until};
