//! Makes the seeds that hold certificates, lists, keys and requests: `cargo run --example seeds`, in this folder.
//!
//! They are committed, so that every run starts with the same ones. Making them anew changes all of them at once, since each
//! is signed by a new authority.

#[expect(dead_code, reason = "shared with the integration tests: the seeds do not need everything")]
#[path = "../../common/pki.rs"]
mod pki;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorward::bundle::{Bundle, BundleKey, BundleRoute, PlainKey, Trust};
use doorward::control::Request;
use doorward::model::device_name::DeviceName;
use doorward::model::names::{Name, ServerName, ServerNamePattern};
use doorward::model::service::ServiceKind;
use doorward::proxy_protocol::{TlsFacts, v1, v2};
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use pki::{Authority, Certified, days_from_now};
use rcgen::{
    CertificateParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, GeneralSubtree, KeyPair,
    NameConstraints, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

const PASSWORD: &str = "changeit";

fn main() {
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut params = Authority::for_authorities("Clients of home.example");
    // The seeds are older than the gates that read them.
    params.not_after = days_from_now(365 * 70);
    let clients = Authority::custom(params);
    write("pki", "authority.pem", clients.pem());
    certificates(&clients);
    lists(&clients);
    pem_files(&clients);
    archives(&clients);
    bundles(&clients);
    renewals();
    requests(&clients);
    headers();
    records();
}

fn write(folder: &str, name: &str, contents: impl AsRef<[u8]>) {
    let folder = if folder == "pki" { Path::new("pki").to_owned() } else { Path::new("seeds").join(folder) };
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), contents).unwrap();
}

fn lasting(mut params: CertificateParams) -> CertificateParams {
    params.not_after = days_from_now(365 * 70);
    params
}

fn certificates(clients: &Authority) {
    let mut params = lasting(Certified::for_clients("alice-phone"));
    params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "family");
    params.subject_alt_names = vec![
        SanType::DnsName("phone.alice".try_into().unwrap()),
        SanType::Rfc822Name("alice@home.example".try_into().unwrap()),
        SanType::URI("spiffe://home.example/alice".try_into().unwrap()),
        SanType::IpAddress("192.168.1.7".parse().unwrap()),
        SanType::IpAddress("fd00::7".parse().unwrap()),
    ];
    write("identity", "every-name.der", &clients.issue(params).chain()[0]);
    let mut params = lasting(Authority::for_authorities("Intermediate"));
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("home.example".into())],
        excluded_subtrees: vec![GeneralSubtree::Rfc822Name("home.example".into())],
    });
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec!["http://home.example/crl".into()] }];
    let intermediate = clients.intermediate(params);
    let below = intermediate.issue(lasting(Certified::for_clients("bob-laptop")));
    write("identity", "below-constraints.der", &below.chain()[0]);
    write("identity", "intermediate.der", &below.chain()[1]);
    let keys = [("ed25519", &rcgen::PKCS_ED25519), ("p384", &rcgen::PKCS_ECDSA_P384_SHA384)];
    for (name, algorithm) in keys {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let issued = clients.issue_for_key(lasting(Certified::for_clients(name)), key);
        write("identity", &format!("{name}.der"), &issued.chain()[0]);
    }
    let small = clients.issue_for_small_rsa(lasting(Certified::for_clients("rsa-1024")));
    write("identity", "rsa-1024.der", &small.chain()[0]);
}

