use clap::Parser;

use super::*;
use crate::config;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    init: InitArgs,
}

fn parse(args: &[&str]) -> Result<InitArgs, clap::Error> {
    Cli::try_parse_from(["init"].iter().chain(args)).map(|cli| cli.init)
}

/// Arguments for `folder`, with `more` at the end.
fn args(folder: &Path, more: &[&str]) -> InitArgs {
    let folder = folder.to_str().expect("UTF-8");
    let all = ["--domain", "home.example", "--route", "nas=192.168.1.10:5666", "--device", "alice-phone"];
    parse(&[&all[..], &["--folder", folder], more].concat()).expect("arguments")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

#[test]
fn required_options_and_defaults() {
    let args = parse(&["--domain", "Home.Example.", "--route", "nas=nas.lan:80", "--device", "a"]).expect("enough");
    assert_eq!((args.domain.as_str(), args.folder.to_str()), ("home.example", Some("doorward")));
    assert_eq!((args.listen.to_string().as_str(), args.force, args.format), ("[::]:8443", false, Format::Text));
    for missing in [
        &["--route", "nas=nas.lan:80", "--device", "a"][..],
        &["--domain", "home.example", "--device", "a"],
        &["--domain", "home.example", "--route", "nas=nas.lan:80"],
    ] {
        assert_eq!(parse(missing).expect_err("too little").exit_code(), 2);
    }
}

#[test]
fn backends_of_every_form_are_accepted() {
    for backend in ["192.168.1.10:5666", "[fd00::1]:22", "nas.lan:445", "localhost:1", "unix:/run/nas.sock"] {
        let route = parse_route(&format!("nas={backend}")).expect(backend);
        assert_eq!((route.name.as_str(), route.backend.as_str()), ("nas", backend));
    }
}

#[test]
fn wrong_route_error_shows_an_example() {
    for (wrong, why) in [
        ("nas", "missing \"=\""),
        ("=192.168.1.10:80", "may not be empty"),
        ("a b=192.168.1.10:80", "may not contain ' '"),
        ("a.b=192.168.1.10:80", "must not contain a dot"),
        ("nas=", "missing port"),
        ("nas=192.168.1.10", "missing port"),
        ("nas=192.168.1.10:", "from 1 to 65535"),
        ("nas=192.168.1.10:0", "from 1 to 65535"),
        ("nas=192.168.1.10:http", "from 1 to 65535"),
        ("nas=http://192.168.1.10:80", "not a URL"),
        ("nas=fd00::1:22", "needs brackets"),
        ("nas=a b:22", "not an address or host name"),
        ("nas=unix:run/nas.sock", "must start with \"/\""),
    ] {
        let message = parse_route(wrong).expect_err(wrong);
        assert!(message.contains(why), "{wrong}: {message}");
        assert!(message.ends_with("as in nas=192.168.1.10:5666"), "{wrong}: {message}");
    }
    let shown = parse(&["--domain", "home.example", "--route", "nas", "--device", "a"]).expect_err("wrong");
    assert!(shown.to_string().contains("nas=192.168.1.10:5666"), "{shown}");
}

#[test]
fn invalid_and_duplicate_names_are_refused() {
    assert!(parse_domain("home").expect_err("one label").contains("home.example"));
    assert!(parse_domain("192.168.1.1").expect_err("an address").contains("IP address"));
    assert!(parse_domain("*.home.example").is_err());
    for word in ["any", "unverified", "a:b", "../a", ""] {
        assert!(parse_device(word).is_err(), "{word}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("new");
    for (more, why) in [
        (&["--route", "NAS=192.168.1.11:80"][..], "--route NAS: duplicate name"),
        (&["--route", "nas-=192.168.1.11:80"], "nas-.home.example is not a host name"),
        (&["--device", "Alice-phone"], "--device Alice-phone: duplicate name"),
        (&["--device", "alice-phone-key"], "alice-phone-key.pem"),
        (&["--device", "alice-phone-compat"], "alice-phone-compat.p12"),
    ] {
        let error = create(&args(&folder, more)).expect_err(why);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(!folder.exists(), "{why}: nothing is written");
    }
}

#[test]
fn configuration_names_the_written_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let more = ["--route", "ssh=[fd00::1]:22", "--device", "bob-laptop", "--listen", "127.0.0.1:4443"];
    let written = create(&args(folder.path(), &more)).expect("written");
    let text = read(&written.config);
    let config: toml::Table = text.parse().expect("TOML");
    let string = |value: &toml::Value| value.as_str().map(str::to_owned).expect("a string");

    for file in [&config["certificate"]["chain"], &config["certificate"]["key"], &config["client_auth"]["trust"][0]] {
        assert!(folder.path().join(string(file)).is_file(), "{file}");
    }
    assert_eq!(string(&config["client_auth"]["mode"]), "require_and_verify");
    assert_eq!(config["client_auth"]["deny"].as_array().map(Vec::len), Some(0));
    assert_eq!(string(&config["control"]["socket"]), "auto");
    assert_eq!(string(&config["listener"][0]["address"]), "127.0.0.1:4443");
    let route = |i: usize| {
        let route = &config["route"][i];
        ["name", "server_names", "backends", "allow"]
            .map(|key| route[key].as_array().map_or(route, |a| &a[0]))
            .map(|value| value.as_str().or_else(|| route["name"].as_str()).expect("a string").to_owned())
    };
    assert_eq!(route(0), ["nas", "nas.home.example", "192.168.1.10:5666", "any"]);
    assert_eq!(route(1), ["ssh", "ssh.home.example", "[fd00::1]:22", "any"]);
    assert_eq!(written.server_names, ["nas.home.example", "ssh.home.example"]);

    // Commented-out settings are valid.
    let offered = text.replace("    # \"sha256:", "    \"sha256:").replace("# [groups]", "[groups]");
    let offered = offered.replace("# family", "family");
    let config: toml::Table = offered.parse().expect("TOML");
    let denied: Vec<String> = written.devices.iter().map(|d| format!("sha256:{}", d.fingerprint)).collect();
    let read: Vec<String> = config["client_auth"]["deny"].as_array().expect("a list").iter().map(string).collect();
    assert_eq!(read, denied);
    assert_eq!(config["groups"]["family"].as_array().map(Vec::len), Some(2));
}

#[test]
fn configuration_is_valid_and_has_the_page_with_the_devices() {
    let folder = tempfile::tempdir().expect("a folder");
    let more = ["--route", "shell=192.168.1.10:2222,kind=ssh", "--public-port", "8443"];
    let written = create(&args(folder.path(), &more)).expect("written");
    let config = config::load(&written.config).expect("a configuration");
    assert_eq!(config.warnings, []);
    assert_eq!(config.metrics.address, Some(PAGE));
    let inventory = config.metrics.inventory.expect("the devices");
    assert_eq!(inventory.devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["alice-phone"]);
    assert_eq!(written.page, "http://127.0.0.1:9180/");
    assert_eq!(config.public_port, 8443);
    assert_eq!(config.routes.iter().map(|route| route.kind).collect::<Vec<_>>(), [ServiceKind::Http, ServiceKind::Ssh]);
    let (page, ssh) = (read(&written.devices[0].steps), read(&written.devices[0].ssh_config));
    for text in [&page, &ssh] {
        assert!(text.contains("Host shell.home.example\n") && text.contains(" -connect %h:8443 "), "{text}");
    }
    assert!(page.contains("https://nas.home.example:8443/"), "{page}");
    assert!(!page.contains("https://shell."), "no browser can open it: {page}");
}

#[test]
fn without_a_wildcard_the_route_gets_the_domain_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = |more: &[&str]| {
        let all =
            ["--domain", "alice.duckdns.org", "--no-wildcard", "--route", "nas=192.168.1.10:5666", "--device", "a"];
        let folder = ["--folder", folder.path().to_str().expect("UTF-8")];
        create(&parse(&[&all[..], &folder, more].concat()).expect("arguments"))
    };
    let error = one(&["--route", "ssh=192.168.1.10:22"]).expect_err("two routes for one name");
    assert!(error.to_string().contains("give one --route") && error.exit_code() == 2, "{error}");
    let written = one(&[]).expect("written");
    assert_eq!(written.server_names, ["alice.duckdns.org"]);
    let config = config::load(&written.config).expect("a configuration");
    assert_eq!(
        (config.warnings.len(), config.routes[0].server_names[0].to_string()),
        (0, "alice.duckdns.org".to_owned())
    );
    assert!(read(&written.devices[0].steps).contains("https://alice.duckdns.org/"));
    assert!(written.text().contains("Point the name to your router"), "{}", written.text());
}

#[test]
fn options_in_other_forms_are_understood_or_corrected() {
    for (given, right) in [
        ("https://home.example/", "home.example"),
        ("http://Home.Example/photos?x=1", "home.example"),
        ("home.example/", "home.example"),
    ] {
        assert_eq!(parse_domain(given).expect(given).as_str(), right);
    }
    assert!(
        parse_domain("https://home.example:8443/")
            .expect_err("a port")
            .ends_with("--domain home.example --public-port 8443")
    );
    assert!(parse_domain("home.example:443").expect_err("a port").ends_with("write --domain home.example"));
    assert!(parse_domain("http://192.0.2.7/").expect_err("an address").contains("DuckDNS"));
    for (given, right) in [("8443", "[::]:8443"), (":443", "[::]:443"), ("192.168.1.5:1", "192.168.1.5:1")] {
        assert_eq!(parse_listen(given).map(|address| address.to_string()), Ok(right.to_owned()));
    }
    assert!(parse_listen("192.168.1.5").expect_err("no port").ends_with("write 192.168.1.5:8443"));
    assert!(parse_listen("::1").expect_err("no port").ends_with("write [::1]:8443"));
    assert!(parse_listen("nas").expect_err("a name").contains("as in 8443"));
    let unknown = parse_route("ssh=192.168.1.10:22,kind=shh").expect_err("no kind");
    assert!(unknown.contains("http, ssh, smb, other; did you mean ssh?"), "{unknown}");
}

#[test]
fn folder_name_cannot_escape_its_comment() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = create(&args(&folder.path().join("a\n[[listener]] \"b"), &[])).expect("written");
    let config: toml::Table = read(&written.config).parse().expect("TOML");
    assert_eq!(config["listener"].as_array().map(Vec::len), Some(1));
}

