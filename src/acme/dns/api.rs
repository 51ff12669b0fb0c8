//! Has the HTTP API of a provider change a record, by the crate dns-update.

use std::time::Duration;

use dns_update::providers::ovh::OvhEndpoint;
use dns_update::providers::route53::Route53Config;
use dns_update::{DnsRecord, DnsRecordType, DnsUpdater, Error};

use super::Change;
use crate::config::checked::{DnsApi, DnsProvider};
use crate::model::names::visible;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long resolvers may keep the record, in seconds. Some providers keep to a longer time.
const TTL: u32 = 60;

/// How much of what a provider says is shown, in characters.
const SHOWN_MAX: usize = 300;

/// An account at a provider.
pub(super) struct Api {
    updater: DnsUpdater,
    word: &'static str,
    secrets: Secrets,
}

/// What must not be shown.
struct Secrets(Vec<String>);

impl Api {
    pub(super) fn new(api: &DnsApi) -> Result<Self, String> {
        let word = api.provider.keys().word;
        // The HTTP client of the crate panics without.
        if rustls_native_certs::load_native_certs().certs.is_empty() {
            return Err(
                "this machine has no list of public authorities: install the package ca-certificates".to_owned()
            );
        }
        let secrets = Secrets::of(api);
        let updater = updater(api).map_err(|error| format!("{word}: {}", secrets.without(&words(&error))))?;
        Ok(Self { updater, word, secrets })
    }

    /// Adds a value to those of the record `name` in `zone`, or removes it.
    pub(super) async fn change(&self, change: Change, name: &str, value: &str, zone: &str) -> Result<(), String> {
        let records = vec![DnsRecord::TXT(value.to_owned())];
        // On the heap: the futures of all providers share a size.
        let changed = match change {
            Change::Add => Box::pin(self.updater.add_to_rrset(name, DnsRecordType::TXT, TTL, records, zone)).await,
            Change::Remove => Box::pin(self.updater.remove_from_rrset(name, DnsRecordType::TXT, records, zone)).await,
        };
        changed.map_err(|error| format!("{} {}", self.word, self.secrets.without(&words(&error))))
    }
}

/// The account, as the crate takes it. The configuration has seen to what each provider asks for.
fn updater(api: &DnsApi) -> dns_update::Result<DnsUpdater> {
    let user = api.user.as_deref().unwrap_or_default();
    let token = api.token.as_ref().map(|token| token.expose()).unwrap_or_default();
    let secret = api.secret.as_ref().map(|secret| secret.expose()).unwrap_or_default();
    let endpoint = api.endpoint.as_deref().unwrap_or_default();
    let limit = Some(LIMIT);
    let none = None::<&str>;
    match api.provider {
        DnsProvider::Alidns => DnsUpdater::new_alidns(user, secret, none, none, none, limit),
        DnsProvider::BaiduCloud => DnsUpdater::new_baiducloud(user, secret, limit),
        DnsProvider::Bunny => DnsUpdater::new_bunny(token, limit),
        DnsProvider::Cloudflare => DnsUpdater::new_cloudflare(token, limit),
        DnsProvider::Cloudns => DnsUpdater::new_cloudns(Some(user), none, secret, limit),
        DnsProvider::Desec => DnsUpdater::new_desec(token, limit),
        DnsProvider::DigitalOcean => DnsUpdater::new_digitalocean(token, limit),
        DnsProvider::DnSimple => DnsUpdater::new_dnsimple(token, user, limit),
        DnsProvider::Domeneshop => DnsUpdater::new_domeneshop(token, secret, limit),
        DnsProvider::Dynu => DnsUpdater::new_dynu(token, limit),
        DnsProvider::Exoscale => DnsUpdater::new_exoscale(token, secret, limit),
        DnsProvider::Gandi => DnsUpdater::new_gandiv5(token, limit),
        DnsProvider::Gcore => DnsUpdater::new_gcore(token, limit),
        DnsProvider::Glesys => DnsUpdater::new_glesys(user, token, limit),
        DnsProvider::GoDaddy => DnsUpdater::new_godaddy(token, secret, limit),
        DnsProvider::Hetzner => DnsUpdater::new_hetzner(token, limit),
        DnsProvider::HostingDe => DnsUpdater::new_hostingde(token, limit),
        DnsProvider::Hostinger => DnsUpdater::new_hostinger(token, limit),
        DnsProvider::HuaweiCloud => DnsUpdater::new_huaweicloud(user, secret, endpoint, limit),
        DnsProvider::Infomaniak => DnsUpdater::new_infomaniak(token, limit),
        DnsProvider::Inwx => DnsUpdater::new_inwx(user, secret, false, limit),
        DnsProvider::Ionos => DnsUpdater::new_ionos(token, limit),
        DnsProvider::Linode => DnsUpdater::new_linode(token, limit),
        DnsProvider::LuaDns => DnsUpdater::new_luadns(user, token, limit),
        DnsProvider::MythicBeasts => DnsUpdater::new_mythicbeasts(user, secret, limit),
        DnsProvider::NameDotCom => DnsUpdater::new_namedotcom(user, token, limit),
        DnsProvider::Netcup => DnsUpdater::new_netcup(user, token, secret, limit),
        DnsProvider::Netlify => DnsUpdater::new_netlify(token, limit),
        DnsProvider::Ns1 => DnsUpdater::new_ns1(token, limit),
        DnsProvider::Ovh => DnsUpdater::new_ovh(user, secret, token, endpoint.parse::<OvhEndpoint>()?, limit),
        DnsProvider::Porkbun => DnsUpdater::new_porkbun(token, secret, limit),
        DnsProvider::Route53 => DnsUpdater::new_route53(Route53Config {
            access_key_id: user.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: None,
            region: None,
            hosted_zone_id: None,
            private_zone_only: None,
            endpoint: None,
        }),
        DnsProvider::Scaleway => DnsUpdater::new_scaleway(token, limit),
        DnsProvider::SimplyCom => DnsUpdater::new_simplycom(user, token, limit),
        DnsProvider::Spaceship => DnsUpdater::new_spaceship(token, secret, limit),
        DnsProvider::TencentCloud => DnsUpdater::new_tencentcloud(user, secret, none, none, limit),
        DnsProvider::Vercel => DnsUpdater::new_vercel(token, none, limit),
        DnsProvider::Vultr => DnsUpdater::new_vultr(token, limit),
        DnsProvider::ZoneEu => DnsUpdater::new_zoneeu(user, token, limit),
    }
}

