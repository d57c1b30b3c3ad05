//! One task for every kind of wait. Each task states the line of its source at which it waits, and the resource. The
//! program prints these as JSON when all tasks have stated theirs, and ends when its stdin closes. With `WAIT_KINDS_DUMP` in
//! the environment, it prints the traces of tokio's own dump on a second line.
//!
//! `wait_kinds current_thread` runs the tasks on a runtime with one thread, `wait_kinds local_set` on a `LocalSet`. With the
//! feature `inside`, the program has delouse's server in it.

mod aligned;
mod cases;
#[cfg(all(tokio_unstable, feature = "taskdump"))]
mod dump;
#[cfg(not(feature = "old-tokio"))]
mod http_kinds;
mod io_kinds;
mod library_kinds;
mod locals;
mod same_names;
mod shadowed;
mod shapes;
mod tokio_kinds;
mod trait_objects;
#[cfg(not(feature = "old-tokio"))]
mod web;
mod woken;

use cases::Cases;

fn main() {
    match std::env::args().nth(1).as_deref() {
        None => multi_thread(),
        Some("current_thread") => current_thread(),
        Some("local_set") => local_set(),
        Some(other) => println!("current_thread or local_set, not {other}"),
    }
}

#[cfg_attr(feature = "inside", delouse::main(worker_threads = 2))]
#[cfg_attr(not(feature = "inside"), tokio::main(worker_threads = 2))]
async fn multi_thread() {
    waits(Cases::default()).await;
}

#[cfg_attr(feature = "inside", delouse::main(flavor = "current_thread"))]
#[cfg_attr(not(feature = "inside"), tokio::main(flavor = "current_thread"))]
async fn current_thread() {
    waits(Cases::default()).await;
}

#[cfg_attr(feature = "inside", delouse::main(flavor = "current_thread"))]
#[cfg_attr(not(feature = "inside"), tokio::main(flavor = "current_thread"))]
async fn local_set() {
    tokio::task::LocalSet::new().run_until(waits(Cases::on_a_local_set())).await;
}

/// Starts all tasks, and waits with them.
async fn waits(cases: Cases) {
    tokio_kinds::spawn(&cases);
    shapes::spawn(&cases);
    locals::spawn(&cases);
    library_kinds::spawn(&cases);
    io_kinds::spawn(&cases);
    same_names::spawn(&cases);
    shadowed::spawn(&cases);
    aligned::spawn(&cases);
    trait_objects::spawn(&cases);
    woken::spawn(&cases);
    #[cfg(not(feature = "old-tokio"))]
    web::spawn(&cases);
    #[cfg(not(feature = "old-tokio"))]
    http_kinds::spawn(&cases);
    cases.settled().await;
    println!("{}", cases.report());
    #[cfg(all(tokio_unstable, feature = "taskdump"))]
    if std::env::var_os("WAIT_KINDS_DUMP").is_some() {
        println!("{}", dump::traces().await);
    }
    cases.stdin_closed().await;
    std::process::exit(0);
}
