//! What can be done about an order that has failed: one sentence or two for each thing.
//!
//! It is a pure function of what the ACME server has said and of what this machine knows of the names. The server's own words are
//! told beside it, so nothing here repeats them. Error types: RFC 8555 section 6.7, RFC 8737, RFC 8659, RFC 9773.

mod address;

use std::net::IpAddr;

use self::address::{SHARED, is_shared, not_public};

/// The most remedies that are told.
const REMEDIES_MAX: usize = 6;

/// What comes before the types of RFC 8555.
const TYPES: &str = "urn:ietf:params:acme:error:";

/// What is known of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProblemFacts {
    /// The type of the error without its URN, as in `connection`; `None` if it is none of the ACME server's.
    pub kind: Option<String>,
    /// What the ACME server said.
    pub said: String,
    /// Why it could not be asked, or what it said could not be used.
    pub obstacle: Option<Obstacle>,
    /// The same for single names, if the server tells them apart.
    pub names: Vec<(String, Self)>,
}

impl ProblemFacts {
    /// What the ACME server said; `kind` may be a whole URN.
    pub fn said(kind: &str, detail: &str) -> Self {
        let kind = kind.strip_prefix(TYPES).unwrap_or(kind);
        Self { kind: Some(kind.to_owned()), said: detail.to_owned(), ..Self::default() }
    }

    /// Something on the way to the ACME server, or on this machine.
    pub fn obstacle(obstacle: Obstacle) -> Self {
        Self { obstacle: Some(obstacle), ..Self::default() }
    }

    /// With what was said of single names.
    #[must_use]
    pub fn with_names(self, names: Vec<(String, Self)>) -> Self {
        Self { names, ..self }
    }

    /// Whether the addresses of the names matter for what can be done.
    pub fn is_about_names(&self) -> bool {
        let is_about = |facts: &Self| {
            matches!(facts.kind.as_deref(), Some("connection" | "dns" | "tls" | "unauthorized" | "incorrectResponse"))
        };
        is_about(self) || self.names.iter().any(|(_, facts)| is_about(facts))
    }

    /// Whether one of these words is part of what was said, in whatever case.
    fn says(&self, words: &[&str]) -> bool {
        let said = self.said.to_ascii_lowercase();
        words.iter().any(|word| said.contains(word))
    }

    /// The addresses that it names: those that the server has connected to.
    fn addresses(&self) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for word in self.said.split(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))) {
            let word = word.trim_start_matches('.').trim_end_matches('.');
            // `192.0.2.1:443`, `[2001:db8::1]:443`, `2001:db8::1: Connection refused`.
            let bracketed = word.strip_prefix('[').and_then(|word| word.split_once(']')).map(|(inside, _)| inside);
            let before_port = word.split_once(':').map(|(host, _)| host).filter(|host| host.contains('.'));
            let bare = word.strip_suffix(':').filter(|bare| !bare.ends_with(':')).unwrap_or(word);
            let address = [bracketed, before_port, Some(bare)].into_iter().flatten().find_map(|text| text.parse().ok());
            found.extend(address.filter(|address: &IpAddr| !found.contains(address)));
        }
        found
    }
}

/// What has kept this machine from an answer that it can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The name of the ACME server cannot be looked up.
    LookUp,
    /// The ACME server cannot be reached.
    Network,
    /// Its certificate, or a new one, is not valid at the time that this machine has.
    Clock,
    /// Its certificate is not trusted.
    Trust,
    /// What answers is no ACME server.
    Protocol,
    /// The state folder cannot be used.
    Storage,
}

/// How the server is shown that the names are the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a certificate on port 443 (RFC 8737).
    TlsAlpn01,
    /// By a record in DNS (RFC 8555 section 8.4).
    Dns01,
}

/// What can be done about `problem`. `resolved` has each name that was ordered, with its addresses as this machine sees them; none if
/// it has no address here.
pub fn remedies(problem: &ProblemFacts, challenge: ChallengeKind, resolved: &[(String, Vec<IpAddr>)]) -> Vec<String> {
    let of = |name, problem| Remedies { problem, challenge, name, resolved }.all();
    let mut told: Vec<String> = Vec::new();
    for remedy in problem.names.iter().flat_map(|(name, problem)| of(Some(name.as_str()), problem)) {
        if !told.contains(&remedy) {
            told.push(remedy);
        }
    }
    if told.is_empty() {
        told = of(None, problem);
    }
    told.truncate(REMEDIES_MAX);
    told
}

