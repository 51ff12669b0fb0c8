//! What a client that is not ours makes of a connection that the gate closes: OpenSSL, with both versions of TLS.

use std::io::{Read, Write};
use std::process::{Child, Stdio};

use rcgen::SerialNumber;

use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::tool;
use crate::scene::NAS;

/// `openssl s_client` with a connection that has worked.
fn s_client(gate: &Gate, pki: &TestPki, certified: &Certified, version: &str) -> Child {
    let certificate = pki.write("openssl.pem", certified.chain_pem());
    let key = pki.write("openssl-key.pem", certified.key_pem());
    let mut openssl = tool("openssl", "openssl");
    openssl.args(["s_client", "-quiet", "-verify_return_error", version, "-servername", NAS]);
    openssl.args(["-connect", &gate.address().to_string()]).arg("-CAfile").arg(pki.path("servers.pem"));
    openssl.arg("-cert").arg(certificate).arg("-key").arg(key);
    let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"open").unwrap();
    let mut answer = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"open");
    child
}

/// What it says at its end. Its input stays open.
fn end(mut child: Child) -> String {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "no byte behind the answer");
    child.wait().unwrap();
    said
}

#[test]
fn openssl_names_the_alert_of_a_cut() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let mut params = Certified::for_clients("alice");
    params.serial_number = Some(SerialNumber::from(7));
    let alice = pki.clients.issue(params);
    // Only the signal reloads it: it is the reply to that which is looked at.
    let config = |before: &str, client_auth: &str, allow: &str| {
        format!(
            "watch = \"off\"\n{before}{LOCAL}{}{client_auth}\n[[route]]\nname = \"nas\"\nserver_names = [\"{NAS}\"]\nbackends = \
             [\"{}\"]\nallow = [{allow:?}]\n",
            pki.config(),
            backend.address()
        )
    };
    let list = pki.clients.revocation_list(&[SerialNumber::from(7)], days_from_now(-1), days_from_now(1));
    let revoking = format!("revocation_lists = [{:?}]", pki.write("revoking.crl", list));
    let gate = Gate::start(&config("", "", "any"));
    for version in ["-tls1_3", "-tls1_2"] {
        for (after, said) in [
            (config("", &revoking, "any"), "alert certificate revoked"),
            (config("", "", "bob"), "alert access denied"),
        ] {
            let open = s_client(&gate, &pki, &alice, version);
            assert_eq!(gate.reload(&after)["sessions_cut"], 1);
            let told = end(open);
            assert!(told.contains(said), "{version}: {told}");
            gate.reload(&config("", "", "any"));
        }
        // A time limit has no alert, and is no orderly end either.
        gate.reload(&config("[timeouts]\nidle = \"1s\"\n", "", "any"));
        let told = end(s_client(&gate, &pki, &alice, version));
        assert!(told.contains("unexpected eof while reading"), "{version}: {told}");
        gate.reload(&config("", "", "any"));
    }
}
