//! Sketches and windows; pure maths.
