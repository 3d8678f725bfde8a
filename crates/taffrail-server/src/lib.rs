//! Ingest, API and live stream: the only tokio and axum.
//!
//! Flow: `listen` accepts, `security` checks who asks, `ingest` turns what comes into events and stores them, `live`
//! shows what was committed, `api` reads. `run` wires all of it and takes it down again.

mod api;
#[cfg(unix)]
mod ask;
mod assets;
mod clock;
pub mod config;
mod home;
mod human;
mod ingest;
mod listen;
mod live;
mod metrics;
mod problem;
mod run;
mod security;
mod state;
mod stream;

pub use api::{openapi, types};
pub use config::{Config, ConfigError, Flags, Limits};
pub use run::{run, run_until};
