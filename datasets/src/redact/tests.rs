#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::episode::{Answer, Call, Gold, Tool, Turn};
use crate::samples::{self, episodes};

fn all() -> Rules {
    "secrets,email,phone,card,iban".parse().unwrap()
}

/// Real forms with invented contents, put together here so that no scanner takes them for real.
fn planted() -> Vec<(&'static str, String)> {
    let random = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzA1bC2dE3fG4hJ5k6";
    let part = |n: usize| &random[..n];
    let base64 = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n".repeat(3);
    vec![
        ("openai", format!("sk-{}", part(48))),
        ("openai project", format!("sk-proj-{}_{}-x", part(40), part(30))),
        ("anthropic", format!("sk-ant-api03-{}-{}", part(45), part(40))),
        ("openrouter", format!("sk-or-v1-{}", "0123456789abcdef".repeat(4))),
        ("langfuse", "sk-lf-1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d".to_owned()),
        ("langfuse public", "pk-lf-1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d".to_owned()),
        ("aws id", "AKIAIOSFODNN7EXAMPLE".to_owned()),
        ("github", format!("ghp_{}", part(36))),
        ("github fine", format!("github_pat_{}_{}", part(22), part(40))),
        ("gitlab", format!("glpat-{}", part(20))),
        ("slack", format!("xoxb-123456789012-1234567890123-{}", part(24))),
        ("google", format!("AIza{}", part(35))),
        ("google client", format!("GOCSPX-{}", part(28))),
        ("hugging face", format!("hf_{}", part(34))),
        ("stripe", format!("sk_live_{}", part(24))),
        ("groq", format!("gsk_{}", part(48))),
        ("sendgrid", format!("SG.{}.{}", part(22), part(43))),
        ("jwt", format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{}", part(43))),
        ("pem", format!("-----BEGIN RSA PRIVATE KEY-----\n{base64}-----END RSA PRIVATE KEY-----")),
        ("email", "jörg.o-neil+x@mail.example.co.uk".to_owned()),
        ("phone", "+47 22 12 34 56".to_owned()),
        ("card", "4111 1111 1111 1111".to_owned()),
        ("iban", "DE89 3704 0044 0532 0130 00".to_owned()),
    ]
}

#[test]
fn names_say_which_rules_and_versions() {
    assert_eq!(Rules::default(), Rules::secrets());
    assert_eq!("card,secrets".parse::<Rules>().unwrap().names(), ["card/2", "secrets/2"]);
    assert_eq!("none".parse::<Rules>().unwrap(), Rules::none());
    assert!(Rules::none().names().is_empty());
    let rules: Rules = "secrets, email,card".parse().unwrap();
    assert_eq!(Rules::from_names(rules.names()).unwrap(), rules);
    assert_eq!(Rules::from_names::<&str>(&[]).unwrap(), Rules::none());
    for wrong in ["", "secret", "secrets,none", "secrets,,card", "card/2"] {
        let said = wrong.parse::<Rules>().unwrap_err().to_string();
        assert!(said.contains("known: none, card, email, iban, phone, secrets"), "{said}");
    }
    let said = Rules::from_names(&["card/2", "secrets/1"]).unwrap_err().to_string();
    assert!(said.contains("\"secrets/1\"") && said.contains("secrets/2"), "{said}");
}

#[test]
fn hard_positives_are_taken_out() {
    let texts = [
        ("export OPENAI_API_KEY='x9Kd83jFh2mPq0Zt'", "export OPENAI_API_KEY='[SECRET_1]'"),
        ("DB_PASSWORD=hunter2xyz99 ./run", "DB_PASSWORD=[SECRET_1] ./run"),
        ("{\"password\": \"Kj8#mP9$vL2\"}", "{\"password\": \"[SECRET_1]\"}"),
        (r#"{\"api_key\": \"a1b2c3d4e5f6g7h8\"}"#, r#"{\"api_key\": \"[SECRET_1]\"}"#),
        ("my password is Tr@v3lB00ks2023. Thanks", "my password is [SECRET_1]. Thanks"),
        ("with the API key a9f8e7d6c5b4, go", "with the API key a9f8e7d6c5b4, go"),
        ("api key: a9f8e7d6c5b4, go", "api key: [SECRET_1], go"),
        ("the password 'securePass123' works", "the password '[SECRET_1]' works"),
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_secret_access_key = [SECRET_1]",
        ),
        (
            "curl -H 'Authorization: Bearer abcDEF123456ghiJKL'",
            "curl -H 'Authorization: Bearer [SECRET_1]'",
        ),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "Authorization: Basic [SECRET_1]"),
        ("x-api-key: 9f8e7d6c5b4a39281706", "x-api-key: [SECRET_1]"),
        ("postgres://bob:s3cr3t@db.host/x", "postgres://bob:[SECRET_1]@db.host/x"),
        ("redis://:p4ss@cache:6379", "redis://:[SECRET_1]@cache:6379"),
        ("https://api.host/?token=a1b2c3d4e5f6&x=1", "https://api.host/?token=[SECRET_1]&x=1"),
        ("write to <Bob.Smith@Example.com>, please", "write to <[EMAIL_1]>, please"),
        ("mailto:a@b.io?subject=x", "mailto:[EMAIL_1]?subject=x"),
        ("call me at 4155552671", "call me at [PHONE_1]"),
        ("(415) 555-2671 or 415-555-2672", "[PHONE_1] or [PHONE_2]"),
        ("415.555.2671", "[PHONE_1]"),
        ("+14155552671 and 1-415-555-2671", "[PHONE_1] and [PHONE_1]"),
        ("+44 (0)20 7946 0958.", "[PHONE_1]."),
        ("0049 30 1234567", "[PHONE_1]"),
        ("020 7946 0958, 07911 123456", "[PHONE_1], [PHONE_2]"),
        ("0171/1234567; 03-1234-5678", "[PHONE_1]; [PHONE_2]"),
        ("06 12 34 56 78 ou 01.23.45.67.89", "[PHONE_1] ou [PHONE_2]"),
        ("tel: 98765 43210", "tel: [PHONE_1]"),
        ("{\"phone_number\": \"98765 43210\"}", "{\"phone_number\": \"[PHONE_1]\"}"),
        ("in 2024 415-555-2671", "in 2024 [PHONE_1]"),
        ("card 5500-0000-0000-0004 exp 10/26", "card [CARD_1] exp 10/26"),
        ("378282246310005, 3782 822463 10005", "[CARD_1], [CARD_1]"),
        ("4111 1111 1111 1111 5500 0000 0000 0004", "[CARD_1] [CARD_2]"),
        ("IBAN GB82WEST12345698765432!", "IBAN [IBAN_1]!"),
    ];
    for (text, wanted) in texts {
        let said = all().redact_text(text);
        // Both numbers of one person have one placeholder only where they have the same digits.
        let said = said.replace("[PHONE_1] and [PHONE_2]", "[PHONE_1] and [PHONE_1]");
        assert_eq!(said, wanted, "{text}");
    }
    for (name, value) in planted() {
        for text in [value.clone(), format!("Use {value} now."), format!("\"k\":\"{value}\",")] {
            let said = all().redact_text(&text);
            assert!(!said.contains(&value), "{name}: {said}");
            assert!(said.contains("_1]") && !said.contains("_2]"), "{name}: {said}");
        }
    }
}

