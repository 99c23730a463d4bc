#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::episode::{Call, Turn};
use crate::manifest::Stored;
use crate::samples::episodes;
use crate::suite::tests::toolcall_suite;

/// Makes a row that asks `query`, out of a real one.
fn row(query: &str, value: i64) -> Episode {
    let mut row = template().clone();
    row.query = query.to_owned();
    let arguments = serde_json::json!({ "a": value }).as_object().unwrap().clone();
    row.gold = Gold::Calls { calls: vec![Call { name: "f".to_owned(), arguments }] };
    row
}

fn template() -> &'static Episode {
    static ROW: std::sync::LazyLock<Episode> =
        std::sync::LazyLock::new(|| episodes("fledgling/toolcall/train.jsonl", 0).swap_remove(0).1);
    &ROW
}

fn even(salt: &str) -> SplitSpec {
    SplitSpec { salt: salt.to_owned(), dev_fraction: 0.5, ..SplitSpec::default() }
}

#[test]
fn seed_rows_split_as_the_demo_says() {
    let rows = episodes("fledgling/toolcall/train.jsonl", 10);
    let split = build_split(&SplitSpec::default(), &rows, &[toolcall_suite(10)]).unwrap();
    assert_eq!((split.n(Side::Train), split.n(Side::Dev)), (220, 30));
    let excluded: Vec<(String, u64)> =
        split.excluded_by_reason().into_iter().map(|c| (c.name, c.n)).collect();
    assert_eq!(excluded, [("in suite toolcall-teacher".to_owned(), 50)]);
    assert_eq!(split.licences, ["CC-BY-4.0"]);
    let kept_out = &split.suites[0];
    assert!(kept_out.leak.shared_questions.is_empty());
    assert_eq!((kept_out.n, kept_out.leak.max), (50, 2.0 / 3.0));
    assert_eq!(split.strata().iter().map(|count| count.n).sum::<u64>(), 250);
    assert_eq!(SplitManifest::from_stored(&split.to_stored()).unwrap(), split);
}

#[test]
fn salt_is_the_first_that_holds_out_thirty() {
    let rows = episodes("fledgling/toolcall/train.jsonl", 0);
    let asked: Vec<String> =
        toolcall_suite(0).cases.iter().map(|case| normalise_query(&case.query)).collect();
    let groups: Vec<String> =
        rows.iter().map(|(_, row)| row.group()).filter(|group| !asked.contains(group)).collect();
    let dev = |salt: &str| {
        let spec = SplitSpec { salt: salt.to_owned(), ..SplitSpec::default() };
        groups.iter().filter(|group| side_of(&spec, group) == Side::Dev).count()
    };
    let first = (0..).map(|n| format!("ledger-{n}")).find(|salt| dev(salt) == 30);
    assert_eq!(first, Some(SplitSpec::default().salt));
}

#[test]
fn identity_does_not_depend_on_event_numbers() {
    let split = |first: u64| {
        let rows = episodes("fledgling/toolcall/train.jsonl", first);
        build_split(&SplitSpec::default(), &rows, &[toolcall_suite(first)]).unwrap()
    };
    let (now, later) = (split(0), split(5000));
    assert_ne!(now, later);
    assert_eq!(now.identity(), later.identity());
    let mut other = now.clone();
    other.rows[0].side = if other.rows[0].side == Side::Dev { Side::Train } else { Side::Dev };
    assert_ne!(now.identity(), other.identity());
}

#[test]
fn near_duplicates_across_sides_are_left_out_and_the_earlier_stays() {
    let base = "please list all of the prime numbers that lie above one hundred and below";
    let spec = even("s");
    let asks = |n: u32| format!("{base} {n}");
    let first = row(&asks(200), 1);
    let side = side_of(&spec, &first.group());
    let other = (201..).map(asks).find(|query| side_of(&spec, query) != side).unwrap();
    let same = (201..).map(asks).find(|query| side_of(&spec, query) == side).unwrap();
    let far = (0..).map(|n| format!("add {n} and {n}")).find(|q| side_of(&spec, q) == Side::Train);
    let rows = [(3, first), (4, row(&other, 2)), (5, row(&same, 3)), (6, row(&far.unwrap(), 4))];
    let split = build_split(&spec, &rows, &[]).unwrap();
    assert_eq!(split.excluded.len(), 1);
    assert_eq!((split.excluded[0].seq, split.excluded[0].near_duplicate_of), (4, Some(3)));
}

