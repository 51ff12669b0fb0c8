//! Writes a change to the files of the installed gate as well, so that it finds it at its next start.

use std::path::{Path, PathBuf};

use super::change::Change;
use super::notify;
use crate::ca::inventory::{INVENTORY_FILE, Notice, Store};
use crate::ca::revoke::WrittenList;
use crate::files::Access;
use crate::install::Installed;

/// A change as the gate has it: in the files of the installed gate, if there is one.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The lists, where the gate reads them; where that file could not be written, the owner's.
    pub(super) lists: Vec<WrittenList>,
    /// The certificate's file.
    pub(super) certificate: Option<PathBuf>,
    /// What was written, in words.
    pub(super) text: String,
    /// What could not be written, and why.
    pub(super) failures: Vec<String>,
}

/// Writes the files of the change to the gate that was installed from this folder.
pub(super) fn publish(store: &Store, change: Change<'_>) -> Published {
    let gate = Installed::find().filter(|gate| gate.is_of(store.folder()));
    let mut published = Published::default();
    inventory(store);
    match change {
        Change::Lists(lists) => {
            for list in lists {
                let placed = gate.as_ref().and_then(|gate| published.write(gate, store, &list.file, Access::Public));
                published.lists.push(WrittenList { file: placed.unwrap_or_else(|| list.file.clone()), ..list.clone() });
            }
        }
        Change::Certificate { file, new_key, .. } => {
            let Some(gate) = gate else { return published };
            match new_key {
                // The gate could not read a key of another user, not even the old one at its next start.
                Some(_) if !rustix::process::geteuid().is_root() || gate.has_credentials() => {
                    published
                        .failures
                        .push("only root can give the gate its new key: sudo doorward install".to_owned());
                    return published;
                }
                Some(key) => {
                    published.write(&gate, store, key, Access::Private);
                }
                None => {}
            }
            if published.failures.is_empty() {
                published.certificate = published.write(&gate, store, file, Access::Public);
            }
        }
    }
    published
}

/// Writes the inventory to the installed gate, if that has one: its status page shows when devices' certificates expire.
pub(super) fn inventory(store: &Store) {
    let gate = Installed::find().filter(|gate| gate.is_of(store.folder()));
    let file = store.path(INVENTORY_FILE);
    let place = gate.as_ref().and_then(|gate| gate.place_of(store.folder(), &file)).filter(|place| place.exists());
    let Some((gate, place)) = gate.zip(place) else { return };
    let written = store
        .read(INVENTORY_FILE)
        .map_err(|error| error.to_string())
        .and_then(|contents| gate.replace(&place, contents.unwrap_or_default(), Access::Private));
    match written {
        Ok(warnings) => warnings.iter().for_each(|warning| notify(Notice::Warning(warning))),
        Err(why) => errln!(
            "warning: the gate's copy of the inventory is old, so its status page may show old dates: {why}\n  sudo doorward \
             install"
        ),
    }
}

impl Published {
    /// Copies a file to its place at the gate. Returns the place, if it has one and was written.
    fn write(&mut self, gate: &Installed, store: &Store, file: &Path, access: Access) -> Option<PathBuf> {
        let place = gate.place_of(store.folder(), file)?;
        let contents = store.read(file).map_err(|error| error.to_string());
        let contents = contents.and_then(|contents| contents.ok_or_else(|| format!("{} is missing", file.display())));
        match contents.and_then(|contents| gate.replace(&place, contents, access)) {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| notify(Notice::Warning(warning)));
                self.text.push_str(&format!("{} is written as well, for the gate.\n", place.display()));
                Some(place)
            }
            Err(why) => {
                self.failures.push(format!("cannot write {}: {why}", place.display()));
                None
            }
        }
    }
}
