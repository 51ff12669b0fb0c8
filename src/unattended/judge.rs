//! Judges a request, and issues the certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::pace::Pace;
use crate::ca::approve::{Shown, asking};
use crate::ca::authority::certify_renewed;
use crate::config::checked::{Config, RenewalIssuer, RouteMode, TrustKind};
use crate::config::{self, ConfigErrors};
use crate::explain;
use crate::model::device_name::is_called;
use crate::model::identity::{Identity, Origin, Serial, Sha256};
use crate::model::renewal::{IssuedUnattended, Unattended};
use crate::pki::{self, Authority, Parts};
use crate::renewal::folder::{RenewalRequest, RequestFolder};
use crate::snapshot::{Route, RouteAccess, Snapshot};

/// Renews certificates with the key of one authority.
#[derive(Debug)]
pub struct Renewer {
    /// The configuration, which is read again for each request.
    file: PathBuf,
    issuer: RenewalIssuer,
    authority: Authority,
    folder: RequestFolder,
    pace: Pace,
}

/// Why nothing is issued: the owner has to decide, or something is wrong here.
enum Not {
    Left(String),
    Failed(String),
}

impl Renewer {
    /// With this authority, which is that of the configuration.
    pub fn new(file: &Path, issuer: RenewalIssuer, authority: Authority, folder: RequestFolder) -> Self {
        Self { file: file.to_owned(), issuer, authority, folder, pace: Pace::default() }
    }

    /// Looks at the request of a device, and answers it if it can be answered without the owner.
    pub fn look(&mut self, device: &str) -> Unattended {
        match self.issue(device) {
            Ok(issued) => Unattended::Issued(issued),
            Err(Not::Left(why)) => Unattended::Left { why },
            Err(Not::Failed(error)) => Unattended::Failed { error },
        }
    }

    fn issue(&mut self, device: &str) -> Result<IssuedUnattended, Not> {
        let failed = |error: std::io::Error| Not::Failed(format!("the folder of requests cannot be used: {error}"));
        let request = self.folder.request(device).map_err(failed)?;
        let request = request.ok_or_else(|| Not::Left("there is no request of the device".to_owned()))?;
        let allowed = Allowed::read(&self.file, &self.issuer, &request)?;
        let folder = self.folder.clone();
        // Only what is not answered yet is issued, and counted.
        let answered = folder.answer_with(&request, || self.sign(&request, &allowed));
        answered.map_err(failed)?.unwrap_or_else(|| Err(Not::Left("it was answered meanwhile".to_owned())))
    }

    /// The certificate to be stored, and what is told.
    fn sign(
        &mut self,
        request: &RenewalRequest,
        allowed: &Allowed<'_>,
    ) -> Result<(CertificateDer<'static>, Result<IssuedUnattended, Not>), Result<IssuedUnattended, Not>> {
        let left = |why: &str| Err(Not::Left(why.to_owned()));
        let failed = |error: pki::Error| Err(Not::Failed(format!("the certificate cannot be issued: {error}")));
        let key = SubjectPublicKeyInfo::from_der(request.request.spki()).map_err(|error| failed(error.into()))?;
        let issued = certify_renewed(&self.authority, allowed.certificate, &key, &allowed.origin, self.issuer.days);
        let issued = issued
            .map_err(failed)?
            .map_err(|why| left(&format!("the certificate that it came with is not renewed: {why}")))?;
        // The gate would refuse it: nothing is issued that is of no use.
        if let Err(why) = judge(&allowed.route, issued.certificate()) {
            return Err(Err(Not::Failed(format!("a gate would refuse the new certificate: {why}"))));
        }
        if !self.pace.take(&allowed.origin.fingerprint) {
            return Err(left("too many certificates were issued lately without the owner"));
        }
        let told = IssuedUnattended {
            serial: Serial::from_be_bytes(issued.serial()).to_string(),
            origin: allowed.origin.serial.to_string(),
            not_after: issued.not_after().unix_timestamp(),
        };
        Ok((issued.certificate().clone(), Ok(told)))
    }
}

