//! How long a scrape of `/metrics` takes: 1,000 of them on one connection, one after the other, of a program without tasks and
//! of one with 10,000. Beside them a request that reads nothing, `GET /history`: the cost of HTTP.
//!
//! ```sh
//! cargo bench -p delouse-tests --bench metrics
//! ```

use std::time::{Duration, Instant};

use delouse_tests::controlled::Controlled;
use delouse_tests::measure::show;
use delouse_tests::wire::Wire;
use delouse_tests::{Program, program};

const REQUESTS: usize = 1_000;

fn main() {
    println!("| tasks | path | median | 99 of 100 | longest |");
    println!("| ---: | --- | ---: | ---: | ---: |");
    for tasks in ["0", "10000"] {
        let mut command = program!("many_tasks");
        command.args([tasks, "plain"]);
        let program = Controlled::of(Program::start(command)).program;
        for path in ["/history", "/metrics"] {
            let mut times = scrapes(&program, path);
            times.sort();
            let at = |percent: usize| show(times[(times.len() - 1) * percent / 100]);
            println!("| {tasks} | `{path}` | {} | {} | {} |", at(50), at(99), at(100));
        }
    }
}

fn scrapes(program: &Program, path: &str) -> Vec<Duration> {
    let mut wire = Wire::connect(program.address()).expect("it listens");
    let mut request = || {
        let begun = Instant::now();
        let head = wire.ask("GET", path, &[]).expect("an answer");
        let body = wire.body(&head).expect("a body");
        assert!(head.status == 200 && !body.is_empty(), "{path}: {}", head.status);
        begun.elapsed()
    };
    let _first = request();
    (0..REQUESTS).map(|_| request()).collect()
}
