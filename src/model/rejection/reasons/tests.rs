use std::collections::HashSet;

use super::*;
use crate::model::rejection::testing::every_cause;

#[test]
fn stage_and_a_label_name_one_reason() {
    let mut seen = HashSet::new();
    for reason in Reason::ALL {
        assert!(seen.insert((reason.stage(), reason.label())), "{reason} stands twice");
    }
    assert!(Reason::ALL.is_sorted_by_key(|reason| reason.stage()), "not in the order of the journey");
}

#[test]
fn every_alert_has_its_registered_name() {
    for alert in Reason::ALL.iter().filter_map(|reason| reason.alert()) {
        assert!(alert.name().is_some(), "{}", alert.0);
    }
}

#[test]
fn every_cause_is_among_the_examples() {
    let debug = every_cause().iter().map(|cause| format!("{cause:?}")).collect::<Vec<_>>();
    let name = |debug: &str| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let names: HashSet<String> = debug.iter().map(|debug| name(debug)).collect();
    let expected: HashSet<String> = Cause::NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names, expected);
}

#[test]
fn every_reason_has_a_cause() {
    let reached: HashSet<Reason> = every_cause().iter().map(Cause::reason).collect();
    for reason in Reason::ALL {
        assert!(reached.contains(reason), "{reason} has none");
    }
}

#[test]
fn cause_stays_small() {
    assert!(size_of::<Cause>() <= 40, "{} bytes", size_of::<Cause>());
}
