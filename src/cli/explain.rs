//! `doorward explain`: whether the gate would admit a certificate, and why, without a connection.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::Serialize;

use super::{ConfigArg, CredentialsArg, Format, exit, failed};
use crate::explain::{detail, words};
use crate::model::names::{ServerName, printable};
use crate::model::rejection::Reason;
use crate::snapshot::{RouteAccess, Snapshot};

/// The examples below the help text.
pub(super) const EXAMPLE: &str = "\
Example, in the folder that \"doorward init\" created:
  doorward explain --server-name nas.home.example --cert devices/alice-phone.pem";

/// The options of `doorward explain`.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,

    #[command(flatten)]
    credentials: CredentialsArg,

    /// The device's certificate as a .pem file, followed by its intermediate certificates if there are any. Without this
    /// option: a client without a certificate
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// The server name that the device asks for. Without this option: a client that sends none
    #[arg(long, value_name = "NAME", value_parser = ServerName::parse)]
    server_name: Option<ServerName>,

    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Explanation {
    admitted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    explanation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    let config = match args.config.load_with(args.credentials.credentials()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let snapshot = match Snapshot::build(&config) {
        Ok(snapshot) => snapshot,
        Err(error) => return failed(exit::CONFIG, &error),
    };
    let chain = match args.cert.as_ref().map(read_chain).transpose() {
        Ok(chain) => chain.unwrap_or_default(),
        Err(error) => return failed(exit::USAGE, &error),
    };
    let explanation = explain(&snapshot, args.server_name.as_ref(), &chain);
    match args.format {
        Format::Text => {
            outln!("{}: {}", if explanation.admitted { "yes" } else { "no" }, explanation.explanation);
            if let Some(advice) = explanation.advice {
                outln!("{advice}");
            }
        }
        Format::Json => match serde_json::to_string_pretty(&explanation) {
            Ok(json) => outln!("{json}"),
            Err(error) => return failed(exit::UNEXPECTED, &error),
        },
    }
    if explanation.admitted { exit::OK } else { exit::REFUSED }.into()
}

fn read_chain(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    if chain.is_empty() {
        // A device has three files, which are easily confused.
        let instead = if bytes.windows(11).any(|part| part == b"PRIVATE KEY") {
            format!("{shown} is a private key\n  give the certificate that belongs to it")
        } else if bytes.starts_with(&[0x30]) {
            format!(
                "{shown} is not a .pem file; it looks like a .p12\n  give the .pem file beside it, or make one: \
                 openssl pkcs12 -in {shown} -nokeys -clcerts -out device.pem (with -legacy for files of mkcert)"
            )
        } else {
            format!("{shown} contains no certificate (\"-----BEGIN CERTIFICATE-----\")\n  give the device's .pem file")
        };
        return Err(instead);
    }
    Ok(chain)
}

fn explain(snapshot: &Snapshot, server_name: Option<&ServerName>, chain: &[CertificateDer<'_>]) -> Explanation {
    let no = |route: Option<&str>, certificate: Option<String>, reason: Reason, text: String| Explanation {
        admitted: false,
        route: route.map(str::to_owned),
        certificate,
        stage: Some(reason.stage().label()),
        reason: Some(reason.label()),
        explanation: format!("{reason}: {text}"),
        advice: Some(words(reason).advice),
    };
    let asked = server_name.map_or_else(|| "a client without a server name".to_owned(), |name| name.to_string());
    let route = match snapshot.find(server_name) {
        Ok(route) => route,
        Err(cause) => {
            let reason = cause.reason();
            let hint = if server_name.is_none() { " (set it with --server-name)" } else { "" };
            return no(None, None, reason, format!("{}{hint}", detail(&cause)));
        }
    };
    let name = route.name.as_str();
    let backends: Vec<String> = route.backends.iter().map(ToString::to_string).collect();
    let backends = backends.join(", then ");
    let (identity, verdict) = match &route.access {
        RouteAccess::Passthrough(_) => {
            return Explanation {
                admitted: true,
                route: Some(name.to_owned()),
                certificate: None,
                stage: None,
                reason: None,
                explanation: format!(
                    "{asked} leads to route {name:?}, which passes every client on to {backends}; the backend decides"
                ),
                advice: None,
            };
        }
        RouteAccess::Terminate { tls, .. } => tls.judge(chain, UnixTime::now()),
    };
    let certificate = identity.as_ref().map(|identity| printable(&identity.display_name(), 128));
    let origin = identity.as_ref().and_then(|identity| identity.origin.as_ref());
    let origin =
        origin.map(|origin| format!(" (renewed without you: it descends from the certificate {})", origin.serial));
    match verdict {
        Err(cause) => {
            let client = certificate.as_ref().map_or_else(String::new, |client| format!("{client}, route {name:?}: "));
            no(Some(name), certificate, cause.reason(), format!("{client}{}", detail(&cause)))
        }
        Ok(()) => Explanation {
            admitted: true,
            route: Some(name.to_owned()),
            explanation: format!(
                "{asked} leads to route {name:?}, which admits {}{} to {backends}",
                certificate.as_deref().unwrap_or("clients without a certificate"),
                origin.unwrap_or_default()
            ),
            certificate,
            stage: None,
            reason: None,
            advice: None,
        },
    }
}
