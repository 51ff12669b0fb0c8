//! `doorward ca requests`, `approve` and `refuse`: devices that ask the gate for their next certificate.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use super::output::{print, print_json};
use super::passphrase::PassphraseArg;
use super::running_gate::config_file;
use super::{CaError, FolderArg, Format, published};
use crate::ca::approve::{Asking, NotApproved, Shown, approve, asking, ever_renewing, renewing};
use crate::ca::inventory::{Status, Store, now};
use crate::cli::exit;
use crate::config;
use crate::explain::clock::Clock;
use crate::files::Folder;
use crate::model::device_name::is_called;
use crate::model::identity::{Identity, Sha256};
use crate::model::names::printable;
use crate::model::shell;
use crate::model::text::table;
use crate::pki::keys;
use crate::renewal::folder::{RenewalRequest, RequestFolder};

/// The longest name that is shown of what the gate has stored, in characters.
const NAME_MAX: usize = 64;

/// Where authorities and requests are.
#[derive(Args, Debug)]
pub(super) struct Places {
    #[command(flatten)]
    folder: FolderArg,

    /// The folder of the gate's requests, or a copy of it [default: that of the gate's configuration]
    #[arg(long, value_name = "FOLDER")]
    requests: Option<PathBuf>,
}

/// The options of `doorward ca requests`.
#[derive(Args, Debug)]
pub(super) struct RequestsArgs {
    #[command(flatten)]
    places: Places,

    /// List what was issued without you instead: the latest certificate of each device
    #[arg(long)]
    renewed: bool,

    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// The options of `doorward ca approve`.
#[derive(Args, Debug)]
pub(super) struct ApproveArgs {
    /// The devices
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,

    /// Approve every request that is signed by the key of a valid certificate: for a timer
    #[arg(long)]
    all: bool,

    /// The request has a new key, with this SHA-256: the one that the device shows, and "doorward ca requests"
    #[arg(long, value_name = "SHA256", value_parser = parse_sha256, conflicts_with = "all")]
    new_key: Vec<Sha256>,

    #[command(flatten)]
    places: Places,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// The options of `doorward ca refuse`.
#[derive(Args, Debug)]
pub(super) struct RefuseArgs {
    /// The devices
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    #[command(flatten)]
    places: Places,
}

fn parse_sha256(text: &str) -> Result<Sha256, &'static str> {
    Sha256::parse(text).ok_or("expected the 64 hexadecimal digits of a SHA-256")
}

/// A request that has no answer. Times are in seconds since 1970.
#[derive(Serialize)]
struct Listed {
    name: String,
    /// Whether the key of its certificate has signed it, `same`, or a `new` one.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'static str>,
    key_type: String,
    /// SHA-256 of the key (SubjectPublicKeyInfo).
    key_sha256: String,
    source: String,
    requested_at: i64,
    /// Why it cannot be approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A certificate that was issued without the owner. Times are in seconds since 1970.
#[derive(Serialize)]
struct Renewed {
    /// The device, if the certificate that this one descends from was issued here.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    serial: String,
    /// The serial number of the certificate that it descends from.
    descends_from: String,
    not_after: i64,
    /// The status of that one, which is the one of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

/// A certificate that was issued.
#[derive(Serialize)]
struct Issued {
    name: String,
    serial: String,
    not_after: i64,
}

/// The folder of requests, used with the rights of its owner: the gate may have been taken over, and root follows nothing there.
struct Requests {
    path: PathBuf,
    folder: Folder,
}

impl Places {
    fn open(&self) -> Result<(Store, Requests), CaError> {
        let store = self.folder.open()?;
        let path = match &self.requests {
            Some(path) => path.clone(),
            None => self.configured(&store)?,
        };
        let folder = Folder::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                CaError::usage(format!(
                    "{} is not there, or only root can see it: the gate makes it at its start\n  run it with sudo, or name the folder: \
                     --requests FOLDER",
                    path.display()
                ))
            }
            io::ErrorKind::PermissionDenied => CaError::usage(format!(
                "cannot open {}: {error}\n  only the gate's user and root can: run it with sudo",
                path.display()
            )),
            _ => CaError::usage(format!("cannot open {}: {error}", path.display())),
        })?;
        Ok((store, Requests { path, folder }))
    }

    /// The folder that the configuration of the gate names.
    fn configured(&self, store: &Store) -> Result<PathBuf, CaError> {
        let name_it = "name the folder of the gate's requests, or a copy of it: --requests FOLDER";
        let Some(file) = config_file(&self.folder, store) else {
            return Err(CaError::usage(format!("the gate's configuration is not here\n  {name_it}")));
        };
        let folder = config::load_renewal_folder(&file)
            .map_err(|errors| CaError { code: exit::CONFIG, message: errors.to_string() })?;
        let places = folder.map(|folder| folder.places()).unwrap_or_default();
        places.into_iter().next().ok_or_else(|| {
            CaError::usage(format!(
                "{} has no section [renewal], so devices cannot ask this gate for certificates\n  {name_it}; or see: doorward \
                 help renewal",
                shell::path(&file)
            ))
        })
    }
}

