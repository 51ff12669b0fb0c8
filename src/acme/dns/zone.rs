//! Where a record has to be: behind which alias, in which zone, and on which servers.

use std::net::SocketAddr;

use hickory_proto::op::DnsResponse;
use hickory_proto::rr::{Name, RData, RecordType};

use super::lookup::{Resolver, addresses};
use super::shown;

/// The most aliases that are followed.
const ALIASES_MAX: usize = 8;

/// The most servers of one zone that are asked: the root has 13.
const SERVERS_MAX: usize = 16;

/// An authoritative server.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) name: String,
    /// At least one.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Resolver {
    /// The name that the record has in the end: an alias lets another zone answer, as ACME servers do.
    pub(super) async fn behind_aliases(&self, record: &Name) -> Result<Name, String> {
        let mut name = record.clone();
        for _ in 0..ALIASES_MAX {
            let answer = self.query(&name, RecordType::CNAME).await?;
            let alias = answer.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if record.name == name => Some(target.0.clone()),
                _ => None,
            });
            let Some(target) = alias else { return Ok(name) };
            name = target;
        }
        Err(format!("{} is an alias of an alias, and so on, more than {ALIASES_MAX} times", shown(record)))
    }

    /// The zone that a record is in.
    pub(super) async fn zone_of(&self, record: &Name) -> Result<Name, String> {
        let mut name = record.clone();
        while !name.is_root() {
            let answer = self.query(&name, RecordType::SOA).await?;
            if let Some(zone) = zone_in(&answer, record) {
                return Ok(zone);
            }
            name = name.base_name();
        }
        Err(format!("no zone of {} was found", shown(record)))
    }

    /// The servers that must show a record of this zone.
    pub(super) async fn authorities(&self, record: &Name) -> Result<Vec<Authority>, String> {
        let mut authorities = Vec::new();
        if !self.servers.is_empty() {
            for server in &self.servers {
                let addresses = addresses(&server.host, server.port).await?;
                authorities.push(Authority { name: server.to_string(), addresses });
            }
            return Ok(authorities);
        }
        let zone = self.zone_of(record).await?;
        let answer = self.query(&zone, RecordType::NS).await?;
        let servers = answer.answers.iter().filter_map(|record| match &record.data {
            RData::NS(server) if record.name == zone => Some(&server.0),
            _ => None,
        });
        for server in servers.take(SERVERS_MAX) {
            authorities.push(Authority { name: shown(server), addresses: addresses(&shown(server), 53).await? });
        }
        if authorities.is_empty() {
            Err(format!("the zone {} names no servers", shown(&zone)))
        } else {
            Ok(authorities)
        }
    }
}

/// The zone of a record, by an answer to a question for a SOA record: that of the name itself, or the one that a negative answer comes
/// with (RFC 2308 section 3).
pub(super) fn zone_in(answer: &DnsResponse, record: &Name) -> Option<Name> {
    let all = answer.answers.iter().chain(&answer.authorities);
    all.filter(|found| matches!(found.data, RData::SOA(_)))
        .map(|found| &found.name)
        .find(|zone| zone.zone_of(record))
        .cloned()
}
