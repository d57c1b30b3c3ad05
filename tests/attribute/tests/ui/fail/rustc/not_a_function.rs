#[delouse::main]
struct NotAFunction;

#[delouse::main]
async fn no_body();

fn main() {}
