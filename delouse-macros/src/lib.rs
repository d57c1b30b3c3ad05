//! The attribute `#[delouse::main]`: parse, expand, nothing else.
