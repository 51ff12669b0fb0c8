//! The table of kinds: how each is made, and its verdict.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, NameConstraints, SanType,
};

use crate::common::pki::{Authority, Certified, days_from_now};
use crate::maker::{CA, Leaf, Maker, P256, V3};

/// The verdict for an admitted certificate.
pub(crate) const ACCEPTED: &str = "admitted";
const UNSUPPORTED: &str = "certificate/unsupported_key";
const INVALID: &str = "certificate/invalid";
const PURPOSE: &str = "certificate/wrong_purpose";
const UNKNOWN: &str = "certificate/unknown_ca";
const EXPIRED: &str = "certificate/expired";

/// The warnings of `doorward check` about the configuration.
pub(crate) const WARNINGS: &[&str] = &[
    "the key of the authority \"Small CA\"",
    "the key of the authority \"Ed448 CA\"",
    "the key of the authority \"K1 CA\"",
    "stale.crl expired on",
    "no revocation list of the authority \"Home CA\"",
    "between.crl is from \"CN=Between\", which is not in trust",
];

/// A kind of certificate.
pub(crate) struct Kind {
    /// Its files.
    pub(crate) name: &'static str,
    /// [`ACCEPTED`], or stage and reason.
    pub(crate) expected: &'static str,
    /// The same for the certificate alone, as `ca inspect` sees it: without issuer and lists.
    pub(crate) alone: &'static str,
    /// The name in log, explain and inspect, if that is tested.
    pub(crate) called: Option<&'static str>,
    /// The route.
    pub(crate) route: &'static str,
}

impl Kind {
    const fn new(name: &'static str, expected: &'static str) -> Self {
        Self { name, expected, alone: expected, called: None, route: "nas" }
    }

    const fn called(self, called: &'static str) -> Self {
        Self { called: Some(called), ..self }
    }

    /// The verdict depends on its issuer, its path or a list.
    const fn by_issuer(self) -> Self {
        Self { alone: ACCEPTED, ..self }
    }

    const fn on(self, route: &'static str) -> Self {
        Self { route, ..self }
    }
}

fn curve(name: &'static str) -> [&'static str; 4] {
    let parameter = match name {
        "P-384" => "ec_paramgen_curve:P-384",
        "P-521" => "ec_paramgen_curve:P-521",
        "P-224" => "ec_paramgen_curve:P-224",
        "P-192" => "ec_paramgen_curve:P-192",
        "secp256k1" => "ec_paramgen_curve:secp256k1",
        _ => "ec_paramgen_curve:brainpoolP256r1",
    };
    ["-algorithm", "EC", "-pkeyopt", parameter]
}

fn rsa(bits: &'static str) -> [&'static str; 4] {
    ["-algorithm", "RSA", "-pkeyopt", bits]
}

/// Makes every kind, in the folder of `maker`, with the authorities and lists.
pub(crate) fn make(maker: &Maker) -> Vec<Kind> {
    maker.root("ca", "/CN=Home CA", P256);
    maker.root("rsa", "/CN=RSA CA", &rsa("rsa_keygen_bits:2048"));
    maker.root("small", "/CN=Small CA", &rsa("rsa_keygen_bits:1024"));
    maker.root("ed448", "/CN=Ed448 CA", &["-algorithm", "ED448"]);
    maker.root("k1", "/CN=K1 CA", &curve("secp256k1"));
    maker.root("eded", "/CN=Ed25519 CA", &["-algorithm", "ED25519"]);
    let mut all = Vec::new();
    keys(maker, &mut all);
    signatures(maker, &mut all);
    numbers_and_dates(maker, &mut all);
    extensions(maker, &mut all);
    names(maker, &mut all);
    paths(maker, &mut all);
    issuers(maker, &mut all);
    lists(maker, &mut all);
    all
}

