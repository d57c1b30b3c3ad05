#[delouse::test(timeout = "30")]
async fn without_a_unit() {}

#[delouse::test(timeout = "0s")]
async fn no_time() {}

#[delouse::test(timeout = 30)]
async fn a_number() {}

#[delouse::test(leaks = "ignore")]
async fn unknown_leaks() {}

#[delouse::test(bind = "127.0.0.1:7132")]
async fn bind() {}

#[delouse::main(timeout = "30s")]
async fn timeout_of_main() {}

fn main() {}
