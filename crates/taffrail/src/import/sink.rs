//! Where imported events go: the batch route of the data directory's server, so that they take the same way as all
//! others. Where none runs, this process serves the directory itself for as long as it takes.
//!
//! Limits: [`BATCH_BYTES`] and [`BATCH_LINES`] a request, [`BATCHES_WAITING`] requests ahead, [`RETRIES_MAX`] waits for a
//! full queue.

use std::fmt::Write as _;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use taffrail_event::EventId;

use crate::client::{Client, parse};
use crate::home::Home;
use crate::local::{Local, Until};
use taffrail_server::config::Config;

const BATCH_BYTES: usize = 1 << 20;
const BATCH_LINES: usize = 500;
const BATCHES_WAITING: usize = 2;
const RETRIES_MAX: u32 = 120;
const RETRY_AFTER: Duration = Duration::from_millis(250);
pub(crate) const BATCH_PATH: &str = "/v1/hooks/claude-code/batch";

/// One event to store.
pub(crate) struct BatchLine<'a> {
    pub(crate) event_id: EventId,
    pub(crate) captured_ms: Option<i64>,
    pub(crate) app: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) body: Body<'a>,
}

/// What the event says.
pub(crate) enum Body<'a> {
    /// A hook payload, or bytes that are none.
    Payload(&'a [u8]),
    /// A post of the old server's contract, as JSON text.
    Post(&'a str),
}

/// What the server made of what it got.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Stored {
    pub(crate) stored: u64,
    pub(crate) duplicates: u64,
}

/// Takes lines in; [`Sink::finish`] waits until all are committed.
pub(crate) struct Sink {
    batch: String,
    lines: usize,
    to: Target,
}

enum Target {
    Nowhere,
    Sender { batches: SyncSender<String>, worker: JoinHandle<Result<Stored>> },
    Failed,
}

impl Sink {
    /// Takes everything and keeps nothing.
    pub(crate) fn nowhere() -> Self {
        Self { batch: String::new(), lines: 0, to: Target::Nowhere }
    }

    /// Sends to this server.
    pub(crate) fn to(client: Client) -> Self {
        let (batches, waiting) = mpsc::sync_channel::<String>(BATCHES_WAITING);
        let worker = std::thread::spawn(move || {
            let mut total = Stored::default();
            for batch in waiting {
                let answer = send(&client, &batch)?;
                total.stored += answer.stored;
                total.duplicates += answer.duplicates;
            }
            Ok(total)
        });
        Self { batch: String::new(), lines: 0, to: Target::Sender { batches, worker } }
    }

    pub(crate) fn push(&mut self, line: &BatchLine<'_>) -> Result<()> {
        if matches!(self.to, Target::Nowhere) {
            return Ok(());
        }
        write_line(&mut self.batch, line)?;
        self.lines += 1;
        if self.lines >= BATCH_LINES || self.batch.len() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.lines = 0;
        let batch = std::mem::take(&mut self.batch);
        let Target::Sender { batches, .. } = &self.to else { return Ok(()) };
        if batch.is_empty() || batches.send(batch).is_ok() {
            return Ok(());
        }
        // The worker has ended, which it does early only with an error.
        match std::mem::replace(&mut self.to, Target::Failed) {
            Target::Sender { worker, .. } => {
                join(worker)?;
                bail!("the import's sender ended early")
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn finish(mut self) -> Result<Stored> {
        self.flush()?;
        match self.to {
            Target::Sender { batches, worker } => {
                drop(batches);
                join(worker)
            }
            Target::Nowhere | Target::Failed => Ok(Stored::default()),
        }
    }
}

fn join(worker: JoinHandle<Result<Stored>>) -> Result<Stored> {
    worker.join().map_err(|_| anyhow!("the import's sender panicked"))?
}

/// Sends one batch; a full queue is waited for, and a repeated line counts as a duplicate only if it was stored.
fn send(client: &Client, batch: &str) -> Result<Stored> {
    for _ in 0..RETRIES_MAX {
        let answer = client.post(BATCH_PATH, "application/x-ndjson", batch.as_bytes())?;
        if answer.status != 503 {
            return parse(BATCH_PATH, &answer.expect_success("a batch of the import")?);
        }
        std::thread::sleep(answer.retry_after_s.map_or(RETRY_AFTER, Duration::from_secs));
    }
    bail!(
        "the server's queue stayed full\nhint: import again later; what is stored already is not stored twice"
    )
}

fn write_line(to: &mut String, line: &BatchLine<'_>) -> Result<()> {
    write!(to, "{{\"event_id\":\"{}\"", line.event_id)?;
    if let Some(ms) = line.captured_ms {
        write!(to, ",\"captured_ms\":{ms}")?;
    }
    for (name, value) in [("app", line.app), ("user", line.user), ("host", line.host)] {
        if let Some(value) = value {
            write!(to, ",\"{name}\":{}", serde_json::to_string(value)?)?;
        }
    }
    match &line.body {
        Body::Post(post) => write_one_line(to, "post", post),
        Body::Payload(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
                write_one_line(to, "payload", &text);
            } else {
                write!(to, ",\"payload\":{}", serde_json::to_string(&text)?)?;
            }
        }
    }
    to.push_str("}\n");
    Ok(())
}

/// JSON text on one line: a line end in JSON is never inside a string, so a space says the same.
fn write_one_line(to: &mut String, name: &str, json: &str) {
    to.push_str(",\"");
    to.push_str(name);
    to.push_str("\":");
    to.extend(json.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
}

/// The server that takes the import: the running one, else one of our own for as long as it is held.
pub(crate) struct Server {
    pub(crate) client: Client,
    own: Option<Local>,
}

impl Server {
    pub(crate) fn of(home: &Home) -> Result<Self> {
        if let Some(client) = Client::find(home) {
            return Ok(Self { client, own: None });
        }
        let own = Local::start(home, Config::for_dir(home.dir()), Until::Stopped)
            .context("cannot open the data directory")?;
        Ok(Self { client: own.client().clone(), own: Some(own) })
    }

    /// Lets the own server finish and leave.
    pub(crate) fn stop(self) -> Result<()> {
        self.own.map_or(Ok(()), Local::stop)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_it_holds() {
        let id = EventId::derived(&[b"x"]);
        for (payload, expected) in [
            (&b"{\n  \"a\": 1\r\n}"[..], "{   \"a\": 1  }"),
            (b"no\njson", "\"no\\njson\""),
            (b"\xff{}", "\"\u{fffd}{}\""),
        ] {
            let line = BatchLine {
                event_id: id,
                captured_ms: Some(5),
                app: Some("a\"b"),
                user: None,
                host: None,
                body: Body::Payload(payload),
            };
            let mut text = String::new();
            write_line(&mut text, &line).unwrap();
            assert_eq!(
                text,
                format!(
                    "{{\"event_id\":\"{id}\",\"captured_ms\":5,\"app\":\"a\\\"b\",\"payload\":{expected}}}\n"
                )
            );
        }
    }
}
