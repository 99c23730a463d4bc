#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::report::tests::{N, Outcome, SINGLE, arm, first, input, report, teacher};
use crate::report::{Arm, build_report};

fn shipped(name: &str) -> Policy {
    Policy::parse(Policy::shipped(name).unwrap()).unwrap()
}

fn policy(rules: &str) -> Policy {
    let head = "schema = 1\nname = \"p\"\nalias = \"a\"\n";
    Policy::parse(&format!("{head}{rules}")).unwrap()
}

fn refused(text: &str) -> String {
    Policy::parse(text).unwrap_err().to_string()
}

/// All arms that the shipped policies ask for, around the candidate.
fn arms(candidate: &[Outcome]) -> Vec<Arm> {
    let silent = vec![Outcome::Silent; N];
    let mut prefixed = silent.clone();
    prefixed[..6].fill(Outcome::Buried);
    vec![
        arm("base", &silent),
        arm("base+cep", &prefixed),
        arm("adapter", candidate),
        arm("teacher", &teacher()),
    ]
}

fn verdicts(decision: &Decision) -> Vec<(&str, Verdict)> {
    decision.rules.iter().map(|rule| (rule.rule.as_str(), rule.verdict)).collect()
}

#[test]
fn a_good_student_passes_canary_and_leaves_champion_open() {
    // Three single-call questions more than the teacher's five are missed.
    let student = [first(16, SINGLE), first(12, N - SINGLE)].concat();
    let report = build_report(input(arms(&student))).unwrap();
    let canary = decide(&shipped("canary"), &report, "adapter");
    assert_eq!(canary.verdict, Verdict::Pass, "{:#?}", canary.rules);
    let beats = &canary.rules[1];
    assert_eq!(beats.numbers["against"], "base+cep", "the better of the two is compared with");
    assert_eq!(beats.numbers["candidate_only"], 22);
    assert_eq!(beats.numbers["other_only"], 0);
    let champion = decide(&shipped("champion"), &report, "adapter");
    assert_eq!(champion.verdict, Verdict::Inconclusive);
    let within = champion.rules.last().unwrap();
    assert_eq!(within.rule, "within-ten-points-of-teacher");
    assert_eq!(within.numbers["n"], SINGLE as u64, "the teacher is met on single calls only");
    let more = within.numbers["more_cases"].as_u64().unwrap();
    assert!(more > 0 && within.says.contains(&format!("about {more} more")), "{}", within.says);
}

#[test]
fn a_bad_student_fails() {
    let mut student = [first(4, SINGLE), first(2, N - SINGLE)].concat();
    student[40..].fill(Outcome::Silent);
    let report = build_report(input(arms(&student))).unwrap();
    let champion = decide(&shipped("champion"), &report, "adapter");
    assert_eq!(
        verdicts(&champion),
        [
            (ADMISSIBLE, Verdict::Pass),
            ("beats-base", Verdict::Inconclusive),
            ("valid-call", Verdict::Fail),
            ("not-worse-than-teacher", Verdict::Fail),
            ("within-ten-points-of-teacher", Verdict::Fail),
        ]
    );
    assert_eq!(champion.verdict, Verdict::Fail);
}

#[test]
fn the_shipped_policies_ask_what_they_say() {
    let asks = |name: &str| shipped(name).rules.iter().map(Rule::to_string).collect::<Vec<_>>();
    let canary = asks("canary");
    assert_eq!(
        canary,
        [
            "Does exact (lenient, all) beat the better of base and base+cep, \
             exact McNemar p < 0.01?",
            "Is valid (strict, all) at least 0.9?",
            "Is exact (lenient, single-call) not shown to be worse than teacher \
             (exact McNemar p < 0.05)?",
        ]
    );
    let champion = asks("champion");
    assert_eq!(champion[..3], canary[..], "champion asks all that canary asks");
    assert_eq!(
        champion[3],
        "Is exact (lenient, single-call) shown to be at most 0.1 worse than teacher \
         (90 % interval)?"
    );
    for name in Policy::shipped_names() {
        assert_eq!((shipped(name).name.as_str(), shipped(name).alias.as_str()), (name, name));
    }
}

#[test]
fn what_the_report_does_not_hold_is_invalid() {
    let report = report();
    for (what, rules) in [
        ("no metric args_f1", threshold("args_f1", "all")),
        ("no metric micro_f2", threshold("micro_f2", "all")),
        ("no cases in stratum multi-turn", threshold("exact", "multi-turn")),
        ("no arm base+cep", superiority("[\"base\", \"base+cep\"]")),
        ("cannot be compared with itself", superiority("[\"adapter\"]")),
    ] {
        let decision = decide(&policy(&rules), &report, "adapter");
        assert_eq!(decision.verdict, Verdict::Invalid, "{what}");
        assert!(decision.rules[1].says.contains(what), "{}", decision.rules[1].says);
    }
    let paired = superiority("[\"base\"]").replace("\"exact\"", "\"micro_f1\"");
    let decision = decide(&policy(&paired), &report, "adapter");
    assert!(decision.rules[1].says.contains("not one of exact, name, valid"));
    let nobody = decide(&policy(&threshold("exact", "all")), &report, "nobody");
    assert_eq!(verdicts(&nobody)[0], (ADMISSIBLE, Verdict::Invalid));
}

