//! The renewal of device certificates through the gate: a small EST service (RFC 7030) behind the stages, on a server name of its own.
//!
//! It issues nothing: no key of an authority is here. A request is stored for the owner, who decides with `doorward ca approve`; the
//! device asks again until there is an answer. With `issuer`, a [process beside the gate](crate::unattended) is shown it first.

mod desk;
mod est;
pub mod folder;
mod fuzzed;
mod served;
mod service;

pub use desk::{Desk, Shown};
pub use est::{ASK_AGAIN, CACERTS, CONTENT_TYPE, PKCS7, SIMPLE_REENROLL};
pub use fuzzed::FuzzedRenewal;
pub use served::NotServed;
pub use service::{Asked, RenewalService, is_outdated, is_renewed};