/// A request that may be answered without the owner.
struct Allowed<'a> {
    /// The certificate that it came with.
    certificate: &'a CertificateDer<'static>,
    /// What that descends from: itself, if an authority of the owner has signed it.
    origin: Origin,
    /// How gates judge certificates now.
    route: Arc<Route>,
}

impl<'a> Allowed<'a> {
    fn read(file: &Path, issuer: &RenewalIssuer, request: &'a RenewalRequest) -> Result<Self, Not> {
        let left = |why: String| Not::Left(why);
        let config = config::load(file).map_err(|errors: ConfigErrors| {
            let first = errors.iter().next().map(|error| format!("{}: {}", error.key, error.message));
            Not::Failed(format!("the configuration cannot be read: {}", first.unwrap_or_default()))
        })?;
        let renewal = config.renewal.as_ref().filter(|renewal| renewal.issuer.as_ref() == Some(issuer));
        let renewal = renewal.ok_or_else(|| Not::Failed("the configuration has another issuer by now".to_owned()))?;
        let snapshot = Snapshot::build(&config).map_err(|error| Not::Failed(error.to_string()))?;
        let route = snapshot.route(&renewal.route.name).cloned();
        let route = route.ok_or_else(|| Not::Failed("the configuration has no renewal".to_owned()))?;
        let certificate = request.shown.as_ref();
        let certificate =
            certificate.ok_or_else(|| left("the certificate that it came with is not there".to_owned()))?;
        let identity = judge(&route, certificate)
            .map_err(|why| left(format!("the certificate that it came with is refused: {why}")))?;
        let inventory = config.metrics.inventory.as_ref().map(|inventory| config::load_inventory(&inventory.file));
        let inventory = inventory.ok_or_else(|| Not::Failed("there is no inventory".to_owned()))?;
        let inventory = inventory.map_err(Not::Failed)?;
        let asking =
            asking(&inventory, &Shown::verified(&identity), &request.request).map_err(|why| left(why.to_string()))?;
        if !asking.same_key {
            return Err(left("its key is new, and nothing shows that the device has made it".to_owned()));
        }
        let name = &asking.entry.name;
        // The answer is for the device that has asked.
        if *name != request.device {
            return Err(left("it came with the certificate of another device".to_owned()));
        }
        if issuer.except.iter().any(|except| is_called(name, except)) {
            return Err(left("the configuration leaves this device to the owner (renewal.issuer.except)".to_owned()));
        }
        let origin = match &identity.origin {
            Some(origin) => Origin::clone(origin),
            None => own_origin(&config, certificate, &identity)
                .ok_or_else(|| left("its authority is not the one that the inventory names".to_owned()))?,
        };
        Ok(Self { certificate, origin, route })
    }
}

/// Judges a certificate as a gate does in a handshake.
fn judge(route: &Route, certificate: &CertificateDer<'static>) -> Result<Arc<Identity>, String> {
    let RouteAccess::Terminate { tls, .. } = &route.access else {
        return Err("the gate does not ask for certificates".to_owned());
    };
    let (identity, verdict) = tls.judge(std::slice::from_ref(certificate), UnixTime::now());
    verdict.map_err(|cause| explain::detail(&cause))?;
    identity.filter(|identity| identity.verified).ok_or_else(|| "it is not verified".to_owned())
}

/// A certificate that an authority of the owner's has signed, as what others descend from.
fn own_origin(config: &Config, certificate: &CertificateDer<'_>, identity: &Identity) -> Option<Origin> {
    let trust = config.renewal_trust()?;
    let known = trust.origins.get(&identity.fingerprint).filter(|known| known.serial == identity.serial)?;
    let RouteMode::Terminate(terminate) = &config.renewal.as_ref()?.route.mode else { return None };
    let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut anchors = terminate.client_auth.trust.iter().filter(|anchor| anchor.kind == TrustKind::Authority);
    let signer = anchors.find(|anchor| {
        Sha256::of(&anchor.certificate) == known.authority && pki::has_signed(&anchor.certificate, &read)
    })?;
    Some(Origin {
        authority: Sha256::of(Parts::read(&signer.certificate)?.key),
        serial: identity.serial.clone(),
        fingerprint: identity.fingerprint,
    })
}
