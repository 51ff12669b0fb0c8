//! What `doorward init` writes, checked with OpenSSL and rustls.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use doorward::ca::{DeviceAuthority, ServerAuthority};
use doorward::cli::Format;
use doorward::cli::ca::NameConstraintsArg;
use doorward::cli::exit;
use doorward::cli::init::{self, InitArgs, RouteArg, Written};
use doorward::model::device_name::DeviceName;
use doorward::model::names::{Name, ServerName};
use doorward::pki::{Revocation, RevocationReason};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A folder that `doorward init` wrote.
struct Made {
    folder: TempDir,
    written: Written,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let written = init::create(&args(folder.path())).expect("written");
        Self { folder, written }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, args: &[&str]) -> Output {
        openssl(self.folder.path(), args)
    }
}

fn args(folder: &Path) -> InitArgs {
    InitArgs {
        domain: ServerName::parse("home.example").expect("a domain"),
        routes: vec![RouteArg {
            name: Name::parse("nas").expect("a name"),
            backend: "192.168.1.10:5666".to_owned(),
            kind: None,
        }],
        devices: vec![
            DeviceName::parse("alice-phone").expect("a name"),
            DeviceName::parse("bob-laptop").expect("a name"),
        ],
        folder: folder.to_owned(),
        public_port: 443,
        no_wildcard: false,
        listen: "[::]:8443".parse().expect("an address"),
        acme: Default::default(),
        constraints: NameConstraintsArg::default(),
        force: false,
        format: Format::Json,
    }
}

/// Runs `openssl` in `folder`.
fn openssl(folder: &Path, args: &[&str]) -> Output {
    Command::new("openssl").args(args).current_dir(folder).output().expect("openssl must be installed for this test")
}

/// The output of a program.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn accepted(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    assert!(!output.status.success(), "was accepted: {}", said(output));
    assert!(said(output).contains(why), "refused, but not for {why:?}: {}", said(output));
}

#[test]
fn openssl_accepts_the_gate_only_for_its_names() {
    let made = Made::new();
    let verify = |more: &[&str]| {
        let chain = ["verify", "-x509_strict", "-CAfile", "pki/server-ca.pem"];
        made.openssl(&[&chain[..], more, &["pki/server.pem"]].concat())
    };
    for name in ["home.example", "nas.home.example"] {
        accepted(&verify(&["-purpose", "sslserver", "-verify_hostname", name]));
    }
    refused(&verify(&["-purpose", "sslserver", "-verify_hostname", "a.nas.home.example"]), "hostname mismatch");
    refused(&verify(&["-purpose", "sslserver", "-verify_hostname", "home.example.evil"]), "hostname mismatch");
    refused(&verify(&["-purpose", "sslclient"]), "purpose");
}

#[test]
fn openssl_accepts_devices_only_as_clients() {
    let made = Made::new();
    for device in ["devices/alice-phone.pem", "devices/bob-laptop.pem"] {
        let verify = |purpose, authority| {
            made.openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", authority, device])
        };
        accepted(&verify("sslclient", "pki/clients.pem"));
        refused(&verify("sslserver", "pki/clients.pem"), "purpose");
        refused(&verify("sslclient", "pki/server-ca.pem"), "unable to get local issuer certificate");
    }
    let server = made.openssl(&["verify", "-CAfile", "pki/clients.pem", "pki/server.pem"]);
    refused(&server, "unable to get local issuer certificate");
}

