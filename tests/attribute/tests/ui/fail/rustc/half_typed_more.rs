struct Orders {
    open: Vec<String>,
}

#[delouse::main]
async fn completed() {
    let orders = Orders { open: Vec::new() };
    orders.closed;
    let first = ;
    orders.open
}

fn main() {}
