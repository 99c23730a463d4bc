//! Training: recipes, the work itself, and recording it.

mod forecast;
mod recipe;
mod run;
mod work;

pub use forecast::{Forecast, memory};
pub use recipe::Recipe;
pub use run::{Means, TrainWish, Trained, foresee, train, train_with_pilots};
pub use work::{Made, Plan, RowSet, Sink, Start, Work, outcome, started, way_of};
