//! Files that are not what they should be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use doorward::bundle::{Bundle, BundleKey};

use crate::common::process::run;
use crate::people::{Issuer, Owner, User, day};

#[test]
fn files_that_are_no_bundles_are_refused_in_words() {
    let (owner, user) = (Owner::new(), User::new());
    let text = fs::read_to_string(owner.file().0).unwrap();
    let write = |name: &str, contents: &[u8]| {
        fs::write(user.path(name), contents).unwrap();
        user.path(name)
    };
    fs::create_dir(user.path("folder")).unwrap();
    let cut = &text.as_bytes()[..text.len() / 2];
    let rows = [
        (owner.path("devices/alice-laptop.p12"), "not a .doorward file"),
        (owner.path("devices/alice-laptop.pem"), "not a .doorward file"),
        (user.path("folder"), "cannot read"),
        (user.path("missing"), "cannot read"),
        (write("cut", cut), "the file is damaged or incomplete: copy it again"),
        (write("huge", &vec![b'#'; 300 * 1024]), "larger than 256 KiB"),
        ("/dev/zero".into(), "larger than 256 KiB"),
        (write("newer", text.replace("version = 1", "version = 9").as_bytes()), "update doorward on this device"),
        (write("path", text.replace("home = \"home", "home = \"../home").as_bytes()), "home: not a host name"),
        (write("control", text.replace("\"nas\"", "\"n\\u001b[2Jas\"").as_bytes()), "a name may not contain"),
        (
            write("twice", text.replace("smb.home.example", "ssh.home.example").as_bytes()),
            "ssh.home.example leads to two routes",
        ),
    ];
    for (file, said) in rows {
        let refused = user.joins(&file, "x", &[]).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains(said), "{said:?} is not in\n{refused}");
        assert!(!refused.stderr.contains('\u{1b}'), "{refused}");
    }
    assert!(!user.path(".config").exists());
}

#[test]
fn bundles_of_no_use_are_refused() {
    let (issuer, user) = (Issuer::new(), User::new());
    let good = issuer.bundle("laptop", -40, 100);
    let other = issuer.bundle("laptop", -40, 100);
    let rows = [
        (issuer.bundle("laptop", -40, -3), format!("expired on {}, 3 days ago", day(-3))),
        (Bundle { routes: Vec::new(), ..good.clone() }, "has no route".to_owned()),
        (Bundle { key: other.key, ..good.clone() }, "the key does not match the certificate".to_owned()),
    ];
    for (bundle, said) in rows {
        let refused = user.joins(&user.given("x.doorward", &bundle), "", &[]).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains(&said), "{said:?} is not in\n{refused}");
    }
    assert!(!user.path(".config").exists());
    for name in ["../x", ".x", "a/b", "", "a b"] {
        let refused = user.joins(&user.given("x.doorward", &good), "", &[&format!("--as={name}")]).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        let refused = run(&mut user.join(&[&format!("--undo={name}")])).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
    }
}

#[test]
fn home_that_others_can_change_is_not_used_wherever_its_key_is() {
    let (issuer, user) = (Issuer::new(), User::new());
    let bundle = issuer.bundle("laptop", -40, 100);
    user.joins(&user.given("x.doorward", &bundle), "", &["--as", "a"]).success();
    let token = Bundle { key: BundleKey::Token("pkcs11:token=x?module-path=/tmp/x.so".to_owned()), ..bundle };
    fs::write(user.home_file("b"), token.to_text().as_bytes()).unwrap();
    for name in ["a", "b"] {
        for mode in [0o620, 0o602, 0o666] {
            fs::set_permissions(user.home_file(name), fs::Permissions::from_mode(mode)).unwrap();
            let listed = run(&mut user.join(&["--list"])).failure();
            let said = format!("other users can change {}, ", user.home_file(name).display());
            assert!(listed.stderr.contains(&said) && listed.stderr.contains("chmod 600"), "{listed}");
        }
        fs::set_permissions(user.home_file(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    run(&mut user.join(&["--list"])).success();
}

#[test]
fn key_that_others_can_read_is_not_used_and_damage_hides_no_other_home() {
    let (issuer, user) = (Issuer::new(), User::new());
    let file = user.given("x.doorward", &issuer.bundle("laptop", -40, 100));
    user.joins(&file, "", &["--as", "a"]).success();
    user.joins(&file, "", &["--as", "b"]).success();
    fs::set_permissions(user.home_file("a"), fs::Permissions::from_mode(0o640)).unwrap();
    let listed = run(&mut user.join(&["--list"])).failure();
    assert!(listed.stderr.contains("other users can read ") && listed.stderr.contains("chmod 600"), "{listed}");
    assert!(listed.text().starts_with("b  laptop  valid until"), "{listed}");
    fs::set_permissions(user.home_file("a"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(user.home_file("a"), "version = 1\nhome =").unwrap();
    // As an editor or a crash leaves them.
    fs::write(user.home_file("a").with_file_name(".new-x"), "").unwrap();
    fs::write(user.home_file("a").with_file_name("b.doorward~"), "").unwrap();
    let listed = run(&mut user.join(&["--list"])).failure();
    assert!(listed.stderr.contains("a.doorward: line 2: "), "{listed}");
    assert!(listed.text().starts_with("b  laptop  valid until"), "{listed}");
    run(&mut user.join(&["--undo", "a"])).success();
    run(&mut user.join(&["--list"])).success();
}
