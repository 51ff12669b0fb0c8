//! A route on standard input and output, for programs that start a command to reach a server: `ProxyCommand` of ssh.

use std::net::SocketAddr;

use super::dial::{self, Endpoint};
use super::fault::{Failure, Fault};
use super::platform;
use super::session::{self, End, LocalFault, Moved};
use super::tls::Tls;

/// How it has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ended {
    /// Both sides said that they were done.
    Orderly,
    /// No connection was made, or the gate refused it.
    Failed(Failure),
    /// It was cut: bytes may be missing.
    Cut(SocketAddr, Fault),
    /// Standard input or output failed: bytes may be missing.
    Local(LocalFault),
}

/// Connects standard input and output to a route until both have ended.
pub async fn run(endpoint: &Endpoint, tls: &Tls) -> Ended {
    let connected = match dial::connect(endpoint, tls).await {
        Ok(connected) => connected,
        Err(failure) => return Ended::Failed(failure),
    };
    let address = connected.address;
    let moved = Moved::default();
    let local = (platform::stdin(), platform::stdout());
    match session::run(local, connected.stream, tls, &moved, std::future::pending()).await {
        End::Refused(fault) => Ended::Failed(Failure::Gate { address, fault }),
        End::Cut(fault) => Ended::Cut(address, fault),
        End::Local(fault) => Ended::Local(fault),
        End::Orderly | End::Stopped => Ended::Orderly,
    }
}
