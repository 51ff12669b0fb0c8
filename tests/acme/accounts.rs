//! The account: one key, one account, whatever is lost on the way.

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use crate::agent::Home;
use crate::pebble::Settings;
use crate::relay::{Answer, Fate};

const NEW_ACCOUNT: &str = "/sign-me-up";
const NEW_ORDER: &str = "/order-plz";

const KEY_ID: &str = "home-1";
const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

#[test]
fn one_account_is_made_and_found_again_by_its_key() {
    let home = Home::new();
    home.order();
    assert_eq!(home.pebble.accounts(), 1);
    home.relay.pass();
    home.order();
    assert_eq!(home.relay.count(NEW_ACCOUNT), 0, "its URL is known");
    // Without the URL it is found by the key.
    std::fs::remove_file(home.path("account/accounts.json")).unwrap();
    home.order();
    assert_eq!((home.relay.count(NEW_ACCOUNT), home.pebble.accounts()), (1, 1));
}

#[test]
fn lost_answer_to_a_new_account_makes_no_second_one() {
    let home = Home::new();
    // The first request asks whether there is one.
    home.relay.once(NEW_ACCOUNT, 1, Fate::Lose);
    home.fails();
    assert_eq!(home.pebble.accounts(), 1);
    home.order();
    assert_eq!(home.pebble.accounts(), 1);
}

#[test]
fn contact_is_told_once_and_again_when_it_has_changed() {
    let mut home = Home::new();
    home.configure("contact = \"mailto:alice@home.example\"");
    home.order();
    let made = home.relay.asked().into_iter().rfind(|asked| asked.kind == NEW_ACCOUNT).unwrap();
    assert_eq!(made.payload.unwrap()["contact"][0], "mailto:alice@home.example");
    home.configure("contact = \"mailto:bob@home.example\"");
    home.relay.pass();
    home.order();
    home.order();
    let told: Vec<_> = home.relay.asked().into_iter().filter(|asked| asked.kind == "/my-account").collect();
    let [told] = told.as_slice() else { panic!("it was told {} times", told.len()) };
    assert_eq!(told.payload.as_ref().unwrap()["contact"][0], "mailto:bob@home.example");
}

#[test]
fn account_with_an_external_binding_has_our_own_key() {
    let settings = Settings { validates: false, external_keys: vec![(KEY_ID, KEY)], ..Settings::default() };
    let mut home = Home::with(&settings);
    let failed = home.fails();
    assert!(failed.error.contains("`eab`"), "{failed}");
    let binding = |home: &mut Home, key_id: &str, key: &str| {
        let file = home.beside("eab.key");
        std::fs::write(&file, key).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        home.configure(&format!("eab = {{ key_id = \"{key_id}\", key_file = \"eab.key\" }}"));
    };
    for (key_id, key, words) in [("home-2", KEY, "not known"), (KEY_ID, &KEY[..32], "verification error")] {
        binding(&mut home, key_id, key);
        let failed = home.fails();
        assert!(failed.error.contains(words) && failed.error.contains("unauthorized"), "{failed}");
    }
    let key = std::fs::read(home.path("account/key.pem")).unwrap();
    binding(&mut home, KEY_ID, KEY);
    home.relay.once(NEW_ACCOUNT, 1, Fate::Lose);
    home.fails();
    home.order();
    assert_eq!(home.pebble.accounts(), 1);
    // A binding that is refused costs no key.
    assert_eq!(std::fs::read(home.path("account/key.pem")).unwrap(), key);
    assert!(!home.path("account/key.pem.refused").exists());
}

/// Has the server deactivate the account, by a client of its owner.
fn deactivate(home: &Home) {
    let key = PrivatePkcs8KeyDer::from_pem_file(home.path("account/key.pem")).unwrap();
    let builder = instant_acme::Account::builder_with_http(Box::new(home.relay.client()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deactivated = runtime.block_on(async {
        let session = builder.from_parts(home.account(), key, home.relay.directory()).await?;
        session.deactivate().await
    });
    deactivated.unwrap();
}

#[test]
fn deactivated_account_is_replaced_and_its_key_set_aside() {
    let home = Home::new();
    home.order();
    let key = std::fs::read(home.path("account/key.pem")).unwrap();
    deactivate(&home);
    home.order();
    assert_eq!(std::fs::read(home.path("account/key.pem.refused")).unwrap(), key);
    assert_ne!(std::fs::read(home.path("account/key.pem")).unwrap(), key);
    assert_eq!(home.pebble.accounts(), 2);
    home.order();
    assert_eq!(home.pebble.accounts(), 2);
}

#[test]
fn account_that_is_deactivated_under_an_order_is_replaced() {
    let home = Home::new();
    home.relay.once("/finalize-order", 0, Fate::Instead(Answer::problem(429, "rateLimited", "slow down")));
    home.fails();
    assert!(home.has_order());
    deactivate(&home);
    home.relay.pass();
    home.order();
    assert_eq!((home.pebble.accounts(), home.relay.count(NEW_ORDER)), (2, 2));
}

#[test]
fn server_that_has_forgotten_the_account_gets_the_same_key() {
    let home = Home::new();
    home.order();
    let key = std::fs::read(home.path("account/key.pem")).unwrap();
    home.stop();
    // An account that it never had.
    let accounts = home.path("account/accounts.json");
    let text = std::fs::read_to_string(&accounts).unwrap();
    let last = home.account().rsplit_once('/').unwrap().1.to_owned();
    std::fs::write(&accounts, text.replace(&last, "unknown")).unwrap();
    home.relay.pass();
    home.order();
    assert_eq!(home.relay.count(NEW_ORDER), 2);
    assert_eq!(std::fs::read(home.path("account/key.pem")).unwrap(), key);
    assert_eq!(home.pebble.accounts(), 1);
    assert!(home.account().ends_with(&last));
}
