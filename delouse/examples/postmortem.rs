//! Prints the tasks of a core file, or of a running process: `postmortem EXECUTABLE CORE`, `postmortem PID`;
//! with `--json` or `--full` in front, as JSON or with every frame; with `--diagnosis`, what is wrong with them.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postmortem: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print() -> Result<(), Box<dyn Error>> {
    let (flags, arguments): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let flag = |name: &str| flags.iter().any(|flag| flag == name);
    if flag("--diagnosis") {
        let diagnosis = match arguments.as_slice() {
            [executable, core] => {
                delouse::offline::diagnosis_of_core(Path::new(executable), Path::new(core))?
            }
            [pid] => delouse::offline::diagnosis_of_process(pid.parse()?)?,
            _ => return Err("usage: postmortem --diagnosis EXECUTABLE CORE | PID".into()),
        };
        print!("{}", diagnosis.diagnosis);
        return Ok(());
    }
    let list = match arguments.as_slice() {
        [executable, core] => delouse::offline::tasks_of_core(Path::new(executable), Path::new(core))?,
        [pid] => delouse::offline::tasks_of_process(pid.parse()?)?,
        _ => return Err("usage: postmortem [--json|--full|--diagnosis] EXECUTABLE CORE | PID".into()),
    };
    if flag("--json") {
        println!("{}", serde_json::to_string_pretty(&list)?);
    } else {
        print!("{}", delouse::offline::text(&list, flag("--full")));
    }
    Ok(())
}
