//! Connections of this machine, as far as admission.

use tokio::net::TcpStream;

use super::limits::probation::TURN;
use super::*;
use crate::model::rejection::{Alert, HelloFault};
use crate::sys::socket::Farewell;

#[tokio::test]
async fn half_of_the_limits_is_for_connections_without_certificate() {
    for (limits, most, reason) in [
        ("connections_per_source = 5", 3, Reason::SourceLimit),
        ("connections_per_source = 1", 1, Reason::SourceLimit),
        ("connections = 8\nconnections_per_source = \"off\"", 4, Reason::ConnectionLimit),
    ] {
        let gate = admission(limits);
        let mut held = Vec::new();
        for _ in 0..2 {
            let last = loop {
                let Ok(mut admitted) = connect(&gate).await else { panic!("{limits}: {}", held.len()) };
                match gate.0.without_certificate(&mut admitted.slots) {
                    Ok(()) if held.len() + 1 < most => held.push(admitted),
                    Ok(()) => break admitted,
                    Err(rejection) => panic!("{limits}: {rejection} after {}", held.len()),
                }
            };
            if most > 1 {
                let mut next = connect(&gate).await.expect("a slot for a client with a certificate");
                let told = gate.0.without_certificate(&mut next.slots).expect_err("no slot without");
                assert_eq!(told.reason(), reason, "{told}");
                vouch(&gate, &mut next);
            }
            // The last slot is free again.
            drop(last);
        }
        drop(held);
        assert_eq!(gate.0.without_certificate.connections.taken(), 0);
    }
}

fn was_evicted(admitted: &Admitted) -> bool {
    let (evicted, _) = admitted.slots.eviction();
    let mut notified = std::pin::pin!(evicted.notified());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    Future::poll(notified.as_mut(), &mut cx).is_ready()
}

/// An admission with these keys in `[limits]`, and its listener.
fn admission(limits: &str) -> (Admission, Arc<checked::Listener>) {
    let text = format!(
        "[limits]\n{limits}\n[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"mail\"\n\
         mode = \"passthrough\"\nserver_names = [\"mail.home.example\"]\nbackends = [\"127.0.0.1:993\"]\n"
    );
    let config = crate::config::parse(&text, std::path::Path::new("doorward.toml")).expect("a configuration");
    (Admission::new(config.limits.clone()), Arc::new(config.listeners[0].clone()))
}

/// A connection from this machine, admitted. One on probation counts as refused.
async fn connect(gate: &(Admission, Arc<checked::Listener>)) -> Result<Admitted, Reason> {
    let admitted = on_probation(gate).await?;
    match &admitted.slots.probation {
        Some(probation) => Err(probation.refused.reason()),
        None => Ok(admitted),
    }
}

/// The same; one on probation counts as admitted.
async fn on_probation(gate: &(Admission, Arc<checked::Listener>)) -> Result<Admitted, Reason> {
    admit(gate, 0).await
}

/// A connection from this machine, while so many names have a pending order.
async fn admit(gate: &(Admission, Arc<checked::Listener>), names: usize) -> Result<Admitted, Reason> {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let _client = TcpStream::connect(socket.local_addr().expect("an address")).await.expect("a client");
    let (stream, peer) = socket.accept().await.expect("a connection");
    let at = Instant::now();
    let accepted = Accepted { stream: stream.into(), peer, listener: Arc::clone(&gate.1), at };
    gate.0.admit(accepted, at + Duration::from_secs(60), names, |_| {}).await.map_err(|rejection| rejection.reason())
}

