//! A PostgreSQL server behind the gate. Its clients, psql and JDBC, ask for TLS as they always do, and show the gate a
//! certificate. Server and gate have nothing to do with each other's TLS: the server speaks none.

use std::fmt::Display;
use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use doorward::model::identity::Serial;
use rcgen::SerialNumber;
use tempfile::TempDir;

use crate::common::gate::{Gate, LOCAL};
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::{Daemon, Finished, own_loopback, run, tool};

const NAME: &str = "db.home.example";
const PASSWORD: &str = "correct horse";

/// A database server that asks for a password (SCRAM), and the gate in front of it.
struct Scene {
    pki: TestPki,
    folder: TempDir,
    gate: Gate,
    routes: String,
    _server: Daemon,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddrV4::new(own_loopback(), 5432);
        let server = serve(folder.path(), address);
        let pki = TestPki::new();
        let mut routes = String::new();
        for (name, backend, keys) in
            [("db", address.to_string(), "starttls = \"postgres\""), ("nas", "127.0.0.1:9".to_owned(), "")]
        {
            routes += &format!(
                "\n[[route]]\nname = \"{name}\"\nserver_names = [\"{name}.home.example\"]\nbackends = [\"{backend}\"]\n\
                 allow = [\"any\"]\n{keys}\n"
            );
        }
        // Refusals are what most of it is about, and they come from one address.
        let gate = Gate::start(&format!("{LOCAL}\n[limits]\npenalties = \"off\"\n{}{routes}", pki.config()));
        Self { pki, folder, gate, routes, _server: server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A device, with the files `NAME.pem`, `NAME-key.pem`, and the key as JDBC takes it.
    fn device(&self, name: &str) -> Certified {
        self.device_of(name, Certified::for_clients(name))
    }

    fn device_of(&self, name: &str, params: rcgen::CertificateParams) -> Certified {
        let certified = self.pki.clients.issue(params);
        fs::write(self.path(&format!("{name}.pem")), certified.chain_pem()).unwrap();
        let key = self.path(&format!("{name}-key.pem"));
        fs::write(&key, certified.key_pem()).unwrap();
        // psql takes no key that others may read.
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.path(&format!("{name}-key.pk8")), certified.key().secret_der()).unwrap();
        certified
    }

    /// `psql` with these options beside those that are always the same; the later ones win.
    fn psql(&self, options: impl Display, query: &str) -> Finished {
        let address = self.gate.address();
        let mut psql = tool("psql", "postgresql-client");
        psql.env("HOME", self.folder.path()).current_dir(self.folder.path());
        run(psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query]).arg(format!(
            "host={NAME} hostaddr={} port={} user=alice dbname=postgres password='{PASSWORD}' sslmode=verify-full \
             sslrootcert={} {options}",
            address.ip(),
            address.port(),
            self.pki.path("servers.pem").display(),
        )))
    }

    /// The options for the files of a device.
    fn showing(&self, name: &str) -> String {
        format!(
            "sslcert={} sslkey={}",
            self.path(&format!("{name}.pem")).display(),
            self.path(&format!("{name}-key.pem")).display()
        )
    }

    /// A JDBC client in BeanShell, which needs no compiler: prints the answer to a query, or why there is none.
    fn jdbc(&self, name: Option<&str>) -> Finished {
        const SCRIPT: &str = r#"
            try {
                connection = java.sql.DriverManager.getConnection(System.getProperty("url"));
                result = connection.createStatement().executeQuery("select 6 * 7, length(repeat('x', 3000000))");
                result.next();
                print(result.getInt(1) + " " + result.getInt(2));
                connection.close();
            } catch (Exception error) {
                for (Throwable each = error; each != null; each = each.getCause()) print(each);
                System.exit(1);
            }
        "#;
        let (script, hosts) = (self.path("query.bsh"), self.path("hosts"));
        fs::write(&script, SCRIPT).unwrap();
        fs::write(&hosts, format!("{} {NAME}\n", self.gate.address().ip())).unwrap();
        let certificate = match name {
            Some(name) => format!(
                "&sslcert={}&sslkey={}",
                self.path(&format!("{name}.pem")).display(),
                self.path(&format!("{name}-key.pk8")).display()
            ),
            // JDBC looks for files in the home directory.
            None => "&sslcert=&sslkey=".to_owned(),
        };
        let url = format!(
            "jdbc:postgresql://{NAME}:{}/postgres?user=alice&password={}&sslmode=verify-full&sslrootcert={}{certificate}",
            self.gate.address().port(),
            PASSWORD.replace(' ', "%20"),
            self.pki.path("servers.pem").display(),
        );
        let mut java = tool("java", "openjdk-17-jre-headless");
        java.env("HOME", self.folder.path()).arg(format!("-Duser.home={}", self.folder.path().display()));
        java.arg(format!("-Durl={url}")).arg(format!("-Djdk.net.hosts.file={}", hosts.display()));
        let jars = [jar("bsh.jar", "bsh"), jar("postgresql.jar", "libpostgresql-jdbc-java")];
        run(java.args(["-cp", &jars.join(":"), "bsh.Interpreter"]).arg(script))
    }

    /// Puts a list of the authority in force that names this serial number.
    fn revoke(&self, serial: SerialNumber) {
        let list = self.pki.clients.revocation_list(&[serial], days_from_now(-1), days_from_now(1));
        let list = self.pki.write("clients.crl", list);
        let config = format!(
            "{LOCAL}\n[limits]\npenalties = \"off\"\n{}revocation_lists = [{list:?}]\n{}",
            self.pki.config(),
            self.routes
        );
        assert_eq!(self.gate.reload(&config)["event"], "reloaded");
    }
}

