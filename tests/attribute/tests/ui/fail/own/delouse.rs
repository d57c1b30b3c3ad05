#[delouse::main(delouse = 1)]
async fn not_a_string() {}

#[delouse::main(delouse = "not a path")]
async fn not_a_path() {}

#[delouse::main(delouse)]
async fn no_value() {}

#[delouse::main(delouse = "::delouse", delouse = "::delouse")]
async fn twice() {}

fn main() {}
