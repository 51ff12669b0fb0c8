//! The certificates that the configurations of these tests name, made anew for every run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    SerialNumber, date_time_ymd,
};

/// An authority: its certificate, and the parameters and key to sign with.
struct Authority {
    certificate: Certificate,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = named(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let key = key();
        let certificate = params.self_signed(&key).expect("an authority");
        Self { certificate, params, key }
    }

    fn below(above: &Self, name: &str) -> Self {
        Self::signed(above, name, |_| {})
    }

    fn signed(above: &Self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = named(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let key = key();
        let certificate = params.signed_by(&key, &above.issuer()).expect("an authority");
        Self { certificate, params, key }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// An empty list, whose successor is due in the year given.
    fn list(&self, next_update: i32) -> Vec<u8> {
        list_by(&self.issuer(), next_update)
    }

    fn sign(&self, params: &CertificateParams) -> (Certificate, KeyPair) {
        let key = key();
        (params.signed_by(&key, &self.issuer()).expect("a certificate"), key)
    }
}

fn list_by(issuer: &Issuer<'_, &KeyPair>, next_update: i32) -> Vec<u8> {
    CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(next_update, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .expect("a revocation list")
    .der()
    .to_vec()
}

/// A certificate whose key is on P-192, going by its identifier, which stands in place of P-256's.
fn with_unknown_curve(certificate: &[u8]) -> Vec<u8> {
    let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let mut changed = certificate.to_vec();
    let at = changed.windows(curve.len()).position(|window| window == curve).expect("P-256");
    changed[at + curve.len() - 1] = 0x01;
    changed
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn named(kind: DnType, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(kind, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

fn leaf(names: &[&str], purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params.extended_key_usages = vec![purpose];
    params
}

fn armour(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().chain([0, 0].iter()).take(3).fold(0_usize, |bits, &byte| bits << 8 | usize::from(byte));
        for place in 0..4 {
            let digit = DIGITS[bits >> (18 - 6 * place) & 63];
            text.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Writes every file into `folder`, which becomes the `pki` of a configuration. Keys are for their owner only.
pub(crate) fn make(folder: &Path) {
    fs::create_dir_all(folder.join("folder")).expect("a folder");
    let write = |name: &str, contents: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, contents).expect(name);
        let mode = if name.contains("key") { 0o600 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect(name);
    };

    // Different bytes, as random ones are.
    let random: Vec<u8> = (100..180).collect();
    write("eab.key", b"zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n");
    write("dns.token", b"v1.0-zWNDZM6eQGHWpSRTPal5eIUYFTu7\n");
    fs::set_permissions(folder.join("dns.token"), fs::Permissions::from_mode(0o600)).expect("dns.token");
    write("dns-open.token", b"v1.0-zWNDZM6eQGHWpSRTPal5eIUYFTu7\n");
    write("tickets-key", &random);
    write("tickets-48-key", &random[..48]);
    write("tickets-short-key", &random[..32]);
    write("tickets-zero-key", &[0; 80]);
    write("tickets-text-key", "0123456789abcdef".repeat(5).as_bytes());
    write("tickets-public", &random);

    let server_ca = Authority::new("Home servers", |_| {});
    let server_names = ["nas.home.example", "ssh.home.example"];
    let (server, server_key) = server_ca.sign(&leaf(&server_names, ExtendedKeyUsagePurpose::ServerAuth));
    let (wildcard, wildcard_key) = server_ca.sign(&leaf(&["*.home.example"], ExtendedKeyUsagePurpose::ServerAuth));
    write("server.pem", format!("{}{}", server.pem(), server_ca.certificate.pem()).as_bytes());
    write("server-key.pem", server_key.serialize_pem().as_bytes());
    write("wildcard.pem", wildcard.pem().as_bytes());
    write("wildcard-key.pem", wildcard_key.serialize_pem().as_bytes());
    write("wrong-order.pem", format!("{}{}", server_ca.certificate.pem(), server.pem()).as_bytes());
    write("unrelated.pem", format!("{}{}", server.pem(), wildcard.pem()).as_bytes());
    write("server.der", server.der());
    write("server-key.der", &server_key.serialize_der());
    write("server-and-key.pem", format!("{}{}", server.pem(), server_key.serialize_pem()).as_bytes());
    write("other-key.pem", key().serialize_pem().as_bytes());
    write("two-keys.pem", format!("{}{}", server_key.serialize_pem(), key().serialize_pem()).as_bytes());
    write("password-key.pem", armour("ENCRYPTED PRIVATE KEY", &[0x30, 0]).as_bytes());
    write("rubbish-key.pem", armour("PRIVATE KEY", b"rubbish").as_bytes());
    write(
        "request.pem",
        leaf(&server_names, ExtendedKeyUsagePurpose::ServerAuth)
            .serialize_request(&server_key)
            .expect("a request")
            .pem()
            .expect("a request")
            .as_bytes(),
    );
    write("public.pem", server_key.public_key_pem().as_bytes());
    // What every PKCS#12 file begins with: enough to tell what it is, and the rest is not read.
    write("server.p12", b"\x30\x82\x01\x00\x02\x01\x03\x30\x82");
    write("empty.pem", b"");
    write("hello.txt", b"hello\n");
    let half = server.pem();
    write("damaged.pem", &half.as_bytes()[..half.len() - 60]);
    write("rubbish.pem", armour("CERTIFICATE", b"rubbish").as_bytes());

    let mut old = leaf(&server_names, ExtendedKeyUsagePurpose::ServerAuth);
    old.not_after = date_time_ymd(2021, 3, 4);
    let (old, old_key) = server_ca.sign(&old);
    write("expired.pem", old.pem().as_bytes());
    write("expired-key.pem", old_key.serialize_pem().as_bytes());
    let mut early = leaf(&server_names, ExtendedKeyUsagePurpose::ServerAuth);
    early.not_before = date_time_ymd(2110, 1, 1);
    // As an ACME client keeps it, but open to all.
    fs::create_dir_all(folder.join("acme/live")).expect("a folder");
    let mut short = leaf(&["nas.example.org"], ExtendedKeyUsagePurpose::ServerAuth);
    short.not_after = date_time_ymd(2021, 3, 4);
    let (short, short_key) = server_ca.sign(&short);
    let short = format!("{}{}{}", short.pem(), server_ca.certificate.pem(), short_key.serialize_pem());
    write("acme/live/certificate.pem", short.as_bytes());
    let (early, early_key) = server_ca.sign(&early);
    write("early.pem", early.pem().as_bytes());
    write("early-key.pem", early_key.serialize_pem().as_bytes());
    let mut nameless = named(DnType::CommonName, "nas.home.example");
    nameless.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (nameless, nameless_key) = server_ca.sign(&nameless);
    write("nameless.pem", nameless.pem().as_bytes());
    write("nameless-key.pem", nameless_key.serialize_pem().as_bytes());
    write("ca-as-server.pem", server_ca.certificate.pem().as_bytes());
    write("ca-as-server-key.pem", server_ca.key.serialize_pem().as_bytes());
    // As "doorward init" makes it.
    let for_servers = Authority::new("Doorward home.example", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let (of_servers, of_servers_key) = for_servers.sign(&leaf(&server_names, ExtendedKeyUsagePurpose::ServerAuth));
    write("for-servers.pem", for_servers.certificate.pem().as_bytes());
    write("of-servers.pem", of_servers.pem().as_bytes());
    write("of-servers-key.pem", of_servers_key.serialize_pem().as_bytes());
    write("open-key.pem", server_key.serialize_pem().as_bytes());
    fs::set_permissions(folder.join("open-key.pem"), fs::Permissions::from_mode(0o644)).expect("open-key.pem");

    let clients = Authority::new("Home devices", |_| {});
    let more = Authority::new("Other devices", |_| {});
    let (phone, phone_key) = clients.sign(&leaf(&["phone.alice"], ExtendedKeyUsagePurpose::ClientAuth));
    write("clients.pem", clients.certificate.pem().as_bytes());
    write("more-clients.pem", more.certificate.pem().as_bytes());
    write("two-clients.pem", format!("{}{}", clients.certificate.pem(), more.certificate.pem()).as_bytes());
    write("phone.pem", phone.pem().as_bytes());
    write("phone-key.pem", phone_key.serialize_pem().as_bytes());
    write("clients-and-key.pem", format!("{}{}", clients.certificate.pem(), clients.key.serialize_pem()).as_bytes());
    let two = format!("{}{}", clients.certificate.pem(), more.certificate.pem());
    write("half-bundle.pem", two.replacen("-----BEGIN CERTIFICATE-----", "----BEGIN CERTIFICATE----", 1).as_bytes());
    let old = Authority::new("Old devices", |params| params.not_after = date_time_ymd(2021, 3, 4));
    write("expired-clients.pem", old.certificate.pem().as_bytes());

    write("clients.crl", armour("X509 CRL", &clients.list(2120)).as_bytes());
    write("clients.crl.der", &clients.list(2120));
    write("expired.crl", armour("X509 CRL", &clients.list(2021)).as_bytes());
    write("more-clients.crl", armour("X509 CRL", &more.list(2120)).as_bytes());
    write("damaged.crl", &clients.list(2120)[..100]);
    write("rubbish.crl", armour("X509 CRL", b"rubbish").as_bytes());
    let forger = Authority::new("Home devices", |_| {});
    write("forged.crl", armour("X509 CRL", &forger.list(2120)).as_bytes());
    write(
        "clients-and-list.pem",
        format!("{}{}", clients.certificate.pem(), armour("X509 CRL", &clients.list(2120))).as_bytes(),
    );
    // One bit of the extension number that every list has to have: no parser minds, rustls does.
    let mut unnumbered = clients.list(2120);
    let number = [0x55, 0x1d, 0x14];
    let at = unnumbered.windows(3).position(|window| window == number).expect("a list number");
    unnumbered[at + 2] = 0x1b;
    write("delta.crl", armour("X509 CRL", &unnumbered).as_bytes());

    // Below the authority for devices.
    let below = Authority::below(&clients, "Tablets");
    write("below.pem", below.certificate.pem().as_bytes());
    write("below.crl", armour("X509 CRL", &below.list(2120)).as_bytes());
    let weak = Authority::new("Old phones", |_| {});
    write("weak-clients.pem", armour("CERTIFICATE", &with_unknown_curve(weak.certificate.der())).as_bytes());

    // A server's certificate from an intermediate, as certbot writes it: here without it, and chain.pem in its place.
    let between = Authority::below(&server_ca, "Home intermediate");
    let (lone, lone_key) = between.sign(&leaf(&server_names, ExtendedKeyUsagePurpose::ServerAuth));
    write("lone.pem", lone.pem().as_bytes());
    write("lone-key.pem", lone_key.serialize_pem().as_bytes());
    write("chain.pem", between.certificate.pem().as_bytes());
    let over =
        Authority::signed(&server_ca, "Former intermediate", |params| params.not_after = date_time_ymd(2021, 3, 4));
    let (expired, expired_key) = over.sign(&leaf(&server_names, ExtendedKeyUsagePurpose::ServerAuth));
    write("expired-chain.pem", format!("{}{}", expired.pem(), over.certificate.pem()).as_bytes());
    write("expired-chain-key.pem", expired_key.serialize_pem().as_bytes());
    let namesake = Authority::new("Home servers", |_| {});
    write("namesake.pem", format!("{}{}", server.pem(), namesake.certificate.pem()).as_bytes());
    let (lan, lan_key) = server_ca.sign(&leaf(&["lan", "*.lan"], ExtendedKeyUsagePurpose::ServerAuth));
    write("lan.pem", lan.pem().as_bytes());
    write("lan-key.pem", lan_key.serialize_pem().as_bytes());

    // A public authority, known by its name; one that is known by what it writes; and a certificate of that.
    let public = Authority::new("ISRG Root X9", |params| {
        params.distinguished_name.push(DnType::OrganizationName, "Internet Security Research Group");
    });
    write("public-root.pem", public.certificate.pem().as_bytes());
    let marked = Authority::new("Trust Services X1", |_| {});
    let mut site = leaf(&server_names, ExtendedKeyUsagePurpose::ServerAuth);
    // authorityInfoAccess: caIssuers, http://x1.example/
    let access = b"\x30\x21\x30\x1f\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x13http://x1.example/r";
    site.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access.to_vec()));
    let (site, site_key) = marked.sign(&site);
    write("marked-root.pem", marked.certificate.pem().as_bytes());
    write("public-leaf.pem", site.pem().as_bytes());
    write("public-leaf-chain.pem", format!("{}{}", site.pem(), marked.certificate.pem()).as_bytes());
    write("public-leaf-key.pem", site_key.serialize_pem().as_bytes());

    let mut mkcert = Authority::new("mkcert alice@laptop", |params| {
        params.distinguished_name.push(DnType::OrganizationName, "mkcert development CA");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    write("mkcert.pem", mkcert.certificate.pem().as_bytes());
    // Its certificate does not permit lists, so the library would refuse to make one: it has to be deceived.
    mkcert.params.key_usages.push(KeyUsagePurpose::CrlSign);
    write("mkcert.crl", armour("X509 CRL", &mkcert.list(2120)).as_bytes());
}