#[test]
fn stolen_server_authority_impersonates_no_other_site() {
    let made = Made::new();
    accepted(&made.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "evil-key.pem"]));
    accepted(&made.openssl(&["req", "-new", "-key", "evil-key.pem", "-subj", "/", "-out", "evil.csr"]));
    let sign_and_verify = |name: &str| {
        let extensions = format!("subjectAltName = critical, {name}\nextendedKeyUsage = serverAuth\n");
        fs::write(made.path("evil.cnf"), extensions).expect("written");
        let sign = ["x509", "-req", "-in", "evil.csr", "-out", "evil.pem", "-days", "1", "-extfile", "evil.cnf"];
        let with = ["-CA", "pki/server-ca.pem", "-CAkey", "pki/server-ca-key.pem"];
        accepted(&made.openssl(&[&sign[..], &with].concat()));
        made.openssl(&["verify", "-purpose", "sslserver", "-CAfile", "pki/server-ca.pem", "evil.pem"])
    };
    // This name is accepted, so the others are rejected for their name alone.
    accepted(&sign_and_verify("DNS:other.home.example"));
    for name in ["DNS:bank.example", "DNS:home.example.evil", "DNS:evilhome.example", "DNS:*.example"] {
        refused(&sign_and_verify(name), "permitted subtree violation");
    }
    for name in ["IP:192.0.2.1", "IP:2001:db8::1"] {
        refused(&sign_and_verify(name), "excluded subtree violation");
    }
    // Mail addresses are constrained as well.
    for name in ["email:boss@bank.example", "email:x@home.example.evil"] {
        refused(&sign_and_verify(name), "permitted subtree violation");
    }
}

#[test]
fn stolen_server_authority_certifies_only_servers() {
    let made = Made::new();
    accepted(&made.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "evil-key.pem"]));
    accepted(&made.openssl(&["req", "-new", "-key", "evil-key.pem", "-subj", "/CN=Boss", "-out", "evil.csr"]));
    let extensions = "extendedKeyUsage = serverAuth, clientAuth, codeSigning, emailProtection\n";
    fs::write(made.path("evil.cnf"), extensions).expect("written");
    let sign = ["x509", "-req", "-in", "evil.csr", "-out", "evil.pem", "-days", "1", "-extfile", "evil.cnf"];
    accepted(&made.openssl(&[&sign[..], &["-CA", "pki/server-ca.pem", "-CAkey", "pki/server-ca-key.pem"]].concat()));
    let verify = |purpose| made.openssl(&["verify", "-purpose", purpose, "-CAfile", "pki/server-ca.pem", "evil.pem"]);
    accepted(&verify("sslserver"));
    for other in ["sslclient", "smimesign", "smimeencrypt", "codesign"] {
        refused(&verify(other), "purpose");
    }
}

#[test]
fn misinstalled_device_authority_certifies_no_site() {
    let made = Made::new();
    accepted(&made.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "evil-key.pem"]));
    accepted(&made.openssl(&["req", "-new", "-key", "evil-key.pem", "-subj", "/", "-out", "evil.csr"]));
    let extensions = "subjectAltName = critical, DNS:bank.example\nextendedKeyUsage = serverAuth, clientAuth\n";
    fs::write(made.path("evil.cnf"), extensions).expect("written");
    let sign = ["x509", "-req", "-in", "evil.csr", "-out", "evil.pem", "-days", "1", "-extfile", "evil.cnf"];
    accepted(&made.openssl(&[&sign[..], &["-CA", "pki/clients.pem", "-CAkey", "pki/clients-key.pem"]].concat()));
    let verify = |purpose| made.openssl(&["verify", "-purpose", purpose, "-CAfile", "pki/clients.pem", "evil.pem"]);
    accepted(&verify("sslclient"));
    refused(&verify("sslserver"), "purpose");
}

