#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

#[test]
fn every_file_that_ships_is_listed_and_valid() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/saved/searches");
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut listed: Vec<String> =
        shipped().unwrap().into_iter().map(|search| format!("{}.toml", search.name)).collect();
    listed.sort();
    assert_eq!(files, listed);
    assert!(shipped().unwrap().iter().all(|search| search.description.ends_with('.')));
}

#[test]
fn a_search_reads_back_and_refuses_what_it_does_not_know() {
    for search in shipped().unwrap() {
        assert_eq!(SavedSearch::from_value(&search.to_value().unwrap()).unwrap(), search);
    }
    let sound = json!({ "name": "mine", "query": "weather" });
    assert!(SavedSearch::from_value(&sound).is_ok());
    for (change, told) in [
        (json!({ "querry": "x" }), "unknown field `querry`"),
        (json!({ "filters": { "tol": "x" } }), "unknown field `tol`"),
        (json!({ "query": "colour:red" }), "there is no field colour"),
        (json!({ "filters": { "feedback": "quality<good" } }), "not a number"),
        (json!({ "facets": ["id"] }), "values of id cannot be counted"),
        (json!({ "sort": "loudest" }), "loudest"),
        (json!({ "name": "My Search" }), "lower-case letters"),
    ] {
        let mut search = sound.clone();
        for (key, value) in change.as_object().unwrap() {
            search[key] = value.clone();
        }
        let error = SavedSearch::from_value(&search).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let mut unsound = SavedSearch::from_value(&sound).unwrap();
    unsound.query = "colour:red".to_owned();
    assert!(unsound.to_value().is_err());
}

#[test]
fn the_notebook_s_own_come_before_those_that_ship() {
    let mut saved = SavedSearches::default();
    let own = json!({ "name": "corrections", "query": "kind:feedback" });
    let ships = saved.get("corrections").unwrap().unwrap();
    saved.fold("corrections", &own).unwrap();
    assert_eq!(saved.get("corrections").unwrap().unwrap().query, "kind:feedback");
    assert!(saved.all().unwrap().iter().any(|(s, own)| s.name == "corrections" && *own));
    // What cannot be read, or has another name, changes nothing.
    assert!(saved.fold("corrections", &json!({ "name": "corrections", "x": 1 })).is_err());
    assert!(saved.fold("corrections", &json!({ "name": "other" })).is_err());
    assert_eq!(saved.get("corrections").unwrap().unwrap().query, "kind:feedback");
    saved.fold("corrections", &Value::Null).unwrap();
    assert_eq!(saved.get("corrections").unwrap().unwrap(), ships);
    assert_eq!(saved.get("nothing").unwrap(), None);
    let names: Vec<String> = saved.all().unwrap().into_iter().map(|(s, _)| s.name).collect();
    assert!(names.is_sorted() && names.len() == SHIPPED.len());
}
