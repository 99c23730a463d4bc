#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::samples::episodes;

fn shingles(text: &str) -> Shingles {
    Shingles::of(text, 3)
}

#[test]
fn similarity_is_jaccard_over_runs_of_three_words() {
    let left = shingles("find the missing number in the list [0, 1, 2, 3, 5]");
    let right = shingles("find the missing number in the list [0, 1, 2, 4, 5]");
    assert_eq!(left.similarity(&right), 2.0 / 3.0);
    assert_eq!(left.similarity(&left), 1.0);
    assert_eq!(shingles("hi there").similarity(&shingles("hi there")), 1.0);
    assert_eq!(shingles("").similarity(&shingles("")), 0.0);
}

#[test]
fn earliest_near_duplicate_is_found() {
    let base = "please list the first ten prime numbers above one hundred for my class";
    let probe = format!("{base} now");
    let far = "nothing like it at all";
    let sets = ["what is the weather in oslo today", base, base, &probe, far, ""].map(shingles);
    let order = Order::of(&sets);
    let mut index = Index::new(NearDuplicate::default(), &order);
    let ranks = sets.each_ref().map(|set| order.ranks(set));
    (0..3).for_each(|place| index.insert(place, ranks[place].clone()));
    let (key, similarity) = index.earliest(&ranks[3]).unwrap();
    assert_eq!((key, similarity), (1, 11.0 / 12.0));
    assert!(index.earliest(&ranks[4]).is_none());
    assert!(index.earliest(&ranks[5]).is_none(), "an empty query is like nothing");
}

#[test]
fn scripts_without_spaces_are_cut_into_letters() {
    let near = |left: &str, right: &str| {
        let found = earliest_near([left, right], &NearDuplicate::default());
        found[1].is_some()
    };
    assert!(near("请问明天北京的天气怎么样呢谢谢你们", "请问明天北京的天气怎么样呢谢谢您们"));
    assert!(near(
        "明日の東京の天気を教えてくださいお願いします",
        "明日の東京の天気を教えてくださいお願いしますね"
    ));
    assert!(near(
        "내일 서울의 날씨를 알려 주세요 부탁합니다",
        "내일 서울의 날씨를 알려 주세요 부탁합니다요"
    ));
    assert!(!near("请问明天北京的天气怎么样呢", "帮我订一张去上海的火车票"));
    let mut words = Vec::new();
    push_words("Tokyoの天気2024", &mut words);
    assert_eq!(words, ["Tokyo", "の", "天", "気", "2024"]);
    // Other texts keep their shingles bit for bit.
    for text in ["what is the weather in oslo", "größer als é ñ ß жил", "מה מזג האוויר היום"]
    {
        let words: Vec<&str> = text.split(' ').collect();
        let mut hashes: Vec<u64> = words.windows(3).map(hash_of_run).collect();
        hashes.sort_unstable();
        assert_eq!(shingles(text).hashes(), hashes, "{text}");
    }
}

#[test]
fn thousands_of_equal_queries_cost_no_more_than_one() {
    let same = "please list the first ten prime numbers above one hundred for my class";
    let sets = vec![shingles(same); 20_000];
    let order = Order::of(&sets);
    let mut index = Index::new(NearDuplicate::default(), &order);
    for (place, set) in sets.iter().enumerate() {
        let ranks = order.ranks(set);
        assert_eq!(index.earliest(&ranks), (place > 0).then_some((0, 1.0)));
        index.insert(place, ranks);
    }
    assert_eq!((index.entries.len(), index.compared.get()), (1, 19_999));
}

#[test]
fn queries_of_one_template_are_told_apart_by_their_rare_words() {
    let text =
        |n: usize| format!("book a table for two in the town of t{n} and tell me what it costs us");
    let sets: Vec<Shingles> = (0..5_000).map(|n| shingles(&text(n))).collect();
    // Each is like the others at 12 of 18 shingles, just too few: none of them is compared.
    assert_eq!(sets[0].similarity(&sets[1]), 12.0 / 18.0);
    let order = Order::of(&sets);
    let mut index = Index::new(NearDuplicate::default(), &order);
    for (place, set) in sets.iter().enumerate() {
        let ranks = order.ranks(set);
        assert_eq!(index.earliest(&ranks), None);
        index.insert(place, ranks);
    }
    assert_eq!((index.entries.len(), index.compared.get()), (5_000, 0));
}

