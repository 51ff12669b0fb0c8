//! What the kernel allows the gate since its start, as the gate itself can tell: for a reload that says what it lacks before the
//! kernel refuses it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::needs::{self, Needs};
use crate::config::checked::Backend;

/// Device and inode: what Landlock knows a file or folder by, whatever name it gets.
type Identity = (u64, u64);

/// The files and ports that are allowed. `None` where the kernel does not restrict them.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    reads: Option<Vec<Identity>>,
    connect: Option<BTreeSet<u16>>,
    bind: Option<BTreeSet<u16>>,
    /// Ports below this one can no longer be bound.
    first_port: u16,
    looks_up_names: bool,
    /// Which sockets can be made.
    sockets: Option<Sockets>,
}

/// What the kernel restricts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restricts {
    pub(super) files: bool,
    pub(super) ports: bool,
    pub(super) sockets: bool,
}

/// Sockets that can be made besides those of TCP.
#[derive(Clone, Copy, Debug)]
struct Sockets {
    unix_streams: bool,
    datagrams: bool,
}

impl Fence {
    /// For what `needs` were allowed, as far as the kernel restricts it. Ports below `first_port` need a privilege that is gone.
    pub(super) fn new(needs: &Needs, restricts: Restricts, first_port: u16) -> Self {
        let Restricts { files, ports, sockets } = restricts;
        Self {
            reads: files.then(|| needs.reads().iter().filter_map(|path| identity(path)).collect()),
            connect: ports.then(|| needs.connect_ports()),
            bind: ports.then(|| needs.bind_ports()),
            first_port,
            looks_up_names: needs.looks_up_names(),
            sockets: sockets
                .then(|| Sockets { unix_streams: needs.connects_unix_streams(), datagrams: needs.sends_datagrams() }),
        }
    }

    /// Whether a file may be read: it is allowed itself, or any folder that it is in. What does not exist is judged by its folders.
    pub(crate) fn may_read(&self, file: &Path) -> bool {
        let Some(allowed) = &self.reads else { return true };
        let Some(real) = real(file) else { return true };
        real.ancestors().filter_map(identity).any(|identity| allowed.contains(&identity))
    }

    /// What of these needs is not allowed, each with the key of the configuration and the reason. `is_bound` says which listeners
    /// are already there.
    pub(crate) fn outside(&self, needs: &Needs, is_bound: impl Fn(&str, SocketAddr) -> bool) -> Vec<(String, String)> {
        let mut outside = Vec::new();
        for (listener, address) in needs.listeners.iter().filter(|(name, address)| !is_bound(name, *address)) {
            let port = address.port();
            let mut refused = |why: &str| {
                let what = format!("the sandbox of the running gate {why}, which the address {address} needs");
                outside.push((format!("listener {listener:?}.address"), what));
            };
            if self.bind.as_ref().is_some_and(|allowed| !allowed.contains(&port)) {
                refused(&format!("does not allow it to bind TCP port {port}"));
            } else if (1..self.first_port).contains(&port) {
                refused(&format!("has no privilege left to bind port {port}"));
            }
        }
        for (route, backend) in &needs.backends {
            let mut refused = |why: String| {
                let what = format!("the sandbox of the running gate does not allow it to {why}, which {backend} needs");
                outside.push((format!("route {route:?}.backends"), what));
            };
            let port = needs::port(backend)
                .filter(|port| self.connect.as_ref().is_some_and(|allowed| !allowed.contains(port)));
            if let Some(port) = port {
                refused(format!("connect to TCP port {port}"));
            }
            match backend {
                Backend::Host(..) if self.looks_up_names => {}
                Backend::Host(..) if self.reads.is_some() => refused("read the files of the resolver".to_owned()),
                Backend::Host(..) if self.sockets.is_some() => refused("ask name servers".to_owned()),
                Backend::Unix(_) if self.sockets.is_some_and(|allowed| !allowed.unix_streams) => {
                    refused("connect to Unix sockets".to_owned());
                }
                _ => {}
            }
        }
        if self.sockets.is_some_and(|allowed| !allowed.datagrams) {
            outside.extend(needs.wakes.iter().map(|route| {
                let what = "the sandbox of the running gate does not allow it to send packets that wake a machine";
                (format!("route {route:?}.wake"), what.to_owned())
            }));
        }
        outside
    }
}

