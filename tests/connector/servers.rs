//! The same beside servers of other programs, which ask for a certificate as the gate does: what works with `openssl s_client` works with
//! `doorward connect`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rcgen::SignatureAlgorithm;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Authority, Certified, TestPki};
use crate::common::process::{Daemon, own_loopback, run_with_open_input, tool};
use crate::common::tls_backend;
use crate::matrix::{Case, KINDS, LENGTH, NAME, key, plain_gate, service};
use crate::scene::{DEVICE, Running, Scene, doorward, noise};

/// A server that is no gate, which asks for a certificate of the device.
fn other_server(pki: &TestPki, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&pki.clients)).unwrap();
    let server = pki.servers.issue(Certified::for_servers(&[NAME]));
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let config = ServerConfig::builder_with_protocol_versions(versions).with_client_cert_verifier(verifier);
    Arc::new(config.with_single_cert(server.chain(), server.key()).unwrap())
}

fn certificate(authority: &Authority) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()
}

fn echo_all(config: &Arc<ServerConfig>) -> Backend {
    tls_backend::serve((**config).clone(), |tls| {
        let (mut all, mut part) = (Vec::new(), vec![0; 1 << 16]);
        while all.len() < LENGTH {
            match tls.read(&mut part) {
                Ok(count @ 1..) => all.extend_from_slice(&part[..count]),
                _ => return,
            }
        }
        let _ = tls.write_all(&all);
    })
}

#[test]
fn servers_of_one_version_with_keys_of_every_kind() {
    let pki = TestPki::new();
    for (protocol, versions) in [("1.2", [&version::TLS12]), ("1.3", [&version::TLS13])] {
        let server = echo_all(&other_server(&pki, &versions));
        for (kind, algorithm) in KINDS {
            let device = pki.clients.issue_for_key(Scene::device(), key(algorithm));
            let what = format!("TLS {protocol}, {kind}");
            Case::new(&what, &pki, &device, server.address()).works();
        }
    }
}

#[test]
fn servers_with_one_key_exchange() {
    use rustls::crypto::aws_lc_rs::{self, kx_group};
    let pki = TestPki::new();
    let device = pki.client(DEVICE);
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&pki.clients)).unwrap();
    let roots = Arc::new(roots);
    // The first one OpenSSL 3.0 has not.
    for (what, group, by_openssl) in [
        ("X25519MLKEM768", kx_group::X25519MLKEM768, false),
        ("X25519", kx_group::X25519, true),
        ("P-256", kx_group::SECP256R1, true),
        ("P-384", kx_group::SECP384R1, true),
    ] {
        let provider =
            Arc::new(rustls::crypto::CryptoProvider { kx_groups: vec![group], ..aws_lc_rs::default_provider() });
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build().unwrap();
        let server = pki.servers.issue(Certified::for_servers(&[NAME]));
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_client_cert_verifier(verifier).with_single_cert(server.chain(), server.key()).unwrap();
        let server = echo_all(&Arc::new(config));
        let case = Case::new(what, &pki, &device, server.address());
        if by_openssl {
            case.works();
        } else {
            let sent = noise(LENGTH, 9);
            assert!(run_with_open_input(&mut case.connect(), &sent).success().stdout == sent, "{what}");
        }
    }
}

/// Files for a server of another program.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

impl Files {
    fn new(pki: &TestPki, kind: &'static SignatureAlgorithm) -> Self {
        let server = pki.servers.issue_for_key(Certified::for_servers(&[NAME]), key(kind));
        let both = server.chain_pem() + &server.key_pem();
        Self {
            certificate: pki.write("other.pem", &both),
            key: pki.write("other-key.pem", server.key_pem()),
            authority: pki.path("clients.pem"),
        }
    }
}

