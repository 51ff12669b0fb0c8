//! Lines in the text format.

use std::fmt;

use super::fields::{Event, Verdict, stranger};
use crate::model::text::counted;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { listener, address } => write!(f, "listening on {address} ({listener})"),
            Self::ListenerClosed { listener, address } => write!(f, "no longer listening on {address} ({listener})"),
            Self::Metrics { address } => {
                write!(f, "status page on http://{address}/, metrics on http://{address}/metrics")
            }
            Self::Control { socket } => write!(f, "control socket at {socket}"),
            Self::Sandbox { mode: "off", .. } => f.write_str("sandbox off"),
            Self::Sandbox { in_force, capabilities, missing, .. } => {
                write!(f, "sandbox: {}", in_force.join(", "))?;
                if !capabilities.is_empty() {
                    write!(f, "; keeps {}", capabilities.join(", "))?;
                }
                missing.iter().try_for_each(|missing| write!(f, "; not in force: {missing}"))
            }
            Self::Ready => f.write_str("ready"),
            Self::Draining => f.write_str("draining: no new connections, open ones may end"),
            Self::Reloaded { cause, sessions_kept, sessions_cut, warnings, after_restart, gained, lost } => {
                write!(f, "reloaded ({cause}): {} kept, {sessions_cut} cut", connections(*sessions_kept))?;
                for (what, list) in [
                    ("may now", gained),
                    ("may no longer", lost),
                    ("after a restart", after_restart),
                    ("warning", warnings),
                ] {
                    if !list.is_empty() {
                        write!(f, "; {what}: {}", list.join(", "))?;
                    }
                }
                Ok(())
            }
            Self::ReloadFailed { cause, errors, in_force, sessions_cut } => {
                let errors: Vec<String> =
                    errors.iter().map(|error| error.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
                let errors = errors.join("; ");
                if in_force.is_empty() {
                    return write!(f, "reload_failed ({cause}), nothing has changed: {errors}");
                }
                let (in_force, cut) = (in_force.join(", "), sessions_cut.unwrap_or(0));
                let cut = connections(cut);
                write!(f, "reload_failed ({cause}), but in force: {in_force} ({cut} cut): {errors}")
            }
            Self::RevocationList { issuer, number, sessions_cut, .. } => {
                let number = number.as_deref().map(|number| format!(" number {number}")).unwrap_or_default();
                write!(f, "revocation_list{number} of {issuer} was received: {} cut", connections(*sessions_cut))
            }
            Self::Upgraded { pid, version, sessions_kept, until } => write!(
                f,
                "upgraded: process {pid} (version {version}) accepts connections; {sessions_kept} stay with this one, until \
                 {until} at most"
            ),
            Self::UpgradeFailed { error } => write!(f, "upgrade_failed, nothing has changed: {error}"),
            Self::NoticesFailing { receiver, error } => {
                write!(f, "notices_failing: {receiver} does not take messages to the owner: {error}")
            }
            Self::NoticesDelivered { receiver } => {
                write!(f, "notices_delivered: {receiver} takes messages to the owner again")
            }
            Self::BackendUnhealthy { backend, routes, detail } => {
                write!(f, "backend_unhealthy: {backend} ({}) {detail}", routes.join(", "))
            }
            Self::BackendHealthy { backend, routes } => {
                write!(f, "backend_healthy: {backend} ({}) passes its health checks again", routes.join(", "))
            }
            Self::CertificateRenewed { names, directory } => {
                write!(f, "certificate_renewed: {} from {directory}", names.join(", "))
            }
            Self::CertificateRenewalFailed { directory, error, remedies, in_a_row, next } => {
                write!(f, "certificate_renewal_failed ({in_a_row} in a row) at {directory}: {error}")?;
                next.iter().try_for_each(|next| write!(f, "; tried again at {next}"))?;
                remedies.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
            }
            Self::UnattendedRenewal { error: Some(error) } => {
                write!(f, "unattended_renewal: certificates are not renewed without you: {error}")
            }
            Self::UnattendedRenewal { error: None } => {
                f.write_str("unattended_renewal: certificates are renewed again")
            }
            Self::RenewalRequest { device, outcome, key, source, serial, descends_from, not_after, detail } => {
                write!(f, "renewal_request ({outcome}): {device} from {source}")?;
                key.iter().try_for_each(|key| write!(f, ", {key} key"))?;
                serial.iter().try_for_each(|serial| write!(f, ", serial {serial}"))?;
                descends_from.iter().try_for_each(|origin| write!(f, ", descends from {origin}"))?;
                not_after.iter().try_for_each(|end| write!(f, ", valid until {end}"))?;
                detail.iter().try_for_each(|detail| write!(f, ": {detail}"))
            }
            Self::AcceptFailed { listener, failures, error } => {
                write!(f, "accept_failed ({listener}), {failures} failures since the last such line: {error}")
            }
            Self::History { error: Some(text), .. } | Self::History { message: Some(text), .. } => {
                write!(f, "history: {}", text.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            Self::History { .. } => f.write_str("history: its files are written again"),
            Self::Waking { route, backend, mac, broadcast } => {
                write!(f, "waking {backend} for the route {route}: packets for {mac} to {broadcast}")
            }
            Self::WakeEnded { route, backend, outcome, seconds, error } => {
                write!(f, "wake_ended ({outcome}): {backend} of the route {route} after {seconds:.1} s")?;
                error.iter().try_for_each(|error| write!(f, ": {error}"))
            }
            Self::LeftOut { lines, source, fingerprint, stage, reason, .. } => {
                write!(f, "left_out {lines} {}", if *lines == 1 { "line" } else { "lines" })?;
                match (stage, reason) {
                    (Some(stage), Some(reason)) => {
                        write!(f, " {stage}/{reason} of ")?;
                        match (source, fingerprint) {
                            (_, Some(fingerprint)) => write!(f, "certificate sha256:{fingerprint}")?,
                            (Some(source), None) => f.write_str(source)?,
                            (None, None) => f.write_str("several sources")?,
                        }
                        write!(f, ": too many of the same kind to write each one")
                    }
                    _ => f.write_str(": the output did not accept them, or not fast enough"),
                }
            }
        }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.event, self.source)?;
        match (&self.route, &self.server_name) {
            (Some(route), _) => write!(f, " route={route}")?,
            (None, Some(name)) => write!(f, " server_name=\"{name}\"")?,
            (None, None) => {}
        }
        match self.stage {
            Some(stage) => write!(f, " {stage}/{}", self.reason)?,
            None => write!(f, " {}", self.reason)?,
        }
        if let Some(certificate) = &self.certificate {
            write!(f, " certificate=\"{}\"", stranger(&certificate.display_name()))?;
            if !certificate.verified {
                f.write_str("(unverified)")?;
            }
        }
        if let Some(impostor) = &self.impostor {
            write!(f, " impostor=\"{}\"({})", impostor.name, impostor.claim)?;
        }
        if let Some(path) = self.path {
            write!(f, " path={path}")?;
        }
        if let (Some(up), Some(down)) = (self.bytes_to_backend, self.bytes_to_client) {
            write!(f, " to_backend={up} to_client={down}")?;
        }
        if let Some(alert) = &self.alert {
            write!(f, " alert={alert}")?;
        }
        if let Some(ja4) = self.ja4.as_ref().filter(|_| self.stage.is_some()) {
            write!(f, " ja4={ja4}")?;
        }
        write!(f, " {:.3}s", self.seconds)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

fn connections(count: usize) -> String {
    counted(u64::try_from(count).unwrap_or(u64::MAX), "connection")
}
