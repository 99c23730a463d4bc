#![allow(clippy::unwrap_used)]

use tantivy::tokenizer::TextAnalyzer;

use super::*;

/// Cuts `text` and gives each token with its place and what it was made of.
fn tokens(mut analyzer: TextAnalyzer, text: &str) -> Vec<(usize, String, &str)> {
    let mut found = Vec::new();
    analyzer.token_stream(text).process(&mut |token| {
        let made_of = text.get(token.offset_from..token.offset_to).unwrap();
        found.push((token.position, token.text.clone(), made_of));
    });
    found
}

fn words(text: &str) -> Vec<String> {
    tokens(of_queries(), text).into_iter().map(|(_, word, _)| word).collect()
}

#[test]
fn words_are_lower_case_without_accents() {
    assert_eq!(
        words("Weather in Zürich, TODAY: get_weather(12.5)"),
        ["weather", "in", "zurich", "today", "get", "weather", "12", "5"]
    );
    assert_eq!(words("Straße ÆON İstanbul Ångström"), ["strasse", "aeon", "istanbul", "angstrom"]);
    assert_eq!(words("Ёлка Йод ΑΘΉΝΑ λόγος"), ["елка", "иод", "αθηνα", "λογοσ"]);
    assert!(words(" .,;:!?-–—\"'()[]{}\u{300} ").is_empty());
}

#[test]
fn composed_and_decomposed_letters_are_one_word() {
    for (composed, decomposed) in [
        ("Café", "Cafe\u{301}"),
        ("Zürich", "Zu\u{308}rich"),
        ("việt", "vie\u{323}\u{302}t"),
        ("йод", "и\u{306}од"),
        ("ガイド", "カ\u{3099}イト\u{3099}"),
        ("ぱん", "は\u{309A}ん"),
        ("한국어", "\u{1112}\u{1161}\u{11AB}\u{1100}\u{116E}\u{11A8}\u{110B}\u{1165}"),
    ] {
        assert_eq!(words(composed), words(decomposed), "{composed}");
        assert!(!words(composed).is_empty());
    }
    // The offsets cover the marks.
    assert_eq!(tokens(of_queries(), "un Cafe\u{301}!")[1], (1, "cafe".into(), "Cafe\u{301}"));
    // Hindi and Arabic words stay whole, whatever signs stand in them.
    assert_eq!(words("नमस्ते दुनिया").len(), 2);
    assert_eq!(words("مُحَمَّد"), words("محمد"));
}

#[test]
fn chinese_japanese_and_korean_become_pairs() {
    assert_eq!(words("北京天气"), ["北京", "京天", "天气"]);
    assert_eq!(words("東京タワーは高い"), ["東京", "京タ", "タワ", "ワー", "ーは", "は高", "高い"]);
    assert_eq!(words("서울 날씨"), ["서울", "날씨"]);
    assert_eq!(words("天"), ["天"]);
    assert_eq!(words("北京，上海。"), ["北京", "上海"]);
    assert!(is_lone("天") && !is_lone("天气") && !is_lone("a") && !is_lone(""));
}

#[test]
fn mixed_text_keeps_its_places() {
    let found = tokens(of_queries(), "iPhone手机价格 USD");
    assert_eq!(
        found,
        [
            (0, "iphone".into(), "iPhone"),
            (1, "手机".into(), "手机"),
            (2, "机价".into(), "机价"),
            (3, "价格".into(), "价格"),
            (4, "usd".into(), "USD"),
        ]
    );
    // A document has the last character of a run beside its last pair, and no other places.
    let found = tokens(of_documents(), "手机价 USD 天");
    assert_eq!(
        found,
        [
            (0, "手机".into(), "手机"),
            (1, "机价".into(), "机价"),
            (1, "价".into(), "价"),
            (2, "usd".into(), "USD"),
            (3, "天".into(), "天"),
        ]
    );
}

#[test]
fn pictures_are_tokens() {
    assert_eq!(words("nice 👍🏽👨‍👩‍👧 ☀️!"), ["nice", "👍", "👨", "👩", "👧", "☀"]);
    assert_eq!(tokens(of_queries(), "a👍🏽b")[1], (1, "👍".into(), "👍🏽"));
}

#[test]
fn long_words_are_cut_and_count_once() {
    let long = "x".repeat(100_000);
    let found = tokens(of_documents(), &long);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].1.len(), found[0].2.len()), (LONGEST, 100_000));
    let digest = "a".repeat(64);
    assert_eq!(words(&digest).concat(), digest);
}

proptest::proptest! {
    #[test]
    fn any_text_is_cut_at_characters_and_in_order(text in "\\PC{0,40}") {
        for analyzer in [of_documents(), of_queries()] {
            // Slicing in `tokens` fails where an offset is inside a character.
            let found = tokens(analyzer, &text);
            proptest::prop_assert!(found.is_sorted_by_key(|token| token.0));
            proptest::prop_assert!(found.iter().all(|token| !token.1.is_empty()));
        }
    }

    #[test]
    fn a_document_holds_what_a_query_of_its_text_asks(text in "[a-c天气ガ\u{3099}é .]{0,20}") {
        let document = tokens(of_documents(), &text);
        for asked in tokens(of_queries(), &text) {
            proptest::prop_assert!(document.contains(&asked), "{asked:?}");
        }
    }
}