/// Returns what looking at all earlier entries finds.
fn exhaustive(sets: &[Shingles], place: usize, threshold: f64) -> Option<(usize, f64)> {
    let found = sets[..place].iter().enumerate();
    found.map(|(n, set)| (n, sets[place].similarity(set))).find(|(_, s)| *s >= threshold)
}

#[test]
fn real_queries_have_the_pairs_that_looking_at_all_of_them_finds() {
    let files = ["toolcall/train", "toolcall/eval100", "structured/train", "structured/eval100"];
    let mut queries: Vec<String> = Vec::new();
    for file in files {
        let rows = episodes(&format!("fledgling/{file}.jsonl"), 0);
        queries.extend(rows.iter().map(|(_, row)| row.group()));
    }
    let sets: Vec<Shingles> = queries.iter().map(|query| shingles(query)).collect();
    let order = Order::of(&sets);
    for threshold in [0.2, 0.35, 0.6, 2.0 / 3.0, 0.7, 1.0] {
        let rule = NearDuplicate { threshold, ..NearDuplicate::default() };
        let mut index = Index::new(rule, &order);
        let mut pairs = 0;
        for place in 0..sets.len() {
            let ranks = order.ranks(&sets[place]);
            let wanted = exhaustive(&sets, place, threshold);
            assert_eq!(index.earliest(&ranks), wanted, "{threshold} {place}");
            pairs += usize::from(wanted.is_some());
            index.insert(place, ranks);
        }
        assert!(pairs >= 500, "each question stands there twice at least: {pairs}");
    }
}

#[test]
fn duplicates_are_counted_by_source() {
    let mut rows: Vec<Episode> =
        episodes("fledgling/toolcall/train.jsonl", 0).into_iter().map(|(_, row)| row).collect();
    rows.truncate(20);
    let (mut again, mut asked, mut near) = (rows[3].clone(), rows[4].clone(), rows[5].clone());
    for row in [&mut again, &mut asked, &mut near] {
        row.source.name = "copies".to_owned();
    }
    asked.gold = crate::episode::Gold::NoCall;
    near.query = format!("{} and also one two three four five six", near.query);
    let long = "and do so for each of the nineteen months that have passed since it was built";
    let mut longer = rows[6].clone();
    longer.query = format!("{} {long} {long}s", longer.query);
    let mut longest = longer.clone();
    longest.query.push_str(" please");
    rows.extend([again, asked, near, longer, longest]);
    let counts = duplicates_by_source(&rows, &NearDuplicate::default());
    let source = rows[0].source.name.clone();
    let near = Shingles::of(&rows[22].group(), 3).similarity(&Shingles::of(&rows[5].group(), 3));
    let wanted = [
        SourceDuplicates {
            source: "copies".to_owned(),
            rows: 3,
            exact: 1,
            near: 1 + u64::from(near >= 0.7),
        },
        SourceDuplicates { source, rows: 22, exact: 0, near: 1 },
    ];
    assert_eq!(counts, wanted);
    assert!(duplicates_by_source([], &NearDuplicate::default()).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_pair_above_the_threshold_is_missed_and_none_below_is_found(
        texts in prop::collection::vec("[ab]( [a-c]{1,2}){0,14}", 1..24),
        threshold in prop::sample::select(vec![0.1, 0.3, 0.5, 0.7, 0.75, 0.8, 0.9, 1.0]),
    ) {
        let sets: Vec<Shingles> = texts.iter().map(|text| shingles(text)).collect();
        let order = Order::of(&sets);
        let rule = NearDuplicate { threshold, ..NearDuplicate::default() };
        let mut index = Index::new(rule, &order);
        for place in 0..sets.len() {
            let ranks = order.ranks(&sets[place]);
            prop_assert_eq!(index.earliest(&ranks), exhaustive(&sets, place, threshold));
            index.insert(place, ranks);
        }
    }

    #[test]
    fn one_changed_word_is_judged_by_similarity_alone(
        words in prop::collection::vec("[a-f]{1,3}", 6..40),
        at in 0_usize..40,
        new in "[g-k]{2}",
    ) {
        let mut changed = words.clone();
        let place = at % changed.len();
        changed[place] = new;
        let (left, right) = (words.join(" "), changed.join(" "));
        let similar = shingles(&left).similarity(&shingles(&right)) >= 0.7;
        let sets = [shingles(&left), shingles(&right)];
        let order = Order::of(&sets);
        let mut index = Index::new(NearDuplicate::default(), &order);
        index.insert((), order.ranks(&sets[0]));
        prop_assert_eq!(index.earliest(&order.ranks(&sets[1])).is_some(), similar);
    }
}
