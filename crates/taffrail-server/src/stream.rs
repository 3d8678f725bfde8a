//! `GET /stream`: the old contract's WebSocket, and the native one with `?format=native`.
//!
//! First `initial` with what is newest, oldest first, then a frame for each event as it is committed. What a client
//! sends is read and thrown away. A client that answers no ping for [`SILENCE_MAX`] is dropped.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use serde::Deserialize;
use taffrail_store::{EventFilter, Payloads};
use tokio::time::Instant;

use crate::api::params::{Params, text};
use crate::api::types::EventJson;
use crate::ingest::routes_legacy::{RECENT_DEFAULT, recent_echoes};
use crate::live::{Format, Frame, Next, Subscription, Wanted, frame_of};
use crate::problem::Problem;
use crate::state::{App, stopped};

/// Largest message taken from a client, in bytes; nothing is expected of it.
const CLIENT_MESSAGE_BYTES: usize = 64 * 1024;
/// How often a client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(25);
/// A client silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(80);
/// Events of the first frame, at most.
const INITIAL_MAX: usize = 1_000;

/// What `/stream` can be asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// `native` for events as of the native API; else the old contract's.
    format: Option<String>,
    /// Native only: the project.
    app: Option<String>,
    /// Native only: the session.
    session: Option<String>,
    /// Native only: the event's type.
    #[serde(rename = "type")]
    type_name: Option<String>,
    /// Native only: the tool.
    tool: Option<String>,
    /// Native only: the subagent; empty for the main agent.
    agent: Option<String>,
    /// Events of the first frame: 300 unless told, at most 1,000.
    limit: Option<usize>,
}

/// The live stream.
#[utoipa::path(
    get, path = "/stream", tag = "live", params(StreamQuery),
    responses((status = 101, description = "a WebSocket of frames", body = crate::api::types::FrameJson))
)]
pub(crate) async fn stream(
    State(app): State<App>,
    Params(query): Params<StreamQuery>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    let format = match query.format.as_deref() {
        None | Some("" | "legacy") => Format::Legacy,
        Some("native") => Format::Native,
        Some(other) => {
            return Err(Problem::BadRequest(format!("format `{other}` is not known; there is `native`")));
        }
    };
    let wanted = match format {
        Format::Legacy => Wanted::default(),
        Format::Native => Wanted {
            app: text(query.app),
            session: text(query.session),
            type_name: text(query.type_name),
            tool: text(query.tool),
            agent: query.agent,
        },
    };
    let limit = query.limit.unwrap_or(RECENT_DEFAULT).min(INITIAL_MAX);
    // Subscribed before the first read, so that nothing falls between; what is in both is sent once.
    let live = app
        .hub
        .subscribe(format, wanted.clone(), app.config.limits.live_clients)
        .ok_or(Problem::TooManyReaders)?;
    Ok(upgrade
        .max_message_size(CLIENT_MESSAGE_BYTES)
        .max_frame_size(CLIENT_MESSAGE_BYTES)
        .on_upgrade(move |socket| converse(app, socket, live, format, wanted, limit)))
}

async fn converse(
    app: App,
    mut socket: WebSocket,
    live: Subscription,
    format: Format,
    wanted: Wanted,
    limit: usize,
) {
    let (first, sent) = match initial(&app, format, wanted, limit).await {
        Ok(initial) => initial,
        Err(problem) => {
            tracing::warn!(%problem, "a stream could not begin");
            let close =
                CloseFrame { code: close_code::ERROR, reason: "the database could not be read".into() };
            let _ = socket.send(Message::Close(Some(close))).await;
            return;
        }
    };
    if socket.send(Message::Text(first.text)).await.is_err() {
        return;
    }
    if let Err(error) = follow(&app, &mut socket, &live, &sent).await {
        tracing::debug!(%error, "a stream ended");
    }
}

/// Sends what comes until the client leaves or the server stops.
async fn follow(
    app: &App,
    socket: &mut WebSocket,
    live: &Subscription,
    sent: &HashSet<i64>,
) -> Result<(), axum::Error> {
    let mut stop = app.stop.clone();
    let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            next = live.next() => match next {
                Next::Frame(frame) if frame.new_event.is_some_and(|id| sent.contains(&id)) => {}
                Next::Frame(frame) => socket.send(Message::Text(frame.text)).await?,
                Next::Dropped(frames) => {
                    if let Some(frame) = frame_of("dropped", &frames, None) {
                        socket.send(Message::Text(frame.text)).await?;
                    }
                }
            },
            message = socket.recv() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(_)) => heard = Instant::now(),
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return Ok(());
                }
                socket.send(Message::Ping(Vec::new().into())).await?;
            }
            () = stopped(&mut stop) => {
                let close = CloseFrame { code: close_code::RESTART, reason: "the server is stopping".into() };
                return socket.send(Message::Close(Some(close))).await;
            }
        }
    }
}

/// The first frame, and which events are in it.
async fn initial(
    app: &App,
    format: Format,
    wanted: Wanted,
    limit: usize,
) -> Result<(Frame, HashSet<i64>), Problem> {
    let (frame, ids) = match format {
        Format::Legacy => {
            let events = recent_echoes(app, limit).await?;
            let ids = events.iter().filter_map(|e| e.get("id")?.get().parse().ok()).collect();
            (frame_of("initial", &events, None), ids)
        }
        Format::Native => {
            let filter = EventFilter {
                app: wanted.app,
                session: wanted.session,
                type_name: wanted.type_name,
                tool: wanted.tool,
                agent: wanted.agent,
                ..EventFilter::default()
            };
            let page = app.read(move |reader| reader.events(&filter, None, limit, Payloads::Without)).await?;
            let events: Vec<EventJson> = page.rows.into_iter().rev().map(EventJson::from).collect();
            let ids = events.iter().map(|e| e.id).collect();
            (frame_of("initial", &events, None), ids)
        }
    };
    Ok((frame.ok_or(Problem::Internal)?, ids))
}
