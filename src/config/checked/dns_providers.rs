//! The DNS providers whose HTTP API is known, and what each of them asks for.

/// A DNS provider with an HTTP API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the word for each is in ALL")]
pub enum DnsProvider {
    Alidns,
    BaiduCloud,
    Bunny,
    Cloudflare,
    Cloudns,
    Desec,
    DigitalOcean,
    DnSimple,
    Domeneshop,
    Dynu,
    Exoscale,
    Gandi,
    Gcore,
    Glesys,
    GoDaddy,
    Hetzner,
    HostingDe,
    Hostinger,
    HuaweiCloud,
    Infomaniak,
    Inwx,
    Ionos,
    Linode,
    LuaDns,
    MythicBeasts,
    NameDotCom,
    Netcup,
    Netlify,
    Ns1,
    Ovh,
    Porkbun,
    Route53,
    Scaleway,
    SimplyCom,
    Spaceship,
    TencentCloud,
    Vercel,
    Vultr,
    ZoneEu,
}

/// What a provider is called, and what it calls the parts of an account. A key that it does not take is `None`.
#[derive(Clone, Copy, Debug)]
pub struct ProviderKeys {
    /// As in `provider = "…"`.
    pub word: &'static str,
    /// The provider.
    pub provider: DnsProvider,
    /// `user`
    pub user: Option<&'static str>,
    /// `token_file`
    pub token: Option<&'static str>,
    /// `secret_file`
    pub secret: Option<&'static str>,
    /// `endpoint`
    pub endpoint: Option<&'static str>,
    /// Where its API is, on port 443. A star is a part that the account or the endpoint decides.
    pub host: &'static str,
}

/// A provider that takes no keys yet.
const fn at(word: &'static str, provider: DnsProvider, host: &'static str) -> ProviderKeys {
    ProviderKeys { word, provider, user: None, token: None, secret: None, endpoint: None, host }
}

impl ProviderKeys {
    const fn user(self, what: &'static str) -> Self {
        Self { user: Some(what), ..self }
    }

    const fn token(self, what: &'static str) -> Self {
        Self { token: Some(what), ..self }
    }

    const fn secret(self, what: &'static str) -> Self {
        Self { secret: Some(what), ..self }
    }

    const fn endpoint(self, what: &'static str) -> Self {
        Self { endpoint: Some(what), ..self }
    }
}

