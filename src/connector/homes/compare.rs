//! What joining a home again would change.

use std::fmt;

use super::find::qualified;
use super::{Home, Homes, HomesError};
use crate::bundle::{Bundle, BundleRoute, Trust};
use crate::model::identity::Identity;
use crate::model::names::{ServerName, ServerNamePattern};
use crate::model::text::date;

/// A reason not to replace a home by what a file says, unless the user insists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The certificate here was issued later, as after a renewal: when it expires.
    Older(i64),
    /// It is for another device: the one here.
    Device(String),
    /// Others vouch for the gate.
    Trust,
    /// Its gate has a public certificate, and a name that is none of this home: that one.
    Elsewhere(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older(end) => write!(f, "the certificate here is newer than the one in the file; it is valid until {}", date(*end)),
            Self::Device(name) => write!(f, "this user has joined it as {name}"),
            Self::Elsewhere(name) => write!(f, "the file leads to {name}, which is no name of the home here"),
            Self::Trust => f.write_str(
                "the file names another authority for the gate's certificate than the one here: it may be another home with this name",
            ),
        }
    }
}

impl Home {
    /// Why `new` should not replace this home, unless the user insists: a stranger's file must not take over its name.
    pub fn difference(&self, new: &Bundle) -> Option<Difference> {
        let same_trust = match (&self.bundle.trust, &new.trust) {
            // Any of them may vouch for a gate, and those of a home are no secret: a stranger can name them beside one of its own.
            (Trust::Authorities(here), Trust::Authorities(there)) => there.iter().all(|one| here.contains(one)),
            (here, there) => here == there,
        };
        if !same_trust {
            return Some(Difference::Trust);
        }
        // A public authority vouches for every gate, for the names of its owner alone.
        if new.trust == Trust::Public
            && let Some(name) = names(new).find(|name| !self.is_own(name))
        {
            return Some(Difference::Elsewhere(name.to_owned()));
        }
        if self.bundle.device != new.device {
            return Some(Difference::Device(self.bundle.device.to_string()));
        }
        let (here, there) = (identity(&self.bundle)?, identity(new)?);
        (here.not_before > there.not_before).then_some(Difference::Older(here.not_after))
    }

    /// Whether a name is the home's domain, one of its server names, or below one of these.
    fn is_own(&self, name: &str) -> bool {
        let mut own = names(&self.bundle).chain([self.bundle.home.as_str()]);
        own.any(|own| name.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    }
}

impl Homes {
    /// The home that a file is for, if it was joined: the one of this name, or the only one with the same server names, which the
    /// owner may call by another name by now.
    pub fn joined_as(&self, new: &Bundle) -> Result<String, HomesError> {
        let joined = self.joined()?;
        let name = new.home.as_str();
        let shares = |home: &&Home| {
            let mut own = home.bundle.routes.iter();
            own.any(|route| new.routes.iter().any(|other| may_be_meant(home, route, other)))
        };
        let mut sharing = joined.homes.iter().filter(shares);
        Ok(match (joined.homes.iter().any(|home| home.name == name), sharing.next(), sharing.next()) {
            (false, Some(home), None) => home.name.clone(),
            _ => name.to_owned(),
        })
    }
}

/// Whether a name that leads to `other` may mean `route` of this home.
fn may_be_meant(home: &Home, route: &BundleRoute, other: &BundleRoute) -> bool {
    let answers = |one: &BundleRoute, name: &BundleRoute| name.host().is_some_and(|name| one.answers_to(name));
    route.server_name == other.server_name
        || answers(route, other)
        || answers(other, route)
        || other.host().is_some_and(|name| name.as_str() == qualified(home, route))
}

/// The server names of a file, patterns without their star.
fn names(bundle: &Bundle) -> impl Iterator<Item = &str> {
    let routes = bundle.routes.iter().filter_map(|route| match &route.server_name {
        ServerNamePattern::Exact(name) | ServerNamePattern::Wildcard(name) => Some(name),
        ServerNamePattern::Default => None,
    });
    routes.chain(&bundle.renewal).map(ServerName::as_str)
}

/// The certificate of the device.
pub fn identity(bundle: &Bundle) -> Option<Identity> {
    Identity::from_certificate(bundle.certificate(), false).ok()
}
