//! One health check of a backend: connect, TLS handshake, send, expect. The connection does not leave this file.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::dial::{self, First, Unconnected};
use super::health::{Check, Failed};
use super::opened::{Connection, Tls};
use super::resolver::Resolver;
use crate::backend_tls::{TlsStream, any_certificate};
use crate::model::rejection::{Answer, CheckFailure, Text};
use crate::sys::stream::Stream;

/// So much of an answer is read at once, so that it can be shown.
const ANSWER_MAX: usize = 512;

/// Checks a backend once, within its time limit.
pub async fn probe(check: &Check, resolver: &Resolver) -> Result<(), Failed> {
    let deadline = Instant::now() + check.settings.timeout;
    let first = First { header: check.header, protocol: None, payload_waits: false };
    let tls = check.tls.as_ref().map(|(tls, index)| Tls { tls, backend: *index });
    let connection = match dial::connect_unasked(&check.backend, tls, first, resolver, deadline).await {
        Ok(connection) => connection,
        Err(Unconnected::Shortage) => return Err(Failed::Gate),
        Err(Unconnected::TimedOut) => return Err(Failed::Backend(CheckFailure::NotAccepted)),
        Err(Unconnected::Unresolved(error)) => return Err(Failed::Backend(CheckFailure::Unresolved(error))),
        Err(Unconnected::Tls(fault)) => return Err(Failed::Backend(CheckFailure::BackendTls(Box::new(fault)))),
        Err(Unconnected::Io(error)) => return Err(Failed::Backend(CheckFailure::NotReached(error.into()))),
    };
    let ended = match connection {
        Connection::Plain(Stream::Tcp(stream)) => converse(stream, check, deadline).await,
        Connection::Plain(Stream::Unix(stream)) => converse(stream, check, deadline).await,
        Connection::Tls(stream) => ask(Inside(stream), check, deadline).await,
    };
    ended.map_err(Failed::Backend)
}

/// TLS as the gate speaks it for clients, read and written.
struct Inside(Box<TlsStream>);

impl AsyncRead for Inside {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Inside {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_end(cx, true)
    }
}

/// What follows the connection.
async fn converse<S>(stream: S, check: &Check, deadline: Instant) -> Result<(), CheckFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !check.settings.tls {
        return ask(stream, check, deadline).await;
    }
    let (config, name) = match &check.server_name {
        Some(name) => (&TLS.named, name.as_str()),
        None => (&TLS.nameless, "localhost"),
    };
    let name = ServerName::try_from(name.to_owned()).map_err(|error| CheckFailure::Tls(Text::new(error)))?;
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    let stream = match timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(handshake_failed(&error)),
        Err(_) => return Err(CheckFailure::Silent { after: check.settings.timeout, expected: None }),
    };
    ask(stream, check, deadline).await
}

fn handshake_failed(error: &io::Error) -> CheckFailure {
    let closed = |error| CheckFailure::Closed { received: Answer::new(b""), expected: None, error };
    match (error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()), error.kind()) {
        (Some(error), _) => CheckFailure::Tls(Text::new(error)),
        (None, io::ErrorKind::UnexpectedEof) => closed(None),
        (None, _) => closed(Some(error.into())),
    }
}

/// Sends what is to be sent, and compares the answer.
async fn ask<S>(mut stream: S, check: &Check, deadline: Instant) -> Result<(), CheckFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let expect = check.settings.expect.as_slice();
    if expect.is_empty() {
        return Ok(());
    }
    let expected = || Some(Answer::new(expect));
    let mut answer = Vec::with_capacity(ANSWER_MAX);
    let compared = async {
        stream.write_all(&check.settings.send).await?;
        stream.flush().await?;
        while answer.len() < expect.len() && expect.starts_with(&answer) {
            if stream.read_buf(&mut answer).await? == 0 {
                return Ok(false);
            }
        }
        Ok::<bool, io::Error>(true)
    };
    let compared = timeout_at(deadline, compared).await;
    let received = || Answer::new(&answer);
    match compared {
        Ok(Ok(true)) if answer.starts_with(expect) => Ok(()),
        Ok(Ok(true)) => Err(CheckFailure::Answered { received: received(), expected: Answer::new(expect) }),
        Ok(Ok(false)) => Err(CheckFailure::Closed { received: received(), expected: expected(), error: None }),
        Ok(Err(error)) => {
            Err(CheckFailure::Closed { received: received(), expected: expected(), error: Some(error.into()) })
        }
        Err(_) => Err(CheckFailure::Silent { after: check.settings.timeout, expected: expected() }),
    }
}

/// The configurations of TLS handshakes with backends of passthrough routes.
struct Handshakes {
    /// With a server name.
    named: Arc<ClientConfig>,
    /// Without one.
    nameless: Arc<ClientConfig>,
}

static TLS: LazyLock<Handshakes> = LazyLock::new(|| {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let named = client(&provider);
    let mut nameless = named.clone();
    nameless.enable_sni = false;
    Handshakes { named: Arc::new(named), nameless: Arc::new(nameless) }
});

/// A client that accepts any certificate. Nothing that a check sends or learns is secret.
fn client(provider: &Arc<CryptoProvider>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    #[expect(clippy::expect_used, reason = "the provider has cipher suites of both versions; a test makes it")]
    let builder = builder.with_safe_default_protocol_versions().expect("suites of TLS 1.2 and 1.3");
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(any_certificate(provider)).with_no_client_auth();
    // Each check is a whole handshake.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

#[cfg(test)]
mod tests;
