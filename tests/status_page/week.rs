//! A week in a home, played day by day on a gate whose clock is behind, and what each surface answers at its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::backend::Backend;
use crate::common::pki::{Certified, TestPki, days_from_now};
use crate::common::process::{own_loopback, run, tool};
use crate::home::Home;
use crate::order::assert_in_order;
use crate::receiver::Receiver;
use crate::scene::{DEVICE, FORGER, NAS, Scene, shift};

const PHOTOS: &str = "photos.home.example";

/// The days of the week on which something happens, as days before the last one.
const DAYS: [u32; 5] = [FIRST_DAY, 5, 3, 2, 0];
const FIRST_DAY: u32 = 7;

/// What matters at the end, in the order of design.md, section 7.
const HEADLINES: [&str; 5] = [
    "Somebody pretended to be alice-phone",
    "dave-phone: was revoked, and still tries",
    "bob-tablet: certificate has expired",
    "photos: down since today ",
    "The gate's certificate expires in 8 days",
];
const KINDS: [&str; 5] = ["impostor", "device", "device", "service_down", "expiry"];

/// The gate at the end of the week, and what its earlier days have left.
struct Week {
    scene: Scene,
    receiver: Receiver,
    photos: SocketAddr,
    /// `/metrics` of each day, before and after what happened.
    exposed: BTreeMap<u32, [String; 2]>,
}

impl Week {
    fn play() -> Self {
        let (home, pki, backend, receiver) = (Home::new(), TestPki::new(), Backend::echo(), Receiver::start());
        let enrolled = |arguments: &[&str]| {
            let mut command = home.doorward();
            shift(command.arg("ca").args(arguments), 8);
            run(&mut command).success();
        };
        enrolled(&["init", "--domain", "home.example"]);
        for device in ["alice-phone", "bob-tablet", "dave-phone"] {
            enrolled(&["device", device]);
        }
        let mut server = Certified::for_servers(&["home.example", "*.home.example"]);
        (server.not_before, server.not_after) = (days_from_now(-30), days_from_now(9) - time::Duration::HOUR);
        let server = pki.servers.issue(server);
        pki.write("server.pem", server.chain_pem());
        pki.write("server-key.pem", server.key_pem());
        let photos = SocketAddr::from((own_loopback(), 8080));
        let tables = format!(
            "[history]\nfolder = {:?}\n[notify]\nwebhook = \"http://{}/\"\nformat = \"json\"\nevents = [\"impostor\", \
             \"new_device\", \"backend_down\", \"expiring\"]\n",
            home.path("history"),
            receiver.address()
        );
        let (mut parts, mut exposed) = ((home, pki, backend), BTreeMap::new());
        for day in DAYS {
            let (home, pki, backend) = parts;
            let mut scene = Scene::days_ago(day, home, pki, backend, &photos.to_string(), &tables);
            let before = scene.gate.get("/metrics").1;
            let messages = match day {
                FIRST_DAY => first_day(&scene),
                5 => forged(&scene),
                3 => photos_are_up(&scene, photos),
                2 => expired(&scene),
                _ => today(&mut scene),
            };
            scene.gate.wait_metric("doorward_notices_total", &[("outcome", "sent")], messages);
            exposed.insert(day, [before, scene.gate.get("/metrics").1]);
            if day == 0 {
                return Self { scene, receiver, photos, exposed };
            }
            parts = scene.end();
        }
        unreachable!("the last day is today")
    }

    fn told(&self, arguments: &[&str]) -> Value {
        let finished = self.scene.gate.ask(&[arguments, &["--format", "json"]].concat()).success();
        serde_json::from_slice(&finished.stdout).unwrap()
    }

