//! Executors and faces: everything that works, and everything that people and programs touch.
//!
//! Executors read projections and append events; they are given the notebook, the actor and a
//! place to talk. This is the only crate with network, devices and a runtime.

pub mod adapters;
pub mod build;
pub mod capture;
pub mod cli;
pub mod demo;
pub mod error;
pub mod eval;
pub mod forget;
pub mod hub;
pub mod lab;
pub mod measure;
pub mod promote;
pub mod prompt;
pub mod replay;
pub mod rows;
pub mod serve;
pub mod train;
