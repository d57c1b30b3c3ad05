//! Names that a careless page would take for markup: of a thread, and of a future.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

/// Shown as `page_names::img<src>`: as much of `<img src=x>` as names of types allow.
#[allow(non_camel_case_types, reason = "that is what is tested")]
struct img<T>(PhantomData<T>);
#[allow(non_camel_case_types, reason = "that is what is tested")]
struct src;

impl<T> Future for img<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

async fn serve() {
    img(PhantomData::<src>).await;
}

#[delouse::main]
async fn main() -> std::io::Result<()> {
    let hostile = thread::Builder::new().name("<img src=x>".to_owned());
    let _parked = hostile.spawn(|| {
        loop {
            thread::park();
        }
    })?;
    let _task = tokio::spawn(serve());
    println!("ready");
    std::future::pending().await
}