impl Requests {
    fn act<T>(&self, call: impl FnOnce(&RequestFolder) -> io::Result<T>) -> Result<T, CaError> {
        self.folder
            .actor()
            .act(|| call(&RequestFolder::new(&self.path)))
            .map_err(|error| CaError { code: exit::UNEXPECTED, message: format!("{}: {error}", self.path.display()) })
    }

    /// Every request without an answer.
    fn all(&self) -> Result<Vec<RenewalRequest>, CaError> {
        let (requests, damaged) = self.act(RequestFolder::requests)?;
        if damaged > 0 {
            errln!("warning: {damaged} files in {} are no requests, and are left alone", self.path.display());
        }
        Ok(requests)
    }

    /// The requests of these devices. A gate that was taken over can store several of one device: the first that is `wanted` counts, if
    /// one is.
    fn of(
        &self,
        store: &Store,
        names: &[String],
        wanted: impl Fn(&RenewalRequest) -> bool,
    ) -> Result<Vec<RenewalRequest>, CaError> {
        let all = self.all()?;
        let mut found = Vec::new();
        for name in names {
            let of_device = || all.iter().filter(|request| is_called(&called(store, request), name));
            let request = of_device().find(|request| wanted(request)).or_else(|| of_device().next());
            let request = request.ok_or_else(|| {
                let known: Vec<String> = all.iter().map(|request| called(store, request)).collect();
                CaError::usage(match known.as_slice() {
                    [] => format!("{} has not asked for a certificate, and no other device has", shell::word(name)),
                    known => format!(
                        "{} has not asked for a certificate\n  these have: {}",
                        shell::word(name),
                        known.join(", ")
                    ),
                })
            })?;
            found.push(request.clone());
        }
        Ok(found)
    }
}

/// What the device is called: by the certificate that it has shown, if that was issued here.
fn called(store: &Store, request: &RenewalRequest) -> String {
    let entry = shown(store, request).entry(&store.inventory).cloned();
    printable(entry.as_ref().map_or(&request.device, |entry| &entry.name), NAME_MAX)
}

/// The certificate that the request came with.
fn shown(store: &Store, request: &RenewalRequest) -> Shown {
    Shown::stored(&renewing(store), &request.certificate, request.shown.as_ref())
}

fn asked<'a>(store: &'a Store, request: &RenewalRequest) -> Result<Asking<'a>, NotApproved> {
    asking(&store.inventory, &shown(store, request), &request.request)
}

/// `doorward ca requests`
pub(super) fn list(args: &RequestsArgs) -> Result<(), CaError> {
    let (store, requests) = args.places.open()?;
    if args.renewed {
        let renewed = renewed(&store, &requests)?;
        return match args.format {
            Format::Json => print_json(&renewed),
            Format::Text => Ok(io::stdout().lock().write_all(renewed_text(&renewed).as_bytes())?),
        };
    }
    let listed: Vec<Listed> = requests.all()?.iter().map(|request| listed(&store, request)).collect();
    match args.format {
        Format::Json => print_json(&listed),
        Format::Text => Ok(io::stdout().lock().write_all(text(&listed).as_bytes())?),
    }
}

/// What was issued without the owner, as the folder has it. Nothing but the signature of the renewal authority vouches for it.
fn renewed(store: &Store, requests: &Requests) -> Result<Vec<Renewed>, CaError> {
    let mut renewed = Vec::new();
    let renewing = ever_renewing(&store.inventory);
    for certificate in requests.act(RequestFolder::issued)? {
        let shown = Shown::stored(&renewing, &Sha256::of(&certificate), Some(&certificate));
        let (Some((origin, not_after)), Ok(identity)) =
            (&shown.renewed, Identity::from_certificate(&certificate, false))
        else {
            continue;
        };
        let entry = shown.entry(&store.inventory);
        renewed.push(Renewed {
            name: entry.map(|entry| entry.name.clone()),
            serial: identity.serial.to_string(),
            descends_from: origin.serial.to_string(),
            not_after: *not_after,
            status: entry.map(|entry| store.inventory.status(entry, now())).filter(|status| *status == Status::Revoked),
        });
    }
    renewed.sort_by(|one, other| (&one.name, one.not_after).cmp(&(&other.name, other.not_after)));
    Ok(renewed)
}

fn renewed_text(renewed: &[Renewed]) -> String {
    if renewed.is_empty() {
        return "No certificate was issued without you.\n".to_owned();
    }
    let clock = Clock::system();
    let mut rows = vec![["name", "valid until", "serial", "descends from", ""].map(str::to_owned)];
    for line in renewed {
        rows.push([
            line.name.as_ref().map_or_else(|| "–".to_owned(), |name| printable(name, NAME_MAX)),
            clock.of_seconds(line.not_after).map_or_else(String::new, |at| at.date().to_string()),
            line.serial.clone(),
            line.descends_from.clone(),
            line.status.map_or_else(String::new, |status| status.to_string()),
        ]);
    }
    table(&rows)
}

