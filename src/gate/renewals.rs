//! Devices that ask for their next certificate: counted, written to the log, and told to the owner.

use std::net::IpAddr;

use super::Gate;
use crate::model::notice::NoticeEvent;
use crate::model::renewal::RequestOutcome;
use crate::notify::texts;
use crate::renewal::Asked;
use crate::telemetry::log::{Event, detail};

impl Gate {
    /// A device has asked for a certificate and was answered.
    pub(crate) fn renewal_asked(&self, source: IpAddr, asked: Asked) {
        let Asked { device, outcome, same_key, detail: why } = asked;
        self.metrics.renewal_asked(outcome);
        if outcome == RequestOutcome::Stored {
            let text = || texts::renewal_requested(&device, same_key == Some(true), source);
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
            detail: why.map(|why| detail(&why)),
        });
    }
}
