//! The words about a finding: a headline, a sentence, what to do, and the command that does it.

use super::public::RENEW;
use super::{Facts, Finding, Impostor, ReceiverFault, ServiceDown, Trouble, Verdict};
use crate::explain::clock::Clock;
use crate::explain::{self, check_advice, check_failure, impostor, words};
use crate::model::expiry::{Expiry, Kind};
use crate::model::impostor::{self as model, Claim};
use crate::model::rejection::{CheckFailure, Reason};
use crate::model::shell::word;
use crate::model::text::{counted, grouped, in_words, times};

impl Finding {
    /// What is the matter, in a few words without a full stop.
    pub fn headline(&self, clock: &Clock) -> String {
        match self {
            Self::RevocationNotInForce(found) => format!("{} was revoked and still gets in", found.device),
            Self::ConfigurationRefused(_) => "The changed configuration is not in force".to_owned(),
            Self::Impostor(found) => found.headline(),
            Self::Device(found) => found.headline(),
            Self::ServiceDown(found) => format!("{}: down since {}", found.route, clock.since(found.since)),
            Self::NotIssued(found) => found.not_issued_headline(),
            Self::RenewalFailed(found) => found.failed_headline(clock),
            Self::Expiry(found) => expiry_headline(found, clock),
            Self::Receiver(found) => {
                format!("{} has taken no message to you since {}", found.receiver, clock.since(found.since))
            }
            Self::Log(found) => format!("The log has not been written since {}", clock.since(found.since)),
            Self::History(found) => format!("The history has not been written since {}", clock.since(found.since)),
            Self::Descriptors(_) => "The limit of open files is too low".to_owned(),
            Self::Sandbox(_) => "A part of the sandbox is not in force".to_owned(),
        }
    }

    /// What is known about it, in sentences.
    pub fn sentence(&self, clock: &Clock) -> String {
        match self {
            Self::RevocationNotInForce(found) => format!(
                "You revoked its certificate {} {}, and no revocation list that is in force on the {} {} names it.",
                found.serial,
                revoked(clock, found.revoked_at),
                if found.routes.len() == 1 { "route" } else { "routes" },
                found.routes.join(", ")
            ),
            Self::ConfigurationRefused(found) => format!(
                "It was refused {}, and the one before is still in force. {}: {}",
                clock.moment(found.at),
                match found.errors.len() {
                    1 => "The mistake".to_owned(),
                    count => format!("The first of {}", counted(count as u64, "mistake")),
                },
                found.errors.first().and_then(|error| error.lines().next()).unwrap_or("unknown")
            ),
            Self::Impostor(found) => found.sentence(clock),
            Self::Device(found) => found.sentence(clock),
            Self::ServiceDown(found) => found.sentence(clock),
            Self::NotIssued(found) => found.not_issued_sentence(),
            Self::RenewalFailed(found) => found.failed_sentence(clock),
            Self::Expiry(found) => expiry_sentence(found, clock),
            Self::Receiver(found) => found.sentence(),
            Self::Log(found) | Self::History(found) => found.error.clone(),
            Self::Descriptors(text) => with_full_stop(text),
            Self::Sandbox(text) => with_full_stop(text),
        }
    }

    /// What to do about it, in a sentence.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::RevocationNotInForce(found) => {
                format!("Hand the list to the gate again: {}.", revoke(&found.device))
            }
            Self::ConfigurationRefused(_) => {
                "The gate takes the file over once the mistakes are corrected; this shows them all: doorward check."
                    .to_owned()
            }
            Self::Impostor(found) => found.advice(),
            Self::Device(found) => found.advice(),
            Self::ServiceDown(found) => format!("{} Then check: {CHECK}.", found.advice()),
            Self::RenewalFailed(found) => found.advice(),
            Self::Expiry(found) => expiry_advice(found),
            Self::Receiver(_) => format!("Send a test message, and see what is answered: {NOTIFY}."),
            Self::NotIssued(_) | Self::Log(_) | Self::History(_) | Self::Descriptors(_) | Self::Sandbox(_) => {
                return None;
            }
        })
    }

    /// The command that mends it, or shows more of it.
    pub fn command(&self) -> Option<String> {
        Some(match self {
            Self::RevocationNotInForce(found) => revoke(&found.device),
            Self::ConfigurationRefused(_) => "doorward check".to_owned(),
            Self::Impostor(found) => format!("doorward why {}", found.source),
            Self::Device(found) => found.command(),
            Self::ServiceDown(_) => CHECK.to_owned(),
            Self::RenewalFailed(found) => return found.failure().map(|_| RENEW.to_owned()),
            Self::Expiry(found) => expiry_command(found),
            Self::Receiver(_) => NOTIFY.to_owned(),
            Self::NotIssued(_) | Self::Log(_) | Self::History(_) | Self::Descriptors(_) | Self::Sandbox(_) => {
                return None;
            }
        })
    }
}