#[test]
fn repetitions_and_rows_without_gold_are_left_out() {
    let (mut bare, first) = (row("what is it like", 1), row("where is it now", 1));
    bare.gold = Gold::None;
    let spec = SplitSpec { dev_fraction: 0.0, ..SplitSpec::default() };
    let rows = [(1, first.clone()), (2, bare), (3, first), (4, row("where is it now", 2))];
    let split = build_split(&spec, &rows, &[]).unwrap();
    let left_out: Vec<(u64, &str, Option<u64>)> = split
        .excluded
        .iter()
        .map(|row| (row.seq, row.reason.as_str(), row.near_duplicate_of))
        .collect();
    assert_eq!(left_out, [(2, "no gold", None), (3, "repeats an earlier row", Some(1))]);
    assert_eq!(split.n(Side::Train), 2);
}

#[test]
fn empty_and_senseless_splits_are_refused() {
    let spec = SplitSpec::default();
    assert!(matches!(build_split(&spec, &[], &[]), Err(SplitError::NoRows)));
    let suite = toolcall_suite(0);
    let only: Vec<(u64, Episode)> = episodes("fledgling/recorded/toolcall_azure.jsonl", 0);
    let error = build_split(&spec, &only, &[suite]).unwrap_err();
    assert!(error.to_string().contains("in suite toolcall-teacher: 50"), "{error}");
    for dev_fraction in [-0.1, 1.0, f64::NAN] {
        let spec = SplitSpec { dev_fraction, ..SplitSpec::default() };
        assert!(matches!(build_split(&spec, &only, &[]), Err(SplitError::Spec { .. })));
    }
    let near_duplicate = NearDuplicate { permutations: 0, ..NearDuplicate::default() };
    let spec = SplitSpec { near_duplicate, ..SplitSpec::default() };
    assert!(matches!(build_split(&spec, &only, &[]), Err(SplitError::Spec { .. })));
}