fn bundles(clients: &Authority) {
    let issued = clients.issue(lasting(Certified::for_clients("alice-laptop")));
    let route = |name: &str, kind, server_name: &str| BundleRoute {
        name: Name::parse(name).unwrap(),
        kind,
        server_name: ServerNamePattern::parse(server_name).unwrap(),
    };
    let key = KeyPair::from_pem(&issued.key_pem()).unwrap();
    let encrypted = doorward::pki::keys::encrypt(&key, PASSWORD).unwrap();
    let own = Bundle {
        home: ServerName::parse("home.example").unwrap(),
        device: DeviceName::parse("alice-laptop").unwrap(),
        address: Some("192.0.2.1".to_owned()),
        port: 8443,
        routes: vec![
            route("ssh", ServiceKind::Ssh, "ssh.home.example"),
            route("files", ServiceKind::Smb, "smb.home.example"),
            route("lab", ServiceKind::Other, "*.lab.home.example"),
        ],
        trust: Trust::Authorities(vec![CertificateDer::from_pem_slice(clients.pem().as_bytes()).unwrap()]),
        chain: issued.chain(),
        key: BundleKey::Encrypted(encrypted.trim().to_owned()),
        renewal: Some(ServerName::parse("renew.home.example").unwrap()),
    };
    let joined = Bundle {
        address: None,
        trust: Trust::Public,
        key: BundleKey::Plain(PlainKey::new(issued.key().secret_der())),
        renewal: None,
        ..own.clone()
    };
    let token = Bundle { key: BundleKey::Token("pkcs11:token=home;object=laptop".to_owned()), ..own.clone() };
    let on_device = Bundle { key: BundleKey::OnDevice, ..own.clone() };
    for (name, bundle) in [("encrypted", own), ("plain", joined), ("token", token), ("on_device", on_device)] {
        write("bundle", name, bundle.to_text().as_bytes());
    }
    // PEM as another program writes it: with text before the key, and other ends of lines.
    let begin = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
    let text = fs::read_to_string("seeds/bundle/encrypted").unwrap();
    write("bundle", "foreign", text.replace(begin, &format!("Bag \\\"Attributes\\\"\n{begin}\\r")));
}

/// For the device of `bundle/plain`. Who signs an answer is not looked at: the gate has to take the certificate.
fn renewals() {
    let bundle = Bundle::parse(&fs::read_to_string("seeds/bundle/plain").unwrap()).unwrap();
    let BundleKey::Plain(key) = &bundle.key else { panic!("not plain") };
    let key = || KeyPair::try_from(&key.der()).unwrap();
    let params = || {
        let mut params = lasting(Certified::for_clients("alice-laptop"));
        params.not_after += time::Duration::days(900);
        params
    };
    let request = |key: &KeyPair| {
        let mut request = CertificateParams::default();
        request.distinguished_name.push(rcgen::DnType::CommonName, "alice-laptop");
        request.serialize_request(key).unwrap().der().to_vec()
    };
    let kinds =
        [("p384", &rcgen::PKCS_ECDSA_P384_SHA384), ("ed25519", &rcgen::PKCS_ED25519), ("rsa", &rcgen::PKCS_RSA_SHA256)];
    let others = kinds.map(|(name, kind)| (name, request(&KeyPair::generate_for(kind).unwrap())));
    for (name, der) in others.iter().map(|(name, der)| (*name, der.clone())).chain([("same-key", request(&key()))]) {
        write("renewal_request", &format!("{name}.der"), [b"=", &der[..]].concat());
        let body = STANDARD.encode(&der);
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let body = lines.join("\r\n") + "\r\n";
        let head = "POST /.well-known/est/simplereenroll HTTP/1.1\r\nHost: renew.home.example\r\nContent-Type: application/pkcs10";
        let length = body.len();
        let text = format!("{head}; charset=us-ascii\r\nContent-Length: {length}\r\n\r\n{body}");
        write("renewal_request", name, text);
        let text = format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        write("renewal_request", &format!("{name}-chunked"), &text);
        // As curl does it with a long body.
        let text = text.replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
        write("renewal_request", &format!("{name}-expect"), text);
    }
    let cacerts = "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: renew.home.example\r\n\r\n";
    write("renewal_request", "cacerts", cacerts);

    let authority = Authority::new("Clients of home.example");
    let one = authority.issue_for_key(params(), key()).chain();
    let through = authority.intermediate(Authority::for_authorities("Renewals of home.example"));
    let two = through.issue_for_key(params(), key()).chain();
    let other = authority.issue_for_key(params(), KeyPair::generate().unwrap()).chain();
    for (name, chain) in [("one", one), ("two", two), ("other-key", other)] {
        let message = doorward::pki::certs_only::encode(&chain);
        write("renewal_answer", &format!("{name}.der"), [b"=", &message[..]].concat());
        let body = STANDARD.encode(&message) + "\n";
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/pkcs7-mime; smime-type=certs-only\r\nContent-Transfer-Encoding: base64";
        write("renewal_answer", name, format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        write("renewal_answer", &format!("{name}-to-the-end"), format!("{head}\r\nConnection: close\r\n\r\n{body}"));
    }
    let waits =
        "HTTP/1.1 202 Accepted\r\nRetry-After: 60\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nlater\n";
    write("renewal_answer", "waits", waits);
    let refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n";
    write("renewal_answer", "refused", refused);
    // SignedData with a digest algorithm whose length is the greatest of 64 bits.
    let overlong = b"=\x30\x1e\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x11\x30\x0f\x02\x01\x01\x31\x0a\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff";
    write("renewal_answer", "overlong", overlong);
}

fn der(pem: &str) -> CertificateRevocationListDer<'static> {
    CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn lists(clients: &Authority) {
    let (before, after) = (days_from_now(-1), days_from_now(365 * 70));
    let serials = [1_u64, 0x7fff, u64::MAX].map(SerialNumber::from);
    let empty = clients.revocation_list(&[], before, after);
    write("revocation_list", "empty.der", der(&empty));
    let mut three = Authority::for_lists(&serials, before, after);
    three.crl_number = SerialNumber::from(0x1234_5678_9abc_def0_u64);
    for (entry, reason) in three.revoked_certs.iter_mut().zip([rcgen::RevocationReason::KeyCompromise; 2]) {
        let RevokedCertParams { reason_code, invalidity_date, .. } = entry;
        (*reason_code, *invalidity_date) = (Some(reason), Some(before));
    }
    let three = clients.sign_list(three);
    write("revocation_list", "three.der", der(&three));
    write("revocation_list", "both.pem", [empty, three].concat());
    let mut part = Authority::for_lists(&serials, before, after);
    part.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint { uris: vec!["http://home.example/crl".into()] },
        scope: Some(CrlScope::UserCertsOnly),
    });
    // Of another authority: what the first one has signed is listed in the target.
    let other = Authority::new("Clients of home.example");
    write("revocation_list", "part-of-another.der", der(&other.sign_list(part)));
}

