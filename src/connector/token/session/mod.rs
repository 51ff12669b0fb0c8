//! A session with a token, by the crate cryptoki.

mod pin;
mod public;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::{AuthPin, Ulong};
use rustls::SignatureScheme;
use x509_parser::der_parser::asn1_rs::{BitString, FromDer as _, OctetString, Oid};
use x509_parser::prelude::X509Certificate;

use super::error::TokenError;
use super::kind::Kind;
use super::uri::{TokenUri, shown};

pub(super) use self::pin::Pins;
use self::pin::Tries;

/// The most keys that are named when several fit.
const KEYS_MAX: usize = 8;

/// The module that leads to all those which the system knows (p11-kit), for URIs that name none.
const PROXY: Option<&str> = if cfg!(target_os = "macos") {
    Some("p11-kit-proxy.dylib")
} else if cfg!(unix) {
    Some("p11-kit-proxy.so")
} else {
    None
};

/// A key that can sign.
pub(super) struct Open {
    context: Pkcs11,
    slot: Slot,
    session: Session,
    key: ObjectHandle,
    token: String,
    kind: Kind,
    spki: Option<Vec<u8>>,
    has_pss: bool,
}

/// Why there is no signature.
pub(super) struct NotSigned {
    pub(super) error: TokenError,
    /// The session may be one of before the token was removed: with a new one it may go.
    pub(super) is_stale: bool,
}

impl Open {
    /// Opens a session and logs in, if the token requires it.
    pub(super) fn new(uri: &TokenUri, pins: &mut Pins, ask: bool) -> Result<Self, TokenError> {
        let token = uri.describe();
        let context = module(uri)?;
        let slot = find_slot(&context, uri)?;
        let failed = |action| failed(&token, action);
        let session = context.open_ro_session(slot).map_err(failed("open a session"))?;
        log_in(&context, slot, &session, uri, pins, ask)?;
        let key = find_key(&session, uri)?;
        let kind = kind(&session, key, &token)?;
        let spki = public_key(&session, key, kind);
        let has_pss = kind != Kind::Rsa
            || context.get_mechanism_list(slot).is_ok_and(|known| known.contains(&MechanismType::RSA_PKCS_PSS));
        Ok(Self { context, slot, session, key, token, kind, spki, has_pss })
    }

    /// Whether the token is still there, and the key in it.
    pub(super) fn is_alive(&self) -> bool {
        self.session.get_session_info().is_ok()
            && self.context.get_slot_info(self.slot).is_ok_and(|slot| slot.token_present())
            && self.session.get_attributes(self.key, &[AttributeType::KeyType]).is_ok()
    }

    /// The SubjectPublicKeyInfo, if the token shows it.
    pub(super) fn spki(&self) -> Option<&[u8]> {
        self.spki.as_deref()
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Signs a message, which is hashed here: not every token can.
    pub(super) fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, NotSigned> {
        use SignatureScheme as S;
        let not = |what: &str| NotSigned {
            error: TokenError::Unsuitable { token: self.token.clone(), what: what.to_owned() },
            is_stale: false,
        };
        let hash = match scheme {
            S::ECDSA_NISTP384_SHA384 | S::RSA_PSS_SHA384 | S::RSA_PKCS1_SHA384 => &SHA384,
            S::RSA_PSS_SHA512 | S::RSA_PKCS1_SHA512 => &SHA512,
            _ => &SHA256,
        };
        let digest = digest(hash, message);
        // The salt is as long as the digest (RFC 8446 section 4.2.3).
        let pss = |hash_alg, mgf, s_len| Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg, mgf, s_len });
        let with_info = [public::digest_info(scheme), digest.as_ref()].concat();
        let (mechanism, data) = match scheme {
            S::ECDSA_NISTP256_SHA256 | S::ECDSA_NISTP384_SHA384 => (Mechanism::Ecdsa, digest.as_ref()),
            S::ED25519 => (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)), message),
            S::RSA_PKCS1_SHA256 | S::RSA_PKCS1_SHA384 | S::RSA_PKCS1_SHA512 => {
                (Mechanism::RsaPkcs, with_info.as_slice())
            }
            _ if !self.has_pss => {
                return Err(not(
                    "it has RSA and no RSA-PSS, which TLS 1.3 requires\n  make a key of the type EC on the curve P-256",
                ));
            }
            S::RSA_PSS_SHA256 => {
                (pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, Ulong::new(32)), digest.as_ref())
            }
            S::RSA_PSS_SHA384 => {
                (pss(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, Ulong::new(48)), digest.as_ref())
            }
            S::RSA_PSS_SHA512 => {
                (pss(MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, Ulong::new(64)), digest.as_ref())
            }
            _ => return Err(not("the gate asks for a kind of signature that it does not make")),
        };
        let signature = self
            .session
            .sign(&mechanism, self.key, data)
            .map_err(|error| NotSigned { is_stale: is_stale(&error), error: failed(&self.token, "sign")(error) })?;
        match self.kind {
            Kind::P256 | Kind::P384 if signature.len() == public::point_bytes(self.kind) - 1 => {
                Ok(public::ecdsa(&signature))
            }
            Kind::P256 | Kind::P384 => Err(not("its signatures have a length that its curve does not have")),
            Kind::Ed25519 | Kind::Rsa => Ok(signature),
        }
    }
}

