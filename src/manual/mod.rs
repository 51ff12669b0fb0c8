//! The manual, one page a topic: read here, on a forge, and by `doorward help TOPIC`.
//!
//! The pages are Markdown. A link to another page names it, as in `[text][refusals#reasons]`; each page defines the targets at
//! its end for readers of the file, and `links.md`, which comes first here and therefore counts, defines them for rustdoc.

mod document;
pub mod roff;
pub mod terminal;

/// A page of the manual.
#[derive(Clone, Copy, Debug)]
pub struct Topic {
    /// What `doorward help` and the file call it.
    pub name: &'static str,
    /// What it is about, in one line.
    pub summary: &'static str,
    /// The page itself, in Markdown.
    pub text: &'static str,
}

macro_rules! topics {
    ($($module:ident $name:literal $summary:literal,)*) => {
        $(
            #[doc = include_str!("links.md")]
            #[doc = include_str!(concat!($name, ".md"))]
            pub mod $module {}
        )*

        /// Every page, in the order in which a new reader needs them.
        pub const TOPICS: &[Topic] =
            &[$(Topic { name: $name, summary: $summary, text: include_str!(concat!($name, ".md")) },)*];
    };
}

topics! {
    installation "installation" "the program as a Debian package, a static program, a container image, or on OpenWrt",
    setup "setup" "certificates, the one open port, and the first start",
    devices "devices" "hand certificates to devices; renew and revoke them",
    renewal "renewal" "devices ask the gate for their next certificate, and you decide",
    from_caddy "from-caddy" "use the certificates of mkcert and Caddy's client_auth as they are",
    ssh_and_smb "ssh-and-smb" "ssh, sftp, rsync and file shares through the gate",
    refusals "refusals" "why a connection was rejected or closed, and what to do",
    certificates "certificates" "the certificate that the gate shows: your own authority's, files, or a public one by ACME",
    dns_01 "dns-01" "public certificates by DNS records: wildcards, and homes without an open port",
    configuration "configuration" "every key of doorward.toml, with defaults and samples",
    operations "operations" "commands, exit codes, questions to a running gate, reloads",
    kubernetes "kubernetes" "several replicas in Kubernetes: manifests, changes, what each replica has for itself",
    log "log" "the lines of the log and their fields",
    metrics "metrics" "counters and gauges for Prometheus, and their listener",
    page "page" "the status page",
    notices "notices" "messages to you: ntfy, Gotify, Slack, any webhook or program",
    security "security" "what the gate promises, and what it does not",
    threats "threats" "who may attack, what is promised against each, and which test shows it",
    cost "cost" "measured CPU time and memory, also under attack",
    words "words" "the terms that the manual uses",
    developing "developing" "the source tree, and what a change has to pass",
}
