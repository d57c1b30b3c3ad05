#[delouse::main]
async unsafe fn needs_unsafe() {}

fn main() {
    needs_unsafe();
}
