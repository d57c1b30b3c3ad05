#[delouse::main(flavor = "foo", worker_threads = 0, bind = "localhost", nope = 1, 7, name = "a" "b", start_paused)]
async fn arguments() {}

// What an unknown flavor would have gone with is not guessed at.
#[delouse::main(flavor = "foo", worker_threads = 4, start_paused = true)]
async fn unknown_flavor() {}

#[delouse::main(flavor = "local", worker_threads = 4, worker_threads = 5, foo)]
async fn option_of_another_flavor() {}

mod inner {
    #[delouse::main(worker_threads = 0)]
    fn main(_arguments: Vec<String>) {}
}

#[delouse::main(worker_threads = 0)]
struct NotAFunction;

// The crates' names still hold where something else is wrong: no error but the one.
mod renamed {
    use {::delouse as bugs, ::tokio as tokio_one};

    mod delouse {}
    mod tokio {}

    #[bugs::main(delouse = "bugs", crate = "tokio_one", worker_threads = 0)]
    async fn function() {
        println!("ready");
    }
}

fn main() {}
