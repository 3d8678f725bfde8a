//! Prompt judgement: signals of agents at work become findings. Pure: no clock, file or environment.
//!
//! [`Engine::step`] takes one [`Signal`] and gives the [`Finding`]s it brings about. The same signals with the same
//! times give the same findings, so history can be replayed ([`signal::signals`]) and a change of thresholds tried.
//! Each detector is a module of [`detectors`]; its thresholds are a table of [`Config`]. What each means stands in
//! `docs/ANALYTICS.md`, what they did on real sessions in `docs/DETECTORS.md`.
//!
//! State is bounded ([`engine::SESSIONS_MAX`], [`engine::AGENTS_MAX`], [`session::AGENTS_PER_SESSION_MAX`] and the limits
//! named in each detector); what is forgotten is counted in [`Stats`]. Nothing is saved: after a restart
//! [`Engine::warm`] takes the newest rows again and emits nothing.

mod bounded;
mod clock;
mod episode;
mod nature;
mod spend;

pub mod config;
pub mod detectors;
pub mod engine;
pub mod finding;
pub mod session;
pub mod signal;
pub mod suggest;

pub use config::{Config, ConfigError};
pub use detectors::Detector;
pub use engine::{Engine, Stats};
pub use finding::{Action, Finding, Phase};
pub use signal::{Signal, Told, What};
