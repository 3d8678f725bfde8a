//! Ids, units, the event model and its wire formats; pure.
