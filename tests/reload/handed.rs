//! Revocation lists that are handed over the control socket.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use doorward::control::client::{TakeError, in_force, take_list};
use doorward::model::rejection::{Alert, Reason};
use rcgen::{CertificateRevocationListParams, SerialNumber};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::client::{Client, VERSIONS, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::common::process::wait_until;
use crate::home::{House, assert_admitted, assert_refused};
use crate::settings::{device, visit};
use crate::{NAS, SSH, controlled, doorward_at_socket, reload};

const REVOKED: Alert = Alert(44);

fn numbered(authority: &Authority, name: &str, serial: u64) -> Certified {
    let mut params = Certified::for_clients(name);
    params.serial_number = Some(SerialNumber::from(serial));
    authority.issue(params)
}

fn list(revoked: impl IntoIterator<Item = u64>, number: u64) -> CertificateRevocationListParams {
    let revoked: Vec<SerialNumber> = revoked.into_iter().map(SerialNumber::from).collect();
    let list = Authority::for_lists(&revoked, days_from_now(-1), days_from_now(5));
    CertificateRevocationListParams { crl_number: SerialNumber::from(number), ..list }
}

fn signed(authority: &Authority, list: CertificateRevocationListParams) -> Vec<u8> {
    CertificateRevocationListDer::from_pem_slice(authority.sign_list(list).as_bytes()).unwrap().to_vec()
}

fn certificate(authority: &Authority) -> Vec<u8> {
    CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap().to_vec()
}

/// Hands a list to the gate; gives how many sessions it cut.
fn hand(gate: &Gate, authority: &Authority, list: Vec<u8>) -> Result<usize, String> {
    let taken = take_list(&gate.folder().join("control.sock"), &certificate(authority), &list);
    taken.map(|taken| taken.sessions_cut).map_err(|error| match error {
        TakeError::No(why) => why,
        TakeError::Ask(error) => panic!("no answer: {error}"),
    })
}

/// A gate whose route `nas` looks at the list file, and whose route `ssh` looks at none.
fn gate(pki: &TestPki, backend: &Backend) -> (Gate, String) {
    let file = pki.write("clients.crl", pki.clients.sign_list(list([], 5)));
    let address = backend.address().to_string();
    let house = House::new(pki).client_auth(&format!("revocation_lists = [{file:?}]")).route("nas", &address);
    let house = house.route_with("ssh", &[&address], "allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = []");
    let config = controlled(&house);
    (Gate::start(&config), config)
}

/// "ca revoke" writes the file before it sends the list: the watch may be faster, and "No open connection was affected" was said.
#[test]
fn sessions_that_the_watch_has_cut_are_told_to_the_sender() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let file = pki.write("clients.crl", pki.clients.sign_list(list([], 5)));
    let house = House::new(&pki).client_auth(&format!("revocation_lists = [{file:?}]")).route("nas", backend.address());
    let config = controlled(&house);
    let gate = Gate::start(&config);
    let lost = client(&pki, Some(&numbered(&pki.clients, "lost-phone", 77)));
    let open = Client::admitted(gate.address(), &lost, NAS).unwrap();

    let params = list([77], 6);
    let pem = pki.clients.sign_list(params);
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    pki.write("clients.crl", pem);
    reload(&gate, &config).success();
    drop(open.end());
    assert_eq!(hand(&gate, &pki.clients, der.clone()), Ok(1));
    assert_eq!(hand(&gate, &pki.clients, der), Ok(0), "they are told once");
}

