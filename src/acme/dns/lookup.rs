//! Asks DNS servers: those of this machine, or those that are configured.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_net::NetError;
use hickory_net::client::Client;
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_net::xfer::{DnsHandle as _, DnsMultiplexer, DnsRequestSender, FirstAnswer as _};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use resolv_conf::Config;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::shown;
use crate::config::checked::DnsServer;

/// How long a server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The largest answer over UDP: what no network divides (RFC 9715).
const UDP_MAX: u16 = 1232;

/// The most servers of this machine that are asked (resolv.conf(5): `MAXNS`).
const RESOLVERS_MAX: usize = 3;

/// How much of the file that names them is read, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// The most addresses of one server.
pub(super) const ADDRESSES_MAX: usize = 8;

/// What answers questions about zones.
pub(super) struct Resolver {
    /// Authoritative servers that are configured. Empty: those of this machine are asked.
    pub(super) servers: Vec<DnsServer>,
}

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// The server was not reached, or is silent.
    Unreachable(String),
    /// It says something else than an answer.
    Wrong(String),
}

impl NoAnswer {
    pub(super) fn into_words(self) -> String {
        match self {
            Self::Unreachable(words) | Self::Wrong(words) => words,
        }
    }
}

impl Resolver {
    pub(super) fn new(servers: Vec<DnsServer>) -> Self {
        Self { servers }
    }

    /// The records of a name, by the first server that knows. A name that does not exist is an answer, too.
    pub(super) async fn query(&self, name: &Name, kind: RecordType) -> Result<DnsResponse, String> {
        let of_machine = self.servers.is_empty();
        let servers = if of_machine { of_this_machine() } else { self.configured().await? };
        let mut failures = Vec::new();
        for server in servers {
            match ask(server, name, kind, of_machine).await {
                Ok(answer) if matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) => {
                    return Ok(answer);
                }
                Ok(answer) => failures.push(format!("{server} answers {}", code(answer.response_code))),
                Err(error) => failures.push(format!("{server}: {}", error.into_words())),
            }
        }
        let advice = if of_machine { "" } else { "; \"servers\" has to name authoritative servers" };
        Err(format!("{} of {} is not known: {}{advice}", kind, shown(name), failures.join("; ")))
    }

    /// The addresses of the servers that are configured.
    async fn configured(&self) -> Result<Vec<SocketAddr>, String> {
        let mut all = Vec::new();
        for server in &self.servers {
            all.extend(addresses(&server.host, server.port).await?);
        }
        Ok(all)
    }
}

/// The addresses of a host.
pub(super) async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = timeout(ANSWER_LIMIT, tokio::net::lookup_host((host, port))).await;
    let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let found: Vec<_> =
        found.map_err(|error| format!("the address of {host} is not known: {error}"))?.take(ADDRESSES_MAX).collect();
    if found.is_empty() { Err(format!("{host} has no address")) } else { Ok(found) }
}

/// The DNS servers of this machine.
fn of_this_machine() -> Vec<SocketAddr> {
    let mut text = Vec::new();
    // Without the file, or with one that has none, it is this machine, as for the C library.
    let _ = File::open("/etc/resolv.conf").and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
    // A line that is not understood is passed over, as the C library does.
    let (config, _) = Config::parse_with_errors(&text);
    let mut servers: Vec<SocketAddr> =
        config.nameservers.iter().take(RESOLVERS_MAX).map(|ip| SocketAddr::new(ip.into(), 53)).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    servers
}

/// Asks one server, over UDP, and over TCP if the answer is too long for that.
pub(super) async fn ask(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
    recursion: bool,
) -> Result<DnsResponse, NoAnswer> {
    let udp = UdpClientStream::builder(server, TokioRuntimeProvider::new());
    let udp = udp.with_timeout(Some(ANSWER_LIMIT)).with_os_port_selection(true).build();
    let answer = send(udp, name, kind, recursion).await?;
    if !answer.truncation {
        return Ok(answer);
    }
    let tcp = timeout(ANSWER_LIMIT, async {
        let (stream, sender) = TcpClientStream::new(server, None, Some(ANSWER_LIMIT), TokioRuntimeProvider::new());
        Ok(DnsMultiplexer::new(stream.await?, sender).with_timeout(ANSWER_LIMIT))
    });
    let tcp = tcp.await.unwrap_or(Err(NetError::Timeout)).map_err(no_answer)?;
    send(tcp, name, kind, recursion).await
}

async fn send(
    stream: impl DnsRequestSender,
    name: &Name,
    kind: RecordType,
    recursion: bool,
) -> Result<DnsResponse, NoAnswer> {
    let (client, driver) = Client::<TokioRuntimeProvider>::from_sender(stream);
    // Ends with this future.
    let mut drivers = JoinSet::new();
    drivers.spawn(driver);
    let mut options = DnsRequestOptions::default();
    options.recursion_desired = recursion;
    options.edns_payload_len = UDP_MAX;
    let request = DnsRequest::from_query(Query::query(name.clone(), kind), options);
    let answer = timeout(ANSWER_LIMIT, client.send(request).first_answer()).await;
    answer.unwrap_or(Err(NetError::Timeout)).map_err(no_answer)
}

fn no_answer(error: NetError) -> NoAnswer {
    match error {
        NetError::Timeout => NoAnswer::Unreachable(format!("no answer within {} seconds", ANSWER_LIMIT.as_secs())),
        NetError::Io(error) => NoAnswer::Unreachable(error.to_string()),
        error => NoAnswer::Wrong(error.to_string()),
    }
}

/// A response code as tools show it, `NXDOMAIN` or `REFUSED`.
pub(super) fn code(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        ResponseCode::NotZone => "NOTZONE".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => format!("{} ({})", u16::from(other), other),
    }
}
