//! Who may ask for what.
//!
//! Every route: the `Host` header must name this server (DNS rebinding), and a request that a browser marks with an
//! `Origin` must come from this server's own page or from a configured old page (cross-site requests). Then, by group:
//! ingest is open to this machine; the old read routes are open to an old page that was named; everything else needs
//! the token, as `Authorization: Bearer` or through a browser session that a one-time link opened.
//!
//! Limits: at most [`LINKS_MAX`] links wait at once, each opens one session within [`LINK_TTL_MS`]; a session lasts
//! [`SESSION_TTL_MS`] and survives a restart, because its cookie is signed with the token.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock;
use crate::listen::Peer;
use crate::problem::Problem;
use crate::state::App;

/// Name of the session cookie.
pub(crate) const COOKIE: &str = "taffrail_session";
/// How long a one-time link opens a session, in milliseconds.
pub(crate) const LINK_TTL_MS: i64 = 10 * 60 * 1000;
/// How long a browser session lasts, in milliseconds.
pub(crate) const SESSION_TTL_MS: i64 = 30 * 24 * 3600 * 1000;
/// How many links may wait at once; the oldest goes first.
const LINKS_MAX: usize = 64;

/// Which `Host` headers name this server.
#[derive(Debug)]
pub(crate) struct Hosts {
    port: u16,
    /// Of the doors beside the main one.
    more_ports: Vec<u16>,
    allowed: Vec<String>,
}

impl Hosts {
    pub(crate) fn new(listen: SocketAddr, allowed: Vec<String>) -> Self {
        Self { port: listen.port(), more_ports: Vec::new(), allowed }
    }

    /// Also takes our names with these ports.
    pub(crate) fn with_ports(mut self, ports: Vec<u16>) -> Self {
        self.more_ports = ports;
        self
    }

    /// Whether this is one of our names with our port, or a configured name.
    pub(crate) fn allows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().to_ascii_lowercase();
        let loopback = name == "localhost"
            || name == "[::1]"
            || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        let port = authority.port_u16().unwrap_or(80);
        if loopback && (port == self.port || self.more_ports.contains(&port)) {
            return true;
        }
        let whole = authority.as_str().to_ascii_lowercase();
        self.allowed.iter().any(|allowed| *allowed == whole || *allowed == name)
    }
}

/// Where a request says it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// No `Origin`: no browser, or one that follows a link.
    NoOrigin,
    /// Our own page.
    OwnPage,
    /// An old page that was named.
    OldPage,
    /// Any other site.
    Elsewhere,
}

/// Compares the `Origin` header with the host asked for and with the old pages.
pub(crate) fn origin_of(headers: &HeaderMap, host: &str, old_pages: &[String]) -> From {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return From::NoOrigin };
    let Ok(origin) = origin.to_str() else { return From::Elsewhere };
    if origins.next().is_some() {
        return From::Elsewhere;
    }
    let origin = origin.to_ascii_lowercase();
    let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if name.is_some_and(|name| name == host.to_ascii_lowercase()) {
        From::OwnPage
    } else if old_pages.contains(&origin) {
        From::OldPage
    } else {
        From::Elsewhere
    }
}

/// The token and what was derived from it.
pub(crate) struct Auth {
    token_hash: [u8; 32],
    signing_key: [u8; 32],
    links: Mutex<HashMap<String, i64>>,
}

impl Auth {
    pub(crate) fn new(token: &str) -> Self {
        Self {
            token_hash: Sha256::digest(token.as_bytes()).into(),
            signing_key: hmac_sha256(token.as_bytes(), b"taffrail session cookie v1"),
            links: Mutex::default(),
        }
    }

    /// Whether this is the token. Both sides are hashed first, so that neither length nor prefix shows in the time.
    pub(crate) fn is_token(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        given.ct_eq(&self.token_hash).into()
    }

