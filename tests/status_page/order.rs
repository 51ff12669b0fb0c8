//! A forged certificate, an expired and a revoked device, a service that is down, and noise: each surface has the same order.

use serde_json::Value;

use crate::scene::{MARKUP, Scene};

/// The places of these texts in another one are in this order.
#[track_caller]
pub(crate) fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some(at) = rest.find(part) else { panic!("{part:?} is not there, or not in its place: {text}") };
        rest = &rest[at + part.len()..];
    }
}

const HEADLINES: [&str; 4] = [
    "Somebody pretended to be alice-phone",
    "dave-phone: was revoked, and still tries",
    "bob-tablet: certificate has expired",
    "photos: down since today ",
];

#[test]
fn every_surface_has_the_same_order() {
    let scene = Scene::trouble();
    let status = scene.gate.ask(&["status"]).success().text();
    assert!(status.starts_with(HEADLINES[0]), "{status}");
    assert_in_order(&status, &HEADLINES);
    for command in ["doorward why 127.0.0.66", "doorward ca device dave-phone", "doorward ca renew bob-tablet"] {
        assert!(status.contains(&format!("\n    {command}\n")), "{command} in {status}");
    }

    let status: Value =
        serde_json::from_slice(&scene.gate.ask(&["status", "--format", "json"]).success().stdout).unwrap();
    let (code, page_json) = scene.gate.get("/status.json");
    let page_json: Value = serde_json::from_str(&page_json).unwrap();
    assert_eq!((code, &page_json["verdict"]["state"]), (200, &"bad".into()));
    for told in [&status, &page_json] {
        assert_eq!(told["verdict"]["headline"], HEADLINES[0]);
        let kinds: Vec<&str> =
            told["findings"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds[..4], ["impostor", "device", "device", "service_down"], "{told}");
        // What is noise is no finding.
        assert!(!told["findings"].to_string().contains("pwned"), "{told}");
    }

    let why = scene.gate.ask(&["why", "--count", "9", "--format", "json"]).success();
    let why: Value = serde_json::from_slice(&why.stdout).unwrap();
    let reasons: Vec<&str> =
        why["refusals"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["unknown_ca", "revoked", "expired", "refused", "not_tls", "unknown_ca"]);
    let latest = scene.gate.ask(&["why", "last"]).success().text();
    assert!(latest.contains("client_hello/not_tls"), "{latest}");

    let page = scene.page();
    assert_in_order(&page.replace("<span class=\"nowrap\">", ""), &HEADLINES);
    assert_in_order(
        &page,
        &[
            "id=\"verdict\"",
            "id=\"connected\"",
            "id=\"devices\"",
            "id=\"impostors\"",
            "id=\"services\"",
            "id=\"expires\"",
            "id=\"noise\"",
        ],
    );
    assert!(page.contains("<title>home.example: somebody pretended to be alice-phone · Doorward</title>"), "{page}");
    // Of devices, impostors and services nothing is noise.
    let (_, noise) = page.split_once("id=\"noise\"").unwrap();
    assert!(noise.contains("2 unknown clients turned away in 24 h"), "{noise}");
    assert!(!noise.contains("bob-tablet") && !noise.contains("dave-phone"), "{noise}");
}

#[test]
fn text_of_clients_is_escaped() {
    let page = Scene::trouble().page();
    assert!(page.contains("&lt;script&gt;alert('pwned')&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;"), "{page}");
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    assert!(!page.contains("<img") && !page.contains(MARKUP), "{page}");
}

#[test]
fn revocation_that_is_not_in_force_comes_first() {
    let scene = Scene::calm();
    // Written down as revoked, and the list that the configuration names was not made anew.
    let (inventory, named) = (scene.home.path("pki/inventory.toml"), "name = \"bob-laptop\"\n");
    let issued = std::fs::read_to_string(&inventory).unwrap();
    let revoked = issued.replace(named, &format!("{named}revoked_at = \"2026-11-24T00:00:00Z\"\n"));
    std::fs::write(&inventory, revoked).unwrap();
    scene.gate.hang_up();
    assert!(scene.is_admitted("bob-laptop"));
    let status = scene.gate.ask(&["status"]).success().text();
    assert!(status.starts_with("bob-laptop was revoked and still gets in.\n"), "{status}");
    assert!(status.contains("\n    doorward ca revoke bob-laptop\n"), "{status}");
    let page = scene.page();
    assert!(page.contains("Its revocation is not in force on nas, photos."), "{page}");
    // A current list mends it.
    std::fs::write(&inventory, issued).unwrap();
    scene.home.ca(&["revoke", "bob-laptop", "--folder", &scene.home.path("pki").display().to_string()]);
    scene.gate.hang_up();
    assert!(!scene.is_admitted("bob-laptop"));
    let status = scene.gate.ask(&["status"]).success().text();
    assert!(status.starts_with("bob-laptop: was revoked, and still tries.\n"), "{status}");
}

#[test]
fn refused_configuration_is_told_with_every_mistake() {
    let scene = Scene::calm();
    assert!(scene.page().contains("All is well"));
    let file = scene.gate.folder().join("doorward.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("kernel_tls", "kernel_tl") + "\n[limitz]\n").unwrap();
    scene.gate.ask(&["reload"]).failure();
    let page = scene.page();
    assert!(page.contains("The changed configuration is not in force") && page.contains("limitz"), "{page}");
    scene.gate.reload(&good);
    assert!(scene.page().contains("All is well"));
}
