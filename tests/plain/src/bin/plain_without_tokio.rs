//! A Rust program that has no tasks.

fn main() {
    println!("ready");
    loop {
        std::thread::park();
    }
}
