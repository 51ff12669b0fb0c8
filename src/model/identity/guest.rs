//! Guest passes: certificates that name the routes they are for.

use std::fmt;

use crate::model::names::Name;

/// The scheme of the URIs that name the routes. Other programs match such a URI with nothing, and ignore it.
const SCHEME: &str = "doorward-route:";

/// The routes that a certificate is limited to. It takes away only: `allow` of a route must admit the device as well.
///
/// Each route is a URI among the alternative names of the certificate, as in `doorward-route:photos`. The authority signs them,
/// so that a guest cannot leave one out, and a route that is not named refuses the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPass {
    /// As they are written: what is not the name of a route admits to none.
    routes: Vec<Box<str>>,
}

impl GuestPass {
    /// For these routes.
    pub fn new<'a>(routes: impl IntoIterator<Item = &'a Name>) -> Self {
        Self { routes: routes.into_iter().map(|route| route.as_str().into()).collect() }
    }

    /// The pass that these names of routes, from the inventory, are for; none if there are none.
    pub fn of_names(routes: &[String]) -> Option<Self> {
        let routes: Vec<Box<str>> = routes.iter().map(|route| route.as_str().into()).collect();
        (!routes.is_empty()).then_some(Self { routes })
    }

    /// Whether it is for this route.
    pub fn covers(&self, route: &Name) -> bool {
        self.routes.iter().any(|own| **own == *route.as_str())
    }

    /// The names of the routes.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|route| &**route)
    }

    /// The URIs for a certificate.
    pub fn uris(&self) -> impl Iterator<Item = String> {
        self.routes().map(|route| format!("{SCHEME}{route}"))
    }

    /// The URIs of a certificate without those that name routes, which make up the pass. Schemes are compared without regard to
    /// case (RFC 3986 section 3.1).
    pub(super) fn take_from(uris: Vec<String>) -> (Vec<String>, Option<Self>) {
        let (mut others, mut routes) = (Vec::new(), Vec::new());
        for uri in uris {
            match uri.split_at_checked(SCHEME.len()) {
                Some((scheme, route)) if scheme.eq_ignore_ascii_case(SCHEME) => routes.push(route.into()),
                _ => others.push(uri),
            }
        }
        let pass = if routes.is_empty() { None } else { Some(Self { routes }) };
        (others, pass)
    }
}

impl fmt::Display for GuestPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, route) in self.routes().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(route)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[test]
    fn pass_is_read_back_from_its_uris_and_covers_its_routes_only() {
        let pass = GuestPass::new(&[name("photos"), name("music")]);
        assert_eq!(pass.to_string(), "photos, music");
        let uris = ["spiffe://home.example/x".to_owned()].into_iter().chain(pass.uris()).collect();
        let (others, read) = GuestPass::take_from(uris);
        assert_eq!((others, read.as_ref()), (vec!["spiffe://home.example/x".to_owned()], Some(&pass)));
        assert!(pass.covers(&name("photos")) && pass.covers(&name("music")));
        assert!(!pass.covers(&name("Photos")) && !pass.covers(&name("photo")) && !pass.covers(&name("ssh")));
    }

    #[test]
    fn uri_without_a_valid_route_is_for_no_route() {
        for uri in ["doorward-route:", "DOORWARD-route:no such route", "doorward-route:*"] {
            let (others, pass) = GuestPass::take_from(vec![uri.to_owned()]);
            let pass = pass.expect("a pass");
            assert!(others.is_empty() && !pass.covers(&name("ssh")), "{uri}");
        }
        assert_eq!(GuestPass::take_from(vec!["doorward:ssh".to_owned()]).1, None);
        assert_eq!(GuestPass::of_names(&[]), None);
    }
}
