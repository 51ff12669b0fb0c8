use std::net::TcpListener;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::testing::{Identity, NAME, accept, config, provider, trusting};
use super::*;
use crate::model::identity::Sha256;
use crate::model::rejection::BackendCertificateFault as Fault;

/// A handshake between the gate and a backend, until both are through. The backend sends a byte, if it gets that far.
async fn handshake(
    tls: &BackendTls,
    server: ServerConfig,
    protocol: Option<&[u8]>,
) -> (Result<Box<TlsStream>, BackendTlsFault>, io::Result<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("an option");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let ours = async {
        let stream = TcpStream::connect(address).await.expect("connected");
        let mut stream = tls.connect(Stream::Tcp(stream), 0, protocol).await?;
        // The tickets of TLS 1.3 come behind the handshake.
        let mut byte = [0; 1];
        let mut space = tokio::io::ReadBuf::new(&mut byte);
        std::future::poll_fn(|cx| stream.poll_read(cx, &mut space))
            .await
            .map_err(|error| BackendTlsFault::Other(Text::new(error)))?;
        Ok(stream)
    };
    let theirs = async {
        let stream = listener.accept().await?.0;
        let mut stream = accept(stream, server).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        stream.read_to_end(&mut Vec::new()).await.map(drop).or(Ok(()))
    };
    let ours = async {
        let result = ours.await;
        // Closed, or kept for the caller: the other side need not wait for more.
        if let Ok(stream) = &result {
            let _ = stream.socket().shutdown_write();
        }
        result
    };
    tokio::join!(ours, theirs)
}

/// Why a backend is not accepted, which then gets nothing.
#[track_caller]
fn refused((ours, theirs): (Result<Box<TlsStream>, BackendTlsFault>, io::Result<()>), seen: Sha256) -> Fault {
    assert!(theirs.is_err(), "the backend took the handshake to be complete");
    match ours.expect_err("it should have been refused") {
        BackendTlsFault::Certificate { seen: told, fault } => {
            assert_eq!(told, seen);
            fault
        }
        other => panic!("{other:?}"),
    }
}

fn authorities(authority: CertificateDer<'static>) -> BackendTrust {
    BackendTrust::Certificates { own: vec![authority.clone()], authorities: vec![authority] }
}

fn expired(params: &mut CertificateParams) {
    params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
    params.not_after = OffsetDateTime::now_utc() - Duration::days(2);
}

#[tokio::test]
async fn fingerprint_is_all_that_counts_where_it_is_given() {
    let others: [fn(&mut CertificateParams); 3] = [|_| (), expired, |params| params.subject_alt_names = Vec::new()];
    for change in others {
        let identity = Identity::self_signed(change);
        let tls = trusting(BackendTrust::Fingerprint(identity.fingerprint()));
        assert!(handshake(&tls, identity.server(), None).await.0.is_ok(), "its names and dates do not count");
        let other = Identity::self_signed(change);
        let fault = refused(handshake(&tls, other.server(), None).await, other.fingerprint());
        assert_eq!(fault, Fault::OtherFingerprint);
    }
}

#[tokio::test]
async fn stolen_certificate_without_its_key_is_refused() {
    let (good, other) = (Identity::self_signed(|_| ()), Identity::self_signed(|_| ()));
    // rustls refuses such a pair, and an attacker does not.
    let certified = rustls::sign::CertifiedKey::new(
        good.chain.clone(),
        aws_lc_rs::sign::any_supported_type(&other.key).expect("a key"),
    );
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let tls = trusting(BackendTrust::Fingerprint(good.fingerprint()));
    let (ours, theirs) = handshake(&tls, server, None).await;
    assert!(theirs.is_err());
    assert!(matches!(ours, Err(BackendTlsFault::Other(_))), "{ours:?}");
}

#[tokio::test]
async fn file_trusts_its_certificates_and_what_its_authorities_signed() {
    let own = Identity::self_signed(expired);
    let tls = trusting(BackendTrust::Certificates { own: own.chain.clone(), authorities: Vec::new() });
    assert!(handshake(&tls, own.server(), None).await.0.is_ok(), "as if its fingerprint were given");
    let other = Identity::self_signed(|_| ());
    assert_eq!(refused(handshake(&tls, other.server(), None).await, other.fingerprint()), Fault::NotTrusted);

    let (good, authority) = Identity::signed(|_| ());
    let tls = trusting(authorities(authority.clone()));
    assert!(handshake(&tls, good.server(), None).await.0.is_ok());
    assert_eq!(refused(handshake(&tls, other.server(), None).await, other.fingerprint()), Fault::NotTrusted);
    let system = trusting(BackendTrust::System(vec![authority]));
    assert!(handshake(&system, good.server(), None).await.0.is_ok());
}

#[tokio::test]
async fn certificate_of_an_authority_needs_the_name_the_dates_and_the_purpose() {
    type Case = (fn(&mut CertificateParams), fn(&Fault) -> bool);
    let cases: [Case; 4] = [
        (
            |params| {
                params.subject_alt_names = vec![rcgen::SanType::DnsName("other.local".try_into().expect("a name"))]
            },
            |fault| {
                let Fault::Name { expected, names } = fault else { return false };
                expected.to_string() == NAME && names.to_string() == "other.local"
            },
        ),
        (expired, |fault| matches!(fault, Fault::Expired { not_after } if *not_after > 0)),
        (
            |params| params.not_before = OffsetDateTime::now_utc() + Duration::days(2),
            |fault| matches!(fault, Fault::NotYetValid { not_before } if *not_before > 0),
        ),
        (
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            |fault| matches!(fault, Fault::Other(_)),
        ),
    ];
    for (change, expected) in cases {
        let (identity, authority) = Identity::signed(change);
        let tls = trusting(authorities(authority));
        let fault = refused(handshake(&tls, identity.server(), None).await, identity.fingerprint());
        assert!(expected(&fault), "{fault:?}");
    }
}

