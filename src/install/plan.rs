//! The steps of an installation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;

use super::credentials::Keys;
use super::issuer;
use super::service;
use super::source::{Kind, Named, Source, named_by_installed};
use super::starting::{Changes, start};
use super::step::{Owner, Step};
use super::system::System;
use super::{
    CONFIG, Error, FOLDER, Installed, PACKAGED, PAGES, PKI, PROGRAM, Page, RECORD, UNIT, UNIT_FILE, USER, read_error,
};
use crate::config::ConfigErrors;
use crate::config::checked::{Config, RevocationList};
use crate::files::placed;
use crate::model::shell;

/// What is to be installed.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The folder that `doorward init` wrote; if it is not given, the one that was installed from before, or `doorward` here.
    pub folder: Option<PathBuf>,
    /// The system that is installed to: `/`, or the folder of an image.
    pub root: PathBuf,
    /// Whether the installed configuration is replaced by the folder's.
    pub replace_config: bool,
    /// Whether the authorities' keys and the devices' files are copied too.
    pub with_authority: bool,
    /// Whether the gate's keys become credentials that systemd hands to the service.
    pub load_credential: bool,
    /// Man pages and completions.
    pub pages: Vec<Page>,
    /// The process of the installed gate that accepts connections, if it answers on its control socket.
    pub gate: Option<u32>,
    /// Whether the gate would take this configuration, for what only the gate's own rules tell.
    pub accept: fn(&Config) -> Result<(), ConfigErrors>,
}

/// The steps that are left to do, and what there is to know.
#[derive(Debug)]
pub struct Plan {
    root: PathBuf,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What stays as it is although one may expect otherwise.
    pub notes: Vec<String>,
    /// What to do after the steps.
    pub next: Vec<String>,
}

impl Plan {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), steps: Vec::new(), notes: Vec::new(), next: Vec::new() }
    }

    pub(super) fn add(&mut self, step: Option<Step>) -> bool {
        let added = step.is_some();
        self.steps.extend(step);
        added
    }

    /// Adds the missing folders above a file.
    pub(super) fn add_missing_folders(&mut self, system: &System, file: &Path) -> Result<(), Error> {
        for step in Step::folders_above(system, file)? {
            if !self.steps.contains(&step) {
                self.steps.push(step);
            }
        }
        Ok(())
    }

    /// Takes the steps. `before` is called with each one.
    ///
    /// # Errors
    /// The first step that fails; the others are not taken.
    pub fn take(&self, mut before: impl FnMut(&Step)) -> Result<(), Error> {
        self.steps.iter().try_for_each(|step| {
            before(step);
            step.take(&self.root)
        })
    }
}

/// Looks at the system, and plans what is missing.
///
/// # Errors
/// If there is nothing to install, or it cannot be installed as it is.
pub fn plan(wanted: &Wanted) -> Result<Plan, Error> {
    let system = System::look(&wanted.root).map_err(read_error(&wanted.root))?;
    let mut plan = Plan::new(&wanted.root);
    let source = source(wanted, &system)?;
    accounts(&system, source.as_ref(), &mut plan)?;
    let (program, changed) = program(&system, &mut plan)?;
    let settings = configuration(wanted, &system, source.as_ref(), &mut plan)?;
    let unit = unit(&system, program, settings, &mut plan)?;
    pages(wanted, &system, &mut plan)?;
    start(&system, program, wanted.gate, Changes { program: changed, unit, settings }, &mut plan);
    Ok(plan)
}

/// The owner's folder, if one is known and it is not the installed one.
fn source(wanted: &Wanted, system: &System) -> Result<Option<Source>, Error> {
    let own = system.path(FOLDER);
    let recorded = Installed::in_folder(&own).map(|installed| installed.authority().to_owned());
    let in_place = recorded.as_deref().is_some_and(|authority| authority == Path::new(FOLDER).join(PKI));
    let Some(given) = &wanted.folder else {
        let here = Source::open(Path::new(USER))?;
        if in_place || here.is_some() {
            return Ok(here.filter(|_| !in_place));
        }
        return match recorded.as_deref().and_then(Path::parent) {
            Some(before) => Source::open(before),
            None => Ok(None),
        };
    };
    let no_config = || {
        Error::Usage(format!(
            "{} has no {CONFIG}\n  name the folder that \"doorward init\" wrote, or create one: doorward init --help",
            given.display()
        ))
    };
    let source = Source::open(given)?.ok_or_else(no_config)?;
    if own.canonicalize().is_ok_and(|own| own == source.path()) {
        return Ok(None);
    }
    if in_place {
        return Err(Error::Usage(format!(
            "the authorities are in {FOLDER}/{PKI} since they were installed with --with-authority; {} is an older copy\n  \
             without a folder, the command checks the installation",
            source.path().display()
        )));
    }
    Ok(Some(source))
}

