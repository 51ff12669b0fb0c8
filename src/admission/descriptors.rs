//! How the file descriptors of the process are shared out.
//!
//! Connections come last: what clients bring about never takes what reloads, the control socket, the metrics and look-ups
//! need. Where `limits.connections` does not fit, fewer are taken, and that is told at the start, by `doorward check` and at
//! each reload.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::checked::{Config, Limits};
use crate::sys;

/// What a gate holds from its start on beside its listeners: standard streams, runtimes, signals, inotify, control socket,
/// log; for an upgrade the launcher, and copies of the sockets of control and metrics.
const OWN: usize = 23;
/// Of these it holds so many before it binds anything, which is when they are counted. What is more was inherited.
const BEFORE: usize = 10;
/// The listener for metrics and its runtime.
const METRICS: usize = 5;
/// For a reload: the files that are read one by one, another inotify, a log file that is opened anew.
const RELOAD: usize = 4;
/// One look-up of a name: files of the system's configuration and sockets to name servers.
const LOOK_UP: usize = 3;
/// Pipes that relays have in any case. They have more where there are fewer connections than would fit.
const PIPES: usize = 8;
/// A gate needs at least so many connections.
const CONNECTIONS_MIN: usize = 4;
/// A system without a limit is taken to have this one, Linux' default of `fs.nr_open`.
const UNLIMITED: usize = 1024 * 1024;

/// What the process may have, and what it had when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    limit: usize,
    held: usize,
}

/// How the descriptors of a gate with some configuration are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The limit of open files.
    pub limit: usize,
    /// Clients that may be connected at once, those included that are about to be refused.
    pub clients: usize,
    /// Connections that may have a client and a backend at once.
    pub connections: usize,
    /// Pipes of relays; a relay that gets none does without.
    pub pipes: usize,
    /// Connections to the metrics listener.
    pub metrics: usize,
    /// Look-ups of names at once.
    pub look_ups: usize,
}

/// There are too few descriptors for a gate of any use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of open files is {limit}, and the gate needs at least {needed}\n  raise it, to 65536 say: {RAISE}")]
pub struct TooFew {
    limit: usize,
    needed: usize,
}

/// How to raise the limit.
const RAISE: &str = "LimitNOFILE= in a systemd unit, --ulimit nofile= of docker run, ulimit -n in a shell";