fn pem_files(clients: &Authority) {
    let device = clients.issue(lasting(Certified::for_clients("alice-phone")));
    let server = clients.issue(lasting(Certified::for_servers(&["nas.home.example"])));
    write("pem", "authority", clients.pem());
    write("pem", "pinned", device.chain_pem());
    write("pem", "two-authorities", [clients.pem(), Authority::new("Another").pem()].concat());
    write("pem", "chain-and-key", [server.chain_pem(), clients.pem().to_owned(), server.key_pem()].concat());
    write("pem", "windows", format!("\u{feff}{}", clients.pem().replace('\n', "\r\n")));
    write("pem", "key", device.key_pem());
    let sealed = doorward::pki::keys::encrypt(&KeyPair::generate().unwrap(), "a passphrase").unwrap();
    write("pem", "encrypted-key", sealed.as_bytes());
    write("pem", "authority.der", der_of(clients));
}

fn der_of(authority: &Authority) -> Vec<u8> {
    pem::parse(authority.pem()).unwrap().into_contents()
}

fn archives(clients: &Authority) {
    let device = clients.issue(lasting(Certified::for_clients("alice-phone")));
    let certificate = |der: &[u8]| Certificate::from_der(der).unwrap();
    for (name, encryption, mac) in [
        ("aes", EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256),
        ("triple-des", EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1),
        ("rc2", EncryptionAlgorithm::PbeWithShaAnd40BitRc4Cbc, MacAlgorithm::HmacSha1),
    ] {
        let key = PrivateKey::from_der(device.key().secret_der()).unwrap();
        let chain = [certificate(&device.chain()[0]), certificate(&der_of(clients))];
        let mut store = KeyStore::new();
        store
            .add_entry("alice-phone", KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new([7].as_slice(), key, chain)));
        let written = store
            .writer(PASSWORD)
            .encryption_algorithm(encryption)
            .encryption_iterations(1)
            .mac_algorithm(mac)
            .mac_iterations(1)
            .write();
        write("archive", &format!("{name}.p12"), written.unwrap());
    }
    let mut store = KeyStore::new();
    store.add_entry("root", KeyStoreEntry::Certificate(certificate(&der_of(clients))));
    let written = store.writer(PASSWORD).encryption_iterations(1).mac_iterations(1).write().unwrap();
    write("archive", "trust-only.p12", written);
}

