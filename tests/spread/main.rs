//! Several backends of one route, with each strategy: what a client sees of a backend that dies, comes back, is slow, or resets.

// Tells Clippy that every function here is a test's, not only those with #[test]: unwrap() is how tests fail.
#![cfg(test)]

#[expect(dead_code, reason = "shared by all integration tests: none needs everything")]
#[path = "../common/mod.rs"]
mod common;

// The clients and the surroundings of the other tests.
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/client.rs"]
mod client;
#[expect(dead_code, reason = "made for the tests of the journey")]
#[path = "../journey/home.rs"]
mod home;

mod killed;
mod names;
mod rows;

/// The server name of the route `nas`.
const NAS: &str = "nas.home.example";

/// Every value of `strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    First,
    RoundRobin,
    LeastConnections,
}

impl Strategy {
    /// The word in the configuration.
    const fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
        }
    }
}

/// How a route treats its backends.
#[derive(Clone, Copy, Debug)]
struct Kind {
    strategy: Strategy,
    /// Further keys of the route.
    keys: &'static str,
}

/// Each kind.
const KINDS: [Kind; 3] = [
    Kind { strategy: Strategy::First, keys: "" },
    Kind { strategy: Strategy::RoundRobin, keys: "" },
    Kind { strategy: Strategy::LeastConnections, keys: "" },
];

impl Kind {
    /// The keys of a route.
    fn keys(self) -> String {
        format!("allow = [\"any\"]\nstrategy = \"{}\"\n{}", self.strategy.word(), self.keys)
    }

    /// Whether two sessions go to two backends.
    fn spreads(self) -> bool {
        self.strategy != Strategy::First
    }
}
