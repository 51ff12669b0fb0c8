//! dns-01 (RFC 8555 section 8.4): the TXT records that show an ACME server whose names they are.
//!
//! | file | does |
//! |---|---|
//! | `lookup` | asks DNS servers: this machine's, or those of a zone |
//! | `zone` | where a record has to be: behind which alias, in which zone, on which servers |
//! | `visible` | waits until each of those servers shows a record |
//! | `rfc2136` | changes a zone by DNS itself, signed (RFC 2136, RFC 8945) |
//! | `command` | has a program of the owner change it |
//! | `api` | has the HTTP API of a provider change it |
//! | `responder` | answers the challenges of an order |
//!
//! Records are added and removed one by one: a name and its wildcard have one each, of the same name.

#[cfg(feature = "dns-providers")]
mod api;
mod command;
mod lookup;
mod responder;
mod rfc2136;
mod visible;
mod zone;

use std::io;
use std::time::Duration;

use hickory_proto::rr::Name;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::{Instant, timeout};

pub(super) use self::responder::DnsResponder;

use self::lookup::Resolver;
use crate::config::checked::{Dns, DnsBy};

/// How long a change may take.
const CHANGE_LIMIT: Duration = Duration::from_secs(150);

/// The most memory of a process that asks the API of a provider, in bytes: dns-update reads an answer whole, whatever its length.
const MEMORY_MAX: u64 = 512 * 1024 * 1024;

/// Limits the memory of this process to what it needs for such records (getrlimit(2), `RLIMIT_DATA`). If an answer is longer, it
/// ends, and is started again later.
pub(super) fn limit_memory(dns: &Dns) -> io::Result<()> {
    if !matches!(dns.publisher, DnsBy::Api(_)) {
        return Ok(());
    }
    let allowed = getrlimit(Resource::Data).maximum.map_or(MEMORY_MAX, |allowed| allowed.min(MEMORY_MAX));
    Ok(setrlimit(Resource::Data, Rlimit { current: Some(allowed), maximum: Some(allowed) })?)
}

/// Publishes TXT records, and waits until they are seen.
pub struct DnsPublisher {
    by: By,
    resolver: Resolver,
    propagation: Duration,
}

/// What changes the zone.
enum By {
    Update(rfc2136::Update),
    Command(command::Program),
    #[cfg(feature = "dns-providers")]
    Api(Box<api::Api>),
}

/// What is done with a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

/// The record in which an ACME server looks for an answer (RFC 8555 section 8.4). A wildcard has that of its parent.
fn record_name(name: &str) -> Result<Name, String> {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let record = Name::from_ascii(format!("_acme-challenge.{}.", bare.trim_end_matches('.')));
    record.map_err(|error| format!("{name} cannot have a record of DNS: {error}"))
}

/// A name as it is shown: without the dot at its end.
fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    let without = text.strip_suffix('.').filter(|text| !text.is_empty());
    without.map(str::to_owned).unwrap_or(text)
}

impl DnsPublisher {
    /// As it is configured.
    ///
    /// # Errors
    /// If an account cannot be used, in words.
    pub fn new(dns: &Dns) -> Result<Self, String> {
        let by = match &dns.publisher {
            DnsBy::Update(update) => By::Update(rfc2136::Update::new(update)?),
            DnsBy::Command(command) => By::Command(command::Program::new(command)),
            #[cfg(feature = "dns-providers")]
            DnsBy::Api(api) => By::Api(Box::new(api::Api::new(api)?)),
            #[cfg(not(feature = "dns-providers"))]
            DnsBy::Api(_) => return Err("this doorward was built without the APIs of DNS providers".to_owned()),
        };
        Ok(Self { by, resolver: Resolver::new(dns.servers.clone()), propagation: dns.propagation })
    }

    /// Publishes a value for the challenge of `name`, beside any others. The same one twice is one.
    ///
    /// # Errors
    /// In words; never with a secret.
    pub async fn publish(&self, name: &str, value: &str) -> Result<(), String> {
        self.change(Change::Add, name, value).await
    }

    /// Removes that value, and leaves all others.
    ///
    /// # Errors
    /// In words; never with a secret.
    pub async fn remove(&self, name: &str, value: &str) -> Result<(), String> {
        self.change(Change::Remove, name, value).await
    }

    async fn change(&self, change: Change, name: &str, value: &str) -> Result<(), String> {
        let record = record_name(name)?;
        let changed = timeout(CHANGE_LIMIT, async {
            let record = self.resolver.behind_aliases(&record).await?;
            match &self.by {
                // It knows its zones better than a resolver does.
                By::Update(update) => update.change(change, &record, value).await,
                By::Command(program) => program.change(change, &shown(&record), value).await,
                #[cfg(feature = "dns-providers")]
                By::Api(api) => {
                    let zone = self.resolver.zone_of(&record).await?;
                    api.change(change, &shown(&record), value, &shown(&zone)).await
                }
            }
        });
        changed
            .await
            .unwrap_or_else(|_| Err(format!("it took longer than {} seconds", CHANGE_LIMIT.as_secs())))
            .map_err(|error| {
                let done = if change == Change::Add { "published" } else { "removed" };
                format!("the record {} was not {done}: {error}", shown(&record))
            })
    }

    /// Waits until every authoritative server shows the value.
    ///
    /// # Errors
    /// If one of them does not within the time that is configured: which, and what it answers.
    pub async fn wait_until_visible(&self, name: &str, value: &str) -> Result<(), String> {
        self.wait_until(Instant::now() + self.propagation, name, value).await
    }

    async fn wait_until(&self, deadline: Instant, name: &str, value: &str) -> Result<(), String> {
        let record = record_name(name)?;
        visible::wait(&self.resolver, &record, value, deadline).await.map_err(|error| {
            format!(
                "after {} seconds the record {} is not seen everywhere: {error}",
                self.propagation.as_secs(),
                shown(&record)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_has_the_record_of_its_parent() {
        for name in ["nas.home.example", "*.nas.home.example", "nas.home.example."] {
            assert_eq!(record_name(name).map(|name| shown(&name)).as_deref(), Ok("_acme-challenge.nas.home.example"));
        }
        assert!(record_name(&"a".repeat(64)).is_err());
        assert!(record_name("a..b").is_err());
    }
}
