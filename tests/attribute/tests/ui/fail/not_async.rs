#[delouse::main]
fn not_async() {}

fn main() {}