impl Descriptors {
    /// Those of this process: raises the limit as far as it may. The usual soft limit of 1024 is for programs that use
    /// select(2).
    pub fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        // Refused or not, what is in force counts.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        let limit = count(getrlimit(Resource::Nofile).current);
        Self { limit, held: sys::descriptors::count_open(limit) }
    }

    /// Those of a gate that would be started as this process was.
    pub fn of_a_gate() -> Self {
        Self { limit: count(getrlimit(Resource::Nofile).maximum), held: 0 }
    }

    /// The limit of open files.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// How they are shared out with this configuration.
    pub fn budget(&self, config: &Config) -> Result<Budget, TooFew> {
        let too_few = TooFew { limit: self.limit, needed: self.needed(config, CONNECTIONS_MIN) };
        let budget = self
            .share_out(config)
            .filter(|budget| budget.connections >= CONNECTIONS_MIN.min(config.limits.connections));
        budget.ok_or(too_few)
    }

    fn share_out(&self, config: &Config) -> Option<Budget> {
        let Self { limit, held } = *self;
        let metrics = (limit / 32).clamp(2, 16);
        let look_ups = (limit / 64).clamp(1, 16);
        let asking = (limit / 64).clamp(1, 6) + 3;
        let own = OWN + config.listeners.len() + METRICS;
        // A reload opens its new listeners before the old ones are closed.
        // A backend has one check at a time. Of very many, those that find no descriptor count neither way.
        let checks = (limit / 64).clamp(1, 16).min(checked(config));
        let look_ups_reserve = LOOK_UP * look_ups.min(config.host_names().len());
        let reserve = RELOAD + config.listeners.len() + asking + metrics + checks + look_ups_reserve;
        let free = limit.checked_sub(own + held.saturating_sub(BEFORE))?.checked_sub(reserve)?;
        // Those about to be refused, and the one that each listener is about to take.
        let refused = (free / 16).clamp(2, 8) + config.listeners.len();
        let free = free.checked_sub(refused)?;
        // A client and a backend each. Pipes are held only while bytes are on the move: a few will do.
        let pipes = (free / 40).clamp(1, PIPES);
        let most = free.checked_sub(2 * pipes)? / 2;
        let connections = most.min(config.limits.connections);
        Some(Budget {
            limit,
            clients: most + refused,
            connections,
            pipes: (free - most - connections) / 2,
            metrics,
            look_ups,
        })
    }

    /// The lowest limit with which so many connections fit.
    fn needed(&self, config: &Config, connections: usize) -> usize {
        let fits = |limit: usize| {
            let budget = Self { limit, ..*self }.share_out(config);
            budget.is_some_and(|budget| budget.connections >= connections.min(config.limits.connections))
        };
        // Nearly: a share is a whole number, and one more for the others can be a connection less.
        let (mut low, mut high) = (0, usize::MAX / 16);
        while low < high {
            let middle = low.midpoint(high);
            if fits(middle) { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// The warning where `limits.connections` does not fit.
    pub fn warning(&self, config: &Config) -> Option<String> {
        let wanted = config.limits.connections;
        let budget = match self.budget(config) {
            Ok(budget) => budget,
            Err(too_few) => return Some(too_few.to_string()),
        };
        let connections = budget.connections;
        // The default is a bound against floods; homes have far fewer connections.
        let enough = if wanted == Limits::default().connections { wanted / 2 } else { wanted };
        if connections >= enough {
            return self.warning_of_handshakes(config, budget);
        }
        Some(format!(
            "limits.connections: {wanted} connections do not fit the limit of {} open files, so the gate takes \
                 {connections}; raise the limit to {} or more ({RAISE}), or write connections = {connections}",
            self.limit,
            self.needed(config, wanted)
        ))
    }

    /// The warning where `limits.handshakes` does not fit beside the connections that do.
    fn warning_of_handshakes(&self, config: &Config, budget: Budget) -> Option<String> {
        let (wanted, handshakes) = (config.limits.handshakes, budget.limits(&config.limits).handshakes);
        (handshakes < wanted && wanted != Limits::default().handshakes).then(|| {
            format!(
                "limits.handshakes: with the limit of {} open files the gate takes {} connections, and {handshakes} handshakes \
                 instead of {wanted}; raise the limit to {} or more ({RAISE}), or write handshakes = {handshakes}",
                self.limit,
                budget.connections,
                self.needed(config, config.limits.connections)
            )
        })
    }
}

impl Budget {
    /// The limits that are in force: as configured, or what fits.
    #[must_use]
    pub fn limits(&self, configured: &Limits) -> Limits {
        if self.connections >= configured.connections {
            return configured.clone();
        }
        // Handshakes make room for others only when all their places are taken, which must be before all connections are: a
        // quarter of these, or the proportion that was configured if that is more.
        let proportion = configured.handshakes.saturating_mul(self.connections) / configured.connections;
        let handshakes = configured.handshakes.min(proportion.max(self.connections / 4)).max(1);
        Limits { connections: self.connections, handshakes, ..configured.clone() }
    }
}

/// Backends whose health is checked.
fn checked(config: &Config) -> usize {
    config.routes.iter().filter(|route| route.health.is_some()).map(|route| route.backends.len()).sum()
}

fn count(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(UNLIMITED).min(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(limits: &str) -> Config {
        let text = format!(
            "[limits]\n{limits}\n[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"mail\"\n\
             mode = \"passthrough\"\nserver_names = [\"mail.home.example\"]\nbackends = [\"mail.lan:993\"]\n"
        );
        crate::config::parse(&text, std::path::Path::new("doorward.toml")).expect("a configuration")
    }

    fn with(limit: usize) -> Descriptors {
        Descriptors { limit, held: 0 }
    }

    #[test]
    fn shares_never_exceed_the_limit() {
        let config = config("");
        let mut last = 0;
        for limit in (0..3000).chain([4096, 20_000, 65_536, 524_288, UNLIMITED]) {
            let Ok(budget) = with(limit).budget(&config) else {
                assert!(limit < 64, "{limit} are enough");
                continue;
            };
            let Budget { clients, connections, pipes, metrics, look_ups, .. } = budget;
            let own = OWN + 1 + METRICS + RELOAD;
            assert!(
                own + clients + connections + 2 * pipes + metrics + LOOK_UP * look_ups.min(1) < limit + 1,
                "{budget:?}"
            );
            assert!(connections >= CONNECTIONS_MIN && clients > connections, "{budget:?}");
            let Limits { connections: in_all, handshakes, .. } = budget.limits(&config.limits);
            assert_eq!(in_all, connections);
            // Neither those without a certificate nor those without a word can take all places.
            assert!(in_all.div_ceil(2) + handshakes < in_all, "{budget:?}");
            // Each share is a whole number, so that one more for the others can be two connections less.
            assert!(connections + 3 >= last, "{limit} descriptors hold fewer than less of them");
            last = connections;
        }
        assert_eq!(last, 10_000);
    }

    #[test]
    fn health_checks_have_descriptors_of_their_own() {
        let clients = |health: &str| {
            let backends: Vec<String> = (1..=10).map(|port| format!("192.0.2.1:{port}")).collect();
            let text = format!(
                "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"mail\"\nmode = \"passthrough\"\n\
                 server_names = [\"mail.home.example\"]\nbackends = {backends:?}\n{health}\n"
            );
            let config = crate::config::parse(&text, std::path::Path::new("doorward.toml")).expect("a configuration");
            with(1024).budget(&config).expect("a budget").clients
        };
        // A client takes two.
        assert_eq!(clients("") - clients("health = {}"), 5);
    }

    #[test]
    fn warning_names_what_fits_and_what_is_needed() {
        let default = config("");
        assert_eq!(with(65_536).warning(&default), None);
        // Half of the default is plenty, half of a configured limit is not.
        assert_eq!(with(20_000).warning(&default), None);
        let asked = config("connections = 9999");
        let warning = with(20_000).warning(&asked).expect("a warning");
        let needed = with(20_000).needed(&asked, 9999);
        assert!(warning.contains("9999 connections do not fit the limit of 20000 open files"), "{warning}");
        assert!(warning.contains(&format!("raise the limit to {needed} or more")), "{warning}");
        assert_eq!(with(needed).warning(&asked), None);
        assert!(with(needed - 1).warning(&asked).is_some());
        for few in [64, 256, 1024] {
            assert!(with(few).warning(&default).is_some_and(|warning| warning.starts_with("limits.connections: ")));
        }
        assert_eq!(with(1024).warning(&config("connections = 300")), None);
        // A limit that was asked for is not lowered in silence.
        let handshakes = config("handshakes = 6000");
        let warning = with(20_000).warning(&handshakes).expect("a warning");
        assert!(warning.starts_with("limits.handshakes: ") && warning.contains("instead of 6000"), "{warning}");
        assert_eq!(with(65_536).warning(&handshakes), None);
    }

    #[test]
    fn too_few_descriptors_is_an_error_with_the_needed_limit() {
        let config = config("");
        let error = with(32).budget(&config).expect_err("that is nothing").to_string();
        let needed = with(32).needed(&config, CONNECTIONS_MIN);
        assert!(error.contains(&format!("is 32, and the gate needs at least {needed}")), "{error}");
        assert!(with(needed).budget(&config).is_ok() && with(needed - 1).budget(&config).is_err());
        // Descriptors inherited from the parent process cannot be used.
        assert!(Descriptors { limit: 256, held: 250 }.budget(&config).is_err());
    }
}
