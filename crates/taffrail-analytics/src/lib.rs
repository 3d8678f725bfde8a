//! Sketches, windows, forecasts, and the analyses over sessions; pure maths.
//!
//! Nothing here reads a clock: the present is an argument. What is analysed comes as a [`trace::Trace`].

pub mod collaboration;
pub mod context;
pub mod digest;
pub mod drift;
pub mod failures;
pub mod features;
pub mod files;
pub mod forecast;
pub mod forest;
pub mod quality;
pub mod sequences;
pub mod sketch;
pub mod trace;
pub mod window;

pub use sketch::Sketch;
pub use window::{Bounds, Resolution, Window};
