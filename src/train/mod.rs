//! Training: recipes, the work itself, and recording it.

mod recipe;
mod run;
mod work;

pub use recipe::Recipe;
pub use run::{TrainWish, Trained, train, train_with_pilots};
pub use work::{Made, Plan, RowSet, Sink, Start, Work, outcome, path_of, read_adapter, started};
