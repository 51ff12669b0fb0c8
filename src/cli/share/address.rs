//! The address of the link.

use std::net::SocketAddr;

use super::{LinkArgs, NotShared};
use crate::cli::exit;
use crate::enrolment::link::{self, Candidate, InterfaceKind};

/// The address that was chosen.
#[derive(Debug)]
pub(in crate::cli) struct LinkAddress {
    pub(super) address: SocketAddr,
    /// Where it came from, unless the user gave it.
    candidate: Option<Candidate>,
    /// Other addresses of this machine, the most likely one first.
    pub(super) others: Vec<Candidate>,
}

impl LinkAddress {
    /// The choice, if there was one, and how to choose another address.
    pub(super) fn text(&self) -> String {
        let Some(candidate) = self.candidate.as_ref().filter(|_| !self.others.is_empty()) else { return String::new() };
        let mut out = format!(
            "The link is at {} ({}). If the device is in another network, stop this command and choose another address:\n",
            candidate.address, candidate.interface
        );
        for Candidate { address, interface, kind } in &self.others {
            let kind = if *kind == InterfaceKind::Network { String::new() } else { format!(", {kind}") };
            out.push_str(&format!("  --address {address}  ({interface}{kind})\n"));
        }
        out.push('\n');
        out
    }
}

/// `--address`, if it is suitable, or else the address that is most likely in the home network.
pub(in crate::cli) fn choose(args: &LinkArgs) -> Result<LinkAddress, NotShared> {
    const CHOOSE: &str = "choose one: --address 192.168.1.5";
    let failed = |error: String| NotShared::new(exit::START, format!("{error}\n  {CHOOSE}"));
    let (address, candidate, others) = match args.address {
        Some(address) => (address, None, Vec::new()),
        None => {
            let mut found = link::candidates(args.reach())
                .map_err(|error| failed(format!("cannot determine this machine's address: {error}")))?
                .into_iter();
            let first = found.next().ok_or_else(|| failed("this machine has no address".to_owned()))?;
            (first.address, Some(first), found.collect())
        }
    };
    link::check_address(address, args.reach()).map_err(unsuitable)?;
    Ok(LinkAddress { address: SocketAddr::new(address, args.port), candidate, others })
}

pub(super) fn unsuitable(why: link::Unsuitable) -> NotShared {
    const CHOOSE: &str =
        "choose this machine's address in your home network: --address 192.168.1.5 (or add --allow-public)";
    NotShared::new(exit::USAGE, format!("{why}\n  {CHOOSE}"))
}
