//! Which route is meant.

use super::{Home, Homes, Joined, NotFound, Target};
use crate::bundle::BundleRoute;
use crate::model::names::{ServerName, printable};

/// The longest name that is repeated in a message, in characters.
const WANTED_MAX: usize = 253;

impl Homes {
    /// The route that is meant by its name, by `NAME.HOME`, or by a server name that leads to it.
    pub fn find(&self, wanted: &str) -> Result<Target, NotFound> {
        self.joined()?.find(wanted)
    }
}

/// A route that may be meant, and the server name to ask for, if it has one that can be dialled.
type Meant<'a> = (&'a Home, &'a BundleRoute, Option<ServerName>);

impl Joined {
    /// As [`Homes::find`].
    pub fn find(mut self, wanted: &str) -> Result<Target, NotFound> {
        match self.meant(wanted).as_slice() {
            [(home, route, Some(server_name))] => {
                let server_name = server_name.clone();
                Ok(Target { home: (*home).clone(), route: (*route).clone(), server_name })
            }
            [(_, route, None)] => {
                Err(NotFound::Pattern { route: route.name.to_string(), pattern: route.server_name.to_string() })
            }
            // It may have been in a file that is broken.
            [] if !self.broken.is_empty() => Err(self.broken.swap_remove(0).into()),
            [] if self.homes.is_empty() => Err(NotFound::NoHomes),
            [] => Err(NotFound::Unknown { wanted: printable(wanted, WANTED_MAX), known: self.known() }),
            several => {
                let choices = several.iter().map(|(home, route, _)| self.shortest(home, route)).collect();
                Err(NotFound::Ambiguous { wanted: printable(wanted, WANTED_MAX), choices })
            }
        }
    }

    /// Every route with its home.
    pub fn routes(&self) -> impl Iterator<Item = (&Home, &BundleRoute)> {
        self.homes.iter().flat_map(|home| home.bundle.routes.iter().map(move |route| (home, route)))
    }

    /// What may be meant. Each home is asked by itself, so that none can take over a name of another by a route that fits it better.
    fn meant(&self, wanted: &str) -> Vec<Meant<'_>> {
        let name = ServerName::parse(wanted).ok();
        let of = |home| name.as_ref().and_then(|name| by_server_name(home, name)).map(|found| vec![found]);
        self.homes.iter().flat_map(|home| of(home).unwrap_or_else(|| by_name(home, wanted))).collect()
    }

    /// What can be asked for: names that are not ambiguous.
    fn known(&self) -> Vec<String> {
        let mut known: Vec<String> = self.routes().map(|(home, route)| self.shortest(home, route)).collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// What means this route and no other: its name, with that of its home if need be, or its server name.
    pub fn shortest(&self, home: &Home, route: &BundleRoute) -> String {
        let qualified = qualified(home, route);
        let is_only = |name: &str| match self.meant(name).as_slice() {
            [(other, there, _)] => other.name == home.name && there.name == route.name,
            _ => false,
        };
        let names = [Some(route.name.as_str()), Some(qualified.as_str()), route.host().map(ServerName::as_str)];
        names.into_iter().flatten().find(|name| is_only(name)).map_or_else(|| qualified.clone(), str::to_owned)
    }
}

/// The route of this home that a server name leads to. As at the gate, the name itself goes before a pattern.
fn by_server_name<'a>(home: &'a Home, name: &ServerName) -> Option<Meant<'a>> {
    let answering = || home.bundle.routes.iter().filter(|route| route.answers_to(name));
    let route = answering().find(|route| route.host().is_some()).or_else(|| answering().next())?;
    Some((home, route, Some(name.clone())))
}

/// The routes of this home that are called so.
fn by_name<'a>(home: &'a Home, wanted: &str) -> Vec<Meant<'a>> {
    let called = |route: &&BundleRoute| {
        let rest = wanted.strip_prefix(route.name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.') == Some(home.name.as_str()))
    };
    let mut found: Vec<&BundleRoute> = Vec::new();
    for route in home.bundle.routes.iter().filter(called) {
        // A route with several server names is one: the first that can be dialled.
        match found.iter_mut().find(|there| there.name == route.name) {
            None => found.push(route),
            Some(there) if there.host().is_none() => *there = route,
            Some(_) => {}
        }
    }
    found.into_iter().map(|route| (home, route, route.host().cloned())).collect()
}

/// The name of a route with that of its home.
pub(in crate::connector) fn qualified(home: &Home, route: &BundleRoute) -> String {
    format!("{}.{}", route.name, home.name)
}
