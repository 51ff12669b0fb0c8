//! `doorward connect` and `doorward forward` in the last third of a certificate's life.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use doorward::bundle::{Bundle, BundleKey, PlainKey};
use doorward::model::identity::Sha256;
use doorward::pki::Parts;
use rcgen::{KeyPair, SerialNumber, SubjectPublicKeyInfo};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::common::DEADLINE;
use crate::common::backend::echoed;
use crate::common::pki::{Authority, Certified, days_from_now};
use crate::common::process::{after_script, mounting, run, run_with_input, wait_until};
use crate::device::{User, house};
use crate::home::refused;
use crate::house::House;

/// What the gate's log calls the certificate that is [`due`].
pub(crate) const DUE: [u8; 4] = [0x4a, 0x6f, 0x6e, 0x01];

/// Gives the device another certificate with its key, as if it had been issued 80 days ago: the owner's inventory has it.
pub(crate) fn with_certificate(house: &House, user: &User, from: i64, until: i64) {
    with_certificate_in(house, &user.file(), from, until);
}

/// The same for the device whose home is in this file.
pub(crate) fn with_certificate_in(house: &House, file: &Path, from: i64, until: i64) {
    let path = |file: &str| house.home.path(file);
    // The key itself may be in a token.
    let before = CertificateDer::from_pem_file(path("devices/alice-laptop.pem")).unwrap();
    let key = SubjectPublicKeyInfo::from_der(Parts::read(&before).unwrap().key).unwrap();
    let mut params = Certified::for_clients("alice-laptop");
    (params.not_before, params.not_after) = (days_from_now(from), days_from_now(until));
    params.serial_number = Some(SerialNumber::from(DUE.to_vec()));
    let authority = Authority::read(&path("pki/clients.pem"), &path("pki/clients-key.pem"));
    let pem = authority.certify(params, &key);
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(|one| one.unwrap()).collect();
    let fingerprint = Sha256::of(&chain[0]).to_string();
    let inventory = fs::read_to_string(path("pki/inventory.toml")).unwrap();
    let (before, entry) = inventory.split_once("name = \"alice-laptop\"").unwrap();
    let changed = entry.lines().map(|line| match line.split_once(" = ").map_or("", |(key, _)| key) {
        "serial" => "serial = \"4a6f6e01\"".to_owned(),
        "fingerprint" => format!("fingerprint = \"{fingerprint}\""),
        "not_before" => line.replace(&line[14..24], &days_from_now(from).date().to_string()),
        "not_after" => line.replace(&line[13..23], &days_from_now(until).date().to_string()),
        _ => line.to_owned(),
    });
    let changed: Vec<String> = changed.collect();
    fs::write(path("pki/inventory.toml"), format!("{before}name = \"alice-laptop\"{}\n", changed.join("\n"))).unwrap();
    fs::write(path("pki/issued/4a6f6e01.pem"), pem).unwrap();
    assert_eq!(house.gate.hang_up()["event"], "reloaded");
    let bundle = Bundle { chain, ..Bundle::parse(&fs::read_to_string(file).unwrap()).unwrap() };
    fs::write(file, bundle.to_text()).unwrap();
}

/// A device in the last third of its certificate's life.
fn due() -> (House, User) {
    let (house, user) = house();
    with_certificate(&house, &user, -80, 20);
    (house, user)
}

/// As if the last attempt were two hours ago.
pub(crate) fn hours_later(user: &User) {
    aged(&user.folder().join(format!("{}.asked", user.home())));
}

/// The same, by the note of the last attempt.
pub(crate) fn aged(note: &Path) {
    let file = File::options().write(true).open(note).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
}

/// Checks how often the gate was asked so far, by what it answered.
#[track_caller]
fn assert_asked(house: &House, outcomes: &[&str]) {
    let asked = |line: &Value| line["event"] == "renewal_request";
    let lines = house.gate.wait_for_lines("requests", outcomes.len(), asked);
    // What is to come comes within the connection.
    house.gate.settled();
    let found: Vec<&str> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(found, outcomes);
    assert_eq!(house.gate.lines().into_iter().filter(asked).count(), outcomes.len());
}

/// The serial numbers of the certificates of closed sessions of the route, in order.
fn serials(house: &House, count: usize) -> Vec<Value> {
    house.gate.wait_closed("nas", count).iter().map(|line| line["certificate"]["serial"].clone()).collect()
}

#[track_caller]
fn connect(user: &User) -> String {
    let finished = run_with_input(&mut user.doorward(&["connect", "nas"]), b"hello").success();
    assert_eq!(finished.text(), "hello");
    finished.stderr
}

