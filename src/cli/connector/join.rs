//! `doorward join`: puts what a device was given into its place.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{program, usable};
use crate::bundle::{Bundle, BundleError, BundleKey, PlainKey};
use crate::cli::{exit, failed};
use crate::connector::homes::{Home, Homes, HomesError, Joined, identity, read_bundle, read_bundle_from};
use crate::connector::renew;
use crate::connector::ssh::{SshError, SshFolder};
use crate::connector::token::{Token, TokenError, TokenKey, TokenUri};
use crate::model::identity::Sha256;
use crate::model::names::{Name, printable};
use crate::model::service::ServiceKind;
use crate::model::shell;
use crate::model::text::{date, day_near, in_words, table};

/// Printed below the help text.
pub(crate) const EXAMPLE: &str = "\
Examples:
  doorward join alice-laptop.doorward
  doorward join alice-laptop.doorward --ssh    also lets ssh, scp, sftp, rsync and git use it
  doorward join --list
  doorward join --undo home.example

With the key in a token, as in a YubiKey, which it never leaves:
  doorward join --request 'pkcs11:token=alice' > laptop.csr     the owner: doorward ca device alice-laptop --request laptop.csr
  doorward join alice-laptop.doorward --key 'pkcs11:token=alice'";

/// The longest password that is read, in bytes.
const PASSWORD_MAX: u64 = 1024;

/// The longest URI that is shown, in characters.
const URI_MAX: usize = 512;

/// The options of `doorward join`.
#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// The file that was made for this device, or "-" for standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["undo", "list", "ssh", "no_ssh", "request"])]
    file: Option<PathBuf>,

    /// What to call the home here [default: its domain]
    #[arg(long = "as", value_name = "NAME", value_parser = Name::parse, requires = "file")]
    name: Option<Name>,

    /// Replace a home of this name, even if the file is older, for another device, trusts another authority, or leads to other names
    #[arg(long, requires = "file")]
    replace: bool,

    /// Read the password of the file from the first line of this file [default: ask for it]
    #[arg(long, value_name = "FILE", requires = "file")]
    password_file: Option<PathBuf>,

    /// The key, if it is in a token: its URI (RFC 7512), as in "pkcs11:token=alice;id=%01?module-path=/usr/lib/libykcs11.so"
    #[arg(long, value_name = "URI", requires = "file", conflicts_with = "password_file")]
    key: Option<String>,

    /// Write a request for a certificate (PKCS#10) to stdout, signed by this key in a token. The owner of the gate makes a file of it
    #[arg(long, value_name = "URI", conflicts_with_all = ["file", "ssh", "list", "undo", "no_ssh"])]
    request: Option<String>,

    /// Let ssh reach the homes that were joined: writes ~/.ssh/doorward_config, and one line into ~/.ssh/config that includes it
    #[arg(long)]
    ssh: bool,

    /// Undo --ssh
    #[arg(long, conflicts_with_all = ["file", "ssh", "list", "undo"])]
    no_ssh: bool,

    /// Show the homes that were joined, and their routes
    #[arg(long, conflicts_with_all = ["file", "undo", "ssh"])]
    list: bool,

    /// Remove this home from this device, with its key
    #[arg(long, value_name = "HOME", conflicts_with_all = ["file", "ssh"])]
    undo: Option<String>,
}

/// An exit code and the error message.
struct NotJoined(u8, String);

impl NotJoined {
    fn usage(error: impl ToString) -> Self {
        Self(exit::USAGE, error.to_string())
    }
}

impl From<HomesError> for NotJoined {
    fn from(error: HomesError) -> Self {
        let code = match &error {
            HomesError::Io { .. } => exit::UNEXPECTED,
            _ => exit::USAGE,
        };
        Self(code, error.to_string())
    }
}

impl From<SshError> for NotJoined {
    fn from(error: SshError) -> Self {
        let code = if matches!(error, SshError::Foreign(_)) { exit::EXISTS } else { exit::UNEXPECTED };
        Self(code, error.to_string())
    }
}

