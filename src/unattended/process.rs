//! The process: what it is started with, and what it takes away from itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::judge::Renewer;
use super::message::{FromRenewer, ToRenewer};
use crate::config::checked::{Config, RenewalIssuer};
use crate::config::{self, ConfigErrors};
use crate::handover::{Channel, channel_at_stdin, ignore_signals};
use crate::model::names::printable;
use crate::model::renewal::Unattended;
use crate::pki::{Authority, keys};
use crate::renewal::folder::RequestFolder;
use crate::sandbox::{Incomplete, Sandbox, gate_would_read};

/// How long the gate may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest key, in bytes.
const KEY_MAX: u64 = 64 * 1024;
/// The longest name in a line, in characters.
const NAME_MAX: usize = 64;

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RenewerError {
    /// It was not started by a launcher.
    #[error("\"doorward run\" starts this command")]
    NoChannel,
    /// The configuration has mistakes.
    #[error(transparent)]
    Config(ConfigErrors),
    /// The configuration has no such section.
    #[error("there is no \"issuer\" under [renewal]")]
    NoIssuer,
    /// The key cannot be used.
    #[error("{0}")]
    Key(String),
    /// `[sandbox] mode = "require"`, and not all of it is in force.
    #[error(transparent)]
    Sandbox(Incomplete),
    /// Something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Renews certificates for the gate at stdin, by the configuration `file`, until that has ended. To be called before there are threads.
///
/// # Errors
/// Why it cannot run. The gate is told as well.
pub fn renewer(file: &Path) -> Result<(), RenewerError> {
    let end = channel_at_stdin()?.ok_or(RenewerError::NoChannel)?;
    // Before the key is read: another process of this user must not look into this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)?;
    let made = make(file);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Channel::new(end)?;
        let _ignored = ignore_signals()?;
        match made {
            Ok(renewer) => {
                serve(renewer, &channel).await;
                Ok(())
            }
            Err(error) => {
                send(&channel, &FromRenewer::Unable { error: error.to_string() }).await;
                Err(error)
            }
        }
    })
}

/// Reads everything, and enters the sandbox.
fn make(file: &Path) -> Result<Renewer, RenewerError> {
    let config = config::load(file).map_err(RenewerError::Config)?;
    let renewal = config.renewal.as_ref().ok_or(RenewerError::NoIssuer)?;
    let issuer = renewal.issuer.clone().ok_or(RenewerError::NoIssuer)?;
    let authority = authority_of(&config, &issuer).map_err(RenewerError::Key)?;
    let path = renewal.folder.of_this_process();
    let folder = RequestFolder::new(&path);
    // In the sandbox no folder can be made. What stands in the way is told by the first request.
    let _ = folder.make();
    Sandbox::enter_to_renew(&config, &path).map_err(RenewerError::Sandbox)?;
    Ok(Renewer::new(file, issuer, authority, folder))
}

/// The renewal authority with its key, if that fits. Only the gate's user may be able to read it, and the sandbox of the gate keeps the gate from it.
///
/// # Errors
/// Why it cannot be used, for the owner.
pub fn authority_of(config: &Config, issuer: &RenewalIssuer) -> Result<Authority, String> {
    let path = &issuer.key;
    let shown = path.display();
    if let Some(folder) = gate_would_read(config, path) {
        return Err(format!(
            "the gate can use files in {}, so it could read {shown}; move the key to a folder of its own, such as \
             /var/lib/doorward-issuer",
            folder.display()
        ));
    }
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| format!("cannot open {shown}: {error}"))?;
    let text = read(file).map_err(|why| format!("{shown} {why}"))?;
    if keys::is_encrypted(&text) {
        return Err(format!("{shown} is encrypted, and this process can ask no person for the passphrase"));
    }
    let key = keys::read(&text).map_err(|error| format!("{shown}: {error}"))?;
    Authority::from_parts(issuer.certificate.clone(), key).map_err(|error| format!("{shown}: {error}"))
}

fn read(file: File) -> Result<Zeroizing<Vec<u8>>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() || metadata.len() > KEY_MAX {
        return Err("is no key".to_owned());
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("can be read by other users (its mode is {mode:03o}): chmod 600"));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && user != 0 {
        return Err("belongs to another user".to_owned());
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(KEY_MAX).read_to_end(&mut text).map_err(cannot)?;
    Ok(text)
}

/// Answers the gate until it has ended.
async fn serve(mut renewer: Renewer, channel: &Channel) {
    if !send(channel, &FromRenewer::Started).await {
        return;
    }
    loop {
        let received: io::Result<Option<(ToRenewer, Option<OwnedFd>)>> = channel.receive().await;
        let Ok(Some((ToRenewer::Look { device }, _))) = received else { return };
        let done = renewer.look(&device);
        if let Unattended::Issued(issued) = &done {
            // To the journal as well, by a way that a gate that was taken over does not have in its hand.
            let _ = writeln!(
                io::stderr().lock(),
                "doorward: renewed {} without the owner: serial {}, descends from {}",
                printable(&device, NAME_MAX),
                issued.serial,
                issued.origin
            );
        }
        if !send(channel, &FromRenewer::Done { device, done }).await {
            return;
        }
    }
}

/// Whether the gate has taken it. One that reads nothing has no use for a certificate, either.
async fn send(channel: &Channel, message: &FromRenewer) -> bool {
    matches!(timeout(SEND_TIMEOUT, channel.send(message, None)).await, Ok(Ok(())))
}