struct Remedies<'a> {
    problem: &'a ProblemFacts,
    challenge: ChallengeKind,
    /// The name that it is about, if the server says that.
    name: Option<&'a str>,
    resolved: &'a [(String, Vec<IpAddr>)],
}

impl Remedies<'_> {
    fn all(&self) -> Vec<String> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        match self.problem.kind.as_deref() {
            Some("connection") => self.not_reached(),
            Some("tls") => self.wrong_answer(),
            Some("unauthorized") if self.problem.says(&["deactivated", "revoked", "not valid, has status"]) => {
                texts(&[ACCOUNT_CLOSED])
            }
            Some("unauthorized" | "incorrectResponse") => self.wrong_answer(),
            Some("dns") => self.name_not_resolved(),
            Some("caa") => self.caa(),
            Some("rateLimited") => self.rate_limited(),
            Some("rejectedIdentifier" | "unsupportedIdentifier") => vec![self.rejected_name()],
            Some("externalAccountRequired") => texts(&[
                "This ACME server only serves its customers: sign in to its web page, create an EAB key (external account \
                 binding), and write it as eab = { key_id = \"…\", key_file = \"…\" } below [certificate.acme].",
            ]),
            Some("userActionRequired") => texts(&[
                "The ACME server wants you to do something, such as to agree to changed terms of service: open the web \
                 address that it gives.",
            ]),
            Some("invalidContact" | "unsupportedContact" | "invalidEmail") => texts(&[
                "Correct contact below [certificate.acme], as in contact = \"mailto:me@home.example\" with an address that \
                 exists, or remove it: it is optional.",
            ]),
            Some("accountDoesNotExist") => texts(&[
                "The ACME server does not know the account any more. The next attempt makes another one, with the same key.",
            ]),
            Some("badNonce") => texts(&[
                "The ACME server refused a number that it had given out itself. That ends without your help, unless a proxy \
                 between this machine and the server keeps old answers.",
            ]),
            Some("serverInternal") => texts(&[
                "The trouble is the ACME server's own: it is tried again. For Let's Encrypt, https://letsencrypt.status.io \
                 says whether it is known.",
            ]),
            Some("invalidProfile") => {
                texts(&["The ACME server has no such profile: correct profile below [certificate.acme], or remove it."])
            }
            Some("badSignatureAlgorithm" | "badPublicKey" | "badCSR") => texts(&[
                "The ACME server does not take keys or requests as Doorward makes them (ECDSA with P-256). Choose another \
                 directory below [certificate.acme].",
            ]),
            Some(_) => Vec::new(),
            None => self.problem.obstacle.map(|obstacle| obstacle.remedy().to_owned()).into_iter().collect(),
        }
    }

    /// The name that the remedy is about, for a sentence.
    fn subject(&self) -> &str {
        let only = || self.resolved.first().filter(|_| self.resolved.len() == 1);
        self.name.or_else(|| only().map(|(name, _)| name.as_str())).unwrap_or("the name")
    }

    /// The names that it is about, with what they resolve to here.
    fn concerned(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        let all = self.resolved.iter().map(|(name, addresses)| (name.as_str(), addresses.as_slice()));
        all.filter(|(name, _)| self.name.is_none_or(|wanted| wanted.eq_ignore_ascii_case(name)))
    }

    /// The server has found no way to port 443, or to a server for DNS.
    fn not_reached(&self) -> Vec<String> {
        if self.challenge == ChallengeKind::Dns01 {
            return vec![format!(
                "The ACME server could not ask the DNS servers of {}: see at your DNS provider that they answer.",
                self.subject()
            )];
        }
        let contacted = self.problem.addresses();
        let mut told = self.leads_elsewhere(&contacted);
        // A port that is open would not help where no address of the internet is.
        if contacted.iter().any(|address| not_public(*address).is_some()) {
            return told;
        }
        if self.problem.says(&["refused"]) {
            told.push(
                "Port 443 of that address is closed: forward TCP port 443 of the router to the port of the gate's listener on this \
                 machine. tls-alpn-01 always comes to port 443, whatever public_port is."
                    .to_owned(),
            );
        } else if self.problem.says(&["reset", "eof", "closed", "after connect"]) {
            told.push(
                "Something takes connections to port 443 and ends them: see that the router forwards the port to the gate's listener, \
                 and that no firewall, allow_sources or deny_sources refuses the ACME server, which comes from several \
                 addresses."
                    .to_owned(),
            );
        } else {
            told.push(
                "Nothing answers on port 443: forward TCP port 443 of the router to the port of the gate's listener on this machine, and \
                 see that no firewall drops connections to it. tls-alpn-01 always comes to port 443, whatever public_port is."
                    .to_owned(),
            );
            told.push(
                "Some providers block port 443, or give several customers one address. Where that is so: challenge = \"dns-01\"."
                    .to_owned(),
            );
        }
        let v6 = contacted.iter().any(|address| address.is_ipv6());
        let publishes_v6 = || self.concerned().any(|(_, addresses)| addresses.iter().any(|one| one.is_ipv6()));
        if v6 || (contacted.is_empty() && publishes_v6()) {
            told.push(
                "The name has an IPv6 address (AAAA record), which the ACME server tries first. A router's IPv6 firewall has a rule of its \
                 own: allow TCP port 443 to this machine there too, or remove the AAAA record."
                    .to_owned(),
            );
        }
        told.push("To try the port from outside: doorward check --from-outside.".to_owned());
        told
    }

    /// Whether the address that the server has contacted is another one than this machine finds, or not one of the internet.
    fn leads_elsewhere(&self, contacted: &[IpAddr]) -> Vec<String> {
        let mut told = Vec::new();
        for address in contacted {
            if let Some(what) = not_public(*address) {
                told.push(format!(
                    "{} resolves to {address}, {what}: no ACME server can connect to that. Publish the public address of your \
                     router in its DNS record, or use challenge = \"dns-01\".",
                    self.subject()
                ));
            }
        }
        for (name, addresses) in self.concerned() {
            let public = || addresses.iter().filter(|address| not_public(**address).is_none());
            let shared = addresses.iter().find(|address| is_shared(**address));
            let elsewhere: Vec<&IpAddr> = contacted.iter().filter(|one| not_public(**one).is_none()).collect();
            let list = || public().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if let Some(shared) = shared.filter(|_| contacted.is_empty()) {
                told.push(format!(
                    "{name} resolves to {shared}, {SHARED}: nothing on the internet can connect to it. Ask your provider for a \
                     public IPv4 address, publish an IPv6 address (AAAA record) only, or use challenge = \"dns-01\"."
                ));
            } else if contacted.is_empty() && !addresses.is_empty() && public().next().is_none() {
                let first = addresses.iter().find_map(|address| Some((address, not_public(*address)?)));
                told.extend(first.map(|(address, what)| {
                    format!(
                        "{name} resolves to {address} on this machine, {what}. If your own network has another DNS than the \
                         internet, that is right; else publish the public address of your router."
                    )
                }));
            } else if public().next().is_some()
                && let [first, ..] = elsewhere.as_slice()
                && !elsewhere.iter().any(|one| addresses.contains(*one))
            {
                told.push(format!(
                    "The ACME server has connected to {first}, and {name} resolves to {} on this machine. The record was changed \
                     lately, or one of the two is old: correct it at your DNS provider, or have dynamic DNS correct it.",
                    list()
                ));
            }
        }
        told
    }

    /// Something has answered, and not as the gate does.
    fn wrong_answer(&self) -> Vec<String> {
        if self.challenge == ChallengeKind::Dns01 {
            let name = self.name.unwrap_or("NAME").trim_start_matches("*.");
            return vec![
                format!(
                    "The TXT record _acme-challenge.{name} is missing or has an old value. See that the provider below dns is the \
                     one whose servers the domain uses (NS records), and that _acme-challenge.{name} is no CNAME to another zone."
                ),
                "If the servers of the provider take long to agree, raise dns.propagation.".to_owned(),
            ];
        }
        let mut told = self.leads_elsewhere(&self.problem.addresses());
        told.push(
            "Another program has answered on port 443, or a proxy that ends TLS itself: see that the router forwards port 443 to the \
             gate's listener, and that what stands before it (Caddy, nginx, a CDN such as Cloudflare's orange cloud) passes TLS on \
             unopened."
                .to_owned(),
        );
        told.push(format!(
            "If {} is the name of a passthrough route, its backend answers: such a route has certificates of its own.",
            self.subject()
        ));
        told
    }

    /// The server finds no address of the name.
    fn name_not_resolved(&self) -> Vec<String> {
        let name = self.subject();
        if self.problem.says(&["reserved", "private-use", "private", "rfc 1918", "rfc 6598", "no valid a records"]) {
            let mut told = self.leads_elsewhere(&self.problem.addresses());
            if told.is_empty() {
                told.push(format!(
                    "{name} has no address of the internet in public DNS: publish the public address of your router, or use challenge \
                     = \"dns-01\"."
                ));
            }
            return told;
        }
        if self.problem.says(&["nxdomain", "no such host", "does not exist"]) {
            let here: Vec<&str> =
                self.concerned().filter(|(_, found)| !found.is_empty()).map(|(name, _)| name).collect();
            let mut told = vec![format!(
                "{name} does not exist in public DNS: add an A or AAAA record with the public address of your router at your DNS \
                 provider, or correct server_names."
            )];
            if !here.is_empty() {
                told.push(format!(
                    "This machine does find {}: your own network has another DNS than the internet.",
                    here.join(", ")
                ));
            }
            return told;
        }
        vec![format!(
            "The DNS servers of {name} gave the ACME server no valid answer (SERVFAIL, DNSSEC, or none at all): see at your DNS \
             provider that they are up, and that the DS record of the domain is that of its keys."
        )]
    }

    fn caa(&self) -> Vec<String> {
        let name = self.subject();
        if self.problem.says(&["dns problem", "servfail", "timed out", "timeout"]) {
            return vec![format!(
                "The ACME server could not read the CAA records of {name}: the domain's DNS servers must answer that question too, \
                 at least with \"none\"."
            )];
        }
        vec![format!(
            "A CAA record of {name}, or of a domain above it, names the authorities that may issue certificates for it, and this \
             one is not among them. Add one at your DNS provider (for Let's Encrypt: 0 issue \"letsencrypt.org\"), or remove them; \
             a value with validationmethods or accounturi must fit as well."
        )]
    }

    fn rate_limited(&self) -> Vec<String> {
        let until = self.problem.said.split_once("retry after ").map(|(_, rest)| rest);
        let until = until.map(|rest| rest.split(": ").next().unwrap_or(rest).trim_end_matches(['.', ',', ';']));
        let until = until.filter(|until| until.len() <= 40);
        let what = if self.problem.says(&["failed authorizations", "failed validations", "authorization failures"]) {
            "Too many attempts for one name have failed (Let's Encrypt: five in an hour). Mend the cause of those first: the log has \
             each with its error (certificate_renewal_failed)."
        } else if self.problem.says(&["exact set"]) {
            "Too many certificates with the same names were issued (Let's Encrypt: five in a week). Do not remove the state folder to \
             try again: the certificate in it counts. Try with directory = \"letsencrypt-staging\"."
        } else if self.problem.says(&["registrations", "accounts"]) {
            "Too many accounts were made from this address. The account's key is in the state folder: keep the folder."
        } else if self.problem.says(&["new orders"]) {
            "Too many orders were placed by this account: another program may share its key."
        } else if self.problem.says(&["already issued"]) {
            "Too many certificates were issued for the domain (Let's Encrypt: fifty in a week), and those of other programs count. \
             With a dynamic DNS service, its other customers may count as well."
        } else {
            "The ACME server had too many requests from this account, address or domain; those of other programs count as well."
        };
        let until =
            until.map(|until| format!("The limit lasts until {until}: an order before that is refused as well."));
        [what.to_owned()].into_iter().chain(until).collect()
    }

    fn rejected_name(&self) -> String {
        format!(
            "The ACME server issues no certificate for {}: only names below a public domain of yours can have one, not those of a home \
             network (.lan, .local, .home.arpa), and some are forbidden. Use a name of your own domain, or give the route a [route.certificate].",
            self.subject()
        )
    }
}