    /// A code that opens one session within [`LINK_TTL_MS`].
    pub(crate) fn new_link(&self, now_ms: i64) -> Result<String, getrandom::Error> {
        let code = random_hex::<16>()?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, until| *until > now_ms);
        while links.len() >= LINKS_MAX {
            let oldest = links.iter().min_by_key(|(_, until)| **until).map(|(code, _)| code.clone());
            let Some(oldest) = oldest else { break };
            links.remove(&oldest);
        }
        links.insert(code.clone(), now_ms + LINK_TTL_MS);
        Ok(code)
    }

    /// Spends a code; true once.
    pub(crate) fn take_link(&self, code: &str, now_ms: i64) -> bool {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.remove(code).is_some_and(|until| until > now_ms)
    }

    /// The value of a fresh session cookie: `id.expiry_ms.signature`.
    pub(crate) fn new_session(&self, now_ms: i64) -> Result<String, getrandom::Error> {
        let claim = format!("{}.{}", random_hex::<16>()?, now_ms + SESSION_TTL_MS);
        let signature = hex(&hmac_sha256(&self.signing_key, claim.as_bytes()));
        Ok(format!("{claim}.{signature}"))
    }

    /// Whether a cookie value was signed by us and has not expired.
    pub(crate) fn is_session(&self, value: &str, now_ms: i64) -> bool {
        let Some((claim, signature)) = value.rsplit_once('.') else { return false };
        let expected = hex(&hmac_sha256(&self.signing_key, claim.as_bytes()));
        if !bool::from(signature.as_bytes().ct_eq(expected.as_bytes())) {
            return false;
        }
        let expiry = claim.split_once('.').and_then(|(_, expiry)| expiry.parse::<i64>().ok());
        expiry.is_some_and(|expiry| expiry > now_ms)
    }

    /// Whether the request carries the token or a session.
    pub(crate) fn is_signed_in(&self, headers: &HeaderMap, now_ms: i64) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(bearer_token);
        if let Some(token) = bearer {
            return self.is_token(token);
        }
        cookies(headers).any(|value| self.is_session(value, now_ms))
    }
}

fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

/// The outermost check, on every route: host, origin and the old page's preflight.
pub(crate) async fn check_site(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let host = match host_of(&request) {
        Ok(host) => host,
        Err(problem) => return problem.into_response(),
    };
    if !app.hosts.allows(&host) {
        return Problem::HostNotAllowed.into_response();
    }
    let from = origin_of(request.headers(), &host, &app.config.legacy_origins);
    if from == From::Elsewhere {
        return Problem::OriginNotAllowed.into_response();
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS;
    request.extensions_mut().insert(from);
    let mut response = if preflight { StatusCode::OK.into_response() } else { next.run(request).await };
    if from == From::OldPage
        && let Some(origin) = origin
    {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// The one host a request asks for. Two `Host` headers, or a target that differs, are no honest client.
fn host_of(request: &Request) -> Result<String, Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Problem::BadRequest("exactly one Host header is needed".to_owned()));
    };
    let host = host.to_str().map_err(|_| Problem::HostNotAllowed)?;
    if request.uri().authority().is_some_and(|target| !target.as_str().eq_ignore_ascii_case(host)) {
        return Err(Problem::HostNotAllowed);
    }
    Ok(host.to_owned())
}

/// For everything that reads or changes: the token or a session, and not from an old page.
pub(crate) async fn need_token(State(app): State<App>, request: Request, next: Next) -> Response {
    if from_of(&request) == From::OldPage {
        return Problem::OriginNotAllowed.into_response();
    }
    if !app.auth.is_signed_in(request.headers(), clock::now_ms()) {
        return Problem::Unauthorized.into_response();
    }
    next.run(request).await
}