#[test]
fn init_overwrites_nothing_without_force() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = create(&args(folder.path(), &[])).expect("written");
    let before: Vec<Vec<u8>> = first.files.iter().map(|f| std::fs::read(&f.path).expect("there")).collect();

    std::fs::remove_file(&first.config).expect("removed");
    let error = create(&args(folder.path(), &[])).expect_err("in the way");
    assert_eq!(error.exit_code(), exit::EXISTS);
    let message = error.to_string();
    assert!(message.contains("server-ca-key.pem") && message.contains("nothing was written"), "{message}");
    assert!(!message.contains("doorward.toml"), "it is not in the way: {message}");
    assert!(!first.config.exists());
    for (file, before) in first.files.iter().zip(&before).filter(|(file, _)| file.path != first.config) {
        assert_eq!(&std::fs::read(&file.path).expect("there"), before, "{}", file.path.display());
    }

    let second = create(&args(folder.path(), &["--force"])).expect("replaced");
    assert_eq!(second.files, first.files);
    // The ssh configuration does not depend on the certificates.
    let same = [&first.config, &first.devices[0].ssh_config];
    for (file, before) in second.files.iter().zip(&before).filter(|(file, _)| !same.contains(&&file.path)) {
        assert_ne!(&std::fs::read(&file.path).expect("there"), before, "{}", file.path.display());
    }
}

