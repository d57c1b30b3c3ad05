use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use super::*;

const CHILD: &str = "DELOUSE_TEST_CORE_CHILD";
const MARK: &[u8] = b"the memory of the child of the core file test";

/// Not a test of its own: the program of which `core_of_child` takes a core.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
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
    println!("FACTS {:#x} {:#x} {:#x} {}", heap.as_ptr() as u64, code, stack, tid);
    let _ = io::stdin().read(&mut [0]);
    drop(heap);
}

/// The calling thread's id, as /proc has it.
fn own_tid() -> i32 {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

struct Facts {
    heap: u64,
    code: u64,
    stack: u64,
    tid: i32,
    pid: i32,
}

/// A core that gdb's gcore took of `child`; `None` where there is no gcore.
fn core_of_child(directory: &Path) -> Option<(PathBuf, Facts)> {
    if Command::new("gcore").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: no gcore (it comes with gdb)");
        return None;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "snapshot::core_file::tests::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find_map(|l| l.split_once("FACTS ").map(|(_, facts)| facts.to_owned())).unwrap();
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
    Some((directory.join(format!("core.{pid}")), Facts { heap, code, stack, tid, pid }))
}

#[test]
fn a_core_of_gcore_reads_as_the_process_was() {
    let directory = tempfile::tempdir().unwrap();
    let Some((path, facts)) = core_of_child(directory.path()) else { return };
    let core = CoreFile::open(&path).unwrap();

    let mut mark = vec![0; MARK.len()];
    assert_eq!(core.read(facts.heap, &mut mark), MARK.len());
    assert_eq!(mark, MARK);

    // Code is not in the core (coredump_filter leaves it out) but in the file, and it is ours as well:
    // the same executable is running here, at another base.
    let mapping = core.mapping(facts.code).expect("code is mapped");
    assert!(mapping.execute && !mapping.write, "{mapping:?}");
    assert_eq!(mapping.path.as_deref(), Some(std::env::current_exe().unwrap().as_path()));
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let offset = usize::try_from(mapping.offset + facts.code - mapping.range.start).unwrap();
    let mut code = vec![0; 64];
    assert_eq!(core.read(facts.code, &mut code), 64);
    assert_eq!(code, file[offset..offset + 64]);
    assert_eq!(core.capture().notes, Vec::<String>::new(), "every file is there and is the one that ran");

    // The stack holds the local variable's address somewhere above the stack pointer.
    let thread = core.threads().iter().find(|t| t.tid == facts.tid).expect("the spawned thread");
    let registers = thread.registers.as_ref().unwrap();
    assert!(registers.sp < facts.stack && facts.stack - registers.sp < 1 << 16, "{registers:?}");
    assert!(core.mapping(registers.pc).unwrap().execute);
    // `struct pthread` begins with a pointer to itself (the x86_64 ABI wants it).
    assert_eq!(core.read_u64(registers.tls), Some(registers.tls));
    assert!(core.threads().iter().any(|t| t.tid == facts.pid && !t.name.is_empty()));
    assert!(core.threads().len() >= 2);

    let vdso =
        core.mappings().iter().find(|m| m.path.as_deref() == Some(Path::new("[vdso]"))).expect("a vDSO");
    let mut magic = [0; 4];
    assert_eq!(core.read(vdso.range.start, &mut magic), 4);
    assert_eq!(&magic, b"\x7fELF");

    let mut byte = [0];
    assert_eq!(core.read(0, &mut byte), 0);
    assert_eq!(core.read(u64::MAX, &mut byte), 0);
    assert!(core.mappings().windows(2).all(|w| w[0].range.end <= w[1].range.start));
}

/// A core in miniature, as bytes: one segment, one thread, one file.
fn small_core() -> Vec<u8> {
    let note = |kind: u32, desc: &[u8]| {
        let mut bytes = Vec::new();
        bytes.extend(5_u32.to_le_bytes());
        bytes.extend(u32::try_from(desc.len()).unwrap().to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(b"CORE\0\0\0\0");
        bytes.extend(desc);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let mut status = vec![0; 336];
    status[32..36].copy_from_slice(&7_i32.to_le_bytes());
    status[112 + 8 * 16..][..8].copy_from_slice(&0x1000_u64.to_le_bytes());
    status[112 + 8 * 19..][..8].copy_from_slice(&0x2000_u64.to_le_bytes());
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
    notes.extend(note(3, &info));
    notes.extend(note(0x4649_4c45, &file));
    let memory = [0xaa; 4096];

    let mut core = Vec::new();
    core.extend(b"\x7fELF\x02\x01\x01");
    core.resize(16, 0);
    core.extend(4_u16.to_le_bytes());
    core.extend(MACHINE.0.to_le_bytes());
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
fn the_small_core_reads() {
    let core = CoreFile::parse(Box::new(small_core())).unwrap();
    let [thread] = core.threads() else { panic!("one thread") };
    assert_eq!((thread.tid, thread.name.as_str(), thread.state), (7, "small", Some('S')));
    if cfg!(target_arch = "x86_64") {
        assert_eq!(thread.registers.map(|r| (r.pc, r.sp)), Ok((0x1000, 0x2000)));
    }
    let mut buf = [0; 8192];
    assert_eq!(core.read(0x2000, &mut buf), 4096, "the rest is not in the core");
    assert_eq!(core.read(0x2ff8, &mut buf), 8);
    assert_eq!(core.read(0x3000, &mut buf), 0);
    assert_eq!(core.mappings().len(), 2);
    assert!(core.capture().notes.iter().any(|n| n.contains("/no/such/file")), "{:?}", core.capture());
}

#[test]
fn what_is_no_core_is_refused() {
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
}

/// Every byte of the headers and notes, changed to values that are typical for trouble; then many at once.
#[test]
fn a_damaged_core_never_panics() {
    let good = small_core();
    let look = |bytes: Vec<u8>| {
        if let Ok(core) = CoreFile::parse(Box::new(bytes)) {
            let mut buf = [0; 64];
            for mapping in core.mappings().iter().take(16) {
                core.read(mapping.range.start, &mut buf);
                core.read(mapping.range.end - 1, &mut buf);
            }
            core.read(0x2000, &mut buf);
        }
    };
    for at in 0..good.len() - 4096 {
        for value in [0, 1, 0x7f, 0x80, 0xff, good[at] ^ 1] {
            let mut bytes = good.clone();
            bytes[at] = value;
            look(bytes);
        }
    }
    for len in 0..good.len() - 4090 {
        look(good[..len].to_vec());
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
        look(bytes);
    }
}