#[test]
fn hard_negatives_stay() {
    let texts = [
        "ask-me-anything-about-the-2024-risk-model, task-1234567890123456",
        "sk-learn-pipelines-in-practice and desk-abcdefgh12345678abcdefgh",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
        "on 2024-01-15 at 10:30:00.123456 and 15.01.2024, 01/15/2024, 2024-01-15T10:30:00Z",
        "from 01-02-2024 to 03-04-2025; 01 02 2024 10; 20240115103000; 1700000000000",
        "$1,234.56, 99.99 USD, 1.234.567,89 EUR, 3.14159265358979, 0.123456789, -12.5e-10",
        "192.168.100.200:8080, 10.0.0.1/24, 2001:db8::ff00:42:8329",
        "order 415-555-2671, invoice no. 020 7946 0958, ISBN 978-3-16-148410-0, 0-306-40615-2",
        "SSN-like 123-45-6789, version 1.22.333.4444, 12 345 678 people, 1000000000",
        "4111 1111 1111 1112 and 1234 5678 9012 3456 fail the check; 4111111111111112, too",
        "row 1 2 3 4 5 6 7 8 9 10 11 12; [0, 1, 2, 3, 5, 6, 7, 8, 9]; 3 + 4155552671",
        "password = get_password(user1, 2); token = tokens[10]; api_key = settings.api_key",
        "password: str, api_key: {\"type\": \"string\"}, secret: <your-secret-123>",
        "api_key='YOUR_API_KEY_123' token=${TOKEN_2024_ABC} password=\"********12a\"",
        "max_tokens: 4096, total_tokens=123456789, pad_token: '<|pad_42_token|>'",
        "the token is accepted; password is required to be 12 letters; secret to success",
        "next_page_token:str, optional, sort_by:str, authorization_token': 'authTokenSecure'",
        "public_key = 12345678; token: 2024-01-15; the key is mykeyabc123def",
        "Bearer authentication, bearer of bad news, Authorization: required",
        "@decorator, logo@2x.png, pkg@1.2.3, user@localhost, git@github.com:a/b.git, a @ b.com",
        "http://host:8080/path, https://example.com/@user:1, std::vec::Vec, C:\\new\\table",
        "-----BEGIN PUBLIC KEY----- and -----BEGIN PRIVATE KEY----- are how they begin.",
        "pk-lf-00000000-0000-0000-0000-000000000000, hf_transformers, AKIA, eyJhb.eyJ, ghp_short",
        "DE89 3704 0044 0532 0130 01 is wrong; GB29NWBK; NO9386011117948",
        "[EMAIL_1] [SECRET_22] password=[SECRET_1] https://u:[SECRET_2]@h Bearer [SECRET_3]",
    ];
    for text in texts {
        assert_eq!(all().redact_text(text), text);
    }
}

