//! Names that a careless page would take for markup: of a thread, and of a task's function.

use std::marker::PhantomData;
use std::thread;

/// `<img src=x>`, as far as names of types allow it.
#[allow(non_camel_case_types, reason = "that is what is tested")]
struct img<T>(PhantomData<T>);
#[allow(non_camel_case_types, reason = "that is what is tested")]
struct src;

/// Shown as `names::serve<page_names::img<page_names::src>>`.
async fn serve<T: Send>(_of: PhantomData<T>) {
    std::future::pending().await
}

#[delouse::main]
async fn main() -> std::io::Result<()> {
    let hostile = thread::Builder::new().name("<img src=x>".to_owned());
    let _parked = hostile.spawn(|| {
        loop {
            thread::park();
        }
    })?;
    let _task = tokio::spawn(serve(PhantomData::<img<src>>));
    println!("ready");
    std::future::pending().await
}
