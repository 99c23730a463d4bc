//! Parquet: one row an episode, with OpenAI's messages.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::Compression;
use ::parquet::file::properties::WriterProperties;
use arrow_json::ReaderBuilder;
use arrow_json::reader::Decoder;
use arrow_schema::{DataType, Field, Fields, Schema};
use serde_json::{Map, Value};

use super::ExportError;
use super::extra;
use super::file::Target;
use super::openai::{Style, messages, tools};
use crate::episode::{Episode, json_text};

/// Rows of a batch at most: so many are decoded at once.
const BATCH_ROWS: usize = 256;
/// Bytes of JSON in a row group at most, a row aside: so much is held in memory.
const GROUP_BYTES: usize = 32 << 20;

/// Makes the row of an episode as it is read back: columns come later. An episode without an
/// answer to train on has no message of weight 1.
pub(super) fn row(episode: &Episode) -> Result<Map<String, Value>, String> {
    let mut row = Map::new();
    row.insert("id".to_owned(), Value::from(episode.source.external_id.as_str()));
    row.insert("messages".to_owned(), messages(episode, Style::Columns)?);
    row.insert("tools".to_owned(), Value::from(tools(&episode.tools).to_string()));
    Ok(row)
}

/// A Parquet file under way.
pub(super) struct Columns {
    target: Target,
    writer: ArrowWriter<File>,
    decoder: Decoder,
    batch_rows: usize,
    batch_bytes: usize,
    group_bytes: usize,
}

impl Columns {
    pub(super) fn new(target: Target) -> Result<Self, ExportError> {
        let schema = Arc::new(schema());
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by("ledger".to_owned())
            .build();
        let writer = ArrowWriter::try_new(target.open()?, Arc::clone(&schema), Some(properties))
            .map_err(|error| target.columns(error))?;
        let decoder = ReaderBuilder::new(schema)
            .with_batch_size(BATCH_ROWS)
            .build_decoder()
            .map_err(|error| target.columns(error))?;
        Ok(Self { target, writer, decoder, batch_rows: 0, batch_bytes: 0, group_bytes: 0 })
    }

    pub(super) fn write(
        &mut self,
        episode: &Episode,
        mut row: Map<String, Value>,
    ) -> Result<(), ExportError> {
        for (column, text) in [
            ("source", &episode.source.name),
            ("licence", &episode.licence),
            ("attribution", &episode.attribution),
            ("track", &episode.track),
            ("query", &episode.query),
        ] {
            row.insert(column.to_owned(), Value::from(text.as_str()));
        }
        let gold = serde_json::to_value(&episode.gold).unwrap_or_default();
        row.insert("gold".to_owned(), Value::from(json_text(&gold)));
        let metadata = row.remove(extra::MEMBER).unwrap_or_default();
        row.insert(extra::MEMBER.to_owned(), Value::from(json_text(&metadata)));
        let row = Value::Object(row);
        self.batch_bytes += row.to_string().len();
        self.batch_rows += 1;
        self.decoder.serialize(&[row]).map_err(|error| self.target.columns(error))?;
        // One row may be long: a batch ends with its bytes, too.
        if self.batch_rows >= BATCH_ROWS || self.batch_bytes >= GROUP_BYTES {
            self.end_batch()?;
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), ExportError> {
        let batch = self.decoder.flush().map_err(|error| self.target.columns(error))?;
        if let Some(batch) = batch {
            self.writer.write(&batch).map_err(|error| self.target.columns(error))?;
        }
        self.group_bytes += self.batch_bytes;
        (self.batch_rows, self.batch_bytes) = (0, 0);
        if self.group_bytes >= GROUP_BYTES {
            self.writer.flush().map_err(|error| self.target.columns(error))?;
            self.group_bytes = 0;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<PathBuf, ExportError> {
        self.end_batch()?;
        let file = self.writer.into_inner().map_err(|error| self.target.columns(error))?;
        self.target.finish(&file)
    }
}

/// The columns. `tools`, `gold` and `metadata` are JSON: their shape differs from row to row.
fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let maybe = |name: &str| Field::new(name, DataType::Utf8, true);
    let list = |name: &str, inner: Vec<Field>, is_nullable: bool| {
        let item = Field::new("item", DataType::Struct(Fields::from(inner)), false);
        Field::new(name, DataType::List(Arc::new(item)), is_nullable)
    };
    let function = DataType::Struct(Fields::from(vec![text("name"), text("arguments")]));
    let call = vec![text("id"), text("type"), Field::new("function", function, false)];
    let message = vec![
        text("role"),
        maybe("content"),
        list("tool_calls", call, true),
        maybe("tool_call_id"),
        Field::new("weight", DataType::Int32, true),
    ];
    let mut columns = vec![text("id"), list("messages", message, false)];
    columns.extend(
        ["tools", "gold", "query", "track", "source", "licence", "attribution", "metadata"]
            .map(text),
    );
    Schema::new(columns)
}
