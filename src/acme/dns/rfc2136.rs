//! Changes a zone by DNS itself (RFC 2136), signed with a shared key (RFC 8945).
//!
//! Over TCP, since a lost answer would leave it open what was done.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::{Message, ResponseCode, update_message};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm as Algorithm, TsigError};
use hickory_proto::rr::{Name, RData, RecordSet, RecordType, TSigner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::lookup::{addresses, ask, code};
use super::zone::zone_in;
use super::{Change, shown};
use crate::config::checked::{DnsServer, DnsUpdate, TsigAlgorithm};

/// How long resolvers may keep the record, in seconds.
const TTL: u32 = 60;

/// How much the clocks of both sides may differ (RFC 8945 section 10), in seconds.
const FUDGE: u16 = 300;

/// How long one exchange with the server may take.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);

/// How long a server that is not reached is tried again: it may be starting.
const RETRY_LIMIT: Duration = Duration::from_secs(60);

/// A server that takes changes, and the key for it.
pub(super) struct Update {
    server: DnsServer,
    algorithm: TsigAlgorithm,
    signer: TSigner,
}

/// Why nothing was changed.
enum Failure {
    /// Another attempt may succeed.
    Passing(String),
    /// The server refuses.
    Lasting(String),
}

impl Update {
    pub(super) fn new(update: &DnsUpdate) -> Result<Self, String> {
        let key = &update.key;
        let secret =
            STANDARD.decode(key.secret.expose()).map_err(|_| "the secret of the key is not base64".to_owned())?;
        let name = Name::from_ascii(&key.name).map_err(|error| format!("the key {}: {error}", key.name))?;
        let algorithm = match key.algorithm {
            TsigAlgorithm::Sha256 => Algorithm::HmacSha256,
            TsigAlgorithm::Sha384 => Algorithm::HmacSha384,
            TsigAlgorithm::Sha512 => Algorithm::HmacSha512,
        };
        let signer = TSigner::new(secret, algorithm, name, FUDGE);
        let signer = signer.map_err(|error| format!("the key {}: {error}", key.name))?;
        Ok(Self { server: update.server.clone(), algorithm: key.algorithm, signer })
    }

    /// Adds a value to those of a record, or removes it.
    pub(super) async fn change(&self, change: Change, record: &Name, value: &str) -> Result<(), String> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(500);
        loop {
            match self.attempt(change, record, value).await {
                Ok(()) => return Ok(()),
                Err(Failure::Passing(_)) if started.elapsed() + pause < RETRY_LIMIT => {}
                Err(Failure::Passing(error) | Failure::Lasting(error)) => {
                    return Err(format!("the DNS server {} {error}", self.server));
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(8));
        }
    }

    async fn attempt(&self, change: Change, record: &Name, value: &str) -> Result<(), Failure> {
        let addresses = addresses(&self.server.host, self.server.port).await;
        let mut failure = Failure::Passing("has no address".to_owned());
        for address in addresses.map_err(|error| Failure::Passing(format!("is not reached: {error}")))? {
            failure = match self.at(address, change, record, value).await {
                Err(Failure::Passing(error)) => Failure::Passing(error),
                ended => return ended,
            };
        }
        Err(failure)
    }

    async fn at(&self, address: SocketAddr, change: Change, record: &Name, value: &str) -> Result<(), Failure> {
        let answer = ask(address, record, RecordType::SOA, false).await;
        let answer = answer.map_err(|error| Failure::Passing(format!("is not reached: {}", error.into_words())))?;
        let zone =
            zone_in(&answer, record).filter(|_| answer.authoritative).ok_or_else(|| match answer.response_code {
                ResponseCode::ServFail => {
                    Failure::Passing("answers SERVFAIL: it may not have read the zone".to_owned())
                }
                other => Failure::Lasting(format!("has no zone with {} (it answers {})", shown(record), code(other))),
            })?;
        let mut records = RecordSet::with_ttl(record.clone(), RecordType::TXT, TTL);
        records.add_rdata(RData::TXT(TXT::new(vec![value.to_owned()])));
        let message = match change {
            Change::Add => update_message::append(records, zone.clone(), false, false),
            Change::Remove => update_message::delete_by_rdata(records, zone.clone(), false),
        };
        let exchange = timeout(EXCHANGE_LIMIT, self.exchange(address, message, &zone));
        exchange.await.unwrap_or_else(|_| {
            Err(Failure::Passing(format!("does not answer within {} seconds", EXCHANGE_LIMIT.as_secs())))
        })
    }

    async fn exchange(&self, address: SocketAddr, mut message: Message, zone: &Name) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let impossible = |error: &dyn std::fmt::Display| Failure::Lasting(format!("was not asked: {error}"));
        let verifier = message.finalize(&self.signer, now).map_err(|error| impossible(&error))?;
        let request = message.to_vec().map_err(|error| impossible(&error))?;
        let length = u16::try_from(request.len()).map_err(|error| impossible(&error))?;
        let exchanged = async {
            let mut stream = TcpStream::connect(address).await?;
            // Together: some servers read once.
            stream.write_all(&[&length.to_be_bytes()[..], &request].concat()).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let bytes = exchanged.await.map_err(|error| Failure::Passing(format!("is not reached: {error}")))?;
        let wrong = || Failure::Passing("sends something else than an answer".to_owned());
        let answer = Message::from_vec(&bytes).map_err(|_| wrong())?;
        if answer.id != message.id {
            return Err(wrong());
        }
        if answer.response_code != ResponseCode::NoError {
            return Err(self.refused(&answer, zone));
        }
        // A change that anyone could have confirmed is not confirmed.
        let verified = verifier.map(|mut verifier| verifier.verify(&bytes));
        match verified {
            Some(Ok(_)) => Ok(()),
            _ => Err(Failure::Lasting("confirms the change without the signature of the key".to_owned())),
        }
    }

    /// What a refusal means.
    fn refused(&self, answer: &Message, zone: &Name) -> Failure {
        let (key, zone) = (shown(self.signer.signer_name()), shown(zone));
        let tsig = answer.signature().and_then(|record| record.data.error);
        let words = match (answer.response_code, tsig) {
            (_, Some(TsigError::BadKey)) => format!(
                "does not know the key \"{key}\" for {}, or does not let it change TXT records of the zone {zone} (BADKEY)",
                self.algorithm
            ),
            (_, Some(TsigError::BadSig)) => format!("knows the key \"{key}\" with another secret (BADSIG)"),
            (_, Some(TsigError::BadTime)) => {
                format!(
                    "refuses the signature since its clock and this machine's differ by more than {FUDGE} seconds (BADTIME)"
                )
            }
            (ResponseCode::Refused, _) => {
                format!("does not let the key \"{key}\" change TXT records of the zone {zone} (REFUSED)")
            }
            // As a server answers that is about to read the zone.
            (ResponseCode::ServFail, _) => return Failure::Passing("answers SERVFAIL".to_owned()),
            (other, _) => format!("refuses the change of the zone {zone} ({})", code(other)),
        };
        Failure::Lasting(words)
    }
}
