//! Payload in both directions.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Rig, TestEngine, rig, rig_between};
use crate::model::close::CloseReason;
use crate::relay::Moved;
use crate::relay::testing::{Script, pair, play, until_end, within};
use crate::tls::record::testing::{Random, SUITES, TLS13};

pub(crate) async fn both_directions_transfer_every_byte<E: TestEngine>() {
    E::poison();
    for suite in SUITES {
        for (tiny, up, down, chunk) in [
            // (tiny socket buffers, bytes up, bytes down, largest piece)
            (true, 60_000, 90_000, 700),
            (true, 400_000, 300_000, 20_000),
            (false, 3_000_000, 4_000_000, 200_000),
        ] {
            let Rig { mut engine, mut client, backend } = rig::<E>(suite, tiny).await;
            let (upwards, downwards) = (Random(11).bytes(up), Random(12).bytes(down));
            let one = Script { send: &upwards, seed: 21, chunk, slow: tiny, ends_first: true };
            let other = Script { send: &downwards, seed: 22, chunk, slow: tiny, ends_first: true };
            let (end, (at_client, at_backend)) = within(async {
                tokio::join!(until_end(&mut engine), async { tokio::join!(client.play(one), play(&backend, other)) })
            })
            .await;
            assert!(at_client.expect("records") == downwards, "{suite:?}, tiny: {tiny}");
            assert!(at_backend.expect("bytes") == upwards, "{suite:?}, tiny: {tiny}");
            assert!(matches!(end.reason, CloseReason::ClientClosed | CloseReason::BackendClosed), "{end:?}");
            let moved = Moved { to_backend: up.try_into().expect("small"), to_client: down.try_into().expect("small") };
            assert_eq!(engine.moved(), moved);
            assert!(engine.holds_nothing());
        }
    }
}

pub(crate) async fn slow_side_throttles_the_other<E: TestEngine>() {
    for (slow_client, slow_backend) in [(true, false), (false, true)] {
        let Rig { mut engine, mut client, backend } = rig::<E>(TLS13, true).await;
        // Several times the size of all buffers on the path.
        let bytes = Random(13).bytes(60_000);
        let chunk = |slow| if slow { 50 } else { 50_000 };
        let one = Script { send: &bytes, seed: 23, chunk: chunk(slow_client), slow: slow_client, ends_first: true };
        let two = Script { send: &bytes, seed: 24, chunk: chunk(slow_backend), slow: slow_backend, ends_first: true };
        let (end, (at_client, at_backend)) = within(async {
            tokio::join!(until_end(&mut engine), async { tokio::join!(client.play(one), play(&backend, two)) })
        })
        .await;
        assert!(at_client.expect("records") == bytes && at_backend.expect("bytes") == bytes, "{end:?}");
    }
}

pub(crate) async fn late_reader_gets_all_bytes_and_close_notify<E: TestEngine>() {
    for suite in SUITES {
        // Around the sizes of records and buffers, where the tail could be delayed.
        for length in [30_000, 49_152, 65_537, 100_000, 131_072] {
            let (client, ours) = pair(true).await;
            let Rig { mut engine, mut client, mut backend } =
                rig_between::<E>(suite, None, (client, ours), pair(false).await);
            let bytes = Random(19).bytes(length);
            let exchange = async {
                let gone = async {
                    backend.write_all(&bytes).await.expect("sent");
                    backend.shutdown().await.expect("shut");
                    let mut end = Vec::new();
                    backend.read_to_end(&mut end).await.expect("an end");
                };
                let late = async {
                    // The others have done everything that does not depend on this client.
                    for _ in 0..200 {
                        tokio::task::yield_now().await;
                    }
                    // In small reads, so that space in the socket is freed little by little.
                    let small_reads = Script { send: b"", seed: 20, chunk: 600, slow: true, ends_first: false };
                    client.play(small_reads).await.expect("a close_notify after all data")
                };
                tokio::join!(gone, late).1
            };
            let (end, received) = within(async { tokio::join!(until_end(&mut engine), exchange) }).await;
            assert!(received == bytes, "{suite:?}: {} of {length} bytes", received.len());
            assert_eq!(end.reason, CloseReason::BackendClosed, "{suite:?}");
            assert_eq!(engine.moved().to_client, u64::try_from(length).expect("small"));
        }
    }
}
