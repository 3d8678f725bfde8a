//! The event model: ids and units, the one [`Event`] that passes through the house,
//! the wire formats it comes from, and the pure functions between them.
//!
//! Nothing here reads a clock, a file or the environment: time, names and bytes are arguments.
//! Without the `normalize` feature only what the hook client needs is compiled.

pub mod frame;
pub mod hook_event;
pub mod ids;

#[cfg(feature = "normalize")]
pub mod event;
#[cfg(feature = "normalize")]
pub mod json_syntax;
#[cfg(feature = "normalize")]
pub mod json_text;
#[cfg(feature = "normalize")]
pub mod ledger;
#[cfg(feature = "normalize")]
pub mod normalize;
#[cfg(feature = "normalize")]
pub mod prices;
#[cfg(feature = "normalize")]
pub mod redact;
#[cfg(feature = "normalize")]
pub mod transcript;

pub use hook_event::HookEvent;
pub use ids::{DedupKey, EventId, RowId, TimestampMs};

#[cfg(feature = "normalize")]
pub use event::{Event, Fact, Source};
