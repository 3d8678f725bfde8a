//! `taffrail tail`: events as they come, one line each, over the server's stream.
//!
//! Text of payloads is untrusted: control characters are shown as spaces. A lost connection is taken up again, and what
//! came meanwhile is shown (at most [`CATCH_UP_EVENTS`]).

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use crate::cli::{EventFilterArgs, TailArgs};
use crate::client::{Client, encoded};
use crate::home::Home;
use crate::print::{Colours, out};

/// Events read after a lost connection, at most.
const CATCH_UP_EVENTS: usize = 1_000;
/// Events of a page.
const PAGE_EVENTS: usize = 1_000;
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// A server that does not begin the stream by then is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a line shows of an event.
#[derive(Debug, Deserialize)]
struct Line {
    id: i64,
    ts_ms: i64,
    app: String,
    session_id: String,
    #[serde(default)]
    agent_id: Option<String>,
    #[serde(default)]
    agent_type: Option<String>,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default)]
    tool_name: Option<String>,
    summary: String,
    #[serde(default)]
    metrics: LineMetrics,
    #[serde(default)]
    error: Option<LineError>,
}

#[derive(Debug, Default, Deserialize)]
struct LineMetrics {
    #[serde(default)]
    execution_time_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct LineError {
    #[serde(rename = "type")]
    class: String,
}

pub(crate) fn run(home: &Home, args: &TailArgs) -> Result<()> {
    let mut client = Client::require(home)?;
    let mut view = View { args, colours: Colours::of_stdout(), last: 0 };
    if args.no_follow {
        return view.show_stored(&client, args.since);
    }
    let mut backlog = args.since;
    loop {
        match view.follow(&client, backlog) {
            Ok(()) => eprintln!("the stream ended; waiting for the server"),
            Err(error) if error.is::<Refused>() => return Err(error),
            Err(error) => eprintln!("the stream broke off ({error:#}); waiting for the server"),
        }
        backlog = CATCH_UP_EVENTS;
        client = loop {
            std::thread::sleep(RECONNECT_AFTER);
            if let Some(client) = Client::find(home) {
                break client;
            }
        };
    }
}

/// The server answers, but not with a stream: trying again would not help.
#[derive(Debug, thiserror::Error)]
#[error("the server refused the stream: {0}")]
struct Refused(String);

struct View<'a> {
    args: &'a TailArgs,
    colours: Colours,
    /// The newest event shown.
    last: i64,
}

impl View<'_> {
    /// Shows what is stored, then what comes; the stream is open before the stored is read, so that nothing is missed.
    fn follow(&mut self, client: &Client, backlog: usize) -> Result<()> {
        let mut socket = connect(client)?;
        self.show_stored(client, backlog)?;
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => self.frame(&text)?,
                Ok(Message::Close(_)) => return Ok(()),
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn show_stored(&mut self, client: &Client, limit: usize) -> Result<()> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Box<RawValue>>,
            next_cursor: Option<String>,
        }
        let mut newest_first = Vec::new();
        let mut cursor: Option<String> = None;
        while newest_first.len() < limit {
            let wanted = (limit - newest_first.len()).min(PAGE_EVENTS);
            let at = cursor.map_or(String::new(), |c| format!("&cursor={}", encoded(&c)));
            let query = query(&self.args.filter);
            let page: Page =
                client.get_json(&format!("/api/v1/events?limit={wanted}&payload=false{query}{at}"))?;
            newest_first.extend(page.items);
            let Some(next) = page.next_cursor else { break };
            cursor = Some(next);
        }
        newest_first.iter().rev().try_for_each(|event| self.show(event))
    }

    fn frame(&mut self, text: &str) -> Result<()> {
        #[derive(Deserialize)]
        struct Frame<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let frame: Frame<'_> = serde_json::from_str(text).context("a frame cannot be read")?;
        match frame.kind {
            "event" => self.show(frame.data),
            "dropped" => {
                eprintln!("this reader is too slow: {} frames were left out", frame.data.get());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn show(&mut self, event: &RawValue) -> Result<()> {
        let line: Line = serde_json::from_str(event.get()).context("an event cannot be read")?;
        // The stream and the stored overlap; row ids grow but for events that come late, which the stream alone brings.
        if line.id == self.last || !matches(&self.args.filter, &line) {
            return Ok(());
        }
        self.last = self.last.max(line.id);
        if self.args.json { out(event.get()) } else { out(&render(&line, self.colours)) }
    }
}

/// The stream of native events.
fn connect(client: &Client) -> Result<WebSocket<TcpStream>> {
    let address = client.base().strip_prefix("http://").unwrap_or(client.base());
    let tcp = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    tcp.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    tcp.set_write_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let mut request = format!("ws://{address}/stream?format=native").into_client_request()?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", client.token()))?;
    request.headers_mut().insert("authorization", bearer);
    match tungstenite::client(request, tcp) {
        Ok((socket, _)) => {
            socket.get_ref().set_read_timeout(None)?;
            Ok(socket)
        }
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            Err(Refused(answer.status().to_string()).into())
        }
        Err(error) => bail!("no stream: {error}"),
    }
}

/// The filter as a query's further parts.
fn query(filter: &EventFilterArgs) -> String {
    let parts = [
        ("app", &filter.app),
        ("session", &filter.session),
        ("type", &filter.type_name),
        ("tool", &filter.tool),
        ("agent", &filter.agent),
    ];
    let given = parts.iter().filter_map(|(name, value)| value.as_ref().map(|v| (name, v)));
    given.map(|(name, value)| format!("&{name}={}", encoded(value))).collect()
}

fn matches(filter: &EventFilterArgs, line: &Line) -> bool {
    let is = |wanted: &Option<String>, value: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| value.unwrap_or_default() == wanted)
    };
    is(&filter.app, Some(&line.app))
        && is(&filter.session, Some(&line.session_id))
        && is(&filter.type_name, Some(&line.type_name))
        && is(&filter.tool, line.tool_name.as_deref())
        && is(&filter.agent, line.agent_id.as_deref())
}

