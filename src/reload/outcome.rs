//! What a reload has done, and the log lines and metrics that say so.

use std::net::SocketAddr;
use std::sync::Arc;

use super::policy_report::{Change, Difference, OlderList};
use crate::config::checked::RevocationList;
use crate::explain::clock::Clock;
use crate::explain::finding::Finding;
use crate::explain::moment;
use crate::gate::Gate;
use crate::listener::Listener;
use crate::model::names::{Name, printable};
use crate::model::notice::NoticeEvent;
use crate::notify::texts;
use crate::telemetry::log::Event;

/// The longest name of an authority in a message, in characters.
const NAME_MAX: usize = 200;

/// What is said where the gate itself is at fault.
pub(super) const INTERNAL_ERROR: &str =
    "internal error, please report it together with what the gate has written to its standard error";

/// The subject of messages to the owner about reloads.
const CONFIGURATION: &str = "configuration";

/// What asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// `doorward reload`, or another program at the control socket.
    Command,
    /// A file has changed.
    Watch,
}

impl Trigger {
    /// The word in log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Command => "command",
            Self::Watch => "watch",
        }
    }
}

/// A reload that was done.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The warnings of `doorward check`.
    pub warnings: Vec<String>,
    /// Changes in the file that take effect only after a restart.
    pub after_restart: Vec<String>,
    /// Listeners that were opened.
    pub opened: Vec<Listening>,
    /// Listeners that were closed.
    pub closed: Vec<Listening>,
    /// Which clients gained or lost access to which routes.
    pub difference: Difference,
    /// Sessions that stay open.
    pub kept: usize,
    /// Sessions that were cut.
    pub cut: usize,
    /// Those of the warnings that say that a revocation is no longer in force, or that a session was not cut.
    pub not_in_force: Vec<String>,
}

/// A reload that was refused. The gate keeps its configuration, except that revocations and denials take effect.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    /// The errors of `doorward check`.
    pub errors: Vec<String>,
    /// Revocation lists and `deny` entries that took effect.
    pub in_force: Vec<String>,
    /// Sessions that were cut because of those.
    pub cut: usize,
    /// Those of the errors that keep a revocation or a denial from taking effect.
    pub not_in_force: Vec<String>,
}

/// A listener and its bound address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The listener's name.
    pub name: Name,
    /// Its address, with the port that the kernel chose for port 0.
    pub address: SocketAddr,
}

impl From<&Arc<Listener>> for Listening {
    fn from(listener: &Arc<Listener>) -> Self {
        Self { name: listener.name().clone(), address: listener.address() }
    }
}

/// Writes the outcome of a reload to the log and the metrics.
pub(super) fn report(gate: &Gate, trigger: Trigger, result: &Result<Reloaded, Refused>) {
    let (metrics, log, cause) = (&gate.metrics, &gate.log, trigger.label());
    match result {
        Ok(Reloaded { warnings, after_restart, opened, closed, difference, kept, cut, not_in_force }) => {
            metrics.reloaded();
            tell_not_in_force(gate, not_in_force);
            for Listening { name, address } in opened {
                log.event(&Event::Listening { listener: name.to_string(), address: *address });
            }
            for Listening { name, address } in closed {
                log.event(&Event::ListenerClosed { listener: name.to_string(), address: *address });
            }
            log.event(&Event::Reloaded {
                cause,
                sessions_kept: *kept,
                sessions_cut: *cut,
                warnings: first(warnings, String::clone),
                after_restart: after_restart.clone(),
                gained: first(&difference.gained, describe_change),
                lost: first(&difference.lost, describe_change),
            });
        }
        Err(Refused { errors, in_force, cut, not_in_force }) => {
            tell_not_in_force(gate, not_in_force);
            let errors = first(errors, String::clone);
            metrics.not_reloaded(errors.clone());
            if let Some(refused) = metrics.refused_configuration() {
                let finding = Finding::ConfigurationRefused((*refused).clone());
                let text = || texts::found(&finding, &Clock::system());
                gate.notices.tell(NoticeEvent::ReloadFailed, CONFIGURATION, text);
            }
            let in_force = first(in_force, String::clone);
            let sessions_cut = (!in_force.is_empty()).then_some(*cut);
            log.event(&Event::ReloadFailed { cause, errors, in_force, sessions_cut });
        }
    }
}

fn tell_not_in_force(gate: &Gate, why: &[String]) {
    if !why.is_empty() {
        gate.notices.tell(NoticeEvent::RevocationNotInForce, CONFIGURATION, || texts::revocation_not_in_force(why));
    }
}

/// The first few for the log, and how many more there are.
fn first<T>(all: &[T], describe: impl Fn(&T) -> String) -> Vec<String> {
    const MAX: usize = 20;
    let more = all.len().saturating_sub(MAX);
    all.iter().take(MAX).map(describe).chain((more > 0).then(|| format!("and {more} more"))).collect()
}

fn describe_change(Change { client, routes }: &Change) -> String {
    format!("{client} ({})", routes.join(", "))
}

/// The name of the authority that signed a revocation list.
pub(super) fn issuer(list: &RevocationList) -> String {
    printable(&list.issuer_in_words(), NAME_MAX)
}

/// A revocation list in a message.
pub(super) fn describe_list(list: &RevocationList) -> String {
    let number = list.number_in_words().map(|number| format!(" number {number}")).unwrap_or_default();
    format!("revocation list{number} of {} ({})", issuer(list), moment(list.this_update))
}

/// The warning about a revocation list that replaced a newer one.
pub(super) fn older_list_warning(OlderList { file, this_update, previous }: &OlderList) -> String {
    format!(
        "client_auth.revocation_lists: {} was issued at {}, but the list it replaces at {}: certificates revoked in between are \
         accepted again; restore the newer list, or issue another: doorward ca revoke --lists",
        file.display(),
        moment(*this_update),
        moment(*previous)
    )
}
