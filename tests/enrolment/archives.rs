//! Both archives, read by the programs that they are for. Each opens them with the password, finds the device's certificate
//! and key, and does not open them with another password.

use std::path::Path;
use std::process::Command;

use crate::common::backend::Backend;
use crate::common::process::{Finished, run, run_with_input};
use crate::home::{ARCHIVES, Home, PAGE, der};

/// Passwords that no archive has.
const WRONG: [&str; 2] = ["changeit", ""];

/// Runs a reader on both archives with the right password, and on each with wrong ones.
#[track_caller]
fn each(home: &Home, read: impl Fn(&Path, &str) -> Command, check: impl Fn(&str, Finished)) {
    for field in ARCHIVES {
        let archive = home.file(field);
        check(field, run(&mut read(&archive, home.password())).success());
        for wrong in WRONG {
            run(&mut read(&archive, wrong)).failure();
        }
    }
}

/// The PEM of the device's certificate as one line of base64.
fn certificate(home: &Home) -> String {
    base64(&std::fs::read_to_string(home.file("certificate")).unwrap())
}

/// The first PEM block of a text as one line of base64.
#[track_caller]
fn base64(text: &str) -> String {
    let (_, block) =
        text.split_once("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("no certificate in {text}"));
    block.split_once("-----END").unwrap().0.split_whitespace().collect()
}

#[test]
fn openssl_reads_both_with_and_without_legacy_provider() {
    let home = Home::new();
    for legacy in [&[][..], &["-legacy"]] {
        let read = |archive: &Path, password: &str| {
            let mut openssl = home.tool("openssl", "openssl");
            openssl.args(["pkcs12", "-info", "-nodes"]).args(legacy).arg("-in").arg(archive);
            openssl.args(["-passin", &format!("pass:{password}")]);
            openssl
        };
        each(&home, read, |field, info| {
            let shown = format!("{}{}", info.text(), info.stderr);
            let (mac, encryption, iterations) = match field {
                "archive" => {
                    ("MAC: sha256", "PBES2, PBKDF2, AES-256-CBC, Iteration 10000, PRF hmacWithSHA256", "10000")
                }
                _ => ("MAC: sha1", "pbeWithSHA1And3-KeyTripleDES-CBC, Iteration 2048", "2048"),
            };
            assert!(shown.contains(&format!("{mac}, Iteration {iterations}")), "{shown}");
            // Once for the key and once for the certificates.
            assert_eq!(shown.matches(encryption).count(), 2, "{shown}");
            // In the words of OpenSSL: base64 may have these letters as well.
            assert!(!info.stderr.contains("RC2"), "{shown}");
            assert_eq!(base64(&info.text()), certificate(&home));
            assert_eq!(shown.matches("BEGIN PRIVATE KEY").count(), 1, "{shown}");
            assert_eq!(shown.matches("BEGIN CERTIFICATE").count(), 2, "the device's and the authority's: {shown}");
        });
    }
}

#[test]
fn nss_pk12util_reads_and_imports_both() {
    let home = Home::new();
    let database = home.nss_store();
    let read = |archive: &Path, password: &str| {
        let mut pk12util = home.tool("pk12util", "libnss3-tools");
        pk12util.args(["-d", &database, "-K", "", "-W", password, "-l"]).arg(archive);
        pk12util
    };
    each(&home, read, |_, list| {
        let list = list.text();
        assert!(list.contains("Friendly Name: alice-phone"), "{list}");
        assert!(
            list.contains("Subject: \"CN=alice-phone\"") && list.contains(&format!("\"CN={}\"", home.authority_name())),
            "{list}"
        );
    });
    // And imports them into the store that browsers use.
    let import = |archive: &Path, password: &str| {
        let mut pk12util = home.tool("pk12util", "libnss3-tools");
        pk12util.args(["-d", &database, "-K", "", "-W", password, "-i"]).arg(archive);
        pk12util
    };
    each(&home, import, |_, _| {
        let keys = run(home.tool("certutil", "libnss3-tools").args(["-K", "-d", &database])).success().text();
        assert!(keys.contains("alice-phone"), "{keys}");
        let mut remove = home.tool("certutil", "libnss3-tools");
        run(remove.args(["-F", "-d", &database, "-n", "CN=alice-phone"])).success();
    });
}

#[test]
fn gnutls_certtool_reads_both() {
    let home = Home::new();
    let read = |archive: &Path, password: &str| {
        let mut certtool = home.tool("certtool", "gnutls-bin");
        certtool.args(["--p12-info", "--inder", "--password", password, "--infile"]).arg(archive);
        certtool
    };
    each(&home, read, |field, info| {
        let shown = format!("{}{}", info.text(), info.stderr);
        let algorithms = match field {
            "archive" => ["MAC: SHA256", "Cipher: AES-256-CBC", "Schema: PBES2-AES256-CBC"],
            _ => ["MAC: SHA1", "Cipher: 3DES-CBC", "Schema: PKCS12-3DES-SHA1"],
        };
        for algorithm in algorithms {
            assert!(shown.contains(algorithm), "{algorithm} is missing in {shown}");
        }
        assert!(shown.contains("BEGIN PRIVATE KEY") || shown.contains("BEGIN ENCRYPTED PRIVATE KEY"), "{shown}");
        assert_eq!(base64(&shown), certificate(&home), "{shown}");
    });
}

#[test]
fn java_keytool_reads_and_copies_both() {
    let home = Home::new();
    for field in ARCHIVES {
        let archive = home.file(field);
        let keytool = |password: &str, more: &[&str]| {
            let mut keytool = home.tool("keytool", "openjdk-17-jre-headless");
            // By default, Java takes the home from the user database.
            keytool.arg(format!("-J-Duser.home={}", home.path("").display()));
            keytool.args(more).arg(&archive).args(["-storetype", "PKCS12"]);
            if more.contains(&"-srckeystore") {
                keytool.args(["-srcstorepass", password, "-deststorepass", "another-password"]);
            } else {
                keytool.args(["-storepass", password]);
            }
            keytool
        };
        let list = ["-list", "-v", "-keystore"];
        let listed = run(&mut keytool(home.password(), &list)).success().text();
        for needed in ["Alias name: alice-phone", "Entry type: PrivateKeyEntry", "Owner: CN=alice-phone"] {
            assert!(listed.contains(needed), "{needed} is missing in {listed}");
        }
        for wrong in WRONG {
            run_with_input(&mut keytool(wrong, &list), b"\n").failure();
        }
        // A copy needs the decrypted key.
        let copy = format!("{field}.copy");
        let import = ["-importkeystore", "-noprompt", "-destkeystore", &copy, "-srckeystore"];
        run(&mut keytool(home.password(), &import)).success();
        let mut openssl = home.tool("openssl", "openssl");
        let opened =
            run(openssl.args(["pkcs12", "-nodes", "-passin", "pass:another-password", "-in", &copy])).success();
        assert!(opened.text().contains("BEGIN PRIVATE KEY"), "{opened}");
        assert_eq!(base64(&opened.text()), certificate(&home));
    }
}

/// Prints what `cryptography` finds in argv[1] with the password argv[2], and whether the key is the certificate's.
const PYTHON: &str = r#"
import sys
from cryptography.hazmat.primitives.serialization import pkcs12, Encoding, PublicFormat
archive = pkcs12.load_pkcs12(open(sys.argv[1], "rb").read(), sys.argv[2].encode())
public = lambda key: key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
assert public(archive.key.public_key()) == public(archive.cert.certificate.public_key())
print(archive.cert.friendly_name.decode() if archive.cert.friendly_name else None)
print(archive.cert.certificate.subject.rfc4514_string())
for other in archive.additional_certs:
    print(other.certificate.subject.rfc4514_string())
"#;

#[test]
fn python_cryptography_reads_both() {
    let home = Home::new();
    let read = |archive: &Path, password: &str| {
        let mut python = home.tool("python3", "python3-cryptography");
        python.args(["-c", PYTHON]).arg(archive).arg(password);
        python
    };
    each(&home, read, |_, found| {
        let lines: Vec<String> = found.text().lines().skip(1).map(str::to_owned).collect();
        assert_eq!(lines, ["CN=alice-phone".to_owned(), format!("CN={}", home.authority_name())], "{found}");
    });
}

#[test]
fn curl_is_admitted_with_either() {
    let home = Home::new();
    let (nas, ssh) = (Backend::http(PAGE), Backend::echo());
    let gate = home.gate(&nas, &ssh);
    let url = format!("https://nas.home.example:{}/", gate.address().port());
    let read = |archive: &Path, password: &str| {
        let mut curl = home.tool("curl", "curl");
        curl.args(["--silent", "--show-error", "--resolve"]);
        curl.arg(format!("nas.home.example:{}:{}", gate.address().port(), gate.address().ip()));
        curl.arg("--cacert").arg(home.folder().join("devices/server-ca.crt"));
        curl.args(["--cert-type", "P12", "--cert"]).arg(format!("{}:{password}", archive.display())).arg(&url);
        curl
    };
    each(&home, read, |_, got| assert_eq!(got.text(), PAGE));
    for closed in gate.wait_closed("nas", 2) {
        assert_eq!(closed["certificate"]["name"], "alice-phone", "{closed}");
    }
}

#[test]
fn chromium_is_admitted_with_either() {
    for field in ARCHIVES {
        let home = Home::new();
        let (nas, ssh) = (Backend::http(PAGE), Backend::echo());
        let gate = home.gate(&nas, &ssh);
        let database = home.nss_store();
        let mut pk12util = home.tool("pk12util", "libnss3-tools");
        pk12util.args(["-d", &database, "-K", "", "-W", home.password(), "-i"]).arg(home.file(field));
        run(&mut pk12util).success();
        // The archive brings the authority; NSS needs to be told that it may vouch for sites.
        let mut certutil = home.tool("certutil", "libnss3-tools");
        certutil.args(["-M", "-d", &database, "-t", "C,,", "-n", &format!("CN={}", home.authority_name())]);
        run(&mut certutil).success();
        let visit = format!("{} --dump-dom https://nas.home.example/", home.chromium());
        let chromium = run(&mut home.bash(&gate, &visit)).success();
        assert!(chromium.text().contains("<h1 id=\"marker\">The NAS says hello.</h1>"), "{field}: {chromium}");
        let closed = gate.wait_for_line("the page's connection", |line| {
            line["event"] == "closed" && line["bytes_to_client"].as_u64() > Some(PAGE.len() as u64)
        });
        assert_eq!(closed["certificate"]["name"], "alice-phone", "{closed}");
    }
}

#[test]
fn pem_files_have_the_archives_contents() {
    let home = Home::new();
    let pem = std::fs::read_to_string(home.file("certificate")).unwrap();
    let openssl =
        |arguments: &[&str], file: &Path| run(home.tool("openssl", "openssl").args(arguments).arg("-in").arg(file));
    let again = openssl(&["x509"], &home.file("certificate")).success().text();
    assert_eq!(again, pem, "as OpenSSL writes it");
    let [of_key, of_certificate] = [
        openssl(&["pkey", "-pubout"], &home.file("key")).success().text(),
        openssl(&["x509", "-noout", "-pubkey"], &home.file("certificate")).success().text(),
    ];
    assert_eq!(of_key, of_certificate);
    assert_eq!(der(&home.folder().join("devices/server-ca.crt")), der(&home.folder().join("pki/server-ca.pem")));
}
