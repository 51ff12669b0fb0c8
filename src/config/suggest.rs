//! "Did you mean": near misses, the words of other programs, and keys in the wrong section.

/// What other programs call our keys (Caddy, nginx, HAProxy, Traefik, ghostunnel, stunnel).
pub(super) const OTHER_WORDS: &[(&str, &str)] = &[
    ("accept", "address"),
    ("alpn", "application_protocols"),
    ("backend", "backends"),
    ("bind", "address"),
    ("ca", "trust"),
    ("ca_file", "trust"),
    ("cert", "chain"),
    ("cert_file", "chain"),
    ("certificate_file", "chain"),
    ("certificate_key", "key"),
    ("chain_file", "chain"),
    ("cipher_suites", "strength"),
    ("ciphers", "strength"),
    ("client_ca", "trust"),
    ("connect", "backends"),
    ("crl", "revocation_lists"),
    ("crl_file", "revocation_lists"),
    ("domains", "server_names"),
    ("host", "server_names"),
    ("hosts", "server_names"),
    ("hostnames", "server_names"),
    ("key_file", "key"),
    ("listen", "address"),
    ("max_connections", "connections"),
    ("private_key", "key"),
    ("protocol", "starttls"),
    ("proxy_protocol", "send_proxy_protocol"),
    ("server_name", "server_names"),
    ("sni", "server_names"),
    ("ssl_ciphers", "strength"),
    ("ssl_session_ticket_key", "keys"),
    ("target", "backends"),
    ("tls_ticket_keys", "keys"),
    ("trust_anchors", "trust"),
    ("trust_pool", "trust"),
    ("trusted_ca_cert_file", "trust"),
    ("upstream", "backends"),
    ("upstreams", "backends"),
];

/// The longest word that is compared.
const LONGEST_WORD: usize = 100;

/// A key that exists, and its section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownKey {
    /// `[log]`, `[[route]]`, `[route.certificate]`; empty for the top of the file.
    pub(super) section: String,
    pub(super) key: &'static str,
    /// How the section of this name is written, if the key is one.
    pub(super) header: Option<String>,
}

impl KnownKey {
    /// A key with a value.
    pub(super) fn value(section: &str, key: &'static str) -> Self {
        Self { section: section.to_owned(), key, header: None }
    }

    /// A key that is a section of its own, below `header`.
    pub(super) fn section(section: &str, key: &'static str, header: String) -> Self {
        Self { section: section.to_owned(), key, header: Some(header) }
    }
}

/// What to write instead of the unknown key `wrong`, where `here` are the keys of its section and `all` those of every one.
pub(super) fn for_key(wrong: &str, here: &[&'static str], all: &[KnownKey]) -> String {
    let lower = wrong.to_ascii_lowercase().replace('-', "_");
    if let Some(key) = nearest(&lower, here) {
        return format!("did you mean \"{key}\"?");
    }
    let other = OTHER_WORDS.iter().find(|(word, key)| *word == lower && here.contains(key));
    if let Some((_, key)) = other {
        return format!("the key is called \"{key}\" here");
    }
    // A key after a [section] line belongs to that section, so a key in the wrong section is a common mistake in TOML.
    let homes: Vec<&KnownKey> = all.iter().filter(|known| known.key == lower).collect();
    let headers: Vec<&str> = homes.iter().filter_map(|known| known.header.as_deref()).collect();
    if !headers.is_empty() {
        return format!("\"{lower}\" is a section of its own: write {} on a line of its own", headers.join(" or "));
    }
    if homes.iter().any(|known| known.section.is_empty()) {
        return format!("\"{lower}\" belongs at the top of the file, before the first line in [brackets]");
    }
    if !homes.is_empty() {
        let sections: Vec<&str> = homes.iter().map(|known| known.section.as_str()).collect();
        return format!("\"{lower}\" belongs under {}", sections.join(" or "));
    }
    format!("remove it; the keys of this section are: {}", here.join(", "))
}

/// The one of `known` that `wrong` was probably meant to be.
pub(crate) fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    // One slip in a short word, two in a longer one; more would guess at anything.
    let slips = match wrong.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        _ => 2,
    };
    // Longer than any key or group name is no slip, and the work grows with the square.
    if wrong.len() > LONGEST_WORD {
        return None;
    }
    let (distance, word) = known.iter().map(|word| (strsim::osa_distance(wrong, word), *word)).min()?;
    (distance <= slips).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<KnownKey> {
        vec![
            KnownKey::value("", "kernel_tls"),
            KnownKey::value("[timeouts]", "idle"),
            KnownKey::value("[[listener]]", "address"),
            KnownKey::value("[metrics]", "address"),
            KnownKey::section("", "log", "[log]".to_owned()),
        ]
    }

    #[test]
    fn unknown_key_is_answered_with_the_key_or_its_section() {
        let route = &["name", "mode", "server_names", "backends", "allow"];
        let answer = |wrong| for_key(wrong, route, &all());
        assert_eq!(answer("server_name"), "did you mean \"server_names\"?");
        assert_eq!(answer("Server-Names"), "did you mean \"server_names\"?");
        assert_eq!(answer("upstream"), "the key is called \"backends\" here");
        assert_eq!(answer("idle"), "\"idle\" belongs under [timeouts]");
        assert_eq!(answer("address"), "\"address\" belongs under [[listener]] or [metrics]");
        assert_eq!(answer("log"), "\"log\" is a section of its own: write [log] on a line of its own");
        assert!(answer("kernel_tls").contains("at the top of the file"));
        assert!(answer("colour").contains("name, mode, server_names"));
    }

    #[test]
    fn distant_word_has_no_suggestion() {
        assert_eq!(nearest("xy", &["on", "off"]), None);
        assert_eq!(nearest("v3", &["v1", "v2"]), None);
        assert_eq!(nearest("auot", &["auto", "off"]), Some("auto"));
        assert_eq!(nearest(&"x".repeat(10_000), &["on"]), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