fn requests(clients: &Authority) {
    let (authority, list) = (der_of(clients), der(&clients.revocation_list(&[], days_from_now(-1), days_from_now(9))));
    let requests = [
        ("status", Request::Status),
        ("sessions", Request::Sessions { count: 1000 }),
        ("why", Request::Why { wanted: "alice-phone".to_owned(), count: 5, ranked: false }),
        ("reload", Request::Reload),
        ("cut", Request::Cut { selector: "route:nas".to_owned() }),
        ("cut-all", Request::CutAll),
        ("in-force", Request::InForce { authority_bytes: authority.len() }),
        ("take-list", Request::TakeList { authority_bytes: authority.len(), list_bytes: list.len() }),
    ];
    for (name, request) in requests {
        let mut bytes = serde_json::to_vec(&request).unwrap();
        bytes.push(b'\n');
        if matches!(request, Request::InForce { .. } | Request::TakeList { .. }) {
            bytes.extend(&authority);
        }
        if matches!(request, Request::TakeList { .. }) {
            bytes.extend(&*list);
        }
        write("control_request", name, bytes);
    }
    for (name, request) in [
        ("page", "GET / HTTP/1.1\r\nHost: 127.0.0.1:9180\r\n\r\n"),
        ("metrics", "GET /metrics HTTP/1.0\r\n\r\n"),
        ("head", "HEAD /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"),
        ("rebinding", "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        ("absolute", "GET http://[::1]:9180/readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("scheme", "GET ht+tp://[::0]:9180/readyz HTTP/1.1\r\nHost: 1\r\n\r\n"),
        ("credentials", "GET http://localhost:a@evil.example/readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("body", "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("two", "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    ] {
        write("http", name, request);
    }
}

fn headers() {
    let [four, other, six]: [SocketAddr; 3] =
        ["203.0.113.9:39856", "192.168.1.2:8443", "[2001:db8::9]:39856"].map(|text| text.parse().unwrap());
    write("proxy_protocol", "v1-ipv6", v1(six, other));
    write("proxy_protocol", "v1-unknown", "PROXY UNKNOWN\r\n");
    let facts = TlsFacts {
        version: "TLSv1.3",
        cipher_suite: "TLS_AES_128_GCM_SHA256",
        identity: None,
        certificate: None,
        resumed: false,
        server_name: Some("nas.home.example"),
        application_protocol: Some(b"http/1.1"),
    };
    write("proxy_protocol", "v2-tls", v2(four, other, Some(facts)));
    write("proxy_protocol", "v2-ipv6", v2(six, other, None));
    write("proxy_protocol", "v2-local", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
}

/// Kind (as the target counts), two bytes of length, content.
fn records() {
    let (alert, handshake, data) = (0, 1, 2);
    let update = [24, 0, 0, 1, 1];
    let sequences: [(&str, u8, Vec<(u8, Vec<u8>)>); 4] = [
        ("key-updates", 1, vec![(data, vec![7; 9]), (handshake, update.to_vec()), (data, vec![]), (alert, vec![1, 0])]),
        ("key-update-in-parts", 1, update.iter().map(|&byte| (handshake, vec![byte])).collect()),
        ("renegotiation", 0, vec![(handshake, [&[1, 0, 0x20, 0][..], &[7; 0x2000]].concat()), (alert, vec![1, 0])]),
        ("warnings", 0, (0..20).map(|_| (alert, vec![1, 90])).collect()),
    ];
    for (name, version, records) in sequences {
        let mut bytes = vec![version];
        for (kind, content) in records {
            let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
            bytes.extend([kind, high, low]);
            bytes.extend(content);
        }
        write("kernel_records", name, bytes);
    }
}
