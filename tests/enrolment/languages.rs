//! The pages of the link in the language of the phone, and for a device with a name in it.

use std::process::Command;

use crate::browser::Browser;
use crate::common::process::run;
use crate::home::Home;
use crate::link::assert_not_kept;
use crate::shared::Shared;

#[test]
fn page_and_messages_are_in_the_language_that_the_phone_asks_for() {
    let home = Home::new();
    let mut shared = Shared::start(&home, &[]);
    let path = shared.path().to_owned();
    for (header, lang, heading, keep, nothing) in [
        ("", "en", "Set up alice-phone", "<i>Keep</i>", "There is nothing here."),
        (
            "Accept-Language: de-DE,de;q=0.9,en;q=0.8\r\n",
            "de",
            "alice-phone einrichten",
            "<i>Keep</i>",
            "Hier ist nichts.",
        ),
        ("Accept-Language: zh-CN,zh;q=0.9\r\n", "zh-Hans", "设置 alice-phone", "<i>保留</i>", "这里什么也没有。"),
        ("Accept-Language: fr-FR\r\n", "en", "Set up alice-phone", "<i>Keep</i>", "There is nothing here."),
    ] {
        let page = shared.try_ask("GET", &path, header).unwrap();
        assert_eq!((page.status, page.header("vary")), (200, Some("accept-language, user-agent")), "{page:?}");
        assert_not_kept(&page);
        let text = page.text();
        for part in [format!("<html lang=\"{lang}\">"), format!("<h1>{heading}</h1>"), keep.to_owned()] {
            assert!(text.contains(&part), "{part} is missing in {text}");
        }
        let missing = shared.try_ask("GET", "/favicon.ico", header).unwrap().text();
        assert!(missing.contains(nothing) && missing.contains(&format!("<html lang=\"{lang}\">")), "{missing}");
    }
    let place = shared.press("alice-phone.p12");
    assert_eq!(shared.ask("GET", &place).status, 200);
    assert_eq!(shared.wait_and_close().0, 0);
}

#[test]
fn chromium_fetches_the_file_of_a_device_with_a_chinese_name() {
    let home = Home::new();
    let name = "小明的手机";
    let mut device = Command::new(env!("CARGO_BIN_EXE_doorward"));
    run(device.args(["ca", "device", name, "--folder"]).arg(home.folder().join("pki"))).success();
    let mut share = Command::new(env!("CARGO_BIN_EXE_doorward"));
    let mut shared = Shared::start_command(share.args(["share", name, "--folder"]).arg(home.folder()));
    assert_eq!(shared.lines()[0]["device"], name);
    let mut browser = Browser::open(&home, &shared.url());
    assert_eq!(browser.evaluate("document.querySelector('h1').textContent"), format!("Set up {name}"));
    browser.evaluate("document.querySelector('details[open] button').click()");
    let (code, fetched) = shared.wait_and_close();
    let file = fetched["file"].as_str().unwrap();
    assert!(code == 0 && file.is_ascii() && file.ends_with(".p12"), "{fetched}");
    let saved = browser.saved(file);
    // The store of Chromium takes it, and has the name.
    let store = home.nss_store();
    let mut import = home.tool("pk12util", "libnss3-tools");
    run(import.args(["-d", &store, "-K", "", "-W", &shared.password(), "-i"]).arg(saved)).success();
    let listed = run(home.tool("certutil", "libnss3-tools").args(["-L", "-d", &store])).success();
    assert!(listed.text().contains(name), "{listed}");
    // A name that is not there: the names that are, as they were given.
    let mut other = Command::new(env!("CARGO_BIN_EXE_doorward"));
    let refused = run(other.args(["share", "bob", "--folder"]).arg(home.folder())).failure();
    assert!(refused.stderr.contains(&format!("there are: alice-phone, {name}\n")), "{refused}");
}