/// The gate's user and group, and the owner's membership.
///
/// `useradd` makes them where it exists (every distribution with systemd, and Alpine with shadow), else `adduser` of Busybox.
/// Not systemd-sysusers: it exists with systemd only, and not everywhere there.
fn accounts(system: &System, source: Option<&Source>, plan: &mut Plan) -> Result<(), Error> {
    const NOTE: &str = "its own user, which may do nothing else";
    let prefix: Vec<String> =
        system.other_root().map(|root| vec!["--prefix".to_owned(), root.display().to_string()]).unwrap_or_default();
    let with_prefix = |arguments: &[&str]| {
        prefix.iter().map(String::as_str).chain(arguments.iter().copied()).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut run = |tool: &str, fallback: (&str, &[&str]), arguments: &[&str], note: &str| {
        if let Some(program) = system.tool(tool) {
            let arguments = with_prefix(arguments);
            plan.steps.push(Step::run(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), note));
        } else if let Some(program) = system.tool(fallback.0).filter(|_| system.is_running()) {
            plan.steps.push(Step::run(program, fallback.1, note));
        } else {
            return Err(Error::Usage(format!(
                "neither {tool} nor {} is on this system, and the gate needs a user of its own\n  make the user and the group \
                 {USER}, and run the command again",
                fallback.0
            )));
        }
        Ok(())
    };
    let nologin = if system.path("/usr/sbin/nologin").exists() { "/usr/sbin/nologin" } else { "/sbin/nologin" };
    let group = system.accounts.group(USER);
    if group.is_none() {
        run("groupadd", ("addgroup", &["-S", USER]), &["--system", USER], "its members may use the control socket")?;
    }
    if system.accounts.user(USER).is_none() {
        let arguments =
            ["--system", "--gid", USER, "--no-create-home", "--home-dir", "/nonexistent", "--shell", nologin, USER];
        let busybox = ["-S", "-D", "-H", "-h", "/nonexistent", "-s", nologin, "-G", USER, USER];
        run("useradd", ("adduser", &busybox), &arguments, NOTE)?;
    }
    let Some(owner) = source.filter(|source| source.user != 0) else { return Ok(()) };
    let Some(user) = system.user_with_id(owner.user) else {
        plan.notes.push(format!(
            "user {} owns {}, and has no name here; to use the control socket it must be in the group {USER}",
            owner.user,
            owner.path().display()
        ));
        return Ok(());
    };
    if !group.is_some_and(|group| system.accounts.is_member(&user, group)) {
        let note = format!("{} may ask the gate, and cut connections; from the next login on", user.name);
        run("usermod", ("addgroup", &[&user.name, USER]), &["--append", "--groups", USER, &user.name], &note)?;
        plan.next.push(format!("{0} logs in again, to be in the group {USER}; until then: sg {USER}", user.name));
    }
    Ok(())
}

/// The program: where the unit starts it, and whether it changes.
fn program(system: &System, plan: &mut Plan) -> Result<(&'static str, bool), Error> {
    if system.is_packaged() {
        return Ok((PACKAGED, false));
    }
    // The file that this process runs, whatever its name leads to now.
    let own = Path::new("/proc/self/exe");
    let contents = std::fs::read(own).map_err(read_error(own))?;
    plan.add_missing_folders(system, Path::new(PROGRAM))?;
    let changed = plan.add(Step::file(system, Path::new(PROGRAM), contents, (Owner::Root, 0o755), "this program")?);
    Ok((PROGRAM, changed))
}