/// The path without links, as far as it exists.
fn real(file: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(file).ok()?;
    absolute.ancestors().find_map(|path| fs::canonicalize(path).ok())
}

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Restricts = Restricts { files: true, ports: true, sockets: true };
    const NONE: Restricts = Restricts { files: false, ports: false, sockets: false };

    fn needs(listener: SocketAddr, backends: &[Backend]) -> Needs {
        let backends = backends.iter().map(|backend| ("nas".to_owned(), backend.clone())).collect();
        Needs { listeners: vec![("public".to_owned(), listener)], backends, ..Needs::default() }
    }

    fn refused(fence: &Fence, needs: &Needs) -> Vec<String> {
        fence.outside(needs, |_, _| false).into_iter().map(|(key, what)| format!("{key}: {what}")).collect()
    }

    #[test]
    fn file_is_judged_by_its_real_folders_and_by_identity() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().join(name);
        for folder in ["inside/deep", "outside"] {
            fs::create_dir_all(at(folder)).expect("a folder");
        }
        for file in ["inside/a", "outside/b", "inside/deep/c"] {
            fs::write(at(file), "").expect("a file");
        }
        std::os::unix::fs::symlink(at("outside/b"), at("inside/link")).expect("a link");
        let allowed = Needs { files: [at("inside/a")].into(), ..Needs::default() };
        let fence = Fence::new(&allowed, ALL, 0);
        for (file, may) in [
            ("inside/a", true),
            ("inside/deep/c", true),
            ("inside/none", true),
            ("inside/link", false),
            ("outside/b", false),
        ] {
            assert_eq!(fence.may_read(&at(file)), may, "{file}");
        }
        // Another folder of the same name is not the one that was allowed.
        fs::rename(at("inside"), at("before")).expect("renamed");
        fs::create_dir(at("inside")).expect("a folder");
        fs::write(at("inside/a"), "").expect("a file");
        assert!(!fence.may_read(&at("inside/a")));
        assert!(fence.may_read(&at("before/a")));
        assert!(Fence::new(&allowed, NONE, 0).may_read(&at("outside/b")));
    }

    #[test]
    fn ports_outside_are_named_with_their_key() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let start = needs(address(8443), &[Backend::Address(address(80))]);
        let fence = Fence::new(&start, ALL, 1024);
        assert_eq!(refused(&fence, &start), Vec::<String>::new());
        let other = needs(address(8444), &[Backend::Address(address(81)), Backend::Host("nas".to_owned(), 80)]);
        let said = refused(&fence, &other);
        for (said, part) in said.iter().zip([
            "listener \"public\".address: the sandbox of the running gate does not allow it to bind TCP port 8444",
            "route \"nas\".backends: the sandbox of the running gate does not allow it to connect to TCP port 81",
            "route \"nas\".backends: the sandbox of the running gate does not allow it to read the files of the resolver",
        ]) {
            assert!(said.starts_with(part), "{said}");
        }
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(fence.outside(&needs(address(8444), &[]), |_, _| true), Vec::new(), "it is bound");

        // An allowed port is not enough where it takes a privilege.
        let low = needs(address(443), &[]);
        let said = refused(&Fence::new(&low, ALL, 1024), &low);
        assert!(
            said.iter().all(|said| said.contains("no privilege left to bind port 443")) && said.len() == 1,
            "{said:?}"
        );
        assert_eq!(refused(&Fence::new(&low, Restricts { ports: false, ..ALL }, 0), &low), Vec::<String>::new());
    }

    #[test]
    fn first_backend_of_another_kind_is_named() {
        let nas = Backend::Address(SocketAddr::from(([127, 0, 0, 1], 80)));
        let (unix, host) = (Backend::Unix("/run/app.sock".into()), Backend::Host("nas".to_owned(), 80));
        let listener = SocketAddr::from(([127, 0, 0, 1], 8443));
        let said = |start: &Backend, restricts, next: &Backend| {
            refused(
                &Fence::new(&needs(listener, std::slice::from_ref(start)), restricts, 0),
                &needs(listener, std::slice::from_ref(next)),
            )
        };
        let sockets = Restricts { sockets: true, ..NONE };
        for (start, next, restricts, part) in [
            (&nas, &unix, ALL, Some("connect to Unix sockets, which unix:/run/app.sock needs")),
            (&nas, &unix, sockets, Some("connect to Unix sockets")),
            (&nas, &unix, Restricts { sockets: false, ..ALL }, None),
            (&unix, &unix, ALL, None),
            (&host, &unix, ALL, None),
            (&nas, &host, sockets, Some("ask name servers, which nas:80 needs")),
            (&unix, &host, sockets, Some("ask name servers")),
            (&host, &host, sockets, None),
            (&nas, &host, NONE, None),
        ] {
            let said = said(start, restricts, next);
            assert_eq!(said.len(), usize::from(part.is_some()), "{said:?}");
            assert!(part.is_none_or(|part| said[0].contains(part)), "{said:?}");
        }
    }
}
