use crate::snapshot::Address;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::isolation;

const CHILD: &str = "targets::core_file::tests::child";
const MARK: &[u8] = b"the memory of the child of the core file test";

/// The program of which `core_of_child` takes a core file; as a test it does nothing.
#[test]
fn child() {
    if !isolation::runs_alone(CHILD) {
        return;
    }
    let (ready, started) = std::sync::mpsc::channel();
    let (_end, wait) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let here = 0_u8;
        ready.send((&raw const here as u64, own_tid())).unwrap();
        let _ = wait.recv();
    });
    let (stack, tid) = started.recv().unwrap();
    let heap = MARK.to_vec();
    let code = child as fn() as usize;
    println!("ADDRESSES {:#x} {:#x} {:#x} {}", heap.as_ptr() as u64, code, stack, tid);
    let _ = io::stdin().read(&mut [0]);
    drop(heap);
}

/// The calling thread's id.
fn own_tid() -> i32 {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// Addresses and ids in the child, which the test compares with the core file.
struct Expected {
    heap: u64,
    code: u64,
    stack: u64,
    tid: i32,
    pid: i32,
}

/// A core file of `child`, written by gcore; `None` if gcore is not installed.
fn core_of_child(directory: &Path) -> Option<(PathBuf, Expected)> {
    if Command::new("gcore").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        skipped!("no gcore (it comes with gdb)");
        return None;
    }
    let mut child = isolation::command(CHILD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find_map(|l| l.split_once("ADDRESSES ").map(|(_, rest)| rest.to_owned())).unwrap();
    let mut words = line.split(' ');
    let mut hex = || u64::from_str_radix(words.next().unwrap().trim_start_matches("0x"), 16).unwrap();
    let (heap, code, stack) = (hex(), hex(), hex());
    let tid = line.rsplit(' ').next().unwrap().parse().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let prefix = directory.join("core");
    let output = Command::new("gcore").arg("-o").arg(&prefix).arg(pid.to_string()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let _ = child.stdin.take().unwrap().write_all(b"\n");
    lines.for_each(drop);
    child.wait().unwrap();
    Some((directory.join(format!("core.{pid}")), Expected { heap, code, stack, tid, pid }))
}

#[test]
fn a_core_file_of_gcore_has_the_memory_and_threads_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let Some((path, expected)) = core_of_child(directory.path()) else { return };
    let core = CoreFile::open(&path).unwrap();

    let mut mark = vec![0; MARK.len()];
    assert_eq!(core.read(Address::new(expected.heap), &mut mark), MARK.len());
    assert_eq!(mark, MARK);

    // Code is read from the executable, because coredump_filter excludes it from the core file. The child runs the same
    // executable as this test.
    let mapping = core.mapping(Address::new(expected.code)).expect("code is mapped");
    assert!(mapping.execute && !mapping.write, "{mapping:?}");
    assert_eq!(mapping.path.as_deref(), Some(std::env::current_exe().unwrap().as_path()));
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let offset = usize::try_from(mapping.offset.get() + expected.code - mapping.range.start.get()).unwrap();
    let mut code = vec![0; 64];
    assert_eq!(core.read(Address::new(expected.code), &mut code), 64);
    assert_eq!(code, file[offset..offset + 64]);
    assert_eq!(core.capture().notes, Vec::<String>::new(), "every file is there and is the one that ran");

    // The local variable is above the stack pointer.
    let thread = core.threads().iter().find(|t| t.tid == expected.tid).expect("the spawned thread");
    let registers = thread.registers.as_ref().unwrap();
    assert!(
        Address::new(expected.stack).offset_from(registers.sp).is_some_and(|size| 0 < size && size < 1 << 16),
        "{registers:?}"
    );
    assert!(core.mapping(registers.pc).unwrap().execute);
    // `struct pthread` begins with a pointer to itself (required by the x86_64 ABI).
    assert_eq!(core.read_u64(registers.tls), Some(registers.tls.get()));
    assert!(core.threads().iter().any(|t| t.tid == expected.pid && !t.name.is_empty()));
    assert!(core.threads().len() >= 2);

    let vdso =
        core.mappings().iter().find(|m| m.path.as_deref() == Some(Path::new("[vdso]"))).expect("a vDSO");
    let mut magic = [0; 4];
    assert_eq!(core.read(vdso.range.start, &mut magic), 4);
    assert_eq!(&magic, b"\x7fELF");

    let mut byte = [0];
    assert_eq!(core.read(Address::new(0), &mut byte), 0);
    assert_eq!(core.read(Address::new(u64::MAX), &mut byte), 0);
    assert!(core.mappings().windows(2).all(|w| w[0].range.end <= w[1].range.start));
}

/// A core file of this architecture.
fn small_core() -> Vec<u8> {
    small_core_of(arch::host())
}

/// The bytes of a core file with one segment, one thread, which waits in a futex, and one mapped file.
fn small_core_of(arch: &dyn Arch) -> Vec<u8> {
    // Numbers of registers in `elf_gregset_t`, and their values.
    let registers: &[(usize, u64)] = if arch.elf_machine() == arch::AARCH64.elf_machine() {
        // pc, sp, x29, x30, x8, x0, x2
        &[(32, 0x1000), (31, 0x2000), (29, 0x2100), (30, 0x1100), (8, 98), (0, 0x2200), (2, 7)]
    } else {
        // rip, rsp, rbp, fs_base, orig_rax, rax, rdi, rdx
        &[
            (16, 0x1000),
            (19, 0x2000),
            (4, 0x2100),
            (21, 0x2800),
            (15, 202),
            (10, -512_i64 as u64),
            (14, 0x2200),
            (12, 7),
        ]
    };
    let note_of = |name: &[u8], kind: u32, desc: &[u8]| {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend(u32::try_from(desc.len()).unwrap().to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(desc);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let mut status = vec![0; 392];
    status[32..36].copy_from_slice(&7_i32.to_le_bytes());
    for (index, value) in registers {
        status[112 + 8 * index..][..8].copy_from_slice(&value.to_le_bytes());
    }
    let note = |kind: u32, desc: &[u8]| note_of(b"CORE\0", kind, desc);
    let mut info = vec![0; 136];
    info[1] = b'S';
    info[24..28].copy_from_slice(&7_i32.to_le_bytes());
    info[40..45].copy_from_slice(b"small");
    let mut file = Vec::new();
    for word in [1_u64, 4096, 0x10_0000, 0x10_2000, 1] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"/no/such/file\0");
    let mut notes = note(1, &status);
    if arch.elf_machine() == arch::AARCH64.elf_machine() {
        notes.extend(note_of(b"LINUX\0", 0x401, &0x2800_u64.to_le_bytes()));
    }
    notes.extend(note(3, &info));
    notes.extend(note(0x4649_4c45, &file));
    let memory = [0xaa; 4096];

    let mut core = Vec::new();
    core.extend(b"\x7fELF\x02\x01\x01");
    core.resize(16, 0);
    core.extend(4_u16.to_le_bytes());
    core.extend(arch.elf_machine().to_le_bytes());
    core.extend(1_u32.to_le_bytes());
    core.extend([0; 8]);
    core.extend(64_u64.to_le_bytes());
    core.extend([0; 8]);
    core.extend([0; 4]);
    for half in [64_u16, 56, 2, 64, 0, 0] {
        core.extend(half.to_le_bytes());
    }
    let at = 64 + 2 * 56;
    for (kind, flags, offset, address, filesz, memsz) in
        [(4_u32, 4_u32, at, 0, notes.len(), 0), (1, 6, at + notes.len(), 0x2000, 4096, 8192)]
    {
        core.extend(kind.to_le_bytes());
        core.extend(flags.to_le_bytes());
        for word in [offset, address, 0, filesz, memsz, if kind == 4 { 4 } else { 1 }] {
            core.extend((word as u64).to_le_bytes());
        }
    }
    core.extend(notes);
    core.extend(memory);
    core
}

#[test]
fn a_small_core_file_is_read() {
    let core = CoreFile::parse(Box::new(small_core())).unwrap();
    let [thread] = core.threads() else { panic!("one thread") };
    assert_eq!((thread.tid, thread.name.as_str(), thread.state), (7, "small", Some('S')));
    assert_eq!(thread.registers.map(|r| (r.pc.get(), r.sp.get())), Ok((0x1000, 0x2000)));
    let mut buf = [0; 8192];
    assert_eq!(core.read(Address::new(0x2000), &mut buf), 4096, "the rest is not in the core file");
    assert_eq!(core.read(Address::new(0x2ff8), &mut buf), 8);
    assert_eq!(core.read(Address::new(0x3000), &mut buf), 0);
    assert_eq!(core.mappings().len(), 2);
    assert!(core.capture().notes.iter().any(|n| n.contains("/no/such/file")), "{:?}", core.capture());
}

/// Registers have the places that the architecture of the core file gives them, not those of this machine.
#[test]
fn core_files_of_each_architecture_are_read_on_any() {
    for (arch, lr) in [(arch::X86_64, 0), (arch::AARCH64, 0x1100)] {
        let core = CoreFile::parse(Box::new(small_core_of(arch))).unwrap();
        assert_eq!(core.arch().elf_machine(), arch.elf_machine());
        let [thread] = core.threads() else { panic!("one thread") };
        let registers = thread.registers.unwrap();
        assert_eq!((registers.pc.get(), registers.sp.get()), (0x1000, 0x2000), "{arch:?}");
        assert_eq!((registers.fp.get(), registers.lr, registers.tls.get()), (0x2100, lr, 0x2800), "{arch:?}");
        let futex = registers.futex.unwrap();
        assert_eq!((futex.address.get(), futex.expected), (0x2200, 7), "{arch:?}");
    }
    let mut other = small_core();
    other[18..20].copy_from_slice(&243_u16.to_le_bytes());
    assert!(matches!(CoreFile::parse(Box::new(other)), Err(CoreError::OtherMachine)));
}

#[test]
fn other_files_are_refused() {
    let parse = |bytes: &[u8]| CoreFile::parse(Box::new(bytes.to_vec())).map(drop);
    assert!(matches!(parse(b""), Err(CoreError::NotElf)));
    assert!(matches!(parse(&[0; 200]), Err(CoreError::NotElf)));
    assert!(matches!(
        parse(&std::fs::read(std::env::current_exe().unwrap()).unwrap()),
        Err(CoreError::NotCore)
    ));
    assert!(matches!(CoreFile::open(Path::new("/no/such/core")), Err(CoreError::Io(_))));
    let cut = small_core();
    let core = CoreFile::parse(Box::new(cut[..cut.len() - 100].to_vec())).unwrap();
    assert!(core.capture().notes.iter().any(|n| n.contains("100 bytes")), "{:?}", core.capture());
    assert!(matches!(parse(&cut[..cut.len() - 4096 - 8]), Err(CoreError::Truncated)), "cut within its notes");
}

/// Changes each byte of the headers and notes to boundary values, then truncates the file, then changes several bytes at
/// random.
#[test]
fn a_damaged_core_file_never_panics() {
    let good = small_core();
    let read_all = |bytes: Vec<u8>| {
        if let Ok(core) = CoreFile::parse(Box::new(bytes)) {
            let mut buf = [0; 64];
            for mapping in core.mappings().iter().take(16) {
                core.read(mapping.range.start, &mut buf);
                core.read(mapping.range.end.checked_sub(1).unwrap(), &mut buf);
            }
            core.read(Address::new(0x2000), &mut buf);
        }
    };
    for at in 0..good.len() - 4096 {
        for value in [0, 1, 0x7f, 0x80, 0xff, good[at] ^ 1] {
            let mut bytes = good.clone();
            bytes[at] = value;
            read_all(bytes);
        }
    }
    for len in 0..good.len() - 4090 {
        read_all(good[..len].to_vec());
    }
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    for _ in 0..5_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random(20) {
            let at = random(good.len() - 4096);
            bytes[at] = random(256) as u8;
        }
        read_all(bytes);
    }
}
