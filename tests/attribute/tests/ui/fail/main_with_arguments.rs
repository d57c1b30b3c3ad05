// In a module, where rustc does not mind.
mod inner {
    #[delouse::main]
    async fn main(_arguments: Vec<String>) {}
}

fn main() {}
