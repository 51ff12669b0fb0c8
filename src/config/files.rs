//! The files a configuration names: reading them, and telling what they are if they are not what they should be.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::report::{Problem, Report, Text, quoted};

/// Revocation lists of 100 MB have been seen in the wild; nothing else comes near.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Editors on Windows put it first.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file that was read.
pub(super) struct NamedFile {
    /// Where it is; a relative path of the configuration starts at the configuration's folder.
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    /// The number of the user that it belongs to.
    pub(super) owner: u32,
    /// Its permission bits.
    pub(super) mode: u32,
}

impl NamedFile {
    /// Whether every user of the machine may read it.
    pub(super) const fn is_world_readable(&self) -> bool {
        self.mode & 0o004 != 0
    }
}

/// What a file should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Certificates,
    Key,
    RevocationLists,
}

impl Wanted {
    fn thing(self) -> &'static str {
        match self {
            Self::Certificates => "certificate",
            Self::Key => "private key",
            Self::RevocationLists => "revocation list",
        }
    }

    /// The line that a file begins with.
    fn first_line(self) -> &'static str {
        match self {
            Self::Certificates => "-----BEGIN CERTIFICATE-----",
            Self::Key => "-----BEGIN PRIVATE KEY-----",
            Self::RevocationLists => "-----BEGIN X509 CRL-----",
        }
    }
}

/// The folder that relative paths start at.
pub(super) fn folder_of(config: &Path) -> &Path {
    config.parent().unwrap_or_else(|| Path::new(""))
}

/// Reads the file that `text` names, or reports why not.
pub(super) fn read(text: &Text, report: &mut Report) -> Option<NamedFile> {
    if text.value.is_empty() {
        report.error(&text.place, "the path is empty", "write the path of a file, as in \"pki/server.pem\"");
        return None;
    }
    read_at(folder_of(report.file()).join(&text.value), text, report)
}

/// Reads a file that the value `text` leads to.
pub(super) fn read_at(path: PathBuf, text: &Text, report: &mut Report) -> Option<NamedFile> {
    let result = report.look_at(&path).and_then(|()| read_path(&path).map_err(|error| unreadable(&path, &error)));
    report.taken(&text.place, result)
}

/// Reads a file by its path.
pub(super) fn read_named(path: &Path) -> io::Result<NamedFile> {
    read_path(path)
}

fn read_path(path: &Path) -> io::Result<NamedFile> {
    // Looked at before it is opened: opening a pipe would wait for a writer for ever.
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    // Of the file that is read, whatever has its name by now.
    let metadata = file.metadata()?;
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(NamedFile { path: path.to_owned(), bytes, owner: metadata.uid(), mode: metadata.mode() & 0o7777 })
}

/// Why a file could not be read.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Problem::new(
            format!("there is no file {shown}"),
            "correct the path, or put the file there; a relative path starts at the folder of the configuration file",
        ),
        io::ErrorKind::PermissionDenied => Problem::new(
            format!("{shown} may not be read by the user that runs doorward"),
            format!(
                "make that user the owner of the file: chown USER {shown}; every folder above it has to be open to \
                 the user, too"
            ),
        ),
        io::ErrorKind::IsADirectory => Problem::new(format!("{shown} is a folder"), "write the path of a file in it"),
        io::ErrorKind::Unsupported => {
            Problem::new(format!("{shown} is neither a file nor a folder"), "write the path of a file")
        }
        io::ErrorKind::FileTooLarge => {
            Problem::new(format!("{shown} is larger than 256 MiB"), "write the path of the right file")
        }
        _ => Problem::new(format!("{shown} could not be read: {error}"), "correct the path, or look into the cause"),
    }
}

/// The readable blocks of a PEM file (RFC 7468).
#[derive(Debug)]
pub(super) struct Pem {
    blocks: Vec<(SectionKind, Vec<u8>)>,
}