fn keys(maker: &Maker, all: &mut Vec<Kind>) {
    let mut one = |name, key: &[&str], expected| {
        maker.leaf(name, &Leaf { key: Some(key), ..Leaf::default() });
        all.push(Kind::new(name, expected));
    };
    one("p256", P256, ACCEPTED);
    one("p384", &curve("P-384"), ACCEPTED);
    one("p521", &curve("P-521"), ACCEPTED);
    one("ed25519", &["-algorithm", "ED25519"], ACCEPTED);
    one("rsa-2048", &rsa("rsa_keygen_bits:2048"), ACCEPTED);
    one("rsa-3072", &rsa("rsa_keygen_bits:3072"), ACCEPTED);
    let exponent = [&rsa("rsa_keygen_bits:2048")[..], &["-pkeyopt", "rsa_keygen_pubexp:3"]].concat();
    one("rsa-exponent-3", &exponent, ACCEPTED);
    one("rsa-1024", &rsa("rsa_keygen_bits:1024"), UNSUPPORTED);
    one("rsa-2040", &rsa("rsa_keygen_bits:2040"), UNSUPPORTED);
    one("rsa-pss", &["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"], UNSUPPORTED);
    one("ed448-key", &["-algorithm", "ED448"], UNSUPPORTED);
    one("secp256k1", &curve("secp256k1"), UNSUPPORTED);
    one("brainpool", &curve("brainpool"), UNSUPPORTED);
    one("p224", &curve("P-224"), UNSUPPORTED);
    one("p192", &curve("P-192"), UNSUPPORTED);
    let explicit = [P256, &["-pkeyopt", "ec_param_enc:explicit"]].concat();
    one("p256-explicit", &explicit, UNSUPPORTED);
    one("dsa", &["dsa:1024"], UNSUPPORTED);
}

fn signatures(maker: &Maker, all: &mut Vec<Kind>) {
    let mut one = |name, issuer, sign: &[&str], expected| {
        maker.leaf(name, &Leaf { issuer, sign, ..Leaf::default() });
        all.push(Kind::new(name, expected));
    };
    one("rsa-sha256", "rsa", &["-sha256"], ACCEPTED);
    one("rsa-sha384", "rsa", &["-sha384"], ACCEPTED);
    one("rsa-sha512", "rsa", &["-sha512"], ACCEPTED);
    one("rsa-sha224", "rsa", &["-sha224"], UNSUPPORTED);
    one("rsa-sha1", "rsa", &["-sha1"], UNSUPPORTED);
    one("rsa-md5", "rsa", &["-md5"], UNSUPPORTED);
    let pss = ["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"];
    one("pss-sha256", "rsa", &pss, ACCEPTED);
    one("pss-longest-salt", "rsa", &["-sha256", "-sigopt", "rsa_padding_mode:pss"], UNSUPPORTED);
    one("ecdsa-sha1", "ca", &["-sha1"], UNSUPPORTED);
    one("ecdsa-sha224", "ca", &["-sha224"], UNSUPPORTED);
    one("ecdsa-sha384", "ca", &["-sha384"], ACCEPTED);
    one("ecdsa-sha512", "ca", &["-sha512"], ACCEPTED);
    one("by-ed25519", "eded", &[], ACCEPTED);
    one("by-ed448", "ed448", &[], UNSUPPORTED);
    for (name, issuer) in [("by-rsa-1024", "small"), ("by-secp256k1", "k1")] {
        maker.leaf(name, &Leaf { issuer, sign: &["-sha256"], ..Leaf::default() });
        // The certificate alone is valid.
        all.push(Kind::new(name, UNSUPPORTED).by_issuer());
    }
}

fn numbers_and_dates(maker: &Maker, all: &mut Vec<Kind>) {
    for (name, serial) in [
        ("serial-zero", "0"),
        ("serial-negative", "-5"),
        ("serial-20-bytes", "0x7f11111111111111111111111111111111111111"),
        ("serial-21-bytes", "0x7f1111111111111111111111111111111111111111"),
    ] {
        maker.leaf(name, &Leaf { serial: Some(serial), ..Leaf::default() });
        all.push(Kind::new(name, ACCEPTED));
    }
    maker.leaf("version-1", &Leaf { extensions: None, ..Leaf::default() });
    all.push(Kind::new("version-1", INVALID));
    maker.leaf("year-2060", &Leaf { days: "13000", ..Leaf::default() });
    all.push(Kind::new("year-2060", ACCEPTED));
    for (name, from, until, expected) in [
        ("expired", -10, -1, EXPIRED),
        ("not-yet-valid", 1, 10, "certificate/not_yet_valid"),
        ("dates-swapped", 10, -10, EXPIRED),
    ] {
        let mut params = Certified::for_clients("alice");
        (params.not_before, params.not_after) = (days_from_now(from), days_from_now(until));
        maker.issue(name, "ca", params);
        all.push(Kind::new(name, expected));
    }
}