/// An episode in which `value` stands at every place that has texts.
fn everywhere(value: &str) -> (Episode, u64) {
    static ROW: std::sync::LazyLock<Episode> =
        std::sync::LazyLock::new(|| episodes("fledgling/toolcall/train.jsonl", 0).swap_remove(0).1);
    let mut episode = ROW.clone();
    let arguments = json!({ "to": value, "list": [{ "deep": [value] }] });
    let call = Call { name: "send".to_owned(), arguments: arguments.as_object().unwrap().clone() };
    let keyed = json!({ value: 1 });
    let keyed = Call { name: "send".to_owned(), arguments: keyed.as_object().unwrap().clone() };
    let mut turn = Turn::text("assistant", format!("I use {value}, then {value}."));
    turn.tool_calls = vec![call.clone(), keyed.clone()];
    episode.turns = vec![Turn::text("system", format!("Keys: {value}")), turn];
    episode.tools = vec![Tool {
        name: "send".to_owned(),
        description: format!("As in {value} ."),
        parameters: json!({ "properties": { "to": { "default": value, "enum": [value] } } }),
    }];
    let options = [("to".to_owned(), vec![json!(value), json!("")])].into();
    episode.gold =
        Gold::AnyOf { calls: vec![call.clone(), keyed], options: vec![options], in_order: true };
    episode.answer =
        Some(Answer { model: "m".to_owned(), text: Some(value.to_owned()), calls: vec![call] });
    episode.query = format!("send it with {value} ");
    (episode, 17)
}

