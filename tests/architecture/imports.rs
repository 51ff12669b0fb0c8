//! The table of imports.

/// What each module of the crate imports beside itself, from the bottom up: a module may name those above its own line only.
pub(crate) const IMPORTS: &[(&str, &[&str])] = &[
    // The foundations. The vocabulary imports nothing.
    ("model", &[]),
    ("sys", &[]),
    ("http", &["model"]),
    // What goes from one process of a gate to another.
    ("handover", &[]),
    // Pages of text, and how they are shown.
    ("manual", &[]),
    ("tls", &["model"]),
    // All text about a refusal: it takes vocabulary and gives words, so that everything above can use them.
    ("explain", &["model"]),
    ("pki", &["explain", "model"]),
    ("files", &["sys"]),
    // What a device is given in one file.
    ("bundle", &["model"]),
    // The other end: runs on devices, and knows nothing of a gate but what it was given.
    ("connector", &["bundle", "model", "pki", "sys"]),
    // Devices are set up without a gate.
    ("enrolment", &["bundle", "files", "http", "model", "pki", "sys"]),
    // A certificate and the files that a device is set up with are written in one transaction.
    ("ca", &["bundle", "enrolment", "files", "model", "pki"]),
    // `metrics.inventory` names a file that `doorward ca` writes. A revocation without effect is a finding.
    ("config", &["ca", "explain", "model", "pki", "sys"]),
    // Copies what the gate needs to where its service finds it, and knows afterwards where that is.
    ("install", &["config", "files", "model"]),
    // The stages: each takes the output of the one before, and none knows telemetry. proxy_protocol is a format: admission takes
    // a header off the socket, client_hello recognises one.
    ("listener", &["config", "model", "sys"]),
    ("proxy_protocol", &["config", "model", "sys"]),
    ("admission", &["config", "listener", "model", "proxy_protocol", "sys"]),
    ("client_hello", &["admission", "model", "proxy_protocol", "sys", "tls"]),
    ("route", &["model"]),
    ("authorize", &["config", "model"]),
    // The verifier asks authorize's pure function: only during the handshake can the client be told by an alert of TLS 1.2.
    ("handshake", &["admission", "authorize", "client_hello", "config", "model", "pki", "sys", "tls"]),
    // TLS to a backend, which the dial begins and the relay goes on with.
    ("backend_tls", &["config", "model", "sys"]),
    // A health check has a PROXY protocol header of its own.
    ("backends", &["authorize", "backend_tls", "config", "model", "proxy_protocol", "sys"]),
    ("relay", &["backend_tls", "model", "sys", "tls"]),
    // What a refused client pretended to be.
    ("impostors", &["config", "model"]),
    // Answers devices that ask for their next certificate.
    ("renewal", &["authorize", "config", "http", "model", "pki", "sys"]),
    (
        "snapshot",
        &["authorize", "backend_tls", "backends", "config", "handshake", "impostors", "model", "renewal", "route"],
    ),
    // The rights of the process, as the configuration needs them.
    ("sandbox", &["config"]),
    (
        // Issues what the gate cannot: a process beside it, which believes nothing that the gate says.
        "unattended",
        &["ca", "config", "explain", "handover", "model", "pki", "renewal", "sandbox", "snapshot"],
    ),
    ("notify", &["config", "explain", "handover", "model", "sandbox"]),
    // Answers challenges in the gate, and orders certificates in a process beside it.
    ("acme", &["client_hello", "config", "files", "handover", "model", "sandbox", "snapshot", "tls"]),
    // What is told about connections, and what is kept of them.
    ("history", &["config", "explain", "model"]),
    ("sessions", &["config", "explain", "model", "relay", "snapshot"]),
    ("telemetry", &["config", "explain", "listener", "model", "relay"]),
    // All that is known of a running gate, for what tells the owner something.
    ("overview", &["backends", "config", "explain", "history", "model", "notify", "sessions", "telemetry"]),
    ("admin", &["config", "explain", "history", "http", "model", "overview", "relay", "sessions", "telemetry"]),
    (
        "gate",
        &[
            "acme",
            "admission",
            "backends",
            "config",
            "explain",
            "history",
            "model",
            "notify",
            "relay",
            "renewal",
            "sessions",
            "snapshot",
            "telemetry",
        ],
    ),
    (
        "reload",
        &[
            "authorize",
            "config",
            "explain",
            "gate",
            "listener",
            "model",
            "notify",
            "sandbox",
            "sessions",
            "snapshot",
            "sys",
            "telemetry",
        ],
    ),
    // The control socket asks; no stage knows of it.
    (
        "control",
        &[
            "config",
            "explain",
            "gate",
            "handover",
            "history",
            "model",
            "notify",
            "overview",
            "reload",
            "sandbox",
            "sessions",
            "sys",
            "telemetry",
        ],
    ),
    // The one module that knows the order of the stages.
    (
        "connection",
        &[
            "admission",
            "authorize",
            "backend_tls",
            "backends",
            "client_hello",
            "config",
            "explain",
            "gate",
            "handshake",
            "http",
            "listener",
            "model",
            "notify",
            "proxy_protocol",
            "relay",
            "renewal",
            "sessions",
            "snapshot",
            "sys",
            "telemetry",
            "tls",
        ],
    ),
    (
        "server",
        &[
            "acme",
            "admin",
            "admission",
            "backends",
            "config",
            "connection",
            "control",
            "explain",
            "gate",
            "handover",
            "history",
            "listener",
            "model",
            "notify",
            "overview",
            "relay",
            "reload",
            "renewal",
            "sandbox",
            "snapshot",
            "sys",
            "telemetry",
            "unattended",
        ],
    ),
    (
        "cli",
        &[
            "acme",
            "admission",
            // `check --connect` makes the handshake that the gate would.
            "backend_tls",
            // It does the health checks that the gate would.
            "backends",
            "bundle",
            "ca",
            "config",
            "connector",
            "control",
            "enrolment",
            "explain",
            "files",
            "handover",
            "handshake",
            "history",
            "install",
            "listener",
            "manual",
            "model",
            "notify",
            "pki",
            // `check --connect` sends a backend the header that the gate would.
            "proxy_protocol",
            "reload",
            "renewal",
            "sandbox",
            "server",
            "sessions",
            "snapshot",
            "sys",
            "telemetry",
            "unattended",
        ],
    ),
    ("main", &["cli"]),
];

/// The modules of a build without the gate, as devices run it. Parts of them are the gate's: see `#[cfg]` there.
pub(crate) const PORTABLE: &[&str] = &["bundle", "cli", "connector", "manual", "model", "pki", "sys"];