/// A `doorward forward` of the route, with what it says.
pub(crate) struct Forward {
    child: Child,
    local: String,
    said: Arc<Mutex<String>>,
}

impl Forward {
    fn start(user: &User) -> Self {
        Self::of(user.doorward(&["forward", "nas=0"]))
    }

    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.env_remove("XDG_RUNTIME_DIR").stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::<Mutex<String>>::default();
        let (stderr, shared) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&said));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *shared.lock().unwrap_or_else(PoisonError::into_inner) += &format!("{line}\n");
            }
        });
        let mut forward = Self { child, local: String::new(), said };
        let local = || Some(forward.said().lines().next()?.strip_prefix("nas on ")?.to_owned());
        forward.local = wait_until("it listens", local);
        forward
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        wait_until(&format!("{text:?} is said"), || self.said().contains(text).then_some(()));
    }

    pub(crate) fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.local).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("doorward forward said:\n{}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn connect_asks_once_and_takes_what_the_owner_approves() {
    let (house, user) = due();
    let before = user.text();
    for _ in 0..4 {
        assert_eq!(connect(&user), "");
    }
    assert_asked(&house, &["stored"]);
    hours_later(&user);
    connect(&user);
    // Nothing new for the owner.
    assert_asked(&house, &["stored"]);
    house.gate.wait_metric("doorward_renewal_requests_total", &[("outcome", "waiting")], 1.0);

    house.ca(&["approve", "--all"]).success();
    connect(&user);
    assert!(user.text() == before, "it is asked for once an hour");
    hours_later(&user);
    connect(&user);
    assert!(user.text() != before);
    connect(&user);
    let serials = serials(&house, 8);
    assert_eq!(serials[..7], vec![Value::from("4a6f6e01"); 7]);
    assert_ne!(serials[7], "4a6f6e01");
    hours_later(&user);
    connect(&user);
    // The new one is not due.
    assert_asked(&house, &["stored", "approved"]);
}

#[test]
fn forward_renews_while_its_sessions_live_on() {
    let (house, user) = due();
    let forward = Forward::start(&user);
    forward.wait_for("the owner of nas.home.example has to approve it: doorward ca approve alice-laptop");
    let open = forward.dial();
    echoed(&open, b"before");
    house.ca(&["approve", "alice-laptop"]).success();
    hours_later(&user);
    // As at the first use after a night.
    echoed(&forward.dial(), b"looks");
    forward.wait_for("the certificate for nas.home.example is renewed, valid until 2");
    echoed(&forward.dial(), b"with the new one");
    echoed(&open, b"still with the old one");
    open.shutdown(Shutdown::Write).unwrap();
    let serials = serials(&house, 3);
    assert_eq!(serials.iter().filter(|serial| **serial == "4a6f6e01").count(), 2, "{serials:?}");
    assert_eq!(forward.said().matches("has to approve").count(), 1, "{}", forward.said());
    drop(open);
    assert_asked(&house, &["stored", "approved"]);
}

#[test]
fn forward_that_is_stopped_renews_at_its_next_start() {
    let (house, user) = due();
    let forward = Forward::start(&user);
    forward.wait_for("has to approve it");
    kill_process(Pid::from_child(&forward.child), Signal::KILL).unwrap();
    drop(forward);
    house.ca(&["approve", "alice-laptop"]).success();
    hours_later(&user);
    Forward::start(&user).wait_for("is renewed, valid until");
    connect(&user);
    assert_ne!(serials(&house, 1)[0], "4a6f6e01");
}

#[test]
fn certificate_that_is_not_due_is_left_alone() {
    let (house, user) = house();
    with_certificate(&house, &user, -60, 40);
    connect(&user);
    assert_asked(&house, &[]);
    assert!(!user.folder().join("nas.home.example.asked").exists());
}

