//! `doorward check --connect`: the health checks of routes, each done once, as the gate does them.

use std::collections::HashMap;

use tokio::task::JoinSet;

use super::connect::Dialled;
use crate::backends::health::Failed;
use crate::backends::probe::probe;
use crate::backends::resolver::Resolver;
use crate::explain;
use crate::snapshot::Snapshot;

/// How many names are looked up at once.
const LOOK_UPS: usize = 8;

/// Why a health check failed.
struct Failure {
    why: String,
    /// It got no connection: dialling the backend has shown the same.
    is_dialling: bool,
}

/// Notes the result of its health check with each backend that has one. Returns warnings about those that fail, but for what
/// `dialled` warns of.
pub(super) fn check(snapshot: &Snapshot, dialled: &mut [Dialled]) -> Vec<String> {
    let mut results = checks(snapshot);
    for one in &mut *dialled {
        let result = results.get(&(one.route.clone(), one.backend.clone()));
        one.health = result.map(|result| match result {
            Ok(()) => "passes".to_owned(),
            Err(failure) => format!("fails: {}", failure.why),
        });
    }
    // One for each backend, in the order of the configuration, however many addresses it has.
    let failing = dialled.iter().filter_map(|one| {
        let failure = results.remove(&(one.route.clone(), one.backend.clone()))?.err()?;
        let same = |other: &Dialled| (&other.route, &other.backend) == (&one.route, &one.backend);
        let is_told = dialled.iter().any(|other| same(other) && other.warning.is_some());
        let warning =
            || format!("route {:?}: the health check of {} fails: it {}", one.route, one.backend, failure.why);
        (!failure.is_dialling || !is_told).then(warning)
    });
    failing.collect()
}

/// Does the health check of each backend that has one. By route and backend.
fn checks(snapshot: &Snapshot) -> HashMap<(String, String), Result<(), Failure>> {
    let checks = snapshot.in_order.iter().flat_map(|route| {
        let checks = route.backends.checks().iter().map(|checked| checked.check().clone());
        checks.map(|check| ((route.name.to_string(), check.backend.to_string()), check))
    });
    let checks: Vec<_> = checks.collect();
    if checks.is_empty() {
        return HashMap::new();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failed = || Failure { why: format!("was not checked: {error}"), is_dialling: false };
            return checks.into_iter().map(|(key, _)| (key, Err(failed()))).collect();
        }
    };
    let results = runtime.block_on(async {
        let (mut tasks, resolver) = (JoinSet::new(), Resolver::system(LOOK_UPS));
        for (key, check) in checks {
            let resolver = resolver.clone();
            tasks.spawn(async move { (key, probe(&check, &resolver).await) });
        }
        tasks.join_all().await
    });
    let told = |result: Result<(), Failed>| {
        result.map_err(|failed| match failed {
            Failed::Backend(failure) => {
                Failure { why: explain::check_failure(&failure), is_dialling: failure.is_dialling() }
            }
            Failed::Gate => {
                Failure { why: "was not checked: out of descriptors or memory".to_owned(), is_dialling: false }
            }
        })
    };
    results.into_iter().map(|(key, result)| (key, told(result))).collect()
}
