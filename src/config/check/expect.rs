//! `[[expect]]`: asserted policy. Whether it holds is asked where the gate's policy is.

use super::access::{self, Groups};
use crate::config::checked::{Expectation, ExpectedClients};
use crate::config::raw::{RawExpectation, RawRoute};
use crate::config::report::{Given, Report, quoted};
use crate::config::suggest;
use crate::model::names::Name;

/// Checks every entry against the groups and the names of the routes.
pub(super) fn check(
    raw: &[RawExpectation],
    routes: &[RawRoute],
    groups: &Groups,
    report: &mut Report,
) -> Vec<Expectation> {
    let routes: Vec<&str> =
        routes.iter().filter_map(|route| route.name.value()).map(|name| name.value.as_str()).collect();
    raw.iter().filter_map(|raw| one(raw, &routes, groups, report)).collect()
}

fn one(raw: &RawExpectation, routes: &[&str], groups: &Groups, report: &mut Report) -> Option<Expectation> {
    let clients = clients(raw, groups, report);
    let route = route(raw, routes, report);
    let allowed = match &raw.allowed {
        Given::Value(allowed) => Some(allowed.value),
        Given::Refused => None,
        Given::Absent => {
            report.error(
                &raw.place.child("allowed"),
                "\"allowed\" is missing, so it is not known what is expected",
                "add the line allowed = false if the route must refuse the device, or allowed = true if it must admit it",
            );
            None
        }
    };
    let (line, key) = (raw.place.line, raw.place.key.clone());
    Some(Expectation { line, key, clients: clients?, route: route?, allowed: allowed? })
}

fn clients(raw: &RawExpectation, groups: &Groups, report: &mut Report) -> Option<ExpectedClients> {
    match (&raw.device, &raw.group) {
        (Given::Refused, _) | (_, Given::Refused) => None,
        (Given::Absent, Given::Absent) => {
            report.error(
                &raw.place.child("device"),
                "neither \"device\" nor \"group\" is there, so it is not known whose access is meant",
                "add a line: device = \"alice-phone\", or group = \"family\"",
            );
            None
        }
        (Given::Value(_), Given::Value(group)) => {
            report.error(
                &group.place,
                "\"device\" and \"group\" are both there, and an entry is about one of them",
                "remove one of the two lines, and write another [[expect]] for it",
            );
            None
        }
        (Given::Value(device), Given::Absent) => {
            if groups.members(&device.value).is_some() {
                report.error(
                    &device.place,
                    format!("{} is a group, not a device", quoted(&device.value)),
                    format!("write group = {} instead of this line", quoted(&device.value)),
                );
                return None;
            }
            match device.value.as_str() {
                "any" => Some(ExpectedClients::Any),
                "unverified" => Some(ExpectedClients::Unverified),
                word => report.taken(&device.place, access::selector(word)).map(ExpectedClients::Device),
            }
        }
        (Given::Absent, Given::Value(group)) => match groups.members(&group.value) {
            // One with a wrong member has been reported.
            Some(members) => Some(ExpectedClients::Group { name: group.value.clone(), members: members?.to_vec() }),
            None => {
                let known: Vec<&str> = groups.names().collect();
                let meant =
                    suggest::nearest(&group.value, &known).map(|name| format!("did you mean {}? ", quoted(name)));
                report.error(
                    &group.place,
                    format!("there is no group {}", quoted(&group.value)),
                    format!(
                        "{}name one of [groups]; for a device, write device = {}",
                        meant.unwrap_or_default(),
                        quoted(&group.value)
                    ),
                );
                None
            }
        },
    }
}

fn route(raw: &RawExpectation, routes: &[&str], report: &mut Report) -> Option<Name> {
    let route = match &raw.route {
        Given::Refused => return None,
        Given::Value(route) => route,
        Given::Absent => {
            report.error(
                &raw.place.child("route"),
                "\"route\" is missing, so it is not known which access is meant",
                "add a line with the name of a route: route = \"nas\"",
            );
            return None;
        }
    };
    if let Some(name) = routes.iter().find(|name| **name == route.value) {
        // The name itself is checked where the route is.
        return Name::parse(name).ok();
    }
    let meant = suggest::nearest(&route.value, routes).map(|name| format!("did you mean {}? ", quoted(name)));
    report.error(
        &route.place,
        format!("there is no route with the name {}", quoted(&route.value)),
        format!("{}the routes are: {}", meant.unwrap_or_default(), routes.join(", ")),
    );
    None
}