/// The modules in use. Each is loaded and initialised once in a process, and stays.
static MODULES: Mutex<Vec<(PathBuf, Pkcs11)>> = Mutex::new(Vec::new());

fn module(uri: &TokenUri) -> Result<Pkcs11, TokenError> {
    let path =
        uri.module.as_deref().or_else(|| PROXY.map(Path::new)).ok_or_else(|| TokenError::NoModule(String::new()))?;
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, context)) = modules.iter().find(|(known, _)| known == path) {
        return Ok(context.clone());
    }
    let not_loaded = |error: Error| {
        let text = match error {
            Error::LibraryLoading(error) => error.to_string(),
            other => text(&other),
        };
        match &uri.module {
            Some(path) => TokenError::Module { path: path.clone(), text },
            None => {
                TokenError::NoModule(format!(", and p11-kit, which knows those of this system, is not there ({text})"))
            }
        }
    };
    let context = Pkcs11::new(path).map_err(not_loaded)?;
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(not_loaded(error)),
    }
    modules.push((path.to_owned(), context.clone()));
    Ok(context)
}

fn find_slot(context: &Pkcs11, uri: &TokenUri) -> Result<Slot, TokenError> {
    let failed = failed("the library of the token", "list the tokens that are there");
    let slots = context.get_slots_with_token().map_err(failed)?;
    // A token that does not say what it is, is none of ours.
    let tokens = slots.into_iter().filter_map(|slot| Some((slot, context.get_token_info(slot).ok()?)));
    let tokens: Vec<(Slot, TokenInfo)> = tokens.filter(|(_, info)| info.token_initialized()).collect();
    let is = |wanted: &Option<String>, there: &str| wanted.as_ref().is_none_or(|wanted| wanted == there);
    let fits = |(slot, info): &&(Slot, TokenInfo)| {
        is(&uri.token, info.label())
            && is(&uri.serial, info.serial_number())
            && is(&uri.manufacturer, info.manufacturer_id())
            && is(&uri.model, info.model())
            && uri.slot.is_none_or(|wanted| wanted == slot.id())
    };
    let named =
        |(_, info): &(Slot, TokenInfo)| format!("{} (serial {})", shown(info.label()), shown(info.serial_number()));
    let found: Vec<_> = tokens.iter().filter(fits).collect();
    match found.as_slice() {
        [(slot, _)] => Ok(*slot),
        [] => Err(TokenError::Absent { wanted: uri.describe(), there: tokens.iter().map(named).collect() }),
        several => Err(TokenError::SeveralTokens(several.iter().map(|token| named(token)).collect())),
    }
}

