//! Faulty and healthy states of programs: `scenarios CASE` sets a case up and then prints a line of JSON with what a
//! diagnosis must report; `scenarios list` prints the cases.

mod around_calls;
mod blocking;
mod blocking_pools;
mod busy;
mod combinators;
mod connections;
mod deadlocks;
mod driven;
mod finished;
mod from_reports;
mod graceful;
mod guards;
mod handles;
mod harness;
mod http2;
mod joins;
mod leaks;
mod notices;
mod observed;
mod other_locks;
mod own_locks;
mod pool;
mod queues;
mod runtime_stands_still;
mod services;
mod shadowed;
mod stuck;
mod thread_waits;
mod unknown_healthy;
mod unknown_primitives;
mod unpolled_by_hand;
mod unproven;

use harness::{Case, Run, Start};

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        deadlocks::CASES,
        driven::CASES,
        leaks::CASES,
        stuck::CASES,
        blocking::CASES,
        blocking_pools::CASES,
        busy::CASES,
        finished::CASES,
        http2::CASES,
        guards::CASES,
        handles::CASES,
        joins::CASES,
        notices::CASES,
        observed::CASES,
        unproven::CASES,
        queues::CASES,
        services::CASES,
        shadowed::CASES,
        pool::CASES,
        combinators::CASES,
        connections::CASES,
        other_locks::CASES,
        unknown_primitives::CASES,
        unknown_healthy::CASES,
        own_locks::CASES,
        graceful::CASES,
        runtime_stands_still::CASES,
        unpolled_by_hand::CASES,
        thread_waits::CASES,
        from_reports::CASES,
        around_calls::CASES,
    ]
    .into_iter()
    .flatten()
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if wanted == "list" {
        for case in cases() {
            println!("{}", case.line());
        }
        return;
    }
    match cases().find(|case| case.name == wanted).map(|case| &case.run) {
        Some(Start::Shared(run)) => shared(*run),
        Some(Start::Own(run)) => run(),
        None => {
            eprintln!("no such case; `list` prints them");
            std::process::exit(2);
        }
    }
}

#[delouse::main(worker_threads = 2)]
async fn shared(run: fn() -> Run) {
    run().await;
}
