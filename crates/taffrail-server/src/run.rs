//! Brings the server up and takes it down.
//!
//! Up: private data directory, lock, address, database, sockets, `server.json`, and only then `ready`. Down, on SIGINT,
//! SIGTERM or when told: no new connections, requests end, the spool is drained once more, the writer commits what
//! waits, and `server.json` and the sockets go.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use taffrail_analytics::window::Window;
use taffrail_event::prices::PriceTable;
use taffrail_hook::spool::{DEFAULT_SPOOL_LIMIT_BYTES, SpoolDir};
use taffrail_store::{LedgerListener, Options, Scope, Store};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use crate::api;
use crate::clock;
use crate::config::{Config, Durability};
use crate::cost_feed::{self, CostFeed};
use crate::digests::{self, DigestStatus};
use crate::forecasts::{self, Forecasts};
use crate::home::Home;
use crate::ingest::otlp::doors::Doors;
use crate::ingest::otlp::grpc;
use crate::ingest::{Ingest, spool};
use crate::judge::{self, Judge};
use crate::learn;
use crate::listen::{self, Protocol};
use crate::live::{self, Hub};
use crate::metrics::Metrics;
use crate::prices::{self, PriceBook};
use crate::repositories::Repositories;
use crate::security::{Auth, Hosts};
use crate::state::{App, Shared};
use crate::transcripts::Transcripts;
use crate::transcripts::tail::Tail;

/// The database's file in the data directory.
pub(crate) const DATABASE: &str = "taffrail.db";
/// Threads that serve requests, at least.
const WORKERS_MIN: usize = 2;
/// Threads that serve requests, at most: they mostly wait.
const WORKERS_MAX: usize = 4;
/// Threads for reads, files and large payloads.
const BLOCKING_MAX: usize = 16;
/// How often readers of the stream get a summary.
const ANALYTICS_EVERY: Duration = Duration::from_secs(5);

/// Serves until SIGINT or SIGTERM; `ready` hears the address once events are taken.
///
/// # Errors
/// When it cannot start: the message says what to do.
pub fn run(config: Config, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    run_until(config, ready, signalled())
}

/// As [`run`], until `stop` is done.
///
/// # Errors
/// As [`run`].
pub fn run_until(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(WORKERS_MIN, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(WORKERS_MIN, WORKERS_MAX))
        .max_blocking_threads(BLOCKING_MAX)
        .thread_name("taffrail")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let served = runtime.block_on(serve(config, ready, stop));
    // What still hangs, a read on a dead disk say, must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    // Polled once before anything else, so that a signal is heard from here on: SIGTERM right after the first 200 of
    // `/ready` must end in an orderly stop, too.
    let mut stop = std::pin::pin!(stop);
    if std::future::poll_fn(|cx| Poll::Ready(stop.as_mut().poll(cx).is_ready())).await {
        return Ok(());
    }
    let home = Home::prepare(&config.data_dir)?;
    let _lock = home.lock()?;
    let token = home.token()?;
    let listener = bind(config.listen).await?;
    let listen = listener.local_addr().context("the address is not known")?;
    let prices = Arc::new(PriceBook::open(home.dir())?);
    let costs = Arc::new(CostFeed::default());
    let (judge, ears) = Judge::new();
    let store = open_store(&config, &home, &prices, &costs, &judge).await?;
    let spool = SpoolDir::open(home.dir()).context("cannot make the spool directory")?;
    #[cfg(unix)]
    let sockets = crate::ask::Sockets::bind(home.dir()).context("cannot bind the hook client's sockets")?;

    let (doors, otlp) = Doors::open(&config.otlp).await;

    let (stopping, stopped) = watch::channel(false);
    let metrics = Arc::new(Metrics::new());
    let bounds = live::Bounds { frames: config.limits.live_frames, bytes: config.limits.live_bytes };
    let (hub, batches) = Hub::new(bounds, Arc::clone(&prices), Arc::clone(&metrics));
    let ingest = Ingest::new(store.clone(), Arc::clone(&hub), judge.clone(), Arc::clone(&metrics));
    let sitting = judge::run(&judge, ears, config.detectors.clone(), store.clone(), Arc::clone(&hub))
        .context("cannot start the thread that judges")?;
    let transcripts = open_transcripts(&store, &ingest, &home).await?;
    let app = App(Arc::new(Shared {
        user_home: std::env::var("HOME").ok().filter(|home| !home.is_empty()),
        spool_limit_bytes: spool_limit_bytes(),
        base_url: format!("http://{listen}"),
        started_ms: clock::now_ms(),
        hosts: Hosts::new(listen, config.allowed_hosts.clone()).with_ports(doors.ports()),
        doors,
        auth: Auth::new(&token),
        ingest,
        judge: judge.clone(),
        transcripts: Arc::clone(&transcripts),
        reads: Arc::new(Semaphore::new(config.limits.reads.max(1))),
        answers: api::windows::Answers::default(),
        suggest: crate::suggest::Suggest::default(),
        analytics: Mutex::new(Ok(())),
        forecasts: Forecasts::default(),
        digests: Arc::new(DigestStatus::default()),
        repositories: Repositories::default(),
        stop: stopped.clone(),
        store: store.clone(),
        prices,
        hub: Arc::clone(&hub),
        metrics: Arc::clone(&metrics),
        home: home.clone(),
        config,
    }));
    let announcement = home.announce(listen, app.started_ms)?;

    let poke = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tokio::spawn(hub.run(batches));
    tasks.spawn(spool::run(app.clone(), spool, Arc::clone(&poke), stopped.clone()));
    #[cfg(unix)]
    tasks.spawn(crate::ask::run(app.clone(), sockets, poke, stopped.clone()));
    tasks.spawn(cost_feed::run(app.clone(), costs, stopped.clone()));
    tasks.spawn(forecasts::run(app.clone(), stopped.clone()));
    tasks.spawn(crate::suggest::worker::run(app.clone(), stopped.clone()));
    tasks.spawn(announce_summaries(app.clone(), stopped.clone()));
    let mut serve = |listener, router, protocol| {
        let limits = app.config.limits.clone();
        tasks.spawn(listen::serve(listener, router, protocol, limits, Arc::clone(&metrics), stopped.clone()));
    };
    serve(listener, api::router(&app), Protocol::Http1);
    if let Some(listener) = otlp.http {
        serve(listener, api::otlp_router(&app), Protocol::Http1);
    }
    if let Some(listener) = otlp.grpc {
        serve(listener, grpc::router(&app), Protocol::Http2);
    }
    // Its rules compile on first use: not in the first hook's time.
    tokio::task::spawn_blocking(|| taffrail_event::redact::Redactor::builtin().redact("").counts.len());
    let digests = digests::start(store.clone(), Arc::clone(&app.digests));
    let learner = learn::start(store.clone(), judge.clone());
    let tail = Tail::start(transcripts, app.config.transcripts.clone());
    tracing::info!(%listen, data_dir = %home.dir().display(), "ready");
    ready(listen);

    stop.await;
    tracing::info!("stopping");
    stopping.send_replace(true);
    drop(announcement);
    let deadline = app.config.limits.shutdown() * 2;
    if tokio::time::timeout(deadline, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("not everything had ended when the stop deadline passed");
    }
    let close = move || {
        learner.stop();
        digests.stop();
        tail.stop();
        judge.stop();
        if sitting.join().is_err() {
            tracing::error!("the thread that judges had panicked");
        }
        store.close();
    };
    tokio::task::spawn_blocking(close).await.context("the database was not closed cleanly")?;
    Ok(())
}