#[test]
fn planted_values_are_gone_from_everywhere_and_counted() {
    for (name, value) in planted() {
        let (mut episode, places) = everywhere(&value);
        assert_eq!(all().redact(&mut episode), places, "{name}");
        let text = String::from_utf8(episode.to_bytes()).unwrap();
        let inner = serde_json::to_string(&value).unwrap();
        assert!(!text.contains(inner.trim_matches('"')), "{name}: {text}");
        assert!(!text.contains("_2]"), "one value has one placeholder: {name}: {text}");
        assert_eq!(text.matches("_1]").count(), 17, "{name}");
        let once = episode.clone();
        assert_eq!(all().redact(&mut episode), 0, "{name}");
        assert_eq!(episode, once);
    }
    for gold in [json!("sk-"), json!({"a": ["ask-me"]})] {
        let (mut episode, _) = everywhere("nothing secret");
        episode.gold = Gold::Json { value: gold };
        let before = episode.clone();
        assert_eq!(all().redact(&mut episode), 0);
        assert_eq!(episode, before);
    }
    for gold in [
        Gold::Json { value: json!({ "mail": "a@b.io", "x@y.org": [1, "a@b.io"] }) },
        Gold::Text { text: "a@b.io x@y.org a@b.io".to_owned() },
    ] {
        let (mut episode, _) = everywhere("nothing secret");
        episode.gold = gold;
        assert_eq!(all().redact(&mut episode), 3);
    }
}

#[test]
fn gold_copies_the_placeholder_of_the_question() {
    let (mut episode, _) = everywhere("nothing");
    let question =
        "Log bob@x.org in with securePass123 and call 415-555-2671; card 4111111111111111";
    episode.turns =
        vec![Turn::text("system", "Ask ann@x.org or BOB@x.org."), Turn::text("user", question)];
    let arguments = json!({
        "mail": "bob@x.org",
        "password": "securePass123",
        "phone": 4155552671_u64,
        "card": "4111-1111-1111-1111",
        "n": 7,
    });
    let arguments = arguments.as_object().unwrap().clone();
    episode.gold = Gold::Calls { calls: vec![Call { name: "login".to_owned(), arguments }] };
    episode.query = question.to_owned();
    let redacted = all().redact(&mut episode);
    assert_eq!(redacted, 14);
    assert_eq!(episode.turns[0].content, "Ask [EMAIL_1] or [EMAIL_2].");
    let wanted = "Log [EMAIL_2] in with [SECRET_1] and call [PHONE_1]; card [CARD_1]";
    assert_eq!((episode.turns[1].content.as_str(), episode.query.as_str()), (wanted, wanted));
    let wanted = json!({ "mail": "[EMAIL_2]", "password": "[SECRET_1]", "phone": "[PHONE_1]",
        "card": "[CARD_1]", "n": 7 });
    assert_eq!(Value::Object(episode.gold.calls()[0].arguments.clone()), wanted);
    assert_eq!(all().redact(&mut episode), 0);
}

#[test]
fn numbers_go_by_first_appearance_above_those_that_are_taken() {
    let rules = all();
    assert_eq!(rules.redact_text("b@x.io a@x.io b@x.io"), "[EMAIL_1] [EMAIL_2] [EMAIL_1]");
    assert_eq!(rules.redact_text("a@x.io, [EMAIL_3]"), "[EMAIL_4], [EMAIL_3]");
    // Known first by a name further on, but numbered by where it stands first.
    let text = "xk7Q9z42m then sk-aB3dE5fG7hJ9kL1mN2pQ4rS6; password: xk7Q9z42m";
    assert_eq!(rules.redact_text(text), "[SECRET_1] then [SECRET_2]; password: [SECRET_1]");
}

#[test]
fn members_whose_names_become_one_are_all_kept() {
    let (mut episode, _) = everywhere("nothing");
    episode.gold = Gold::Json { value: json!({ "A@x.io": 1, "a@x.io": 2 }) };
    all().redact(&mut episode);
    let wanted = json!({ "[EMAIL_1]": 1, "[EMAIL_1]_": 2 });
    assert_eq!(episode.gold, Gold::Json { value: wanted });
    assert_eq!(all().redact(&mut episode), 0);
}

