//! Renewal information (RFC 9773) and profiles (draft-ietf-acme-profiles). Debian's pebble knows neither: the relay stands for such a
//! server, by what it adds to pebble's answers.

use serde_json::{Value, json};

use crate::agent::Home;
use crate::relay::{Answer, Asked, Fate};

const NEW_ORDER: &str = "/order-plz";
const RENEWAL_INFO: &str = "/renewal-info";

/// A server that wants certificates to be renewed in this window, and answers orders as `order` says.
fn with_window(home: &Home, days: (i64, i64), order: impl Fn(&Asked) -> Option<Answer> + Send + 'static) {
    let url = home.relay.directory().replace("/dir", RENEWAL_INFO);
    let at = |days| {
        (time::OffsetDateTime::now_utc() + time::Duration::days(days))
            .format(&time::format_description::well_known::Rfc3339)
    };
    let window = json!({ "suggestedWindow": { "start": at(days.0).unwrap(), "end": at(days.1).unwrap() } });
    home.relay.rule(move |asked, _| match asked.kind.as_str() {
        "/dir" => {
            let url = url.clone();
            Fate::Change(Box::new(|answer| answer.edit(|directory| directory["renewalInfo"] = url.into())))
        }
        RENEWAL_INFO => Fate::Instead(Answer::new(200, window.to_string()).header("Retry-After", "21600")),
        NEW_ORDER => match order(asked) {
            Some(answer) => Fate::Instead(answer),
            None => {
                let replaces = asked.payload.as_ref().unwrap()["replaces"].clone();
                Fate::Change(Box::new(|answer| answer.edit(|order| order["replaces"] = replaces)))
            }
        },
        _ => Fate::Pass,
    });
}

/// What each order has said that it replaces.
fn replaced(home: &Home) -> Vec<Value> {
    let orders = home.relay.asked().into_iter().filter(|asked| asked.kind == NEW_ORDER);
    orders.map(|order| order.payload.unwrap()["replaces"].clone()).collect()
}

/// Has the certificate be there for some hours.
fn age(home: &Home) {
    let file = home.path("account/issued.json");
    let mut issued: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    issued["at"] = (issued["at"].as_i64().unwrap() - 3 * 3600).into();
    std::fs::write(&file, issued.to_string()).unwrap();
}

#[test]
fn certificate_is_renewed_when_the_server_wants_it_and_says_which_it_replaces() {
    let home = Home::new();
    // It was revoked, as it were: the window is over.
    with_window(&home, (-2, -1), |_| None);
    home.order();
    assert_eq!(replaced(&home), [Value::Null], "there was none before");
    // A server that always wants another one has one an hour.
    let wait = home.next_at() - time::OffsetDateTime::now_utc().unix_timestamp();
    assert!((3500..=3600).contains(&wait), "{wait}");
    home.stop();
    age(&home);
    let agent = home.left_alone();
    agent.wait_renewed();
    agent.stop();
    let orders = replaced(&home);
    let asked = home.relay.asked();
    let certificate = asked.iter().find_map(|asked| asked.path.strip_prefix("/renewal-info/")).unwrap();
    assert_eq!(orders, [Value::Null, certificate.into()]);
}

#[test]
fn window_that_is_still_to_come_is_waited_for() {
    let home = Home::new();
    with_window(&home, (10, 11), |_| None);
    home.order();
    let days = (home.next_at() - time::OffsetDateTime::now_utc().unix_timestamp()) as f64 / 86400.0;
    assert!((9.9..=11.1).contains(&days), "{days}");
}

#[test]
fn order_is_placed_without_what_it_replaces_where_the_server_minds() {
    for (status, kind) in [(409, "alreadyReplaced"), (400, "malformed")] {
        let home = Home::new();
        with_window(&home, (-2, -1), move |asked| {
            let replaces = !asked.payload.as_ref().unwrap()["replaces"].is_null();
            replaces.then(|| Answer::problem(status, kind, "no such certificate"))
        });
        home.order();
        home.order();
        let orders = replaced(&home);
        assert!(orders[1].is_string() && orders[2].is_null() && orders.len() == 3, "{kind}: {orders:?}");
    }
}

#[test]
fn profile_is_part_of_the_order_and_its_refusal_is_told() {
    let mut home = Home::new();
    home.configure("profile = \"shortlived\"");
    home.order();
    let asked = home.relay.asked();
    let order = asked.iter().find(|asked| asked.kind == NEW_ORDER).unwrap();
    assert_eq!(order.payload.as_ref().unwrap()["profile"], "shortlived");
    let refusal = Answer::problem(400, "invalidProfile", "no profile of that name");
    home.relay.once(NEW_ORDER, 0, Fate::Instead(refusal));
    assert_eq!(home.fails().error, "no profile of that name (invalidProfile)");
}
