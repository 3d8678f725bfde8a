//! The digest of a session beside slow, obviously right recomputations, on random and on real sessions.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod bounds;
mod examples;
mod oracle;
mod random;
mod real;
mod watch;
