//! The name constraints of the server authority, as TLS libraries enforce them: each rejects a certificate for another site
//! that was signed with a stolen key.

use crate::common::process::{Daemon, Finished, own_loopback, run, tool};
use crate::home::Home;

/// A name in the domain: it is accepted, so the others are rejected for their name alone.
const INSIDE: &str = "other.home.example";
/// A name outside the domain.
const OUTSIDE: &str = "bank.example";

/// Authorities, and a certificate for each of the two names: `NAME.pem`, all with `key.pem`.
fn stolen() -> Home {
    let home = Home::with_authorities();
    let key = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"];
    home.openssl(&[&key[..], &["-keyout", "key.pem", "-out", "request.pem"]].concat()).success();
    for name in [INSIDE, OUTSIDE] {
        let extensions =
            format!("basicConstraints = CA:FALSE\nsubjectAltName = DNS:{name}\nextendedKeyUsage = serverAuth\n");
        std::fs::write(home.path("extensions"), extensions).unwrap();
        let sign = ["x509", "-req", "-in", "request.pem", "-days", "30", "-extfile", "extensions", "-CA"];
        let with = ["pki/server-ca.pem", "-CAkey", "pki/server-ca-key.pem", "-out", &format!("{name}.pem")];
        home.openssl(&[&sign[..], &with[..]].concat()).success();
    }
    home
}

fn in_home(home: &Home, program: &str, package: &str, arguments: &[&str]) -> Finished {
    run(tool(program, package).current_dir(home.path("")).args(arguments))
}

/// An NSS database that trusts the server authority, as browsers have one.
fn nss(home: &Home, folder: &str) {
    std::fs::create_dir_all(home.path(folder)).unwrap();
    let database = format!("sql:{folder}");
    in_home(home, "certutil", "libnss3-tools", &["-N", "--empty-password", "-d", &database]).success();
    let trust = ["-A", "-d", &database, "-t", "C,,", "-n", "doorward", "-i", "pki/server-ca.pem"];
    in_home(home, "certutil", "libnss3-tools", &trust).success();
}

#[test]
fn openssl_rejects_another_site() {
    let home = stolen();
    let verify = |name: &str| {
        let file = format!("{name}.pem");
        home.openssl(&[
            "verify",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            name,
            "-CAfile",
            "pki/server-ca.pem",
            &file,
        ])
    };
    verify(INSIDE).success();
    let refused = verify(OUTSIDE).failure();
    assert!(refused.stderr.contains("permitted subtree violation"), "{refused}");
}

#[test]
fn gnutls_rejects_another_site() {
    let home = stolen();
    let verify = |name: &str| {
        let file = format!("{name}.pem");
        let arguments =
            ["--verify", "--verify-hostname", name, "--load-ca-certificate", "pki/server-ca.pem", "--infile", &file];
        in_home(&home, "certtool", "gnutls-bin", &arguments)
    };
    let accepted = verify(INSIDE).success();
    assert!(accepted.text().contains("Verified. The certificate is trusted."), "{accepted}");
    let refused = verify(OUTSIDE).failure();
    assert!(refused.text().contains("violates the signer's constraints"), "{refused}");
}

#[test]
fn nss_rejects_another_site() {
    let home = stolen();
    nss(&home, "nss");
    let verify = |name: &str| {
        let (file, database) = (format!("{name}.pem"), "sql:nss");
        let add = ["-A", "-d", database, "-t", ",,", "-n", name, "-i", &file];
        in_home(&home, "certutil", "libnss3-tools", &add).success();
        in_home(&home, "certutil", "libnss3-tools", &["-V", "-d", database, "-u", "V", "-n", name])
    };
    verify(INSIDE).success();
    let refused = verify(OUTSIDE).failure();
    assert!(refused.text().contains("is not permitted to issue a certificate with this name"), "{refused}");
}

#[test]
fn chromium_rejects_another_site() {
    let home = stolen();
    nss(&home, ".pki/nssdb");
    let visit = |name: &str| {
        let address = own_loopback();
        let listen = format!("{address}:8443");
        let mut server = tool("openssl", "openssl");
        server.current_dir(home.path("")).args(["s_server", "-www", "-quiet", "-accept", &listen, "-key", "key.pem"]);
        server.args(["-cert", &format!("{name}.pem")]);
        let _server = Daemon::start(&mut server, std::net::SocketAddrV4::new(address, 8443));
        let mut chromium = tool("chromium", "chromium");
        chromium.current_dir(home.path("")).env("HOME", home.path("")).args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--dump-dom",
        ]);
        for variable in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            chromium.env_remove(variable);
        }
        chromium.arg(format!("--user-data-dir={}", home.path("profile").display()));
        chromium.arg(format!("--host-resolver-rules=MAP {name} {address}"));
        run(chromium.arg(format!("https://{name}:8443/")))
    };
    let page = visit(INSIDE).success();
    assert!(page.text().contains("Secure Renegotiation"), "{page}");
    let refused = visit(OUTSIDE);
    assert!(!refused.text().contains("Secure Renegotiation"), "{refused}");
    // An unknown authority would be ERR_CERT_AUTHORITY_INVALID.
    assert!((refused.text() + &refused.stderr).contains("ERR_CERT_INVALID"), "{refused}");
}

#[test]
fn unconstrained_authority_has_no_unknown_critical_extension() {
    let home = Home::new();
    let made = home.ca(&["init", "--domain", "home.example", "--no-name-constraints", "--device", "alice"]).success();
    assert!(made.stderr.contains("warning: server-ca.pem has no name constraints"), "{made}");
    assert!(!made.stderr.contains("and nothing else"), "{made}");
    let text = |home: &Home| {
        home.openssl(&["x509", "-in", "pki/server-ca.pem", "-noout", "-text", "-certopt", "ext_parse"]).success().text()
    };
    // The critical extensions that Mbed TLS knows. It rejects all others.
    let critical = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.trim().strip_suffix(": critical"));
        lines.map(|name| name.trim_start_matches("X509v3 ").to_owned()).collect()
    };
    let mut without = critical(&text(&home));
    without.sort();
    assert_eq!(without, ["Basic Constraints", "Key Usage"]);
    assert!(!text(&home).contains("Name Constraints"));
    // The gate's certificate is for the same names, and can be renewed.
    home.ca(&["renew", "--server"]).not_proved();
    home.openssl(&["verify", "-CAfile", "pki/server-ca.pem", "pki/server.pem"]).success();
    assert!(critical(&text(&Home::with_authorities())).contains(&"Name Constraints".to_owned()));
}