    /// Checks with promtool what these queries bring at the end of a week of which Prometheus has what the gate exposed on each
    /// day: labels and values.
    #[track_caller]
    fn assert_asked(&self, queries: &[(String, &[(&str, u32)])]) {
        let end = 24 * (FIRST_DAY as usize + 1) - 1;
        // promtool begins at 1970.
        let (now, end_seconds) = (time::OffsetDateTime::now_utc().unix_timestamp(), 3600 * i64::try_from(end).unwrap());
        let mut series = BTreeMap::from([("up{job=\"doorward\"}".to_owned(), vec!["1".to_owned(); end + 1])]);
        for hour in 0..=end {
            // The gate runs from the first hour of a day to its end.
            let day = FIRST_DAY - u32::try_from(hour / 24).unwrap();
            let Some([before, after]) = self.exposed.get(&day) else { continue };
            let exposed = if hour % 24 == 0 { before } else { after };
            for line in exposed.lines().filter(|line| line.contains(' ') && !line.starts_with('#')) {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let value = if name.starts_with("doorward_certificate_expiry_timestamp_seconds{") {
                    (value.parse::<f64>().unwrap() as i64 - now + end_seconds).to_string()
                } else {
                    value.to_owned()
                };
                series.entry(name.to_owned()).or_insert_with(|| vec!["_".to_owned(); end + 1])[hour] = value;
            }
        }
        let series: Vec<Value> =
            series.iter().map(|(name, values)| json!({"series": name, "values": values.join(" ")})).collect();
        let test = |(expression, expected): &(String, &[(&str, u32)])| {
            let samples = expected.iter().map(|(labels, value)| json!({"labels": labels, "value": value}));
            json!({"expr": expression, "eval_time": format!("{end}h"), "exp_samples": samples.collect::<Vec<_>>()})
        };
        let tests: Vec<Value> = queries.iter().map(test).collect();
        let file = json!({"evaluation_interval": "1h", "tests": [
            {"interval": "1h", "input_series": series, "promql_expr_test": tests}
        ]});
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("week.yml");
        std::fs::write(&path, file.to_string()).unwrap();
        run(tool("promtool", "prometheus").args(["test", "rules"]).arg(path)).success();
    }
}

/// The query of each panel of the dashboard's first row.
fn first_row() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboards/doorward.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let first = panels.iter().skip(1).take_while(|panel| panel["type"] != "row");
    first.map(|panel| panel["targets"][0]["expr"].as_str().unwrap().to_owned()).collect()
}

/// Three devices connect for the first time, and a scanner does.
fn first_day(scene: &Scene) -> f64 {
    for device in ["alice-phone", "bob-tablet", "dave-phone"] {
        assert!(scene.is_admitted(device), "{device}");
    }
    scene.noise();
    3.0
}

/// Somebody pretends to be a device, whose certificate is soon replaced by one that ends two days later.
fn forged(scene: &Scene) -> f64 {
    scene.forge("bob-tablet");
    scene.expire("bob-tablet");
    assert!(scene.is_admitted("bob-tablet"));
    scene.noise();
    2.0
}

