//! Changes by DNS itself (RFC 2136), with BIND and Knot.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use tokio::time::Instant;

use crate::network::{FIRST, SECOND, alone};
use crate::server::{BOTH, Kind, PORT, Server};
use crate::{NAME, ONE, TWO, WILDCARD, block_on, publisher, update_keys};

/// A server of its own, and `servers` that name it, too: nothing here asks this machine's resolver.
fn primary(kind: Kind) -> (Server, String) {
    let server = Server::primary(kind, FIRST);
    let keys = format!("{}, servers = [\"{}\"]", update_keys(&server, &server.key_file), server.address);
    (server, keys)
}

/// The error of a change that is refused.
fn refused(keys: &str, name: &str) -> String {
    block_on(publisher(keys).publish(name, ONE)).expect_err("it is refused")
}

#[test]
fn name_and_its_wildcard_have_a_value_each() {
    alone(|| {
        for kind in BOTH {
            let (server, keys) = primary(kind);
            let publisher = publisher(&keys);
            block_on(async {
                publisher.publish(NAME, ONE).await.unwrap();
                publisher.publish(WILDCARD, TWO).await.unwrap();
                // A killed process does so when it goes on.
                publisher.publish(NAME, ONE).await.unwrap();
                publisher.wait_until_visible(NAME, ONE).await.unwrap();
                publisher.wait_until_visible(WILDCARD, TWO).await.unwrap();
            });
            assert_eq!(server.texts(NAME), [TWO, ONE], "{kind:?}");
            block_on(publisher.remove(NAME, ONE)).unwrap();
            assert_eq!(server.texts(NAME), [TWO], "{kind:?}");
            // What is gone already is removed.
            block_on(publisher.remove(NAME, ONE)).unwrap();
            block_on(publisher.remove(WILDCARD, TWO)).unwrap();
            assert!(server.texts(NAME).is_empty(), "{kind:?}");
        }
    });
}

#[test]
fn key_with_another_secret_is_named_and_not_shown() {
    alone(|| {
        for kind in BOTH {
            let (server, _) = primary(kind);
            let file = server.other_key();
            let error = refused(&format!("{}, servers = [\"{}\"]", update_keys(&server, &file), server.address), NAME);
            assert!(error.contains("knows the key \"doorward\" with another secret (BADSIG)"), "{kind:?}: {error}");
            let text = std::fs::read_to_string(file).unwrap();
            let secret = text.split_once("secret \"").unwrap().1.split('"').next().unwrap();
            assert!(secret.len() > 20 && !error.contains(secret), "{kind:?}: {error}");
        }
    });
}

#[test]
fn key_that_the_server_does_not_have_is_named() {
    alone(|| {
        for kind in BOTH {
            let (server, _) = primary(kind);
            let text = std::fs::read_to_string(server.other_key()).unwrap().replace("doorward", "stranger");
            let file = server.file("stranger.key");
            std::fs::write(&file, text).unwrap();
            let error = refused(&format!("{}, servers = [\"{}\"]", update_keys(&server, &file), server.address), NAME);
            assert!(
                error.contains("does not know the key \"stranger\" for hmac-sha256, or does not let it"),
                "{kind:?}: {error}"
            );
        }
    });
}

#[test]
fn record_that_the_key_may_not_change_is_refused() {
    alone(|| {
        for kind in BOTH {
            let (server, keys) = primary(kind);
            let error = refused(&keys, "other.home.example");
            assert!(
                match kind {
                    Kind::Bind => error.contains(
                        "does not let the key \"doorward\" change TXT records of the zone home.example (REFUSED)",
                    ),
                    // Knot does not tell the two apart.
                    Kind::Knot =>
                        error.contains("or does not let it change TXT records of the zone home.example (BADKEY)"),
                },
                "{kind:?}: {error}"
            );
            assert!(server.texts("other.home.example").is_empty(), "{kind:?}");
        }
    });
}

#[test]
fn server_without_the_zone_is_named() {
    alone(|| {
        for kind in BOTH {
            let (server, keys) = primary(kind);
            // Aliases are looked for at this machine's resolver otherwise, which this test must not ask.
            let error = refused(&keys, "nas.elsewhere.example");
            assert!(error.contains(&server.address.to_string()), "{kind:?}: {error}");
            assert!(error.contains("REFUSED"), "{kind:?}: {error}");
        }
    });
}

#[test]
fn server_that_hangs_is_given_up() {
    alone(|| {
        let (server, _) = primary(Kind::Bind);
        let host = SECOND;
        // It takes what comes, and never answers.
        let udp = UdpSocket::bind((host, PORT)).unwrap();
        let _tcp = TcpListener::bind((host, PORT)).unwrap();
        let hanging = SocketAddr::from((host, PORT));
        let keys = format!(
            "provider = \"rfc2136\", server = \"{hanging}\", key_file = \"{}\", servers = [\"{}\"]",
            server.key_file.display(),
            server.address
        );
        let started = Instant::now();
        let error = refused(&keys, NAME);
        assert!(
            error.contains(&format!("the DNS server {hanging} is not reached: no answer within 5 seconds")),
            "{error}"
        );
        assert!(started.elapsed().as_secs() < 80, "{:?}", started.elapsed());
        drop(udp);
    });
}

#[test]
fn server_that_is_starting_is_waited_for() {
    alone(|| {
        for kind in BOTH {
            let (mut server, keys) = primary(kind);
            let publisher = publisher(&keys);
            // The aliases are looked for first, and need a server that answers.
            block_on(publisher.publish(NAME, ONE)).unwrap();
            server.stop();
            let keys = keys.replace("servers = [", "propagation = \"60s\", servers = [");
            let waiting = crate::publisher(&keys);
            block_on(async {
                let wait = tokio::spawn(async move { waiting.wait_until_visible(NAME, ONE).await });
                let server = tokio::task::spawn_blocking(move || {
                    server.start();
                    server
                });
                let server = server.await.unwrap();
                // It has kept what was published.
                wait.await.unwrap().unwrap();
                drop(server);
            });
        }
    });
}

#[test]
fn alias_leads_to_the_zone_that_takes_changes() {
    alone(|| {
        let host = FIRST;
        let alias = "_acme-challenge.photos CNAME _acme-challenge.nas";
        let server = Server::with(Kind::Bind, std::net::SocketAddrV4::new(host, PORT), &[alias]);
        let keys = format!("{}, servers = [\"{}\"]", update_keys(&server, &server.key_file), server.address);
        let publisher = publisher(&keys);
        block_on(async {
            publisher.publish("photos.home.example", ONE).await.unwrap();
            publisher.wait_until_visible("photos.home.example", ONE).await.unwrap();
        });
        assert_eq!(server.texts(NAME), [ONE]);
        block_on(publisher.remove("photos.home.example", ONE)).unwrap();
        assert!(server.texts(NAME).is_empty());
    });
}
