use super::*;

const NAS: &str = "nas.home.example";

fn resolved(addresses: &[&str]) -> Vec<(String, Vec<IpAddr>)> {
    vec![(NAS.to_owned(), addresses.iter().map(|text| text.parse().expect("an address")).collect())]
}

fn told(kind: &str, detail: &str, challenge: ChallengeKind, addresses: &[&str]) -> Vec<String> {
    remedies(&ProblemFacts::said(kind, detail), challenge, &resolved(addresses))
}

/// What servers say, as Boulder and pebble put it; and words of each remedy, in their order.
#[test]
fn each_failure_has_its_remedies() {
    use ChallengeKind::{Dns01, TlsAlpn01};
    type Case<'a> = (&'a str, &'a str, ChallengeKind, &'a [&'a str], &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (
            "urn:ietf:params:acme:error:connection",
            "203.0.113.5: Connection refused",
            TlsAlpn01,
            &["203.0.113.5"],
            &["Port 443 of that address is closed: forward TCP port 443", "check --from-outside"],
        ),
        (
            "connection",
            "203.0.113.5: Timeout during connect (likely firewall problem)",
            TlsAlpn01,
            &["203.0.113.5"],
            &["Nothing answers on port 443", "Some providers block port 443", "check --from-outside"],
        ),
        (
            "connection",
            "2001:db8::5: Timeout during connect (likely firewall problem)",
            TlsAlpn01,
            &["203.0.113.5", "2001:db8::5"],
            &[
                "Nothing answers on port 443",
                "Some providers",
                "The name has an IPv6 address (AAAA record)",
                "--from-outside",
            ],
        ),
        (
            "connection",
            "203.0.113.5: Connection reset by peer",
            TlsAlpn01,
            &["203.0.113.5"],
            &["Something takes connections to port 443 and ends them", "--from-outside"],
        ),
        // The public record is an old one.
        (
            "connection",
            "198.51.100.9: Timeout during connect (likely firewall problem)",
            TlsAlpn01,
            &["203.0.113.5"],
            &[
                "has connected to 198.51.100.9, and nas.home.example resolves to 203.0.113.5 on this machine",
                "Nothing answers",
                "Some providers",
                "--from-outside",
            ],
        ),
        // The home's own DNS has the private address, and the server has used the public one.
        (
            "connection",
            "203.0.113.5: Connection refused",
            TlsAlpn01,
            &["192.168.1.10"],
            &["Port 443 of that address is closed", "--from-outside"],
        ),
        (
            "connection",
            "10.0.0.7: Timeout during connect",
            TlsAlpn01,
            &["10.0.0.7"],
            &["nas.home.example resolves to 10.0.0.7, a private address of a home network: no ACME server can connect"],
        ),
        (
            "connection",
            "127.0.0.1:443: Connection refused",
            TlsAlpn01,
            &[],
            &["resolves to 127.0.0.1, an address that means each machine itself (loopback)"],
        ),
        (
            "connection",
            "100.72.0.9: Timeout during connect",
            TlsAlpn01,
            &["100.72.0.9"],
            &["resolves to 100.72.0.9, which your provider shares among its customers (CGNAT)"],
        ),
        // pebble names the host.
        (
            "connection",
            "Failed to connect to nas.home.example:443 for the tls-alpn-01 challenge",
            TlsAlpn01,
            &["100.72.0.9"],
            &["Ask your provider for a public IPv4 address", "Nothing answers", "Some providers", "--from-outside"],
        ),
        (
            "connection",
            "Failed to connect to nas.home.example:443 for the tls-alpn-01 challenge",
            TlsAlpn01,
            &["192.168.1.10"],
            &[
                "nas.home.example resolves to 192.168.1.10 on this machine, a private",
                "Nothing",
                "Some",
                "--from-outside",
            ],
        ),
        ("connection", "a DNS server timed out", Dns01, &[], &["could not ask the DNS servers of nas.home.example"]),
        (
            "unauthorized",
            "Cannot negotiate ALPN protocol \"acme-tls/1\" for tls-alpn-01 challenge",
            TlsAlpn01,
            &["203.0.113.5"],
            &["Another program has answered on port 443", "If nas.home.example is the name of a passthrough route"],
        ),
        (
            "unauthorized",
            "Incorrect validation certificate for tls-alpn-01 challenge. Requested nas.home.example from 198.51.100.9:443. \
             Received 1 certificate(s)",
            TlsAlpn01,
            &["203.0.113.5"],
            &["has connected to 198.51.100.9", "Another program", "passthrough"],
        ),
        (
            "unauthorized",
            "Incorrect TXT record \"x\" found at _acme-challenge.nas.home.example",
            Dns01,
            &[],
            &["The TXT record _acme-challenge.", "raise dns.propagation"],
        ),
        ("tls", "203.0.113.5: Server only speaks HTTP, not TLS", TlsAlpn01, &[], &["Another program", "passthrough"]),
        (
            "unauthorized",
            "Account is not valid, has status \"deactivated\"",
            TlsAlpn01,
            &[],
            &["account at the ACME server was closed"],
        ),
        (
            "dns",
            "DNS problem: NXDOMAIN looking up A for nas.home.example - check that a DNS record exists for this domain",
            TlsAlpn01,
            &[],
            &["nas.home.example does not exist in public DNS: add an A or AAAA record"],
        ),
        (
            "dns",
            "DNS problem: NXDOMAIN looking up A for nas.home.example",
            TlsAlpn01,
            &["192.168.1.10"],
            &["does not exist in public DNS", "This machine does find nas.home.example"],
        ),
        (
            "dns",
            "DNS problem: SERVFAIL looking up A for nas.home.example",
            TlsAlpn01,
            &[],
            &["gave the ACME server no valid answer"],
        ),
        (
            "dns",
            "no valid A records found for nas.home.example; no valid AAAA records found for nas.home.example",
            TlsAlpn01,
            &["192.168.1.10"],
            &["resolves to 192.168.1.10 on this machine, a private address"],
        ),
        (
            "dns",
            "no valid A records found for nas.home.example",
            TlsAlpn01,
            &[],
            &["has no address of the internet in public DNS"],
        ),
        ("caa", "CAA record for home.example prevents issuance", TlsAlpn01, &[], &["0 issue \"letsencrypt.org\""]),
        (
            "caa",
            "DNS problem: SERVFAIL looking up CAA for home.example",
            TlsAlpn01,
            &[],
            &["could not read the CAA records"],
        ),
        (
            "rateLimited",
            "too many failed authorizations (5) for \"nas.home.example\" in the last 1h0m0s, retry after 2026-11-28 22:10:00 UTC: \
             see https://letsencrypt.org/docs/rate-limits/",
            TlsAlpn01,
            &[],
            &["Too many attempts for one name have failed", "The limit lasts until 2026-11-28 22:10:00 UTC: an order"],
        ),
        (
            "rateLimited",
            "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after \
             2026-11-30 05:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/",
            TlsAlpn01,
            &[],
            &["Too many certificates with the same names", "The limit lasts until 2026-11-30 05:00:00 UTC"],
        ),
        (
            "rateLimited",
            "too many certificates (50) already issued for \"example.com\"",
            TlsAlpn01,
            &[],
            &["issued for the domain"],
        ),
        (
            "rateLimited",
            "too many registrations for this IP",
            TlsAlpn01,
            &[],
            &["Too many accounts were made from this address"],
        ),
        (
            "rateLimited",
            "too many new orders (300) from this account",
            TlsAlpn01,
            &[],
            &["Too many orders were placed"],
        ),
        ("rateLimited", "Service busy", TlsAlpn01, &[], &["too many requests from this account, address or domain"]),
        (
            "rejectedIdentifier",
            "Cannot issue for \"nas.home.lan\": Domain name does not end with a valid public suffix (TLD)",
            TlsAlpn01,
            &[],
            &["issues no certificate for nas.home.example: only names below a public domain"],
        ),
        ("externalAccountRequired", "EAB required", TlsAlpn01, &[], &["eab = { key_id"]),
        (
            "userActionRequired",
            "Terms of service have changed",
            TlsAlpn01,
            &[],
            &["open the web address that it gives"],
        ),
        (
            "invalidContact",
            "contact email has forbidden domain \"example.com\"",
            TlsAlpn01,
            &[],
            &["Correct contact below"],
        ),
        ("unsupportedContact", "only mailto", TlsAlpn01, &[], &["Correct contact below"]),
        ("accountDoesNotExist", "No account exists", TlsAlpn01, &[], &["makes another one, with the same key"]),
        ("badNonce", "JWS has an invalid anti-replay nonce", TlsAlpn01, &[], &["ends without your help"]),
        ("serverInternal", "Error creating new order", TlsAlpn01, &[], &["The trouble is the ACME server's own"]),
        ("invalidProfile", "no such profile", TlsAlpn01, &[], &["correct profile below"]),
        ("badCSR", "key type", TlsAlpn01, &[], &["Choose another directory"]),
        ("somethingNew", "whatever", TlsAlpn01, &["203.0.113.5"], &[]),
    ];
    for (kind, detail, challenge, addresses, expected) in cases {
        let told = told(kind, detail, *challenge, addresses);
        assert_eq!(told.len(), expected.len(), "{kind} {detail}: {told:#?}");
        for (told, expected) in told.iter().zip(*expected) {
            assert!(told.contains(expected), "{kind} {detail}: {expected} in {told:#?}");
        }
        for told in &told {
            assert!(told.ends_with('.') && !told.contains("  "), "{told}");
        }
    }
}

