//! The homes that a connector knows, read again when their files have changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::homes::{Home, Homes, HomesError, Joined, NotFound, Target, qualified, read_bundle};
use super::remote::{Remote, Unusable, tls_of};
use super::tls::Tls;
use crate::bundle::{Bundle, BundleKey, BundleRoute};
use crate::model::service::ServiceKind;

/// The homes of a user.
#[derive(Debug)]
pub struct Source {
    files: Files,
    state: Mutex<State>,
    used: Arc<Notify>,
}

#[derive(Debug)]
enum Files {
    /// One file of a device.
    One(PathBuf),
    /// All that were joined.
    Joined(Homes),
}

#[derive(Debug)]
struct State {
    stamp: Stamp,
    homes: Vec<Home>,
    /// The settings that were used, and whose they are: they keep what can be resumed.
    tls: Vec<(Bundle, Tls)>,
}

/// What changes when a file does.
type Stamp = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// A route of one home, whatever other homes are joined or have routes of the same name.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The home, unless the route is that of a file.
    home: Option<String>,
    /// What was asked for.
    wanted: String,
    /// What the user calls it.
    pub shown: String,
    /// The same, whatever is joined later: a route by its name has that of its home.
    pub lasting: String,
    /// Its kind.
    pub kind: ServiceKind,
}

/// What has changed since the last look.
#[derive(Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// The files were read again.
    Reloaded,
    /// Some cannot be used: what was read of them before stays in use.
    Kept(HomesError),
}

/// The homes or a route cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The files.
    #[error(transparent)]
    Homes(#[from] HomesError),
    /// The route.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The device.
    #[error("{home}: {error}")]
    Unusable {
        /// The home.
        home: String,
        /// Why.
        error: Unusable,
    },
}

impl Source {
    /// The homes that were joined.
    pub fn of_homes(homes: Homes) -> Result<Self, SourceError> {
        Self::open(Files::Joined(homes))
    }

    /// One file of a device, whose key is not encrypted.
    pub fn of_file(file: &Path) -> Result<Self, SourceError> {
        Self::open(Files::One(file.to_owned()))
    }