fn threshold(metric: &str, stratum: &str) -> String {
    format!(
        "[[rule]]\nname = \"r\"\nkind = \"threshold\"\nmetric = \"{metric}\"\n\
         reading = \"strict\"\nstratum = \"{stratum}\"\nat_least = 0.5\n"
    )
}

fn superiority(against: &str) -> String {
    format!(
        "[[rule]]\nname = \"r\"\nkind = \"superiority\"\nmetric = \"exact\"\nreading = \"strict\"\n\
         stratum = \"all\"\nagainst = {against}\nalpha = 0.01\n"
    )
}

#[test]
fn a_candidate_that_saw_the_questions_is_invalid() {
    let mut arms = arms(&first(50, N));
    arms[2].leaked_questions = 50;
    let report = build_report(input(arms)).unwrap();
    let decision = decide(&shipped("canary"), &report, "adapter");
    assert_eq!(decision.verdict, Verdict::Invalid);
    assert!(decision.rules[0].says.contains("50 of the suite's 50 questions"));
}

#[test]
fn a_recorded_arm_cannot_be_a_candidate() {
    let decision = decide(&policy(&threshold("exact", "all")), &report(), "teacher");
    assert_eq!(
        verdicts(&decision),
        [(ADMISSIBLE, Verdict::Invalid), ("r", Verdict::Pass)],
        "its figures stand, but nobody could serve it"
    );
}

#[test]
fn a_threshold_shows_its_interval_and_takes_its_bound() {
    let decision = decide(&policy(&threshold("exact", "all")), &report(), "adapter");
    let rule = &decision.rules[1];
    assert_eq!(rule.verdict, Verdict::Pass);
    assert_eq!(rule.numbers["value"], 0.6);
    assert!(
        rule.says.contains("0.600 (30 of 50) reaches 0.5, 95 % interval 0.462"),
        "{}",
        rule.says
    );
    let exactly = threshold("exact", "all").replace("0.5", "0.6");
    assert_eq!(decide(&policy(&exactly), &report(), "adapter").verdict, Verdict::Pass);
    let above = threshold("micro_f1", "all").replace("0.5", "0.99");
    assert_eq!(decide(&policy(&above), &report(), "adapter").verdict, Verdict::Fail);
}

#[test]
fn superiority_needs_its_direction() {
    let student = first(1, N);
    let report = build_report(input(arms(&student))).unwrap();
    let against = |label: &str| {
        let rules = superiority(&format!("[\"{label}\"]"));
        decide(&policy(&rules), &report, "adapter").rules[1].clone()
    };
    assert_eq!(against("teacher").verdict, Verdict::Fail, "a small p in the wrong direction");
    let open = against("base");
    assert_eq!(open.verdict, Verdict::Inconclusive);
    assert!(open.numbers["more_cases"].as_u64().unwrap() > 50, "{}", open.says);
}

#[test]
fn better_is_not_worse() {
    let report = build_report(input(arms(&first(50, N)))).unwrap();
    let decision = decide(&shipped("champion"), &report, "adapter");
    assert_eq!(decision.verdict, Verdict::Pass, "{:#?}", decision.rules);
    let rules = "[[rule]]\nname = \"r\"\nkind = \"not_worse\"\nmetric = \"exact\"\n\
                 reading = \"strict\"\nstratum = \"all\"\nagainst = \"teacher\"\nalpha = 0.05\n";
    let decision = decide(&policy(rules), &report, "adapter");
    let rule = &decision.rules[1];
    assert!(rule.numbers["p_two_sided"].as_f64().unwrap() < 0.05, "{}", rule.says);
    assert_eq!(rule.verdict, Verdict::Pass, "a small p in the right direction");
}

#[test]
fn the_worst_verdict_counts() {
    use Verdict::{Fail, Inconclusive, Invalid, Pass};
    assert_eq!(worst([Pass, Fail, Invalid, Inconclusive].into_iter()), Invalid);
    assert_eq!(worst([Pass, Fail, Inconclusive].into_iter()), Fail);
    assert_eq!(worst([Pass, Inconclusive].into_iter()), Inconclusive);
    assert_eq!(worst([Pass].into_iter()), Pass);
    assert_eq!(worst([].into_iter()), Invalid, "nothing asked is nothing shown");
}

#[test]
fn a_wrong_policy_is_refused() {
    let head = "schema = 1\nname = \"p\"\nalias = \"a\"\n";
    let rule = threshold("exact", "all");
    assert!(refused(&format!("{head}{rule}at_leest = 3\n")).contains("at_leest"));
    assert!(refused(&format!("{head}colour = 3\n{rule}")).contains("colour"));
    let magic = rule.replace("threshold", "magic");
    assert!(refused(&format!("{head}{magic}")).contains("magic"));
    assert!(refused(&format!("{head}{rule}{rule}")).contains("another rule has this name"));
    assert!(refused(&format!("{head}rule = []\n")).contains("no rules"));
    let newer = head.replace("schema = 1", "schema = 2");
    assert!(refused(&format!("{newer}{rule}")).contains("schema 2"));
    let alpha = superiority("[\"base\"]").replace("0.01", "1.5");
    assert!(refused(&format!("{head}{alpha}")).contains("alpha"));
    let nobody = superiority("[]");
    assert!(refused(&format!("{head}{nobody}")).contains("against is empty"));
    assert!(!refused("schema = ").contains('\n'));
}