pub(crate) fn run(args: &JoinArgs) -> ExitCode {
    if let Some(uri) = &args.request {
        return match parsed(uri).and_then(|uri| request(&uri).map_err(NotJoined::usage)) {
            Ok(()) => exit::OK.into(),
            Err(NotJoined(code, message)) => failed(code, &message),
        };
    }
    let done = Homes::open().map_err(NotJoined::from).and_then(|homes| match (&args.file, &args.undo) {
        (Some(file), _) => join(args, &homes, file),
        (None, Some(home)) => undo(&homes, home),
        (None, None) if args.list => list(&homes),
        (None, None) if args.no_ssh => Ok(SshFolder::open()?.remove()?),
        (None, None) => set_up_ssh(&homes.joined()?).map(|text| errln!("{text}")),
    });
    match done {
        Ok(()) => exit::OK.into(),
        Err(NotJoined(code, message)) => failed(code, &message),
    }
}

/// Not as the parser of the command line does it, which would repeat a PIN that is in the URI.
fn parsed(uri: &str) -> Result<TokenUri, NotJoined> {
    TokenUri::parse(uri).map_err(NotJoined::usage)
}

/// Prints a request that the key in a token has signed.
fn request(uri: &TokenUri) -> Result<(), TokenError> {
    let key = TokenKey::of_token(Token::of(uri))?;
    let request = key.request(None)?;
    outln!("{}", pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", request)).trim_end().replace("\r\n", "\n"));
    errln!(
        "The owner of the home makes a file of it for this device: doorward ca device NAME --request FILE\nThe SHA-256 of its key is \
         {}.\nThen: doorward join NAME.doorward --key {}",
        Sha256::of(key.spki()),
        shell::word(uri.as_str())
    );
    Ok(())
}

fn join(args: &JoinArgs, homes: &Homes, file: &Path) -> Result<(), NotJoined> {
    let read = if is_stdin(file) { read_bundle_from(io::stdin(), file) } else { read_bundle(file) };
    let bundle = read.map_err(|error| match error {
        // The user has named it.
        HomesError::Io { .. } => NotJoined::usage(error),
        error => error.into(),
    })?;
    let name = match &args.name {
        Some(name) => name.to_string(),
        None => homes.joined_as(&bundle)?,
    };
    let name = name.as_str();
    let shown = shell::path(file);
    let until = check_usable(&bundle, file)?;
    let here = homes.get(name)?;
    let is_key = |key: &BundleKey| args.key.as_ref().is_none_or(|uri| *key == BundleKey::Token(uri.clone()));
    let same = here.as_ref().is_some_and(|here| {
        is_key(&here.bundle.key) && Bundle { key: here.bundle.key.clone(), ..bundle.clone() } == here.bundle
    });
    if let Some(here) = here.as_ref().filter(|_| !args.replace)
        && let Some(difference) = here.difference(&bundle)
    {
        return Err(NotJoined(
            exit::EXISTS,
            format!(
                "{name} is joined already, and {difference}\n  to keep both: doorward join {shown} --as NAME\n  to replace the one \
                 here: doorward join {shown} --replace"
            ),
        ));
    }
    if !same {
        let bundle = unlocked(args, bundle, file, here.as_ref())?;
        homes.keep(name, &bundle)?;
    }
    let joined = homes.joined()?;
    let ssh = SshFolder::open()?;
    // Once it was asked for, it is kept up to date.
    let told = if args.ssh || ssh.is_written() { set_up_ssh(&joined)? } else { String::new() };
    let Some(home) = joined.homes.iter().find(|home| home.name == name) else {
        return Err(HomesError::Unknown(name.to_owned()).into());
    };
    let what = match (same, &here) {
        (true, _) => "is joined already",
        (false, Some(_)) => "is replaced",
        (false, None) => "is joined",
    };
    let device = &home.bundle.device;
    errln!(
        "{name} {what}: this device is {device} there, with a certificate that is valid until {}.\n",
        day_of(until, now())
    );
    let program = program();
    errln!("{}", usable::routes(&joined, home, &program, ssh.is_written()));
    if !told.is_empty() {
        errln!("{told}");
    } else if joined.routes().any(|(_, route)| route.kind == ServiceKind::Ssh) {
        errln!("To let ssh do that always: {} join --ssh", shell::word(&program));
    }
    let kept = home.file.display();
    // A pipe is gone.
    let rest = if file.is_file() { format!(" {shown} is no longer needed.") } else { String::new() };
    match home.bundle.key {
        BundleKey::Token(_) => errln!("The key stays in its token: {kept} names it.{rest}"),
        _ => errln!("The key is in {kept}, which only you can read.{rest}"),
    }
    Ok(())
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// The day of a moment, with its time if the other one is near.
fn day_of(seconds: i64, other: i64) -> String {
    match [seconds, other].map(OffsetDateTime::from_unix_timestamp) {
        [Ok(moment), Ok(other)] => day_near(moment, other),
        _ => date(seconds),
    }
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// When the certificate expires; an error if the file is of no use.
fn check_usable(bundle: &Bundle, file: &Path) -> Result<i64, NotJoined> {
    let file = file.display();
    if bundle.routes.is_empty() {
        return Err(NotJoined::usage(format!(
            "{file} has no route\n  the owner of the gate can make a new one, once its configuration has routes: doorward ca renew \
             {}",
            shell::word(bundle.device.as_str())
        )));
    }
    let identity =
        identity(bundle).ok_or_else(|| NotJoined::usage(format!("{file}: the certificate cannot be read")))?;
    let now = now();
    if identity.not_after < now {
        return Err(NotJoined::usage(format!(
            "the certificate in {file} expired on {}, {} ago\n  ask the owner of the gate for a new one: doorward ca renew {}; if the date \
             is wrong here ({}), set the clock",
            day_of(identity.not_after, now),
            in_words(now - identity.not_after),
            shell::word(bundle.device.as_str()),
            day_of(now, identity.not_after)
        )));
    }
    Ok(identity.not_after)
}

/// The same with a key that can be used: one that needs no password, or one in a token, which has shown that it has it.
fn unlocked(args: &JoinArgs, bundle: Bundle, file: &Path, here: Option<&Home>) -> Result<Bundle, NotJoined> {
    if let Some(uri) = &args.key {
        let none = || NotJoined::usage(format!("{} has no certificate", file.display()));
        let certificate = bundle.chain.first().ok_or_else(none)?;
        let key = TokenKey::of_certificate(Token::of(&parsed(uri)?), certificate).and_then(|key| key.prove());
        key.map_err(|error| NotJoined::usage(format!("{error}\n  nothing was written")))?;
        return Ok(Bundle { key: BundleKey::Token(uri.clone()), ..bundle });
    }
    match &bundle.key {
        BundleKey::Plain(_) => return Ok(bundle),
        // A library that a stranger's file names is not run.
        BundleKey::Token(_) => return Err(HomesError::TokenOfFile { path: file.to_owned() }.into()),
        BundleKey::OnDevice => {
            let spki = |bundle: &Bundle| identity(bundle).map(|identity| identity.spki);
            let same_key = here.filter(|here| spki(&here.bundle).is_some() && spki(&here.bundle) == spki(&bundle));
            let here = same_key.ok_or_else(|| {
                NotJoined::usage(format!(
                    "{} has no key: it was made for one that is on this device\n  name it: doorward join {} --key pkcs11:…",
                    file.display(),
                    shell::path(file)
                ))
            })?;
            return Ok(Bundle { key: here.bundle.key.clone(), ..bundle });
        }
        BundleKey::Encrypted(_) => {}
    }
    let password = password(args, file)?;
    // Typed from another screen, or copied with the end of a line.
    let key = bundle.unlock(password.trim()).map_err(|error| match error {
        BundleError::WrongPassword => {
            let device = shell::word(bundle.device.as_str());
            NotJoined::usage(format!(
                "wrong password; nothing was written\n  it was shown with the file, as in \"k7mw-9xbq-…\"; if it is lost, the owner \
                 of the gate can make a new file: doorward ca renew {device}"
            ))
        }
        other => NotJoined::usage(format!("{}: {other}", file.display())),
    })?;
    let key = BundleKey::Plain(PlainKey::new(Zeroizing::new(key).secret_der()));
    Ok(Bundle { key, ..bundle })
}

fn password(args: &JoinArgs, file: &Path) -> Result<Zeroizing<String>, NotJoined> {
    if let Some(from) = &args.password_file {
        let open = std::fs::File::open(from);
        let read = open.and_then(first_line);
        return read.map_err(|error| NotJoined::usage(format!("cannot read {}: {error}", from.display())));
    }
    // What is left of standard input is no password if the file comes from there.
    if is_stdin(file) || io::stdin().is_terminal() {
        let prompt = match is_stdin(file) {
            true => "Password of the file: ".to_owned(),
            false => format!("Password of {}: ", printable(&file.to_string_lossy(), 200)),
        };
        return rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => NotJoined::usage("interrupted; nothing was written"),
            _ => NotJoined::usage(format!("cannot ask for the password: {error}\n  give it with --password-file FILE")),
        });
    }
    let line =
        first_line(io::stdin()).map_err(|error| NotJoined::usage(format!("cannot read the password: {error}")))?;
    if line.is_empty() {
        return Err(NotJoined::usage(
            "a password is needed, and there is no terminal to ask on\n  give it on stdin, or with --password-file FILE",
        ));
    }
    Ok(line)
}

fn first_line(from: impl io::Read) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(PASSWORD_MAX as usize));
    io::BufReader::new(from.take(PASSWORD_MAX)).read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Lets ssh reach these homes, and says so.