/// For the old contract's routes: as [`need_token`], or let in by `--legacy-origin`: the old page itself may read and
/// change, a program without an `Origin` may read.
pub(crate) async fn need_token_or_old_page(State(app): State<App>, request: Request, next: Next) -> Response {
    let opened = !app.config.legacy_origins.is_empty();
    let let_in = match from_of(&request) {
        From::OldPage => true,
        From::NoOrigin => opened && request.method() == Method::GET,
        From::OwnPage | From::Elsewhere => false,
    };
    if !let_in && !app.auth.is_signed_in(request.headers(), clock::now_ms()) {
        return Problem::Unauthorized.into_response();
    }
    next.run(request).await
}

/// For ingest: this machine, or the token.
pub(crate) async fn need_loopback(State(app): State<App>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let local = peer.is_some_and(|Peer(addr)| addr.ip().to_canonical().is_loopback());
    if !local && !app.auth.is_signed_in(request.headers(), clock::now_ms()) {
        return Problem::NotLoopback.into_response();
    }
    next.run(request).await
}

fn from_of(request: &Request) -> From {
    request.extensions().get::<From>().copied().unwrap_or(From::Elsewhere)
}

/// Lower-case hexadecimal of `N` random bytes.
pub(crate) fn random_hex<const N: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// HMAC (RFC 2104) with SHA-256, for keys of at most one block (64 bytes); a longer key is hashed first.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK_BYTES: usize = 64;
    let mut block = [0u8; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_with_our_port_are_ours() {
        let hosts = Hosts::new(
            SocketAddr::from(([127, 0, 0, 1], 4000)),
            vec!["box.lan:8443".to_owned(), "taffrail.local".to_owned()],
        );
        for good in [
            "localhost:4000",
            "LOCALHOST:4000",
            "127.0.0.1:4000",
            "[::1]:4000",
            "box.lan:8443",
            "taffrail.local:1",
        ] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in [
            "localhost",
            "localhost:4001",
            "evil.example:4000",
            "127.0.0.1.evil.example:4000",
            "box.lan",
            "a@localhost:4000",
            "",
            "localhost.:4000",
            "0.0.0.0:4000",
        ] {
            assert!(!hosts.allows(bad), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_ours_the_old_pages_or_refused() {
        let old = vec!["http://localhost:5173".to_owned()];
        let of = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            origin_of(&headers, "localhost:4000", &old)
        };
        assert_eq!(of("http://localhost:4000"), From::OwnPage);
        assert_eq!(of("http://localhost:5173"), From::OldPage);
        for bad in [
            "null",
            "http://evil.example",
            "http://localhost:4001",
            "http://127.0.0.1:4000",
            "file://localhost:4000",
        ] {
            assert_eq!(of(bad), From::Elsewhere, "{bad}");
        }
        assert_eq!(origin_of(&HeaderMap::new(), "localhost:4000", &old), From::NoOrigin);
    }

    #[test]
    fn hmac_is_the_one_of_rfc_4231() {
        let mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn a_link_opens_one_session_and_the_session_outlives_the_process() {
        let auth = Auth::new("secret");
        let code = auth.new_link(0).unwrap();
        assert!(auth.take_link(&code, 1) && !auth.take_link(&code, 1));
        let late = auth.new_link(0).unwrap();
        assert!(!auth.take_link(&late, LINK_TTL_MS));

        let session = auth.new_session(0).unwrap();
        assert!(Auth::new("secret").is_session(&session, 5));
        assert!(!Auth::new("other").is_session(&session, 5));
        assert!(!auth.is_session(&session, SESSION_TTL_MS));
        let forged = session.replacen('.', ".9", 1);
        assert!(!auth.is_session(&forged, 5));
    }

    #[test]
    fn links_that_wait_are_bounded() {
        let auth = Auth::new("secret");
        let first = auth.new_link(0).unwrap();
        for i in 0..LINKS_MAX {
            auth.new_link(1 + i64::try_from(i).unwrap()).unwrap();
        }
        assert!(!auth.take_link(&first, 2));
    }
}
