//! Modules, unwinding and symbols of damaged files: an answer that is shorter, never a panic, a hang, or
//! memory without bound.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::image::Image;
use super::object_file::ObjectFile;
use super::symbols::Symbols;
use super::types::Types;
use super::unwind::Unwinder;
use crate::host::shared_bytes::SharedBytes;
use crate::snapshot::{
    Address, Capture, FileOffset, Hidden, Mapping, Registers, Snapshot, StackCopy, Thread,
};

const BASE: u64 = 0x5555_0000_0000;

/// A program so small that thousands of its mutations can be tried: no std, no libc.
const PROGRAM: &str = r#"
#![no_std]
#![no_main]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }
#[inline(always)]
fn inlined(n: u64) -> u64 { let m = unsafe { core::ptr::read_volatile(&n) }; m + 1 }
#[inline(never)]
fn outer<T: Into<u64>>(n: T) -> u64 { inlined(n.into()) * 3 }
#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! { loop { outer(7_u32); } }
"#;

fn program(directory: &Path, options: &[&str]) -> PathBuf {
    let source = directory.join("small.rs");
    std::fs::write(&source, PROGRAM).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .current_dir(directory)
        .args(["--edition", "2024", "-g", "-O", "-Cpanic=abort", "-Clink-arg=-nostartfiles"])
        .args(["-Clink-arg=-nostdlib", "-Cforce-unwind-tables=yes", "small.rs", "-o", "small"])
        .args(options)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    directory.join("small")
}

/// The addresses of its code, as the file states them.
fn code(layout: &ObjectFile) -> std::ops::Range<u64> {
    let code = layout.section_addresses(".text").unwrap();
    code.start.get()..code.end.get()
}

/// The process that runs the program at `path`, and its code.
fn run(path: &Path) -> (Process, std::ops::Range<u64>) {
    let bytes = std::fs::read(path).unwrap();
    let layout = ObjectFile::parse(SharedBytes::new(bytes.clone())).unwrap();
    let code = code(&layout);
    (Process::new(path, bytes, &layout, BASE + code.start + 1), code)
}

/// A process that runs the program in `bytes`, mapped as the kernel would.
struct Process {
    bytes: Vec<u8>,
    mappings: Vec<Mapping>,
    threads: Vec<Thread>,
    capture: Capture,
    segments: Vec<(u64, u64, u64)>,
}

impl Process {
    fn new(path: &Path, bytes: Vec<u8>, layout: &ObjectFile, pc: u64) -> Self {
        let mapping = |load: &super::object_file::Load| {
            let address = load.address.get();
            let skew = address % 4096;
            let start = BASE + address - skew;
            Mapping {
                range: Address::range(start..(BASE + address + load.memory_size).next_multiple_of(4096)),
                read: true,
                write: false,
                execute: load.execute,
                shared: false,
                offset: FileOffset::new(load.offset.get().saturating_sub(skew)),
                device: 0,
                inode: 0,
                path: Some(path.to_owned()),
            }
        };
        let stack: Vec<u8> = (0..512_u64).flat_map(|n| (pc + n % 64).to_le_bytes()).collect();
        let thread = Thread {
            name: "small".to_owned(),
            state: Some('R'),
            registers: Ok(Registers {
                pc: Address::new(pc),
                sp: Address::new(0x7fff_0000),
                fp: Hidden::new(0x7fff_0100),
                lr: pc,
                ..Registers::default()
            }),
            stack: Some(StackCopy { base: Address::new(0x7fff_0000), bytes: stack }),
            ..Thread::new(1)
        };
        Self {
            bytes,
            mappings: layout.loads().iter().map(mapping).collect(),
            threads: vec![thread],
            capture: Capture::default(),
            segments: layout
                .loads()
                .iter()
                .map(|l| (BASE + l.address.get(), l.file_size, l.offset.get()))
                .collect(),
        }
    }
}

impl Snapshot for Process {
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
        let address = address.get();
        let Some((start, size, offset)) =
            self.segments.iter().find(|(start, size, _)| (*start..start + size).contains(&address))
        else {
            return 0;
        };
        let n = buf.len().min((start + size - address) as usize);
        let from = (offset + address - start) as usize;
        buf[..n].copy_from_slice(&self.bytes[from..from + n]);
        n
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn threads(&self) -> &[Thread] {
        &self.threads
    }

    fn capture(&self) -> &Capture {
        &self.capture
    }
}

/// Everything that is done with a file; the names that were found.
fn look(process: &Process, code: &std::ops::Range<u64>) -> Vec<String> {
    let symbols = Symbols::new();
    let modules = symbols.modules(process);
    let mut unwinder = Unwinder::new(&modules, crate::snapshot::arch::host());
    unwinder.unwind(process, &process.threads[0]);
    let mut names = Vec::new();
    for address in code.clone().step_by(3).take(64) {
        let address = Address::new(BASE + address);
        if let Some(module) = modules.find(address) {
            names.extend(symbols.find(module, address).iter().filter_map(|l| l.function.clone()));
        }
    }
    names
}

