#![allow(clippy::unwrap_used)]

use super::*;

fn of(text: &str) -> Option<Format> {
    detect(Path::new("x.json"), text.as_bytes())
}

#[test]
fn each_format_is_told_by_its_first_keys() {
    let cases = [
        ("{\"query\": \"\", \"tools\": \"[]\", \"answers\": \"[]\"}", Format::Xlam),
        ("{\"messages\": [{\"role\": \"user\", \"content\": \"prediction", Format::OpenAi),
        ("{\"id\": 1, \"request\": {}, \"response\": {}}", Format::Exchange),
        ("{\"id\": \"x\", \"uri\": \"\", \"request\": {\"messages\": [", Format::Exchange),
        ("{\"id\": \"b\", \"question\": [[{}]], \"function\": []}", Format::Bfcl),
        ("{\"id\": \"b\", \"question\": [[{\"role\": \"user\", \"con", Format::Bfcl),
        ("{\"id\": \"b\", \"question\": [], \"initial_config\": {}}", Format::Bfcl),
        ("[\n  {\n    \"task_id\": 0, \"reward\": 0.0, \"info\": {\"task", Format::TauBench),
        ("{\"timestamp\": \"\", \"agent_type\": \"\", \"system_prompt\": \"", Format::WorkflowLog),
        ("{\n \"model_id\": \"m\",\n \"cep\": \"rules\"}", Format::CepText),
        ("[{\"trace\": {\"id\": ", Format::LangfuseExport),
        ("{\"schema\":2,\"track\":\"chat\",\"turns\":[],\"gold\":{}}", Format::Episodes),
    ];
    for (text, format) in cases {
        assert_eq!(of(text), Some(format), "{text}");
    }
}

#[test]
fn what_only_looks_like_rows_is_none() {
    for text in [
        "{\"messages\": [], \"prediction\": \"x\", \"pred_tool_call\": {}}",
        "{\"messages\": [], \"reference\": \"x\"}",
        "{\"prompt\": \"x\", \"prediction\": \"y\"}",
        "{\"id\": \"a\", \"question\": \"What?\"}",
        "{\"question\": [[]], \"function\": []}",
        "{\"query\": \"x\", \"tool_name\": \"f\", \"arguments\": {}}",
        "{\"request\": {}, \"other\": 1}",
        "{\"alpha_pattern\": {}, \"bias\": \"none\"}",
        "",
        "[",
        "[]",
        "{}",
        "\u{0}\u{0}",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
}

#[test]
fn files_beside_questions_are_companions_and_no_rows() {
    let answers = "{\"id\": \"simple_0\", \"ground_truth\": [{\"f\": {\"a\": [1]}}]}";
    let documents =
        "{\"name\": \"cd\", \"description\": \"\", \"parameters\": {}, \"response\": {}}";
    let list = "{\"simple_python\": [\"a\"], \"parallel\": [\"b\"]}";
    for text in [answers, documents, list] {
        let path = Path::new("bfcl/file.json");
        assert!(is_companion(path, text.as_bytes()), "{text}");
        assert_eq!(detect(path, text.as_bytes()), None, "{text}");
    }
    let bare = b"{\"name\": \"cd\", \"description\": \"\", \"parameters\": {}";
    assert!(is_companion(Path::new("bfcl/multi_turn_func_doc/x.json"), bare));
    assert!(!is_companion(Path::new("tools.json"), bare));
    let row = b"{\"id\": \"a\", \"question\": [[{}]], \"function\": [], \"ground_truth\": []}";
    assert!(!is_companion(Path::new("x.json"), row));
}