fn vouch(gate: &(Admission, Arc<checked::Listener>), admitted: &mut Admitted) {
    let Voucher { identity, chain } = penalties::testing::device(1);
    gate.0.vouch(&mut admitted.slots, &identity, &chain).expect("a slot");
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn fail(gate: &(Admission, Arc<checked::Listener>), times: usize) {
    for _ in 0..times {
        gate.0.rejected(HERE, Reason::Misbehaved);
    }
}

#[tokio::test(start_paused = true)]
async fn valid_certificate_in_its_turn_ends_a_ban() {
    let gate = admission("banned = \"drop\"");
    fail(&gate, 12);
    let mut owner = on_probation(&gate).await.expect("admitted on probation");
    let stranger = on_probation(&gate).await.expect("admitted on probation");
    assert!(gate.0.turn(&mut owner.slots, true).await.is_ok());
    // A stranger with a turn holds up those behind it for a second, however long timeouts.handshake is.
    let (now, hour) = (Instant::now(), Duration::from_secs(3600));
    assert_eq!(owner.slots.handshake_deadline(now + hour), now + TURN);
    assert_eq!(owner.slots.handshake_deadline(now), now);
    // A route without client certificates is closed to a source on probation, and so is one that accepts clients without.
    let mut third = on_probation(&gate).await.expect("admitted on probation");
    let refused = gate.0.turn(&mut third.slots, false).await.expect_err("refused");
    assert_eq!(refused.reason(), Reason::SourceBanned);
    assert_eq!(gate.0.without_certificate(&mut owner.slots).expect_err("refused").reason(), Reason::SourceBanned);
    // Whatever is wrong with its ClientHello, the reason is the ban, and no alert is sent.
    let plain = Last::Plain(Alert::DECODE_ERROR, 5);
    let Refused { rejection, parting, .. } =
        stranger.refuse(Rejection::silent(Cause::Malformed(HelloFault::Truncated)), plain);
    assert_eq!((rejection.reason(), rejection.alert), (Reason::SourceBanned, None));
    assert!(parting.and_then(Parting::lingers).is_none());

    owner.slots.handshake_done();
    vouch(&gate, &mut owner);
    assert!(connect(&gate).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn source_at_its_limit_gets_handshakes_in_turn() {
    let gate = admission("connections_per_source = 2");
    let silent = [connect(&gate).await.expect("a slot"), connect(&gate).await.expect("a slot")];
    assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceLimit));
    let mut owner = on_probation(&gate).await.expect("admitted on probation");
    gate.0.turn(&mut owner.slots, true).await.expect("a turn");
    owner.slots.handshake_done();
    vouch(&gate, &mut owner);
    assert!(was_evicted(&silent[0]) && !was_evicted(&silent[1]), "the oldest silent connection is evicted");
    drop((owner, silent));
    assert_eq!(gate.0.sources.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn failing_source_is_banned_for_a_minute_then_for_two() {
    let gate = admission("");
    fail(&gate, 11);
    assert!(connect(&gate).await.is_ok());
    fail(&gate, 1);
    for _ in 0..60 {
        assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
        gate.0.rejected(HERE, Reason::SourceBanned);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(connect(&gate).await.is_ok());
    // The next time it is twice as long.
    fail(&gate, 12);
    tokio::time::advance(Duration::from_millis(119_900)).await;
    assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
    tokio::time::advance(Duration::from_millis(100)).await;
    assert!(connect(&gate).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn source_of_a_valid_certificate_is_not_banned() {
    let gate = admission("");
    let mut owner = connect(&gate).await.expect("not banned yet");
    fail(&gate, 12);
    assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
    vouch(&gate, &mut owner);
    drop(owner);
    for _ in 0..11 {
        fail(&gate, 1000);
        assert!(connect(&gate).await.is_ok());
        tokio::time::advance(Duration::from_secs(60 * 60)).await;
    }
    tokio::time::advance(Duration::from_secs(60 * 60)).await;
    fail(&gate, 12);
    assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceBanned));
}

#[tokio::test(start_paused = true)]
async fn penalties_off_bans_no_source() {
    let gate = admission("penalties = \"off\"");
    fail(&gate, 10_000);
    assert!(connect(&gate).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn silent_connections_of_a_trusted_source_are_evicted() {
    let gate = admission("connections_per_source = 3");
    let mut owner = connect(&gate).await.expect("a slot");
    let silent = [connect(&gate).await.expect("a slot"), connect(&gate).await.expect("a slot")];
    assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceLimit));
    owner.slots.handshake_done();
    vouch(&gate, &mut owner);
    let second = connect(&gate).await.expect("the oldest silent connection is evicted");
    assert!(was_evicted(&silent[0]) && !was_evicted(&silent[1]));
    drop((silent, second));
    // An admitted connection is not evicted.
    let mut held = vec![owner];
    for _ in 0..2 {
        let mut next = connect(&gate).await.expect("a slot");
        next.slots.handshake_done();
        held.push(next);
    }
    assert_eq!(connect(&gate).await.map(|_| ()), Err(Reason::SourceLimit));
}

#[tokio::test(start_paused = true)]
async fn silent_connections_are_fewer_while_an_order_is_pending() {
    for (names, most, longest) in [(0, 16, PROBATION_HELLO_TIMEOUT), (1, 8, validators::HELLO_TIMEOUT)] {
        let gate = admission("handshakes = 32");
        gate.0.ban(HERE);
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(admit(&gate, names).await.expect("admitted on probation"));
        }
        assert_eq!(held.iter().filter(|one| !was_evicted(one)).count(), most, "{names}");
        assert!(held.iter().all(|one| one.hello_deadline == one.at + longest));
    }
}

#[tokio::test(start_paused = true)]
async fn validators_have_places_of_their_own() {
    let gate = admission("handshakes = 16\nconnections = 20");
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut admitted = admit(&gate, 1).await.expect("a slot");
        let evicted = gate.0.validator(&mut admitted.slots, 1);
        held.push((admitted, evicted));
    }
    // Four of one source, of eight in all.
    let taken = held.iter().filter(|(admitted, _)| !was_evicted(admitted)).count();
    assert_eq!(taken, 4);
    // Other handshakes take none of these, and have all of theirs.
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(connect(&gate).await.expect("a slot"));
    }
    assert!(!others.iter().any(was_evicted));
    assert_eq!(held.iter().skip(6).filter(|(admitted, _)| was_evicted(admitted)).count(), 0);
    // Beyond the limit of all connections there is room for four more of the source, until they have shown what they are.
    assert_eq!(admit(&gate, 0).await.map(drop), Err(Reason::ConnectionLimit));
    let mut beyond = Vec::new();
    for _ in 0..6 {
        beyond.push(admit(&gate, 1).await.expect("a place beyond the limit"));
    }
    assert_eq!(beyond.iter().filter(|one| !was_evicted(one)).count(), 4);
    let mut last = beyond.pop().expect("the last one");
    assert_eq!(gate.0.turn(&mut last.slots, true).await.map_err(|told| told.reason()), Err(Reason::ConnectionLimit));
    assert_eq!(gate.0.without_certificate(&mut last.slots).map_err(|told| told.reason()), Err(Reason::ConnectionLimit));
    gate.0.validator(&mut last.slots, 1);
    drop((held, others, beyond, last));
    assert!(connect(&gate).await.is_ok());
    assert_eq!(gate.0.connections.taken(), 0);
}

#[tokio::test]
async fn source_has_16_lingering_clients_at_most() {
    let admission = Admission::new(checked::Limits::default());
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (mut clients, mut lingering) = (Vec::new(), Vec::new());
    for _ in 0..=LINGERING {
        clients.push(TcpStream::connect(socket.local_addr().expect("an address")).await.expect("a client"));
        let (stream, peer) = socket.accept().await.expect("a connection");
        let source = admission.source(peer.ip());
        lingering.push(Box::pin(admission.linger(Parting {
            stream: stream.into(),
            source,
            farewell: Farewell::Linger,
        })));
    }
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    // The last one takes a slot, and the first one is evicted.
    for one in &mut lingering {
        assert!(one.as_mut().poll(&mut cx).is_pending());
    }
    assert!(lingering.remove(0).as_mut().poll(&mut cx).is_ready());
    for one in &mut lingering {
        assert!(one.as_mut().poll(&mut cx).is_pending());
    }
}
