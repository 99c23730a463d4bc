//! Refuses to compare what was not asked the same, and names what differs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Arm, ReportError, ReportInput};

/// Most case ids that a message lists.
const LISTED_MAX: usize = 5;

/// Checks that every arm answered the whole of one suite under one scorer.
pub(super) fn check(input: &ReportInput) -> Result<(), ReportError> {
    let first = input.arms.first().ok_or(ReportError::NoArms)?;
    if input.suite.n == 0 {
        return Err(ReportError::NoCases { suite: input.suite.name.clone() });
    }
    let mut labels = BTreeSet::new();
    for arm in &input.arms {
        if !labels.insert(arm.label.as_str()) {
            return Err(ReportError::LabelTwice { label: arm.label.clone() });
        }
        same_identity(input, arm)?;
        whole(input, arm)?;
        same_cases(first, arm)?;
    }
    Ok(())
}

fn same_identity(input: &ReportInput, arm: &Arm) -> Result<(), ReportError> {
    let differs = |what: &'static str, found: String, wanted: String| ReportError::Differs {
        what,
        arm: arm.label.clone(),
        found,
        than: format!("suite {}", input.suite.name),
        wanted,
    };
    if arm.suite != input.suite.digest {
        return Err(differs("suite", arm.suite.short(), input.suite.digest.short()));
    }
    if arm.scorer != input.suite.scorer {
        return Err(differs("scorer", arm.scorer.short(), input.suite.scorer.short()));
    }
    for case in &arm.cases {
        let facts = &case.facts;
        if facts.suite != arm.suite || facts.scorer != arm.scorer {
            let (what, found, wanted) = if facts.suite == arm.suite {
                ("scorer of a case", facts.scorer, arm.scorer)
            } else {
                ("suite of a case", facts.suite, arm.suite)
            };
            return Err(differs(what, found.short(), wanted.short()));
        }
        if facts.deployment != arm.deployment_id {
            let (found, wanted) = (facts.deployment.short(), arm.deployment_id.short());
            return Err(differs("deployment of a case", found, wanted));
        }
    }
    Ok(())
}

fn whole(input: &ReportInput, arm: &Arm) -> Result<(), ReportError> {
    let ids: BTreeSet<&str> = arm.cases.iter().map(|case| case.facts.case.as_str()).collect();
    if ids.len() != arm.cases.len() {
        return Err(ReportError::CaseTwice { arm: arm.label.clone() });
    }
    if arm.cases.len() as u64 == input.suite.n {
        return Ok(());
    }
    let everywhere: BTreeSet<&str> =
        input.arms.iter().flat_map(|arm| &arm.cases).map(|case| case.facts.case.as_str()).collect();
    Err(ReportError::Incomplete {
        arm: arm.label.clone(),
        have: arm.cases.len() as u64,
        n: input.suite.n,
        missing: list(everywhere.difference(&ids)),
    })
}

fn same_cases(first: &Arm, arm: &Arm) -> Result<(), ReportError> {
    let strata = |arm: &Arm| -> BTreeMap<String, (String, String)> {
        let of = |case: &super::ScoredCase| (case.facts.stratum.clone(), case.facts.tool.clone());
        arm.cases.iter().map(|case| (case.facts.case.clone(), of(case))).collect()
    };
    let (wanted, found) = (strata(first), strata(arm));
    if wanted == found {
        return Ok(());
    }
    let only = |in_: &BTreeMap<_, _>, not_in: &BTreeMap<String, _>| {
        list(in_.keys().filter(|id: &&String| !not_in.contains_key(*id)))
    };
    let (missing, added) = (only(&wanted, &found), only(&found, &wanted));
    let (what, found, wanted) = if missing.is_empty() && added.is_empty() {
        let changed = wanted.iter().filter(|(id, of)| found.get(*id) != Some(*of));
        let ids = list(changed.map(|(id, _)| id));
        ("stratum or tool of cases", format!("others for {ids}"), "the first arm's".to_owned())
    } else {
        ("case ids", added, missing)
    };
    Err(ReportError::Differs {
        what,
        arm: arm.label.clone(),
        found,
        than: format!("arm {}", first.label),
        wanted,
    })
}

fn list<T: AsRef<str>>(ids: impl Iterator<Item = T>) -> String {
    let mut ids = ids.map(|id| id.as_ref().to_owned());
    let mut shown: Vec<String> = ids.by_ref().take(LISTED_MAX).collect();
    let more = ids.count();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}
