//! The account: one key, one account, whatever is lost on the way.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use doorward::acme::ExternalAccount;

use crate::direct::Direct;
use crate::pebble::Settings;
use crate::relay::{Answer, Fate};

const NEW_ACCOUNT: &str = "/sign-me-up";
const NEW_ORDER: &str = "/order-plz";

const KEY_ID: &str = "home-1";
const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

fn external(key_id: &str, key: &str) -> Option<ExternalAccount> {
    let key = BASE64_URL_SAFE_NO_PAD.decode(key).unwrap().into();
    Some(ExternalAccount { key_id: key_id.to_owned(), key })
}

fn strict() -> Direct {
    Direct::with(&Settings { validates: false, external_keys: vec![(KEY_ID, KEY)], ..Settings::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_is_made_and_found_again_by_its_key() {
    let direct = Direct::new();
    direct.order().await;
    assert_eq!(direct.pebble.accounts(), 1);
    direct.relay.pass();
    direct.order().await;
    assert_eq!(direct.relay.count(NEW_ACCOUNT), 0, "its URL is known");
    // Without the URL it is found by the key.
    std::fs::remove_file(direct.path("account.json")).unwrap();
    direct.order().await;
    assert_eq!((direct.relay.count(NEW_ACCOUNT), direct.pebble.accounts()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answer_to_a_new_account_makes_no_second_one() {
    let direct = Direct::new();
    // The first request asks whether there is one.
    direct.relay.once(NEW_ACCOUNT, 1, Fate::Lose);
    direct.fails().await;
    assert_eq!(direct.pebble.accounts(), 1);
    direct.order().await;
    assert_eq!(direct.pebble.accounts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn contact_is_told_once_and_again_when_it_has_changed() {
    let mut direct = Direct::new();
    direct.order().await;
    direct.wanted.contact = vec!["mailto:bob@home.example".to_owned()];
    direct.relay.pass();
    direct.order().await;
    direct.order().await;
    let told: Vec<_> = direct.relay.asked().into_iter().filter(|asked| asked.kind == "/my-account").collect();
    let [told] = told.as_slice() else { panic!("it was told {} times", told.len()) };
    assert_eq!(told.payload.as_ref().unwrap()["contact"][0], "mailto:bob@home.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn account_with_an_external_binding_has_our_own_key() {
    let mut direct = strict();
    // Without it, and with wrong ones.
    let failed = direct.fails().await;
    assert!(failed.error.contains("`eab`"), "{failed}");
    for (wrong, words) in [(external("home-2", KEY), "not known"), (external(KEY_ID, "AAAA"), "verification error")] {
        direct.wanted.external_account = wrong;
        let failed = direct.fails().await;
        assert!(failed.error.contains(words) && failed.error.contains("unauthorized"), "{failed}");
    }
    let key = std::fs::read(direct.path("account-key.pem")).unwrap();
    direct.wanted.external_account = external(KEY_ID, KEY);
    direct.relay.once(NEW_ACCOUNT, 1, Fate::Lose);
    direct.fails().await;
    direct.order().await;
    assert_eq!(direct.pebble.accounts(), 1);
    // A binding that is refused costs no key.
    assert_eq!(std::fs::read(direct.path("account-key.pem")).unwrap(), key);
    assert!(!direct.path("account-key.old.pem").exists());
}

/// Has the server deactivate the account, by a client of its owner.
async fn deactivate(direct: &Direct) {
    let key = direct.store().account_key().unwrap().unwrap();
    let account = direct.store().account(&direct.wanted.directory).unwrap().unwrap();
    let builder = instant_acme::Account::builder_with_http(Box::new(direct.client()));
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.to_vec());
    let session = builder.from_parts(account.url, key, direct.wanted.directory.clone()).await.unwrap();
    session.deactivate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deactivated_account_is_replaced_and_its_key_set_aside() {
    let direct = Direct::new();
    direct.order().await;
    let key = std::fs::read(direct.path("account-key.pem")).unwrap();
    deactivate(&direct).await;
    direct.order().await;
    assert_eq!(std::fs::read(direct.path("account-key.old.pem")).unwrap(), key);
    assert_ne!(std::fs::read(direct.path("account-key.pem")).unwrap(), key);
    assert_eq!(direct.pebble.accounts(), 2);
    direct.order().await;
    assert_eq!(direct.pebble.accounts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn account_that_is_deactivated_under_an_order_is_replaced() {
    let direct = Direct::new();
    direct.relay.once("/finalize-order", 0, Fate::Instead(Answer::problem(429, "rateLimited", "slow down")));
    direct.fails().await;
    assert!(direct.has_order());
    deactivate(&direct).await;
    direct.relay.pass();
    direct.order().await;
    assert_eq!((direct.pebble.accounts(), direct.relay.count(NEW_ORDER)), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_has_forgotten_everything_gets_the_same_key() {
    let mut direct = Direct::new();
    direct.order().await;
    let key = std::fs::read(direct.path("account-key.pem")).unwrap();
    // Another server answers at the address that the account was made at.
    let other = Direct::new();
    std::fs::copy(direct.path("account-key.pem"), other.path("account-key.pem")).unwrap();
    let url = direct.store().account(&direct.wanted.directory).unwrap().unwrap().url;
    let path = url.split_once("/my-account/").unwrap().1.to_owned();
    let there = other.wanted.directory.replace("/dir", &format!("/my-account/{path}"));
    let account = serde_json::json!({ "directory": other.wanted.directory, "url": there });
    std::fs::write(other.path("account.json"), account.to_string()).unwrap();
    direct.wanted.names.clear();
    other.order().await;
    assert_eq!(std::fs::read(other.path("account-key.pem")).unwrap(), key);
    assert_eq!(other.pebble.accounts(), 1);
}