fn tries(info: &TokenInfo) -> Tries {
    if info.user_pin_locked() {
        Tries::Locked
    } else if info.user_pin_final_try() {
        Tries::Last
    } else if info.user_pin_count_low() {
        Tries::Fewer
    } else {
        Tries::Untold
    }
}

/// Logs in, with one try.
fn log_in(
    context: &Pkcs11,
    slot: Slot,
    session: &Session,
    uri: &TokenUri,
    pins: &mut Pins,
    ask: bool,
) -> Result<(), TokenError> {
    let token = uri.describe();
    let info = || context.get_token_info(slot).map_err(failed(&token, "say what it is"));
    let before = info()?;
    let state = session.get_session_info().map(|info| info.session_state());
    // By another session of this process.
    let is_in = matches!(state, Ok(SessionState::RoUser | SessionState::RwUser));
    if is_in || !before.login_required() {
        return Ok(());
    }
    let tries_before = tries(&before);
    if tries_before == Tries::Locked {
        return Err(TokenError::Locked { token });
    }
    // It has keys or a screen of its own for the PIN.
    let pin = if before.protected_authentication_path() {
        if !ask {
            return Err(TokenError::NoPin { token });
        }
        None
    } else {
        Some(pins.choose(uri, tries_before, ask)?)
    };
    let given = pin.as_ref().map(|pin| AuthPin::from(pin.as_str()));
    match session.login(UserType::User, given.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
            if let Some(pin) = pin {
                pins.keep(pin);
            }
            Ok(())
        }
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
            if let Some(pin) = pin {
                pins.refuse(pin);
            }
            let left = context.get_token_info(slot).map_or(Tries::Untold, |info| tries(&info)).left();
            Err(TokenError::WrongPin { token, left })
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::Locked { token }),
        Err(error) => Err(failed(&token, "take the PIN")(error)),
    }
}

fn find_key(session: &Session, uri: &TokenUri) -> Result<ObjectHandle, TokenError> {
    let token = uri.describe();
    let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    wanted.extend(uri.id.clone().map(Attribute::Id));
    wanted.extend(uri.object.clone().map(|label| Attribute::Label(label.into_bytes())));
    let found = session.find_objects(&wanted).map_err(failed(&token, "look for the key"))?;
    let may_sign = |key: &ObjectHandle| {
        let may = session.get_attributes(*key, &[AttributeType::Sign]).unwrap_or_default();
        !may.contains(&Attribute::Sign(false))
    };
    let keys: Vec<ObjectHandle> = found.into_iter().filter(may_sign).collect();
    match keys.as_slice() {
        [key] => {
            let asks = session.get_attributes(*key, &[AttributeType::AlwaysAuthenticate]).unwrap_or_default();
            if asks.contains(&Attribute::AlwaysAuthenticate(true)) {
                let what =
                    "it wants the PIN for each signature\n  use a key whose PIN is asked for once (YubiKey: slot 9a)";
                return Err(TokenError::Unsuitable { token, what: what.to_owned() });
            }
            Ok(*key)
        }
        [] => Err(TokenError::NoKey { token }),
        several => {
            let keys = several.iter().take(KEYS_MAX).map(|key| name(session, *key)).collect();
            Err(TokenError::SeveralKeys { token, keys })
        }
    }
}

/// What a URI says of a key.
fn name(session: &Session, key: ObjectHandle) -> String {
    let mut parts = Vec::new();
    for attribute in session.get_attributes(key, &[AttributeType::Id, AttributeType::Label]).unwrap_or_default() {
        match attribute {
            Attribute::Id(id) if !id.is_empty() => {
                parts.push(format!("id={}", id.iter().map(|byte| format!("%{byte:02x}")).collect::<String>()));
            }
            Attribute::Label(label) if !label.is_empty() => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                let escaped =
                    |byte: &u8| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") };
                parts.push(format!("object={}", label.iter().map(escaped).collect::<String>()));
            }
            _ => {}
        }
    }
    parts.join(";")
}

