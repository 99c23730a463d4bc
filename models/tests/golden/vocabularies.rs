//! Every pre-tokenizer against the `tokenizers` package, from `tokenizer.json` and as in GGUF.

use std::path::{Path, PathBuf};

use models::ModelError;
use models::gguf::TokenizerData;
use models::model::load_renderer_of_folder;
use models::template::Message;
use models::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::{golden, here, ids, list};

fn file(pre: &str) -> PathBuf {
    here("fixtures/vocabularies").join(format!("{pre}.json"))
}

fn id(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

/// Says of a `tokenizer.json` what a GGUF file of the same vocabulary would.
fn data(pre: &str, eos: u32) -> TokenizerData {
    let text = std::fs::read_to_string(file(pre)).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let vocabulary = json["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<_> =
        vocabulary.iter().map(|(text, at)| (id(at), text.clone(), 1)).collect();
    for added in list(&json["added_tokens"]) {
        let kind = if added["special"] == true { 3 } else { 4 };
        let text = added["content"].as_str().unwrap().to_owned();
        tokens.push((id(&added["id"]), text, kind));
    }
    tokens.sort();
    assert!(tokens.iter().enumerate().all(|(at, token)| at == token.0 as usize));
    let merge = |merge: &Value| {
        let part = |at: usize| merge[at].as_str().unwrap().to_owned();
        [part(0), part(1)].join(" ")
    };
    TokenizerData {
        model: "gpt2".to_owned(),
        pre: pre.to_owned(),
        kinds: tokens.iter().map(|token| token.2).collect(),
        tokens: tokens.into_iter().map(|token| token.1).collect(),
        merges: list(&json["model"]["merges"]).iter().map(merge).collect(),
        eos,
        bos: None,
    }
}

#[test]
fn every_pre_tokenizer_gives_the_ids_of_its_reference() {
    let golden = golden("vocabularies.json");
    for kind in list(&golden["kinds"]) {
        let (pre, end) = (kind["pre"].as_str().unwrap(), id(&kind["end"]));
        let bytes = std::fs::read(file(pre)).unwrap();
        let mut all = vec![Tokenizer::from_json(&bytes, end).unwrap()];
        let others: &[&str] = match pre {
            "gpt-2" => &["default"],
            "llama-bpe" => &["llama3", "llama-v3"],
            _ => &[],
        };
        for name in [&[pre], others].concat() {
            all.push(
                Tokenizer::new(&TokenizerData { pre: name.to_owned(), ..data(pre, end) }).unwrap(),
            );
        }
        for (at, (text, want)) in list(&golden["texts"]).iter().zip(list(&kind["ids"])).enumerate()
        {
            let text = text.as_str().unwrap();
            let back = kind["decoded"][at.to_string()].as_str().unwrap_or(text);
            for tokenizer in &all {
                let got = tokenizer.encode(text).unwrap();
                assert_eq!(got, ids(want), "{pre}: {text:?}");
                assert_eq!(tokenizer.decode(&got).unwrap(), back, "{pre}");
                assert_eq!(tokenizer.eos(), end);
                assert_eq!(tokenizer.token(end).as_deref(), Some("<|end|>"));
            }
        }
    }
}

fn refused(data: &TokenizerData, part: &str) {
    match Tokenizer::new(data).err() {
        Some(ModelError::Tokenizer(what)) => assert!(what.contains(part), "{what}"),
        other => panic!("{part}: {other:?}"),
    }
}

#[test]
fn a_vocabulary_that_does_not_hold_together_is_refused() {
    let whole = || data("gpt-2", 1);
    refused(&TokenizerData { model: "llama".to_owned(), ..whole() }, "\"llama\"");
    refused(&TokenizerData { pre: "tekken".to_owned(), ..whole() }, "\"tekken\"");
    refused(&TokenizerData { eos: 1 << 20, ..whole() }, "end token 1048576");
    refused(&TokenizerData { eos: whole().tokens.len() as u32, ..whole() }, "end token");
    refused(&TokenizerData { kinds: vec![1], ..whole() }, "1 kinds");
    for merge in ["zzzz a", "a zzzz", "Ġ Ġzzz", "a", "a b c", ""] {
        refused(&TokenizerData { merges: vec![merge.to_owned()], ..whole() }, "merge");
    }
    // Both parts are tokens, what they make is none, and it is longer than any token.
    let mut tokens = whole();
    let longest = tokens.tokens.iter().max_by_key(|token| token.len()).unwrap().clone();
    tokens.merges.push(format!("{longest} {longest}"));
    refused(&tokens, "merge");
}

#[test]
fn a_tokenizer_json_that_does_not_hold_together_is_refused() {
    let text = std::fs::read_to_string(file("qwen2")).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    let refused = |json: &Value, eos: u32, part: &str| match Tokenizer::from_json(
        json.to_string().as_bytes(),
        eos,
    )
    .err()
    {
        Some(ModelError::Tokenizer(what)) => assert!(what.contains(part), "{what}"),
        other => panic!("{part}: {other:?}"),
    };
    refused(&whole, 1 << 20, "end token");
    refused(&json!({}), 1, "");
    refused(&json!([1]), 1, "");
    for merge in [json!(["zzzz", "a"]), json!("a zzzz"), json!(["a"]), json!(3), json!("a")] {
        let mut json = whole.clone();
        json["model"]["merges"][0] = merge;
        refused(&json, 1, "merge");
    }
    let mut json = whole.clone();
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(".into();
    refused(&json, 1, "");
    assert!(Tokenizer::from_json(b"{\"model\": ", 1).is_err());
    // A file may have been saved with a limit on the length of texts.
    let mut json = whole;
    json["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), 1).unwrap();
    assert_eq!(
        tokenizer.decode(&tokenizer.encode("Hello, world!").unwrap()).unwrap(),
        "Hello, world!"
    );
}

fn write(dir: &Path, name: &str, json: &Value) {
    std::fs::write(dir.join(name), json.to_string()).unwrap();
}

fn error(dir: &Path) -> String {
    load_renderer_of_folder(dir).err().unwrap().to_string()
}

#[test]
fn a_renderer_is_read_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    assert!(error(dir).contains("tokenizer.json"));
    std::fs::copy(file("llama-bpe"), dir.join("tokenizer.json")).unwrap();
    assert!(error(dir).contains("neither chat_template.jinja nor tokenizer_config.json"));
    let chatml = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";
    let mut settings = json!({
        "bos_token": {"content": "<|start|>", "lstrip": false},
        "eos_token": "<|end|>",
        "pad_token": null,
        "chat_template": [
            {"name": "tool_use", "template": "no"},
            {"name": "default", "template": chatml},
        ],
    });
    write(dir, "tokenizer_config.json", &settings);
    assert!(error(dir).contains("neither generation_config.json nor config.json"));
    let golden = golden("vocabularies.json");
    let end = list(&golden["kinds"]).iter().find(|kind| kind["pre"] == "llama-bpe").unwrap();
    let end = id(&end["end"]);
    write(dir, "config.json", &json!({"eos_token_id": [end, 3]}));
    let messages = [Message::new("user", "Hi")];
    let first = load_renderer_of_folder(dir).unwrap();
    assert_eq!(first.prompt_text(&messages).unwrap(), "<|start|>Hi<|end|>");
    assert_eq!(first.tokenizer().eos(), end);
    assert_eq!(first.prompt(&messages).unwrap().last(), Some(&end));
    // Whatever stands first: of several ends the one that is called so, unless the template writes
    // another.
    write(dir, "config.json", &json!({"eos_token_id": [3, end]}));
    let same = load_renderer_of_folder(dir).unwrap();
    assert_eq!((same.tokenizer().eos(), same.digest()), (end, first.digest()));

    write(dir, "generation_config.json", &json!({"eos_token_id": 3}));
    settings["chat_template"] = chatml.into();
    write(dir, "tokenizer_config.json", &settings);
    let again = load_renderer_of_folder(dir).unwrap();
    assert_eq!(again.tokenizer().eos(), 3);
    // Where an answer ends is part of what a renderer is.
    assert_ne!(again.digest(), first.digest());
    settings["bos_token"] = "<s>".into();
    write(dir, "tokenizer_config.json", &settings);
    assert_ne!(load_renderer_of_folder(dir).unwrap().digest(), first.digest());
    std::fs::write(dir.join("chat_template.jinja"), "{{ messages[0].role }}").unwrap();
    let jinja = load_renderer_of_folder(dir).unwrap();
    assert_eq!(jinja.prompt_text(&messages).unwrap(), "user");

    write(dir, "generation_config.json", &json!({"eos_token_id": -1}));
    assert!(error(dir).contains("eos_token_id of generation_config.json"));
    write(dir, "generation_config.json", &json!({"eos_token_id": 1 << 20}));
    assert!(error(dir).contains("end token"));
    std::fs::write(dir.join("generation_config.json"), "{").unwrap();
    assert!(error(dir).contains("generation_config.json is no whole model file"));
    std::fs::write(dir.join("tokenizer.json"), "{").unwrap();
    assert!(load_renderer_of_folder(dir).is_err());
}
