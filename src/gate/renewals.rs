//! Devices that ask for their next certificate: counted, written to the log, and told to the owner.

use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Gate;
use crate::model::notice::NoticeEvent;
use crate::model::renewal::RequestOutcome;
use crate::notify::texts;
use crate::renewal::Asked;
use crate::telemetry::log::{Event, detail};

impl Gate {
    /// A device has asked for a certificate and was answered.
    pub(crate) fn renewal_asked(&self, source: IpAddr, asked: Asked) {
        let Asked { device, outcome, same_key, issued, detail: why } = asked;
        self.metrics.renewal_asked(outcome);
        if outcome == RequestOutcome::Stored {
            let text = || texts::renewal_requested(&device, same_key == Some(true), source);
            self.notices.tell(NoticeEvent::RenewalRequested, &device, text);
        }
        if let Some(issued) = &issued {
            let text = || texts::renewed_unattended(&device, issued, source);
            self.notices.tell(NoticeEvent::RenewalRequested, &device, text);
        }
        // A device that waits asks every minute.
        if outcome == RequestOutcome::Waiting {
            return;
        }
        self.log.event(&Event::RenewalRequest {
            device,
            outcome: outcome.label(),
            key: same_key.map(|same| if same { "same" } else { "new" }),
            source: source.to_canonical().to_string(),
            serial: issued.as_ref().map(|issued| issued.serial.clone()),
            descends_from: issued.as_ref().map(|issued| issued.origin.clone()),
            not_after: issued.and_then(|issued| rfc3339(issued.not_after)),
            detail: why.map(|why| detail(&why)),
        });
    }
}

impl Gate {
    /// The process that renews without the owner runs.
    pub(crate) fn renewer_started(&self) {
        let before = self.renewer.send_replace(Some(Ok(())));
        if matches!(before, Some(Err(_))) {
            self.log.event(&Event::UnattendedRenewal { error: None });
        }
    }

    /// The configuration wants none any more.
    pub(crate) fn renewer_is_over(&self) {
        self.renewer.send_replace(None);
    }

    /// It does not, so requests are left to the owner.
    pub(crate) fn renewer_unable(&self, error: &str) {
        let error = detail(error);
        // One that is started again and again says the same each time.
        if self.renewer.send_replace(Some(Err(error.clone()))) != Some(Err(error.clone())) {
            self.log.event(&Event::UnattendedRenewal { error: Some(error) });
        }
    }
}

fn rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}