/// From here on the gate's certificate is about to expire.
fn photos_are_up(scene: &Scene, address: SocketAddr) -> f64 {
    let photos = Backend::serve(address, |mut stream, state| {
        state.each_read(stream, |bytes| std::io::Write::write_all(&mut stream, bytes).is_ok());
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
    assert!(scene.is_admitted_to("alice-phone", PHOTOS));
    scene.gate.settled();
    drop(photos);
    1.0
}

/// A device is refused. It does not come again.
fn expired(scene: &Scene) -> f64 {
    scene.refuses("bob-tablet", NAS);
    for _ in 0..3 {
        scene.noise();
    }
    1.0
}

/// A forger, a revoked device, a service that is down, noise; and a device that is connected.
fn today(scene: &mut Scene) -> f64 {
    scene.forge("alice-phone");
    let place = scene.home.path("pki").display().to_string();
    scene.home.ca(&["revoke", "dave-phone", "--folder", &place]);
    scene.gate.hang_up();
    scene.refuses("dave-phone", NAS);
    scene.refuses("alice-phone", PHOTOS);
    scene.noise();
    scene.connect("alice-phone");
    3.0
}

#[test]
fn week_is_told_in_one_order_on_every_surface() {
    let week = Week::play();
    let gate = &week.scene.gate;

    let status = gate.ask(&["status"]).success().text();
    assert!(status.starts_with(HEADLINES[0]), "{status}");
    assert_in_order(&status, &HEADLINES);
    let (code, page_json) = gate.get("/status.json");
    assert_eq!(code, 200);
    let server = week.scene.certificate().display().to_string();
    for told in [week.told(&["status"]), serde_json::from_str(&page_json).unwrap()] {
        assert_eq!((&told["verdict"]["state"], &told["verdict"]["headline"]), (&"bad".into(), &HEADLINES[0].into()));
        // What the sandbox lacks on this machine does not change the verdict.
        let found = told["findings"].as_array().unwrap().iter().filter(|finding| finding["tone"] != "note");
        let found: Vec<[&str; 2]> =
            found.map(|finding| ["kind", "subject"].map(|key| finding[key].as_str().unwrap())).collect();
        let subjects = ["alice-phone", "dave-phone", "bob-tablet", "photos", &server];
        let expected: Vec<[&str; 2]> = KINDS.iter().zip(subjects).map(|(kind, subject)| [*kind, subject]).collect();
        assert_eq!(found, expected, "{told}");
    }

    let page = week.scene.page().replace("<span class=\"nowrap\">", "").replace("</span>", "");
    assert_in_order(&page, &HEADLINES);
    let ids = ["verdict", "connected", "devices", "impostors", "services", "expires", "noise"];
    let cards: Vec<&str> = ids.iter().map(|id| page.split_once(&format!("id=\"{id}\"")).unwrap().1).collect();
    assert!(cards.windows(2).all(|pair| pair[0].len() > pair[1].len()), "{page}");
    let card = |id: &str| {
        let index = ids.iter().position(|other| *other == id).unwrap();
        &cards[index][..cards[index].len() - cards.get(index + 1).map_or(0, |next| next.len())]
    };
    assert!(card("connected").contains("alice-phone") && card("connected").contains(&DEVICE.to_string()), "{page}");
    let days_ago = |days: i64| days_from_now(-days).date().to_string();
    assert_in_order(card("devices"), &["dave-phone", "bob-tablet", "alice-phone"]);
    assert!(card("devices").contains(&days_ago(5)), "when bob-tablet was there: {page}");
    // The one of days ago is remembered, and leads no longer.
    assert_in_order(card("impostors"), &["alice-phone", "bob-tablet", &days_ago(5)]);
    assert_in_order(card("services"), &["photos", "down", "nas", "up"]);
    let noise = card("noise");
    assert!(noise.contains("2 unknown clients turned away in 24 h") && noise.contains("<details"), "{page}");
    assert!(
        !noise.contains("class=\"bad") && !noise.contains("class=\"warn"),
        "noise has no colour of trouble: {noise}"
    );

    let why = week.told(&["why", "--count", "9"]);
    let reasons: Vec<&str> =
        why["refusals"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["unknown_ca", "revoked", "refused", "not_tls", "unknown_ca"], "{why}");
    let why = gate.ask(&["why"]).success().text();
    assert!(why.starts_with(&format!("Somebody at {FORGER} pretended to be alice-phone")), "{why}");
    // Its own refusal comes before the forgery.
    let why = week.told(&["why", "alice-phone", "--count", "9"]);
    let reasons: Vec<&Value> = why["refusals"].as_array().unwrap().iter().map(|one| &one["reason"]).collect();
    assert_eq!(reasons, ["refused", "unknown_ca"], "{why}");

    // Two days ago the gate was another process.
    let why = gate.ask(&["why", "BOB-tablet"]).success().text();
    assert!(why.starts_with("bob-tablet: certificate has expired.\nRefused once, "), "{why}");
    assert!(why.contains("doorward ca renew bob-tablet") && why.contains("The log may have more"), "{why}");

    // What a person reads is in local time, without fractions of a second.
    let history = gate.ask(&["history", "--since", "9d"]).success().text();
    for text in [&status, &why, &history, &page, &gate.ask(&["why", "--count", "9"]).success().text()] {
        let fraction = text.match_indices('.').find(|(at, _)| {
            let (before, after) = (&text.as_bytes()[..*at], &text.as_bytes()[at + 1..]);
            matches!(before, [.., b':', b'0'..=b'9', b'0'..=b'9']) && after.first().is_some_and(u8::is_ascii_digit)
        });
        assert!(fraction.is_none(), "a fraction of a second at {fraction:?} of {text}");
    }

    let visits = week.told(&["history", "--since", "9d"]);
    let visits: Vec<[&str; 3]> = visits["visits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|visit| ["device", "route", "since"].map(|key| visit[key].as_str().unwrap().split('T').next().unwrap()))
        .collect();
    for (device, route, days) in [
        ("alice-phone", "nas", 0),
        ("alice-phone", "photos", 3),
        ("bob-tablet", "nas", 5),
        ("alice-phone", "nas", 7),
        ("bob-tablet", "nas", 7),
        ("dave-phone", "nas", 7),
    ] {
        assert!(visits.contains(&[device, route, &days_ago(days)]), "{device} {days} days ago: {visits:?}");
    }
    assert_eq!(visits.len(), 6, "{visits:?}");

    assert_messages(&week, &server, &days_ago(5));

    let first_row = first_row();
    let [verdict, impostors, services, expiries] = &first_row[..] else { panic!("{first_row:?}") };
    let week_of = |query: &str| query.replace("[24h]", "[9d]");
    week.assert_asked(&[
        (verdict.clone(), &[("{}", 2)]),
        // Prometheus extrapolates to the ends of the day.
        (format!("round({impostors})"), &[("{}", 1)]),
        (format!("round({})", week_of(impostors)), &[("{}", 2)]),
        (services.clone(), &[("{route=\"photos\"}", 0), ("{route=\"nas\"}", 1)]),
        (format!("floor(min({expiries}))"), &[("{}", 8)]),
    ]);
}

/// The messages of the week. Those of its last day rank as the findings do, and what is no event of theirs has none.
#[track_caller]
fn assert_messages(week: &Week, server: &str, day_of_first_forgery: &str) {
    let all: Vec<Value> = week.receiver.requests().into_iter().map(|request| request.body).collect();
    let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
    let mut told: Vec<[String; 2]> = all.iter().map(|one| ["event", "subject"].map(|key| text(one, key))).collect();
    told.sort();
    let photos = week.photos.to_string();
    let expected = [
        ["backend_down", &photos],
        ["expiring", server],
        ["expiring", server],
        ["expiring", server],
        ["expiring", server],
        ["impostor", "alice-phone"],
        ["impostor", "bob-tablet"],
        ["new_device", "alice-phone"],
        ["new_device", "bob-tablet"],
        ["new_device", "dave-phone"],
    ];
    assert_eq!(told, expected, "{all:?}");
    let first = all.iter().find(|one| one["event"] == "impostor").unwrap();
    assert!(text(first, "time").starts_with(day_of_first_forgery), "{first}");

    let mut today: Vec<&Value> = all[all.len() - 3..].iter().collect();
    let rank = |message: &Value| ["urgent", "high", "normal", "low"].iter().position(|one| message["priority"] == *one);
    today.sort_by_key(|message| rank(message).unwrap());
    let ranked: Vec<[&str; 2]> =
        today.iter().map(|message| ["priority", "title"].map(|key| message[key].as_str().unwrap())).collect();
    assert_eq!(ranked, [["urgent", HEADLINES[0]], ["high", "photos is down"], ["normal", HEADLINES[4]]]);
}