fn kind(session: &Session, key: ObjectHandle, token: &str) -> Result<Kind, TokenError> {
    let wanted = [AttributeType::KeyType, AttributeType::EcParams];
    let known = session.get_attributes(key, &wanted).map_err(failed(token, "show the key"))?;
    let kind = known.iter().find_map(|attribute| match attribute {
        Attribute::KeyType(KeyType::RSA) => Some(Kind::Rsa),
        // There are two such curves; of the other one, no certificate is issued.
        Attribute::KeyType(KeyType::EC_EDWARDS) => Some(Kind::Ed25519),
        Attribute::EcParams(curve) => Kind::of_curve(&Oid::from_der(curve).ok()?.1.to_id_string()),
        _ => None,
    });
    kind.ok_or_else(|| TokenError::Unsuitable {
        token: token.to_owned(),
        what: "its type is not supported\n  make one of the type EC on the curve P-256 or P-384, Ed25519, or RSA"
            .to_owned(),
    })
}

/// The public half: from the object beside the key, or from a certificate.
fn public_key(session: &Session, key: ObjectHandle, kind: Kind) -> Option<Vec<u8>> {
    let id = session.get_attributes(key, &[AttributeType::Id]).ok()?;
    let beside = |class: ObjectClass| {
        let wanted: Vec<Attribute> = [Attribute::Class(class)].into_iter().chain(id.iter().cloned()).collect();
        session.find_objects(&wanted).unwrap_or_default()
    };
    let of = |object: ObjectHandle| -> Option<Vec<u8>> {
        let wanted = [AttributeType::EcPoint, AttributeType::Modulus, AttributeType::PublicExponent];
        let (mut point, mut modulus, mut exponent) = (None, None, None);
        for attribute in session.get_attributes(object, &wanted).ok()? {
            match attribute {
                Attribute::EcPoint(bytes) => point = Some(bytes),
                Attribute::Modulus(bytes) => modulus = Some(bytes),
                Attribute::PublicExponent(bytes) => exponent = Some(bytes),
                _ => {}
            }
        }
        let key = if kind == Kind::Rsa { public::rsa(&modulus?, &exponent?) } else { raw_point(&point?, kind)? };
        Some(public::info(kind, &key))
    };
    let mut objects = beside(ObjectClass::PUBLIC_KEY).into_iter().chain([key]);
    objects.find_map(of).or_else(|| {
        beside(ObjectClass::CERTIFICATE).into_iter().find_map(|object| {
            let value = session.get_attributes(object, &[AttributeType::Value]).ok()?;
            let Some(Attribute::Value(der)) = value.first() else { return None };
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            Some(certificate.public_key().raw.to_vec())
        })
    })
}

/// A point is in an OCTET STRING as PKCS#11 wants it, in a BIT STRING as some have it, or by itself.
fn raw_point(bytes: &[u8], kind: Kind) -> Option<Vec<u8>> {
    let fits = |point: &[u8]| (point.len() == public::point_bytes(kind)).then(|| point.to_vec());
    fits(bytes)
        .or_else(|| fits(OctetString::from_der(bytes).ok()?.1.as_cow()))
        .or_else(|| fits(&BitString::from_der(bytes).ok()?.1.data))
}

fn is_stale(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::ObjectHandleInvalid
                | RvError::KeyHandleInvalid
                | RvError::UserNotLoggedIn
                | RvError::DeviceRemoved
                | RvError::TokenNotPresent,
            _
        )
    )
}

fn failed(token: &str, action: &'static str) -> impl Fn(Error) -> TokenError + use<> {
    let token = token.to_owned();
    move |error| match error {
        Error::Pkcs11(RvError::DeviceRemoved | RvError::TokenNotPresent, _) => {
            TokenError::Removed { token: token.clone() }
        }
        other => TokenError::Failed { token: token.clone(), action, text: text(&other) },
    }
}

/// The name of a code of PKCS#11, or what cryptoki says of anything else.
fn text(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, _) => format!("{code:?}"),
        other => other.to_string(),
    }
}
