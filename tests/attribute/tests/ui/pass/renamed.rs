use {::delouse as bugs, ::tokio as tokio_one};

/// Would be found if the attribute took the default names.
mod tokio {}

#[bugs::main(delouse = "bugs", crate = "tokio_one", worker_threads = 1, bind = "127.0.0.1:0")]
async fn main() {
    tokio_one::task::yield_now().await;
}