#[test]
fn openssl_opens_archives_only_with_their_password() {
    let made = Made::new();
    for device in &made.written.devices {
        let certificate = fs::read_to_string(&device.certificate).expect("a certificate");
        let key = fs::read_to_string(&device.key).expect("a key");
        let root =
            fs::read_to_string(made.written.server_authority.as_ref().expect("an authority")).expect("a certificate");
        for (archive, algorithms) in [
            (&device.archive, ["PBES2, PBKDF2, AES-256-CBC", "hmacWithSHA256", "MAC: sha256"]),
            (&device.archive_compat, ["pbeWithSHA1And3-KeyTripleDES-CBC", "Shrouded Keybag: pbeWith", "MAC: sha1"]),
        ] {
            let archive = archive.to_str().expect("UTF-8");
            let open = |password: &str, more: &[&str]| {
                let password = format!("pass:{password}");
                made.openssl(&[&["pkcs12", "-in", archive, "-passin", &password][..], more].concat())
            };
            let info = open(&device.password, &["-info", "-nodes"]);
            accepted(&info);
            // In the words of OpenSSL: base64 may have these letters as well.
            assert!(!String::from_utf8_lossy(&info.stderr).contains("RC2"), "{}", said(&info));
            let info = said(&info);
            for algorithm in algorithms {
                assert!(info.contains(algorithm), "{algorithm} is missing in {info}");
            }
            assert!(info.contains(&format!("friendlyName: {}\n", device.name)), "{info}");

            let part = |options: &[&str]| {
                let output = open(&device.password, options);
                accepted(&output);
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            let (clients, roots) = (part(&["-clcerts", "-nokeys"]), part(&["-cacerts", "-nokeys"]));
            assert!(clients.contains(certificate.trim()) && !clients.contains(root.trim()), "{clients}");
            assert!(roots.contains(root.trim()) && !roots.contains(certificate.trim()), "{roots}");
            // OpenSSL encodes private keys differently, so public keys are compared.
            fs::write(made.path("got.pem"), part(&["-nocerts", "-nodes"])).expect("written");
            fs::write(made.path("want.pem"), &key).expect("written");
            let public = |file| said(&made.openssl(&["pkey", "-in", file, "-pubout"]));
            assert!(public("want.pem").contains("BEGIN PUBLIC KEY"));
            assert_eq!(public("got.pem"), public("want.pem"));

            for wrong in ["", "changeit", &device.password.to_uppercase()] {
                refused(&open(wrong, &["-noout"]), "Mac verify error");
            }
        }
    }
}

#[test]
fn written_files_have_their_modes() {
    let made = Made::new();
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    for secret in [
        "pki/server-ca-key.pem",
        "pki/server-key.pem",
        "pki/clients-key.pem",
        "devices/alice-phone-key.pem",
        "devices/alice-phone.p12",
        "devices/alice-phone-compat.p12",
        "devices/alice-phone.mobileconfig",
    ] {
        assert_eq!(mode(&made.path(secret)), 0o600, "{secret}");
    }
    for public in ["pki/server-ca.pem", "pki/server.pem", "pki/clients.pem", "devices/alice-phone.pem", "doorward.toml"]
    {
        assert_eq!(mode(&made.path(public)), 0o644, "{public}");
    }
    for folder in ["pki", "devices"] {
        assert_eq!(mode(&made.path(folder)), 0o700, "{folder}");
    }
    for file in &made.written.files {
        assert_eq!(format!("{:04o}", mode(&file.path)), file.mode, "{}", file.path.display());
    }
    // No other files, except the inventory's copies and the lock file.
    let list = Command::new("find")
        .args([".", "-type", "f", "-not", "-name", ".lock", "-not", "-path", "*/issued/*"])
        .current_dir(made.folder.path())
        .output()
        .expect("find");
    assert_eq!(said(&list).lines().count(), made.written.files.len(), "{}", said(&list));
}

#[test]
fn init_overwrites_nothing_and_names_existing_files() {
    let made = Made::new();
    let before = fs::read(made.path("pki/clients-key.pem")).expect("a key");
    let error = init::create(&args(made.folder.path())).expect_err("it is there");
    assert_eq!(error.exit_code(), exit::EXISTS);
    assert!(error.to_string().contains("pki/server-ca.pem"), "{error}");
    assert_eq!(fs::read(made.path("pki/clients-key.pem")).expect("a key"), before);
}

#[test]
fn openssl_reads_revocation_lists() {
    let folder = tempfile::tempdir().expect("a folder");
    let devices = DeviceAuthority::new().expect("an authority");
    fs::write(folder.path().join("ca.pem"), devices.authority().certificate_pem()).expect("written");
    let [lost, kept] = ["lost", "kept"].map(|name| {
        let device = devices.issue(&DeviceName::parse(name).expect("a name")).expect("a device");
        fs::write(folder.path().join(format!("{name}.pem")), device.certificate_pem()).expect("written");
        device
    });
    assert_ne!(lost.serial(), kept.serial());
    let verify = |revoked: &[Revocation], device: &str| {
        let list = devices
            .authority()
            .revocation_list(revoked, 1, OffsetDateTime::now_utc() + Duration::days(1))
            .expect("a list");
        fs::write(folder.path().join("list.crl"), &list[..]).expect("written");
        accepted(&openssl(folder.path(), &["crl", "-inform", "DER", "-in", "list.crl", "-out", "list.pem"]));
        let check = ["verify", "-x509_strict", "-crl_check", "-CRLfile", "list.pem", "-CAfile", "ca.pem", device];
        openssl(folder.path(), &check)
    };
    let revoked =
        [Revocation { serial: lost.serial().to_vec(), at: OffsetDateTime::now_utc(), reason: RevocationReason::Lost }];
    accepted(&verify(&[], "lost.pem"));
    accepted(&verify(&revoked, "kept.pem"));
    refused(&verify(&revoked, "lost.pem"), "certificate revoked");
}

/// A handshake in memory.
fn handshake(client: ClientConfig, server: ServerConfig, name: &str) -> Result<(), rustls::Error> {
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn roots(certificate: &CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a trust anchor");
    Arc::new(roots)
}

#[test]
fn rustls_completes_a_handshake_with_what_is_issued_in_memory() {
    let servers = ServerAuthority::new(&ServerName::parse("home.example").expect("a domain")).expect("an authority");
    let devices = DeviceAuthority::new().expect("an authority");
    let strangers = DeviceAuthority::new().expect("an authority");
    let name = DeviceName::parse("alice-phone").expect("a name");
    let server = servers.issue().expect("a server");
    let server_config = || {
        let verifier = WebPkiClientVerifier::builder(roots(devices.authority().certificate())).build();
        ServerConfig::builder()
            .with_client_cert_verifier(verifier.expect("a verifier"))
            .with_single_cert(vec![server.certificate().clone()], server.key())
            .expect("the key fits")
    };
    let client_config = |authority: &DeviceAuthority| {
        let device = authority.issue(&name).expect("a device");
        ClientConfig::builder()
            .with_root_certificates(roots(servers.authority().certificate()))
            .with_client_auth_cert(vec![device.certificate().clone()], device.key())
            .expect("the key fits")
    };
    assert_eq!(handshake(client_config(&devices), server_config(), "nas.home.example"), Ok(()));
    let stranger = handshake(client_config(&strangers), server_config(), "nas.home.example");
    assert!(matches!(stranger, Err(rustls::Error::InvalidCertificate(_))), "{stranger:?}");
    let elsewhere = handshake(client_config(&devices), server_config(), "nas.home.evil");
    assert!(matches!(elsewhere, Err(rustls::Error::InvalidCertificate(_))), "{elsewhere:?}");
}

#[test]
fn rustls_completes_a_handshake_with_what_is_written() {
    let made = Made::new();
    let certificate = |name: &str| CertificateDer::from_pem_file(made.path(name)).expect("a certificate");
    let key = |name: &str| PrivateKeyDer::from_pem_file(made.path(name)).expect("a key");
    let verifier = WebPkiClientVerifier::builder(roots(&certificate("pki/clients.pem"))).build().expect("a verifier");
    let server = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate("pki/server.pem")], key("pki/server-key.pem"))
        .expect("the key fits");
    let client = ClientConfig::builder()
        .with_root_certificates(roots(&certificate("pki/server-ca.pem")))
        .with_client_auth_cert(vec![certificate("devices/alice-phone.pem")], key("devices/alice-phone-key.pem"))
        .expect("the key fits");
    assert_eq!(handshake(client, server, "home.example"), Ok(()));
}