/// The configuration, the files that it names, the record of the authorities, and what the service needs for it: whether the
/// service has to be started again.
fn configuration(wanted: &Wanted, system: &System, source: Option<&Source>, plan: &mut Plan) -> Result<bool, Error> {
    let file = system.path(Path::new(FOLDER).join(CONFIG));
    let installed = match placed::contents(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(read_error(&file)(error)),
    };
    let mut keys = Keys::wanted(wanted, system)?;
    let (text, mut named) = match (installed, source) {
        (Some(text), source) if source.is_none() || !wanted.replace_config => {
            let differs = |source: &&Source| Keys::differs(keys.as_ref(), source, &text);
            if let Some(source) = source.filter(differs) {
                let own = source.path().join(CONFIG);
                plan.notes.push(format!(
                    "{} stays as it is, and differs from {}; to replace it: --replace-config",
                    file.display(),
                    own.display()
                ));
            }
            // Read now: these keys are root's.
            let credentials = Keys::credentials(keys.as_ref(), system);
            let named = named_by_installed(system, &file, source, &credentials, &mut plan.notes)?;
            (text, named)
        }
        (_, Some(source)) => {
            let (text, config) = source.config()?;
            (wanted.accept)(&config).map_err(Error::Config)?;
            (text, Named::of(&config, source.path())?)
        }
        (_, None) => {
            return Err(Error::Usage(format!(
                "there is no configuration: neither in {USER} in this folder nor in {FOLDER}\n  create one: doorward init \
                 --help; or name its folder: doorward install FOLDER"
            )));
        }
    };
    plan.add_missing_folders(system, Path::new(FOLDER))?;
    plan.add(Step::folder(system, FOLDER, Owner::Root, 0o755)?);
    let (text, changed) = match &mut keys {
        Some(keys) => keys.take_over(system, source, &text, &mut named, plan)?,
        None => (text, false),
    };
    let mut files = gather(wanted, source, &named)?;
    if let Some(key) = &named.issuer_key {
        // The gate reads the folder that the rest is in.
        files.remove(&issuer::own_key());
        issuer::place(system, source, key, plan)?;
    }
    place(system, source, files, plan)?;
    plan.add(Step::file(system, &Path::new(FOLDER).join(CONFIG), text, (Owner::Root, 0o644), "the configuration")?);
    for path in &named.outside {
        if !path.starts_with(system.path(FOLDER)) && path.is_absolute() {
            plan.notes.push(format!("{} stays where it is; the user {USER} must be able to read it", path.display()));
        }
    }
    let settings = service::settings(system, &named, keys.as_ref(), plan)? || changed;
    let Some(source) = source else { return Ok(settings) };
    let authority = if wanted.with_authority { Path::new(FOLDER).join(PKI) } else { source.authority() };
    let record = Installed::record(&authority);
    let note = "where \"doorward ca\" finds the authorities";
    plan.add(Step::file(system, &Path::new(FOLDER).join(RECORD), record, (Owner::Root, 0o644), note)?);
    if !wanted.with_authority {
        plan.next.push(format!(
            "the authorities' keys stay in {}, which \"doorward ca\" uses from any folder",
            shell::path(&authority)
        ));
    }
    Ok(settings)
}

/// A file to be placed; without contents, those that are there.
struct Placing {
    contents: Option<Vec<u8>>,
    kind: Kind,
    private: bool,
}

/// The files that belong in the folder of the configuration, by their path in it.
fn gather(wanted: &Wanted, source: Option<&Source>, named: &Named) -> Result<BTreeMap<PathBuf, Placing>, Error> {
    let mut files = BTreeMap::new();
    if let Some(source) = source.filter(|_| wanted.with_authority) {
        for folder in [PKI, "devices"] {
            for (inside, public) in source.below(Path::new(folder))? {
                let contents = source.read(&inside)?;
                files.insert(inside, Placing { contents, kind: Kind::Public, private: !public });
            }
        }
    }
    for (inside, kind) in &named.inside {
        let contents = source.map(|source| source.read(inside)).transpose()?.flatten();
        files.insert(inside.clone(), Placing { contents, kind: *kind, private: *kind == Kind::Key });
    }
    Ok(files)
}

