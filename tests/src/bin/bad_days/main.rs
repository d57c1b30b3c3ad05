//! One day in the life of a program, bad or good: `bad_days CASE` sets the case up and prints a line of JSON when
//! it stands, with what a reader must be told; `bad_days list` prints the cases.

mod blocking;
mod deadlocks;
mod guards;
mod handles;
mod joins;
mod leaks;
mod services;
mod shadowed;
mod stage;
mod stuck;

use stage::Case;

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        deadlocks::CASES,
        leaks::CASES,
        stuck::CASES,
        blocking::CASES,
        guards::CASES,
        handles::CASES,
        joins::CASES,
        services::CASES,
        shadowed::CASES,
    ]
    .into_iter()
    .flatten()
}

#[delouse::main(worker_threads = 2)]
async fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if wanted == "list" {
        for case in cases() {
            println!("{}", case.line());
        }
        return;
    }
    match cases().find(|case| case.name == wanted) {
        Some(case) => (case.run)().await,
        None => {
            eprintln!("no such case; `list` prints them");
            std::process::exit(2);
        }
    }
}
