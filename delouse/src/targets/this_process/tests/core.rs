//! Core files, read by gdb, if it is installed, and by the `object` crate.

use std::fs::File;
use std::io::Write;
use std::process::Command;

use object::LittleEndian;
use object::elf::{FileHeader64, NT_FILE, NT_FPREGSET, NT_PRPSINFO, NT_PRSTATUS, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

use super::Parked;
use super::forked::FORCED;
use crate::targets::core_dump::{CoreError, write};
use crate::targets::core_writer::estimate;
use crate::targets::this_process::sys;
use crate::targets::{ForkedImage, SnapshotError, freeze_fork_thaw};

#[test]
fn a_core_file_holds_threads_and_memory() {
    let parked: Vec<Parked> = (0..5).map(|n| Parked::new(3000 + n)).collect();
    let on_heap = Box::new(0xfeed_f00d_dead_beef_u64);
    let image = freeze_fork_thaw(FORCED).unwrap();
    let mut core = Vec::new();
    let stats = write(&image, &mut core).unwrap();
    assert_eq!(stats.bytes, core.len() as u64);
    assert_eq!(stats.left_out, 0);

    let header = FileHeader64::<LittleEndian>::parse(&*core).unwrap();
    let program = header.program_headers(LittleEndian, &*core).unwrap();
    assert_eq!(program.len(), stats.segments + 1);
    let word_at = |address: u64| {
        let segment = program
            .iter()
            .find(|segment| {
                let start = segment.p_vaddr(LittleEndian);
                segment.p_type(LittleEndian) == PT_LOAD
                    && (start..start + segment.p_filesz(LittleEndian)).contains(&address)
            })
            .expect("in the file");
        let at = segment.p_offset(LittleEndian) + address - segment.p_vaddr(LittleEndian);
        u64::from_le_bytes(core[at as usize..at as usize + 8].try_into().unwrap())
    };
    assert_eq!(word_at((&raw const *on_heap) as u64), *on_heap);

    let mut tids = Vec::new();
    let mut kinds = Vec::new();
    let mut extended = None;
    let notes = program.iter().find(|segment| segment.p_type(LittleEndian) == PT_NOTE).unwrap();
    let mut notes = notes.notes(LittleEndian, &*core).unwrap().unwrap();
    while let Some(note) = notes.next().unwrap() {
        let kind = note.n_type(LittleEndian);
        if note.name() == b"CORE" && kind == NT_PRSTATUS {
            tids.push(i32::from_le_bytes(note.desc()[32..36].try_into().unwrap()));
        }
        if note.name() == b"delouse" {
            let name = format!("parked {}", parked[0].marker);
            assert!(note.desc().chunks(24).any(|thread| {
                thread[..4] == parked[0].tid.to_le_bytes() && thread[8..].starts_with(name.as_bytes())
            }));
        }
        if note.name() == b"LINUX" {
            extended = Some(note.desc());
        }
        kinds.push((note.name().to_vec(), kind));
    }
    for kind in [NT_PRSTATUS, NT_PRPSINFO, NT_FILE, NT_FPREGSET] {
        assert!(kinds.contains(&(b"CORE".to_vec(), kind)), "{kind}");
    }
    assert_eq!(tids[0], sys::getpid(), "the main thread comes first");
    assert_eq!(tids.len(), stats.threads);
    for thread in &parked {
        assert!(tids.contains(&thread.tid));
        assert_eq!(word_at(thread.address.get()), thread.marker);
    }
    assert!(tids.contains(&sys::gettid()));
    #[cfg(target_arch = "x86_64")]
    {
        // The size that the processor reports for the enabled features. With AVX-512, an area in Intel's layout is larger
        // than one in AMD's.
        let layout = std::arch::x86_64::__cpuid_count(13, 0);
        let note = extended.expect("vector registers");
        // This test uses no tile registers (AMX), which come last in the area.
        let tiles = 0b11 << 17;
        let expected = match layout.eax {
            features if features & tiles != 0 && features & (1 << 9) != 0 => 2696,
            features if features & tiles != 0 => 2688,
            features if features & 0xe0 == 0 => layout.ebx,
            _ => layout.ebx.max(2688),
        };
        assert_eq!(note.len() as u32, expected);
        assert_eq!(note[464..468], (layout.eax & !tiles).to_le_bytes());
    }
    // At least the thread pointer.
    #[cfg(target_arch = "aarch64")]
    assert!(extended.is_some_and(|note| note.len() >= 8));
}

#[test]
fn gdb_shows_the_stacks_of_a_core_file() {
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("skipped: gdb is not installed");
        return;
    }
    let parked: Vec<Parked> = (0..5).map(|n| Parked::new(4000 + n)).collect();
    let image = freeze_fork_thaw(FORCED).unwrap();
    let mut core = tempfile::NamedTempFile::new().unwrap();
    write(&image, &mut core).unwrap();
    core.flush().unwrap();
    drop(image);

    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex", "thread apply all bt 40"])
        .args(["-ex", "thread apply all info registers xmm0"])
        .arg(std::env::current_exe().unwrap())
        .arg(core.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let stack_of = |tid: i32| {
        let from = text.find(&format!("LWP {tid})")).unwrap_or_else(|| panic!("no thread {tid} in {text}"));
        text[from..].split("\n\n").next().unwrap()
    };
    for thread in &parked {
        let stack = stack_of(thread.tid);
        assert!(stack.contains("park_here"), "{stack}");
        assert!(stack.contains(&format!("marker={}", thread.marker)), "gdb reads the arguments: {stack}");
    }
    let ourselves = stack_of(sys::gettid());
    assert!(ourselves.contains("fork_here") && ourselves.contains("gdb_shows_the_stacks"), "{ourselves}");
    for complaint in
        ["warning: Unexpected size", "not a core dump", "too small", "Couldn't find general-purpose"]
    {
        assert!(!errors.contains(complaint), "{errors}");
    }
    assert!(text.matches("v4_float").count() > parked.len(), "vector registers are shown");
}

#[test]
fn a_full_disk_and_a_lost_image_are_errors() {
    let image = freeze_fork_thaw(FORCED).unwrap();
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    assert!(matches!(write(&image, &mut full), Err(CoreError::Write(_))));

    // The child is killed when the first byte arrives, and has ended before the next is read.
    struct Killer<'i>(&'i ForkedImage);
    impl Write for Killer<'_> {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            // SAFETY: kills our own child, which is not reaped before the image is dropped.
            unsafe { libc::kill(self.0.pid(), libc::SIGKILL) };
            while self.0.intact().is_ok() {
                std::thread::yield_now();
            }
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lost = write(&image, &mut Killer(&image));
    assert!(matches!(lost, Err(CoreError::Image(SnapshotError::ImageLost(_)))), "{lost:?}");
}

#[test]
fn the_estimate_is_close_to_the_written_size() {
    let _block = vec![7_u8; 32 << 20];
    let estimated = estimate().unwrap();
    let image = freeze_fork_thaw(FORCED).unwrap();
    let stats = write(&image, &mut std::io::sink()).unwrap();
    // Concurrent tests allocate and free memory between the two.
    assert!(estimated.bytes > 32 << 20 && stats.bytes > 32 << 20, "{estimated:?} {stats:?}");
    assert!(
        estimated.bytes < 2 * stats.bytes && stats.bytes < 2 * estimated.bytes,
        "{estimated:?} {stats:?}"
    );
}