#[test]
fn passwords_are_printed_and_not_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = create(&args(folder.path(), &["--device", "bob-laptop"])).expect("written");
    let (text, json) = (written.text(), serde_json::to_value(&written).expect("JSON"));
    assert_ne!(written.devices[0].password, written.devices[1].password);
    for (i, device) in written.devices.iter().enumerate() {
        assert!(text.contains(&device.password), "{text}");
        assert_eq!(json["devices"][i]["password"], *device.password);
        assert!(!format!("{written:?}").contains(&device.password));
        for file in &written.files {
            let contents = std::fs::read(&file.path).expect("there");
            let found = contents.windows(device.password.len()).any(|part| part == device.password.as_bytes());
            assert!(!found, "{} holds a password", file.path.display());
        }
    }
    assert_eq!(json["files"][0]["mode"], "0644");
    assert_eq!(json["files"][1]["mode"], "0600");
}

#[test]
fn text_lists_the_next_steps() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = create(&args(folder.path(), &[])).expect("written").text();
    let folder = folder.path().display();
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in\n{text}"));
    let order = ["http://127.0.0.1:9180/", "  1. Start", "  2. In your router", "  3. Set up", "Created in"].map(at);
    assert!(order.is_sorted(), "{text}");
    for needed in [
        format!("doorward run --config {folder}/doorward.toml"),
        format!("doorward why --config {folder}/doorward.toml"),
        "to port 8443 of this machine".to_owned(),
        "nas.home.example".to_owned(),
        format!("{folder}/devices/alice-phone.html"),
        format!("doorward share alice-phone --folder {folder}"),
    ] {
        assert!(text.contains(&needed), "{needed} is missing in\n{text}");
    }
}

/// The arguments of a home with a public certificate.
fn public(folder: &Path, domain: &str, more: &[&str]) -> Result<InitArgs, clap::Error> {
    let folder = folder.to_str().expect("UTF-8");
    let all = ["--domain", domain, "--route", "nas=192.168.1.10:5666", "--device", "alice-phone", "--acme"];
    parse(&[&all[..], &["--folder", folder], more].concat())
}