fn extensions(maker: &Maker, all: &mut Vec<Kind>) {
    let mut one = |name, extensions: &str, expected| {
        maker.leaf(name, &Leaf { extensions: Some(extensions), ..Leaf::default() });
        all.push(Kind::new(name, expected));
    };
    one("usage-none", "extendedKeyUsage=clientAuth\n", ACCEPTED);
    one("usage-key-encipherment", "keyUsage=keyEncipherment\nextendedKeyUsage=clientAuth\n", ACCEPTED);
    one("usage-cert-sign", "keyUsage=critical,keyCertSign\nextendedKeyUsage=clientAuth\n", ACCEPTED);
    one("purpose-none", "basicConstraints=CA:FALSE\n", ACCEPTED);
    one("purpose-any", "extendedKeyUsage=anyExtendedKeyUsage\n", PURPOSE);
    one("purpose-server", "extendedKeyUsage=serverAuth\n", PURPOSE);
    one("purpose-both", "extendedKeyUsage=serverAuth,clientAuth\n", ACCEPTED);
    one("purpose-critical", "extendedKeyUsage=critical,clientAuth\n", ACCEPTED);
    one("purpose-programs", "extendedKeyUsage=codeSigning\n", PURPOSE);
    one("purpose-mail", "extendedKeyUsage=emailProtection\n", PURPOSE);
    one("purpose-smartcard", "extendedKeyUsage=1.3.6.1.4.1.311.20.2.2\n", PURPOSE);
    one("constraints-absent", "keyUsage=digitalSignature\n", ACCEPTED);
    one("constraints-critical", "basicConstraints=critical,CA:FALSE\n", ACCEPTED);
    one("constraints-authority", "basicConstraints=CA:TRUE\n", INVALID);
    one("constraints-authority-and-purpose", &format!("{CA}extendedKeyUsage=clientAuth\n"), INVALID);
    one("netscape-type", "nsCertType=client\n", ACCEPTED);
    one("unknown", &format!("{V3}1.3.6.1.4.1.99999.1=DER:0500\n"), ACCEPTED);
    one("unknown-critical", &format!("{V3}1.3.6.1.4.1.99999.1=critical,DER:0500\n"), INVALID);
    one("policy-critical", &format!("{V3}policyConstraints=critical,requireExplicitPolicy:0\n"), INVALID);
    one("policy", &format!("{V3}certificatePolicies=1.2.3.4\n"), ACCEPTED);
    one("purpose-empty", "2.5.29.37=DER:3000\n", INVALID);

    one("name-garbage", &format!("{V3}2.5.29.17=DER:0500\n"), INVALID);

    let mut twice = Certified::for_clients("alice");
    twice.custom_extensions.extend(
        [1, 2].map(|value| CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 3, 0x82, 1, b'a' + value])),
    );
    maker.issue("extension-twice", "ca", twice);
    all.push(Kind::new("extension-twice", INVALID));
}

fn names(maker: &Maker, all: &mut Vec<Kind>) {
    for (name, mask, written, called) in [
        ("name-t61", "nombstr", "Björn", "Björn"),
        ("name-bmp", "MASK:0x800", "Björn", "Björn"),
        ("name-universal", "MASK:0x100", "Björn", "Björn"),
        ("name-utf8", "utf8only", "Zoë 電話", "Zoë 電話"),
        ("name-printable", "MASK:0x2", "alice", "alice"),
    ] {
        maker.leaf(name, &Leaf { mask: Some((mask, written)), ..Leaf::default() });
        all.push(Kind::new(name, ACCEPTED).called(called));
    }
    for (name, subject, san, called) in [
        ("name-mail-in-subject", "/CN=alice/emailAddress=alice@home.example", "", "alice"),
        ("name-two", "/CN=first/CN=alice", "", "alice"),
        ("name-set-of-two", "/OU=phones+CN=alice", "", "alice"),
        ("name-none-but-mail", "/", "subjectAltName=critical,email:alice@home.example\n", "alice@home.example"),
        ("san-mail", "/CN=x", "subjectAltName=email:alice@home.example\n", "alice@home.example"),
        ("san-dns", "/CN=x", "subjectAltName=DNS:phone.alice\n", "phone.alice"),
        ("san-uri", "/CN=x", "subjectAltName=URI:spiffe://home.example/alice\n", "spiffe://home.example/alice"),
        ("san-ip", "/CN=alice", "subjectAltName=IP:192.0.2.7,IP:2001:db8::7\n", "alice"),
        ("san-upn", "/CN=alice", "subjectAltName=otherName:1.3.6.1.4.1.311.20.2.3;UTF8:a@home.example\n", "alice"),
        ("san-id", "/CN=alice", "subjectAltName=RID:1.2.3.4\n", "alice"),
        ("san-directory", "/CN=alice", "subjectAltName=dirName:dn\n[dn]\nCN=other\n", "alice"),
    ] {
        maker.leaf(name, &Leaf { subject, extensions: Some(&format!("{V3}{san}")), ..Leaf::default() });
        all.push(Kind::new(name, ACCEPTED).called(called));
    }
}

