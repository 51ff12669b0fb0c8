//! The words about an impostor: what happened, and what to do about it.

use super::recent::Refusal;
use crate::model::impostor::{Claim, Impostor};

/// What an impostor did, in a sentence.
pub fn sentence(impostor: &Impostor, refusal: &Refusal) -> String {
    let source = refusal.source.ip().to_canonical();
    let name = &impostor.name;
    match impostor.claim {
        Claim::Name => format!("Somebody at {source} pretended to be {name}; you never issued this certificate."),
        Claim::Serial => format!(
            "Somebody at {source} pretended to be {name}, with the serial number of its certificate; you never issued this \
             one."
        ),
        Claim::Key => format!(
            "Somebody at {source} pretended to be {name}, with the public key of its certificate; you never issued this one."
        ),
        Claim::Canary => {
            format!("Somebody at {source} used the certificate of {name}, which is a canary: no device has it.")
        }
        Claim::CanaryRoute => {
            let asked = refusal.server_name.as_deref().unwrap_or("its name");
            format!("Somebody at {source} asked for {asked}. The route {name} is a canary: no device is told its name.")
        }
    }
}

/// What to do about an impostor.
pub fn advice(impostor: &Impostor) -> String {
    let name = &impostor.name;
    match impostor.claim {
        Claim::Name | Claim::Serial | Claim::Key => format!(
            "It was refused and reached nothing. If its address is in your own network, find out which machine has it. If you \
             made the certificate yourself, with an authority that Doorward does not know: issue {name} one of Doorward's \
             (doorward ca device NAME)."
        ),
        Claim::Canary => format!(
            "It was refused and its address is banned. The file of {name} was copied from where you keep it: take that place \
             for open to others, and revoke what was kept beside it (doorward ca revoke NAME). doorward ca list shows the \
             names."
        ),
        Claim::CanaryRoute => {
            "It was refused and its address is banned. The name is in no certificate and on no page for \
             devices: it was guessed, or read in your configuration or your DNS zone."
                .to_owned()
        }
    }
}
