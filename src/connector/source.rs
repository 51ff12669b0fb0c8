//! The homes that a long-running connector knows, read again when their files have changed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::homes::Homes;
use super::remote::{Remote, tls_of};
use super::tls::Tls;
use crate::bundle::{BYTES_MAX, Bundle, BundleRoute};
use crate::model::names::ServerName;

/// Reads all homes, or says why that cannot be done.
pub type Load = Box<dyn Fn() -> Result<Vec<Bundle>, String> + Send + Sync>;

/// The homes of a user.
pub struct Source {
    load: Load,
    /// The files that are read, and folders of such files.
    paths: Vec<PathBuf>,
    state: Mutex<State>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("paths", &self.paths).finish_non_exhaustive()
    }
}

struct State {
    stamp: Stamp,
    homes: Vec<Home>,
}

#[derive(Clone)]
struct Home {
    bundle: Bundle,
    tls: Tls,
}

/// What changes when a file does.
type Stamp = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// What has changed since the last look.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The files were read again.
    Reloaded,
    /// They cannot be used: what was read before stays in use.
    Kept(String),
}

/// Why a route was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFound {
    /// No home was joined.
    #[error("this device has not joined a home\n  take the file that its owner gave you: doorward join FILE")]
    NoHome,
    /// None of this name.
    #[error("there is no route {asked:?}\n  there are: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// The routes that there are.
        known: Vec<String>,
    },
    /// Several homes have it.
    #[error("several homes have a route {asked:?}\n  say which: {}", choices.join(", "))]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// The names that tell them apart.
        choices: Vec<String>,
    },
    /// A route that has no server name of its own.
    #[error("the route {route} takes any name below {domain}\n  give the whole name")]
    Wildcard {
        /// The route.
        route: String,
        /// Its domain.
        domain: String,
    },
    /// Found, and of no use.
    #[error("{0}")]
    Unusable(String),
}

impl Source {
    /// Reads the homes for the first time. `paths` are what is looked at for changes.
    pub fn open(load: Load, paths: Vec<PathBuf>) -> Result<Self, String> {
        let stamp = stamp(&paths);
        let homes = homes(load()?, &[])?;
        Ok(Self { load, paths, state: Mutex::new(State { stamp, homes }) })
    }

    /// The homes that were joined. One that cannot be read does not keep the others from being used.
    pub fn of_homes(homes: Homes) -> Result<Self, String> {
        let folder = homes.folder().to_owned();
        let load = move || {
            let joined = homes.joined().map_err(|error| error.to_string())?;
            match joined.broken.first() {
                Some(error) if joined.homes.is_empty() => Err(error.to_string()),
                _ => Ok(joined.homes.into_iter().map(|home| home.bundle).collect()),
            }
        };
        Self::open(Box::new(load), vec![folder])
    }

    /// One file of a device, whose key is not encrypted.
    pub fn of_file(file: &Path) -> Result<Self, String> {
        let path = file.to_owned();
        let load = move || read(&path).map(|bundle| vec![bundle]);
        Self::open(Box::new(load), vec![file.to_owned()])
    }

    /// Looks whether the files have changed, and reads them again if so.
    pub fn refresh(&self) -> Change {
        let stamp = stamp(&self.paths);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stamp == stamp {
            return Change::None;
        }
        // Said once, and tried again once the files change again.
        state.stamp = stamp;
        match (self.load)().and_then(|bundles| homes(bundles, &state.homes)) {
            Ok(homes) => {
                state.homes = homes;
                Change::Reloaded
            }
            Err(error) => Change::Kept(error),
        }
    }

