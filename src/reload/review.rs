//! Which revocation lists came into force with the last review of the open sessions, and what it has cut.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::checked::{Config, RouteMode};
use crate::model::identity::Sha256;

/// How long the cut sessions are remembered for a command that sends their list after the files were read.
const REMEMBERED: Duration = Duration::from_secs(30);

/// The last review with which revocation lists came into force.
#[derive(Debug, Default)]
pub(super) struct LastReview {
    in_force: HashSet<Sha256>,
    /// Those of them that were not in force before.
    new: HashSet<Sha256>,
    /// The sessions that were cut then, as long as no command was told of them.
    cut: Option<(usize, Instant)>,
}

impl LastReview {
    /// Under this configuration, so many sessions were cut.
    pub(super) fn done(&mut self, config: &Config, cut: usize) {
        let in_force = lists(config);
        let new: HashSet<Sha256> = in_force.difference(&self.in_force).copied().collect();
        self.in_force = in_force;
        if !new.is_empty() {
            (self.new, self.cut) = (new, Some((cut, Instant::now())));
        } else if let Some((before, _)) = &mut self.cut {
            *before += cut;
        }
    }

    /// How many sessions the list has cut when it came into force, for a command that sends it. They are told once.
    pub(super) fn told(&mut self, list: &Sha256) -> Option<usize> {
        let cut = self.new.contains(list).then(|| self.cut.take())?;
        cut.filter(|(_, at)| at.elapsed() < REMEMBERED).map(|(cut, _)| cut)
    }
}

fn lists(config: &Config) -> HashSet<Sha256> {
    let auths = config.served().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some(&terminate.client_auth),
        RouteMode::Passthrough => None,
    });
    auths.flat_map(|auth| auth.all_lists().map(|list| list.sha256)).collect()
}
