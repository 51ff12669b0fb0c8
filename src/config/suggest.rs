//! "Did you mean": near misses, the words of other programs, and keys in the wrong section.

/// What other programs call our keys (Caddy, nginx, HAProxy, Traefik, ghostunnel, stunnel).
const OTHER_WORDS: &[(&str, &str)] = &[
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
    ("proxy_protocol", "send_proxy_protocol"),
    ("server_name", "server_names"),
    ("sni", "server_names"),
    ("target", "backends"),
    ("trust_anchors", "trust"),
    ("trust_pool", "trust"),
    ("trusted_ca_cert_file", "trust"),
    ("upstream", "backends"),
    ("upstreams", "backends"),
];

/// Every key and the section it lives in. A key after a `[section]` line belongs to that section, so a key in the
/// wrong section is the most common slip in a TOML file.
const HOMES: &[(&str, &str)] = &[
    ("", "kernel_tls listener certificate client_auth groups route timeouts limits metrics log"),
    ("[[listener]]", "address proxy_protocol_from allow_sources deny_sources"),
    ("[certificate]", "chain key"),
    ("[client_auth]", "trust revocation_lists deny expired_revocation_list revocation_check announce_trust"),
    ("[[route]]", "server_names backends allow application_protocols send_proxy_protocol"),
    ("[timeouts]", "client_hello handshake dial idle lifetime half_close drain"),
    (
        "[limits]",
        "connections connections_per_source connection_rate_per_source handshakes penalties banned \
         source_prefix_v4 source_prefix_v6",
    ),
    ("[log]", "output format sampling"),
];

/// What to write instead of the unknown key `wrong`, where `known` are the keys of its section.
pub(super) fn for_key(wrong: &str, known: &[&'static str]) -> String {
    let lower = wrong.to_ascii_lowercase().replace('-', "_");
    if let Some(key) = nearest(&lower, known) {
        return format!("did you mean \"{key}\"?");
    }
    let other = OTHER_WORDS.iter().find(|(word, key)| *word == lower && known.contains(key));
    if let Some((_, key)) = other {
        return format!("the key is called \"{key}\" here");
    }
    let home = HOMES.iter().find(|(_, keys)| keys.split(' ').any(|key| key == lower));
    match home {
        Some(("", _)) => format!("\"{lower}\" belongs at the top of the file, before the first line in [brackets]"),
        Some((section, _)) => format!("\"{lower}\" belongs under {section}"),
        None => format!("remove it; the keys that are known here are: {}", known.join(", ")),
    }
}

/// The one of `known` that `wrong` was probably meant to be.
pub(super) fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    // One slip in a short word, two in a longer one; more would guess at anything.
    let slips = match wrong.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        _ => 2,
    };
    let (distance, word) = known.iter().map(|word| (distance(wrong, word), *word)).min()?;
    (distance <= slips).then_some(word)
}

/// The number of letters to insert, remove, replace or swap with their neighbour to turn one word into the other
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    // Both are keys or names; anything longer is no slip of the pen, and the work grows with the square.
    if a.len() > 100 || b.len() > 100 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let at = |rows: &[Vec<usize>], i: usize, j: usize| rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        rows.push(vec![i + 1]);
        for (j, y) in b.iter().enumerate() {
            let replaced = at(&rows, i, j) + usize::from(x != y);
            let mut best = replaced.min(at(&rows, i, j + 1) + 1).min(at(&rows, i + 1, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                best = best.min(at(&rows, i - 1, j - 1) + 1);
            }
            if let Some(row) = rows.last_mut() {
                row.push(best);
            }
        }
    }
    at(&rows, a.len(), b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, far) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("idle", "idle", 0),
            ("ab", "ba", 1),
            ("idel", "idle", 1),
            ("ca", "abc", 3),
        ] {
            assert_eq!(distance(a, b), far, "{a} {b}");
            assert_eq!(distance(b, a), far, "{b} {a}");
        }
    }

    #[test]
    fn unknown_keys_are_led_home() {
        let route = &["name", "mode", "server_names", "backends", "allow"];
        assert_eq!(for_key("server_name", route), "did you mean \"server_names\"?");
        assert_eq!(for_key("Server-Names", route), "did you mean \"server_names\"?");
        assert_eq!(for_key("upstream", route), "the key is called \"backends\" here");
        assert_eq!(for_key("idle", route), "\"idle\" belongs under [timeouts]");
        assert!(for_key("kernel_tls", route).contains("at the top of the file"));
        assert!(for_key("colour", route).contains("name, mode, server_names"));
    }

    #[test]
    fn a_wild_guess_is_none() {
        assert_eq!(nearest("xy", &["on", "off"]), None);
        assert_eq!(nearest("v3", &["v1", "v2"]), None);
        assert_eq!(nearest("auot", &["auto", "off"]), Some("auto"));
        assert_eq!(nearest(&"x".repeat(10_000), &["on"]), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