    /// All routes that have a server name of their own: the name to ask for each, and its route.
    pub fn routes(&self) -> Vec<(String, BundleRoute)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes: Vec<(String, BundleRoute)> = Vec::new();
        for home in &state.homes {
            for route in home.bundle.routes.iter().filter(|route| route.host().is_some()) {
                let several = state.homes.len() > 1;
                let name =
                    if several { format!("{}.{}", route.name, home.bundle.home) } else { route.name.to_string() };
                if !routes.iter().any(|(other, _)| *other == name) {
                    routes.push((name, route.clone()));
                }
            }
        }
        routes
    }

    /// The route that is meant by a name, `route.home`, or a server name.
    pub fn find(&self, asked: &str) -> Result<Remote, NotFound> {
        let homes = self.state.lock().unwrap_or_else(PoisonError::into_inner).homes.clone();
        if homes.is_empty() {
            return Err(NotFound::NoHome);
        }
        let by_name = |home: &Home, route: &BundleRoute| {
            asked == route.name.as_str() || asked == format!("{}.{}", route.name, home.bundle.home)
        };
        let server_name = ServerName::parse(asked).ok();
        let by_server_name = |route: &BundleRoute| server_name.as_ref().is_some_and(|name| route.answers_to(name));
        let mut found: Vec<(&Home, &BundleRoute, Option<&ServerName>)> = Vec::new();
        for home in &homes {
            let routes = &home.bundle.routes;
            // A server name is exact: it is what the gate is asked for.
            if let Some(route) = routes.iter().find(|route| by_server_name(route)) {
                found.push((home, route, server_name.as_ref()));
            } else if let Some(route) = routes.iter().find(|route| by_name(home, route) && route.host().is_some()) {
                found.push((home, route, route.host()));
            } else if let Some(route) = routes.iter().find(|route| by_name(home, route)) {
                found.push((home, route, None));
            }
        }
        let name = |(home, route, _): &(&Home, &BundleRoute, Option<&ServerName>)| {
            format!("{}.{}", route.name, home.bundle.home)
        };
        match found.as_slice() {
            [] => {
                let known = homes.iter().flat_map(|home| home.bundle.routes.iter().map(|route| route.name.to_string()));
                let mut known: Vec<String> = known.collect();
                known.dedup();
                Err(NotFound::Unknown { asked: asked.to_owned(), known })
            }
            [(home, route, Some(server_name))] => Remote::of(&home.bundle, route, server_name, home.tls.clone())
                .map_err(|error| NotFound::Unusable(error.to_string())),
            [(_, route, None)] => Err(NotFound::Wildcard {
                route: route.name.to_string(),
                domain: route.server_name.to_string().trim_start_matches("*.").to_owned(),
            }),
            several => {
                Err(NotFound::Ambiguous { asked: asked.to_owned(), choices: several.iter().map(name).collect() })
            }
        }
    }
}

/// The settings of each home; those of one that is as before are kept, with what they resume.
fn homes(bundles: Vec<Bundle>, before: &[Home]) -> Result<Vec<Home>, String> {
    let home = |bundle: Bundle| {
        let same = |home: &&Home| {
            let old = &home.bundle;
            old.key == bundle.key && old.chain == bundle.chain && old.trust == bundle.trust
        };
        let tls = match before.iter().find(same) {
            Some(home) => home.tls.clone(),
            None => tls_of(&bundle).map_err(|error| format!("{}: {error}", bundle.home))?,
        };
        Ok(Home { bundle, tls })
    };
    bundles.into_iter().map(home).collect()
}

fn read(file: &Path) -> Result<Bundle, String> {
    use std::io::Read as _;
    let failed = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
    let opened = fs::File::open(file).map_err(|error| failed(&error))?;
    let mut text = String::new();
    // One byte more than it may have, so that it is seen.
    let most = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    opened.take(most).read_to_string(&mut text).map_err(|error| failed(&error))?;
    Bundle::parse(&text).map_err(|error| failed(&error))
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    let mut stamp = Stamp::new();
    let mut note = |path: PathBuf| {
        if let Ok(metadata) = fs::metadata(&path) {
            stamp.insert(path, (metadata.modified().ok(), metadata.len()));
        }
    };
    for path in paths {
        note(path.clone());
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            note(entry.path());
        }
    }
    stamp
}