#[test]
fn public_certificate_is_ordered_and_no_server_authority_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let args = public(folder.path(), "alice.duckdns.org", &["--acme-contact", "alice@home.example"]);
    let written = create(&args.expect("arguments")).expect("written");
    let names: Vec<String> = written
        .files
        .iter()
        .map(|file| file.path.strip_prefix(folder.path()).expect("inside").display().to_string())
        .collect();
    assert!(names.contains(&"pki/clients.pem".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("server")), "{names:?}");
    let json = serde_json::to_value(&written).expect("JSON");
    assert_eq!(json["acme"], serde_json::json!({"directory": "letsencrypt", "trial": "letsencrypt-staging"}));
    assert!(json.get("server_authority").is_none() && json.get("server_not_after").is_none(), "{json}");

    let config = config::load(&written.config).expect("a configuration");
    let acme = config.acme.as_ref().expect("ACME");
    assert_eq!(acme.contact.as_deref(), Some("mailto:alice@home.example"));
    assert_eq!(acme.names.iter().map(String::as_str).collect::<Vec<_>>(), ["nas.alice.duckdns.org"]);
    assert_eq!(acme.trial.as_ref().map(|trial| trial.name.as_str()), Some("letsencrypt-staging"));
    assert!(config::server_trust::is_public(&config));
    let text = read(&written.config);
    assert!(!text.contains("server-ca") && !text.contains("server.pem"), "{text}");

    let text = written.text();
    for needed in ["at port 443", "terms of service: https://letsencrypt.org/", "doorward certificate\n"] {
        assert!(text.contains(needed), "{needed} is missing in\n{text}");
    }
    assert!(!text.contains("also forward"), "{text}");
    let other = public(&folder.path().join("b"), "alice.duckdns.org", &["--public-port", "8443"]);
    let text = create(&other.expect("arguments")).expect("written").text();
    assert!(text.contains("also forward TCP port 443 to port 8443"), "{text}");
}

#[test]
fn names_that_no_public_authority_certifies_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let new = folder.path().join("new");
    for (domain, why) in [
        ("home.lan", "no public authority issues a certificate for nas.home.lan: names that end in .lan"),
        ("home.arpa", "end in .home.arpa exist in home networks only"),
        ("nas.local", "end in .local exist"),
        ("home.example", "end in .example are reserved"),
    ] {
        let error = create(&public(&new, domain, &[]).expect("arguments")).expect_err(domain);
        assert!(error.to_string().contains(why) && error.to_string().contains("leave out --acme"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(!new.exists(), "{domain}: something is written");
    }
    let error = create(&public(&new, "alice.duckdns.org", &["--no-name-constraints"]).expect("arguments"));
    assert!(error.expect_err("no authority").to_string().contains("leave out one of the two"));
    // A private ACME server may certify any name.
    let made = tempfile::tempdir().expect("a folder");
    let root = create(&args(made.path(), &[])).expect("written").server_authority.expect("an authority");
    let file = root.to_str().expect("UTF-8");
    let private = ["--acme-directory", "https://ca.home.lan/acme/directory", "--acme-trust", file];
    let written = create(&public(&new, "home.lan", &private).expect("arguments")).expect("written");
    let config = config::load(&written.config).expect("a configuration");
    let acme = config.acme.as_ref().expect("ACME");
    assert_eq!((acme.trial.is_none(), acme.trust.as_ref().map(Vec::len)), (true, Some(1)));
    assert_eq!(read(&new.join("pki/acme-trust.pem")), read(&root));
}

#[test]
fn options_of_acme_are_checked() {
    let folder = Path::new("unused");
    for (more, why) in [
        (&["--acme-contact", "alice"][..], "me@home.example"),
        (&["--acme-contact", "alice@home.example,b@home.example"], "me@home.example"),
        (&["--acme-directory", "http://ca.example/"], "https://"),
        (&["--acme-directory", "letsencrypt-prod"], "letsencrypt-staging"),
    ] {
        let error = public(folder, "alice.duckdns.org", more).expect_err("wrong");
        assert!(error.to_string().contains(why), "{error}");
    }
    let without =
        parse(&["--domain", "a.example", "--route", "a=b:1", "--device", "a", "--acme-contact", "a@b.example"]);
    assert!(without.expect_err("--acme is missing").to_string().contains("--acme"));
    let missing = public(folder, "alice.duckdns.org", &["--acme-trust", "/nonexistent.pem"]).expect("arguments");
    assert!(create(&missing).expect_err("no file").to_string().contains("--acme-trust /nonexistent.pem"));
}