/// What the crate says, without its type.
fn words(error: &Error) -> String {
    match error {
        Error::Unauthorized => {
            "does not accept the token (HTTP 401): see whether it is whole, and may change the zone".to_owned()
        }
        Error::NotFound => "does not find the zone in this account (HTTP 404)".to_owned(),
        Error::BadRequest => "does not accept the request (HTTP 400)".to_owned(),
        Error::InvalidRegion => "has no such region".to_owned(),
        Error::Protocol(text)
        | Error::Parse(text)
        | Error::Client(text)
        | Error::Response(text)
        | Error::Api(text)
        | Error::Serialize(text)
        | Error::Unsupported(text) => format!("answers: {text}"),
        _ => "answers something that is not understood".to_owned(),
    }
}

impl Secrets {
    fn of(api: &DnsApi) -> Self {
        let given = [&api.token, &api.secret].into_iter().flatten().map(|secret| secret.expose().to_owned());
        // In the query of a URL, and in JSON that is quoted in an error.
        let written: Vec<String> =
            given.flat_map(|secret| [percent_encoded(&secret), escaped(&secret), secret]).collect();
        Self(written)
    }

    /// A text of the crate or the provider, in which a request may be quoted.
    fn without(&self, text: &str) -> String {
        let hidden = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[hidden]"));
        visible(&hidden, SHOWN_MAX)
    }
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'*');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::checked::Secret;

    fn account(provider: DnsProvider) -> DnsApi {
        let keys = provider.keys();
        let secret = |what: Option<_>, text: &str| what.map(|_| Secret::new(text.to_owned()));
        let endpoint = match provider {
            DnsProvider::Ovh => Some("ovh-eu"),
            DnsProvider::HuaweiCloud => Some("ap-southeast-1"),
            _ => None,
        };
        DnsApi {
            provider,
            user: keys.user.map(|_| "user".to_owned()),
            token: secret(keys.token, "to+ken/1"),
            secret: secret(keys.secret, "s3cret\"2"),
            endpoint: endpoint.map(str::to_owned),
        }
    }

    #[test]
    fn account_of_each_provider_is_taken_by_the_crate() {
        for keys in DnsProvider::ALL {
            let api = account(keys.provider);
            assert_eq!(api.endpoint.is_some(), keys.endpoint.is_some(), "{}", keys.word);
            let made = Api::new(&api).map(|api| api.word);
            assert_eq!(made, Ok(keys.word));
        }
    }

    #[test]
    fn error_is_shown_without_secrets() {
        let secrets = Secrets::of(&account(DnsProvider::Netcup));
        for (told, shown) in [
            ("no zone", "no zone"),
            (
                "https://dns.example/update?token=to%2Bken%2F1&txt=x: timed out",
                "https://dns.example/update?token=[hidden]&txt=x: timed out",
            ),
            (
                "HTTP 400: {\"key\":\"to+ken/1\",\"pass\":\"s3cret\\\"2\"}",
                "HTTP 400: {\"key\":\"[hidden]\",\"pass\":\"[hidden]\"}",
            ),
            ("Bearer s3cret\"2\r\nforged", "Bearer [hidden]\\r\\nforged"),
        ] {
            assert_eq!(secrets.without(told), shown);
        }
        assert!(secrets.without(&"x".repeat(10_000)).chars().count() <= SHOWN_MAX + 1);
    }

    #[test]
    fn every_error_of_the_crate_has_words() {
        assert!(words(&Error::Unauthorized).contains("token"));
        assert!(words(&Error::NotFound).contains("zone"));
        assert_eq!(words(&Error::Api("HTTP 500".to_owned())), "answers: HTTP 500");
    }
}
