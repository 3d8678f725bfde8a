//! A person's answer on its way to the agent that asked: over a WebSocket that the agent opened on this machine.
//!
//! The URL comes with the event, so it is not trusted: only `ws` to a loopback address with a port is dialled, and the
//! address is dialled as written, without a name being looked up. The delivery gives up after [`DELIVERY_TIMEOUT`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::http::Uri;
use futures_util::SinkExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};

/// After this the agent is taken for gone.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the connection stays open after the answer, so that a slow reader gets it.
const LINGER: Duration = Duration::from_millis(500);

/// Why an answer was not delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error("the agent's address is not a loopback WebSocket")]
    NotLoopback,
    #[error("the agent did not take it within {} s", DELIVERY_TIMEOUT.as_secs())]
    TooSlow,
    #[error("the agent could not be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the agent's WebSocket failed: {0}")]
    WebSocket(#[from] Box<tungstenite::Error>),
}

/// Sends the answer and closes.
pub(crate) async fn deliver(url: &str, answer: &Value) -> Result<(), DeliveryError> {
    let addresses = loopback_addresses(url).ok_or(DeliveryError::NotLoopback)?;
    tokio::time::timeout(DELIVERY_TIMEOUT, send(url, &addresses, answer.to_string()))
        .await
        .map_err(|_| DeliveryError::TooSlow)?
}

async fn send(url: &str, addresses: &[SocketAddr], text: String) -> Result<(), DeliveryError> {
    let stream = TcpStream::connect(addresses).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.map_err(Box::new)?;
    socket.send(Message::text(text)).await.map_err(Box::new)?;
    tokio::time::sleep(LINGER).await;
    // The answer is out; an agent that already closed has it.
    let _ = socket.close(None).await;
    Ok(())
}

/// Where to dial; none for anything but `ws://` to this machine.
fn loopback_addresses(url: &str) -> Option<Vec<SocketAddr>> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    if uri.scheme_str() != Some("ws") || authority.as_str().contains('@') {
        return None;
    }
    let port = authority.port_u16()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let ips: Vec<IpAddr> = if host.eq_ignore_ascii_case("localhost") {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else {
        vec![host.parse().ok()?]
    };
    ips.iter().all(IpAddr::is_loopback).then(|| ips.into_iter().map(|ip| (ip, port).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_dialled() {
        for good in ["ws://localhost:9/", "ws://127.0.0.1:9/x?y", "ws://[::1]:9", "ws://LOCALHOST:9"] {
            assert!(loopback_addresses(good).is_some(), "{good}");
        }
        for bad in [
            "wss://localhost:9",
            "http://localhost:9",
            "ws://localhost",
            "ws://10.0.0.1:9",
            "ws://127.0.0.1.example:9",
            "ws://localhost@example.com:9",
            "ws://example.com:9",
            "ws://0.0.0.0:9",
            "ws://[::ffff:10.0.0.1]:9",
            "ws://2130706433:9",
            "",
        ] {
            assert!(loopback_addresses(bad).is_none(), "{bad}");
        }
    }
}