#[test]
fn row_33_sent_list_applies_at_once_and_after_a_reload() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (gate, config) = gate(&pki, &backend);
    let lost = client(&pki, Some(&numbered(&pki.clients, "lost-phone", 77)));
    let mine = client(&pki, Some(&numbered(&pki.clients, "alice-phone", 78)));
    let open = [NAS, SSH].map(|name| Client::admitted(gate.address(), &lost, name).unwrap());
    let stays = Client::admitted(gate.address(), &mine, NAS).unwrap();

    let handed = signed(&pki.clients, list([77], 6));
    assert_eq!(hand(&gate, &pki.clients, handed.clone()), Ok(2));
    open.iter().for_each(|session| drop(session.end()));
    gate.wait_for_lines("both are cut", 2, |line| line["event"] == "closed" && line["reason"] == "revoked");
    let logged = gate.wait_for_line("the list to be logged", |line| line["event"] == "revocation_list");
    assert_eq!((&logged["sessions_cut"], &logged["number"]), (&2.into(), &"6".into()), "{logged}");
    let out = |gate: &Gate| {
        for name in [NAS, SSH] {
            assert_refused(gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, name));
            assert_admitted(gate, || Client::admitted(gate.address(), &mine, name));
        }
    };
    out(&gate);
    // The files are as they were, and say nothing of it.
    reload(&gate, &config).success();
    out(&gate);
    stays.ping().unwrap();
    // Once more is no mistake, and cuts nothing.
    assert_eq!(hand(&gate, &pki.clients, handed), Ok(0));

    // The route that names a file has both lists, the other one has the sent list only.
    let shown = in_force(&gate.folder().join("control.sock"), &certificate(&pki.clients)).unwrap();
    let of = |name: &str| {
        let route = shown.routes.iter().find(|route| route.name == name).unwrap();
        assert!(route.verifies && route.trusts, "{route:?}");
        let lists = route.revocation_lists.iter();
        lists.map(|list| (list.number.clone().unwrap(), list.file.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(of("nas"), [("5".to_owned(), true), ("6".to_owned(), false)]);
    assert_eq!(of("ssh"), [("6".to_owned(), false)]);

    // The file has a newer one by now: it counts alone where it is named.
    pki.write("clients.crl", pki.clients.sign_list(list([], 7)));
    reload(&gate, &config).success();
    assert_admitted(&gate, || Client::admitted(gate.address(), &lost, NAS));
    assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, SSH));
    drop(stays);
}

/// Where a route names lists, and where it names none.
#[test]
fn sent_list_takes_no_ticket_of_a_device_that_is_not_on_it() {
    for version in VERSIONS {
        let (pki, backend) = (TestPki::new(), Backend::echo());
        let (gate, config) = gate(&pki, &backend);
        let [lost, mine] = [("lost-phone", 77), ("alice-phone", 78)].map(|(name, serial)| {
            let certified = numbered(&pki.clients, name, serial);
            [NAS, SSH].map(|name| (device(&pki, &certified, version, Resumption::in_memory_sessions(8)), name))
        });
        let visits = |devices: &[(Arc<ClientConfig>, &str)], expected| {
            for (device, name) in devices {
                assert_eq!(visit(&gate, device, name), expected, "{name}, {:?}", version.version);
            }
        };
        visits(&lost, (None, false));
        visits(&mine, (None, false));
        assert_eq!(hand(&gate, &pki.clients, signed(&pki.clients, list([77], 6))), Ok(0));
        visits(&mine, (None, true));
        visits(&lost, (Some(REVOKED), false));
        reload(&gate, &config).success();
        visits(&mine, (None, true));
        visits(&lost, (Some(REVOKED), false));
        gate.settled();
    }
}

