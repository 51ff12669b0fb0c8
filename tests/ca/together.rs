//! Two commands at the same time.

use std::process::Stdio;

use crate::home::Home;

#[test]
fn concurrent_commands_lose_nothing() {
    let home = Home::with_authorities();
    let names: Vec<String> = (0..6).map(|i| format!("device-{i}")).collect();
    let running: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = home.doorward();
            command.args(["ca", "device", name]).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for command in running {
        let ended = command.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let mut devices = home.devices();
    devices.sort();
    assert_eq!(devices, names.iter().map(|name| format!("{name} valid")).collect::<Vec<_>>());
    for name in &names {
        home.openssl(&["verify", "-CAfile", "pki/clients.pem", &format!("devices/{name}.pem")]).success();
    }
}
