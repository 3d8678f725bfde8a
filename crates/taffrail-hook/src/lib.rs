//! The hook client: reads stdin, decides, appends to the spool, leaves.
