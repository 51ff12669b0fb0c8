//! The address of the link.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::net::SocketAddr;

use super::{LinkArgs, NotShared};
use crate::cli::{Format, exit};
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
            out.push_str(&format!("  --address {address}  ({interface}{})\n", words(*kind)));
        }
        out.push('\n');
        out
    }
}

/// `--address`, if it is suitable, or else the address that is most likely in the home network. If that is not certain, a person
/// at a terminal is asked.
pub(in crate::cli) fn choose(args: &LinkArgs, format: Format) -> Result<LinkAddress, NotShared> {
    const CHOOSE: &str = "choose one: --address 192.168.1.5";
    let failed = |error: String| NotShared::new(exit::START, format!("{error}\n  {CHOOSE}"));
    let (address, candidate, others) = match args.address {
        Some(address) => (address, None, Vec::new()),
        None => {
            let mut found = link::candidates(args.reach())
                .map_err(|error| failed(format!("cannot determine this machine's address: {error}")))?
                .into_iter()
                .collect::<Vec<_>>();
            let is_asked = format == Format::Text && io::stdin().is_terminal() && io::stderr().is_terminal();
            let index = if is_asked && is_ambiguous(&found) {
                let answer = ask(&found, io::stdin().lock(), io::stderr().lock());
                answer.map_err(|_| failed("the question was not answered".to_owned()))?
            } else {
                0
            };
            if found.is_empty() {
                return Err(failed("this machine has no address".to_owned()));
            }
            let chosen = found.remove(index);
            (chosen.address, Some(chosen), found)
        }
    };
    link::check_address(address, args.reach()).map_err(unsuitable)?;
    Ok(LinkAddress { address: SocketAddr::new(address, args.port), candidate, others })
}

/// Whether the first address may be in another network than the device: another one is of a network card, too, or none is.
fn is_ambiguous(found: &[Candidate]) -> bool {
    let cards = found.iter().filter(|one| one.kind == InterfaceKind::Network);
    let mut interfaces: Vec<&str> = cards.map(|one| one.interface.as_str()).collect();
    interfaces.dedup();
    // Several addresses of one card lead to the same network.
    found.len() > 1 && interfaces.len() != 1
}

/// Asks for one of the addresses: its index.
fn ask(found: &[Candidate], mut input: impl BufRead, mut output: impl Write) -> io::Result<usize> {
    writeln!(output, "This machine has several addresses. Which one is in the network of the device?")?;
    for (number, Candidate { address, interface, kind }) in (1..).zip(found) {
        writeln!(output, "  {number}  {address}  ({interface}{})", words(*kind))?;
    }
    loop {
        write!(output, "number [1]: ")?;
        output.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answer = line.trim();
        let number = if answer.is_empty() { Some(1) } else { answer.parse::<usize>().ok() };
        match number {
            Some(number) if (1..=found.len()).contains(&number) => return Ok(number - 1),
            _ => writeln!(output, "a number from 1 to {}", found.len())?,
        }
    }
}

/// What an interface connects to, behind its name; nothing for a network card.
fn words(kind: InterfaceKind) -> String {
    if kind == InterfaceKind::Network { String::new() } else { format!(", {kind}") }
}

pub(super) fn unsuitable(why: link::Unsuitable) -> NotShared {
    const CHOOSE: &str =
        "choose this machine's address in your home network: --address 192.168.1.5 (or add --allow-public)";
    NotShared::new(exit::USAGE, format!("{why}\n  {CHOOSE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(interface: &str, address: &str, kind: InterfaceKind) -> Candidate {
        Candidate { address: address.parse().expect("an address"), interface: interface.to_owned(), kind }
    }

    #[test]
    fn question_is_asked_only_if_the_network_is_not_certain() {
        let lan = candidate("eth0", "192.168.1.5", InterfaceKind::Network);
        let same = candidate("eth0", "fd00::5", InterfaceKind::Network);
        let wlan = candidate("wlan0", "192.168.2.5", InterfaceKind::Network);
        let vpn = candidate("wg0", "10.8.0.2", InterfaceKind::Tunnel);
        let docker = candidate("docker0", "172.17.0.1", InterfaceKind::Virtual);
        for (found, ambiguous) in [
            (vec![&lan], false),
            (vec![&lan, &same], false),
            (vec![&lan, &docker, &vpn], false),
            (vec![&vpn], false),
            (vec![&docker, &vpn], true),
            (vec![&lan, &wlan], true),
        ] {
            let found: Vec<Candidate> = found.into_iter().cloned().collect();
            assert_eq!(is_ambiguous(&found), ambiguous, "{found:?}");
        }
    }

    #[test]
    fn answer_is_a_number_of_the_list_or_empty_for_the_first() {
        let found = [
            candidate("eth0", "192.168.1.5", InterfaceKind::Network),
            candidate("wg0", "10.8.0.2", InterfaceKind::Tunnel),
        ];
        let asked = |input: &str| {
            let mut output = Vec::new();
            let answer = ask(&found, input.as_bytes(), &mut output).ok();
            (answer, String::from_utf8(output).expect("text"))
        };
        assert_eq!(asked("\n").0, Some(0));
        let (answer, shown) = asked("0\n3\nx\n 2 \n");
        assert_eq!(answer, Some(1));
        assert!(shown.contains("  1  192.168.1.5  (eth0)\n  2  10.8.0.2  (wg0, VPN)\n"), "{shown}");
        assert_eq!(shown.matches("a number from 1 to 2\n").count(), 3, "{shown}");
        assert_eq!(asked("").0, None, "the input has ended");
    }
}
