// What of it is not `const` differs with debug on.
#[delouse::main]
const async fn constant() {}

fn main() {}
