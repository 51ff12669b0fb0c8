//! Waits until each authoritative server shows a record. An ACME server asks any of them.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::lookup::{NoAnswer, Resolver, ask, code};
use super::zone::Authority;

/// How long after the first question the next one is asked.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest time between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How long a look goes on that has begun in time.
const ONE_LOOK: Duration = Duration::from_secs(10);

/// What a server shows of a record.
enum Seen {
    Shown,
    NotYet(String),
    Unreachable(String),
}

/// Asks until all of them show `value`. At `deadline` the error says which do not.
pub(super) async fn wait(resolver: &Resolver, record: &Name, value: &str, deadline: Instant) -> Result<(), String> {
    let mut last = "the servers do not answer in time".to_owned();
    let mut pause = FIRST_PAUSE;
    // Those that still have to show it, once they are known.
    let mut missing = None;
    loop {
        let next = Instant::now() + pause;
        // The last look may end: without it there would be no reason to tell.
        match timeout_at(deadline + ONE_LOOK, look(resolver, record, value, &mut missing)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(_) => return Err(last),
        }
        if next >= deadline {
            return Err(last);
        }
        sleep_until(next).await;
        pause = pause.mul_f32(1.5).min(LONGEST_PAUSE);
    }
}

/// One look at all servers that have not shown it yet.
async fn look(
    resolver: &Resolver,
    record: &Name,
    value: &str,
    missing: &mut Option<(Name, Vec<Authority>)>,
) -> Result<(), String> {
    let (name, authorities) = match missing.take() {
        Some(known) => known,
        None => {
            let name = resolver.behind_aliases(record).await?;
            let authorities = resolver.authorities(&name).await?;
            (name, authorities)
        }
    };
    // Kept while they are asked: this future may be dropped at any point.
    *missing = Some((name.clone(), authorities.clone()));
    let mut looks = JoinSet::new();
    for authority in authorities {
        let (name, value) = (name.clone(), value.to_owned());
        looks.spawn(async move {
            let seen = all_addresses(&authority, &name, &value).await;
            (authority, seen)
        });
    }
    let (mut left, mut reasons) = (Vec::new(), Vec::new());
    while let Some(ended) = looks.join_next().await {
        let (authority, seen) = ended.map_err(|error| error.to_string())?;
        if let Err(reason) = seen {
            reasons.push(format!("{} {reason}", authority.name));
            left.push(authority);
        }
    }
    *missing = Some((name, left));
    reasons.sort();
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}

/// Whether a server shows it. An address that is not reached from here does not count if another one is.
async fn all_addresses(authority: &Authority, name: &Name, value: &str) -> Result<(), String> {
    let (mut shown, mut unreachable) = (false, None);
    for address in &authority.addresses {
        match one_address(*address, name, value).await {
            Seen::Shown => shown = true,
            Seen::NotYet(reason) => return Err(format!("({address}) {reason}")),
            Seen::Unreachable(reason) => unreachable = Some(format!("({address}) is not reached: {reason}")),
        }
    }
    match unreachable {
        Some(reason) if !shown => Err(reason),
        _ => Ok(()),
    }
}

async fn one_address(address: SocketAddr, name: &Name, value: &str) -> Seen {
    let answer = match ask(address, name, RecordType::TXT, false).await {
        Ok(answer) => answer,
        Err(NoAnswer::Unreachable(reason)) => return Seen::Unreachable(reason),
        Err(NoAnswer::Wrong(reason)) => return Seen::NotYet(format!("does not answer: {reason}")),
    };
    match answer.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain if !answer.authoritative => {
            return Seen::NotYet("is not an authoritative server of the zone".to_owned());
        }
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Seen::NotYet("does not have the record yet (NXDOMAIN)".to_owned()),
        other => return Seen::NotYet(format!("answers {}", code(other))),
    }
    let mut texts = answer.answers.iter().filter_map(|record| match &record.data {
        // Longer texts are divided.
        RData::TXT(text) if record.name == *name => Some(text.txt_data.concat()),
        _ => None,
    });
    if texts.any(|text| text == value.as_bytes()) {
        Seen::Shown
    } else if answer.answers.is_empty() {
        Seen::NotYet("does not have the record yet".to_owned())
    } else {
        Seen::NotYet("has other values only".to_owned())
    }
}
