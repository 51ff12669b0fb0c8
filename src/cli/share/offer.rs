//! Opens the link, shows its QR code and waits for its end.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::address::{LinkAddress, choose, unsuitable};
use super::events::{Event, report, report_end};
use super::{LinkArgs, NotShared};
use crate::cli::run::{runtime, signals};
use crate::cli::{Format, exit};
use crate::enrolment::Kit;
use crate::enrolment::link::{self, Link, Outcome};
use crate::enrolment::qr::{self, Colours};
use crate::model::names::Name;
use crate::pki::Password;

/// Hands over `kit` to the client of the link. `next` is what to do for another try.
pub(in crate::cli) fn offer(
    args: &LinkArgs,
    format: Format,
    device: &Name,
    kit: Kit,
    password: &Password,
    next: &str,
) -> Result<(), NotShared> {
    let chosen = choose(args)?;
    let address = chosen.address;
    let runtime = runtime().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    let (outcome, opened) = runtime.block_on(serve(args, format, device, &chosen, kit, password))?;
    report_end(format, device, outcome, (!opened).then_some(address.ip()), next)
}

async fn serve(
    args: &LinkArgs,
    format: Format,
    device: &Name,
    chosen: &LinkAddress,
    kit: Kit,
    password: &Password,
) -> Result<(Outcome, bool), NotShared> {
    let unexpected = |error: io::Error| NotShared::new(exit::UNEXPECTED, error);
    let (authority, fingerprint) = (kit.root().to_owned(), kit.root_fingerprint().to_owned());
    let link = Link::bind(chosen.address, args.reach(), args.expires, kit).await.map_err(|error| match error {
        link::Error::Unsuitable(why) => unsuitable(why),
        error => NotShared::new(exit::START, error),
    })?;
    let stop = CancellationToken::new();
    let signals = signals(stop.clone(), CancellationToken::new()).map_err(unexpected)?;
    let signals = tokio::task::spawn(signals);
    let url = link.url();
    match format {
        Format::Text => show(args, device, chosen, &url, password, &authority, &fingerprint),
        Format::Json => Event::Ready {
            device: device.as_str(),
            url: &url,
            other_addresses: &chosen.others,
            password: password.as_str(),
            expires_in_seconds: args.expires.as_secs(),
            authority: &authority,
            authority_sha256: &fingerprint.replace(' ', ""),
        }
        .print(),
    }
    .map_err(unexpected)?;
    let (name, opened) = (device.clone(), Arc::new(AtomicBool::new(false)));
    let noticed = Arc::clone(&opened);
    let notify = move |notice| {
        noticed.store(true, Ordering::Relaxed);
        report(format, &name, notice);
    };
    let outcome = link.serve(stop, notify).await;
    signals.abort();
    Ok((outcome, opened.load(Ordering::Relaxed)))
}

/// Prints the QR code and what the user has to know.
fn show(
    args: &LinkArgs,
    device: &Name,
    chosen: &LinkAddress,
    url: &str,
    password: &Password,
    authority: &str,
    fingerprint: &str,
) -> io::Result<()> {
    let mut out = io::stderr().lock();
    let colours = if out.is_terminal() { Colours::BlackOnWhite } else { Colours::Default };
    let code = qr::terminal(url, colours).map_err(io::Error::other)?;
    let time = match args.expires.as_secs() {
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    };
    write!(
        out,
        "\
Scan this with {device}, which must be in the same network as this machine.

{code}
  or open   {url}
  password  {password}

{others}The link hands {device} its certificate once, and works for {time}. The file asks for the password, which is shown
here only. Before {device} trusts \"{authority}\", compare the SHA-256 fingerprint there with this one:
  {fingerprint}

Waiting. Ctrl-C closes the link.
",
        password = password.as_str(),
        others = chosen.text(),
    )
}
