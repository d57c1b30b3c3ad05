//! Captures of real processes: this test program itself, started again as one of the scenarios in `scenarios.rs`.

mod awkward;
mod captures;
mod deaths;
mod figures;
mod harness;
mod limits;
mod scenarios;
