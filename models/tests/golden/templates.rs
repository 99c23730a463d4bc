//! Everything that chat templates do, against transformers.

use models::template::{ChatTemplate, Clock, Context};
use serde_json::Value;

use super::{golden, list};

/// Renders a case: its text, and the bytes that generation blocks wrote.
fn rendered(golden: &Value, case: &Value) -> Result<(String, Vec<(u64, u64)>), String> {
    let token = |name: &str| (name.to_owned(), golden[name].as_str().unwrap().to_owned());
    let template = ChatTemplate::new(case["template"].as_str().unwrap());
    let template = template.map_err(|e| e.to_string())?;
    let template = template.with_tokens([token("bos_token"), token("eos_token")]);
    let given = |name: &str| Some(case[name].clone()).filter(|value| !value.is_null());
    let mut extra = case["extra"].as_object().cloned().unwrap_or_default();
    if case["awkward"] == true {
        extra.insert("awkward".to_owned(), golden["awkward"].clone());
    }
    let context = Context {
        open: case["open"] == true,
        clock: case["clock"].as_i64().map(Clock::from_unix),
        tools: given("tools"),
        documents: given("documents"),
        extra,
    };
    let messages = given("messages").unwrap_or_else(|| golden["default_messages"].clone());
    let got = template.render_with(list(&messages), &context).map_err(|e| e.to_string())?;
    let places = got.generated.iter().map(|place| (place.start as u64, place.end as u64));
    let places = places.collect::<Vec<_>>();
    let off = ["generation nested", "generation in a macro", "generation in a set block"];
    let is_off = off.contains(&case["name"].as_str().unwrap())
        || case["name"] == "generation in a filter block";
    assert_eq!(got.misplaced > 0, is_off, "{}: {} misplaced", case["name"], got.misplaced);
    Ok((got.text, places))
}

#[test]
fn features_of_templates_are_those_of_transformers() {
    let golden = golden("template_features.json");
    let mut wrong = Vec::new();
    for case in list(&golden["cases"]) {
        let want: Vec<_> = list(&case["generated"])
            .iter()
            .map(|place| (place[0].as_u64().unwrap(), place[1].as_u64().unwrap()))
            .collect();
        let text = case["text"].as_str().unwrap();
        match rendered(&golden, case) {
            Ok(got) if got.0 == text && got.1 == want => {}
            Ok(got) if got.0 == text => {
                wrong.push(format!("{}: {:?} instead of {want:?}", case["name"], got.1));
            }
            Ok(got) => wrong.push(format!("{}:\n{:?}\n{text:?}", case["name"], got.0)),
            Err(error) => wrong.push(format!("{}: {error}", case["name"])),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for case in list(&golden["errors"]) {
        assert!(rendered(&golden, case).is_err(), "{}", case["name"]);
    }
}

#[test]
fn plain_messages_render_as_any_messages() {
    let golden = golden("template_features.json");
    let messages = &golden["default_messages"];
    let plain: Vec<_> = serde_json::from_value(messages.clone()).unwrap();
    for source in ["{{ messages | tojson }}{{ tools is none }}", "{{ add_generation_prompt }}"] {
        let template = ChatTemplate::new(source).unwrap();
        let context = Context { open: true, ..Context::default() };
        let any = template.render_with(list(messages), &context).unwrap();
        assert_eq!(template.render(&plain, true).unwrap(), any.text);
    }
}
