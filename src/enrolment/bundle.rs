//! The file for a computer that runs this program: see [`crate::bundle`].

use rustls::pki_types::CertificateDer;

use crate::bundle::{Bundle, BundleKey, BundleRoute, Trust};
use crate::model::device_name::DeviceName;
use crate::model::names::{ServerName, ServerNamePattern};
use crate::pki::{self, Password, keys};

use super::{Device, Gate, ServerTrust};

/// What `device` needs to reach this gate; `None` if that is not known, or no route admits the device.
pub(super) fn bundle(gate: &Gate, device: &Device, password: &Password) -> Result<Option<Bundle>, pki::Error> {
    let Some(bundle) = bundle_without_key(gate, &device.name, device.certificate.clone()) else { return Ok(None) };
    let key = rcgen::KeyPair::try_from(&device.key)?;
    let key = BundleKey::Encrypted(keys::encrypt(&key, password.as_str())?.trim().to_owned());
    Ok(Some(Bundle { key, ..bundle }))
}

/// The same for a device that has made its key itself.
pub fn bundle_without_key(gate: &Gate, device: &DeviceName, certificate: CertificateDer<'static>) -> Option<Bundle> {
    let home = gate.home.clone()?;
    let routes: Vec<BundleRoute> = gate
        .services
        .iter()
        // A name that is not known cannot be asked for.
        .filter(|service| service.admitted && service.server_name != ServerNamePattern::Default)
        .map(|service| BundleRoute {
            name: service.route.clone(),
            kind: service.kind,
            server_name: service.server_name.clone(),
        })
        .collect();
    if routes.is_empty() {
        return None;
    }
    Some(Bundle {
        home,
        device: device.clone(),
        address: None,
        port: gate.port,
        routes,
        trust: match &gate.trust {
            ServerTrust::OwnAuthority(root) => Trust::Authorities(vec![root.clone()]),
            ServerTrust::Public => Trust::Public,
        },
        chain: vec![certificate],
        key: BundleKey::OnDevice,
        renewal: gate.renewal.clone(),
    })
}

/// What a home with these names is called: the domain that they share, else the first of them. The pattern for every name says
/// nothing about it.
pub fn home_of<'a>(names: impl IntoIterator<Item = &'a ServerNamePattern>) -> Option<ServerName> {
    let mut names = names.into_iter().filter_map(|name| match name {
        ServerNamePattern::Exact(name) | ServerNamePattern::Wildcard(name) => Some(name),
        ServerNamePattern::Default => None,
    });
    let first = names.next()?;
    let mut shared: Vec<&str> = first.as_str().rsplit('.').collect();
    for name in names {
        let same = shared.iter().zip(name.as_str().rsplit('.')).take_while(|(one, other)| **one == *other).count();
        shared.truncate(same);
    }
    shared.reverse();
    // One label is a registry's, not a home's.
    let domain = if shared.len() > 1 { ServerName::parse(&shared.join(".")).ok() } else { None };
    Some(domain.unwrap_or_else(|| first.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_called_as_its_names_have_it() {
        for (names, home) in [
            (&["nas.home.example", "ssh.home.example"][..], Some("home.example")),
            (&["nas.home.example", "*.lab.home.example", "*"], Some("home.example")),
            (&["alice.duckdns.org"], Some("alice.duckdns.org")),
            (&["home.example", "nas.home.example"], Some("home.example")),
            (&["nas.one.example", "nas.two.example"], Some("nas.one.example")),
            (&["xhome.example", "home.example"], Some("xhome.example")),
            (&["*.home.example"], Some("home.example")),
            (&["nas.lan", "ssh.lan"], Some("nas.lan")),
            (&["*"], None),
            (&[], None),
        ] {
            let names: Vec<_> = names.iter().map(|name| ServerNamePattern::parse(name).expect("a name")).collect();
            assert_eq!(home_of(&names).as_ref().map(ServerName::as_str), home, "{names:?}");
        }
    }
}
