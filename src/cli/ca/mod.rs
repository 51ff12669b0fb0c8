//! `doorward ca`: the life of certificates. One module a command; the work is done by [`crate::ca`].

mod change;
mod constraints;
mod device;
mod encryption;
mod error;
mod export;
mod folder;
mod import;
mod in_force;
mod init;
mod inspect;
mod list;
mod output;
mod parse;
mod passphrase;
mod published;
mod renew;
mod renewal;
mod requests;
mod revoke;
mod running_gate;
mod server;

pub use constraints::NameConstraintsArg;
pub(super) use error::CaError;
pub(super) use folder::{FOLDER, FolderArg, notify};
pub(super) use parse::{host_of, parse_device, parse_domain};
pub(super) use passphrase::PassphraseArg;
pub(super) use server::make as make_server_certificate;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Format, exit};

/// The options of `doorward ca`.
#[derive(Args, Debug)]
pub(super) struct CaArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create your authorities: one signs the gate's certificates, the other one those of devices
    ///
    /// "doorward init" does this as well, and writes a configuration. The gate's authority is limited to your domain, so
    /// devices can trust it without risk.
    Init(init::InitArgs),
    /// Add a device: make its key and certificate, ready to be imported
    ///
    /// A running gate admits it at once.
    Device(device::DeviceArgs),
    /// Issue the gate's own certificate again, for the same names or for others
    ///
    /// It keeps its key, unless that is missing. Devices do not notice.
    Server(server::ServerArgs),
    /// List every certificate with its status and the days until it expires
    List(list::ListArgs),
    /// Renew the certificate of a device, or of the gate
    ///
    /// The key stays the same, and the old certificate stays valid until it expires, so there is no deadline for
    /// installing the new one.
    Renew(renew::RenewArgs),
    /// List the devices that have asked the gate for their next certificate
    ///
    /// They do so with "doorward renew", or with any other client of EST, if the gate's configuration names a server for renewal.
    Requests(requests::RequestsArgs),
    /// Issue the certificate that a device has asked the gate for
    ///
    /// It has the names of the one before. The old certificate stays valid until it expires.
    Approve(requests::ApproveArgs),
    /// Refuse the certificate that a device has asked the gate for
    Refuse(requests::RefuseArgs),
    /// Make the authority that renews certificates on the gate's machine, without you
    ///
    /// It can do nothing else: a gate takes what it signs only for a device that has a certificate of your own authority, with the key
    /// of that one. To revoke a device revokes what was renewed as well.
    Renewal(renewal::RenewalArgs),
    /// Revoke the certificates of a device: add them to the revocation list
    ///
    /// Without a name, serial number, fingerprint or file, it asks which device. With --lists, the lists are written again and
    /// nothing is revoked.
    Revoke(revoke::RevokeArgs),
    /// Show what a file contains, and what is unusual about it
    ///
    /// Any certificate, chain, key, request, revocation list or .p12 file. To learn whether the gate admits a certificate,
    /// use "doorward explain".
    Inspect(inspect::InspectArgs),
    /// Export a certificate, with its key if that is here
    Export(export::ExportArgs),
    /// Encrypt the keys of your authorities with a passphrase, or change or remove it
    Passphrase(encryption::EncryptionArgs),
    /// Import an existing authority: mkcert's
    ///
    /// Then certificates that it issued can be revoked, and it can issue certificates for new devices.
    Import(import::ImportArgs),
}

pub(super) fn run(args: CaArgs) -> ExitCode {
    let done = match args.command {
        Command::Init(args) => init::run(&args),
        Command::Device(args) => device::run(&args),
        Command::Server(args) => server::run(&args),
        Command::List(args) => list::run(&args),
        Command::Renew(args) => renew::run(&args),
        Command::Requests(args) => requests::list(&args),
        Command::Approve(args) => requests::approve_all(&args),
        Command::Refuse(args) => requests::refuse(&args),
        Command::Renewal(args) => renewal::run(&args),
        Command::Revoke(args) => revoke::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Passphrase(args) => encryption::run(&args),
        Command::Import(args) => import::run(&args),
    };
    match done {
        Ok(()) => exit::OK.into(),
        Err(error) => super::failed(error.code, &error),
    }
}