async fn open_store(
    config: &Config,
    home: &Home,
    prices: &PriceBook,
    costs: &Arc<CostFeed>,
    judge: &Judge,
) -> anyhow::Result<Store> {
    let (config, home) = (config.clone(), home.clone());
    let (costs, judge) = (Arc::clone(costs), judge.clone());
    let listener = LedgerListener(Arc::new(move |changes| {
        costs.note(changes);
        judge.charged(changes);
    }));
    let prices = prices.current();
    tokio::task::spawn_blocking(move || open_store_now(&config, &home, prices, Some(listener))).await?
}

async fn open_transcripts(store: &Store, ingest: &Ingest, home: &Home) -> anyhow::Result<Arc<Transcripts>> {
    let (store, apps, dir) = (store.clone(), Arc::clone(&ingest.apps), home.dir().to_owned());
    let opened = tokio::task::spawn_blocking(move || Transcripts::open(store, apps, &dir)).await?;
    Ok(Arc::new(opened.context("the known transcripts cannot be read")?))
}

/// Opens the database as the configuration wants it; blocks.
pub(crate) fn open_store_now(
    config: &Config,
    home: &Home,
    prices: Arc<PriceTable>,
    on_ledger: Option<LedgerListener>,
) -> anyhow::Result<Store> {
    let options = Options {
        durability: match config.durability {
            Durability::Commit => taffrail_store::Durability::Commit,
            Durability::Process => taffrail_store::Durability::Process,
        },
        queue_events: config.limits.queue_events,
        cache_bytes: config.limits.cache_bytes,
        readers: config.limits.reads.max(1),
        prices,
        on_ledger,
        ..Options::new(home.path(DATABASE))
    };
    let store = Store::open(&options)?;
    prices::warn_of_history(&store, &options.prices);
    Ok(store)
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(listen).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let holder = holder_of(listen).map(|pid| format!(" by process {pid}")).unwrap_or_default();
            anyhow::bail!(
                "the address {listen} is in use{holder}\n\
                 hint: stop what listens there, or choose another port with --listen {}:PORT",
                listen.ip()
            )
        }
        Err(error) => Err(error).with_context(|| {
            format!("cannot listen on {listen}\nhint: choose another address with --listen ADDRESS:PORT")
        }),
    }
}

/// The process that listens on a port, where Linux lets us see it: `/proc/net/tcp*` names the socket, `/proc/PID/fd` its
/// owner.
fn holder_of(listen: SocketAddr) -> Option<u32> {
    const LISTENING: &str = "0A";
    let port = format!(":{:04X}", listen.port());
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (local, state) = (fields.nth(1)?, fields.nth(1)?);
            (local.ends_with(&port) && state == LISTENING).then(|| fields.nth(5).map(str::to_owned))?
        })
    })?;
    let wanted = format!("socket:[{inode}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let owns =
            files.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()));
        owns.then_some(pid)
    })
}

/// The bound that hooks keep to, if theirs is the environment of this process.
fn spool_limit_bytes() -> u64 {
    let told = std::env::var(taffrail_hook::env_vars::SPOOL_LIMIT_BYTES).ok();
    told.and_then(|bytes| bytes.parse().ok()).unwrap_or(DEFAULT_SPOOL_LIMIT_BYTES)
}

/// One summary of the last minute for everybody who listens.
async fn announce_summaries(app: App, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(ANALYTICS_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = crate::state::stopped(&mut stop) => return,
        }
        if app.hub.clients() == 0 {
            continue;
        }
        match api::summary::read(&app, Window::M1, Scope::default()).await {
            Ok(summary) => {
                app.hub.announce("analytics", &summary);
                app.note_analytics(Ok(()));
            }
            Err(problem) => app.note_analytics(Err(problem.to_string())),
        }
    }
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be heard; stop this process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signalled() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