/// The command in a mount namespace whose folder of homes is prepared by a script; `$homes` is that folder.
fn mounted(user: &User, script: &str, arguments: &[&str]) -> Command {
    let script = format!("homes={:?}\n{script}", user.folder());
    let inside = user.doorward(arguments);
    let mut command = after_script(mounting(), &script, &inside);
    command.envs(inside.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command
}

#[test]
fn full_disk_keeps_the_earlier_certificate() {
    let (house, user) = due();
    connect(&user);
    house.ca(&["approve", "--all"]).success();
    hours_later(&user);
    let before = user.text();
    // As much as there is already, and no more.
    let full = "cp -a \"$homes\" \"$homes.kept\"\nmount -t tmpfs -o size=16k,mode=0700 none \"$homes\"\n\
                cp -a \"$homes.kept\"/. \"$homes\"/\nrm -r \"$homes.kept\"\n\
                head -c 1M /dev/zero > \"$homes/filling\" 2>/dev/null || true\n";
    let finished = run(&mut mounted(&user, full, &["renew"]));
    refused(finished, 1, &["cannot write", "No space left on device"]);
    let finished = run_with_input(&mut mounted(&user, full, &["connect", "nas"]), b"hello").success();
    assert_eq!((finished.text().as_str(), finished.stderr.as_str()), ("hello", ""));
    assert!(user.text() == before);
    // What was issued waits for it.
    hours_later(&user);
    connect(&user);
    assert!(user.text() != before);
}

#[test]
fn folder_that_cannot_be_written_is_told_shortly_before_the_end() {
    let (house, user) = due();
    let read_only = "mount --bind \"$homes\" \"$homes\"\nmount -o remount,ro,bind \"$homes\"\n";
    let connect = |user: &User| {
        let finished = run_with_input(&mut mounted(user, read_only, &["connect", "nas"]), b"hello").success();
        assert_eq!(finished.text(), "hello");
        finished.stderr
    };
    assert_eq!(connect(&user), "", "there is time");
    with_certificate(&house, &user, -80, 5);
    let told = connect(&user);
    assert!(
        told.contains(&format!("the certificate for nas.home.example expires on {}", days_from_now(5).date())),
        "{told}"
    );
    assert!(told.contains("is not renewed: cannot write") && told.contains("Read-only file system"), "{told}");
    assert_asked(&house, &[]);
}

#[test]
fn device_of_a_gate_that_renews_nothing_is_reminded() {
    let (house, user) = house();
    with_certificate(&house, &user, -80, 5);
    let bundle = Bundle { renewal: None, ..Bundle::parse(&user.text()).unwrap() };
    fs::write(user.file(), bundle.to_text()).unwrap();
    let reminder = "ask the owner of nas.home.example for a new file: doorward ca renew alice-laptop";
    let told = connect(&user);
    assert!(told.contains(&format!("expires on {}\n  {reminder}\n", days_from_now(5).date())), "{told}");
    Forward::start(&user).wait_for(reminder);
    with_certificate(&house, &user, -80, 20);
    assert_eq!(connect(&user), "");
}

/// A phone cannot renew. Its owner has to be told as well where a new certificate was issued that nothing brought to it.
#[test]
fn owner_is_told_of_a_device_that_still_uses_its_old_certificate() {
    let (house, user) = house();
    with_certificate(&house, &user, -80, 5);
    let bundle = Bundle { renewal: None, ..Bundle::parse(&user.text()).unwrap() };
    fs::write(user.file(), bundle.to_text()).unwrap();
    let status = || house.gate.ask(&["status"]).success().text();
    connect(&user);
    let soon = status();
    assert!(soon.contains("alice-laptop: expires in ") && soon.contains("doorward ca renew alice-laptop"), "{soon}");
    house.ca(&["renew", "alice-laptop"]).success();
    assert_eq!(house.gate.hang_up()["event"], "reloaded");
    let used = status();
    assert!(used.contains("alice-laptop: its old certificate is in use, and expires in "), "{used}");
    assert!(used.contains("\n    doorward share alice-laptop\n"), "{used}");
    let (_, page) = house.gate.get("/status.json");
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((&page["findings"][0]["kind"], &page["verdict"]["state"]), (&"expiry".into(), &"warn".into()), "{page}");
    let (chain, key) = ("devices/alice-laptop.pem", "devices/alice-laptop-key.pem");
    let chain = vec![CertificateDer::from_pem_file(house.home.path(chain)).unwrap()];
    let key = KeyPair::from_pem(&fs::read_to_string(house.home.path(key)).unwrap()).unwrap();
    let old = Bundle::parse(&user.text()).unwrap();
    let new = Bundle { chain, key: BundleKey::Plain(PlainKey::new(&key.serialize_der())), ..old.clone() };
    fs::write(user.file(), new.to_text()).unwrap();
    connect(&user);
    let installed = status();
    assert!(installed.starts_with("All is well."), "{installed}");
    fs::write(user.file(), old.to_text()).unwrap();
    connect(&user);
    // An inventory that does not know it.
    let inventory = house.home.path("pki/inventory.toml");
    let text = fs::read_to_string(&inventory).unwrap();
    fs::write(&inventory, text.replace("name = \"alice-laptop\"", "name = \"another\"")).unwrap();
    assert_eq!(house.gate.hang_up()["event"], "reloaded");
    let met = status();
    assert!(met.contains("alice-laptop: expires in ") && met.contains("doorward ca renew alice-laptop"), "{met}");
}
