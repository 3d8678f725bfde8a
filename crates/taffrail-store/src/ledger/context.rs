//! How full the main agent's context is: what its newest request read, by the requests of the ledger.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use crate::error::ReadError;

/// What the client asks for beside the conversation: it says nothing about the context of the agent.
const BESIDE: &str = "'auxiliary', 'compact'";

/// The main agent's context at its newest request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextSize {
    /// Tokens read.
    pub tokens: i64,
    /// The model's context window, where it is known.
    pub window: Option<i64>,
}

impl ContextSize {
    /// Share of the window, 0 to 1.
    pub fn utilization(&self) -> Option<f64> {
        self.window.filter(|window| *window > 0).map(|window| self.tokens as f64 / window as f64)
    }
}

/// By session, for those of these that have a request of the main agent.
pub(crate) fn of_sessions(
    conn: &Connection,
    sessions: &[String],
) -> Result<HashMap<String, ContextSize>, ReadError> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT r.input + r.cache_read + r.cache_write_5m + r.cache_write_1h, r.context_window
        FROM sessions s CROSS JOIN api_requests r INDEXED BY api_requests_session ON r.session = s.id
        WHERE s.session_id = ?1 AND r.agent_id IS NULL AND r.sources <> 0
            AND (r.query_source IS NULL OR r.query_source NOT IN (SELECT id FROM names WHERE name IN ({BESIDE})))
        ORDER BY r.id DESC LIMIT 1"
    ))?;
    let mut sizes = HashMap::with_capacity(sessions.len());
    for session in sessions {
        let size = statement
            .query_row([session], |row| Ok(ContextSize { tokens: row.get(0)?, window: row.get(1)? }))
            .optional()?;
        if let Some(size) = size {
            sizes.insert(session.clone(), size);
        }
    }
    Ok(sizes)
}
