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

/// Notes the result of its health check with each backend that has one. Returns warnings about those that fail.
pub(super) fn check(snapshot: &Snapshot, dialled: &mut [Dialled]) -> Vec<String> {
    let mut results = checks(snapshot);
    for one in &mut *dialled {
        let result = results.get(&(one.route.clone(), one.backend.clone()));
        one.health = result.map(|result| match result {
            Ok(()) => "passes".to_owned(),
            Err(why) => format!("fails: {why}"),
        });
    }
    // One for each backend, in the order of the configuration, however many addresses it has.
    let failing = dialled.iter().filter_map(|one| {
        let why = results.remove(&(one.route.clone(), one.backend.clone()))?.err()?;
        Some(format!("route {:?}: the health check of {} fails: it {why}", one.route, one.backend))
    });
    failing.collect()
}

/// Does the health check of each backend that has one. By route and backend: `Ok` if it passes, else why it fails.
fn checks(snapshot: &Snapshot) -> HashMap<(String, String), Result<(), String>> {
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
            let why = format!("was not checked: {error}");
            return checks.into_iter().map(|(key, _)| (key, Err(why.clone()))).collect();
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
    let told = |result: Result<(), Failed>| match result {
        Ok(()) => Ok(()),
        Err(Failed::Backend(failure)) => Err(explain::check_failure(&failure)),
        Err(Failed::Gate) => Err("was not checked: out of descriptors or memory".to_owned()),
    };
    results.into_iter().map(|(key, result)| (key, told(result))).collect()
}
