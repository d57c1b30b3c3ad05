//! Compares the stacks of a real program with those of gdb, from a core file and live.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::SIGNAL_FRAME;
use super::stacks::stacks;
use super::*;
use crate::debuginfo::symbols::{Symbols, readable};
use crate::debuginfo::unwind::MAX_FRAMES;
use crate::isolation;
use crate::snapshot::Snapshot;
use crate::targets::core_file::CoreFile;

/// How `thread_kinds` is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Build {
    Dev,
    /// Release with line tables only.
    Lines,
}

/// The executable of `thread_kinds` (tests/thread_kinds/src/main.rs).
fn thread_kinds(build: Build) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // In another directory than this test, because the cargo that runs the test may hold the lock of its directory.
    let target = workspace.join("target").join("thread_kinds");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace).args(["build", "--quiet", "-p", "thread_kinds"]);
    cargo.arg("--target-dir").arg(&target);
    if build == Build::Lines {
        cargo.args(["--release", "--config", "profile.release.debug='line-tables-only'"]);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join(if build == Build::Dev { "debug" } else { "release" }).join("thread_kinds")
}

/// A core file of `thread_kinds`, written by gcore; `None` without gdb.
fn kinds_core(build: Build) -> Option<(PathBuf, PathBuf)> {
    static CORES: [OnceLock<Option<(PathBuf, PathBuf)>>; 2] = [OnceLock::new(), OnceLock::new()];
    CORES[usize::from(build == Build::Lines)]
        .get_or_init(|| {
            if Command::new("gdb").arg("--version").stdout(Stdio::null()).status().is_err() {
                skipped!("no gdb");
                return None;
            }
            let program = thread_kinds(build);
            let mut child = Command::new(&program)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            assert_eq!(line, "READY\n");
            let prefix = program.with_file_name("thread_kinds-core");
            let pid = child.id().to_string();
            let output = Command::new("gcore").arg("-o").arg(&prefix).arg(&pid).output().unwrap();
            drop(child.stdin.take());
            child.wait().unwrap();
            assert!(output.status.success(), "{output:?}");
            let core = prefix.with_file_name(format!("thread_kinds-core.{pid}"));
            let kept = prefix.with_file_name("thread_kinds.core");
            std::fs::rename(core, &kept).unwrap();
            Some((program, kept))
        })
        .clone()
}

/// One frame of gdb's output.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GdbFrame {
    pc: u64,
    kind: String,
    /// Mangled if gdb shows it mangled.
    name: Option<String>,
    line: Option<u32>,
}

impl GdbFrame {
    fn readable(&self) -> (String, Option<u32>) {
        if self.kind == "signal" {
            return (SIGNAL_FRAME.to_owned(), None);
        }
        (self.name.as_deref().map(readable).unwrap_or_default(), self.line)
    }
}

const GDB_SCRIPT: &str = r#"
import gdb
for thread in sorted(gdb.selected_inferior().threads(), key=lambda t: t.ptid[1]):
    thread.switch()
    print("THREAD", thread.ptid[1])
    frame = gdb.newest_frame()
    depth = 0
    while frame is not None and depth < 2000:
        function = frame.function()
        name = (function.linkage_name if function is not None else frame.name()) or "-"
        kind = {gdb.INLINE_FRAME: "inline", gdb.SIGTRAMP_FRAME: "signal",
            gdb.TAILCALL_FRAME: "tailcall"}.get(frame.type(), "normal")
        if kind == "normal" and not name.startswith(("_R", "_ZN")):
            # With line tables only, DWARF has the last part of the name, and the symbol table all of it.
            newer = frame.newer()
            exact = newer is None or newer.type() == gdb.SIGTRAMP_FRAME
            symbol = gdb.execute("info symbol %d" % (frame.pc() - (0 if exact else 1)), to_string=True).split()[0]
            name = symbol if symbol.startswith(("_R", "_ZN")) else name
        print("FRAME", hex(frame.pc()), kind, frame.find_sal().line, name)
        frame = frame.older()
        depth += 1
"#;