    fn open(files: Files) -> Result<Self, SourceError> {
        let stamp = files.stamp();
        let homes = files.read()?.homes;
        Ok(Self { files, state: Mutex::new(State { stamp, homes, tls: Vec::new() }), used: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is notified when a route is used.
    pub fn used(&self) -> Arc<Notify> {
        Arc::clone(&self.used)
    }

    /// Looks whether the files have changed, and reads them again if so: before a route is used.
    pub fn refresh(&self) -> Change {
        self.used.notify_one();
        let stamp = self.files.stamp();
        let mut state = self.state();
        if state.stamp == stamp {
            return Change::None;
        }
        // Said once: they are read again once they change again.
        state.stamp = stamp;
        let Joined { mut homes, mut broken } = match self.files.read() {
            Ok(joined) => joined,
            Err(error) => return Change::Kept(error),
        };
        if broken.is_empty() {
            state.homes = homes;
            return Change::Reloaded;
        }
        let kept = state.homes.iter().filter(|old| old.file.exists() && homes.iter().all(|home| home.file != old.file));
        homes.extend(kept.cloned().collect::<Vec<_>>());
        state.homes = homes;
        Change::Kept(broken.swap_remove(0))
    }

    /// The homes, and what is wrong with the files of others.
    fn joined(&self) -> Joined {
        let homes = self.state().homes.clone();
        // What cannot be read is asked for only if the route is not found.
        Joined { homes, broken: Vec::new() }
    }

    /// All routes that have a server name of their own: the name to ask for each, and its route.
    pub fn routes(&self) -> Result<Vec<(String, BundleRoute)>, SourceError> {
        let joined = self.joined();
        if joined.homes.is_empty() {
            let broken = self.files.read()?.broken.into_iter().next();
            return Err(broken.map_or_else(|| NotFound::NoHomes.into(), SourceError::from));
        }
        let mut routes: Vec<(String, BundleRoute)> = Vec::new();
        for (home, route) in joined.routes().filter(|(_, route)| route.host().is_some()) {
            let name = joined.shortest(home, route);
            if !routes.iter().any(|(other, _)| *other == name) {
                routes.push((name, route.clone()));
            }
        }
        Ok(routes)
    }

    /// The route that is meant by a name, `route.home`, or a server name.
    pub fn find(&self, wanted: &str) -> Result<Target, SourceError> {
        match self.joined().find(wanted) {
            Ok(target) => Ok(target),
            // It may be in a file that cannot be read.
            Err(error) => match self.files.read() {
                Ok(Joined { mut broken, .. }) if !broken.is_empty() => Err(broken.swap_remove(0).into()),
                _ => Err(error.into()),
            },
        }
    }

    /// The route that is meant now, for as long as this program runs.
    pub fn pin(&self, wanted: &str) -> Result<Pinned, SourceError> {
        let Target { home, route, .. } = self.find(wanted)?;
        let qualified = qualified(&home, &route);
        let shown = if wanted == qualified { self.joined().shortest(&home, &route) } else { wanted.to_owned() };
        let is_joined = matches!(self.files, Files::Joined(_));
        let lasting = if is_joined && wanted == route.name.as_str() { qualified } else { wanted.to_owned() };
        Ok(Pinned { home: is_joined.then_some(home.name), wanted: wanted.to_owned(), shown, lasting, kind: route.kind })
    }

    /// The same, to be connected to.
    pub fn remote(&self, pinned: &Pinned) -> Result<Remote, SourceError> {
        let Some(name) = &pinned.home else { return self.remote_of(self.find(&pinned.wanted)?) };
        let mut joined = self.joined();
        joined.homes.retain(|home| home.name == *name);
        if joined.homes.is_empty() {
            return Err(HomesError::Unknown(name.clone()).into());
        }
        self.remote_of(joined.find(&pinned.wanted)?)
    }

    fn remote_of(&self, target: Target) -> Result<Remote, SourceError> {
        let unusable = |error| SourceError::Unusable { home: target.home.name.clone(), error };
        let tls = self.tls(&target.home.bundle).map_err(unusable)?;
        Remote::of(&target, tls).map_err(unusable)
    }

    /// The settings for a device: one for all connections, for as long as its files are the same.
    fn tls(&self, bundle: &Bundle) -> Result<Tls, Unusable> {
        let same = |old: &Bundle| old.key == bundle.key && old.chain == bundle.chain && old.trust == bundle.trust;
        let mut state = self.state();
        if let Some((_, tls)) = state.tls.iter().find(|(old, _)| same(old)) {
            return Ok(tls.clone());
        }
        let tls = tls_of(bundle)?;
        // Those of files that were replaced.
        let State { homes, tls: known, .. } = &mut *state;
        known.retain(|(old, _)| homes.iter().any(|home| home.bundle == *old));
        known.push((bundle.clone(), tls.clone()));
        Ok(tls)
    }
}

impl Files {
    fn read(&self) -> Result<Joined, HomesError> {
        match self {
            Self::Joined(homes) => homes.joined(),
            Self::One(file) => {
                let bundle = read_bundle(file)?;
                // The library of a token is run, and a file may come from anywhere: it is named by the user alone.
                if let BundleKey::Token(_) = bundle.key {
                    return Err(HomesError::TokenOfFile { path: file.clone() });
                }
                let home = Home { name: bundle.home.to_string(), bundle, file: file.clone() };
                Ok(Joined { homes: vec![home], broken: Vec::new() })
            }
        }
    }

    fn stamp(&self) -> Stamp {
        let mut stamp = Stamp::new();
        let mut note = |path: PathBuf| {
            if let Ok(metadata) = fs::metadata(&path) {
                stamp.insert(path, (metadata.modified().ok(), metadata.len()));
            }
        };
        match self {
            Self::One(file) => note(file.clone()),
            Self::Joined(homes) => {
                for entry in fs::read_dir(homes.folder()).into_iter().flatten().flatten() {
                    note(entry.path());
                }
            }
        }
        stamp
    }
}
