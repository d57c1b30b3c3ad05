//! The command `delouse`.

fn main() -> std::process::ExitCode {
    delouse::cli::run()
}
