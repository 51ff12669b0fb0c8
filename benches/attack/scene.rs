//! A home whose gate is attacked, and its devices.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::DEADLINE;
use crate::common::backend::Backend;
use crate::common::gate::{Gate, LOCAL};
use crate::common::process::run;
use crate::home::Home;
use crate::{NAME, Size};

/// A home with a gate under attack.
pub(super) struct Scene {
    home: Home,
    pub(super) gate: Gate,
    _backend: Backend,
}

impl Scene {
    /// Issues certificates to `devices`, adds `routes` and `limits` to the configuration, and lets `change` modify the
    /// process.
    pub(super) fn open(devices: &[String], routes: &str, limits: &str, change: impl FnOnce(&mut Command)) -> Self {
        let home = Home::with_authorities();
        for device in devices {
            home.ca(&["device", device]).success();
        }
        let backend = Backend::echo();
        let path = |file: &str| home.path(file).display().to_string();
        let gate = Gate::start_with(
            &format!(
                "{LOCAL}\n[control]\nsocket = \"control.sock\"\n[certificate]\nchain = {:?}\nkey = {:?}\n\
                 [client_auth]\ntrust = [{:?}]\nrevocation_lists = [{:?}]\n{limits}\n\
                 [[route]]\nname = \"nas\"\nserver_names = [{NAME:?}]\nbackends = [\"{}\"]\nallow = [\"any\"]\n{routes}",
                path("pki/server.pem"),
                path("pki/server-key.pem"),
                path("pki/clients.pem"),
                path("pki/clients.crl"),
                backend.address(),
            ),
            change,
        );
        Self { home, gate, _backend: backend }
    }

    pub(super) fn pem(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.home.path(file)).unwrap()
    }

    pub(super) fn device(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_slice(&self.pem(&format!("devices/{name}.pem"))).unwrap();
        (certificate, PrivateKeyDer::from_pem_slice(&self.pem(&format!("devices/{name}-key.pem"))).unwrap())
    }

    pub(super) fn config(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.pem("pki/server-ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap())
    }

    /// A session of this client over which one byte was echoed.
    pub(super) async fn enter(&self, source: Ipv4Addr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(self.gate.address()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let mut tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.unwrap();
        tls.write_all(b"?").await.unwrap();
        timeout(DEADLINE, tls.read_exact(&mut [0])).await.expect("an answer").unwrap();
        tls
    }

    /// Runs `ca revoke` and waits until each of these sessions has ended. Returns the time for each.
    pub(super) async fn revoke(&self, device: &str, sessions: Vec<TlsStream<TcpStream>>) -> Vec<Duration> {
        let ends: Vec<_> = sessions
            .into_iter()
            .map(|mut session| {
                tokio::spawn(async move {
                    let mut byte = [0];
                    while matches!(timeout(DEADLINE, session.read(&mut byte)).await.expect("an end"), Ok(1)) {}
                    Instant::now()
                })
            })
            .collect();
        let config = self.gate.folder().join("doorward.toml");
        let begun = Instant::now();
        let mut command = self.home.doorward();
        command.args(["ca", "revoke", device, "--format", "json", "--config"]).arg(config);
        command.arg("--folder").arg(self.home.path("pki"));
        let said = tokio::task::spawn_blocking(move || run(&mut command).success()).await.unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(said["in_force"], true, "{said}");
        let mut lags = Vec::new();
        for end in ends {
            lags.push(end.await.unwrap() - begun);
        }
        lags
    }

    /// Connects the devices, waits until the attack is running, and revokes them one after the other. One that is not
    /// revoked must stay connected.
    pub(super) async fn revoke_each(&self, devices: &[String], size: &Size) -> Vec<Duration> {
        let mut held = Vec::new();
        for (number, device) in devices.iter().enumerate() {
            let (certificate, key) = self.device(device);
            let config = self.config(vec![certificate], key);
            let mut sessions = Vec::new();
            for _ in 0..size.sessions {
                sessions.push(self.enter(Ipv4Addr::new(127, 1, 0, u8::try_from(number + 1).unwrap()), &config).await);
            }
            held.push((device, sessions));
        }
        let (_, mut kept) = held.pop().unwrap();
        tokio::time::sleep(size.lead).await;
        let mut lags = Vec::new();
        for (device, sessions) in held {
            lags.extend(self.revoke(device, sessions).await);
        }
        for session in &mut kept {
            session.write_all(b"!").await.unwrap();
            timeout(DEADLINE, session.read_exact(&mut [0])).await.expect("an answer").unwrap();
        }
        lags
    }
}