#[test]
fn row_33_sent_list_that_is_older_or_foreign_is_refused() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (gate, _) = gate(&pki, &backend);
    let mine = client(&pki, Some(&numbered(&pki.clients, "alice-phone", 78)));
    let stays = Client::admitted(gate.address(), &mine, NAS).unwrap();
    // From here on every route has it.
    let fifth = CertificateRevocationListDer::from_pem_file(pki.path("clients.crl")).unwrap().to_vec();
    assert_eq!(hand(&gate, &pki.clients, fifth), Ok(0));
    let others = Authority::new("Others");
    // The name of the authority, and another key.
    let twin = Authority::new("Clients of home.example");
    let expired = CertificateRevocationListParams { next_update: days_from_now(0), ..list([78], 9) };
    // By the number alone; `thisUpdate` is in seconds.
    let same_number = CertificateRevocationListParams { this_update: days_from_now(-2), ..list([78], 5) };
    let mut damaged = signed(&pki.clients, list([78], 9));
    *damaged.last_mut().unwrap() ^= 1;
    for (what, authority, list, says) in [
        ("older", &pki.clients, signed(&pki.clients, list([78], 4)), "not newer"),
        ("the same number", &pki.clients, signed(&pki.clients, same_number), "not newer"),
        ("of others", &others, signed(&others, list([78], 9)), "no route trusts"),
        ("of a twin", &twin, signed(&twin, list([78], 9)), "no route trusts"),
        ("signed by a twin", &pki.clients, signed(&twin, list([78], 9)), "not signed by the authority"),
        ("expired", &pki.clients, signed(&pki.clients, expired), "has expired"),
        ("damaged", &pki.clients, damaged, "not signed by the authority"),
        ("rubbish", &pki.clients, vec![0x30; 1000], "not a revocation list"),
        ("nothing", &pki.clients, Vec::new(), "not a revocation list"),
    ] {
        let why = hand(&gate, authority, list).expect_err(what);
        assert!(why.contains(says), "{what}: {why}");
        stays.ping().unwrap();
    }
    let long = hand(&gate, &pki.clients, vec![0; 32 * 1024 * 1024 + 1]).unwrap_err();
    assert!(long.contains("the limits are") && long.contains("33554432"), "{long}");
    assert_admitted(&gate, || Client::admitted(gate.address(), &mine, NAS));
    drop(stays);
}

#[test]
fn row_33_sent_list_does_not_affect_other_authorities() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let others = Authority::new("Others");
    pki.write("clients.pem", format!("{}{}", pki.clients.pem(), others.pem()));
    // No list is named at all, so nothing needs one.
    let gate = Gate::start(&controlled(&House::new(&pki).route("nas", backend.address())));
    let lost = client(&pki, Some(&numbered(&pki.clients, "lost-phone", 77)));
    let mine = client(&pki, Some(&numbered(&pki.clients, "alice-phone", 78)));
    let bob = client(&pki, Some(&numbered(&others, "bob-laptop", 77)));
    // A list of an authority below one that is trusted.
    let below = pki.clients.intermediate(Authority::for_authorities("Phones"));
    let carol = client(&pki, Some(&numbered(&below, "carol-phone", 79)));
    for device in [&lost, &mine, &bob, &carol] {
        assert_admitted(&gate, || Client::admitted(gate.address(), device, NAS));
    }
    hand(&gate, &pki.clients, signed(&pki.clients, list([77], 1))).unwrap();
    hand(&gate, &below, signed(&below, list([79], 1))).unwrap();
    for device in [&lost, &carol] {
        assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), device, NAS));
    }
    for device in [&mine, &bob] {
        assert_admitted(&gate, || Client::admitted(gate.address(), device, NAS));
    }
}

#[test]
fn row_33_sent_list_of_100_000_certificates_is_accepted() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (gate, _) = gate(&pki, &backend);
    let lost = client(&pki, Some(&numbered(&pki.clients, "lost-phone", 77)));
    let session = Client::admitted(gate.address(), &lost, NAS).unwrap();
    let many = (0..100_000).map(|serial| serial + 1_000_000).chain([77]);
    assert_eq!(hand(&gate, &pki.clients, signed(&pki.clients, list(many, 6))), Ok(1));
    session.end();
    gate.wait_closed("nas", 1);
    assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, SSH));
    doorward_at_socket(&gate, &["status"]).success();
}

/// Which of the two comes first, the reload that reads the file or the list that is handed over, makes no difference.
#[test]
fn row_33_sent_list_from_a_file_outlasts_an_older_file() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (gate, config) = gate(&pki, &backend);
    let own = pki.write("own.crl", pki.clients.sign_list(list([], 5)));
    let config = config.replace("revocation_lists = []", &format!("revocation_lists = [{own:?}]"));
    let lost = client(&pki, Some(&numbered(&pki.clients, "lost-phone", 77)));
    let new = pki.clients.sign_list(list([77], 6));
    let put = |contents: &String| ["clients.crl", "own.crl"].map(|name| pki.write(name, contents));
    put(&new);
    reload(&gate, &config).success();
    let der = CertificateRevocationListDer::from_pem_slice(new.as_bytes()).unwrap().to_vec();
    assert_eq!(hand(&gate, &pki.clients, der), Ok(0));
    put(&pki.clients.sign_list(list([], 5)));
    for _ in 0..2 {
        reload(&gate, &config).success();
        for name in [NAS, SSH] {
            assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, name));
        }
    }
}

