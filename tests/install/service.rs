//! What the service needs beyond its unit: keys that systemd hands over, low ports, the kernel's TLS module.

use std::fs;

use crate::common::process::Finished;
use crate::image::{Image, OWNER, steps};

const DROP_IN: &str = "root/etc/systemd/system/doorward.service.d/install.conf";
const MODULES: &str = "root/etc/modules-load.d/doorward.conf";

/// An image whose owner's configuration is changed.
fn image(replace: &str, by: &str) -> Image {
    let image = Image::new();
    edit(&image, "home/doorward/doorward.toml", replace, by);
    image
}

fn edit(image: &Image, file: &str, replace: &str, by: &str) {
    let path = image.path(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(replace), "{replace} in {text}");
    fs::write(&path, text.replacen(replace, by, 1)).unwrap();
}

fn no_steps(finished: &Finished) {
    assert_eq!(steps(finished), [""; 0], "{finished}");
}

/// The lines of the drop-in that set something.
fn settings(image: &Image) -> Vec<String> {
    let text = fs::read_to_string(image.path(DROP_IN)).unwrap_or_default();
    text.lines().filter(|line| line.contains('=')).map(str::to_owned).collect()
}

#[test]
fn key_that_systemd_hands_over_is_roots_alone() {
    let image = Image::new();
    image.install(&[]).success();
    assert!(image.installed("pki/server-key.pem").exists());
    let dry = image.install(&["--load-credential", "--dry-run"]).success();
    let real = image.install(&["--load-credential"]).success();
    assert_eq!(steps(&dry), steps(&real));
    assert!(!image.installed("pki/server-key.pem").exists());
    assert_eq!(image.attributes("credentials"), (0, 0, 0o700));
    assert_eq!(image.attributes("credentials/server-key.pem"), (0, 0, 0o600));
    let key = |path| fs::read(path).unwrap();
    assert_eq!(key(image.installed("credentials/server-key.pem")), key(image.path("home/doorward/pki/server-key.pem")));
    let config = fs::read_to_string(image.installed("doorward.toml")).unwrap();
    assert!(config.contains("\nkey = \"credential:server-key.pem\"\n"), "{config}");
    let lines =
        ["LoadCredential=server-key.pem:/etc/doorward/credentials/server-key.pem", "RefreshOnReload=credentials"];
    assert_eq!(settings(&image), lines);

    // It stays so: the owner's configuration does not differ from this one, and a new key takes the same way.
    let again = image.install(&[]).success();
    no_steps(&again);
    assert!(!again.stderr.contains("differs from"), "{again}");
    image
        .doorward(&["ca", "server", "--new-key", "--folder", "doorward/pki", "--config", "doorward/doorward.toml"])
        .success();
    let renewed = image.install(&[]).success();
    let places = ["credentials/server-key.pem", "pki/inventory.toml", "pki/server.pem"]
        .map(|file| image.installed(file).display().to_string());
    assert_eq!(steps(&renewed).len(), 3, "{renewed}");
    assert!(places.iter().all(|place| renewed.stderr.contains(&format!("replace {place} "))), "{renewed}");
    image.install(&["--replace-config"]).success();
    no_steps(&image.install(&[]).success());

    image.install(&["--uninstall"]).success();
    assert!(!image.path(DROP_IN).parent().unwrap().exists());
    image.install(&[]).success();
    assert_eq!(settings(&image), lines);
    image.install(&["--uninstall", "--purge"]).success();
    assert!(!image.installed("").exists() && !image.path(DROP_IN).exists());
}

#[test]
fn key_outside_stays_there_and_is_handed_over() {
    let image = Image::new();
    let outside = image.path("live");
    fs::create_dir(&outside).unwrap();
    let key = outside.join("privkey.pem");
    fs::rename(image.path("home/doorward/pki/server-key.pem"), &key).unwrap();
    // The owner has to read it to install it.
    std::os::unix::fs::chown(&key, Some(OWNER), None).unwrap();
    let by = format!("{:?}", key.display().to_string());
    edit(&image, "home/doorward/doorward.toml", "\"pki/server-key.pem\"", &by);
    image.install(&["--load-credential"]).success();
    let config = fs::read_to_string(image.installed("doorward.toml")).unwrap();
    assert!(config.contains("key = \"credential:privkey.pem\""), "{config}");
    assert!(settings(&image).contains(&format!("LoadCredential=privkey.pem:{}", key.display())));
    assert!(!image.installed("credentials").exists());
    no_steps(&image.install(&[]).success());
}

#[test]
fn capability_is_added_only_for_a_low_port() {
    let image = image(":8443\"", ":443\"");
    let installed = image.install(&[]).success();
    let step = format!("write {} (root, 0644): what the service needs", image.path(DROP_IN).display());
    assert!(installed.stderr.contains(&step), "{installed}");
    let needed =
        ["AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "PrivateUsers=no"];
    assert_eq!(settings(&image), needed);
    no_steps(&image.install(&[]).success());
    // systemd listens, and the gate needs nothing.
    let socket = image.path("root/etc/systemd/system/doorward.socket");
    fs::write(&socket, "[Socket]\n").unwrap();
    image.install(&[]).success();
    assert!(!image.path(DROP_IN).exists());
    fs::remove_file(&socket).unwrap();
    image.install(&[]).success();
    edit(&image, "root/etc/doorward/doorward.toml", ":443\"", ":8443\"");
    image.install(&[]).success();
    assert!(!image.path(DROP_IN).exists());
    // What the administrator added stays.
    edit(&image, "root/etc/doorward/doorward.toml", ":8443\"", ":443\"");
    image.install(&[]).success();
    let own = image.path(DROP_IN).with_file_name("override.conf");
    fs::write(&own, "[Service]\n").unwrap();
    image.install(&["--uninstall"]).success();
    assert!(own.exists() && !image.path(DROP_IN).exists());
}

#[test]
fn kernel_module_is_loaded_only_for_kernel_tls() {
    for (value, wanted) in [("auto", true), ("require", true), ("off", false)] {
        let image = image("[[listener]]", &format!("kernel_tls = \"{value}\"\n\n[[listener]]"));
        image.install(&[]).success();
        let text = fs::read_to_string(image.path(MODULES)).unwrap_or_default();
        assert_eq!(text.lines().any(|line| line == "tls"), wanted, "{value}");
        no_steps(&image.install(&[]).success());
        image.install(&["--uninstall"]).success();
        assert!(!image.path(MODULES).exists());
    }
    let image = image("[[listener]]", "kernel_tls = \"auto\"\n\n[[listener]]");
    image.install(&[]).success();
    edit(&image, "root/etc/doorward/doorward.toml", "\"auto\"\n\n[[l", "\"off\"\n\n[[l");
    image.install(&[]).success();
    assert!(!image.path(MODULES).exists());
}

#[test]
fn credentials_need_systemd() {
    let image = Image::new();
    fs::remove_file(image.path("root/usr/lib/systemd/systemd")).unwrap();
    let refused = image.install(&["--load-credential"]).failure();
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert!(refused.stderr.contains("--load-credential needs systemd"), "{refused}");
}

#[test]
fn credentials_and_authority_exclude_each_other() {
    let refused = |image: &Image, arguments: &[&str]| {
        let refused = image.install(arguments).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains("exclude each other"), "{refused}");
    };
    let image = Image::new();
    refused(&image, &["--load-credential", "--with-authority"]);
    assert!(!image.installed("").exists());
    image.install(&["--with-authority"]).success();
    refused(&image, &["--load-credential"]);
    let image = Image::new();
    image.install(&["--load-credential"]).success();
    refused(&image, &["--with-authority"]);
}