fn set_up_ssh(joined: &Joined) -> Result<String, NotJoined> {
    let ssh = SshFolder::open()?;
    let own = ssh.own_file();
    Ok(if ssh.write(&joined.homes, &program())? {
        format!("ssh, scp, sftp, rsync and git reach these names through the gate: see {}", own.display())
    } else {
        "No route that was joined leads to an SSH server, so there is nothing to set up for ssh.".to_owned()
    })
}

fn undo(homes: &Homes, name: &str) -> Result<(), NotJoined> {
    // The key of a certificate that is waited for as well.
    renew::forget(homes, name)?;
    homes.remove(name)?;
    let ssh = SshFolder::open()?;
    if ssh.is_written() {
        ssh.write(&homes.joined()?.homes, &program())?;
    }
    errln!(
        "{name} is removed from this device, with its key. Its certificate is valid until it expires: if the key may be in other \
         hands, ask the owner of the gate to revoke it."
    );
    Ok(())
}

fn list(homes: &Homes) -> Result<(), NotJoined> {
    let joined = homes.joined()?;
    let (program, has_ssh) = (program(), SshFolder::open()?.is_written());
    for home in &joined.homes {
        outln!("{}", describe(home));
        outln!("{}", usable::routes(&joined, home, &program, has_ssh));
    }
    if joined.homes.is_empty() && joined.broken.is_empty() {
        errln!("This user has joined no home.");
    }
    let mut broken = joined.broken.into_iter();
    let Some(first) = broken.next() else { return Ok(()) };
    broken.for_each(|error| errln!("error: {error}"));
    Err(first.into())
}

fn describe(home: &Home) -> String {
    let until = identity(&home.bundle).map_or_else(String::new, |identity| {
        let now = now();
        let word = if identity.not_after < now { "expired on" } else { "valid until" };
        format!("{word} {}", day_of(identity.not_after, now))
    });
    let key = match &home.bundle.key {
        BundleKey::Token(uri) => format!("key in a token: {}", printable(uri, URI_MAX)),
        _ => String::new(),
    };
    table(&[[home.name.clone(), home.bundle.device.to_string(), until, key]]).trim_end().to_owned()
}
