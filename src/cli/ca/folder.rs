//! Which folder the authorities are in.

use std::path::{Path, PathBuf};

use clap::Args;

use super::CaError;
use crate::ca::inventory::{Inventory, Notice, Recovered, Store};
use crate::cli::{ConfigArg, FROM_INIT, folder_of_init, in_place_of};
use crate::install::Installed;

/// The folder of the authorities.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct FolderArg {
    /// The folder that "doorward init" wrote, or the one of the authorities in it, "pki" [default: the one that "doorward install"
    /// was given, else that of the configuration, or the current folder]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,

    #[command(flatten)]
    pub(super) config: ConfigArg,
}

/// The default name of the folder.
pub(in crate::cli) const FOLDER: &str = "pki";

impl FolderArg {
    /// The configuration of the gate.
    ///
    /// # Errors
    /// If there is none, in words.
    pub(in crate::cli) fn config(&self) -> Result<PathBuf, String> {
        match &self.folder {
            Some(folder) if self.config.file.is_none() => {
                Ok(in_place_of(&folder_of_init(folder).join("doorward.toml")))
            }
            _ => self.config.path(),
        }
    }

    /// The folder of the authorities.
    pub(in crate::cli) fn authorities(&self) -> PathBuf {
        self.existing()
    }

    /// The folder for new authorities.
    pub(super) fn new_folder(&self) -> PathBuf {
        if let Some(folder) = &self.folder {
            let is_it = folder.file_name().is_some_and(|name| name == FOLDER) || Store::is_in(folder);
            return if is_it { folder.clone() } else { folder.join(FOLDER) };
        }
        let beside = self.config.path().ok().map(|file| beside(&file));
        beside.unwrap_or_else(|| FOLDER.into())
    }

    /// The folder of existing authorities.
    fn existing(&self) -> PathBuf {
        if let Some(folder) = &self.folder {
            // `doorward init` and `share` take the folder above it.
            let within = folder.join(FOLDER);
            return if !Store::is_in(folder) && Store::is_in(&within) { within } else { folder.clone() };
        }
        let config = self.config.path().ok();
        // The folder that was installed from, unless other authorities, or another gate's configuration, are here.
        let installed = Installed::find()
            .filter(|installed| config.as_ref().is_none_or(|config| *config == installed.config()))
            .filter(|_| self.config.file.is_some() || !Store::is_in(Path::new(FOLDER)))
            .map(|installed| installed.authority().to_owned());
        if let Some(installed) = installed {
            return installed;
        }
        let beside_config = config.map(|file| beside(&file));
        let usual = [FOLDER.into(), beside(Path::new(FROM_INIT))];
        let mut candidates = beside_config.clone().into_iter().chain(usual);
        candidates.find(|folder| Store::is_in(folder)).or(beside_config).unwrap_or_else(|| FOLDER.into())
    }

    /// The inventory as it is now, if it can be read.
    pub(super) fn inventory(&self) -> Option<Inventory> {
        Store::read_inventory(&self.existing()).ok().flatten()
    }

    /// Opens and locks the folder.
    pub(super) fn open(&self) -> Result<Store, CaError> {
        let mut store = Store::open(&self.existing(), notify)?;
        report_recovery(&store);
        let mut inventory = store.inventory.clone();
        store.merge_revocation_lists(&mut inventory)?;
        store.inventory = inventory;
        Ok(store)
    }

    /// As [`FolderArg::open`], and creates the folder if there is none.
    pub(super) fn open_or_create(&self) -> Result<Store, CaError> {
        let found = self.existing();
        let folder = if Store::is_in(&found) { found } else { self.new_folder() };
        let store = Store::open_or_create(&folder, notify)?;
        report_recovery(&store);
        Ok(store)
    }
}

/// The configuration of the gate that uses these authorities: the installed one, else the one beside them. It may not exist.
pub(super) fn config_of(store: &Store) -> PathBuf {
    let installed = Installed::find().filter(|installed| installed.is_of(store.folder()));
    installed.map_or_else(|| store.path("../doorward.toml"), |installed| installed.config())
}

fn beside(config: &Path) -> PathBuf {
    config.with_file_name(FOLDER)
}

/// Prints what is to be said while the folder is used.
pub(in crate::cli) fn notify(notice: Notice<'_>) {
    match notice {
        Notice::Waiting => errln!("waiting for another doorward command that has this folder locked"),
        Notice::RevocationsMerged(count) => errln!(
            "note: {} on the revocation list and not in the inventory (was an older copy restored?); revoked certificates \
             stay revoked",
            if count == 1 { "1 certificate was".to_owned() } else { format!("{count} certificates were") }
        ),
        Notice::Warning(warning) => errln!("warning: {warning}"),
    }
}

fn report_recovery(store: &Store) {
    match store.recovered {
        Recovered::Nothing => {}
        Recovered::Finished => errln!(
            "note: an earlier command was killed during a change, which is complete now. Passwords that it did not show are \
             lost: to make new archives: doorward ca renew NAME"
        ),
        Recovered::Discarded => {
            errln!(
                "note: an earlier command was killed before it had changed anything; its temporary files are removed"
            );
        }
    }
}
