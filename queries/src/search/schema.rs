//! The index's fields.

use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};

use super::tokens::WORDS;

/// A field that holds exact values, any number of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exact {
    Kind,
    Tool,
    Issue,
    Run,
    Label,
    Model,
    Source,
    Flag,
    Stratum,
    Outcome,
    Suite,
    Feedback,
    Licence,
    Format,
    Track,
    Case,
    Id,
    Target,
    Subject,
}

impl Exact {
    /// All of them, with their names, in the order of the enum.
    pub(super) const ALL: [(Self, &'static str); 19] = [
        (Self::Kind, "kind"),
        (Self::Tool, "tool"),
        (Self::Issue, "issue"),
        (Self::Run, "run"),
        (Self::Label, "label"),
        (Self::Model, "model"),
        (Self::Source, "source"),
        (Self::Flag, "flag"),
        (Self::Stratum, "stratum"),
        (Self::Outcome, "outcome"),
        (Self::Suite, "suite"),
        (Self::Feedback, "feedback"),
        (Self::Licence, "licence"),
        (Self::Format, "format"),
        (Self::Track, "track"),
        (Self::Case, "case"),
        (Self::Id, "id"),
        (Self::Target, "target"),
        (Self::Subject, "subject"),
    ];

    /// Returns its name in queries.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.get(self as usize).map_or("", |(_, name)| name)
    }

    /// Finds the field of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(field, _)| *field)
    }

    /// Tells whether its values can be counted: those that many documents share.
    pub(super) fn is_facet(self) -> bool {
        !matches!(self, Self::Case | Self::Id | Self::Target | Self::Subject)
    }

    /// Tells whether a document's values can be asked for.
    fn is_fast(self) -> bool {
        self.is_facet() || self == Self::Target
    }
}

/// A field that holds one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// Event.
    Seq,
    /// When it was appended, in microseconds since 1970.
    Time,
    /// How good an answer was.
    Score,
}

impl Number {
    /// All of them, with their names.
    pub(super) const ALL: [(Self, &'static str); 3] =
        [(Self::Seq, "seq"), (Self::Time, "time"), (Self::Score, "score")];

    /// Finds the field of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(field, _)| *field)
    }
}

/// The index's fields. Nothing is stored in it: what a hit says is made again from the record.
#[derive(Clone)]
pub(super) struct Fields {
    pub(super) schema: Schema,
    pub(super) text: Field,
    pub(super) seq: Field,
    pub(super) time: Field,
    pub(super) score: Field,
    exact: Vec<Field>,
}

impl Fields {
    pub(super) fn new() -> Self {
        let mut builder = Schema::builder();
        let words = TextFieldIndexing::default()
            .set_tokenizer(WORDS)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let text =
            builder.add_text_field("text", TextOptions::default().set_indexing_options(words));
        let seq = builder.add_u64_field("seq", INDEXED | FAST);
        let time = builder.add_i64_field("time", NumericOptions::default().set_fast());
        let score = builder.add_f64_field("score", NumericOptions::default().set_fast());
        let exact = Exact::ALL.iter().map(|(field, name)| {
            let whole = TextFieldIndexing::default()
                .set_tokenizer("raw")
                .set_fieldnorms(false)
                .set_index_option(IndexRecordOption::Basic);
            let options = TextOptions::default().set_indexing_options(whole);
            let options = if field.is_fast() { options | FAST } else { options };
            builder.add_text_field(name, options)
        });
        let exact = exact.collect();
        Self { schema: builder.build(), text, seq, time, score, exact }
    }

    /// Returns the index's field; none only where an index of another form was opened.
    pub(super) fn exact(&self, field: Exact) -> Option<Field> {
        self.exact.get(field as usize).copied()
    }

    pub(super) fn number(&self, number: Number) -> Field {
        match number {
            Number::Seq => self.seq,
            Number::Time => self.time,
            Number::Score => self.score,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_in_the_order_of_the_enum() {
        for (at, (field, name)) in Exact::ALL.iter().enumerate() {
            assert_eq!(*field as usize, at);
            assert_eq!(field.name(), *name);
            assert_eq!(Exact::named(name), Some(*field));
        }
    }
}
