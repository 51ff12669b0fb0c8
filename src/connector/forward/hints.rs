//! What a user types to use a route that is forwarded.

use super::rule::{Local, SMB};
use crate::model::service::ServiceKind;

/// The line for this kind of service on a system, as `std::env::consts::OS` calls it.
pub(super) fn hint(kind: ServiceKind, local: &Local, system: &str) -> Option<String> {
    let Local::Tcp(address) = local else { return None };
    let (ip, port) = (address.ip(), address.port());
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    Some(match (kind, system) {
        (ServiceKind::Http, _) => format!("http://{host}:{port}/"),
        (ServiceKind::Ssh, _) => format!("ssh -p {port} USER@{ip}"),
        (ServiceKind::Smb, "macos") => format!("open smb://USER@{host}:{port}/SHARE"),
        (ServiceKind::Smb, "windows") if port == SMB => format!("net use Z: \\\\{ip}\\SHARE"),
        // Other ports: Windows 11 24H2 and Windows Server 2025.
        (ServiceKind::Smb, "windows") => format!("net use Z: \\\\{ip}\\SHARE /TCPPORT:{port}"),
        (ServiceKind::Smb, _) => format!("sudo mount -t cifs //{ip}/SHARE /mnt -o port={port},username=USER"),
        (ServiceKind::Other, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_fit_the_system_and_the_port() {
        let line = |kind, local: &str, system| hint(kind, &local.parse().unwrap(), system);
        let smb = |local, system| line(ServiceKind::Smb, local, system).unwrap();
        assert_eq!(smb("4450", "linux"), "sudo mount -t cifs //127.0.0.1/SHARE /mnt -o port=4450,username=USER");
        assert_eq!(smb("4450", "macos"), "open smb://USER@127.0.0.1:4450/SHARE");
        assert_eq!(smb("[::1]:4450", "macos"), "open smb://USER@[::1]:4450/SHARE");
        assert_eq!(smb("445", "windows"), r"net use Z: \\127.0.0.1\SHARE");
        assert_eq!(smb("4450", "windows"), r"net use Z: \\127.0.0.1\SHARE /TCPPORT:4450");
        assert_eq!(line(ServiceKind::Ssh, "2222", "linux").unwrap(), "ssh -p 2222 USER@127.0.0.1");
        assert_eq!(line(ServiceKind::Http, "8080", "linux").unwrap(), "http://127.0.0.1:8080/");
        assert_eq!(line(ServiceKind::Smb, "unix:/run/nas", "linux"), None);
        assert_eq!(line(ServiceKind::Other, "5432", "linux"), None);
    }
}
