//! Prints a heartbeat once a second.
fn main() {}