fn authority(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = Authority::for_authorities(name);
    change(&mut params);
    params
}

fn paths(maker: &Maker, all: &mut Vec<Kind>) {
    let mut one = |name, issuer: &Authority, expected| {
        let certified = issuer.issue(Certified::for_clients("alice"));
        maker.write(&format!("{name}.pem"), &certified.chain_pem());
        maker.write(&format!("{name}.key"), &certified.key_pem());
        all.push(Kind::new(name, expected).by_issuer());
    };
    let home = maker.authority("ca");
    let below = |name, change: &dyn Fn(&mut CertificateParams)| home.intermediate(authority(name, change));
    let plain = below("Plain", &|_| ());
    one("path", &plain, ACCEPTED);
    one("path-of-three", &plain.intermediate(authority("Third", |_| ())), ACCEPTED);
    one("path-expired", &below("Over", &|params| params.not_after = days_from_now(-1) + time::Duration::HOUR), EXPIRED);
    let short = below("Short", &|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    one("path-too-long", &short.intermediate(authority("Below", |_| ())), INVALID);
    one("path-as-long-as-permitted", &short, ACCEPTED);
    one("path-by-a-device", &below("alice", &|params| params.is_ca = IsCa::ExplicitNoCa), INVALID);
    let servers =
        &|params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    one("path-for-servers", &below("Servers", servers), PURPOSE);

    // The same without the intermediate, with one more than needed, and in another order.
    let certified = plain.issue(Certified::for_clients("alice"));
    let blocks: Vec<String> =
        certified.chain_pem().split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
    let [leaf, between] = &blocks[..] else { panic!("{} certificates", blocks.len()) };
    let (root, needless) = (maker.read("ca.pem"), maker.read("rsa.pem"));
    for (name, chain, expected) in [
        ("path-missing", vec![leaf], UNKNOWN),
        ("path-with-root", vec![leaf, between, &root], ACCEPTED),
        ("path-backwards", vec![leaf, &root, between], ACCEPTED),
        ("path-needless", vec![leaf, &needless, between], ACCEPTED),
        ("path-twice", vec![leaf, between, between], ACCEPTED),
    ] {
        maker.write(&format!("{name}.pem"), &chain.into_iter().map(String::as_str).collect::<String>());
        maker.write(&format!("{name}.key"), &certified.key_pem());
        all.push(Kind::new(name, expected).by_issuer());
    }

    // Two intermediates with one name and one key: only one of them is signed by an authority in trust.
    maker.root("stranger", "/CN=Stranger", P256);
    maker.key("crossed", P256);
    for (name, issuer) in [("crossed-a", "stranger"), ("crossed-b", "ca")] {
        maker.leaf(name, &Leaf { subject: "/CN=Crossed", extensions: Some(CA), issuer, ..Leaf::default() });
    }
    maker.write("crossed-b.key", &maker.read("shared.key"));
    maker.leaf("path-crossed", &Leaf { issuer: "crossed-b", ..Leaf::default() });
    maker.behind("path-crossed", &["crossed-a", "crossed-b"]);
    all.push(Kind::new("path-crossed", ACCEPTED).by_issuer());

    // Intermediates with unsupported keys, or unsupported signatures.
    let small = rsa("rsa_keygen_bits:1024");
    let weak = Leaf { subject: "/CN=Weak", extensions: Some(CA), key: Some(&small), ..Leaf::default() };
    maker.leaf("weak", &weak);
    maker.leaf("path-rsa-1024", &Leaf { issuer: "weak", sign: &["-sha256"], ..Leaf::default() });
    maker.behind("path-rsa-1024", &["weak"]);
    maker.leaf("sha1", &Leaf { subject: "/CN=Sha1", extensions: Some(CA), sign: &["-sha1"], ..Leaf::default() });
    maker.leaf("path-sha1", &Leaf { issuer: "sha1", ..Leaf::default() });
    maker.behind("path-sha1", &["sha1"]);
    let ed448 =
        Leaf { subject: "/CN=Ed448", extensions: Some(CA), key: Some(&["-algorithm", "ED448"]), ..Leaf::default() };
    maker.leaf("between-ed448", &ed448);
    maker.leaf("path-ed448", &Leaf { issuer: "between-ed448", ..Leaf::default() });
    maker.behind("path-ed448", &["between-ed448"]);
    all.push(Kind::new("path-rsa-1024", UNSUPPORTED).by_issuer());
    all.push(Kind::new("path-sha1", UNSUPPORTED).by_issuer());
    all.push(Kind::new("path-ed448", UNSUPPORTED));

    // Name constraints, of an intermediate and of an anchor.
    let bounded = |params: &mut CertificateParams| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("phones.example".into())],
            excluded_subtrees: Vec::new(),
        });
    };
    let anchor = Authority::custom(authority("Bounded CA", bounded));
    maker.write("bounded.pem", anchor.pem());
    for (issuer, names) in
        [(&below("Bounded", &bounded), ["bound-in", "bound-out"]), (&anchor, ["anchor-in", "anchor-out"])]
    {
        for (name, dns, expected) in
            [(names[0], "alice.phones.example", ACCEPTED), (names[1], "alice.laptops.example", INVALID)]
        {
            let mut params = Certified::for_clients("alice");
            params.distinguished_name.push(DnType::CommonName, "alice");
            params.subject_alt_names = vec![SanType::DnsName(dns.try_into().unwrap())];
            let certified = issuer.issue(params);
            maker.write(&format!("{name}.pem"), &certified.chain_pem());
            maker.write(&format!("{name}.key"), &certified.key_pem());
            all.push(Kind::new(name, expected).by_issuer());
        }
    }
}

