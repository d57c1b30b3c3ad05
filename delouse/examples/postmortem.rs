//! Prints the tasks of a core file, or of a running process: `postmortem EXECUTABLE CORE`, `postmortem PID`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let list = match arguments.as_slice() {
        [executable, core] => delouse::offline::tasks_of_core(Path::new(executable), Path::new(core))?,
        [pid] => delouse::offline::tasks_of_process(pid.parse()?)?,
        _ => return Err("usage: postmortem EXECUTABLE CORE | postmortem PID".into()),
    };
    println!("{}", serde_json::to_string_pretty(&list)?);
    Ok(())
}
