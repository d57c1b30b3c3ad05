#[delouse::main("multi_thread")]
async fn literal() {}

#[delouse::main(flavor =)]
async fn no_value() {}

#[delouse::main(worker_threads = 1 name = "a")]
async fn no_comma() {}

#[delouse::main(, )]
async fn only_a_comma() {}

fn main() {}
