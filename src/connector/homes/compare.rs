//! What joining a home again would change.

use std::fmt;

use super::{Home, Homes, HomesError};
use crate::bundle::{Bundle, Trust};
use crate::model::identity::Identity;
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
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older(end) => write!(f, "the certificate here is newer than the one in the file; it is valid until {}", date(*end)),
            Self::Device(name) => write!(f, "this user has joined it as {name}"),
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
            (Trust::Authorities(here), Trust::Authorities(there)) => there.iter().any(|one| here.contains(one)),
            (here, there) => here == there,
        };
        if !same_trust {
            return Some(Difference::Trust);
        }
        if self.bundle.device != new.device {
            return Some(Difference::Device(self.bundle.device.to_string()));
        }
        let (here, there) = (identity(&self.bundle)?, identity(new)?);
        (here.not_before > there.not_before).then_some(Difference::Older(here.not_after))
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
            own.any(|route| new.routes.iter().any(|other| other.server_name == route.server_name))
        };
        let mut sharing = joined.homes.iter().filter(shares);
        Ok(match (joined.homes.iter().any(|home| home.name == name), sharing.next(), sharing.next()) {
            (false, Some(home), None) => home.name.clone(),
            _ => name.to_owned(),
        })
    }
}

/// The certificate of the device.
pub fn identity(bundle: &Bundle) -> Option<Identity> {
    Identity::from_certificate(bundle.certificate(), false).ok()
}
