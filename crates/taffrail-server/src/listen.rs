//! The accept loop: plain `axum::serve` has no bound on how long a peer may take, this has one on everything.
//!
//! A request's headers must be complete within `header_read_ms` of their first byte; a connection may lie idle for
//! `idle_ms`; an answer may lie unread for `write_stall_ms`; at most `connections` are served at once and one more is
//! told 503. Bodies have their own clock in `ingest::body`. HTTP/1.1 with upgrades for `/stream`; HTTP/2 without TLS on
//! the port of gRPC alone, with at most [`STREAMS_MAX`] calls of one connection at once and a ping every [`PING_EVERY`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::state::stopped;

/// Largest head of a request, in bytes.
const HEADERS_BYTES: usize = 64 * 1024;
/// Calls of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 32;
/// How often an HTTP/2 peer must show that it lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// How often a peer that sent a part of it is looked at again.
const PREFACE_POLL: Duration = Duration::from_millis(20);
/// How long to wait when the system has no descriptor left for a new connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// What one connection too many is told, before its request is read.
const TOO_MANY: &str = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"too_many_connections","detail":"too many connections"}"#;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// Without TLS, from the first byte: as gRPC clients on this machine do.
    Http2,
}

/// Serves until `stop` turns true, then lets requests end within the deadline.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    protocol: Protocol,
    limits: Limits,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let limits = Arc::new(limits);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            metrics.connections_refused.inc();
            refuse(stream).await;
            continue;
        };
        let (app, limits, stop) = (app.clone(), Arc::clone(&limits), stop.clone());
        tokio::spawn(async move {
            match protocol {
                Protocol::Http1 => connection(stream, peer, app, &limits, stop).await,
                Protocol::Http2 => connection_http2(stream, peer, app, &limits, stop).await,
            }
            drop(slot);
        });
    }
    drop(listener);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(limits.shutdown(), slots.acquire_many(all)).await.is_err() {
        tracing::warn!("connections were still open when the stop deadline passed");
    }
}

async fn refuse(mut stream: TcpStream) {
    // A fresh socket's send buffer always has room for this; a peer that is gone is no matter.
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{TOO_MANY}",
        TOO_MANY.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
) {
    // An answer is one small segment: waiting to fill it would cost the hook 40 ms.
    let _ = stream.set_nodelay(true);
    let phase = Arc::new(AtomicU8::new(IDLE));
    let io = TokioIo::new(Timed::new(stream, limits, Arc::clone(&phase)));
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        phase.store(BUSY_PHASE, Ordering::Relaxed);
        let (app, phase) = (app.clone(), Arc::clone(&phase));
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            let response = app.oneshot(request).await;
            // A connection that became a WebSocket has no more requests whose heads could be slow.
            if !matches!(&response, Ok(r) if r.status() == StatusCode::SWITCHING_PROTOCOLS) {
                phase.store(IDLE, Ordering::Relaxed);
            }
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Counts from the end of the last request, so it is the idle bound; the head has its own in `Timed`.
        .header_read_timeout(limits.idle())
        .keep_alive(true)
        .half_close(true)
        .max_buf_size(HEADERS_BYTES)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

async fn connection_http2(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    if tokio::time::timeout(limits.header_read(), preface(&stream)).await.is_err() {
        return;
    }
    // One connection carries many requests: pings tell whether the peer lives, and no head has a clock of its own.
    let io = TokioIo::new(Timed::new(stream, limits, Arc::new(AtomicU8::new(BUSY_PHASE))));
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let app = app.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            // HTTP/2 has the host in the target; the checks look at the header.
            let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            if let Some(host) = host.filter(|_| !request.headers().contains_key(header::HOST)) {
                request.headers_mut().insert(header::HOST, host);
            }
            app.oneshot(request).await
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES as u32)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(limits.header_read())
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

/// Waits until the peer has said that it speaks HTTP/2, or has said something else, or has left.
async fn preface(stream: &TcpStream) {
    let mut head = [0; PREFACE_BYTES];
    while matches!(stream.peek(&mut head).await, Ok(1..PREFACE_BYTES)) {
        tokio::time::sleep(PREFACE_POLL).await;
    }
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY_PHASE: u8 = 2;

/// A socket that gives up on a peer that sends its headers, or takes our bytes, too slowly.
struct Timed {
    stream: TcpStream,
    phase: Arc<AtomicU8>,
    header_read: Duration,
    write_stall: Duration,
    head_until: Option<Instant>,
    read_deadline: Option<Pin<Box<Sleep>>>,
    write_deadline: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    fn new(stream: TcpStream, limits: &Limits, phase: Arc<AtomicU8>) -> Self {
        Self {
            stream,
            phase,
            header_read: limits.header_read(),
            write_stall: Duration::from_millis(limits.write_stall_ms),
            head_until: None,
            read_deadline: None,
            write_deadline: None,
        }
    }

    fn stalled<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_deadline = None;
            return outcome;
        }
        let stall = self.write_stall;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() > before {
            let begins =
                self.phase.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if begins {
                self.head_until = Some(Instant::now() + self.header_read);
                self.read_deadline = None;
            }
        }
        // A head mostly comes in one piece: only one that lets us wait costs a timer.
        if read.is_pending() && self.phase.load(Ordering::Relaxed) == HEAD {
            let until = self.head_until.unwrap_or_else(Instant::now);
            let deadline =
                self.read_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stalled(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.stalled(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.stalled(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