fn issuers(maker: &Maker, all: &mut Vec<Kind>) {
    // A new root of the same name: certificates of the old one cannot be told from forgeries.
    maker.root("forged", "/CN=Home CA", P256);
    maker.root("forged-rsa", "/CN=Home CA", &rsa("rsa_keygen_bits:2048"));
    for (name, issuer) in [("by-stranger", "stranger"), ("by-namesake", "forged"), ("by-namesake-rsa", "forged-rsa")] {
        maker.leaf(name, &Leaf { issuer, sign: &["-sha256"], ..Leaf::default() });
        all.push(Kind::new(name, UNKNOWN).by_issuer());
    }
    let key = KeyPair::generate().unwrap();
    let own = Certified::for_clients("alice").self_signed(&key).unwrap();
    maker.write("by-itself.pem", &own.pem());
    maker.write("by-itself.key", &key.serialize_pem());
    all.push(Kind::new("by-itself", UNKNOWN).by_issuer());
    // An unknown authority with an unsupported key: the unknown authority is reported.
    maker.leaf(
        "by-stranger-rsa-1024",
        &Leaf { issuer: "stranger", key: Some(&rsa("rsa_keygen_bits:1024")), ..Leaf::default() },
    );
    all.push(Kind { alone: UNSUPPORTED, ..Kind::new("by-stranger-rsa-1024", UNKNOWN) });
    maker.root("by-itself-as-authority", "/CN=alice", P256);
    all.push(Kind::new("by-itself-as-authority", INVALID));
}

fn lists(maker: &Maker, all: &mut Vec<Kind>) {
    let number = |serial: u64| {
        let mut params = Certified::for_clients("alice");
        params.serial_number = Some(serial.into());
        params
    };
    maker.list("ca", "ca", &[0x51], 30);
    maker.list("stale", "ca", &[], -1);
    for (name, serial, route, expected) in [
        ("list-revoked", 0x51, "listed", "certificate/revoked"),
        ("list-good", 0x52, "listed", ACCEPTED),
        ("list-stale", 0x53, "stale", "certificate/revocation_list_expired"),
        ("list-none", 0x54, "unlisted", "certificate/revocation_unknown"),
        ("list-none-for-leaf", 0x55, "leaf", "certificate/revocation_unknown"),
    ] {
        maker.issue(name, "ca", number(serial));
        all.push(Kind::new(name, expected).by_issuer().on(route));
    }
    // A root, an intermediate with a list of its own, and devices below it.
    maker.leaf("between", &Leaf { subject: "/CN=Between", extensions: Some(CA), ..Leaf::default() });
    maker.list("between", "between", &[0x61], 30);
    for (name, serial, route, expected) in [
        ("list-below-revoked", 0x61, "listed", "certificate/revoked"),
        ("list-below-good", 0x62, "listed", ACCEPTED),
        ("list-below-root-unlisted", 0x63, "unlisted", "certificate/revocation_unknown"),
        ("list-below-leaf-revoked", 0x61, "leaf", "certificate/revoked"),
        ("list-below-leaf-good", 0x64, "leaf", ACCEPTED),
    ] {
        maker.issue(name, "between", number(serial));
        maker.behind(name, &["between"]);
        all.push(Kind::new(name, expected).by_issuer().on(route));
    }
}