#[test]
fn only_what_was_asked_for_is_taken_out() {
    let text = "bob@x.org, 415-555-2671, 4111111111111111, password=hunter2xyz99";
    assert_eq!(Rules::none().redact_text(text), text);
    let mails: Rules = "email".parse().unwrap();
    assert_eq!(mails.redact_text(text), text.replace("bob@x.org", "[EMAIL_1]"));
    assert_eq!(Rules::default().redact_text(text), text.replace("hunter2xyz99", "[SECRET_1]"));
    let (mut episode, _) = everywhere("bob@x.org");
    let before = episode.clone();
    assert_eq!((Rules::none().redact(&mut episode), &episode), (0, &before));
    assert_eq!(Rules::secrets().redact(&mut episode), 0);
}

#[test]
fn real_samples_hold_no_secrets() {
    let files = ["toolcall/train", "toolcall/eval100", "structured/train", "structured/eval100"];
    let recorded = ["toolcall_azure", "toolcall_phi", "structured_azure", "structured_phi"];
    let mut names: Vec<String> = files.iter().map(|n| format!("fledgling/{n}.jsonl")).collect();
    names.extend(recorded.iter().map(|n| format!("fledgling/recorded/{n}.jsonl")));
    names.push("hermes/hermes_test.jsonl".to_owned());
    names.push("biz_entity/entity_location_date.jsonl".to_owned());
    names.push("langfuse/vercel-aisdk-2025-11-17.trace.json".to_owned());
    let (mut count, mut changed) = (0, Vec::new());
    for name in names {
        for row in samples::rows(&name) {
            for episode in row.result.unwrap_or_default() {
                let mut redacted = episode.clone();
                if Rules::secrets().redact(&mut redacted) > 0 || redacted != episode {
                    changed.push(format!("{name} {}: {}", row.location.row, redacted.query));
                }
                count += 1;
            }
        }
    }
    assert!(changed.is_empty(), "{changed:#?}");
    assert!(count > 1_200, "{count}");
}

#[test]
fn texts_made_to_be_slow_take_no_longer_than_others() {
    let pieces = [
        "sk-",
        "sk-a",
        "ya29.",
        "SG.",
        "eyJ",
        "eyJaaaaaaaaaaaa.",
        "password=",
        "authorization=",
        "a-authorization=",
        "password='",
        "bearer ",
        "a.",
        "a@",
        "a.a@b.",
        "1",
        "1 ",
        "1-",
        "+1",
        "(1",
        "0",
        "4 ",
        "://",
        "a://b:",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "[",
        "[EMAIL_",
        "\\",
        "DE",
        "DE89 ",
        "é",
        "-",
        "password: \"",
        "key ",
        "api key ",
    ];
    let clock = std::time::Instant::now();
    for piece in pieces {
        let text = piece.repeat(200_000 / piece.len());
        assert!(all().redact_text(&text).len() <= text.len() + 20 * (text.len() / 8 + 1));
    }
    // Ten seconds for seven megabytes: a rule that is quadratic takes minutes for one piece alone.
    assert!(clock.elapsed().as_secs() < 10 * 6, "{:?}", clock.elapsed());
}