/// A Java library of a Debian package.
fn jar(file: &str, package: &str) -> String {
    let path = Path::new("/usr/share/java").join(file);
    assert!(path.exists(), "{} is not on this machine: apt-get install {package}", path.display());
    path.display().to_string()
}

/// Starts a server without TLS. PostgreSQL does not run as root.
fn serve(folder: &Path, address: SocketAddrV4) -> Daemon {
    const NOBODY: u32 = 65_534;
    let is_root = rustix::process::geteuid().is_root();
    let data = folder.join("data");
    let password = folder.join("password");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(&password, PASSWORD).unwrap();
    if is_root {
        chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let program = |name: &str| {
        let mut command = server_program(name);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.current_dir(folder).arg("-D").arg(&data);
        command
    };
    let mut initdb = program("initdb");
    initdb.args(["--auth=scram-sha-256", "--username=alice", "--no-locale", "--encoding=UTF8", "--no-sync"]);
    run(initdb.arg("--pwfile").arg(&password)).success();
    let mut postgres = program("postgres");
    postgres.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-k", "", "-F"]);
    Daemon::start(&mut postgres, address)
}

/// A program of the server: Debian keeps each version in a folder of its own.
fn server_program(name: &str) -> Command {
    // For the list of packages.
    let _ = tool("pg_lsclusters", "postgresql");
    let versions = fs::read_dir("/usr/lib/postgresql").expect("apt-get install postgresql");
    let programs = versions.map(|version| version.unwrap().path().join("bin").join(name));
    let newest = programs.filter(|program| program.exists()).max().expect("apt-get install postgresql");
    let mut command = Command::new(newest);
    command.env("LC_ALL", "C.UTF-8");
    command
}

#[test]
fn psql_and_jdbc_reach_the_server_with_a_certificate() {
    let scene = Scene::new();
    scene.device("alice-laptop");
    let mine = scene.showing("alice-laptop");
    assert_eq!(scene.psql(&mine, "select 6 * 7").success().text(), "42\n");
    // Much, in both directions.
    let query = format!("select length('{}'), length(repeat('y', 5000000))", "x".repeat(100_000));
    assert_eq!(scene.psql(&mine, &query).success().text(), "100000|5000000\n");
    let text = scene.psql(&mine, "select repeat('z', 5000000)").success().text();
    assert!(text.len() == 5_000_001 && text.trim_end().bytes().all(|byte| byte == b'z'));
    assert_eq!(scene.jdbc(Some("alice-laptop")).success().text(), "42 3000000\n");
    let closed = scene.gate.wait_closed("db", 4);
    assert!(closed.iter().all(|line| line["certificate"].to_string().contains("alice-laptop")), "{closed:?}");

    // The password is the server's, and is still asked for.
    let refused = scene.psql(format!("{mine} password=wrong"), "select 1").failure();
    assert!(refused.stderr.contains("password authentication failed"), "{refused}");
    // A server without TLS has no channel binding: clients do without it unless they are told to require it.
    let refused = scene.psql(format!("{mine} channel_binding=require"), "select 1").failure();
    assert!(refused.stderr.contains("channel binding is required"), "{refused}");
    scene.gate.wait_closed("db", 6);
}

#[test]
fn psql_and_jdbc_without_a_right_are_refused() {
    let scene = Scene::new();
    scene.device("alice-laptop");
    let serial = SerialNumber::from(vec![0x4a, 0x6f, 1]);
    let mut params = Certified::for_clients("bob-laptop");
    params.serial_number = Some(serial.clone());
    scene.device_of("bob-laptop", params);

    let refused = scene.psql("", "select 1").failure();
    assert!(refused.stderr.contains("alert certificate required"), "{refused}");
    scene.gate.wait_rejected("certificate", "required", 1);
    let refused = scene.jdbc(None).failure();
    assert!(refused.text().contains("certificate_required"), "{refused}");
    scene.gate.wait_rejected("certificate", "required", 2);

    assert_eq!(scene.psql(scene.showing("bob-laptop"), "select 1").success().text(), "1\n");
    scene.revoke(serial);
    let refused = scene.psql(scene.showing("bob-laptop"), "select 1").failure();
    assert!(refused.stderr.contains("alert certificate revoked"), "{refused}");
    assert!(scene.jdbc(Some("bob-laptop")).failure().text().contains("certificate_revoked"));
    let lines = scene.gate.wait_rejected("certificate", "revoked", 2);
    let shown = Serial::from_be_bytes(&[0x4a, 0x6f, 1]).to_string();
    assert!(lines.iter().all(|line| line["certificate"].to_string().contains(&shown)), "{lines:?}");
    assert_eq!(scene.psql(scene.showing("alice-laptop"), "select 1").success().text(), "1\n");

    // A route that is none for PostgreSQL, and a client that will not have TLS.
    let mine = scene.showing("alice-laptop");
    let refused = scene.psql(format!("{mine} host=nas.home.example"), "select 1").failure();
    assert!(refused.stderr.contains("unrecognized name"), "{refused}");
    let lines = scene.gate.wait_rejected("route", "server_name_unknown", 1);
    assert!(lines[0]["detail"].to_string().contains("PostgreSQL client"), "{lines:?}");
    scene.psql(format!("{mine} sslmode=disable"), "select 1").failure();
    let lines = scene.gate.wait_rejected("client_hello", "not_tls", 1);
    assert_eq!(lines[0]["detail"], "postgres", "{lines:?}");
    scene.gate.wait_closed("db", 2);
}
