//! Captures of real processes: this test program itself, started again as one of the scenarios in `scenarios.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by it")]

mod awkward;
mod captures;
mod deaths;
mod figures;
mod harness;
mod limits;
mod scenarios;
