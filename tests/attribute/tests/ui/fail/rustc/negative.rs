// A compiler that joins spans underlines the sign and the digit.
#[delouse::main(worker_threads = -1)]
async fn negative() {}

fn main() {}
