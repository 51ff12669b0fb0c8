//! The journey of a connection, stage by stage, on the real gate: who gets in, who does not and is told what, and that
//! every byte arrives.
//!
//! | file | shows | of attacks.md |
//! |---|---|---|
//! | `certificates` | client certificates of every kind | 11, 12 (at start), 13, 14 |
//! | `modes` | the client-auth modes and what `allow` adds | |
//! | `resumption` | sessions, and that they never outlive their rights | 18 (but for reload), 19 |
//! | `reasons` | every reason for a rejection: metric, log line and alert together | |
//! | `close_reasons` | every way in which an admitted connection ends: metric, log line and alert together | |
//! | `limits` | limits, source addresses; slots are freed | 3, 31 |
//! | `log` | what the log says, and how much of it under a flood | 30 |
//! | `proxy`, `proxy_sent` | PROXY protocol, taken and sent | |
//! | `postgres` | clients that ask for TLS as PostgreSQL's do | |
//! | `backends` | backends good and bad, several of them, unix sockets | 21 |
//! | `tickets` | a session of one route is none for another | 41 |
//! | `suites` | which cipher suite a client gets | |
//! | `log_output` | a log that cannot be written | 49 |
//! | `transfer` | payload byte for byte, half-closes, KeyUpdate | 17, 22 |
//! | `resets` | resets at every stage | 20 |
//! | `endings` | timeouts of relays, drain, restart | 32 |
//! | `acme` | validators of a pending order; unit: `connection::tests::challenge` | 45 |
//! | `pitfalls` | the rest of the list below | |
//!
//! What went wrong in other gates, and what shows that it does not here (the test of that name, or one whose name begins
//! so; without a file: everywhere in this folder):
//!
//! | pitfall | shown by |
//! |---|---|
//! | mTLS bypass by session resumption | `resumption`; unit: `handshake::tests::resumption` |
//! | SNI is not Host | `pitfalls::sni_is_not_host_*`; that routes share a backend is a warning of the configuration |
//! | forms of the server name | `pitfalls::sni_forms_*`; unit: `names`; on the wire: tests/wire |
//! | ClientHello in pieces | unit: `client_hello::client_hello_in_pieces_*`; on the wire: tests/wire |
//! | fail open on a missing CA | `pitfalls::fail_open_on_a_missing_ca_*`; the wrong files of tests/config |
//! | revoked but accepted | `certificates::authorities::revoked_but_accepted_*` |
//! | CA rotation keeps old names | `certificates::authorities::certificate_request_names_only_authorities_of_the_route` |
//! | option interplay | `pitfalls::option_interplay_*`; unit: `authorize`; no backend without an `Authorized` does not compile |
//! | slow handshakes | `pitfalls::slow_handshakes_*`, `limits::handshake_slots_are_freed_however_handshakes_end`; the hello: tests/wire |
//! | PROXY spoofing | `proxy::proxy_spoofing_*`, `proxy_sent::proxy_spoofing_*`; unit: `proxy_protocol::proxy_spoofing_*` |
//! | label cardinality | `pitfalls::label_cardinality_*` |
//! | ACME under mTLS | `acme`; unit: `connection::tests::challenge` |
//! | ALPACA | `pitfalls::alpaca_*` |
//! | a TLS 1.3 client takes the connection to be open before it is refused | `pitfalls::tls13_client_gets_its_alert_after_its_finished` |
//! | alerts tell little | `reasons::every_reason_is_provoked`: the log tells more than the alert |
//! | certificate stuffing | `certificates::identity::certificate_stuffing_*`; unit: `authorize::unverified_identity_matches_only_unverified` |
//! | a certificate for clients and servers | `certificates::certificate_for_another_purpose_is_refused`: let in, as mkcert makes them |
//! | no CN | `certificates::identity::no_cn_*` |
//! | CGNAT and IPv6 | `proxy::cgnat_and_ipv6_*`; unit: `source::cgnat_and_ipv6_*` |
//!
//! Not here: OCSP and what happens at a reload, which the gate does not have yet; PKCS#12, platforms, SMB, ssh and
//! mkcert's order of flags, which tests/real and `pki` show.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

mod client;
mod home;

mod acme;
mod backend_tls;
mod backends;
mod certificates;
mod close_reasons;
mod endings;
mod limits;
mod log;
mod log_output;
mod modes;
mod pitfalls;
mod postgres;
mod proxy;
mod proxy_sent;
mod reasons;
mod resets;
mod resumption;
mod settings;
mod suites;
mod tickets;
mod transfer;