impl Pem {
    /// Reads every block. A file of which only a part can be read is refused as a whole: a bundle that lost one of its
    /// certificates, or a list that lost its end, must never be taken for what the user meant.
    pub(super) fn parse(file: &NamedFile) -> Result<Self, Problem> {
        let shown = file.path.display();
        let damaged = |why: &str| {
            Problem::new(
                format!("{shown} is damaged: {why}"),
                "copy the file once more from where it came, whole, from the first line -----BEGIN ...----- to the \
                 last line -----END ...-----",
            )
        };
        // An editor on Windows puts a byte order mark before the first line, which would hide the first block.
        let bytes = file.bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&file.bytes);
        let mut blocks = Vec::new();
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
            match block {
                Ok(block) => blocks.push(block),
                Err(pem::Error::MissingSectionEnd { .. }) => return Err(damaged("a block has no -----END line")),
                Err(pem::Error::IllegalSectionStart { .. }) => {
                    return Err(damaged("a line -----BEGIN ... does not end in five dashes"));
                }
                Err(_) => return Err(damaged("a block holds characters that do not belong there")),
            }
        }
        let begun = labels(bytes);
        for kind in [SectionKind::Certificate, SectionKind::Crl] {
            let label = if kind == SectionKind::Crl { "X509 CRL" } else { "CERTIFICATE" };
            let begun = begun.iter().filter(|begun| *begun == label).count();
            let read = blocks.iter().filter(|(block, _)| *block == kind).count();
            if begun != read {
                return Err(damaged(&format!("{begun} blocks begin with {label}, and {read} of them can be read")));
            }
        }
        Ok(Self { blocks })
    }

    /// The contents of every block of a kind.
    pub(super) fn of(&self, kind: SectionKind) -> Vec<Vec<u8>> {
        self.blocks.iter().filter(|(block, _)| *block == kind).map(|(_, der)| der.clone()).collect()
    }

    /// Every private key.
    pub(super) fn keys(&self) -> Vec<PrivateKeyDer<'static>> {
        self.blocks.iter().filter_map(|(kind, der)| PrivateKeyDer::from_pem(*kind, der.clone())).collect()
    }
}

/// The contents of every block of a kind that can be read, in a file of which perhaps only a part can.
pub(super) fn whole_blocks(file: &NamedFile, kind: SectionKind) -> Vec<Vec<u8>> {
    let bytes = file.bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&file.bytes);
    let blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes);
    blocks.filter_map(Result::ok).filter(|(block, _)| *block == kind).map(|(_, der)| der).collect()
}

/// What stands between `BEGIN` and the dashes, for every block, readable or not.
pub(super) fn labels(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .split("BEGIN ")
        .skip(1)
        .filter_map(|rest| rest.split('-').next())
        .filter(|label| {
            label.len() <= 40 && label.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ')
        })
        .map(|label| label.trim_end().to_owned())
        .collect()
}

/// Whether a key asks for a password before it can be used.
pub(super) fn is_encrypted_key(bytes: &[u8]) -> bool {
    labels(bytes).iter().any(|label| label == "ENCRYPTED PRIVATE KEY")
        || String::from_utf8_lossy(bytes).contains("Proc-Type: 4,ENCRYPTED")
}

/// Says what a file is that does not hold what it should, and how to get from it what is wanted.
pub(super) fn mistaken(file: &NamedFile, wanted: Wanted) -> Problem {
    let shown = file.path.display();
    let (is, remedy) = nature(file, wanted);
    let remedy = remedy.unwrap_or_else(|| {
        format!("write the path of a file that begins with the line {} (text form, PEM)", wanted.first_line())
    });
    Problem::new(format!("{shown} is no {} in text form (PEM): {is}", wanted.thing()), remedy)
}

