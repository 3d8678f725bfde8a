//! The server as others see it: in this process, on a free port, in a directory of its own.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod anomalies;
mod captures;
mod costs;
mod digests;
mod forecasts;
mod harness;
mod ingest;
mod live;
mod native;
mod old_contract;
mod otlp;
mod prices;
mod security;
mod spool;
mod start;
mod suggestions;
mod transcripts;
