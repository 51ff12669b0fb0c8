//! Services behind the gate that speak TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, Stream};

use super::backend::Backend;
use super::pki::{Authority, Certified, TestPki};

/// The name in the certificates.
pub(crate) const NAME: &str = "nas.local";

/// The settings of a service that shows this certificate.
pub(crate) fn server(certified: &Certified) -> ServerConfig {
    ServerConfig::builder().with_no_client_auth().with_single_cert(certified.chain(), certified.key()).unwrap()
}

/// A certificate for [`NAME`] of an authority of its own, whose certificate is in the file.
pub(crate) fn certificate(pki: &TestPki, file: &str) -> (Certified, PathBuf) {
    let authority = Authority::new("Services at home");
    (authority.issue(Certified::for_servers(&[NAME])), pki.write(file, authority.pem()))
}

/// A service with TLS: `talk` speaks inside of it, and then it is ended in order.
pub(crate) fn serve(
    config: ServerConfig,
    talk: impl Fn(&mut Stream<'_, ServerConnection, &TcpStream>) + Send + Sync + 'static,
) -> Backend {
    let config = Arc::new(config);
    Backend::serve("127.0.0.1:0", move |mut stream, _| {
        let Ok(mut tls) = ServerConnection::new(Arc::clone(&config)) else { return };
        let mut inside = Stream::new(&mut tls, &mut stream);
        talk(&mut inside);
        let _ = inside.flush();
        tls.send_close_notify();
        while tls.wants_write() && tls.write_tls(&mut stream).is_ok() {}
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// Sends back what it receives, until the other side ends.
pub(crate) fn echo(config: ServerConfig) -> Backend {
    serve(config, |tls| {
        let mut part = vec![0; 1 << 16];
        while let Ok(length @ 1..) = tls.read(&mut part) {
            if tls.write_all(&part[..length]).and_then(|()| tls.flush()).is_err() {
                break;
            }
        }
    })
}