#[test]
fn obstacles_have_a_remedy_each() {
    for (obstacle, expected) in [
        (Obstacle::LookUp, "cannot look up the name"),
        (Obstacle::Network, "cannot reach the ACME server"),
        (Obstacle::Clock, "its clock is right"),
        (Obstacle::Trust, "ca-certificates"),
        (Obstacle::Protocol, "What answers is no ACME server"),
        (Obstacle::Storage, "state folder can be written"),
    ] {
        let told = remedies(&ProblemFacts::obstacle(obstacle), ChallengeKind::TlsAlpn01, &[]);
        assert!(told.len() == 1 && told[0].contains(expected), "{obstacle:?}: {told:?}");
    }
    assert_eq!(remedies(&ProblemFacts::default(), ChallengeKind::TlsAlpn01, &[]), Vec::<String>::new());
}

#[test]
fn names_have_remedies_of_their_own_each_once_and_bounded() {
    let nx = |name: &str| (name.to_owned(), ProblemFacts::said("dns", "DNS problem: NXDOMAIN looking up A"));
    let refused = |name: &str| (name.to_owned(), ProblemFacts::said("connection", "203.0.113.5: Connection refused"));
    let whole = ProblemFacts::said("malformed", "Some challenges have failed");
    let names = vec![nx("a.home.example"), refused("b.home.example"), refused("c.home.example")];
    let told = remedies(&whole.clone().with_names(names), ChallengeKind::TlsAlpn01, &[]);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told[0].starts_with("a.home.example does not exist") && told[1].starts_with("Port 443"), "{told:#?}");
    let many = (0..100).map(|n| nx(&format!("n{n}.home.example"))).collect();
    assert_eq!(remedies(&whole.with_names(many), ChallengeKind::TlsAlpn01, &[]).len(), REMEDIES_MAX);
    // If nothing is known for the names, the whole has something.
    let caa =
        ProblemFacts::said("caa", "prevents issuance").with_names(vec![("x".to_owned(), ProblemFacts::default())]);
    assert!(remedies(&caa, ChallengeKind::TlsAlpn01, &resolved(&[]))[0].contains("A CAA record of nas.home.example"));
}

#[test]
fn addresses_are_found_in_what_the_server_says() {
    for (detail, expected) in [
        ("203.0.113.5: Connection refused", &["203.0.113.5"][..]),
        ("from 203.0.113.5:443. Received", &["203.0.113.5"]),
        ("2001:db8::5: Timeout", &["2001:db8::5"]),
        ("dial tcp [2001:db8::5]:443: connect", &["2001:db8::5"]),
        ("dial tcp 10.1.2.3:5001: connect: connection refused, then 10.1.2.3", &["10.1.2.3"]),
        ("64:ff9b::cb00:7105: x", &["64:ff9b::cb00:7105"]),
        ("in the last 1h0m0s, retry after 2026-11-28 22:10:00 UTC: see a.b", &[]),
        ("::: .... [] []:1 a:b", &[]),
    ] {
        let found = ProblemFacts::said("", detail).addresses();
        let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().expect("an address")).collect();
        assert_eq!(found, expected, "{detail}");
    }
}