#[test]
fn servers_of_other_programs() {
    let (pki, service) = (TestPki::new(), service());
    let device = pki.client(DEVICE);
    for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256] {
        let Files { certificate, key, authority } = Files::new(&pki, kind);
        let [certificate, key, authority] = [certificate, key, authority].map(|file| file.display().to_string());
        for (stunnel, haproxy, nginx) in
            [("TLSv1.2", "ssl-max-ver TLSv1.2", "TLSv1.2"), ("TLSv1.3", "ssl-min-ver TLSv1.3", "TLSv1.3")]
        {
            let address = || SocketAddrV4::new(own_loopback(), 8443);
            let backend = service.address();

            let front = address();
            let case = Case::new("stunnel", &pki, &device, front.into());
            let home = case.folder();
            let config = format!(
                "foreground = yes\npid =\n[echo]\naccept = {front}\nconnect = {backend}\ncert = {certificate}\n\
                 CAfile = {authority}\nverifyChain = yes\nsslVersion = {stunnel}\n"
            );
            fs::write(home.join("stunnel.conf"), config).unwrap();
            let daemon = Daemon::start(tool("stunnel4", "stunnel4").arg(home.join("stunnel.conf")), front);
            case.works();
            drop(daemon);

            let front = address();
            let case = Case::new("HAProxy", &pki, &device, front.into());
            let home = case.folder();
            let config = format!(
                "defaults\nmode tcp\ntimeout connect 5s\ntimeout client 30s\ntimeout server 30s\nlisten front\n\
                 bind {front} ssl crt {certificate} ca-file {authority} verify required {haproxy}\nserver echo {backend}\n"
            );
            fs::write(home.join("haproxy.cfg"), config).unwrap();
            let mut command = tool("haproxy", "haproxy");
            let daemon = Daemon::start(command.arg("-db").arg("-f").arg(home.join("haproxy.cfg")), front);
            case.works();
            drop(daemon);

            let front = address();
            let case = Case::new("nginx", &pki, &device, front.into());
            let home = case.folder();
            let folder = home.display();
            let config = format!(
                "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\npid {folder}/pid;\n\
                 error_log {folder}/error.log;\nevents {{}}\nstream {{\nserver {{\nlisten {front} ssl;\nproxy_pass {backend};\n\
                 ssl_certificate {certificate};\nssl_certificate_key {key};\nssl_client_certificate {authority};\n\
                 ssl_verify_client on;\nssl_protocols {nginx};\n}}\n}}\n"
            );
            fs::write(home.join("nginx.conf"), config).unwrap();
            let mut command = tool("nginx", "nginx");
            let daemon = Daemon::start(command.arg("-c").arg(home.join("nginx.conf")).args(["-e", "stderr"]), front);
            case.works();
            drop(daemon);
        }
    }
}

#[test]
fn passthrough_routes_lead_to_a_server_that_asks_for_the_same_certificate() {
    let pki = TestPki::new();
    let device = pki.client(DEVICE);
    let server = echo_all(&other_server(&pki, &[&version::TLS13, &version::TLS12]));
    let gate = Gate::start(&format!(
        "{LOCAL}\n[[route]]\nname = \"echo\"\nserver_names = [\"{NAME}\"]\nmode = \"passthrough\"\nbackends = [\"{}\"]\n",
        server.address()
    ));
    Case::new("passthrough", &pki, &device, gate.address()).works();
}

/// stunnel in client mode and `doorward forward`, with the same files.
#[test]
fn stunnel_and_forward_on_local_ports() {
    let (pki, service) = (TestPki::new(), service());
    let gate = plain_gate(&pki, &service);
    let device = pki.clients.issue_for_key(Scene::device(), key(&rcgen::PKCS_RSA_SHA256));
    let case = Case::new("stunnel as a client", &pki, &device, gate.address());
    let home = case.folder();
    fs::write(home.join("device.pem"), device.chain_pem()).unwrap();
    fs::write(home.join("device-key.pem"), device.key_pem()).unwrap();
    let local = SocketAddrV4::new(own_loopback(), 4450);
    let config = format!(
        "foreground = yes\npid =\n[echo]\nclient = yes\naccept = {local}\nconnect = {}\nsni = {NAME}\ncheckHost = {NAME}\n\
         verifyChain = yes\nCAfile = {}\ncert = {}\nkey = {}\n",
        gate.address(),
        pki.path("servers.pem").display(),
        home.join("device.pem").display(),
        home.join("device-key.pem").display(),
    );
    fs::write(home.join("stunnel.conf"), config).unwrap();
    let _stunnel = Daemon::start(tool("stunnel4", "stunnel4").arg(home.join("stunnel.conf")), local);
    let file = home.join("alice-laptop.doorward");
    fs::write(&file, case.bundle().to_text()).unwrap();
    let mut forward = Running::start(&mut doorward(&["forward", "echo=0"], &file));
    forward.wait_for("echo on ");
    let forwarded = forward.errors();
    let forwarded =
        forwarded.lines().find_map(|line| line.strip_prefix("echo on ")?.parse::<SocketAddr>().ok()).unwrap();
    for address in [SocketAddr::from(local), forwarded] {
        let mut stream = TcpStream::connect(address).unwrap();
        let sent = noise(LENGTH, 10);
        let mut writer = stream.try_clone().unwrap();
        let to_send = sent.clone();
        let sender = thread::spawn(move || writer.write_all(&to_send));
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        sender.join().unwrap().unwrap();
        assert!(back == sent, "{address}: {} bytes", back.len());
    }
    gate.wait_closed("echo", 2);
}