/// What a file is, and how to make what is wanted of it, if there is a way.
fn nature(file: &NamedFile, wanted: Wanted) -> (String, Option<String>) {
    let shown = file.path.display();
    let bytes = file.bytes.as_slice();
    let to_pem =
        |tool: &str| Some(format!("turn it into text form: openssl {tool} -inform der -in {shown} -out {shown}.pem"));
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return ("it is empty".to_owned(), Some("make or copy the file once more".to_owned()));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return ("it was saved as UTF-16".to_owned(), Some("save it once more as plain text (UTF-8)".to_owned()));
    }
    if is_pkcs12(bytes) {
        let remedy = match wanted {
            Wanted::Certificates => {
                Some(format!("take the certificates out of it: openssl pkcs12 -in {shown} -nokeys -out {shown}.pem"))
            }
            Wanted::Key => {
                Some(format!("take the key out of it: openssl pkcs12 -in {shown} -nocerts -nodes -out {shown}-key.pem"))
            }
            Wanted::RevocationLists => None,
        };
        return ("it is a bundle of certificate and key (PKCS#12, often called .p12 or .pfx)".to_owned(), remedy);
    }
    if bytes.starts_with(b"\xfe\xed\xfe\xed") {
        return ("it is a Java key store".to_owned(), None);
    }
    if X509Certificate::from_der(bytes).is_ok() {
        let remedy = (wanted == Wanted::Certificates).then(|| to_pem("x509")).flatten();
        return ("it is a certificate in binary form (DER)".to_owned(), remedy);
    }
    if CertificateRevocationList::from_der(bytes).is_ok() {
        return ("it is a revocation list".to_owned(), belongs(wanted, "revocation_lists"));
    }
    if PrivateKeyDer::try_from(bytes).is_ok() {
        let remedy = (wanted == Wanted::Key).then(|| to_pem("pkey")).flatten();
        return ("it is a private key in binary form (DER)".to_owned(), remedy);
    }
    let labels = labels(bytes);
    let Some(label) = labels.first() else {
        let is = if bytes.first() == Some(&0x30) {
            "it is a binary file that is damaged or of a kind that is not known"
        } else {
            "it is something else altogether"
        };
        return (is.to_owned(), None);
    };
    let (is, remedy) = match label.as_str() {
        "CERTIFICATE" => ("it is a certificate", None),
        "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => (
            "it is a private key",
            (wanted == Wanted::Certificates).then(|| {
                "write the path of the certificate that \
                 belongs to this key; keep the key secret"
                    .to_owned()
            }),
        ),
        "X509 CRL" => ("it is a revocation list", belongs(wanted, "revocation_lists")),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => (
            "it is a certificate request (CSR), which is not signed yet",
            Some("write the path of the certificate that came back for this request".to_owned()),
        ),
        "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => (
            "it is a certificate in a form that only OpenSSL knows",
            Some(format!("turn it into the usual form: openssl x509 -in {shown} -out {shown}.pem")),
        ),
        "PUBLIC KEY" | "RSA PUBLIC KEY" => ("it is a public key", None),
        "OPENSSH PRIVATE KEY" => ("it is a key for SSH, which TLS cannot use", None),
        other => return (format!("it holds {}", quoted(other)), None),
    };
    (is.to_owned(), remedy)
}

fn belongs(wanted: Wanted, key: &str) -> Option<String> {
    (wanted != Wanted::RevocationLists)
        .then(|| format!("name this file under {key}, and here one that begins with the line {}", wanted.first_line()))
}

