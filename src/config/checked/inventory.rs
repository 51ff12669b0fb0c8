//! `inventory` of `[metrics]`: what `doorward ca` has issued to devices.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;

use crate::model::identity::{GuestPass, Serial, Sha256};

/// The devices that `doorward ca` has given certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The file they stand in.
    pub file: PathBuf,
    /// Whether it could be read. If not, the rest is empty.
    pub is_read: bool,
    /// Each with the certificate that it got last, unless that was revoked.
    pub devices: Vec<Device>,
    /// Every certificate that a device was ever given.
    pub issued: Vec<IssuedToDevice>,
    /// Every certificate of a device that is neither revoked nor expired: several of one device after a renewal.
    pub certificates: Vec<DeviceCertificate>,
    /// The certificates of its authorities, and of former ones.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The certificates of devices that were revoked.
    pub revoked: Vec<RevokedCertificate>,
}

/// A certificate that a device was given, whatever has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToDevice {
    /// The name of the device.
    pub device: String,
    /// Its serial number.
    pub serial: Serial,
    /// SHA-256 of it, if it is known.
    pub fingerprint: Option<Sha256>,
    /// SHA-256 of its SubjectPublicKeyInfo, if it is known.
    pub spki: Option<Sha256>,
    /// SHA-256 of the certificate of the authority that has signed it, if that is still there.
    pub authority: Option<Sha256>,
    /// Whether it was revoked.
    pub revoked: bool,
    /// It is a guest pass.
    pub guest: bool,
    /// It was issued as bait: no device uses it.
    pub canary: bool,
}

/// A certificate of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// The device.
    pub device: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Sha256,
    /// Its serial number.
    pub serial: Serial,
    /// The routes it is limited to, if it is a guest pass.
    pub guest_pass: Option<GuestPass>,
}

/// A device and its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is called.
    pub name: String,
    /// When its certificate becomes valid, in seconds since 1970, if that is known.
    pub not_before: Option<i64>,
    /// When its certificate expires, in seconds since 1970.
    pub not_after: i64,
    /// It is bait, which no device uses.
    pub canary: bool,
    /// Its certificate is a guest pass, which is meant to expire.
    pub guest: bool,
}

/// A device's certificate that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// What the device is called.
    pub name: String,
    /// The certificate's serial number.
    pub serial: Serial,
    /// SHA-256 of the certificate, if it is known.
    pub fingerprint: Option<Sha256>,
    /// SHA-256 of the certificate of the authority that signed it.
    pub authority: Sha256,
    /// When it was revoked, in seconds since 1970.
    pub revoked_at: i64,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
}
