//! The API of the data directory's own server, over loopback, with its token.
//!
//! Limits: [`CONNECT_TIMEOUT`], and an answer of at most [`ANSWER_MAX_BYTES`].

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::Response;

use crate::home::{Home, Notice};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server may take to say whether it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long any other answer may take: a batch waits for its commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The largest answer read: a page of large events.
const ANSWER_MAX_BYTES: u64 = 512 << 20;

/// A running server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: String,
    pub(crate) pid: u32,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after_s: Option<u64>,
    pub(crate) body: String,
}

impl Client {
    /// The server of this data directory, if one runs and answers.
    pub(crate) fn find(home: &Home) -> Option<Self> {
        let Notice { pid, listen } = home.notice()?;
        let client = Self::new(&format!("http://{listen}"), &home.token().ok()?, pid);
        client.answers().then_some(client)
    }

    /// As [`Self::find`], with an error that says what to do.
    pub(crate) fn require(home: &Home) -> Result<Self> {
        let Some(client) = Self::find(home) else {
            bail!(
                "no server runs on {}\nhint: start it with `taffrail up`, or name its data directory with --data-dir",
                home.dir().display()
            );
        };
        Ok(client)
    }

    pub(crate) fn new(base: &str, token: &str, pid: u32) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self { agent: config.into(), base: base.to_owned(), token: token.to_owned(), pid }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Whether it is a taffrail server that knows our token: another program may have got its port since.
    fn answers(&self) -> bool {
        let request = self
            .agent
            .get(format!("{}/api/v1/health", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .config()
            .timeout_global(Some(HEALTH_TIMEOUT))
            .build();
        request.call().is_ok_and(|answer| answer.status().as_u16() != 401 && answer.status().as_u16() != 404)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        answer(request.call().with_context(|| self.lost())?)
    }

    pub(crate) fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.get(path)?;
        parse(path, &answer.expect_success(path)?)
    }

    pub(crate) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        answer(request.header("content-type", content_type).send(body).with_context(|| self.lost())?)
    }

    /// As [`Self::post`], with the answer's lines as they come: it may take as long as it takes.
    pub(crate) fn post_for_lines(&self, path: &str, body: &[u8]) -> Result<impl BufRead + use<>> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .config()
            .timeout_global(None)
            .build();
        let response = request.send(body).with_context(|| self.lost())?;
        if !response.status().is_success() {
            answer(response)?.expect_success(path)?;
            bail!("the server's answer to {path} is not what it should be");
        }
        Ok(BufReader::new(response.into_body().into_reader()))
    }

    fn lost(&self) -> String {
        format!("the server at {} does not answer\nhint: see `taffrail health` and its log", self.base)
    }
}

impl Answer {
    /// The body of a 2xx; else an error with the server's own words.
    pub(crate) fn expect_success(self, what: &str) -> Result<String> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        #[derive(serde::Deserialize)]
        struct Problem {
            title: Option<String>,
            detail: Option<String>,
            error: Option<String>,
        }
        let said = match serde_json::from_str::<Problem>(&self.body) {
            Ok(p) => p.detail.or(p.error).or(p.title).unwrap_or_default(),
            Err(_) => self.body.chars().take(300).collect(),
        };
        bail!("the server refused {what}: {} {said}", self.status)
    }
}

pub(crate) fn parse<T: DeserializeOwned>(what: &str, body: &str) -> Result<T> {
    serde_json::from_str(body)
        .with_context(|| format!("the server's answer to {what} is not what it should be"))
}

fn answer(mut response: Response<ureq::Body>) -> Result<Answer> {
    let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(ANSWER_MAX_BYTES).lossy_utf8(true).read_to_string();
    Ok(Answer { status, retry_after_s: retry_after, body: body.context("the server's answer broke off")? })
}

/// Percent-encodes a query value (RFC 3986: unreserved characters stay).
pub(crate) fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
