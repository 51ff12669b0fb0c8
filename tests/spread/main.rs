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
    const ALL: [Self; 3] = [Self::First, Self::RoundRobin, Self::LeastConnections];

    /// The word in the configuration.
    const fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
        }
    }

    /// The keys of a route for every verified certificate.
    fn keys(self) -> String {
        format!("allow = [\"any\"]\nstrategy = \"{}\"", self.word())
    }
}
