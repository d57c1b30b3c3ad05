//! Prints answers to stdout, in the format that was asked for.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use super::error::CliError;
use crate::report::format::FULL_HINT;
use crate::report::formats::{Document, Format, PPROF, Renderer, Renders, TEXT};
use crate::report::json::{LIST_END, LongList};

/// Parameters and endpoints of the server that texts mention, and what they are called on the command line.
const COMMANDS: [(&str, &str); 3] = [
    (FULL_HINT, "(--full shows them)"),
    ("in /stacktrace/rust", "with `delouse threads`"),
    ("by /stacktrace/tokio", "by `delouse tasks`"),
];

/// Prints `answer` in `format`.
///
/// # Errors
/// If the answer does not have this format, or stdout cannot be written to. A closed pipe is not an error.
pub(super) fn print<A: Renders>(answer: &mut A, format: Format) -> Result<(), CliError> {
    let renderer = A::RENDERERS.iter().find(|renderer| renderer.format == format);
    let Renderer { render, .. } = renderer.ok_or_else(|| {
        let names: Vec<&str> = A::RENDERERS.iter().map(|renderer| renderer.format.name).collect();
        CliError::Usage(format!("this answer has no format {}: use {}", format.name, names.join(" or ")))
    })?;
    if format == PPROF && io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "a pprof profile is binary: write it to a file, `… --format pprof >tasks.pb.gz`".to_owned(),
        ));
    }
    let failed = |error: serde_json::Error| CliError::Output(error.into());
    let document = render(answer).map_err(failed)?;
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let written = match document {
        Document::Whole(bytes) if format == TEXT => {
            write_text(&mut out, &String::from_utf8_lossy(&bytes), has_colours())
        }
        Document::Whole(bytes) if format == PPROF => out.write_all(&bytes),
        Document::Whole(bytes) => out.write_all(&bytes).and_then(|()| end_line(&mut out, &bytes)),
        Document::List(list) => write_list(&mut out, &list),
    };
    finish(written.and_then(|()| out.flush()))
}

/// Writes a list item by item, because all items together can be larger than the memory that is available.
fn write_list(out: &mut impl Write, list: &LongList) -> io::Result<()> {
    out.write_all(&list.head)?;
    let mut item = Vec::new();
    for index in 0.. {
        item.clear();
        let Some(written) = list.items.write(index, &mut item) else { break };
        written?;
        if index > 0 {
            out.write_all(b",")?;
        }
        out.write_all(&item)?;
    }
    writeln!(out, "{LIST_END}")
}

/// Writes bytes to stdout, and a newline if they do not end with one.
pub(super) fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    finish(out.write_all(bytes).and_then(|()| end_line(&mut out, bytes)).and_then(|()| out.flush()))
}

/// The result of writing to stdout. A closed pipe is not an error: in `delouse tasks … | head`, `head` closes it early.
fn finish(written: io::Result<()>) -> Result<(), CliError> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(()),
    }
}

fn end_line(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    if bytes.ends_with(b"\n") { Ok(()) } else { out.write_all(b"\n") }
}

/// Whether to use colours: only on a terminal that supports them, and not if `NO_COLOR` (no-color.org) is set.
fn has_colours() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Replaces control characters: names and texts that other programs chose must not control the terminal.
pub(super) fn safe(text: &str) -> String {
    let safe = |letter: char| {
        if letter.is_control() && !matches!(letter, '\n' | '\t') { '\u{fffd}' } else { letter }
    };
    text.chars().map(safe).collect()
}

/// Writes text for people, and replaces what only the server has, see [`COMMANDS`]. With colours, lines without indentation
/// are bold, and lines of the program's own code are yellow.
fn write_text(out: &mut impl Write, text: &str, colours: bool) -> io::Result<()> {
    let text = safe(text);
    let text = COMMANDS.iter().fold(text, |text, (name, command)| text.replace(name, command));
    for line in text.lines() {
        let style = match line.chars().next() {
            _ if !colours => None,
            Some(first) if !first.is_whitespace() => Some("1"),
            Some(_) if line.trim_start().starts_with('→') => Some("33"),
            _ => None,
        };
        match style {
            Some(style) => writeln!(out, "\x1b[{style}m{line}\x1b[0m")?,
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_adapted_to_the_command_line_and_coloured_by_line() {
        let text = "Deadlock\n  task 1 (?full=true shows them)\n    → app::main\n";
        let written = |colours| {
            let mut out = Vec::new();
            write_text(&mut out, text, colours).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut out = Vec::new();
        write_text(&mut out, "a\x1b[2Jb\n", false).unwrap();
        assert_eq!(out, "a\u{fffd}[2Jb\n".as_bytes());
        assert_eq!(written(false), "Deadlock\n  task 1 (--full shows them)\n    → app::main\n");
        assert_eq!(
            written(true),
            "\x1b[1mDeadlock\x1b[0m\n  task 1 (--full shows them)\n\x1b[33m    → app::main\x1b[0m\n"
        );
    }
}