fn peak_memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn damaged_files_never_panic() {
    // It measures the memory of its process.
    crate::isolation::isolated!();
    let directory = tempfile::tempdir().unwrap();
    let path = program(directory.path(), &[]);
    let good = std::fs::read(&path).unwrap();
    let layout = ObjectFile::parse(SharedBytes::new(good.clone())).unwrap();
    let code = code(&layout);
    let pc = BASE + code.start + 1;

    let names = look(&Process::new(&path, good.clone(), &layout, pc), &code);
    for name in ["small::outer::<u32>", "_start"] {
        let short = name.split("::<").next().unwrap();
        assert!(names.iter().any(|n| n.starts_with(short)), "{name} of {names:?}");
    }
    assert!(names.iter().any(|n| n.contains("inlined")), "{names:?}");

    let before = peak_memory_kb();
    let mut seed = 42_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let (mut slowest, mut changed) = (Duration::ZERO, 0);
    // More by hand: DELOUSE_FUZZ_ROUNDS=100000.
    let rounds = std::env::var("DELOUSE_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000);
    for round in 0..rounds {
        let mut bytes = good.clone();
        if round % 10 == 0 {
            bytes.truncate(random(good.len()).max(1));
        }
        // One time in three the headers; else anywhere, as DWARF and unwind tables are most of the file.
        let within = if round % 3 == 0 { 1024.min(bytes.len()) } else { bytes.len() };
        for _ in 0..1 + random(8) {
            let at = random(within);
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
        }
        std::fs::write(&path, &bytes).unwrap();
        bytes.resize(good.len(), 0);
        let start = Instant::now();
        changed += usize::from(look(&Process::new(&path, bytes, &layout, pc), &code) != names);
        slowest = slowest.max(start.elapsed());
    }
    let grown = peak_memory_kb() - before;
    println!(
        "3000 damaged files: {changed} gave another answer, slowest {slowest:?}, memory grew {grown} kB"
    );
    assert!(changed > 100, "the mutations must reach what is read");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert!(grown < 512 << 10, "{grown} kB");
}

/// Where the debug information lies, and in which form, makes no difference to what is found.
#[test]
fn debug_information_is_found_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (process, code) = run(&program(directory.path(), &[]));
    let expected = look(&process, &code);
    assert!(expected.iter().any(|n| n.contains("inlined")), "{expected:?}");

    for options in [
        &["-Csplit-debuginfo=packed"][..],
        &["-Csplit-debuginfo=unpacked"],
        &["-Csplit-debuginfo=packed", "-Cdwarf-version=4"],
        &["-Csplit-debuginfo=unpacked", "-Cdwarf-version=4"],
        &["-Clink-arg=-Wl,--compress-debug-sections=zlib"],
        &["-Clink-arg=-Wl,--compress-debug-sections=zstd"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = program(directory.path(), options);
        let (process, code) = run(&path);
        let found = look(&process, &code);
        assert_eq!(found, expected, "{options:?}");
    }

    let directory = tempfile::tempdir().unwrap();
    let path = program(directory.path(), &["-Clink-arg=-Wl,--build-id"]);
    let objcopy = |arguments: &[&str]| {
        Command::new("objcopy")
            .current_dir(directory.path())
            .args(arguments)
            .status()
            .is_ok_and(|s| s.success())
    };
    if !objcopy(&["--only-keep-debug", "small", "small.debug"]) {
        skipped!("no objcopy");
        return;
    }
    assert!(objcopy(&["--strip-all", "--add-gnu-debuglink=small.debug", "small"]));
    let (process, code) = run(&path);
    assert_eq!(look(&process, &code), expected, "separate debug file");

    // Of another build: nothing rather than something wrong.
    std::fs::remove_file(directory.path().join("small.debug")).unwrap();
    let (process, code) = run(&path);
    assert_eq!(look(&process, &code), Vec::<String>::new(), "stripped");
    let (threads, _) = crate::threads::stacks::stacks(&process, &Symbols::new());
    let place = format!("small+{:#x}", code.start + 1);
    assert_eq!(threads[0].frames[0].function.as_deref(), Some(place.as_str()), "{threads:#?}");
}

/// The advice names the file that is not there, not a setting of Cargo's.
#[test]
fn missing_parts_of_split_units_are_named() {
    let function = |path: &Path| {
        let image = Image::open(path).unwrap();
        let types = Types::open(&image);
        let named = types.symbols_with("_start");
        let start = named.iter().find(|symbol| symbol.name == b"_start").unwrap().address;
        (types.function(start).is_some(), types.missing())
    };
    for (option, part) in [("packed", "small.dwp"), ("unpacked", ".dwo")] {
        let directory = tempfile::tempdir().unwrap();
        let path = program(directory.path(), &[&format!("-Csplit-debuginfo={option}")]);
        assert_eq!(function(&path), (true, None));
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|extension| extension == "dwp" || extension == "dwo") {
                std::fs::remove_file(file).unwrap();
            }
        }
        let (found, missing) = function(&path);
        let missing = missing.unwrap();
        assert!(!found && missing.starts_with("put ") && missing.contains(part), "{missing}");
        // A package of another build is told from one that is not there.
        let other = tempfile::tempdir().unwrap();
        program(
            other.path(),
            &["-Csplit-debuginfo=packed", "-Cllvm-args=-inline-threshold=0", "-Cmetadata=other"],
        );
        std::fs::copy(other.path().join("small.dwp"), directory.path().join("small.dwp")).unwrap();
        assert!(function(&path).1.unwrap().contains("small.dwp is of another build"));
    }
}

/// The value of a thread local's symbol is an offset in the TLS segment, and no address.
#[test]
fn thread_locals_are_no_addresses() {
    let image = Image::open(&std::env::current_exe().unwrap()).unwrap();
    let (size, symbols) = (image.tls().unwrap().size, image.symbols());
    let locals: Vec<_> = image.thread_locals().filter(|(name, _)| name.starts_with(b"_")).collect();
    assert!(!locals.is_empty());
    for (name, offset) in locals {
        let shown = String::from_utf8_lossy(name);
        assert!(offset < size, "{shown} at {offset:#x}");
        assert!(!symbols.iter().any(|symbol| symbol.name == name), "{shown}");
    }
}
