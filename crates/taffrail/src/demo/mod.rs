//! `taffrail demo`: a fleet of simulated agents, recorded like real ones, in a data directory of its own.
//!
//! The fleet is a function of seed, agent and time alone: what an agent does in a slot of [`SLOT_MS`] never changes. So
//! a demo that is started again fills the gap since and stores nothing twice.

mod bill;
mod catalog;
mod rng;
mod script;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use taffrail_event::EventId;
use taffrail_server::config::{Config, DEFAULT_LISTEN};

use crate::cli::{DemoArgs, ServeOptions};
use crate::client::Client;
use crate::home::Home;
use crate::import::progress::{Progress, Unit};
use crate::import::sink::{BatchLine, Body, Sink, Stored};
use crate::local::{Local, Until};
use crate::print::{self, out};
use crate::up;
use bill::Bill;
use rng::Rng;
use script::Session;

/// An agent begins a session at most once in this time.
const SLOT_MS: i64 = 15 * 60_000;
/// A session may run into the slots after its own, this many.
const OVERRUN_SLOTS: i64 = 3;
/// The longest history.
const HISTORY_MAX_MS: i64 = 30 * 86_400_000;
const TICK: Duration = Duration::from_millis(500);
/// These agents work around the clock, so that there is always something to see.
const ALWAYS_ON_AGENTS: u16 = 2;

pub(crate) fn run(home: &Home, args: &DemoArgs) -> Result<()> {
    let history_ms = span_ms(&args.history)?;
    let home = Home::at(&home.dir().join("demo"))?;
    let server = DemoServer::of(&home, args)?;
    let fleet = Fleet { seed: args.seed, agents: args.agents };
    let now = now_ms();
    let stored = backfill(&fleet, server.client(), now - history_ms, now)?;
    eprintln!("{} of history in {}", print::count(stored.stored, "new event"), home.dir().display());
    out(&format!(
        "the demo is running at {}/  open: {}",
        server.client().base(),
        up::link(server.client())?
    ))?;
    if args.once {
        return Ok(());
    }
    eprintln!("{} agents are at work; stop with Ctrl-C", args.agents);
    live(&fleet, &server, now)?;
    server.wait()
}

/// The server of the demo's directory: one in the background, or this process itself.
enum DemoServer {
    Background(Client),
    Own(Local),
}

impl DemoServer {
    fn of(home: &Home, args: &DemoArgs) -> Result<Self> {
        if let Some(client) = Client::find(home) {
            return Ok(Self::Background(client));
        }
        let listen = args.listen.map_or_else(free_address, Ok)?;
        if args.once {
            let options = ServeOptions { listen: Some(listen.to_string()), ..ServeOptions::default() };
            return Ok(Self::Background(up::ensure(home, &options)?.0));
        }
        home.make()?;
        let config = Config { listen, ..Config::for_dir(home.dir()) };
        Ok(Self::Own(Local::start(home, config, Until::Interrupted)?))
    }

    fn client(&self) -> &Client {
        match self {
            Self::Background(client) => client,
            Self::Own(local) => local.client(),
        }
    }

    fn is_running(&self) -> bool {
        match self {
            Self::Background(_) => true,
            Self::Own(local) => local.is_running(),
        }
    }

    /// Until it has left; it was told so by whoever interrupted this process.
    fn wait(self) -> Result<()> {
        match self {
            Self::Background(_) => Ok(()),
            Self::Own(local) => local.stop(),
        }
    }
}

/// The usual address, or a free port where something else has it.
fn free_address() -> Result<SocketAddr> {
    let usual: SocketAddr = DEFAULT_LISTEN.parse().context("the default address is none")?;
    let is_free = TcpListener::bind(usual).is_ok();
    Ok(if is_free { usual } else { SocketAddr::new(usual.ip(), 0) })
}

/// Who works when.
struct Fleet {
    seed: u64,
    agents: u16,
}

impl Fleet {
    /// What that agent does from that slot on, unless it rests.
    fn session(&self, agent: u16, slot: i64) -> Option<Session> {
        let mut rng = Rng::new(&[self.seed, 0x7265_7374, u64::from(agent), slot.unsigned_abs()]);
        let hour = (slot * SLOT_MS).div_euclid(3_600_000).rem_euclid(24);
        let rest = if (7..20).contains(&hour) { 0.15 } else { 0.75 };
        let rests = agent >= ALWAYS_ON_AGENTS && rng.chance(rest);
        // Nobody begins on the stroke of the clock, and no two agents at once.
        let mut phase = Rng::new(&[self.seed, 0x7068_6173, u64::from(agent)]);
        let begins_ms = slot * SLOT_MS + (SLOT_MS as f64 * phase.share()) as i64;
        (!rests).then(|| script::session(self.seed, agent, slot, begins_ms, SLOT_MS))
    }
}

