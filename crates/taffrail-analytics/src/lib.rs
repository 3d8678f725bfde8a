//! Sketches and windows; pure maths.
//!
//! Nothing here reads a clock: the present is an argument.

pub mod sketch;
pub mod window;

pub use sketch::Sketch;
pub use window::{Bounds, Resolution, Window};
