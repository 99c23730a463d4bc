#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn numbers_keep_their_order() {
    let numbers = [f64::MIN, -1.5, -0.0, 0.0, f64::MIN_POSITIVE, 0.5, 1.0, f64::MAX];
    assert!(numbers.windows(2).all(|two| ascending(two[0]) <= ascending(two[1])));
    assert!(ascending(-1.5) < ascending(-1.0) && ascending(0.25) < ascending(0.5));
    // None of them looks like a number that is missing.
    assert!(numbers.iter().all(|n| ascending(*n) > 0 && !ascending(*n) > 0));
}

#[test]
fn the_first_are_kept_in_any_order_of_offers() {
    let mut offered: Vec<Place> =
        (0..5_000).map(|seq| Place::new(seq * 7_919 % 100, seq)).collect();
    let first = |offered: &[Place], wanted| {
        let mut first = First { wanted, kept: Vec::new(), least: None };
        offered.iter().for_each(|place| first.offer(*place));
        first.finish()
    };
    let mut sorted = offered.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    for wanted in [0, 1, 20, 600, 5_000, 9_999] {
        let expected = sorted.get(..wanted.min(5_000)).unwrap();
        assert_eq!(first(&offered, wanted), expected);
        offered.reverse();
        assert_eq!(first(&offered, wanted), expected);
    }
    assert_eq!((sorted[0].key(), sorted[0].score(Sort::Newest)), (99, 0.0));
    assert!(sorted[0].seq() < sorted[1].seq(), "ties are broken by event");
}

#[test]
fn rare_words_short_documents_and_repetition_count_more() {
    let (rare, common) = (Marks::new(1, 1_000), Marks::new(900, 1_000));
    assert!(rare.of(1, 10) > common.of(1, 10));
    assert!(rare.of(1, 5) > rare.of(1, 60));
    assert!(rare.of(2, 10) > rare.of(1, 10));
    // Beyond the table it goes on as in it.
    assert_eq!(rare.of(3, 10), rare.compute(3, 10));
    assert!(rare.of(100_000, 10) > rare.of(50, 10) || rare.of(100_000, 10) >= rare.of(7, 10));
    assert_eq!(Marks::new(0, 0).of(0, 0), 0);
}
