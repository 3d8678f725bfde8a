//! The ports that OTLP has by convention: 4318 for HTTP, 4317 for gRPC. The main port takes OTLP/HTTP, too, so a port
//! that something else holds is said and costs no more than that.

use std::net::SocketAddr;

use serde::Serialize;
use tokio::net::TcpListener;

use crate::config::Otlp;

/// How a port came out.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(crate) enum Door {
    /// Turned off by the configuration.
    #[default]
    Off,
    /// Taken.
    Open { address: SocketAddr },
    /// Held by something else, or not to be had.
    Unavailable { address: SocketAddr, reason: String },
}

impl Door {
    fn port(&self) -> Option<u16> {
        match self {
            Self::Open { address } => Some(address.port()),
            Self::Off | Self::Unavailable { .. } => None,
        }
    }

    /// What is wrong with it, as a sentence.
    fn complaint(&self, what: &str) -> Option<String> {
        match self {
            Self::Unavailable { address, reason } => {
                Some(format!("{what} is not served on {address}: {reason}"))
            }
            Self::Off | Self::Open { .. } => None,
        }
    }
}

/// Both of them.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Doors {
    pub(crate) http: Door,
    pub(crate) grpc: Door,
}

/// The sockets behind the open ones.
pub(crate) struct Listeners {
    pub(crate) http: Option<TcpListener>,
    pub(crate) grpc: Option<TcpListener>,
}

impl Doors {
    /// Opens what is configured; never fails, but says in the log what could not be had.
    pub(crate) async fn open(config: &Otlp) -> (Self, Listeners) {
        let (http, http_listener) = open(config.http).await;
        let (grpc, grpc_listener) = open(config.grpc).await;
        let doors = Self { http, grpc };
        for complaint in doors.complaints() {
            tracing::warn!("{complaint}; the main port takes OTLP over HTTP, too");
        }
        (doors, Listeners { http: http_listener, grpc: grpc_listener })
    }

    /// The ports that are open: a `Host` header may name them.
    pub(crate) fn ports(&self) -> Vec<u16> {
        [&self.http, &self.grpc].into_iter().filter_map(Door::port).collect()
    }

    /// What a person should know.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let all = [self.http.complaint("OTLP over HTTP"), self.grpc.complaint("OTLP over gRPC")];
        all.into_iter().flatten().collect()
    }
}

async fn open(address: Option<SocketAddr>) -> (Door, Option<TcpListener>) {
    let Some(address) = address else { return (Door::Off, None) };
    let bound = match TcpListener::bind(address).await {
        Ok(listener) => listener.local_addr().map(|address| (address, listener)),
        Err(error) => Err(error),
    };
    match bound {
        Ok((address, listener)) => (Door::Open { address }, Some(listener)),
        Err(error) => {
            let reason = if error.kind() == std::io::ErrorKind::AddrInUse {
                "another process holds it".to_owned()
            } else {
                error.to_string()
            };
            (Door::Unavailable { address, reason }, None)
        }
    }
}