fn place(
    system: &System,
    source: Option<&Source>,
    files: BTreeMap<PathBuf, Placing>,
    plan: &mut Plan,
) -> Result<(), Error> {
    let own = Path::new(FOLDER);
    let owner = |group| match source {
        Some(&Source { user, .. }) if group => Owner::UserWithGate { user },
        Some(&Source { user, group, .. }) if user != 0 => Owner::User { user, group },
        _ => Owner::Root,
    };
    for (inside, Placing { contents, kind, private }) in files {
        let (path, place) = (own.join(&inside), system.path(own.join(&inside)));
        let from = source.map(|source| source.path().join(&inside).display().to_string()).unwrap_or_default();
        let Some(contents) = contents else {
            // It is there already, and has to be readable for the gate.
            if kind == Kind::Key {
                let contents = placed::contents(&place).map_err(read_error(&place))?;
                plan.add(Step::file(system, &path, contents, (Owner::Gate, 0o400), "only the gate reads its key")?);
            }
            continue;
        };
        if kind == Kind::List {
            refuse_older(&place, &contents, &from)?;
        }
        for folder in
            inside.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect::<Vec<_>>().iter().rev()
        {
            let mode = if folder.starts_with(PKI) { 0o755 } else { 0o700 };
            let step = Step::folder(system, &own.join(folder).to_string_lossy(), owner(false), mode)?;
            if let Some(step) = step.filter(|step| !plan.steps.contains(step)) {
                plan.steps.push(step);
            }
        }
        let attributes = match kind {
            Kind::Key => (Owner::Gate, 0o400),
            Kind::Inventory => (owner(true), 0o640),
            Kind::Public | Kind::List if private => (owner(false), 0o600),
            Kind::Public | Kind::List => (owner(false), 0o644),
        };
        plan.add(Step::file(system, &path, contents, attributes, &format!("from {from}"))?);
    }
    Ok(())
}

/// An older list would let revoked devices in again.
fn refuse_older(place: &Path, new: &[u8], from: &str) -> Result<(), Error> {
    let read = |bytes: &[u8]| {
        let der =
            CertificateRevocationListDer::from_pem_slice(bytes).map_or_else(|_| bytes.to_vec(), |list| list.to_vec());
        RevocationList::read(der, place)
    };
    let installed = placed::contents(place).ok().and_then(|bytes| read(&bytes));
    let (Some(installed), Some(new)) = (installed, read(new)) else { return Ok(()) };
    if installed.issuer_in_words() == new.issuer_in_words() && installed.is_newer_than(&new) {
        return Err(Error::Usage(format!(
            "{} is newer than {from}: to install that one would admit revoked devices again\n  was an older copy of the folder \
             restored? Copy the newer list there, then: doorward ca revoke --lists",
            place.display()
        )));
    }
    Ok(())
}

/// The unit; whether it changes. systemd reads it and the `settings` for it again.
fn unit(system: &System, program: &str, settings: bool, plan: &mut Plan) -> Result<bool, Error> {
    let mut changed = false;
    if !system.has_packaged_unit() && system.has_systemd() {
        let contents = UNIT.replace(PROGRAM, program).into_bytes();
        plan.add_missing_folders(system, Path::new(UNIT_FILE))?;
        changed = plan.add(Step::file(system, Path::new(UNIT_FILE), contents, (Owner::Root, 0o644), "the service")?);
    }
    if (changed || settings) && system.runs_systemd() {
        plan.add(system.tool("systemctl").map(|program| Step::run(program, &["daemon-reload"], "")));
    }
    Ok(changed)
}

/// Man pages and completions.
fn pages(wanted: &Wanted, system: &System, plan: &mut Plan) -> Result<(), Error> {
    if system.is_packaged() {
        return Ok(());
    }
    let mut steps = Vec::new();
    for page in &wanted.pages {
        plan.add_missing_folders(system, &page.path)?;
        steps.extend(Step::file(system, &page.path, page.contents.clone(), (Owner::Root, 0o644), "")?);
    }
    plan.add(Step::several(steps, &format!("write man pages and shell completions to {PAGES}")));
    Ok(())
}
