//! Four tasks that spawn tasks as fast as they can, up to eight at a time each, and wait for their ends. A task that ends with
//! a wrong result ends the program.

use tokio::task::JoinSet;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let spawners: Vec<_> = (0..4).map(|number| tokio::spawn(spawns(number))).collect();
    println!("ready");
    for spawner in spawners {
        if spawner.await.is_err() {
            std::process::exit(1);
        }
    }
}

async fn spawns(number: u64) {
    for round in number.. {
        let mut tasks = JoinSet::new();
        for part in 0..8 {
            tasks.spawn(adds(round, part));
        }
        let mut sum = 0;
        while let Some(Ok(part)) = tasks.join_next().await {
            sum += part;
        }
        if sum != 8 * round + 28 {
            std::process::exit(1);
        }
    }
}

async fn adds(round: u64, part: u64) -> u64 {
    tokio::task::yield_now().await;
    round + part
}
