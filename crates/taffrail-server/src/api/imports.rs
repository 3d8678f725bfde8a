//! Imports that the server does itself: the caller names files, and hears how far it is.
//!
//! The answer is JSON lines: progress at most every [`PROGRESS_EVERY`], and last the totals or an error. Whoever hangs up
//! ends the import after the transaction under way; what is stored stays, and importing again goes on there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;

use crate::problem::{Problem, ProblemJson};
use crate::state::App;
use crate::transcripts::{ImportLine, ImportRequest};

/// Between two lines of progress, at least.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Between two looks whether it is to end.
const CANCEL_LOOK: Duration = Duration::from_millis(100);
/// Lines that wait for the caller.
const LINES_WAITING: usize = 8;
/// Largest request, in bytes.
const REQUEST_MAX_BYTES: usize = 1 << 20;
/// Paths of one request.
const PATHS_MAX: usize = 10_000;

/// Imports transcripts from files and folders of the server's machine; an empty list means the client's own folders.
#[utoipa::path(
    post, path = "/api/v1/imports/transcripts", tag = "ingest", request_body = ImportRequest,
    responses(
        (status = 200, description = "JSON lines: `progress` now and then, `totals` or `error` last",
            body = ImportLine, content_type = "application/x-ndjson"),
        (status = 400, body = ProblemJson),
        (status = 401, body = ProblemJson),
    )
)]
pub(crate) async fn transcripts(State(app): State<App>, body: Body) -> Result<Response, Problem> {
    let body = axum::body::to_bytes(body, REQUEST_MAX_BYTES)
        .await
        .map_err(|_| Problem::TooLarge { limit_bytes: REQUEST_MAX_BYTES })?;
    let request = checked(&body)?;
    let (to, lines) = mpsc::channel::<ImportLine>(LINES_WAITING);
    let cancel = Arc::new(AtomicBool::new(false));
    tokio::spawn(cancel_with(app.clone(), to.downgrade(), Arc::clone(&cancel)));
    tokio::spawn(async move {
        // It is never closed.
        let Ok(one) = Arc::clone(&app.transcripts.importing).acquire_owned().await else { return };
        let import = move || {
            run(&app, &request, &to, &cancel);
            drop(one);
        };
        tokio::task::spawn_blocking(import);
    });
    let lines = stream::unfold(lines, |mut lines| async move {
        let mut text = serde_json::to_vec(&lines.recv().await?).unwrap_or_default();
        text.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), lines))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn checked(body: &[u8]) -> Result<ImportRequest, Problem> {
    let request: ImportRequest =
        serde_json::from_slice(body).map_err(|error| Problem::BadRequest(error.to_string()))?;
    if request.paths.len() + request.roots.len() > PATHS_MAX {
        return Err(Problem::BadRequest(format!("more than {PATHS_MAX} paths; name folders instead")));
    }
    if let Some(path) = request.paths.iter().chain(&request.roots).find(|path| !path.is_absolute()) {
        return Err(Problem::BadRequest(format!("`{}` is no absolute path", path.display())));
    }
    Ok(request)
}

/// Tells the import to end where nobody listens any more, or the server stops.
async fn cancel_with(app: App, to: mpsc::WeakSender<ImportLine>, cancel: Arc<AtomicBool>) {
    // The sender goes with the import.
    while let Some(to) = to.upgrade() {
        if to.is_closed() || app.is_stopping() {
            cancel.store(true, Ordering::Relaxed);
        }
        drop(to);
        tokio::time::sleep(CANCEL_LOOK).await;
    }
}

fn run(app: &App, request: &ImportRequest, to: &mpsc::Sender<ImportLine>, cancel: &AtomicBool) {
    let mut said: Option<Instant> = None;
    let mut on_progress = |progress| {
        if said.is_none_or(|said| said.elapsed() >= PROGRESS_EVERY) {
            said = Some(Instant::now());
            // A caller that does not keep up misses progress, not the totals.
            let _ = to.try_send(ImportLine::Progress(progress));
        }
    };
    let roots = &app.config.transcripts.roots;
    let last = match app.transcripts.import(request, roots, cancel, &mut on_progress) {
        Ok(totals) => ImportLine::Totals(totals),
        Err(error) => {
            tracing::warn!(%error, "an import did not go to its end");
            ImportLine::Error(error.to_string())
        }
    };
    // A caller that hung up hears nothing.
    let _ = to.blocking_send(last);
}
