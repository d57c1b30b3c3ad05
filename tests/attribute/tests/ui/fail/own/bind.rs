#[delouse::main(bind = "localhost:7132")]
async fn host_name() {}

#[delouse::main(bind = "127.0.0.1")]
async fn no_port() {}

#[delouse::main(bind = "127.0.0.1:99999")]
async fn port_too_high() {}

#[delouse::main(bind = 7132)]
async fn not_a_string() {}

#[delouse::main(bind)]
async fn no_value() {}

#[delouse::main(bind = "127.0.0.1:1", bind = "127.0.0.1:2")]
async fn twice() {}

fn main() {}
