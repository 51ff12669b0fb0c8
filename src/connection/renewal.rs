//! The end of a journey that leads to no backend: the gate answers a device that asks for its next certificate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::log::ConnectionLog;
use super::{Ended, Established, Permitted};
use crate::backends::dial::Connection;
use crate::config::checked::{Renewal, Timeouts};
use crate::gate::Gate;
use crate::http;
use crate::model::rejection::{Cause, Rejection, Text};
use crate::relay::{Limits, Path};
use crate::renewal::{NotServed, RenewalService};

/// For the last bytes of a client that has its answer.
const END: Duration = Duration::from_secs(2);

/// From the permit to the service. What moves the bytes is what moves those of a backend without kernel TLS, so that sessions are
/// shown, limited and cut as all others are.
pub(super) fn answer(
    Permitted { authorized, route, client }: Permitted,
    service: &Arc<RenewalService>,
    gate: &Arc<Gate>,
    timeouts: &Timeouts,
    log: &mut ConnectionLog,
) -> Result<Established, Ended> {
    let source = client.admitted().client.ip();
    // From here on, whatever takes its right away finds it; what did so before is found by asking.
    let told = log.begins_session(Path::Copy);
    if let Err(rejection) = gate.still_admits(client.server_name(), &route, client.chain().map(AsRef::as_ref)) {
        return Err(client.refuse(rejection).into());
    }
    let limits = Limits {
        idle: timeouts.idle.min(http::TIMEOUT),
        half_close: timeouts.half_close.min(END),
        lifetime: Some(Instant::now() + http::TIMEOUT + END),
    };
    let reporter = Arc::clone(gate);
    let certificate = client.chain().and_then(|chain| chain.certificates.first()).cloned();
    let report = move |asked| reporter.renewal_asked(source, asked);
    match service.serve(&authorized, certificate.as_ref(), source, Arc::clone(&gate.desk), report) {
        Ok(stream) => Ok(client.established(Path::Copy, Connection::Plain(stream), limits, told)?),
        Err(NotServed::NoDevice) => Err(client.refuse(Rejection::silent(Cause::NoCertificate)).into()),
        Err(NotServed::Io(error)) => {
            let cause = Cause::Shortage { backend: Text::new(Renewal::NAME), error: error.into() };
            Err(client.refuse(Rejection::silent(cause)).into())
        }
    }
}
