//! Reads by window: every metric for every subject, series, heatmap, tools, agents.

mod cells;
mod read;
mod reads;
pub(crate) mod rows;
mod types;

use taffrail_analytics::Window;
use taffrail_event::TimestampMs;

use crate::error::ReadError;
use crate::filter::Scope;
use crate::reader::Reader;

#[cfg(test)]
pub(crate) use reads::{
    agent_stats as read_agents, figures as read_figures, heatmap as read_heatmap, series as read_series,
    tools as read_tools,
};
pub use types::*;

impl Reader {
    /// Every metric of a subject in a window that ends at `now`, with the window before and the steps of the history.
    pub fn figures(&self, window: Window, subject: &Subject, now: TimestampMs) -> Result<Figures, ReadError> {
        self.at_once(|conn| reads::figures(conn, window, subject, now.get()))
    }

    /// One metric over time, told apart by a group. Empty where the subject cannot have it, or where it is not kept
    /// by that group.
    pub fn series(&self, query: &SeriesQuery, now: TimestampMs) -> Result<SeriesRows, ReadError> {
        self.at_once(|conn| reads::series(conn, query, now.get()))
    }

    /// Calls by tool and time, and by weekday and hour.
    pub fn heatmap(&self, window: Window, scope: &Scope, now: TimestampMs) -> Result<HeatmapRows, ReadError> {
        self.at_once(|conn| reads::heatmap(conn, window, scope, now.get()))
    }

    /// What each tool did in a window that ends at `now`.
    pub fn tools(&self, window: Window, scope: &Scope, now: TimestampMs) -> Result<ToolsRows, ReadError> {
        self.at_once(|conn| reads::tools(conn, window, scope, now.get()))
    }

    /// What each type of agent did in a window that ends at `now`, most calls first.
    pub fn agent_stats(
        &self,
        window: Window,
        scope: &Scope,
        now: TimestampMs,
    ) -> Result<Vec<AgentStats>, ReadError> {
        self.at_once(|conn| reads::agent_stats(conn, window, scope, now.get()))
    }
}