const CHECK: &str = "doorward check --connect";
const NOTIFY: &str = "doorward notify --test";

fn revoke(device: &str) -> String {
    format!("doorward ca revoke {}", word(device))
}

fn revoked(clock: &Clock, seconds: i64) -> String {
    clock.of_seconds(seconds).map_or_else(|| "earlier".to_owned(), |at| format!("on {}", at.date()))
}

fn with_full_stop(text: &str) -> String {
    if text.ends_with(['.', ')']) { text.to_owned() } else { format!("{text}.") }
}

impl Impostor {
    fn headline(&self) -> String {
        match self.claim {
            Some(Claim::Canary) => format!("Somebody used the canary {}", self.name),
            Some(Claim::CanaryRoute) => format!("Somebody asked for the canary route {}", self.name),
            Some(Claim::Name | Claim::Serial | Claim::Key) | None => {
                format!("Somebody pretended to be {}", self.name)
            }
        }
    }

    fn sentence(&self, clock: &Clock) -> String {
        let what = match self.claim {
            Some(Claim::Name) => "A certificate with its name that you never issued came",
            Some(Claim::Serial) => "A certificate with its serial number that you never issued came",
            Some(Claim::Key) => "A certificate with its public key that you never issued came",
            Some(Claim::Canary) => "The certificate, which no device uses, was shown",
            Some(Claim::CanaryRoute) => "No device is told its name, and a client asked for it",
            None => "A client that does not have the key to its certificate showed that certificate. It came",
        };
        let others = match self.others {
            0 => String::new(),
            1 => " and 1 more address".to_owned(),
            others => format!(" and {others} more addresses"),
        };
        let last = if self.times == 1 { clock.moment(self.last) } else { format!("last {}", clock.moment(self.last)) };
        format!(
            "{what} from {}{others}, {}, {last}. It was refused each time and reached nothing.",
            self.source,
            times(self.times)
        )
    }

    fn advice(&self) -> String {
        match self.claim {
            Some(claim) => {
                // The sentence says that already.
                let advice = impostor::advice(&model::Impostor { name: self.name.as_str().into(), claim });
                advice.strip_prefix("It was refused and reached nothing. ").unwrap_or(&advice).to_owned()
            }
            None => format!(
                "Certificates are no secret, keys are. If it was {} itself, issue it a new \
                 certificate (doorward ca device {}).",
                self.name,
                word(&self.name)
            ),
        }
    }
}

impl ReceiverFault {
    fn sentence(&self) -> String {
        let waiting = match self.waiting {
            0 => String::new(),
            1 => " 1 message waits.".to_owned(),
            count => format!(" {} messages wait.", grouped(count as u64)),
        };
        format!("Doorward cannot reach you there: {}.{waiting}", self.error)
    }
}

impl Trouble {
    fn headline(&self) -> String {
        let device = &self.device;
        match self.refusal.reason {
            Reason::Expired => format!("{device}: certificate has expired"),
            Reason::Revoked => format!("{device}: was revoked, and still tries"),
            Reason::Denied => format!("{device}: is shut out by deny, and still tries"),
            Reason::IdentityNotAllowed => match &self.refusal.route {
                Some(route) => format!("{device}: may not use the route {route}"),
                None => format!("{device}: may not use the route"),
            },
            reason => format!("{device}: {}", words(reason).short),
        }
    }

    fn sentence(&self, clock: &Clock) -> String {
        match &self.refusal.latest {
            Some(latest) => format!("{} {}", explain::sentence(latest, clock.now()), self.occasions(clock)),
            // The headline has all that the history knows.
            None => self.occasions(clock),
        }
    }

    fn advice(&self) -> String {
        match &self.refusal.latest {
            Some(latest) => explain::advice(latest),
            None => words(self.refusal.reason).advice.replace("NAME", &word(&self.device)),
        }
    }

    /// How often it was refused, and when last.
    pub fn occasions(&self, clock: &Clock) -> String {
        let (times, at) = (self.refusal.times, clock.moment(self.refusal.at));
        let source = self.refusal.source;
        match times {
            1 => format!("Refused once, {at} from {source}."),
            _ => format!("Refused {} times, last {at} from {source}.", grouped(times)),
        }
    }

