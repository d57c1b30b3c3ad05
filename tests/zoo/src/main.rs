//! One task for every kind of waiting, each of which says at which line of its own source it waits, and
//! for what. Prints that as JSON when all have got there, then stays until its stdin closes. With `ZOO_DUMP` in the
//! environment, a second line holds what tokio's own dump sees.

mod aligned;
#[cfg(all(tokio_unstable, feature = "taskdump"))]
mod dump;
mod keeper;
mod locals;
mod same_names;
mod shadowed;
mod shapes;
mod tokio_kinds;
mod trait_objects;
mod wait_kinds;
#[cfg(not(feature = "old-tokio"))]
mod wait_kinds_http;
mod wait_kinds_io;
#[cfg(not(feature = "old-tokio"))]
mod web;

use keeper::Keeper;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let keeper = Keeper::default();
    tokio_kinds::spawn(&keeper);
    shapes::spawn(&keeper);
    locals::spawn(&keeper);
    wait_kinds::spawn(&keeper);
    wait_kinds_io::spawn(&keeper);
    same_names::spawn(&keeper);
    shadowed::spawn(&keeper);
    aligned::spawn(&keeper);
    trait_objects::spawn(&keeper);
    #[cfg(not(feature = "old-tokio"))]
    web::spawn(&keeper);
    #[cfg(not(feature = "old-tokio"))]
    wait_kinds_http::spawn(&keeper);
    keeper.settled().await;
    println!("{}", keeper.report());
    #[cfg(all(tokio_unstable, feature = "taskdump"))]
    if std::env::var_os("ZOO_DUMP").is_some() {
        println!("{}", dump::traces().await);
    }
    keeper.closing_time().await;
    std::process::exit(0);
}
