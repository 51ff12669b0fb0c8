//! `--load-credential`: the gate's own keys are root's, and systemd hands them to the service when it starts.
//!
//! The file of a key in the folder of the configuration becomes `/etc/doorward/credentials/NAME`, a line `LoadCredential=` of the
//! drop-in names it, and the configuration has `key = "credential:NAME"`. A key elsewhere stays where it is. An installation of
//! this kind remains one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::source::{Named, Source};
use super::step::{Owner, Step};
use super::system::System;
use super::{Error, FOLDER, Installed, PKI, Plan, Wanted, read_error};
use crate::config::credentials::{Credentials, OF_THE_RUNNING_SERVICE, credential_name, credential_value};
use crate::files::placed;

/// The folder of the keys. Root's alone: the owner may write to that of the certificates, and systemd follows links.
pub(super) const KEYS: &str = "/etc/doorward/credentials";

/// The addition to the unit that this command writes. `systemctl edit` writes another one.
pub(super) const DROP_IN: &str = "/etc/systemd/system/doorward.service.d/install.conf";

/// The credentials of an installation: the file of each, by name.
#[derive(Debug, Default)]
pub(super) struct Keys {
    files: BTreeMap<String, PathBuf>,
}

impl Keys {
    /// Those that are installed, if the service is to have any.
    ///
    /// # Errors
    /// If they cannot be listed, or there is no systemd to hand them over.
    pub(super) fn wanted(wanted: &Wanted, system: &System) -> Result<Option<Self>, Error> {
        let folder = system.path(KEYS);
        let mut files: BTreeMap<_, _> = installed_lines(system).into_iter().collect();
        match std::fs::read_dir(&folder) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(read_error(&folder))?.file_name().to_string_lossy().into_owned();
                    files.entry(name.clone()).or_insert_with(|| Path::new(KEYS).join(name));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(read_error(&folder)(error)),
        }
        if wanted.load_credential && !system.has_systemd() {
            return Err(Error::Usage(
                "--load-credential needs systemd, which is not on this system\n  without it, only the gate's user and root may \
                 read the gate's key"
                    .to_owned(),
            ));
        }
        let keys = (wanted.load_credential || !files.is_empty()).then_some(Self { files });
        let in_place = Installed::in_folder(&system.path(FOLDER))
            .is_some_and(|installed| installed.authority() == Path::new(FOLDER).join(PKI));
        if keys.is_some() && (wanted.with_authority || in_place) {
            return Err(Error::Usage(format!(
                "--with-authority and --load-credential exclude each other: with the first one, the owner has the gate's key in \
                 {FOLDER}/{PKI}; with the second one, only root has it in {KEYS}"
            )));
        }
        Ok(keys)
    }

    /// Where a configuration finds them now; those of the running service as well.
    pub(super) fn credentials(keys: Option<&Self>, system: &System) -> Credentials {
        let files = keys.iter().flat_map(|keys| &keys.files).map(|(name, path)| (name.clone(), system.path(path)));
        let known = Credentials::read(files);
        if system.is_running() { known.or(Credentials::of_service()) } else { known }
    }

    /// The lines of the drop-in.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.files.iter().map(|(name, path)| format!("LoadCredential={name}:{}", path.display()))
    }

    /// The configuration with keys that are credentials, whose files are placed. Whether one of those has changed.
    ///
    /// # Errors
    /// If two keys would have one name, or a file cannot be read.
    pub(super) fn take_over(
        &mut self,
        system: &System,
        source: Option<&Source>,
        text: &[u8],
        named: &mut Named,
        plan: &mut Plan,
    ) -> Result<(Vec<u8>, bool), Error> {
        let text = self.convert(text, named)?;
        // The owner's keys are newer than those that are installed.
        let owners = source.and_then(|source| {
            let (_, config) = source.config().ok()?;
            Some((source, Named::of(&config, source.path()).ok()?))
        });
        let mut changed = false;
        for (name, place) in self.files.iter().filter(|(_, place)| place.starts_with(KEYS)) {
            let fresh = owners.as_ref().and_then(|(source, named)| Some((source, named.server_key(name)?)));
            let (inside, contents, from) = match (fresh, named.server_key(name)) {
                (Some((source, inside)), _) => {
                    let contents = source.read(&inside)?;
                    let from = source.path().join(&inside);
                    (inside, contents, from)
                }
                (None, Some(inside)) => {
                    let from = system.path(Path::new(FOLDER).join(&inside));
                    (inside, Some(placed::contents(&from).map_err(read_error(&from))?), from)
                }
                (None, None) => continue,
            };
            let Some(contents) = contents else { continue };
            let add = Step::folder(system, KEYS, Owner::Root, 0o700)?.filter(|step| !plan.steps.contains(step));
            plan.add(add);
            let from = format!("from {}", from.display());
            changed |= plan.add(Step::file(system, place, contents, (Owner::Root, 0o600), &from)?);
            let copy = Path::new(FOLDER).join(&inside);
            if copy != *place {
                plan.add(Step::remove(system, &copy)?);
            }
        }
        let taken: BTreeSet<PathBuf> = self.files.keys().filter_map(|name| named.server_key(name)).collect();
        named.inside.retain(|(path, _)| !taken.contains(path));
        let handed_over = |path: &Path| {
            path.starts_with(OF_THE_RUNNING_SERVICE) || self.files.values().any(|file| system.path(file) == path)
        };
        named.outside.retain(|path| !handed_over(path));
        Ok((text, changed))
    }

    /// Whether the owner's configuration would be installed as other text than this.
    pub(super) fn differs(keys: Option<&Self>, source: &Source, text: &[u8]) -> bool {
        let own = source.config().and_then(|(own, config)| match keys {
            Some(_) => Self::default().convert(&own, &Named::of(&config, source.path())?),
            None => Ok(own),
        });
        own.is_ok_and(|own| own != text)
    }

    /// The same configuration with keys that are credentials, which are added to these.
    fn convert(&mut self, text: &[u8], named: &Named) -> Result<Vec<u8>, Error> {
        // It was read as a configuration.
        let mut converted = String::from_utf8_lossy(text).into_owned();
        // From the end: what is before a place does not move.
        for (range, value) in key_values(&converted.clone()).into_iter().rev() {
            let path = named.folder.join(&value);
            if credential_name(&value).is_some() || !named.server_keys.contains(&path) {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let place = if path.starts_with(&named.folder) { Path::new(KEYS).join(&name) } else { path };
            let before = self.files.insert(name.clone(), place.clone());
            if let Some(other) = before.filter(|other| *other != place) {
                return Err(Error::Usage(format!(
                    "two keys have the name {name}, which would be that of their credentials: {} and {}\n  give one of the \
                     files another name",
                    other.display(),
                    place.display()
                )));
            }
            converted.replace_range(range, &format!("\"{}\"", credential_value(&name)));
        }
        Ok(converted.into_bytes())
    }
}

/// The lines `LoadCredential=` of the installed drop-in.
fn installed_lines(system: &System) -> Vec<(String, PathBuf)> {
    let text = placed::contents(&system.path(DROP_IN)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().filter_map(|line| line.strip_prefix("LoadCredential=")?.split_once(':'));
    lines.map(|(name, path)| (name.to_owned(), path.into())).collect()
}

/// Where the text names the keys of certificates, and the values.
fn key_values(text: &str) -> Vec<(Range<usize>, String)> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    let mut add = |table: &DeTable<'_>| {
        if let Some(DeValue::Table(certificate)) = table.get("certificate").map(|value| value.get_ref())
            && let Some(key) = certificate.get("key")
            && let DeValue::String(value) = key.get_ref()
        {
            found.push((key.span(), value.to_string()));
        }
    };
    add(document.get_ref());
    if let Some(DeValue::Array(routes)) = document.get_ref().get("route").map(|value| value.get_ref()) {
        for route in routes.iter() {
            if let DeValue::Table(route) = route.get_ref() {
                add(route);
            }
        }
    }
    found.sort_by_key(|(range, _)| range.start);
    found
}