/// Stores what happened in sessions that began since `from_ms`, up to `to_ms`.
fn backfill(fleet: &Fleet, client: &Client, from_ms: i64, to_ms: i64) -> Result<Stored> {
    let slots = from_ms.div_euclid(SLOT_MS) + 1..=to_ms.div_euclid(SLOT_MS);
    let progress = Progress::new(slots.clone().count() as u64, Unit::Slots);
    let mut sink = Sink::to(client.clone());
    let mut bill = Bill::new(client, fleet.seed);
    for slot in slots {
        for agent in 0..fleet.agents {
            if let Some(session) = fleet.session(agent, slot) {
                push(fleet, &session, i64::MIN, to_ms, &mut sink)?;
                bill.add(&session, i64::MIN, to_ms)?;
            }
        }
        progress.advance(1);
    }
    let stored = sink.finish();
    bill.send()?;
    progress.finish();
    stored
}

/// Stores what happens as it happens, until the server is told to stop.
fn live(fleet: &Fleet, server: &DemoServer, since_ms: i64) -> Result<()> {
    let mut sessions: HashMap<(u16, i64), Option<Session>> = HashMap::new();
    let mut done_ms = since_ms;
    while server.is_running() {
        std::thread::sleep(TICK);
        let now = now_ms();
        let slot = now.div_euclid(SLOT_MS);
        sessions.retain(|(_, begun), _| *begun >= slot - OVERRUN_SLOTS);
        let mut sink = Sink::to(server.client().clone());
        let mut bill = Bill::new(server.client(), fleet.seed);
        for agent in 0..fleet.agents {
            for begun in slot - OVERRUN_SLOTS..=slot {
                let session = sessions.entry((agent, begun)).or_insert_with(|| fleet.session(agent, begun));
                if let Some(session) = session {
                    push(fleet, session, done_ms, now, &mut sink)?;
                    bill.add(session, done_ms, now)?;
                }
            }
        }
        if let Err(error) = sink.finish().and_then(|_| bill.send()) {
            // A server that was told to stop answers no more; that is the end of the demo, not a failure.
            if server.is_running() { bail!(error) } else { return Ok(()) }
        }
        done_ms = now;
    }
    Ok(())
}

/// Sends the session's deliveries after `after_ms`, up to `to_ms`.
fn push(fleet: &Fleet, session: &Session, after_ms: i64, to_ms: i64, sink: &mut Sink) -> Result<()> {
    for (index, tick) in session.ticks.iter().enumerate() {
        if tick.ts_ms <= after_ms || tick.ts_ms > to_ms {
            continue;
        }
        let payload = serde_json::to_vec(&tick.payload)?;
        let index = (index as u64).to_le_bytes();
        let id: [&[u8]; 4] = [b"demo", &fleet.seed.to_le_bytes(), session.session_id.as_bytes(), &index];
        sink.push(&BatchLine {
            event_id: EventId::derived(&id),
            captured_ms: Some(tick.ts_ms),
            app: Some(session.app),
            user: Some(session.user),
            host: Some(session.host),
            body: Body::Payload(&payload),
        })?;
    }
    Ok(())
}

/// "30m", "24h", "7d" in milliseconds.
fn span_ms(text: &str) -> Result<i64> {
    let unit_ms = match text.chars().last() {
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).and_then(|n| n.parse::<u32>().ok()).map(i64::from);
    match number.map(|n| n * unit_ms) {
        Some(ms) if unit_ms > 0 && ms <= HISTORY_MAX_MS => Ok(ms),
        _ => bail!(
            "`{text}` is no span for the history\nhint: give minutes, hours or days up to 30d, such as 24h"
        ),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn spans_are_minutes_hours_or_days() {
        assert_eq!((span_ms("30m").unwrap(), span_ms("24h").unwrap()), (1_800_000, 86_400_000));
        for wrong in ["", "h", "5", "5s", "31d", "-1h", "2é"] {
            assert!(span_ms(wrong).unwrap_err().to_string().contains("hint:"), "{wrong}");
        }
    }

    #[test]
    fn sessions_end_before_they_are_forgotten() {
        let fleet = Fleet { seed: 1, agents: 6 };
        for slot in 0..200 {
            for agent in 0..fleet.agents {
                let Some(session) = fleet.session(agent, slot) else { continue };
                let last = session.ticks.last().unwrap().ts_ms;
                assert!(last < (slot + OVERRUN_SLOTS) * SLOT_MS + SLOT_MS, "agent {agent}, slot {slot}");
            }
        }
    }
}
