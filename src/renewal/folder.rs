//! The folder of requests and answers: for each device at most one of both. The gate writes requests; `doorward ca`, and the process
//! that renews without the owner, write answers.
//!
//! Neither side trusts the other's files. The gate sends no certificate that is not for the key of the request, and those who answer
//! verify the request again, and know the device by its certificate.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::identity::Sha256;
use crate::pki::{CertificateRequest, Parts};

/// No file of ours is longer: a request and two certificates with RSA keys have 12 kB.
const FILE_MAX: u64 = 64 * 1024;
/// More requests than this are not listed. There is one for each device.
const REQUESTS_MAX: usize = 4096;
const REQUEST: &str = ".request";
const ANSWER: &str = ".answer";
const TEMPORARY: &str = ".tmp";
/// Held while an answer is written.
const LOCK: &str = "lock";
/// How often it is tried, and with what rest between.
const LOCK_TRIES: usize = 40;
const LOCK_INTERVAL: Duration = Duration::from_millis(25);
/// The version of the files.
const VERSION: u32 = 1;
/// Folder and files are the gate's user's alone.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The characters of a device's digest in the names of its files.
const DIGITS: usize = 32;
/// For so long after a request of a device, another one does not replace it unless it has an answer, in seconds.
const EVERY: i64 = 60;

/// The folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFolder(PathBuf);

/// A device's request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalRequest {
    /// What the gate calls the device.
    pub device: String,
    /// SHA-256 of the certificate that it has shown.
    pub certificate: Sha256,
    /// That certificate.
    pub shown: Option<CertificateDer<'static>>,
    /// Where it came from.
    pub source: String,
    /// When, in seconds since 1970.
    pub requested_at: i64,
    /// What it has sent.
    pub request: CertificateRequest,
}

/// What the owner has decided about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalAnswer {
    /// SHA-256 of the certificate that the device has shown.
    pub certificate: Sha256,
    /// SHA-256 of the SubjectPublicKeyInfo in the request.
    pub key: Sha256,
    /// The new certificate; `None` if the request is refused.
    pub issued: Option<CertificateDer<'static>>,
}