/// Time, project, session, agent, what, how long, and a line of its own words.
fn render(line: &Line, colours: Colours) -> String {
    let time = jiff::Timestamp::from_millisecond(line.ts_ms).map_or_else(
        |_| line.ts_ms.to_string(),
        |t| t.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string(),
    );
    let agent = match (&line.agent_id, line.agent_type.as_deref().filter(|t| !t.is_empty())) {
        (None, _) => String::new(),
        (Some(_), Some(kind)) => format!("/{}", clean(kind)),
        (Some(id), None) => format!("/{}", short(id)),
    };
    let what = match &line.tool_name {
        Some(tool) => format!("{} {}", clean(&line.type_name), clean(tool)),
        None => clean(&line.type_name),
    };
    let took = line.metrics.execution_time_ms.map_or(String::new(), |ms| format!(" {}", duration(ms)));
    let failed = line.error.as_ref().map_or(String::new(), |e| format!(" [{}]", clean(&e.class)));
    format!(
        "{} {} {}{}{} {}",
        colours.paint("2", &time),
        colours.paint("36", &format!("{}:{}{agent}", clean(&line.app), short(&line.session_id))),
        colours.paint(colour_of(line), &what),
        colours.paint("1", &took),
        colours.paint("31", &failed),
        clean(&line.summary),
    )
    .trim_end()
    .to_owned()
}

fn colour_of(line: &Line) -> &'static str {
    match line.type_name.as_str() {
        _ if line.error.is_some() => "31",
        "PreToolUse" => "34",
        "PostToolUse" => "32",
        "PermissionRequest" | "PermissionDenied" | "Notification" => "33",
        "UserPromptSubmit" => "35",
        _ => "37",
    }
}

/// The first eight characters tell sessions and agents apart well enough for the eye.
fn short(id: &str) -> String {
    clean(id).chars().take(8).collect()
}

/// Milliseconds as a person reads them.
fn duration(ms: i64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    match ms {
        ..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{:.1}s", ms as f64 / 1000.0),
        _ => format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60),
    }
}

/// Control characters could move the cursor or worse: each becomes a space.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                ' '
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn line() -> Line {
        serde_json::from_str(
            r#"{"id":1,"ts_ms":1795333438402,"app":"api","session_id":"5e14197a-2d3d","agent_id":"a1","agent_type":"Explore",
                "type":"PostToolUse","tool_name":"Bash","summary":"cargo test\u001b[2J","metrics":{"execution_time_ms":61500}}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_line_says_who_did_what_for_how_long_and_cannot_command_the_terminal() {
        let text = render(&line(), Colours::Off);
        assert!(text.ends_with(" api:5e14197a/Explore PostToolUse Bash 1m01s cargo test [2J"), "{text}");
        assert!(!text.contains('\x1b'));
        assert!(render(&line(), Colours::On).contains("\x1b[32mPostToolUse Bash\x1b[0m"));
    }

    #[test]
    fn a_filter_takes_what_the_server_would() {
        let filter = |tool: &str, agent: &str| EventFilterArgs {
            tool: Some(tool.to_owned()),
            agent: Some(agent.to_owned()),
            ..EventFilterArgs::default()
        };
        assert!(matches(&filter("Bash", "a1"), &line()));
        assert!(!matches(&filter("Read", "a1"), &line()));
        assert!(!matches(&filter("Bash", ""), &line()));
        assert_eq!(query(&filter("a b&c", "")), "&tool=a%20b%26c&agent=");
    }

    #[test]
    fn durations_are_short() {
        for (ms, text) in [(0, "0ms"), (999, "999ms"), (1_500, "1.5s"), (61_000, "1m01s")] {
            assert_eq!(duration(ms), text);
        }
    }
}