fn gdb_stacks(program: &Path, of: &[&OsStr]) -> BTreeMap<i32, Vec<GdbFrame>> {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("stacks.py");
    std::fs::write(&script, GDB_SCRIPT).unwrap();
    let output = Command::new("gdb")
        .args(["-batch", "-nx", "-ex", "set backtrace past-main on", "-ex", "set print demangle off"])
        .args(["-ex", "set debuginfod enabled off", "-ex", "set demangle-style none"])
        .arg("-x")
        .arg(&script)
        .arg(program)
        .args(of)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut threads = BTreeMap::new();
    let mut tid = 0;
    for line in text.lines() {
        if let Some(id) = line.strip_prefix("THREAD ") {
            tid = id.parse().unwrap();
            threads.insert(tid, Vec::new());
        } else if let Some(rest) = line.strip_prefix("FRAME ") {
            let mut words = rest.splitn(4, ' ');
            let pc = u64::from_str_radix(words.next().unwrap().trim_start_matches("0x"), 16).unwrap();
            let kind = words.next().unwrap().to_owned();
            let line = words.next().unwrap().parse().ok().filter(|&l| l != 0);
            let name = words.next().map(str::to_owned).filter(|n| n != "-");
            threads.entry(tid).or_default().push(GdbFrame { pc, kind, name, line });
        }
    }
    assert!(!threads.is_empty(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    threads
}

fn address(frame: &StackFrame) -> u64 {
    u64::from_str_radix(frame.address.trim_start_matches("0x"), 16).unwrap()
}

/// Compares all stacks, except for known differences, which are explained below.
fn compare(build: Build) {
    let Some((program, core)) = kinds_core(build) else { return };
    let gdb = gdb_stacks(&program, &[core.as_os_str()]);
    let core = CoreFile::open(&core).unwrap();
    let (ours, notes) = stacks(&core, &Symbols::new());
    println!("{notes:?} {:?}", core.capture().notes);
    assert_eq!(ours.iter().map(|t| t.tid).collect::<Vec<_>>(), gdb.keys().copied().collect::<Vec<_>>());

    let (mut frames, mut functions, mut inferred, mut cut, mut lineless) = (0, 0, 0, 0, 0);
    let mut differences = Vec::new();
    for thread in &ours {
        let mut theirs = gdb[&thread.tid].clone();
        // Explained: from call sites in DWARF, gdb infers functions that ended in a tail call. They are not on the stack.
        inferred += theirs.iter().filter(|f| f.kind == "tailcall").count();
        theirs.retain(|f| f.kind != "tailcall");
        let mut their_pcs: Vec<_> = theirs.iter().filter(|f| f.kind != "inline").map(|f| f.pc).collect();
        let our_pcs: Vec<_> = thread.frames.iter().filter(|f| !f.inlined).map(address).collect();
        // Explained: an endless recursion is truncated, with a note.
        if thread.truncated.as_deref().is_some_and(|why| why.contains("innermost")) {
            assert_eq!((thread.name.as_str(), our_pcs.len()), ("", MAX_FRAMES));
            cut += 1;
            their_pcs.truncate(MAX_FRAMES);
            theirs.truncate(thread.frames.len());
        } else {
            assert_eq!(thread.truncated, None, "{thread:#?}");
        }
        frames += our_pcs.len();
        if our_pcs != their_pcs {
            differences
                .push(format!("thread {}: pcs\n  ours   {our_pcs:x?}\n  theirs {their_pcs:x?}", thread.tid));
            continue;
        }
        let our_names: Vec<_> =
            thread.frames.iter().map(|f| (f.function.clone().unwrap_or_default(), f.line)).collect();
        let mut their_names: Vec<_> = theirs.iter().map(GdbFrame::readable).collect();
        functions += our_names.len();
        // Explained: for an instruction with line 0 (merged branches), gdb shows the line of an earlier instruction, even
        // of another function. delouse shows no line, as binutils' `addr2line` does.
        for (ours, theirs) in our_names.iter().zip(&mut their_names) {
            if ours.0 == theirs.0 && ours.1.is_none() && theirs.1.is_some() {
                lineless += 1;
                theirs.1 = None;
            }
        }
        if our_names != their_names {
            differences.push(format!(
                "thread {}: names\n  ours   {our_names:#?}\n  theirs {their_names:#?}",
                thread.tid
            ));
        }
    }
    assert!(
        lineless * 100 <= functions,
        "{lineless} of {functions} functions have no line here but one in gdb"
    );
    println!(
        "{lineless} places whose line the compiler does not tell; {inferred} frames that gdb infers and that are not on the stack; {cut} stacks cut"
    );
    println!("{build:?}: {} threads, {frames} frames, {functions} functions compared", ours.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn dev_stacks_equal_gdbs() {
    compare(Build::Dev);
}

#[test]
fn release_stacks_with_line_tables_only_equal_gdbs() {
    compare(Build::Lines);
}

/// Finds each case by the source line of its innermost own frame, and checks its activity.
#[test]
fn every_kind_of_thread_is_classified() {
    let source = include_str!("../../../tests/thread_kinds/src/main.rs");
    let expected = [
        ("held.lock()", Activity::Lock),
        ("condvar.wait(", Activity::Condvar),
        ("receiver.recv()", Activity::Channel),
        ("listener.accept()", Activity::Io),
        ("from.read(", Activity::Io),
        ("to.write_all(", Activity::Io),
        ("SHARED.read()", Activity::Lock),
        ("barrier.wait()", Activity::Barrier),
        ("ONCE.get_or_init(|| 0)", Activity::Once),
        ("other.join()", Activity::Join),
        ("thread::scope(", Activity::Join),
        ("lock.blocking_lock()", Activity::AsyncLock),
        ("inbox.blocking_recv()", Activity::Channel),
        ("by.block_on(", Activity::BlockOn),
        ("drop(runtime)", Activity::Shutdown),
        ("stdin().read(", Activity::Io),
        ("thread::sleep(LONG)", Activity::Sleep),
        ("thread::park()", Activity::Park),
        ("libc::pause()", Activity::Signal),
        ("libc::sigwait(", Activity::Signal),
        ("runtime.block_on(", Activity::Idle),
        ("vec![0_u8; n]", Activity::Running),
        ("wrapping_", Activity::Running),
        ("black_box(n)", Activity::Running),
    ];
    for build in [Build::Dev, Build::Lines] {
        let Some((_, core)) = kinds_core(build) else { return };
        let core = CoreFile::open(&core).unwrap();
        let (threads, _) = stacks(&core, &Symbols::new());
        let mut seen = std::collections::BTreeSet::new();
        for thread in &threads {
            let Some(own) = thread.frames.iter().find(|f| f.own) else {
                assert_eq!(
                    (thread.role, thread.activity),
                    (ThreadRole::TokioWorker, Activity::Idle),
                    "{thread:#?}"
                );
                continue;
            };
            assert_eq!(own.file.as_deref(), Some("tests/thread_kinds/src/main.rs"));
            let line = source.lines().nth(own.line.unwrap() as usize - 1).unwrap();
            // A busy loop may be at any of its lines.
            let Some((what, activity)) = expected.iter().find(|(text, _)| line.contains(text)) else {
                assert_eq!(thread.activity, Activity::Running, "{line} {thread:#?}");
                continue;
            };
            assert_eq!(thread.activity, *activity, "{line} {thread:#?}");
            seen.insert(*what);
        }
        assert!(seen.len() >= 20, "{seen:?}");
        let count = |role| threads.iter().filter(|t| t.role == role).count();
        assert_eq!(count(ThreadRole::TokioWorker), 4);
        assert_eq!(count(ThreadRole::TokioBlocking), 3);
        assert_eq!(count(ThreadRole::TokioBlockOn), 2);

        let text = crate::report::threads::text(&threads, core.capture(), false);
        assert!(text.contains("2 threads parked"), "the two small ones are one group: {text}");
        assert!(text.contains(SIGNAL_FRAME), "{text}");
        assert!(text.contains("the same 508 times more"), "{text}");
        let order = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
        assert!(order("running") < order("waiting for a lock"));
        assert!(order("waiting for a lock") < order("sleeping on a tokio worker"));
        assert!(order("sleeping on a tokio worker") < order("sleeping\n"));
        assert!(order("sleeping\n") < order("idle (tokio worker)"));
    }
}

/// The same cases in this process, where delouse captures them by signals.
#[path = "../../../tests/thread_kinds/src/main.rs"]
#[allow(unreachable_pub, unsafe_code, reason = "a program of its own as well, which calls libc")]
mod live_kinds;

#[cfg(target_arch = "x86_64")]
mod without_tables;

const LIVE: &str = "threads::tests::live_child";

/// The program that `live_stacks_equal_gdbs` starts; as a test it does nothing.
#[test]
fn live_child() {
    if !isolation::runs_alone(LIVE) {
        return;
    }
    // Never dropped, because dropping would wait for threads that never end.
    std::mem::forget(live_kinds::open(0));
    let snapshot = crate::targets::rolling().unwrap();
    let (threads, notes) = stacks(&snapshot, &Symbols::new());
    assert_eq!(notes, Vec::<String>::new());
    println!("STACKS {}", serde_json::to_string(&(threads, snapshot.capture())).unwrap());
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
    std::process::exit(0);
}

/// gdb attaches after the capture: threads that wait must have the same stacks in both.
#[test]
fn live_stacks_equal_gdbs() {
    if Command::new("gdb").arg("--version").stdout(Stdio::null()).status().is_err() {
        skipped!("no gdb");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let mut child = isolation::command(LIVE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let json = lines
        .find_map(|l| l.split_once("STACKS ").map(|(_, json)| json.to_owned()))
        .expect("the child's stacks");
    let gdb = gdb_stacks(&program, &["-p".as_ref(), child.id().to_string().as_ref()]);
    drop(child.stdin.take());
    child.wait().unwrap();
    let (ours, capture): (Vec<ThreadStack>, crate::snapshot::Capture) = serde_json::from_str(&json).unwrap();
    println!("{capture:?}");

    let (mut same, mut busy, mut restarted, mut unavailable) = (0, 0, 0, Vec::new());
    for thread in &ours {
        let mut theirs = gdb[&thread.tid].clone();
        theirs.retain(|f| f.kind != "tailcall");
        if let Some(why) = &thread.unavailable {
            unavailable.push((thread.name.as_str(), why.as_str()));
            continue;
        }
        // Explained: these threads run between the two captures, as does the thread that captures and prints.
        let capturing =
            thread.frames.iter().any(|f| f.function.as_deref().is_some_and(|f| f.contains("live_child")));
        if thread.activity == Activity::Running || capturing {
            let own = thread.frames.iter().rev().find(|f| f.own).unwrap();
            let theirs: Vec<_> = theirs.iter().map(|f| f.readable().0).collect();
            assert!(theirs.contains(own.function.as_ref().unwrap()), "{thread:#?} {theirs:#?}");
            assert_eq!(thread.truncated, None, "{thread:#?}");
            busy += 1;
            continue;
        }
        let mut our_pcs: Vec<_> = thread.frames.iter().filter(|f| !f.inlined).map(address).collect();
        let mut their_pcs: Vec<_> = theirs.iter().filter(|f| f.kind != "inline").map(|f| f.pc).collect();
        if thread.truncated.is_some() {
            assert_eq!(our_pcs.len(), MAX_FRAMES);
            their_pcs.truncate(MAX_FRAMES);
        }
        // Explained: a system call that the capture's signal interrupted is restarted. Until then the program counter is at
        // the instruction (2 bytes), not after it.
        if our_pcs[0] + 2 == their_pcs[0] {
            our_pcs[0] += 2;
            restarted += 1;
        }
        assert_eq!(our_pcs, their_pcs, "{} {:x?} {:x?}", thread.name, our_pcs, their_pcs);
        same += 1;
    }
    println!(
        "{same} equal ({restarted} in a call to be restarted), {busy} busy, unavailable {unavailable:?}"
    );
    let mut names: Vec<_> = unavailable.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(names, ["case-blocked", "case-sigwait"]);
    assert!(same >= 17, "{same}");
}

const DELETED: &str = "DELOUSE_TEST_DELETED";

/// A program whose file is deleted before it captures its threads; as a test it does nothing.
#[test]
fn deleted_child() {
    if std::env::var_os(DELETED).is_none() {
        return;
    }
    std::fs::remove_file(std::env::current_exe().unwrap()).unwrap();
    let snapshot = crate::targets::rolling().unwrap();
    let symbols = Symbols::new();
    let (threads, notes) = stacks(&snapshot, &symbols);
    assert_eq!(notes, Vec::<String>::new());
    let here = threads
        .iter()
        .flat_map(|t| &t.frames)
        .find(|f| f.function.as_deref().is_some_and(|f| f.ends_with("deleted_child")));
    assert!(here.is_some_and(|f| f.own && f.line.is_some()), "{threads:#?}");
    assert!(!here.unwrap().module.as_ref().unwrap().contains("deleted)"), "{here:#?}");
    let vdso = symbols.modules(&snapshot);
    assert!(vdso.list().iter().any(|m| m.name == "[vdso]"));
}

#[test]
fn a_deleted_program_still_has_names() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    isolation::copy_program(&copy);
    let output = Command::new(&copy)
        .args(["--exact", "threads::tests::deleted_child", "--nocapture"])
        .env(DELETED, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!copy.exists(), "the child must have run");
}

#[inline(never)]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn parked_for_the_core() {
    std::thread::park();
    std::hint::black_box(());
}

/// A core file written by delouse has the same names and stacks as a live capture.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn a_core_file_of_delouse_has_names_and_stacks() {
    let thread =
        std::thread::Builder::new().name("core-thread".to_owned()).spawn(parked_for_the_core).unwrap();
    let of_thread = |threads: Vec<ThreadStack>| threads.into_iter().find(|t| t.name == "core-thread");
    let symbols = Symbols::new();
    // Capture live until the thread waits.
    let live = loop {
        let found = of_thread(stacks(&crate::targets::rolling().unwrap(), &symbols).0);
        if let Some(thread) = found.filter(|t| t.activity == Activity::Park) {
            break thread;
        }
        std::thread::yield_now();
    };
    let limits = crate::targets::Limits { force: true, ..Default::default() };
    let image = crate::targets::freeze_fork_thaw(limits).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    crate::targets::core_dump::write(&image, &mut file).unwrap();
    drop(image);
    let core = CoreFile::open(file.path()).unwrap();
    let dead = of_thread(stacks(&core, &Symbols::new()).0).expect("named in the core");
    assert_eq!(dead.tid, live.tid);
    assert_eq!(dead.activity, Activity::Park);
    // Except the innermost address, which may be at the system call or after it.
    assert_eq!(dead.frames[1..], live.frames[1..]);
    assert!(
        dead.frames
            .iter()
            .any(|f| f.own && f.function.as_deref().is_some_and(|f| f.ends_with("parked_for_the_core")))
    );
    thread.thread().unpark();
    thread.join().unwrap();
}

#[test]
fn symbols_that_are_being_loaded_are_in_use_and_block_no_thread() {
    let symbols = Symbols::new();
    drop(stacks(&crate::targets::rolling().unwrap(), &symbols));
    let (loading, wait) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let symbols = &symbols;
        scope.spawn(move || {
            symbols.hold(|| {
                loading.send(()).unwrap();
                finished.recv().unwrap();
            });
        });
        wait.recv().unwrap();
        // If this took the lock, it would never return.
        assert!(!symbols.is_unused(std::time::Duration::ZERO));
        finish.send(()).unwrap();
    });
    assert!(symbols.is_unused(std::time::Duration::ZERO));
    assert!(!symbols.is_unused(std::time::Duration::from_secs(3600)));
    symbols.trim(std::time::Duration::ZERO);
    assert_eq!(symbols.loaded(), 0);
}