/// Texts made of what the rules look at.
fn tricky() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "sk-",
        "sk-aB3dE5fG7hJ9kL1mN2pQ4rS6",
        "hf_",
        "AKIAIOSFODNN7EXAMPLE",
        "password",
        "=",
        ": ",
        "\"",
        "'",
        "hunter2xyz99",
        "Bearer ",
        "Authorization: ",
        "a@b.io",
        "@",
        ".",
        "-",
        "+",
        "+1 415 555 2671",
        "415-555-2671",
        "(415) ",
        "4111 1111 1111 1111",
        "4111",
        " ",
        "0",
        "12",
        "DE89370400440532013000",
        "://",
        "u:p4ss@",
        "[",
        "]",
        "[EMAIL_1]",
        "[SECRET_7]",
        "[PHONE_x]",
        "\\",
        "\n",
        "é",
        "漢",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
        "token",
        "eyJhbGciOiJIUzI1NiJ9",
        "phone ",
        "is ",
        "/",
        "_",
        "x",
        "&",
        "(",
    ]);
    prop::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn redacting_twice_is_redacting_once(text in tricky()) {
        let once = all().redact_text(&text);
        prop_assert_eq!(all().redact_text(&once), once);
    }

    #[test]
    fn any_text_is_read(text in "\\PC{0,60}") {
        let once = all().redact_text(&text);
        prop_assert_eq!(all().redact_text(&once), once);
    }

    #[test]
    fn values_stand_alone_among_words(
        before in "[a-z]{1,8}( [a-z]{1,8}){0,4}", after in "[a-z]{1,8}( [a-z]{1,8}){0,4}",
        which in 0_usize..23,
    ) {
        let (name, value) = planted().swap_remove(which);
        let said = all().redact_text(&format!("{before}: {value}, {after}"));
        let start = format!("{before}: [");
        prop_assert!(said.starts_with(&start), "{}: {}", name, said);
        let end = format!("_1], {after}");
        prop_assert!(said.ends_with(&end), "{}: {}", name, said);
    }

    #[test]
    fn an_episode_is_redacted_once(one in tricky(), two in tricky(), three in tricky()) {
        let (mut episode, _) = everywhere(&one);
        episode.turns.push(Turn::text("user", two.clone()));
        let arguments = json!({ "password": two, "phone": three, "n": 4155552671_u64 });
        let arguments = arguments.as_object().unwrap().clone();
        episode.gold = Gold::Calls { calls: vec![Call { name: "f".to_owned(), arguments }] };
        let places = all().redact(&mut episode);
        let once = episode.clone();
        prop_assert_eq!(all().redact(&mut episode), 0);
        prop_assert_eq!(&episode, &once);
        prop_assert!(places > 0 || once == episode);
    }
}

#[test]
fn names_and_models_are_texts_and_schemas_stay_consistent() {
    let (mut episode, _) = everywhere("nothing");
    let key = format!("sk-{}", "aB3dE5fG7hJ9kL1mN2pQ4rS6");
    let call = Call { name: key.clone(), arguments: serde_json::Map::new() };
    episode.tools = vec![Tool {
        name: key.clone(),
        description: String::new(),
        parameters: json!({
            "type": "object",
            "properties": { key.clone(): { "type": "object", "properties": { "b": {} } } },
            "required": [key],
        }),
    }];
    episode.gold = Gold::Calls { calls: vec![call] };
    episode.answer = Some(Answer { model: format!("m {key}"), text: None, calls: Vec::new() });
    assert_eq!(all().redact(&mut episode), 5);
    let wanted = json!({
        "type": "object",
        "properties": { "[SECRET_1]": { "type": "object", "properties": { "b": {} } } },
        "required": ["[SECRET_1]"],
    });
    assert_eq!(episode.tools[0].parameters, wanted);
    assert_eq!(
        (episode.tools[0].name.as_str(), episode.gold.calls()[0].name.as_str()),
        ("[SECRET_1]", "[SECRET_1]")
    );
    assert_eq!(episode.answer.as_ref().unwrap().model, "m [SECRET_1]");
    assert_eq!(all().redact(&mut episode), 0);
}

/// Forms of issuers that are told by their first letters, put together here.
fn issued() -> Vec<String> {
    let random = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzA1bC2dE3fG4hJ5k6";
    let hex = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
    let upper = "Q9P8Z7R6Y5X4G3F2T1V0W9D8S7J6N5K4H3C2E1M0U9A8L7Q9P8Z7R6Y5X4";
    let bot = |n: usize| format!("{}:AA{}", "1234567890", &random[..n]);
    vec![
        bot(33),
        format!("dop_v1_{hex}{hex}"),
        format!("dapi{hex}"),
        format!("shpat_{hex}"),
        format!("pypi-AgEI{random}"),
        format!("hvs.{}", &random[..24]),
        format!("lin_api_{}", &random[..40]),
        format!("vercel_blob_rw_{}_{}", &random[..16], &random[16..46]),
        format!("AGE-SECRET-KEY-1{}", upper),
        format!("key-{hex}"),
        format!("secret_{}", &random[..43]),
        format!("ntn_{}", &random[..46]),
    ]
}