#[tokio::test]
async fn sessions_are_resumed_and_verified_again() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        // Enough for two handshakes on a busy machine.
        let until = OffsetDateTime::now_utc() + Duration::seconds(8);
        let (identity, authority) = Identity::signed(|params| params.not_after = until);
        let server = || {
            let mut server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_no_client_auth()
                .with_single_cert(identity.chain.clone(), identity.key.clone_key())
                .expect("a certificate");
            server.ticketer = aws_lc_rs::Ticketer::new().expect("a ticketer");
            server
        };
        let server = server();
        let tls = trusting(authorities(authority));
        let kind =
            |ours: &Result<Box<TlsStream>, BackendTlsFault>| ours.as_ref().map(|stream| stream.is_resumed()).ok();
        let (first, _) = handshake(&tls, server.clone(), None).await;
        assert_eq!(kind(&first), Some(false), "{first:?}");
        let (second, _) = handshake(&tls, server.clone(), None).await;
        assert_eq!(kind(&second), Some(true), "{second:?}");
        while OffsetDateTime::now_utc() <= until + Duration::seconds(1) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let (expired, _) = handshake(&tls, server.clone(), None).await;
        let fault = expired.expect_err("an expired certificate");
        assert!(matches!(fault, BackendTlsFault::Certificate { fault: Fault::Expired { .. }, .. }), "{fault:?}");
        // Nothing of it is resumed: the backend may have another certificate by now.
        refused(handshake(&tls, server, None).await, identity.fingerprint());
    }
}

#[tokio::test]
async fn backend_is_offered_what_the_client_has_chosen_and_nothing_else() {
    let identity = Identity::self_signed(|_| ());
    let tls = trusting(BackendTrust::Fingerprint(identity.fingerprint()));
    let server = |protocols: &[&str]| {
        let mut server = identity.server();
        server.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        server
    };
    let h2 = Some(&b"h2"[..]);
    let http = Some(&b"http/1.1"[..]);
    assert!(handshake(&tls, server(&["http/1.1", "h2"]), h2).await.0.is_ok());
    assert!(handshake(&tls, server(&["h2"]), None).await.0.is_ok(), "no ALPN was offered");
    assert!(handshake(&tls, server(&[]), http).await.0.is_ok(), "a server without ALPN speaks HTTP/1.1");
    let (ours, _) = handshake(&tls, server(&[]), h2).await;
    assert_eq!(ours.map(drop), Err(BackendTlsFault::Protocol { asked: Text::new("h2") }));
    let (ours, theirs) = handshake(&tls, server(&["http/1.1"]), h2).await;
    assert!(matches!(ours, Err(BackendTlsFault::Alert(Alert(120)))), "{ours:?}");
    assert!(theirs.is_err());
}

#[tokio::test]
async fn certificate_of_the_gate_is_shown_to_a_backend_that_asks() {
    let identity = Identity::self_signed(|_| ());
    let (gate, authority) =
        Identity::signed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("a trust anchor");
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().expect("a verifier");
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("a version")
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .expect("a certificate");
    let trust = BackendTrust::Fingerprint(identity.fingerprint());
    let key = aws_lc_rs::sign::any_supported_type(&gate.key).expect("a key");
    let certificate = Some(Arc::new(rustls::sign::CertifiedKey::new(gate.chain.clone(), key)));
    let with = checked::BackendTls { certificate, ..config(trust.clone()) };
    let with = BackendTls::new(&Arc::new(with), &provider()).expect("settings");
    assert!(handshake(&with, server.clone(), None).await.0.is_ok());
    let (without, _) = handshake(&trusting(trust), server, None).await;
    assert!(matches!(without, Err(BackendTlsFault::Alert(_))), "{without:?}");
}

#[tokio::test]
async fn what_is_no_tls_is_told_as_such() {
    for (answer, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], BackendTlsFault::NotTls),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", BackendTlsFault::NotTls),
        (b"", BackendTlsFault::Ended),
        (&[21, 3, 3, 0, 2, 2, 48], BackendTlsFault::Alert(Alert::UNKNOWN_CA)),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let tls = trusting(BackendTrust::Fingerprint(Sha256::of(b"x")));
        let ours = async {
            let stream = TcpStream::connect(address).await.expect("connected");
            tls.connect(Stream::Tcp(stream), 0, None).await
        };
        let theirs = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            // The whole ClientHello, or what is left of it would reset the connection.
            let mut head = [0; 5];
            stream.read_exact(&mut head).await.expect("a record");
            let length = u16::from_be_bytes([head[3], head[4]]);
            stream.read_exact(&mut vec![0; length.into()]).await.expect("a record");
            stream.write_all(answer).await.expect("sent");
            stream.shutdown().await.expect("shut");
            stream
        };
        let (ours, _stream) = tokio::join!(ours, theirs);
        assert_eq!(ours.map(drop), Err(expected), "{}", String::from_utf8_lossy(answer));
    }
}
