//! The command `delouse`: the answers of the server for a process, a core file or a server, in a terminal.

mod arguments;
mod core_file;
mod debuginfod;
mod diff;
mod error;
mod file_kind;
mod local;
mod output;
mod progress;
mod remote;
#[cfg_attr(not(target_os = "linux"), path = "no_run.rs")]
mod run;
#[cfg_attr(not(target_os = "linux"), path = "no_serve.rs")]
mod serve;
mod subject;
#[cfg_attr(not(target_os = "linux"), path = "no_watch.rs")]
mod watch;
mod whole_file;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::report::formats::Renders;
use crate::report::{DiagnosisAnswer, Filter, WaitsAnswer};
use arguments::{Arguments, Command, Output, Selection};
use error::CliError;
use subject::Place;

/// Exit status: the command succeeded, and found nothing wrong if it searched for that.
const SUCCESS: u8 = 0;
/// Exit status: there is no answer.
const FAILED: u8 = 1;
/// Exit status: something is wrong with the program.
const FINDINGS: u8 = 2;

/// Runs the command with the arguments of this process.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap's own status for an error means findings here.
            let status = if error.use_stderr() { FAILED } else { SUCCESS };
            let _closed = error.print();
            return ExitCode::from(status);
        }
    };
    match execute(arguments.command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _closed = writeln!(io::stderr(), "delouse: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn execute(command: Command) -> Result<u8, CliError> {
    match command {
        Command::Diagnose { subject, output, seconds } => {
            diagnose(&subject::parse(subject)?, &output, seconds)
        }
        Command::Tasks { subject, output, selection } => {
            tasks(&subject::parse(subject)?, &output, &selection)
        }
        Command::Threads { subject, output } => {
            let mut answer = match subject::parse(subject)? {
                Place::Local(local) => local.ask(|program| Ok(program.threads(output.full)?))?,
                Place::Remote(server) => server.threads(output.full)?,
            };
            print(&mut answer, &output)
        }
        Command::Waits { subject, output } => {
            let mut answer = match subject::parse(subject)? {
                Place::Local(local) => local.ask_of_tasks(|program| program.waits())?,
                Place::Remote(server) => server.get::<WaitsAnswer>("/waits", &[])?,
            };
            let status = status_of_waits(&answer);
            print(&mut answer, &output)?;
            status
        }
        Command::Core { subject, output } => core(&subject::parse(subject)?, output.as_deref()),
        Command::Serve { subject, bind } => serve::serve(subject, bind.as_deref()),
        Command::Watch { subject, every, dir } => watch::watch(subject, every, dir.as_deref()),
        Command::Elf { subject, output } => elf(subject, &output),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "delouse", &mut text);
            output::write(&text)?;
            Ok(SUCCESS)
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut text).map_err(CliError::Output)?;
            output::write(&text)?;
            Ok(SUCCESS)
        }
        Command::Diff { before, after, output } => {
            let diff::Compared { mut answer, new_findings } = diff::compare(&before, &after)?;
            print(&mut answer, &output)?;
            Ok(if new_findings { FINDINGS } else { SUCCESS })
        }
        Command::Run { hang_after, capture, program } => run::run(&program, hang_after, &capture),
    }
}

fn print<A: Renders>(answer: &mut A, output: &Output) -> Result<u8, CliError> {
    output::print(answer, output.format())?;
    Ok(SUCCESS)
}

fn diagnose(place: &Place, output: &Output, seconds: Option<u64>) -> Result<u8, CliError> {
    let mut answer = match place {
        Place::Local(local) => local.diagnosis(seconds)?,
        Place::Remote(server) => {
            let seconds = seconds.map(|seconds| seconds.to_string());
            let parameters: Vec<_> = seconds.iter().map(|n| ("seconds", n.as_str())).collect();
            server.get::<DiagnosisAnswer>("/diagnosis", &parameters)?
        }
    };
    let status = status_of(&answer);
    print(&mut answer, output)?;
    status
}

/// The exit status of a diagnosis.
fn status_of(answer: &DiagnosisAnswer) -> Result<u8, CliError> {
    if !answer.findings.is_empty() {
        return Ok(FINDINGS);
    }
    if answer.not_covered.is_empty() { Ok(SUCCESS) } else { Err(CliError::Unknown(answer.summary.clone())) }
}

/// The same of an answer of `waits`: that nothing was found says something only if the search was not cut.
fn status_of_waits(answer: &WaitsAnswer) -> Result<u8, CliError> {
    if !answer.findings.is_empty() {
        return Ok(FINDINGS);
    }
    match answer.not_covered.as_slice() {
        [] => Ok(SUCCESS),
        missing => Err(CliError::Unknown(format!(
            "cannot tell whether tasks wait for one another: could not read {}",
            missing.join("; ")
        ))),
    }
}

fn tasks(place: &Place, output: &Output, selection: &Selection) -> Result<u8, CliError> {
    let Selection { task, state, kind, text } = selection;
    // Checked here for a server, too.
    let filter = Filter::parse(task.as_deref(), *state, *kind, text.as_deref())?;
    let mut answer = match place {
        Place::Local(local) => local.ask_of_tasks(|program| program.tasks(&filter, output.full))?,
        Place::Remote(server) => server.tasks(selection, output.full)?,
    };
    print(&mut answer, output)
}

fn elf(subject: arguments::Subject, output: &Output) -> Result<u8, CliError> {
    if let Some(mut info) = local::elf_of_file(&subject)? {
        return print(&mut info, output);
    }
    match subject::parse(subject)? {
        Place::Local(local) => print(&mut local.elf()?, output),
        Place::Remote(server) => {
            let info = server.rendered("/elf/info", output.format())?;
            output::write(output::safe(&String::from_utf8_lossy(&info)).as_bytes())?;
            Ok(SUCCESS)
        }
    }
}

fn core(place: &Place, output: Option<&Path>) -> Result<u8, CliError> {
    match place {
        Place::Remote(server) => {
            let path = server.core(output)?;
            let _closed = writeln!(io::stderr(), "delouse: wrote {}", path.display());
            Ok(SUCCESS)
        }
        Place::Local(local) => {
            let image = local.core_image()?;
            let written = core_file::write(&image, output)?;
            // The process reaps the image before the command reports that it is done.
            drop(image);
            let _closed = writeln!(io::stderr(), "{written}");
            Ok(SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_search_that_was_cut_is_not_a_clean_bill() {
        let answer = |not_covered: &[&str]| -> WaitsAnswer {
            let capture = crate::snapshot::Capture::default();
            let json = serde_json::json!({
                "tasks": 1, "edges": [], "findings": [], "not_covered": not_covered, "capture": capture
            });
            serde_json::from_value(json).unwrap()
        };
        assert!(matches!(status_of_waits(&answer(&[])), Ok(SUCCESS)));
        let cut = status_of_waits(&answer(&["too much memory to find what holds what in time"])).unwrap_err();
        assert!(cut.to_string().contains("could not read too much memory"), "{cut}");
    }
}