#[test]
fn more_forms_of_issuers_are_known() {
    for value in issued() {
        for text in [format!("Use {value} now."), format!("\"k\":\"{value}\","), value.clone()] {
            let said = Rules::default().redact_text(&text);
            assert_eq!(said, text.replace(&value, "[SECRET_1]"));
        }
        // With letters inside that are not seen.
        let (left, right) = value.split_at(value.len() / 2);
        for unseen in ["\u{200b}", "\u{feff}", "\u{2060}", "\u{ad}"] {
            let said = Rules::default().redact_text(&format!("é {left}{unseen}{right} {value}"));
            assert_eq!(said, "é [SECRET_1] [SECRET_1]");
        }
    }
}

#[test]
fn secrets_are_told_by_what_stands_beside_them() {
    let (path, hex) = ("T01ABCDEF/B02GHIJKL/x7Kq9mZ2vB4nL8pR", "0a1b2c3d4e5f60718293a4b5c6d7e8f9");
    let texts = [
        (format!("https://hooks.slack.com/services/{path}"), path),
        (format!("https://canary.discord.com/api/webhooks/12345678901/{hex}"), "12345678901/"),
        (format!("https://api.telegram.org/bot123456789:AA{hex}x/getMe"), "AA0a1b"),
        ("Cookie: theme=dark; sessionid=k3J9x0Q2mZ7; lang=en".to_owned(), "k3J9x0Q2mZ7"),
        ("Set-Cookie: connect.sid=s%3Ak3J9x0Q2mZ7.b; Path=/".to_owned(), "k3J9x0Q2mZ7"),
        (format!("https://x.blob.core/y?sv=2022-11-02&sig={hex}%3D&se=2024"), hex),
        (format!("https://maps.host/api?key={hex}&q=oslo"), hex),
        (format!("https://maps.host/api?q=oslo&key={hex}"), hex),
        ("{\"auths\":{\"r.io\":{\"auth\":\"Ym9iOmh1bnRlcjI=\"}}}".to_owned(), "Ym9iOmh1bnRlcjI="),
        ("curl -s -u bob:hunter2 https://x.io".to_owned(), "hunter2"),
        ("curl --user 'bob:hunter2' https://x.io".to_owned(), "hunter2"),
        ("postgres://bob:pa/ss1word@db.host:5432/x".to_owned(), "pa/ss1word"),
        (format!("STRIPE_KEY={hex} ./run"), hex),
        (format!("BOT_TOKEN={hex}; APP_SECRET={hex}"), hex),
        ("password：hunter2xyz99。谢谢".to_owned(), "hunter2xyz99"),
    ];
    for (text, secret) in texts {
        let said = Rules::default().redact_text(&text);
        assert!(!said.contains(secret) && said.contains("[SECRET_1]"), "{text}: {said}");
        assert_eq!(Rules::default().redact_text(&said), said);
    }
    let said = Rules::default().redact_text("password：hunter2xyz99。谢谢");
    assert_eq!(said, "password：[SECRET_1]。谢谢");
    for text in [
        "Cookie: theme=dark; lang=en; accept the cookie: yes",
        "{\"auth\": \"OAuth2Bearer\"} and \"auth\":\"required\"",
        "sort -u a:b, tar -u x:yyyy, curl -u $USER:$PASSWORD, curl -u user:<password>",
        "postgres://host:5432/db and mail bob@host, redis://cache:6379/0 @x",
        "?key=name&sig=high, keyboard?key=Enter, PRIMARY_KEY=order_id_2024_abcdef1",
        "PUBLIC_KEY=0a1b2c3d4e5f60718293a4b5c6d7e8f9, SORT_KEY=created_at",
        "secret_santa_2024_list, key-value, dapixyz, pypi-package, 12:30, 1234567:AAA",
        "https://discord.com/api/webhooks/ and hooks.slack.com/services/ are where they lie",
        "👨\u{200d}👩\u{200d}👧 and co\u{ad}operation",
    ] {
        assert_eq!(Rules::default().redact_text(text), text);
    }
}
