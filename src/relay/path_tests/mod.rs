//! Tests that hold for every path that terminates TLS. [`tls_path_tests`] runs each of them on one path.

pub(super) mod closing;
pub(super) mod protocol_errors;
pub(super) mod transfer;

use rustls::CipherSuite;
use tokio::net::TcpStream;

use super::Engine;
use super::testing::{Client, pair};
use crate::sys::stream::Stream;
use crate::tls::record::Keys;
use crate::tls::record::testing::handshake;

/// The engine of a path under test.
pub(super) trait TestEngine: Engine + Unpin {
    /// Relays between `client` and `backend`. Each key may seal `limit` records, if it is given.
    fn build(client: TcpStream, keys: Keys, limit: Option<u64>, backend: Stream) -> Self;

    /// Whether no pipe and no buffer is held.
    fn holds_nothing(&self) -> bool;

    /// Whether it can follow a client that changes its key.
    fn changes_keys() -> bool {
        true
    }

    /// Fills the pools that the path uses with foreign bytes.
    fn poison() {}
}

/// A relay between a client and a backend.
struct Rig<E> {
    engine: E,
    client: Client,
    backend: TcpStream,
}

/// A relay with tiny socket buffers, or with the kernel's default.
async fn rig<E: TestEngine>(suite: CipherSuite, tiny: bool) -> Rig<E> {
    rig_between(suite, None, pair(tiny).await, pair(tiny).await)
}

fn rig_between<E: TestEngine>(
    suite: CipherSuite,
    limit: Option<u64>,
    (client, ours): (TcpStream, TcpStream),
    (to_backend, backend): (TcpStream, TcpStream),
) -> Rig<E> {
    let (keys, tls) = handshake(suite);
    let engine = E::build(ours, keys, limit, Stream::Tcp(to_backend));
    Rig { engine, client: Client { stream: client, tls }, backend }
}

/// Runs every test of this module on the path of one [`TestEngine`]. A test that is missing here is dead code.
macro_rules! tls_path_tests {
    ($engine:ty) => {
        $crate::relay::path_tests::tls_path_tests! {
            $engine;
            transfer: [
                both_directions_transfer_every_byte,
                slow_side_throttles_the_other,
                late_reader_gets_all_bytes_and_close_notify,
            ];
            closing: [
                half_closed_side_is_still_answered,
                client_without_close_notify_is_still_answered,
                data_and_close_notify_in_one_segment_arrive,
                answer_of_a_backend_that_stops_reading_arrives,
                client_reset_resets_the_backend,
                end_inside_a_record_is_a_client_reset,
                backend_reset_sends_no_close_notify,
                backend_reset_that_a_write_meets_sends_no_close_notify,
                cut_client_is_told_what_its_reason_calls_for,
                cut_behind_a_key_update_is_told_under_the_new_key,
                cut_in_a_download_sends_no_payload_and_no_close_notify,
                cut_after_the_end_of_the_backend_leaves_its_close_notify,
                cut_client_gets_at_most_the_undelivered_limit,
            ];
            protocol_errors: [
                tls12_key_at_its_limit_ends_in_an_alert,
                renegotiation_after_our_close_notify_is_ignored,
                empty_records_are_ignored_up_to_a_limit,
                invalid_records_end_the_relay,
                protocol_error_is_answered_by_its_alert,
                fatal_alert_of_the_client_resets_the_backend,
                end_inside_a_message_is_a_client_reset,
                data_after_a_close_notify_is_ignored,
            ];
        }
    };
    ($engine:ty; $($module:ident: [$($test:ident),+ $(,)?];)+) => {
        $($(
            #[tokio::test]
            async fn $test() {
                $crate::relay::path_tests::$module::$test::<$engine>().await;
            }
        )+)+
    };
}

pub(super) use tls_path_tests;