    /// Why it is refused, in a sentence.
    pub fn reason(&self) -> String {
        let text = match (self.refusal.reason, &self.refusal.route) {
            (Reason::IdentityNotAllowed, Some(route)) => format!("it may not use the route {route}"),
            (reason, _) => words(reason).short.to_owned(),
        };
        let mut characters = text.chars();
        let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
        format!("{first}{}.", characters.as_str())
    }

    /// What it needs, in a few words.
    pub fn need(&self) -> &'static str {
        match self.refusal.reason {
            Reason::Revoked | Reason::Denied => "Nothing, if you shut it out on purpose.",
            Reason::IdentityNotAllowed => "A right, if it should have it.",
            Reason::NotYetValid => "A clock that is right.",
            Reason::RevocationUnknown | Reason::RevocationListExpired => "A current revocation list.",
            _ => "A new certificate.",
        }
    }

    /// The command that gives it what it needs.
    pub fn command(&self) -> String {
        let device = word(&self.device);
        match self.refusal.reason {
            Reason::Expired => format!("doorward ca renew {device}"),
            Reason::RevocationListExpired => "doorward ca revoke".to_owned(),
            Reason::Revoked | Reason::WrongPurpose | Reason::UnsupportedKey | Reason::CertificateInvalid => {
                format!("doorward ca device {device}")
            }
            _ => format!("doorward why {device}"),
        }
    }
}

/// What was seen of a backend that does not answer.
pub fn seen(backend: &str, reason: Option<Reason>) -> String {
    let Some(reason) = reason else { return format!("{backend} did not answer before the gate was restarted.") };
    match (reason, backend.rsplit_once(':').filter(|_| !backend.starts_with("unix:"))) {
        (Reason::BackendRefused, Some((host, port))) => format!("{host} answers, but refuses port {port}."),
        (Reason::BackendRefused, None) => format!("Nothing listens at {backend}."),
        (Reason::BackendTimeout, _) => format!("{backend} does not answer."),
        (Reason::BackendTls, _) => format!("The gate and {backend} do not agree on TLS."),
        (Reason::BackendWakeTimeout, _) => format!("The machine of {backend} sleeps, and did not wake up."),
        (Reason::BackendUnresolved, Some((host, _))) => format!("The name {host} cannot be looked up."),
        _ => format!("{backend} cannot be reached."),
    }
}

/// What was seen of a backend: by its health checks if those fail, else by the last dial.
pub fn seen_of(backend: &str, check: Option<&CheckFailure>, reason: Option<Reason>) -> String {
    check.map_or_else(|| seen(backend, reason), |failure| format!("{backend} {}.", check_failure(failure)))
}

impl ServiceDown {
    fn sentence(&self, clock: &Clock) -> String {
        if let Some(failure) = &self.check {
            let failed = if self.failed == 1 { "connection has" } else { "connections have" };
            let failed = (self.failed > 0).then(|| format!(" {} {failed} failed since.", grouped(self.failed)));
            return format!(
                "{} Checked last {}.{}",
                seen_of(&self.backend, Some(failure), None),
                clock.moment(self.tried),
                failed.unwrap_or_default()
            );
        }
        let neighbour = self.neighbour.as_ref().map(|name| format!(" On the same machine, {name} is up."));
        let failed = if self.failed == 1 { "connection has" } else { "connections have" };
        format!(
            "{}{} {} {failed} failed, the last one {}.",
            seen(&self.backend, self.seen),
            neighbour.unwrap_or_default(),
            grouped(self.failed),
            clock.moment(self.tried)
        )
    }

    /// What to do first.
    pub fn advice(&self) -> &'static str {
        if let Some(failure) = &self.check {
            return check_advice(failure);
        }
        match (self.seen, &self.neighbour) {
            (Some(Reason::BackendRefused), _) => "Start the service, or correct the port in backends.",
            (Some(Reason::BackendTls), _) => {
                "Run doorward check --connect: it shows which certificate the service has, and what to write into backend_tls."
            }
            (Some(Reason::BackendWakeTimeout), _) => {
                "See that the machine is plugged in, that Wake-on-LAN is switched on in its settings, and that mac and broadcast in \
                 wake are right."
            }
            (Some(Reason::BackendUnresolved), _) => "Correct the name in backends, or write the address.",
            (_, Some(_)) => "The machine is on; look at the service, and at its port.",
            (_, None) => "Switch the machine on, and see that its address is still the same.",
        }
    }
}

