struct Orders {
    open: Vec<String>,
}

#[delouse::main]
async fn main() {
    let orders = Orders { open: Vec::new() };
    orders.
}