/// PKCS#12 is a SEQUENCE whose first element is the INTEGER 3 (RFC 7292 section 4).
fn is_pkcs12(bytes: &[u8]) -> bool {
    let Some((0x30, rest)) = bytes.split_first().map(|(first, rest)| (*first, rest)) else { return false };
    // The length is one byte, or a byte that says how many bytes of length follow.
    let length_bytes = match rest.first() {
        Some(&first) if first & 0x80 != 0 => 1 + usize::from(first & 0x7f),
        _ => 1,
    };
    rest.get(length_bytes..).is_some_and(|content| content.starts_with(&[0x02, 0x01, 0x03]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(bytes: &[u8]) -> NamedFile {
        NamedFile { path: PathBuf::from("/x"), bytes: bytes.to_vec(), owner: 0, mode: 0o600 }
    }

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["x.example".to_owned()]).expect("a certificate").cert.pem()
    }

    #[test]
    fn truncated_pem_bundle_is_refused() {
        let whole = certificate();
        let two = format!("{whole}{whole}");
        assert_eq!(Pem::parse(&named(two.as_bytes())).expect("two").of(SectionKind::Certificate).len(), 2);
        let end = "-----END CERTIFICATE-----";
        let begin = "-----BEGIN CERTIFICATE-----";
        for broken in [
            two.replacen(end, "", 1),
            two.replacen(end, "", 2),
            two.replacen(end, "-----END", 1),
            two.replacen(begin, "----BEGIN CERTIFICATE-----", 1),
            two.replacen(begin, &format!(" {begin}"), 1),
            two.replacen(begin, "-----BEGIN CERTIFICATE---", 1),
            two.replacen(begin, &format!("{begin}\n*"), 1),
            two.get(..two.len() - 40).expect("ASCII").to_owned(),
        ] {
            assert!(Pem::parse(&named(broken.as_bytes())).is_err(), "{broken}");
        }
        let marked = format!("\u{feff}{two}");
        assert_eq!(Pem::parse(&named(marked.as_bytes())).expect("a mark").of(SectionKind::Certificate).len(), 2);
        let explained = format!("Certificate:\n    Version: 3\n{whole}\n# the end\n");
        assert_eq!(Pem::parse(&named(explained.as_bytes())).expect("comments").of(SectionKind::Certificate).len(), 1);
    }

    #[test]
    fn file_of_another_kind_is_named() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let der = rcgen::generate_simple_self_signed(["x.example".to_owned()]).expect("a certificate");
        for (bytes, wanted, says) in [
            (b"".to_vec(), Wanted::Key, "empty"),
            (b" \r\n".to_vec(), Wanted::Key, "empty"),
            (b"\xff\xfe-\0".to_vec(), Wanted::Certificates, "UTF-16"),
            (b"\xfe\xed\xfe\xed\0\0".to_vec(), Wanted::Certificates, "Java"),
            (b"\x30\x82\x01\x00\x02\x01\x03\x30".to_vec(), Wanted::Certificates, "PKCS#12"),
            (der.cert.der().to_vec(), Wanted::Certificates, "binary form"),
            (key.serialize_der(), Wanted::Key, "binary form"),
            (key.serialize_pem().into_bytes(), Wanted::Certificates, "private key"),
            (key.public_key_pem().into_bytes(), Wanted::Key, "public key"),
            (certificate().into_bytes(), Wanted::Key, "it is a certificate"),
            (b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), Wanted::Certificates, "request"),
            (b"-----BEGIN TRUSTED CERTIFICATE-----".to_vec(), Wanted::Certificates, "only OpenSSL knows"),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----".to_vec(), Wanted::Key, "SSH"),
            (b"-----BEGIN SOMETHING-----".to_vec(), Wanted::Key, "SOMETHING"),
            (b"hello".to_vec(), Wanted::RevocationLists, "something else"),
        ] {
            let problem = mistaken(&named(&bytes), wanted);
            assert!(problem.message.contains(says), "{says}: {problem:?}");
        }
    }

    #[test]
    fn unreadable_file_has_a_remedy() {
        for (kind, says) in [
            (io::ErrorKind::NotFound, "there is no file /x"),
            (io::ErrorKind::PermissionDenied, "may not be read"),
            (io::ErrorKind::IsADirectory, "is a folder"),
            (io::ErrorKind::Other, "could not be read"),
        ] {
            assert!(unreadable(Path::new("/x"), &kind.into()).message.contains(says), "{kind:?}");
        }
        assert_eq!(read_path(Path::new("/dev/null")).map(drop).map_err(|e| e.kind()), Err(io::ErrorKind::Unsupported));
        assert_eq!(read_path(Path::new("/")).map(drop).map_err(|e| e.kind()), Err(io::ErrorKind::IsADirectory));
        assert_eq!(
            read_path(Path::new("/dev/null/x")).map(drop).map_err(|e| e.kind()),
            Err(io::ErrorKind::NotADirectory)
        );
    }

    #[test]
    fn encrypted_keys_are_recognised() {
        assert!(is_encrypted_key(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        assert!(is_encrypted_key(b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"));
        assert!(!is_encrypted_key(b"-----BEGIN PRIVATE KEY-----\n"));
    }
}