#[test]
fn row_33_sent_list_applies_on_routes_where_it_is_newer() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (gate, config) = gate(&pki, &backend);
    let lost = client(&pki, Some(&numbered(&pki.clients, "lost-phone", 77)));
    // The file of one route has a list that was made later; the other route has none.
    pki.write("clients.crl", pki.clients.sign_list(list([], 9)));
    reload(&gate, &config).success();
    assert_eq!(hand(&gate, &pki.clients, signed(&pki.clients, list([77], 7))), Ok(0));
    assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, SSH));
    assert_admitted(&gate, || Client::admitted(gate.address(), &lost, NAS));
    // An older one still takes the place of none.
    let why = hand(&gate, &pki.clients, signed(&pki.clients, list([], 6))).unwrap_err();
    assert!(why.contains("not newer"), "{why}");
    reload(&gate, &config).success();
    assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, SSH));
}

/// A route that trusts a device's certificate itself names no authority, and has no list of its own.
#[test]
fn row_33_sent_list_applies_to_a_pinned_device() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let [lost, mine] =
        [("lost-phone", 77), ("alice-phone", 78)].map(|(name, serial)| numbered(&pki.clients, name, serial));
    let pins = pki.write("pins.pem", format!("{}{}", lost.chain_pem(), mine.chain_pem()));
    let address = backend.address().to_string();
    let house = House::new(&pki).route("nas", &address);
    let own = format!("allow = [\"any\"]\n[route.client_auth]\ntrust = [{pins:?}]\nrevocation_lists = []");
    let config = controlled(&house.route_with("ssh", &[&address], &own));
    let gate = Gate::start(&config);
    let [lost, mine] = [lost, mine].map(|device| client(&pki, Some(&device)));
    let [session, stays] = [&lost, &mine].map(|device| Client::admitted(gate.address(), device, SSH).unwrap());

    assert_eq!(hand(&gate, &pki.clients, signed(&pki.clients, list([77], 6))), Ok(1));
    session.end();
    gate.wait_closed("ssh", 1);
    for again in [false, true] {
        if again {
            reload(&gate, &config).success();
        }
        assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, SSH));
        assert_admitted(&gate, || Client::admitted(gate.address(), &mine, SSH));
    }
    let shown = in_force(&gate.folder().join("control.sock"), &certificate(&pki.clients)).unwrap();
    assert!(shown.routes.iter().all(|route| route.trusts && !route.revocation_lists.is_empty()), "{shown:?}");
    stays.ping().unwrap();
    drop(stays);
}

/// Ends the other threads.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whichever is done first: what was said to be in force is, also after a reload that had begun before.
#[test]
fn row_33_concurrent_lists_and_reloads_lose_no_list() {
    const LISTS: u64 = 40;
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (gate, _) = gate(&pki, &backend);
    let socket = gate.folder().join("control.sock");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also if an assertion fails.
        let end = Over(&over);
        let reloads = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                doorward::control::client::reload(&socket).unwrap();
                count += 1;
            }
            count
        });
        for number in 6..6 + LISTS {
            hand(&gate, &pki.clients, signed(&pki.clients, list(100..100 + number, number))).unwrap();
            for _ in 0..3 {
                let shown = in_force(&socket, &certificate(&pki.clients)).unwrap();
                for route in &shown.routes {
                    let newest =
                        route.revocation_lists.iter().filter_map(|list| list.number.as_ref()?.parse().ok()).max();
                    assert_eq!(newest, Some(number), "{route:?}");
                }
            }
        }
        drop(end);
        assert!(reloads.join().unwrap() > 0);
    });
    let last = client(&pki, Some(&numbered(&pki.clients, "lost-phone", 100 + 5 + LISTS - 1)));
    for name in [NAS, SSH] {
        assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &last, name));
    }
}

