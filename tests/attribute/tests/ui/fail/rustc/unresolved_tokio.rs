#[delouse::main(crate = "nowhere")]
async fn main() {
    println!("ready");
}