#[test]
fn a_manifest_that_overlaps_is_refused() {
    let rows = episodes("fledgling/toolcall/train.jsonl", 0);
    let mut split = build_split(&even("x"), &rows, &[]).unwrap();
    let mut twin = split.rows[0].clone();
    twin.side = if twin.side == Side::Dev { Side::Train } else { Side::Dev };
    split.rows.push(twin);
    assert!(matches!(verify(&split), Err(SplitError::Overlap { .. })));
    // A suite that was not kept out is seen by the check, too.
    let mut split = build_split(&even("x"), &rows, &[]).unwrap();
    let suite = toolcall_suite(0);
    let train: Vec<(u64, &Episode)> = rows.iter().map(|(seq, row)| (*seq, row)).collect();
    let leak = leakage(&train, &suite);
    split.suites.push(KeptOut { name: "t".to_owned(), suite: suite.identity(), n: 50, leak });
    assert!(matches!(verify(&split), Err(SplitError::Overlap { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sides_stay_when_rows_are_added(
        queries in prop::collection::vec("[a-e]( [a-e]{1,2}){3,9}", 2..24),
        cut in 1_usize..24, salt in "[a-z]{1,4}",
    ) {
        let made = queries.iter().map(|query| row(query, 1));
        let rows: Vec<(u64, Episode)> = (0..).zip(made).collect();
        let cut = cut.min(rows.len());
        let (spec, all) = (even(&salt), build_split(&even(&salt), &rows, &[]));
        let part = build_split(&spec, &rows[..cut], &[]);
        if let (Ok(all), Ok(part)) = (all, part) {
            // Earlier rows come out the same, whatever comes later.
            prop_assert_eq!(&all.rows[..part.rows.len()], &part.rows[..]);
            prop_assert_eq!(&all.excluded[..part.excluded.len()], &part.excluded[..]);
        }
    }

    #[test]
    fn no_question_stands_on_both_sides(
        queries in prop::collection::vec("[a-c]( [a-c]){1,4}[.?!]?", 2..24),
    ) {
        let rows: Vec<(u64, Episode)> =
            (0_i64..).zip(queries.iter()).map(|(n, query)| (n as u64, row(query, n))).collect();
        if let Ok(split) = build_split(&even("q"), &rows, &[]) {
            let train: BTreeSet<Digest> = split.side(Side::Train).map(|row| row.group).collect();
            prop_assert!(split.side(Side::Dev).all(|row| !train.contains(&row.group)));
            prop_assert_eq!(split.rows.len() + split.excluded.len(), rows.len());
        }
    }
}

#[test]
fn the_demos_split_keeps_its_identity() {
    let rows = episodes("fledgling/toolcall/train.jsonl", 10);
    let split = build_split(&SplitSpec::default(), &rows, &[toolcall_suite(10)]).unwrap();
    // As it was before specs knew `drop_near` and contexts were looked into.
    let known = "ab7fc3a0378d1b5c295e9ca62ec5d706ff0c4cf51a02a85c009ef1d9f646c17a";
    assert_eq!(split.identity().to_string(), known);
}

#[test]
fn a_row_that_shows_a_case_is_left_out() {
    let suite = toolcall_suite(1000);
    let mut rows = episodes("fledgling/toolcall/train.jsonl", 0);
    let asked: Vec<String> = suite.cases.iter().map(|case| normalise_query(&case.query)).collect();
    rows.retain(|(_, row)| !asked.contains(&row.group()));
    let case = suite.cases[2].clone();
    rows[1].1.turns.insert(0, Turn::text("system", format!("For example: {}", case.query)));
    let split = build_split(&SplitSpec::default(), &rows, std::slice::from_ref(&suite)).unwrap();
    let excluded: Vec<(u64, &str)> =
        split.excluded.iter().map(|row| (row.seq, row.reason.as_str())).collect();
    let wanted = "a case of suite toolcall-teacher stands in its prompt";
    assert_eq!(excluded, [(rows[1].0, wanted)]);
    assert_eq!(split.excluded[0].near_duplicate_of, Some(case.seq));
    assert!(split.suites[0].leak.in_context.is_empty());
    // A manifest that has such a row is refused, however it came about.
    let mut split = build_split(&SplitSpec::default(), &rows, &[]).unwrap();
    let train: Vec<(u64, &Episode)> = rows.iter().map(|(seq, row)| (*seq, row)).collect();
    let leak = leakage(&train, &suite);
    split.suites.push(KeptOut { name: "t".to_owned(), suite: suite.identity(), n: 50, leak });
    let error = verify(&split).unwrap_err();
    assert!(matches!(error, SplitError::Shows { seq, .. } if seq == rows[1].0), "{error}");
}

#[test]
fn near_duplicates_on_one_side_stay_unless_they_are_to_go() {
    let base = "please list all of the prime numbers that lie above one hundred and below";
    let rows: Vec<(u64, Episode)> =
        (0..4).map(|n| (n, row(&format!("{base} {n}"), 1))).chain([(9, row("add", 1))]).collect();
    let keep = SplitSpec { dev_fraction: 0.0, ..SplitSpec::default() };
    let drop = SplitSpec { drop_near: true, ..keep.clone() };
    assert_eq!(build_split(&keep, &rows, &[]).unwrap().n(Side::Train), 5);
    let split = build_split(&drop, &rows, &[]).unwrap();
    let left_out: Vec<(u64, &str, Option<u64>)> = split
        .excluded
        .iter()
        .map(|row| (row.seq, row.reason.as_str(), row.near_duplicate_of))
        .collect();
    let why = "near duplicate of an earlier row";
    assert_eq!(left_out, [(1, why, Some(0)), (2, why, Some(0)), (3, why, Some(0))]);
    // The field is not written where it says nothing, so that old specs keep their digests.
    let text = |spec: &SplitSpec| serde_json::to_string(spec).unwrap();
    assert!(!text(&keep).contains("drop_near") && text(&drop).contains("\"drop_near\":true"));
    assert_eq!(serde_json::from_str::<SplitSpec>(&text(&keep)).unwrap(), keep);
    assert_eq!(serde_json::from_str::<SplitSpec>(&text(&drop)).unwrap(), drop);
}

fn suite() -> &'static SuiteManifest {
    static SUITE: std::sync::LazyLock<SuiteManifest> =
        std::sync::LazyLock::new(|| toolcall_suite(100_000));
    &SUITE
}

/// Makes rows: with questions of the suite, near them, or around them, and with other ones.
fn mixed() -> impl Strategy<Value = Vec<(u64, Episode)>> {
    let one = (0_usize..5, 0_usize..50, "[a-d]( [a-d]{1,2}){4,11}", 0_i64..3);
    prop::collection::vec(one, 1..28).prop_map(|made| {
        let row_of = |(kind, case, own, value): (usize, usize, String, i64)| {
            let asked = &suite().cases[case].query;
            match kind {
                0 => row(&format!("{}?", asked.to_uppercase()), value),
                1 => row(&format!("{asked} {value}"), value),
                2 => {
                    let mut row = row(&own, value);
                    row.turns.insert(0, Turn::text("system", format!("Q: {asked}\nA: 7")));
                    row
                }
                _ => row(&own, value),
            }
        };
        (10..).step_by(10).zip(made.into_iter().map(row_of)).collect()
    })
}

/// Returns the shingles of each kept row with its side.
fn kept(split: &SplitManifest, rows: &[(u64, Episode)]) -> Vec<(Side, Shingles)> {
    let by_seq: BTreeMap<u64, &Episode> = rows.iter().map(|(seq, row)| (*seq, row)).collect();
    let shingles = |seq: u64| Shingles::of(&by_seq[&seq].group(), 3);
    split.rows.iter().map(|row| (row.side, shingles(row.seq))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_like_a_suite_and_nothing_on_both_sides(rows in mixed(), drop_near in any::<bool>()) {
        let spec = SplitSpec { drop_near, ..even("m") };
        let Ok(split) = build_split(&spec, &rows, std::slice::from_ref(suite())) else {
            return Ok(());
        };
        let sides = kept(&split, &rows);
        for (place, (side, one)) in sides.iter().enumerate() {
            for case in &suite().cases {
                let asked = Shingles::of(&normalise_query(&case.query), 3);
                prop_assert!(asked.similarity(one) < 0.7);
            }
            for (other_side, other) in &sides[place + 1..] {
                prop_assert!(one.similarity(other) < 0.7 || (side == other_side && !drop_near));
            }
        }
        // Looked for in another way than the builder does.
        let plain = |text: &str| -> String {
            let words = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
            format!(" {} ", words.map(str::to_lowercase).collect::<Vec<_>>().join(" "))
        };
        let seqs: BTreeSet<u64> = split.rows.iter().map(|row| row.seq).collect();
        for (_, row) in rows.iter().filter(|(seq, _)| seqs.contains(seq)) {
            for case in &suite().cases {
                let asked = plain(&case.query);
                let shows = row.turns.iter().any(|turn| plain(&turn.content).contains(&asked));
                prop_assert!(!shows, "{}", case.query);
            }
        }
        prop_assert_eq!(split.rows.len() + split.excluded.len(), rows.len());
    }

    #[test]
    fn order_of_input_does_not_matter(rows in mixed(), turn in 0_usize..28) {
        let split = |rows: &[(u64, Episode)]| {
            build_split(&even("o"), rows, std::slice::from_ref(suite())).ok()
        };
        let mut other = rows.clone();
        other.rotate_left(turn % rows.len());
        let half = rows.len() / 2;
        other[..half].reverse();
        prop_assert_eq!(split(&rows), split(&other));
    }

    #[test]
    fn sides_stay_when_rows_come_before_between_and_again(rows in mixed(), more in mixed()) {
        let spec = even("b");
        let Ok(before) = build_split(&spec, &rows, &[]) else { return Ok(()) };
        // New rows before, between and behind the old ones, and each old one once more.
        let mut all = rows.clone();
        all.extend(more.into_iter().map(|(seq, row)| (seq - 5, row)));
        all.extend(rows.iter().map(|(seq, row)| (seq + 1, row.clone())));
        let Ok(after) = build_split(&spec, &all, &[]) else { return Ok(()) };
        let sides = |split: &SplitManifest| -> BTreeMap<Digest, Side> {
            split.rows.iter().map(|row| (row.group, row.side)).collect()
        };
        let (before, after) = (sides(&before), sides(&after));
        for (group, side) in &before {
            prop_assert!(after.get(group).is_none_or(|now| now == side));
        }
        for (_, row) in &rows {
            let group = row.group();
            let known = after.get(&Digest::of(group.as_bytes()));
            prop_assert!(known.is_none_or(|side| *side == side_of(&spec, &group)));
        }
    }
}

/// Puts a row into a source under an id.
fn of_source(mut row: Episode, source: &str, id: &str) -> Episode {
    (row.source.name, row.source.external_id) = (source.to_owned(), id.to_owned());
    row
}

#[test]
fn sessions_are_told_by_ids() {
    let key = |format: &str, source: &str, id: &str| {
        let mut row = of_source(row("What is it?", 1), source, id);
        row.source.format = format.to_owned();
        group_key(&row)
    };
    assert_eq!(key("openai-messages", "s", "a#1"), key("openai-messages", "s", "a#22"));
    assert_eq!(key("openai-messages", "s", "a#1#1"), key("openai-messages", "s", "a#1#2"));
    assert_ne!(key("openai-messages", "s", "a#1"), key("openai-messages", "s", "b#1"));
    assert_ne!(key("openai-messages", "s", "a#1"), key("openai-messages", "t", "a#1"));
    assert_eq!(key("langfuse-export", "s", "t/1"), key("langfuse-export", "s", "t/2#1"));
    assert_ne!(key("langfuse-export", "s", "t/1"), key("langfuse-export", "s", "u/1"));
    // No session: the question, as ever.
    for (format, id) in [("openai-messages", "t/1"), ("langfuse-export", "t"), ("x", "#1")] {
        assert_eq!(key(format, "s", id), normalise_query("What is it?"), "{format} {id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_session_stands_on_both_sides(
        made in prop::collection::vec(("[a-e]( [a-e]{1,2}){2,7}", 0_u8..6, 0_u8..2), 2..28),
        cut in 1_usize..28, salt in "[a-z]{1,4}",
    ) {
        let row_of = |(n, (query, session, source)): (u64, &(String, u8, u8))| {
            // Every sixth has no session.
            let id = if *session == 0 { format!("{n}") } else { format!("c{session}#{n}") };
            (n, of_source(row(query, i64::try_from(n).unwrap()), &format!("s{source}"), &id))
        };
        let rows: Vec<(u64, Episode)> = (0..).zip(&made).map(row_of).collect();
        let spec = even(&salt);
        let Ok(all) = build_split(&spec, &rows, &[]) else { return Ok(()) };
        let session = |seq: u64| {
            let row = &rows[usize::try_from(seq).unwrap()].1;
            let (session, _) = row.source.external_id.rsplit_once('#')?;
            Some((row.source.name.clone(), session.to_owned()))
        };
        let mut sides = BTreeMap::new();
        for row in &all.rows {
            if let Some(session) = session(row.seq) {
                prop_assert_eq!(*sides.entry(session).or_insert(row.side), row.side);
            }
        }
        // Questions are on one side still, whatever their sessions.
        let kept = kept(&all, &rows);
        for (place, (side, one)) in kept.iter().enumerate() {
            for (other_side, other) in &kept[place + 1..] {
                prop_assert!(side == other_side || one.similarity(other) < 0.7);
            }
        }
        if let Ok(part) = build_split(&spec, &rows[..cut.min(rows.len())], &[]) {
            prop_assert_eq!(&all.rows[..part.rows.len()], &part.rows[..]);
        }
    }
}
