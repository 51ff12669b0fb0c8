//! A record counts when every server shows it.

use crate::network::{FIRST, SECOND, alone};
use crate::server::{BOTH, Kind, Server};
use crate::{NAME, ONE, TWO, block_on, publisher, update_keys};

#[test]
fn secondary_that_lags_behind_is_named_and_waited_for() {
    alone(|| {
        for kind in BOTH {
            let primary = Server::primary(kind, FIRST);
            let secondary = Server::secondary(primary.address, SECOND);
            let keys = |propagation: &str| {
                format!(
                    "{}, servers = [\"{}\", \"{}\"], propagation = \"{propagation}\"",
                    update_keys(&primary, &primary.key_file),
                    primary.address,
                    secondary.address
                )
            };
            let publisher = publisher(&keys("6s"));
            block_on(publisher.publish(NAME, ONE)).unwrap();
            let error = block_on(publisher.wait_until_visible(NAME, ONE)).expect_err("one does not show it");
            assert!(
                error.contains("after 6 seconds the record _acme-challenge.nas.home.example is not seen everywhere"),
                "{error}"
            );
            assert!(
                error.contains(&format!("{} does not have the record yet", secondary.address))
                    || error.contains("NXDOMAIN"),
                "{error}"
            );
            assert!(!error.contains(&primary.address.to_string()), "{error}");
            let patient = crate::publisher(&keys("60s"));
            block_on(async {
                let wait = tokio::spawn(async move { patient.wait_until_visible(NAME, ONE).await });
                let refreshed = tokio::task::spawn_blocking(move || {
                    secondary.refresh();
                    secondary
                });
                let secondary = refreshed.await.unwrap();
                wait.await.unwrap().unwrap();
                assert_eq!(secondary.texts(NAME), [ONE], "{kind:?}");
            });
        }
    });
}

#[test]
fn other_value_at_the_name_is_no_answer() {
    alone(|| {
        let server = Server::primary(Kind::Bind, FIRST);
        let keys = format!(
            "{}, servers = [\"{}\"], propagation = \"1s\"",
            update_keys(&server, &server.key_file),
            server.address
        );
        let publisher = publisher(&keys);
        block_on(publisher.publish(NAME, ONE)).unwrap();
        let error = block_on(publisher.wait_until_visible(NAME, TWO)).expect_err("it shows another one");
        assert!(error.contains(&format!("{} ({}) has other values only", server.address, server.address)), "{error}");
    });
}

#[test]
fn server_that_is_not_authoritative_is_named() {
    alone(|| {
        let primary = Server::primary(Kind::Bind, FIRST);
        let other = Server::primary(Kind::Knot, SECOND);
        let keys = format!(
            "{}, servers = [\"{}\", \"{}\"], propagation = \"1s\"",
            update_keys(&primary, &primary.key_file),
            primary.address,
            other.address
        );
        let publisher = publisher(&keys);
        let error =
            block_on(publisher.wait_until_visible("nas.elsewhere.example", ONE)).expect_err("neither has the zone");
        assert!(error.contains(&format!("{} answers REFUSED", primary.address)), "{error}");
        assert!(error.contains(&format!("{} answers REFUSED", other.address)), "{error}");
    });
}