/// What was done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It was stored.
    Stored,
    /// It was stored before, and there is no answer.
    Waiting,
    /// This is the certificate.
    Approved(CertificateDer<'static>),
    /// It is refused.
    Refused,
    /// Another one was stored a moment ago. It may be sent again after so many seconds.
    TooSoon(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestFile {
    version: u32,
    device: String,
    certificate: String,
    source: String,
    requested_at: i64,
    request: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerFile {
    version: u32,
    certificate: String,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued: Option<String>,
}

/// The PEM labels.
const CERTIFICATE_REQUEST: &str = "CERTIFICATE REQUEST";
const CERTIFICATE: &str = "CERTIFICATE";

fn to_pem(label: &str, der: &[u8]) -> String {
    pem::encode_config(&pem::Pem::new(label, der), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

fn of_pem(label: &str, text: &str) -> Option<Vec<u8>> {
    pem::parse(text).ok().filter(|block| block.tag() == label).map(pem::Pem::into_contents)
}

impl RenewalRequest {
    /// Whether it is another attempt of the same.
    fn is_repeated_by(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.request.key() == other.request.key()
    }

    fn to_text(&self) -> io::Result<String> {
        let file = RequestFile {
            version: VERSION,
            device: self.device.clone(),
            certificate: self.certificate.to_string(),
            source: self.source.clone(),
            requested_at: self.requested_at,
            request: to_pem(CERTIFICATE_REQUEST, self.request.der()),
            shown: self.shown.as_ref().map(|shown| to_pem(CERTIFICATE, shown)),
        };
        toml::to_string(&file).map_err(io::Error::other)
    }

    fn of_file(file: RequestFile) -> Option<Self> {
        let request = of_pem(CERTIFICATE_REQUEST, &file.request)?;
        let certificate = Sha256::parse(&file.certificate)?;
        let shown = file.shown.as_deref().and_then(|text| of_pem(CERTIFICATE, text));
        Some(Self {
            certificate,
            shown: shown.filter(|der| Sha256::of(der) == certificate).map(CertificateDer::from),
            request: CertificateRequest::read(&request).ok()?,
            device: file.device,
            source: file.source,
            requested_at: file.requested_at,
        })
        .filter(|_| file.version == VERSION)
    }
}

impl RenewalAnswer {
    /// Whether it is the answer to this request.
    pub fn is_to(&self, request: &RenewalRequest) -> bool {
        self.certificate == request.certificate && self.key == request.request.key()
    }

    fn of_file(file: AnswerFile) -> Option<Self> {
        let key = Sha256::parse(&file.key)?;
        let issued = match file.issued.as_deref() {
            Some(text) => {
                let der = of_pem(CERTIFICATE, text)?;
                // A certificate for another key is none that the device could use.
                Parts::read(&der).filter(|parts| Sha256::of(parts.key) == key)?;
                Some(CertificateDer::from(der))
            }
            None => None,
        };
        Some(Self { certificate: Sha256::parse(&file.certificate)?, key, issued }).filter(|_| file.version == VERSION)
    }
}

impl RequestFolder {
    /// This one.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes it, unless it is there. In the sandbox no folder can be made.
    pub fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(FOLDER_MODE).create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// The file of a device.
    fn file(&self, device: &str, ending: &str) -> PathBuf {
        let digest = Sha256::of(device.as_bytes()).to_string();
        self.0.join(format!("{}{ending}", digest.get(..DIGITS).unwrap_or(&digest)))
    }

    /// Stores a request, unless it is there or has an answer.
    pub fn submit(&self, request: &RenewalRequest) -> io::Result<Submitted> {
        self.submit_unless(request, |_| false)
    }

    /// The same, but that an answer is removed if it is a certificate that is `useless` by now.
    pub fn submit_unless(
        &self,
        request: &RenewalRequest,
        useless: impl FnOnce(&CertificateDer<'static>) -> bool,
    ) -> io::Result<Submitted> {
        let answer = self.answer(&request.device)?;
        let answer = match answer {
            Some(answer) if answer.issued.as_ref().is_some_and(useless) => {
                fs::remove_file(self.file(&request.device, ANSWER))?;
                None
            }
            answer => answer,
        };
        match &answer {
            Some(answer) if answer.is_to(request) => {
                return Ok(answer.issued.clone().map_or(Submitted::Refused, Submitted::Approved));
            }
            _ => {}
        }
        let stored = read(&self.file(&request.device, REQUEST))?.and_then(RenewalRequest::of_file);
        if let Some(stored) = stored {
            // Without the certificate, it was stored by an earlier version.
            if stored.is_repeated_by(request) && (stored.shown.is_some() || request.shown.is_none()) {
                return Ok(Submitted::Waiting);
            }
            let since = request.requested_at.saturating_sub(stored.requested_at);
            let is_answered = answer.is_some_and(|answer| answer.is_to(&stored));
            if !is_answered && (0..EVERY).contains(&since) {
                return Ok(Submitted::TooSoon((EVERY - since).unsigned_abs()));
            }
        }
        replace(&self.file(&request.device, REQUEST), request.to_text()?.as_bytes())?;
        Ok(Submitted::Stored)
    }

    /// The request of a device that waits for an answer.
    pub fn request(&self, device: &str) -> io::Result<Option<RenewalRequest>> {
        let stored = read(&self.file(device, REQUEST))?.and_then(RenewalRequest::of_file);
        Ok(stored.filter(|stored| stored.device == device))
    }

    /// The certificates in answers that a device was given, the last one of each.
    pub fn issued(&self) -> io::Result<Vec<CertificateDer<'static>>> {
        let mut issued = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let is_answer = path.extension().and_then(|ending| ending.to_str()) == ANSWER.strip_prefix('.');
            if is_answer && issued.len() < REQUESTS_MAX {
                let answer = read(&path).ok().flatten().and_then(RenewalAnswer::of_file);
                issued.extend(answer.and_then(|answer| answer.issued));
            }
        }
        Ok(issued)
    }

    /// One process at a time writes answers: two gates may share the folder, and the owner may decide meanwhile. It is let go of when the
    /// result is dropped, or the process ends.
    fn lock(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(FILE_MODE);
        let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(self.0.join(LOCK))?;
        for _ in 0..LOCK_TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK) => sleep(LOCK_INTERVAL),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is writing answers"))
    }

    /// The answer to a device, if it is one.
    fn answer(&self, device: &str) -> io::Result<Option<RenewalAnswer>> {
        Ok(read(&self.file(device, ANSWER))?.and_then(RenewalAnswer::of_file))
    }

    /// Every request without an answer, the oldest first, and how many files are none.
    pub fn requests(&self) -> io::Result<(Vec<RenewalRequest>, usize)> {
        let (mut requests, mut damaged) = (Vec::new(), 0);
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().and_then(|ending| ending.to_str()) != REQUEST.strip_prefix('.') {
                continue;
            }
            if requests.len() >= REQUESTS_MAX {
                break;
            }
            // The device that a file names is the one that the file is of.
            let request = read(&path).ok().flatten().and_then(RenewalRequest::of_file);
            let request = request.filter(|request| self.file(&request.device, REQUEST) == path);
            match request {
                Some(request) if self.answer(&request.device)?.is_some_and(|answer| answer.is_to(&request)) => {}
                Some(request) => requests.push(request),
                None => damaged += 1,
            }
        }
        requests.sort_by(|one, other| (one.requested_at, &one.device).cmp(&(other.requested_at, &other.device)));
        Ok((requests, damaged))
    }

    /// Answers a request: with a certificate, or with a refusal.
    pub fn decide(&self, request: &RenewalRequest, issued: Option<&CertificateDer<'_>>) -> io::Result<()> {
        let _lock = self.lock()?;
        self.write_answer(request, issued)
    }

    /// Answers a request with the certificate that `issue` makes, unless it was answered meanwhile, in which case it is not called, or
    /// another request has replaced it. Whatever the owner has decided stays.
    pub fn answer_with<T>(
        &self,
        request: &RenewalRequest,
        issue: impl FnOnce() -> Result<(CertificateDer<'static>, T), T>,
    ) -> io::Result<Option<T>> {
        let _lock = self.lock()?;
        let is_answered = self.answer(&request.device)?.is_some_and(|answer| answer.is_to(request));
        if is_answered || self.request(&request.device)?.as_ref() != Some(request) {
            return Ok(None);
        }
        match issue() {
            Ok((issued, told)) => self.write_answer(request, Some(&issued)).map(|()| Some(told)),
            Err(told) => Ok(Some(told)),
        }
    }

    fn write_answer(&self, request: &RenewalRequest, issued: Option<&CertificateDer<'_>>) -> io::Result<()> {
        let file = AnswerFile {
            version: VERSION,
            certificate: request.certificate.to_string(),
            key: request.request.key().to_string(),
            issued: issued.map(|issued| to_pem(CERTIFICATE, issued)),
        };
        let text = toml::to_string(&file).map_err(io::Error::other)?;
        replace(&self.file(&request.device, ANSWER), text.as_bytes())
    }
}

/// A file of ours, if it is there. One that is damaged is like none.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    // Neither a link nor a FIFO is followed or waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text)?;
    Ok(str::from_utf8(&text).ok().and_then(|text| toml::from_str(text).ok()))
}

/// Replaces a file, or makes it: afterwards it is the old one or the new one, whole.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    let _ = fs::remove_file(&temporary);
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
        file.write_all(text)?;
        match file.sync_data() {
            // Some file systems cannot.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
        fs::rename(&temporary, path)
    };
    let replaced = written();
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

#[cfg(test)]
mod tests;