fn what_expires(expiry: &Expiry) -> String {
    match expiry.kind {
        Kind::Device | Kind::Replaced | Kind::Met => format!("{}: certificate", expiry.name),
        Kind::Server if expiry.renewed_since.is_some() => "The public certificate".to_owned(),
        Kind::Server => "The gate's certificate".to_owned(),
        Kind::TrustAnchor => "Your authority".to_owned(),
        Kind::RevocationList => "The revocation list".to_owned(),
    }
}

fn expiry_headline(expiry: &Expiry, clock: &Clock) -> String {
    let left = expiry.at.saturating_sub(clock.now().unix_timestamp());
    let what = what_expires(expiry);
    match expiry.kind {
        _ if left < 0 => format!("{what} has expired"),
        Kind::Replaced => format!("{}: its old certificate is in use, and expires in {}", expiry.name, in_words(left)),
        Kind::Device | Kind::Met => format!("{}: expires in {}", expiry.name, in_words(left)),
        _ => format!("{what} expires in {}", in_words(left)),
    }
}

fn expiry_sentence(expiry: &Expiry, clock: &Clock) -> String {
    let day = clock.day_of_seconds(expiry.at);
    let expired = expiry.at < clock.now().unix_timestamp();
    let then = match (expiry.kind, expired) {
        (Kind::Device | Kind::Replaced | Kind::Met, false) => "The device is refused from then on.",
        (Kind::Device | Kind::Replaced | Kind::Met, true) => "The device is refused when it connects.",
        (Kind::Server, false) => "Your devices refuse the gate from then on.",
        (Kind::Server, true) => "Your devices refuse the gate.",
        (Kind::TrustAnchor, false) => "All its devices are refused from then on.",
        (Kind::TrustAnchor, true) => "All its devices are refused.",
        (Kind::RevocationList, false) => {
            "From then on all its devices are refused, unless expired_revocation_list says otherwise."
        }
        (Kind::RevocationList, true) => "All its devices are refused, unless expired_revocation_list says otherwise.",
    };
    let name = if expiry.kind.is_device() { String::new() } else { format!(" ({})", expiry.name) };
    if expired { format!("It expired on {day}{name}. {then}") } else { format!("It ends on {day}{name}. {then}") }
}

fn expiry_advice(expiry: &Expiry) -> String {
    match expiry.kind {
        Kind::Device => format!("Renew it, and install it on the device: {}.", expiry_command(expiry)),
        Kind::Replaced => format!("A newer one was issued. Install it on the device: {}.", expiry_command(expiry)),
        Kind::Met => format!(
            "Renew it, and install it on the device: {}. If it is not from doorward ca, as you got it.",
            expiry_command(expiry)
        ),
        Kind::Server if expiry.renewed_since.is_some() => format!("Have it ordered at once: {RENEW}."),
        Kind::Server => format!("Renew it: {}. If it is not from doorward ca, as you got it.", expiry_command(expiry)),
        Kind::TrustAnchor => {
            "Make a new authority, and give your devices new certificates: doorward help devices.".to_owned()
        }
        Kind::RevocationList => format!("Issue it again: {}.", expiry_command(expiry)),
    }
}

fn expiry_command(expiry: &Expiry) -> String {
    match expiry.kind {
        Kind::Device | Kind::Met => format!("doorward ca renew {}", word(&expiry.name)),
        Kind::Replaced => format!("doorward share {}", word(&expiry.name)),
        Kind::Server if expiry.renewed_since.is_some() => RENEW.to_owned(),
        Kind::Server => "doorward ca server".to_owned(),
        Kind::TrustAnchor => "doorward help devices".to_owned(),
        Kind::RevocationList => "doorward ca revoke".to_owned(),
    }
}

/// The verdict in a headline and a sentence.
pub fn verdict_sentence(verdict: Verdict, findings: &[Finding], facts: &Facts, clock: &Clock) -> (String, String) {
    match (verdict, findings.first()) {
        (Verdict::New, _) => (
            "Ready for your first device".to_owned(),
            "The gate runs and refuses every connection until a device has a certificate of yours.".to_owned(),
        ),
        (Verdict::Bad | Verdict::Warn, Some(first)) => (first.headline(clock), first.sentence(clock)),
        _ => {
            let since = facts.impostors.iter().map(|attempts| attempts.last).max();
            let since = clock.since(since.unwrap_or(facts.remembers_since));
            (
                "All is well".to_owned(),
                format!(
                    "No service is down, no device needs anything, and no forged certificate has carried a name of yours \
                     since {since}."
                ),
            )
        }
    }
}
