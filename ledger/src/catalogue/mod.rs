//! The catalogue: the facts of every kind of event, in their present form.
//!
//! When adding an event: write its struct here with `KIND` and `SCHEMA`, add it to the golden
//! files, say in which stream it stands, and keep out of it anything a replay cannot reproduce.
//! No `flatten` and no `untagged`: both make old readers misread new data.

mod capture;
mod data;
mod decisions;
mod record;
mod runs;

pub use capture::*;
pub use data::*;
pub use decisions::*;
pub use record::*;
pub use runs::*;

/// Gives a struct its kind and schema, and what lifts facts of older schemas, the oldest first.
macro_rules! facts {
    ($($name:ident = $kind:literal / $schema:literal $(from [$($lift:ident),*])?),* $(,)?) => {
        $(impl crate::event::Facts for $name {
            const KIND: &'static str = $kind;
            const SCHEMA: u32 = $schema;
            const UPCASTS: &'static [crate::event::Upcast] = &[$($($lift),*)?];
        })*
    };
}
pub(crate) use facts;
