#[delouse::main]
async fn main() {
    let task = tokio::spawn(async { 7132 });
    assert_eq!(task.await.unwrap(), 7132);
}
