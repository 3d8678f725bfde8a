//! The only SQL: the embedded SQLite store, its migrations and its writer.