impl Obstacle {
    const fn remedy(self) -> &'static str {
        match self {
            Self::LookUp => {
                "This machine cannot look up the name of the ACME server: see that its DNS works (getent hosts \
                 acme-v02.api.letsencrypt.org), and that directory is spelt right."
            }
            Self::Network => {
                "This machine cannot reach the ACME server: see that it may connect to the internet on TCP port 443, through every \
                 firewall on the way."
            }
            Self::Clock => {
                "A certificate is not valid at the time that this machine has: see that its clock is right (timedatectl)."
            }
            Self::Trust => {
                "The certificate of the ACME server is not trusted: for a private server, name its authority as trust = \"FILE\" below \
                 [certificate.acme]; else install or update the package ca-certificates, and see that no proxy opens TLS on the way."
            }
            Self::Protocol => {
                "What answers is no ACME server: see that directory below [certificate.acme] is the URL of one, and that no proxy or login \
                 page stands before it."
            }
            Self::Storage => {
                "See that the state folder can be written by the gate's user, and that its disk is not full."
            }
        }
    }
}

const ACCOUNT_CLOSED: &str = "The account at the ACME server was closed, by its operator or with a copy of its key. The next attempt makes \
                              another one with a new key. If you did not close it, somebody has had the key.";

#[cfg(test)]
mod tests;
