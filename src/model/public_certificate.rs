//! The public certificate that a gate shows.

/// The public certificate that a gate shows, or is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicCertificate {
    /// The names that it is for, as the configuration has them.
    pub names: Vec<String>,
    /// The file that it is kept in.
    pub file: String,
    /// What was issued. `None`: the gate shows a temporary certificate that it has made, which no device trusts.
    pub issued: Option<IssuedCertificate>,
}

/// A certificate that was issued. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Its first moment.
    pub not_before: i64,
    /// Its last one.
    pub not_after: i64,
    /// The authority, as the certificate names it.
    pub issuer: String,
    /// It is still that of the owner's authority, which is shown until the public one was issued.
    pub is_own: bool,
    /// The names of the configuration that it does not cover.
    pub lacks: Vec<String>,
}

impl IssuedCertificate {
    /// From when on it is pressing that it was not renewed: a third of the time is left that there was at its renewal, or a week.
    pub fn pressing(&self) -> i64 {
        const WEEK: i64 = 7 * 86_400;
        self.not_after.saturating_sub((self.not_after.saturating_sub(self.not_before) / 9).clamp(0, WEEK))
    }
}