impl DnsProvider {
    /// Every provider, in the order of the alphabet.
    pub const ALL: &[ProviderKeys] = &[
        at("alidns", Self::Alidns, "alidns.aliyuncs.com").user("AccessKey ID").secret("AccessKey secret"),
        at("baiducloud", Self::BaiduCloud, "dns.baidubce.com").user("access key ID").secret("secret access key"),
        at("bunny", Self::Bunny, "api.bunny.net").token("API key"),
        at("cloudflare", Self::Cloudflare, "api.cloudflare.com").token("API token with the right Zone / DNS / Edit"),
        at("cloudns", Self::Cloudns, "api.cloudns.net").user("auth-id").secret("auth-password"),
        at("desec", Self::Desec, "desec.io").token("token"),
        at("digitalocean", Self::DigitalOcean, "api.digitalocean.com").token("API token"),
        at("dnsimple", Self::DnSimple, "api.dnsimple.com").user("account ID").token("API token"),
        at("domeneshop", Self::Domeneshop, "api.domeneshop.no").token("API token").secret("API secret"),
        at("dynu", Self::Dynu, "api.dynu.com").token("API key"),
        at("exoscale", Self::Exoscale, "api-ch-gva-2.exoscale.com").token("API key").secret("API secret"),
        at("gandi", Self::Gandi, "api.gandi.net").token("personal access token"),
        at("gcore", Self::Gcore, "api.gcore.com").token("API token"),
        at("glesys", Self::Glesys, "api.glesys.com").user("user").token("API key"),
        at("godaddy", Self::GoDaddy, "api.godaddy.com").token("API key").secret("API secret"),
        at("hetzner", Self::Hetzner, "api.hetzner.cloud").token("API token of the Cloud Console"),
        at("hostingde", Self::HostingDe, "secure.hosting.de").token("API key"),
        at("hostinger", Self::Hostinger, "developers.hostinger.com").token("API token"),
        at("huaweicloud", Self::HuaweiCloud, "dns.*.myhuaweicloud.com")
            .user("access key ID")
            .secret("secret access key")
            .endpoint("region, as in \"ap-southeast-1\""),
        at("infomaniak", Self::Infomaniak, "api.infomaniak.com").token("access token"),
        at("inwx", Self::Inwx, "api.domrobot.com").user("user").secret("password"),
        at("ionos", Self::Ionos, "api.hosting.ionos.com").token("API key: PREFIX.SECRET"),
        at("linode", Self::Linode, "api.linode.com").token("personal access token"),
        at("luadns", Self::LuaDns, "api.luadns.com").user("e-mail address of the account").token("API token"),
        at("mythicbeasts", Self::MythicBeasts, "api.mythic-beasts.com").user("API key ID").secret("API secret"),
        at("namedotcom", Self::NameDotCom, "api.name.com").user("user").token("API token"),
        at("netcup", Self::Netcup, "ccp.netcup.net").user("customer number").token("API key").secret("API password"),
        at("netlify", Self::Netlify, "api.netlify.com").token("personal access token"),
        at("ns1", Self::Ns1, "api.nsone.net").token("API key"),
        at("ovh", Self::Ovh, "*.api.ovh.com")
            .user("application key")
            .token("consumer key")
            .secret("application secret")
            .endpoint("API: ovh-eu, ovh-ca, ovh-us, kimsufi-eu, kimsufi-ca, soyoustart-eu or soyoustart-ca"),
        at("porkbun", Self::Porkbun, "api.porkbun.com").token("API key").secret("secret API key"),
        at("route53", Self::Route53, "route53.amazonaws.com").user("access key ID").secret("secret access key"),
        at("scaleway", Self::Scaleway, "api.scaleway.com").token("secret key"),
        at("simplycom", Self::SimplyCom, "api.simply.com").user("account name").token("API key"),
        at("spaceship", Self::Spaceship, "spaceship.dev").token("API key").secret("API secret"),
        at("tencentcloud", Self::TencentCloud, "dnspod.tencentcloudapi.com").user("SecretId").secret("SecretKey"),
        at("vercel", Self::Vercel, "api.vercel.com").token("access token"),
        at("vultr", Self::Vultr, "api.vultr.com").token("API key"),
        at("zoneeu", Self::ZoneEu, "api.zone.eu").user("ZoneID user name").token("API key"),
    ];

    /// What it is called, and what it asks for.
    pub fn keys(self) -> ProviderKeys {
        let found = Self::ALL.iter().find(|keys| keys.provider == self);
        found.copied().unwrap_or_else(|| at("", self, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_has_a_word_and_asks_for_a_secret() {
        for keys in DnsProvider::ALL {
            assert_eq!(keys.provider.keys().word, keys.word);
            assert!(keys.token.is_some() || keys.secret.is_some(), "{}", keys.word);
            assert!(!keys.host.is_empty(), "{}", keys.word);
        }
        assert!(DnsProvider::ALL.is_sorted_by(|a, b| a.word < b.word), "a word twice, or out of order");
    }

    #[test]
    fn manual_lists_every_provider_with_its_keys() {
        let manual = include_str!("../../manual/dns-01.md");
        let rows = manual.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 6).skip(1);
        let listed: Vec<Vec<String>> =
            rows.map(|row| row.split('|').skip(1).take(5).map(|cell| cell.trim().replace('`', "")).collect()).collect();
        let there: Vec<Vec<String>> = DnsProvider::ALL
            .iter()
            .map(|keys| {
                let what = |key: Option<&str>| key.map_or_else(|| "–".to_owned(), |key| key.replace('"', ""));
                vec![keys.word.to_owned(), what(keys.user), what(keys.token), what(keys.secret), what(keys.endpoint)]
            })
            .collect();
        assert_eq!(listed, there);
    }
}
