#[delouse::main(delouse = "nowhere")]
async fn main() {
    println!("ready");
}
