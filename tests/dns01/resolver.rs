//! The servers of a zone, found by the machine's resolver.

use std::net::SocketAddrV4;

use crate::network::{FIRST, SECOND, alone};
use crate::server::{Kind, Server};
use crate::{NAME, ONE, block_on, publisher, update_keys};

#[test]
fn servers_of_the_zone_are_found_and_all_of_them_asked() {
    // The resolver of the machine is the primary itself, which knows the zone and its servers.
    alone(|| {
        let records = ["@ NS ns2", "ns2 A 127.0.0.3"];
        let server = Server::with(Kind::Bind, SocketAddrV4::new(FIRST, 53), &records);
        let keys = format!("{}, propagation = \"2s\"", update_keys(&server, &server.key_file));
        let publisher = publisher(&keys);
        block_on(publisher.publish(NAME, ONE)).unwrap();
        let error = block_on(publisher.wait_until_visible(NAME, ONE)).expect_err("ns2 is not there");
        assert!(error.contains("ns2.home.example (127.0.0.3:53) is not reached: "), "{error}");
        assert!(!error.contains("ns1.home.example"), "{error}");
        let secondary = Server::with(Kind::Bind, SocketAddrV4::new(SECOND, 53), &records);
        let error = block_on(publisher.wait_until_visible(NAME, ONE)).expect_err("ns2 has another zone");
        assert!(error.contains("ns2.home.example (127.0.0.3:53) does not have the record yet"), "{error}");
        let there = format!("{}, propagation = \"2s\"", update_keys(&secondary, &secondary.key_file));
        block_on(crate::publisher(&there).publish(NAME, ONE)).unwrap();
        block_on(publisher.wait_until_visible(NAME, ONE)).unwrap();
    });
}
