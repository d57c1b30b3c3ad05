//! Damaged files: whatever the bytes, an answer or a typed error, soon, in little memory.
//!
//! The mutations run in a child process of this test whose address space is limited, so that one large
//! allocation fails the test.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::inspect;
use crate::debuginfo::separate::dwp_path;
use crate::host::random::Random;

const CHILD: &str = "DELOUSE_ELF_FUZZ_CHILD";
const ROUNDS: u32 = 2_500;
/// For the test's threads, the program itself and all that `inspect` holds: in KiB.
const ADDRESS_SPACE: u32 = 400 << 10;

/// A small library without std, whose debug information is its own.
const LIBRARY: &str = r#"
    #![no_std]
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }
    pub struct Pair { pub a: u32, pub b: Option<u8> }
    #[no_mangle]
    pub extern "C" fn sum(pair: &Pair) -> u32 { pair.a + pair.b.map_or(0, u32::from) }
"#;

/// Numbers that lengths and offsets are replaced by.
const ABSURD: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0xffff_fff0, u64::MAX >> 1, u64::MAX];

fn mutate(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    if random.below(8) == 0 {
        bytes.truncate(random.below(original.len()));
    }
    for _ in 0..1 + random.below(6) {
        // Half of the hits go to the headers at the beginning and the section headers at the end.
        let at = match random.below(4) {
            0 => random.below(bytes.len().min(1024)),
            1 => bytes.len().saturating_sub(1 + random.below(3072)),
            _ => random.below(bytes.len()),
        };
        match random.below(3) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => {
                let value = ABSURD[random.below(ABSURD.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                let place = bytes.iter_mut().skip(at).zip(value).take(width);
                place.for_each(|(byte, new)| *byte = new);
            }
            _ => {
                let (from, length) = (random.below(bytes.len()), random.below(64));
                let piece: Vec<u8> = bytes.iter().skip(from).take(length).copied().collect();
                bytes.iter_mut().skip(at).zip(piece).for_each(|(byte, new)| *byte = new);
            }
        }
    }
    bytes
}

fn build(directory: &Path, name: &str, options: &[&str]) {
    std::fs::write(directory.join("lib.rs"), LIBRARY).unwrap();
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    command.current_dir(directory).args(["lib.rs", "--crate-type=cdylib", "--edition=2021", "-o", name]);
    for option in ["panic=abort", "link-arg=-nostartfiles"].iter().chain(options) {
        command.args(["-C", option]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn fuzz(directory: &Path) {
    let mut random = Random::new(1);
    let target = directory.join("target.so");
    let mut slowest = Duration::ZERO;
    let mut answered = 0;
    for round in 0..ROUNDS {
        let names = ["four", "five", "packed", "zlib", "zstd"];
        let name = names[random.below(names.len())];
        let Ok(original) = std::fs::read(directory.join(name)) else { continue };
        let package = std::fs::read(dwp_path(&directory.join(name))).ok();
        // Of a split program either file is damaged.
        let (program, package) = match package {
            Some(package) if random.below(2) == 0 => (original, Some(mutate(&package, &mut random))),
            package => (mutate(&original, &mut random), package),
        };
        std::fs::write(&target, program).unwrap();
        match package {
            Some(package) => std::fs::write(dwp_path(&target), package).unwrap(),
            None => drop(std::fs::remove_file(dwp_path(&target))),
        }
        let start = Instant::now();
        let outcome = inspect(&target);
        slowest = slowest.max(start.elapsed());
        if let Ok(info) = outcome {
            answered += 1;
            assert!(info.problems.len() < 200, "round {round}: {} problems", info.problems.len());
            serde_json::to_vec(&info).unwrap();
            crate::report::formats::Renders::text(&info);
        }
    }
    println!("slowest {slowest:?}, {answered} of {ROUNDS} answered");
    assert!(answered > ROUNDS / 2, "{answered} answered: the mutations hit nothing but the header");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

#[test]
fn damaged_files_cost_neither_time_nor_memory() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return fuzz(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    build(directory.path(), "four", &["debuginfo=2"]);
    build(directory.path(), "five", &["debuginfo=2", "dwarf-version=5"]);
    build(directory.path(), "packed", &["debuginfo=2", "split-debuginfo=packed"]);
    for how in ["zlib", "zstd"] {
        let flag = format!("--compress-debug-sections={how}");
        let arguments = [flag.as_str(), "four", how];
        match Command::new("objcopy").current_dir(directory.path()).args(arguments).output() {
            Ok(output) if output.status.success() => {}
            _ => skipped!("objcopy cannot compress with {how}"),
        }
    }
    let script = format!("ulimit -v {ADDRESS_SPACE} && exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("debuginfo::elf::fuzz::damaged_files_cost_neither_time_nor_memory")
        .env(CHILD, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("answered"), "the child ran nothing: {text}");
    println!("{text}");
}
