//! Ingest, API, live stream: the only tokio and axum.
