//! Writers: episodes out, in the forms that trainers and benchmarks read.
