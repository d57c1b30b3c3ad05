//! Stacks of a C program whose code has no unwind tables, or only those for debuggers.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::debuginfo::image::Image;
use crate::debuginfo::symbols::Symbols;
use crate::snapshot::{Address, Snapshot};
use crate::targets::core_file::CoreFile;
use crate::threads::ThreadStack;
use crate::threads::stacks::stacks;

/// Functions that keep the frame pointer's register, that use it for other things, and that move the stack pointer by an
/// amount that only the frame pointer undoes.
const PROGRAM: &str = r#"
#include <alloca.h>
#include <string.h>
#include <unistd.h>
#define APART __attribute__((noinline, noclone))
char *volatile sink;
APART long innermost(long n) {
    char room[200];
    memset(room, (int)n, sizeof room);
    sink = room;
    if (write(1, "READY\n", 6) != 6) return 0;
    return read(0, room, 1) + room[n % 200];
}
APART long moves_stack_pointer(long n) {
    char *room = alloca((size_t)n * 16);
    room[0] = (char)n;
    sink = room;
    return innermost(n + 1) + room[0];
}
APART long uses_registers(long a, long b, long c, long d, long e, long f) {
    long sum = moves_stack_pointer(a);
    for (long i = 0; i < a; i++) { sum += a * b; b ^= c; c += d * sum; d -= e; e ^= f; f += a; }
    return sum + a + b + c + d + e + f;
}
int main(int count, char **arguments) {
    (void)arguments;
    long n = count + 6;
    return (int)(uses_registers(n, n + 1, n + 2, n + 3, n + 4, n + 5) & 1);
}
"#;

const FUNCTIONS: [&str; 4] = ["innermost", "moves_stack_pointer", "uses_registers", "main"];

/// Compiles the program, if there is a compiler.
fn compile(directory: &Path, options: &[&str]) -> Option<PathBuf> {
    let source = directory.join("program.c");
    std::fs::write(&source, PROGRAM).unwrap();
    let program = directory.join("program");
    let without_tables = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fomit-frame-pointer"];
    let output = Command::new("cc")
        .args(["-O1", "-o"])
        .arg(&program)
        .arg(&source)
        .args(without_tables)
        .args(options)
        .output();
    match output {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skipped!("cc: {error}");
            return None;
        }
    }
    Some(program)
}

/// The stack of the program's only thread, from a core file by gcore.
fn stack(program: &Path) -> Option<(ThreadStack, CoreFile)> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "READY\n");
    let (prefix, pid) = (program.with_extension("core"), child.id().to_string());
    let output = Command::new("gcore").arg("-o").arg(&prefix).arg(&pid).output();
    drop(child.stdin.take());
    child.wait().unwrap();
    match output {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => {
            skipped!("gcore: {error}");
            return None;
        }
    }
    let core = CoreFile::open(&program.with_file_name(format!("program.core.{pid}"))).unwrap();
    let (mut threads, notes) = stacks(&core, &Symbols::new());
    assert_eq!((threads.len(), notes), (1, Vec::<String>::new()));
    Some((threads.remove(0), core))
}

/// Where the program's functions begin, in their order in memory.
fn starts(program: &Path) -> Vec<(String, u64)> {
    let image = Image::open(program).unwrap();
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let mut starts: Vec<_> =
        image.symbols().iter().map(|symbol| (name(symbol.name), symbol.address.get())).collect();
    starts.sort_by_key(|(_, start)| *start);
    starts
}

/// The functions of the program on the stack, by address, and how many of all frames are marked as guesses. `starts` is
/// of the same program with symbols.
fn functions(
    stack: &ThreadStack,
    core: &CoreFile,
    program: &Path,
    starts: &[(String, u64)],
) -> (Vec<String>, usize) {
    let first = core.mappings().iter().find(|mapping| mapping.path.as_deref() == Some(program)).unwrap();
    let base = first.range.start.checked_sub(first.offset.get()).unwrap();
    let mut found = Vec::new();
    for frame in &stack.frames {
        let address = u64::from_str_radix(frame.address.trim_start_matches("0x"), 16).unwrap();
        let address = Address::new(address);
        assert!(
            core.mapping(address).is_some_and(|mapping| mapping.execute),
            "{frame:?} is no code: {stack:#?}"
        );
        if frame.module.as_deref() != Some("program") {
            continue;
        }
        // Addresses in an executable that is not position-independent are those of the process.
        let is_fixed = starts[0].1 >= base.get();
        let within = if is_fixed { address.get() } else { address.offset_from(base).unwrap() } - 1;
        let after = starts.partition_point(|(_, start)| *start <= within);
        found.push(starts[after - 1].0.clone());
    }
    (found, stack.frames.iter().filter(|frame| frame.guessed).count())
}

/// What the instructions, or tables for debuggers, tell is no guess.
#[test]
fn stacks_without_tables_are_complete() {
    // With `-g`, the compiler writes `.debug_frame` instead of `.eh_frame`.
    for options in [&[][..], &["-g"], &["-static"], &["-static", "-g"]] {
        let directory = tempfile::tempdir().unwrap();
        let Some(program) = compile(directory.path(), options) else { return };
        let has_tables = std::fs::read(&program).unwrap().windows(13).any(|bytes| bytes == b".debug_frame\0");
        assert_eq!(has_tables, options.contains(&"-g"), "{options:?}");
        let Some((stack, core)) = stack(&program) else { return };
        let (functions, guesses) = functions(&stack, &core, &program, &starts(&program));
        let own: Vec<_> = functions.iter().filter(|name| FUNCTIONS.contains(&name.as_str())).collect();
        assert_eq!(own, FUNCTIONS.iter().collect::<Vec<_>>(), "{options:?}: {stack:#?}");
        assert_eq!((guesses, stack.truncated.as_deref()), (0, None), "{options:?}: {stack:#?}");
    }
}

/// Without symbols, the callers are searched for on the stack, and marked.
#[test]
fn guesses_are_marked() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = compile(directory.path(), &[]) else { return };
    let starts = starts(&program);
    if !Command::new("strip").arg(&program).status().is_ok_and(|status| status.success()) {
        skipped!("no strip");
        return;
    }
    let Some((stack, core)) = stack(&program) else { return };
    let (functions, guesses) = functions(&stack, &core, &program, &starts);
    let own: Vec<_> = functions.iter().filter(|name| FUNCTIONS.contains(&name.as_str())).collect();
    assert_eq!(own, FUNCTIONS.iter().collect::<Vec<_>>(), "{stack:#?}");
    assert!(guesses >= FUNCTIONS.len() - 1, "{stack:#?}");
    let text = crate::report::threads::text(&[stack], core.capture(), true);
    assert_eq!(
        text.matches("a guess: the code of the frame above has no unwind tables").count(),
        guesses,
        "{text}"
    );
}
