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

impl Joined {
    /// As [`Homes::find`].
    pub fn find(mut self, wanted: &str) -> Result<Target, NotFound> {
        let found = self.by_server_name(wanted).or_else(|| self.by_name(wanted));
        match found {
            Some(found) => found,
            // It may have been in a file that is broken.
            None if !self.broken.is_empty() => Err(self.broken.swap_remove(0).into()),
            None if self.homes.is_empty() => Err(NotFound::NoHomes),
            None => Err(NotFound::Unknown { wanted: printable(wanted, WANTED_MAX), known: self.known() }),
        }
    }

    /// Every route with its home.
    pub fn routes(&self) -> impl Iterator<Item = (&Home, &BundleRoute)> {
        self.homes.iter().flat_map(|home| home.bundle.routes.iter().map(move |route| (home, route)))
    }

    fn by_server_name(&self, wanted: &str) -> Option<Result<Target, NotFound>> {
        let name = ServerName::parse(wanted).ok()?;
        let answering = || self.routes().filter(|(_, route)| route.answers_to(&name));
        // As at the gate: the name itself goes before a pattern.
        let exact: Vec<_> = answering().filter(|(_, route)| route.host().is_some()).collect();
        let found = if exact.is_empty() { answering().collect() } else { exact };
        one(wanted, &found, |_| Some(name.clone()))
    }

    fn by_name(&self, wanted: &str) -> Option<Result<Target, NotFound>> {
        let called = |(home, route): &(&Home, &BundleRoute)| {
            route.name.as_str() == wanted
                || wanted.strip_prefix(route.name.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(&home.name)
        };
        let mut found: Vec<(&Home, &BundleRoute)> = Vec::new();
        for (home, route) in self.routes().filter(called) {
            // A route with several server names is one: the first that can be dialled.
            let other = found.iter_mut().find(|(other, there)| other.name == home.name && there.name == route.name);
            match other {
                None => found.push((home, route)),
                Some((_, there)) if there.host().is_none() => *there = route,
                Some(_) => {}
            }
        }
        one(wanted, &found, |route| route.host().cloned())
    }

    /// What can be asked for: names that are not ambiguous.
    fn known(&self) -> Vec<String> {
        let mut known: Vec<String> = self.routes().map(|(home, route)| self.shortest(home, route)).collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// The route's name, with that of its home if other homes have the same.
    pub fn shortest(&self, home: &Home, route: &BundleRoute) -> String {
        let elsewhere = self.routes().any(|(other, there)| there.name == route.name && other.name != home.name);
        if elsewhere { qualified(home, route) } else { route.name.to_string() }
    }
}

fn qualified(home: &Home, route: &BundleRoute) -> String {
    format!("{}.{}", route.name, home.name)
}

/// The only one of `found`; `None` if there is none.
fn one(
    wanted: &str,
    found: &[(&Home, &BundleRoute)],
    server_name: impl Fn(&BundleRoute) -> Option<ServerName>,
) -> Option<Result<Target, NotFound>> {
    let wanted = printable(wanted, WANTED_MAX);
    Some(match found {
        [] => return None,
        [(home, route)] => match server_name(route) {
            Some(server_name) => Ok(Target { home: (*home).clone(), route: (*route).clone(), server_name }),
            None => Err(NotFound::Pattern { route: route.name.to_string(), pattern: route.server_name.to_string() }),
        },
        several => {
            let choices = several.iter().map(|(home, route)| qualified(home, route)).collect();
            Err(NotFound::Ambiguous { wanted, choices })
        }
    })
}
