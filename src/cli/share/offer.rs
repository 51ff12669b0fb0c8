//! Opens the link, shows its QR code and waits for its end.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::address::{LinkAddress, unsuitable};
use super::events::{Event, Progress, report, report_end};
use super::{LinkArgs, NotShared};
use crate::cli::run::{runtime, signals};
use crate::cli::{Format, exit};
use crate::enrolment::Kit;
use crate::enrolment::link::{self, Link, Notice, Outcome};
use crate::enrolment::qr::{self, Colours};
use crate::model::device_name::DeviceName;
use crate::pki::Password;

/// Hands over `kit` to the client of the link at the address `chosen`. `next` is what to do for another try.
pub(in crate::cli) fn offer(
    args: &LinkArgs,
    chosen: &LinkAddress,
    format: Format,
    device: &DeviceName,
    kit: Kit,
    password: &Password,
    next: &str,
) -> Result<(), NotShared> {
    let address = chosen.address;
    let runtime = runtime().map_err(|error| NotShared::new(exit::UNEXPECTED, error))?;
    let (outcome, progress) = runtime.block_on(serve(args, format, device, chosen, kit, password))?;
    report_end(format, device, outcome, progress, address.ip(), next)
}

async fn serve(
    args: &LinkArgs,
    format: Format,
    device: &DeviceName,
    chosen: &LinkAddress,
    kit: Kit,
    password: &Password,
) -> Result<(Outcome, Progress), NotShared> {
    let unexpected = |error: io::Error| NotShared::new(exit::UNEXPECTED, error);
    let root = kit.root().map(|(name, fingerprint)| (name.to_owned(), fingerprint.to_owned()));
    let link = Link::bind(chosen.address, args.reach(), args.expires, kit).await.map_err(|error| match error {
        link::Error::Unsuitable(why) => unsuitable(why),
        error => NotShared::new(exit::START, error),
    })?;
    let stop = CancellationToken::new();
    let signals = signals(stop.clone(), CancellationToken::new()).map_err(unexpected)?;
    let signals = tokio::task::spawn(signals);
    let url = link.url();
    match format {
        Format::Text => show(args, device, chosen, &url, password, root.as_ref()),
        Format::Json => Event::Ready {
            device: device.as_str(),
            url: &url,
            other_addresses: &chosen.others,
            password: password.as_str(),
            expires_in_seconds: args.expires.as_secs(),
            authority: root.as_ref().map(|(name, _)| name.as_str()),
            authority_sha256: root.as_ref().map(|(_, fingerprint)| fingerprint.replace(' ', "")),
        }
        .print(),
    }
    .map_err(unexpected)?;
    let (name, progress) = (device.clone(), Arc::new(Mutex::new(Progress::Untouched)));
    let noticed = Arc::clone(&progress);
    let notify = move |notice| {
        let made = if matches!(notice, Notice::Fetched(..)) { Progress::Fetched } else { Progress::Opened };
        let mut progress = noticed.lock().unwrap_or_else(PoisonError::into_inner);
        *progress = made.max(*progress);
        report(format, &name, notice);
    };
    let outcome = link.serve(stop, notify).await;
    signals.abort();
    let progress = *progress.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((outcome, progress))
}

/// Prints the QR code and what the user has to know.
fn show(
    args: &LinkArgs,
    device: &DeviceName,
    chosen: &LinkAddress,
    url: &str,
    password: &Password,
    root: Option<&(String, String)>,
) -> io::Result<()> {
    let mut out = io::stderr().lock();
    let colours = if out.is_terminal() { Colours::BlackOnWhite } else { Colours::Default };
    let code = qr::terminal(url, colours).map_err(io::Error::other)?;
    let time = match args.expires.as_secs() {
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    };
    // To be compared on the device.
    let compared = match root {
        Some((authority, fingerprint)) => format!(
            " Before {device} trusts \"{authority}\", compare the SHA-256 fingerprint there with this one:\n  {fingerprint}\n"
        ),
        None => "\n".to_owned(),
    };
    write!(
        out,
        "\
Scan this with {device}, which must be in the same network as this machine.

{code}
  or open   {url}
  password  {password}

{others}The link works for {time}, and only for the first device that downloads a file. Chrome and Edge may say that the
download is not secure: choose Keep, the file is encrypted. It asks for the password, which is shown here only.{compared}
Waiting. Ctrl-C closes the link.
",
        password = password.as_str(),
        others = chosen.text(),
    )
}