fn listed(store: &Store, request: &RenewalRequest) -> Listed {
    let asked = asked(store, request);
    Listed {
        name: called(store, request),
        key: asked.as_ref().ok().map(|asking| if asking.same_key { "same" } else { "new" }),
        key_type: keys::describe(request.request.spki()),
        key_sha256: request.request.key().to_string(),
        source: printable(&request.source, NAME_MAX),
        requested_at: request.requested_at,
        problem: asked.err().map(|why| why.to_string()),
    }
}

fn text(listed: &[Listed]) -> String {
    if listed.is_empty() {
        return "No device waits for an answer.\n".to_owned();
    }
    let clock = Clock::system();
    let heading = ["name", "key", "type", "asked", "from"];
    let mut rows = vec![heading.map(str::to_owned)];
    for line in listed {
        let at = clock.of_seconds(line.requested_at);
        rows.push([
            line.name.clone(),
            line.key.unwrap_or("–").to_owned(),
            line.key_type.clone(),
            at.map_or_else(String::new, |at| format!("{} {}", at.date(), clock.minutes(at))),
            line.source.clone(),
        ]);
    }
    let mut out = table(&rows);
    for line in listed {
        let name = shell::word(&line.name);
        match (&line.problem, line.key) {
            (Some(problem), _) => out.push_str(&format!("\n{}: {problem}. To refuse it: doorward ca refuse {name}\n", line.name)),
            (None, Some("same")) => out.push_str(&format!("\n{}: doorward ca approve {name}\n", line.name)),
            (None, _) => out.push_str(&format!(
                "\n{}: the key is new, and its SHA-256 is {}. If the device shows the same one: doorward ca approve {name} --new-key \
                 {}\n",
                line.name, line.key_sha256, line.key_sha256
            )),
        }
    }
    out
}

/// `doorward ca approve`
pub(super) fn approve_all(args: &ApproveArgs) -> Result<(), CaError> {
    let (mut store, requests) = args.places.open()?;
    let wanted: Vec<RenewalRequest> = if args.all {
        let all = requests.all()?;
        all.into_iter().filter(|request| asked(&store, request).is_ok_and(|asking| asking.same_key)).collect()
    } else {
        let wanted = requests.of(&store, &args.names, |request| check(&store, request, &args.new_key).is_ok())?;
        // All are looked at before one is issued.
        for request in &wanted {
            check(&store, request, &args.new_key)?;
        }
        wanted
    };
    let passphrase = args.passphrase.prompt();
    let mut issued = Vec::new();
    let mut text = String::new();
    for request in &wanted {
        let shown = shown(&store, request);
        let approved = approve(&mut store, &shown, &request.request, &passphrase)?
            .map_err(|why| CaError::usage(format!("{} cannot be approved: {why}", called(&store, request))))?;
        // The gate knows the certificate, and that it is the device's, before the device has it.
        published::inventory(&store);
        requests.act(|folder| folder.decide(request, Some(&approved.certificate))).map_err(|error| {
            error.with_line(
                "the certificate is issued, but the gate cannot give it to the device: run the command again",
            )
        })?;
        text.push_str(&format!(
            "Issued a certificate for {}, valid until {}. The device gets it when it asks again.\n",
            approved.name,
            approved.not_after.date()
        ));
        issued.push(Issued {
            name: approved.name.to_string(),
            serial: approved.serial,
            not_after: OffsetDateTime::unix_timestamp(approved.not_after),
        });
    }
    if issued.is_empty() {
        text.push_str("No device waits for an answer that can be given without you.\n");
    }
    print(args.format, &text, &issued)
}

/// Whether the owner may have it approved.
fn check(store: &Store, request: &RenewalRequest, new_keys: &[Sha256]) -> Result<(), CaError> {
    let name = called(store, request);
    match asked(store, request) {
        Err(why) => Err(CaError::usage(format!(
            "{name} cannot be approved: {why}\n  to refuse the request: doorward ca refuse {}",
            shell::word(&name)
        ))),
        // The gate may have put in another one since the owner has compared it.
        Ok(Asking { same_key: false, .. }) if !new_keys.contains(&request.request.key()) => {
            Err(CaError::usage(format!(
                "{name} asks with a new key, and nothing but the gate's word shows that the device has made it\n  its SHA-256 is {}; if \
             \"doorward renew\" shows the same one on the device: doorward ca approve {} --new-key {}",
                request.request.key(),
                shell::word(&name),
                request.request.key()
            )))
        }
        Ok(_) => Ok(()),
    }
}

/// `doorward ca refuse`
pub(super) fn refuse(args: &RefuseArgs) -> Result<(), CaError> {
    let (store, requests) = args.places.open()?;
    for request in requests.of(&store, &args.names, |_| true)? {
        requests.act(|folder| folder.decide(&request, None))?;
        errln!("Refused the request of {}.", called(&store, &request));
    }
    Ok(())
}