/// While the configuration is broken, each list takes the place of the one before, and what that one named stays out.
#[test]
fn row_33_lists_in_a_row_under_a_broken_file_all_count() {
    const DEVICES: u64 = 20;
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (gate, config) = gate(&pki, &backend);
    let serials = 100..100 + DEVICES;
    let lost: Vec<_> =
        serials.clone().map(|serial| client(&pki, Some(&numbered(&pki.clients, "lost", serial)))).collect();
    let mine = client(&pki, Some(&numbered(&pki.clients, "alice-phone", 78)));
    let stays = [NAS, SSH].map(|name| Client::admitted(gate.address(), &mine, name).unwrap());
    let enter = |device| [NAS, SSH].map(|name| Client::admitted(gate.address(), device, name).unwrap());
    let mut open: Vec<_> = lost.iter().map(enter).collect();
    let all_out = |count: usize| {
        for (name, device) in [NAS, SSH].iter().flat_map(|name| lost[..count].iter().map(move |device| (name, device)))
        {
            assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || {
                Client::admitted(gate.address(), device, name)
            });
        }
        stays.iter().for_each(|session| session.ping().unwrap());
    };
    let broken = format!("nonsense = true\n{config}");
    reload(&gate, &broken).failure();
    for (done, serial) in serials.enumerate() {
        let handed = signed(&pki.clients, list(100..=serial, 6 + done as u64));
        assert_eq!(hand(&gate, &pki.clients, handed.clone()), Ok(2), "list {done}");
        open.remove(0).into_iter().for_each(|session| drop(session.end()));
        // Those that are not on it yet go on.
        open.iter().flatten().for_each(|session| session.ping().unwrap());
        reload(&gate, &broken).failure();
        assert_eq!(hand(&gate, &pki.clients, handed), Ok(0), "list {done} again");
        if done % 5 == 4 {
            all_out(done + 1);
        }
    }
    // Mended, with the file as it was before the first of them; then with the last one in it.
    reload(&gate, &config).success();
    all_out(lost.len());
    pki.write("clients.crl", pki.clients.sign_list(list(100..100 + DEVICES, 5 + DEVICES)));
    reload(&gate, &config).success();
    all_out(lost.len());
    drop(stays);
}

/// A reload waits for a file that nothing comes from, as for a network's file system that hangs.
#[test]
fn hung_reload_does_not_delay_lists_and_cuts() {
    let (pki, backend) = (TestPki::new(), Backend::echo());
    let (gate, config) = gate(&pki, &backend);
    let lost = client(&pki, Some(&numbered(&pki.clients, "lost-phone", 77)));
    let mine = client(&pki, Some(&numbered(&pki.clients, "alice-phone", 78)));
    let [first, second] = [&lost, &mine].map(|device| Client::admitted(gate.address(), device, NAS).unwrap());
    let file = gate.folder().join("doorward.toml");
    std::fs::remove_file(&file).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let socket = gate.folder().join("control.sock");
    let waiting = thread::spawn(move || doorward::control::client::reload(&socket));
    // The reload has opened the file once there is a reader.
    let pipe = wait_until("the reload reads", || {
        std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(&file)
            .ok()
    });

    assert_eq!(hand(&gate, &pki.clients, signed(&pki.clients, list([77], 6))), Ok(1));
    first.end();
    doorward_at_socket(&gate, &["cut", "alice-phone"]).success();
    second.end();
    assert!(!waiting.is_finished());
    // It comes to its end, and knows of the list.
    (&pipe).write_all(config.as_bytes()).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, config).unwrap();
    drop(pipe);
    waiting.join().unwrap().unwrap();
    gate.wait_closed("nas", 2);
    assert_refused(&gate, &backend, Reason::Revoked, REVOKED, || Client::admitted(gate.address(), &lost, NAS));
}
