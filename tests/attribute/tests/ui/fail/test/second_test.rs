#[delouse::test]
#[test]
async fn twice() {}

#[delouse::test]
#[::core::prelude::v1::test]
async fn by_its_path() {}

#[delouse::test]
fn not_async() {}

fn main() {}
