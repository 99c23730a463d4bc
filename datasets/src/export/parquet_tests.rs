#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::process::Command;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use arrow_json::LineDelimitedWriter;
use serde_json::{Map, Value};

use super::tests::episodes_of as episodes_of_file;
use super::*;

/// Reads the rows of a file as JSON.
fn rows_of(path: &Path) -> Vec<Map<String, Value>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in builder.build().unwrap() {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Reads the episodes of a file: its rows are OpenAI's but for the metadata, which are a text.
pub(super) fn episodes_of(path: &Path) -> Vec<Episode> {
    let lines = rows_of(path).into_iter().map(|mut row| {
        let metadata = row["metadata"].as_str().unwrap();
        row.insert("metadata".to_owned(), serde_json::from_str(metadata).unwrap());
        format!("{}\n", Value::Object(row))
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    episodes_of_file(&file, Format::OpenAi)
}

fn written(folder: &Path) -> (std::path::PathBuf, Vec<Episode>) {
    let mut all = episodes_of_file(&crate::samples::path("openai/rows.jsonl"), Format::OpenAi);
    let path = crate::samples::path("bfcl/question/BFCL_v4_multi_turn_miss_func.json");
    all.extend(episodes_of_file(&path, Format::Bfcl));
    let mut writer = Writer::new(ExportFormat::Parquet, folder, "all").unwrap();
    all.iter().for_each(|episode| writer.write(episode).unwrap());
    (writer.finish().unwrap().files.remove(0), all)
}

#[test]
fn columns_hold_the_same_episodes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, all) = written(folder.path());
    let again = episodes_of(&path);
    assert_eq!(all.len(), again.len());
    for (one, other) in all.iter().zip(&again) {
        assert_eq!(difference(one, other), None);
    }
    let row = &rows_of(&path)[0];
    assert_eq!(row["messages"][2]["tool_calls"][0]["function"]["name"], "find_order");
    assert_eq!(row["licence"], "MIT OR Apache-2.0");
    assert_eq!(row["gold"], String::from_utf8(crate::manifest::canonical(&all[0].gold)).unwrap());
}

#[test]
fn the_same_episodes_give_the_same_bytes_and_long_files_several_row_groups() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, all) = written(one.path());
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes, std::fs::read(written(two.path()).0).unwrap());
    let mut long = all[0].clone();
    long.turns[0].content = "snow ".repeat(1 << 20);
    let mut writer = Writer::new(ExportFormat::Parquet, two.path(), "long").unwrap();
    (0..16).for_each(|_| writer.write(&long).unwrap());
    let path = writer.finish().unwrap().files.remove(0);
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 16);
    assert_eq!(reader.metadata().num_row_groups(), 3, "of 32 MiB of JSON each");
}

#[test]
fn pyarrow_reads_it_where_there_is_one() {
    let python = |script: &str| Command::new("python3").args(["-c", script]).output();
    if !python("import pyarrow.parquet").is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3 cannot import pyarrow.parquet");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, all) = written(folder.path());
    let script = format!(
        "import pyarrow.parquet as p\nt = p.read_table({:?})\nr = t.to_pylist()\n\
         print(len(r), r[0]['messages'][2]['tool_calls'][0]['function']['arguments'], \
         r[0]['messages'][2]['weight'], r[0]['licence'], r[0]['messages'][2]['content'])",
        path.display().to_string()
    );
    let output = python(&script).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted = format!("{} {{\"number\":\"A-17\"}} 1 MIT OR Apache-2.0 None", all.len());
    assert_eq!(said.trim(), wanted, "{}", String::from_utf8_lossy(&output.stderr));
}
