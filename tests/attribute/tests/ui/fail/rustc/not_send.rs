use std::rc::Rc;

#[delouse::main]
async fn main() {
    let local = Rc::new(7132);
    tokio::spawn(async move { println!("{local}") });
    println!("main itself may hold one");
}
