//! How the server starts, and how it fails to start: neither ends nor delays the program.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use delouse_tests::{Program, program, request};

fn heartbeat(environment: &[(&str, &str)]) -> Program {
    let mut command = program!("example-heartbeat");
    command.envs(environment.iter().copied());
    let program = Program::start(command);
    program.printed("heartbeat 1");
    program
}

#[test]
fn a_taken_port_is_no_failure() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let program = heartbeat(&[("DELOUSE_BIND", &address.to_string())]);
    program.complained(&format!("{address} is in use; using a free port instead"));
    assert_ne!(program.address(), address);
    assert_eq!(program.get("/").status, 200);
}

/// Whether this user may listen on ports below 1024.
fn may_bind_low_ports() -> bool {
    TcpListener::bind("127.0.0.1:1").is_ok()
}

#[test]
fn no_permission_to_bind_is_no_failure() {
    let mut command = if may_bind_low_ports() {
        // As a user without that right.
        let Ok(true) = Command::new("setpriv").arg("--version").output().map(|o| o.status.success()) else {
            delouse_tests::skipped!("no setpriv to give up the right to bind");
            return;
        };
        // A copy that anybody may read: the build directory need not be open to others.
        let copy = std::env::temp_dir().join(format!("delouse-heartbeat-{}", std::process::id()));
        std::fs::copy(env!("CARGO_BIN_EXE_example-heartbeat"), &copy).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]).arg(copy);
        command.current_dir("/");
        command
    } else {
        program!("example-heartbeat")
    };
    command.env("DELOUSE_BIND", "127.0.0.1:1");
    let program = Program::start(command);
    program.printed("heartbeat 1");
    program.complained("127.0.0.1:1 is not permitted for this user; using a free port instead");
    assert_eq!(program.get("/").status, 200);
    let _only_ours =
        std::fs::remove_file(std::env::temp_dir().join(format!("delouse-heartbeat-{}", std::process::id())));
}

#[test]
fn off_is_off() {
    let program = heartbeat(&[("DELOUSE", "off")]);
    program.printed("heartbeat 2");
    assert_eq!(program.stderr(), Vec::<String>::new());
    let threads = std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
    for thread in threads {
        let name = std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap();
        assert!(!name.starts_with("delouse"), "{name}");
    }
}

#[test]
fn the_network_needs_a_token() {
    let program = heartbeat(&[("DELOUSE_BIND", "0.0.0.0:0")]);
    let line = program.complained("not started");
    assert!(
        line.contains("0.0.0.0:0 is open to the network") && line.contains("set DELOUSE_TOKEN"),
        "{line}"
    );
    program.printed("heartbeat 2");

    let program = heartbeat(&[("DELOUSE_BIND", "0.0.0.0:0"), ("DELOUSE_TOKEN", "t0ken")]);
    let address = format!("127.0.0.1:{}", program.address().port()).parse().unwrap();
    assert_eq!(request("GET", address, "/", &[]).status, 401);
    assert_eq!(request("GET", address, "/", &[("authorization", "Bearer t0ken")]).status, 200);
}

#[test]
fn nonsense_is_told_and_the_program_runs() {
    let program = heartbeat(&[("DELOUSE_BIND", "over there")]);
    let line = program.complained("not started");
    assert!(
        line.contains("DELOUSE_BIND is `over there`, which is not an address: write 127.0.0.1:7132"),
        "{line}"
    );
    program.printed("heartbeat 2");
}

#[test]
fn the_log_has_the_level_that_the_user_sets() {
    let quiet = heartbeat(&[]);
    assert_eq!(quiet.get_with("/", &[("host", "evil")]).status, 403);
    quiet.complained("warning: refused");
    assert!(!quiet.stderr().iter().any(|line| line.contains("info: ")), "{:?}", quiet.stderr());
    let chatty = heartbeat(&[("DELOUSE_LOG", "info")]);
    assert_eq!(chatty.get("/").status, 200);
    chatty.complained("info: request completed");
    let silent = heartbeat(&[("DELOUSE_LOG", "off")]);
    assert_eq!(silent.get_with("/", &[("host", "evil")]).status, 403);
    assert_eq!(silent.get("/").status, 200);
    assert_eq!(silent.stderr().len(), 1, "only where it listens: {:?}", silent.stderr());
}

#[test]
fn stderr_that_is_not_read_delays_nothing() {
    let mut command = program!("runtimes");
    // A pipe that is full from the start: a thread that writes to it blocks.
    let (unread, mut full) = std::io::pipe().unwrap();
    // What a pipe holds on Linux (pipe(7)): this much goes in without blocking, and no byte more.
    std::io::Write::write_all(&mut full, &[0; 65536]).unwrap();
    let status = command.arg("attribute").env("DELOUSE_BIND", "127.0.0.1:0").stderr(full).status().unwrap();
    assert!(status.success());
    drop(unread);
}

#[test]
fn stderr_that_is_no_longer_read_ends_nothing() {
    for bind in ["127.0.0.1:0", "nonsense"] {
        let (unread, broken) = std::io::pipe().unwrap();
        drop(unread);
        let mut command = program!("runtimes");
        let status = command.arg("attribute").env("DELOUSE_BIND", bind).stderr(broken).status().unwrap();
        assert!(status.success(), "{bind}: {status}");
    }
}

#[test]
fn a_token_that_is_no_text_is_not_taken_for_none() {
    let token: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"secret\xff");
    let mut command = program!("example-heartbeat");
    command.env("DELOUSE_TOKEN", token);
    Program::start(command).complained("not started: the token must be printable ASCII");
}

/// With none, or only some, of the threads that delouse wants, the program runs, and nothing of it panics: built
/// with `panic = "abort"`, that would be its end.
#[test]
fn no_threads_to_be_had_is_no_failure() {
    let Ok(true) = Command::new("setpriv").arg("--version").output().map(|o| o.status.success()) else {
        delouse_tests::skipped!("no setpriv to become a user with few threads");
        return;
    };
    if !may_bind_low_ports() {
        delouse_tests::skipped!("not allowed to become another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let copy = directory.path().join("runtimes");
    std::fs::copy(env!("CARGO_BIN_EXE_runtimes"), &copy).unwrap();
    let mut refused = 0;
    for threads in 1..=4 {
        let mut command = Command::new("setpriv");
        // A user of its own: the limit counts all threads of a user.
        command.args(["--reuid=63132", "--regid=63132", "--clear-groups", "--bounding-set=-all"]);
        command.args(["prlimit", &format!("--nproc={threads}")]).arg(&copy).arg("attribute");
        let output = command.current_dir("/").env("DELOUSE_BIND", "127.0.0.1:0").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{threads}: {told}");
        assert!(!told.contains("panicked"), "{threads}: {told}");
        refused += usize::from(told.contains("not started: no thread for the server"));
    }
    assert_eq!(refused, 2, "without a thread for the server, and without one for its log");
}

/// What the program starts does not inherit the server: the port must be free when the program has ended.
#[test]
fn children_inherit_nothing() {
    let program = heartbeat(&[]);
    let _open = TcpStream::connect(program.address()).unwrap();
    assert_eq!(program.get("/").status, 200);
    let mut sockets = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap() {
        let path = entry.unwrap().path();
        let Ok(target) = std::fs::read_link(&path) else { continue };
        let target = target.to_string_lossy().into_owned();
        if !target.starts_with("socket:") && !target.starts_with("anon_inode:") {
            continue;
        }
        let number = path.file_name().unwrap().to_string_lossy().into_owned();
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", program.pid())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert!(flags & libc::O_CLOEXEC != 0, "{number} is {target}");
        sockets += usize::from(target.starts_with("socket:"));
    }
    assert!(sockets >= 2, "the listener and the client that is connected");
}

#[test]
fn runtimes_without_the_attribute() {
    for how in ["by_hand", "several"] {
        let mut command = program!("runtimes");
        command.arg(how);
        let program = Program::start(command);
        let said = program.printed("init: ");
        assert_eq!(said, format!("init: listening on http://{}", program.address()));
        program.printed("ready");
        let text = program.get("/stacktrace/tokio").stacktrace();
        let expected: &[&str] =
            if how == "several" { &["first_task", "second_task"] } else { &["first_task"] };
        for task in expected {
            assert!(text.contains(task), "{how}: {text}");
        }
    }
}

/// Whether one paragraph has all of these.
fn has(text: &str, parts: &[&str]) -> bool {
    text.split("\n\n").any(|paragraph| parts.iter().all(|part| paragraph.contains(part)))
}

#[test]
fn futures_that_calls_drive_which_block_their_threads() {
    let mut command = program!("runtimes");
    command.arg("drives");
    let program = Program::start(command);
    program.printed("ready");
    let text = program.get("/stacktrace/tokio").stacktrace();
    let handle = "by tokio::runtime::handle::Handle::block_on, called in runtimes::";
    for parts in [
        // Of tasks.
        &[
            "locks_twice",
            "drives, by tokio::sync::mutex::Mutex::blocking_lock, called in runtimes::append at ",
            "→ mutex 0x",
        ][..],
        &["in_place", "drives, ", handle, "runtimes::notified", "→ a notification of notify 0x"],
        &[
            "by_futures",
            "drives, by futures_executor::local_pool::block_on",
            "runtimes::received",
            "→ the message of oneshot 0x",
        ],
        &["blocking task", "drives, ", handle, "runtimes::notified", "→ a notification of notify 0x"],
        // Of threads.
        &["a future that thread", "driven ", handle, "runtimes::slept", "→ a timer"],
        &[
            "a future that thread",
            "driven by tokio::runtime::runtime::Runtime::block_on",
            "runtimes::slept",
            "→ a timer",
        ],
        &[
            "a future that thread",
            "driven by tokio::task::local::LocalSet::block_on",
            "runtimes::notified",
            "→ a notification of notify 0x",
        ],
        &[
            "a future that thread",
            "driven by tokio::sync::mpsc::bounded::Receiver::blocking_recv",
            "→ a message of channel 0x",
        ],
        &["the main future", "runtimes::drives", "→ a notification of notify 0x"],
    ] {
        assert!(has(&text, parts), "{parts:?} in {text}");
    }
    assert_eq!(text.matches("the main future").count(), 1, "{text}");
    assert!(!text.contains("a guess") && !text.contains("is not shown"), "{text}");
    assert!(!text.contains("does not know"), "{text}");

    let waits = program.get("/waits?format=text").body;
    for parts in [
        &[
            "in runtimes::append at ",
            "which blocks thread",
            "waits for mutex-",
            "MutexGuard `turn` in runtimes::locks_twice",
        ][..],
        &["thread ", "waits for a message of channel-", "Sender"],
    ] {
        assert!(has(&waits, parts), "{parts:?} in {waits}");
    }
    let threads = program.get("/stacktrace/rust?format=text").body;
    for what in [
        "waiting for an async lock by a blocking call on a tokio worker",
        "waiting in block_on for a future on a tokio worker",
        "waiting in block_on for a future (tokio's pool for blocking calls)",
        "waiting in block_on for a future\n",
        "waiting at a channel\n",
    ] {
        assert!(threads.contains(what), "{what} in {threads}");
    }
    let diagnosis = program.get("/diagnosis?format=text").body;
    // The thread of the main future is idle; those that drive other futures are not.
    let mut idle = diagnosis.lines().filter(|line| line.contains("idle"));
    assert!(idle.all(|line| line.contains("main future")), "{diagnosis}");
    assert!(
        has(&diagnosis, &["blocks thread ", "runtimes::append at", "Mutex<T>::blocking_lock"]),
        "{diagnosis}"
    );
}

#[test]
fn a_runtime_that_is_dropped_is_not_idle() {
    let mut command = program!("runtimes");
    command.arg("dropped");
    let program = Program::start(command);
    program.printed("ready");
    let threads = program.get("/stacktrace/rust?format=text").body;
    assert!(threads.contains("1 thread waiting for the shutdown of a runtime\n"), "{threads}");
    assert!(!threads.contains("idle (in block_on)"), "{threads}");
    let text = program.get("/stacktrace/tokio").stacktrace();
    assert!(!text.contains("future"), "main has returned: {text}");
}

#[test]
fn the_server_ends_with_main() {
    let mut command = program!("runtimes");
    command.arg("attribute");
    let mut program = Program::start(command);
    let address = program.address();
    program.printed("main's body is over");
    assert!(TcpStream::connect(address).is_err(), "the port is free again");
    assert!(program.wait().success());
}

#[test]
fn signals_for_the_program_never_go_to_our_threads() {
    let program = heartbeat(&[]);
    assert_eq!(program.get("/stacktrace/rust").status, 200);
    let mut ours = 0;
    for thread in std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap() {
        let thread = thread.unwrap().path();
        // A thread may end while it is looked at.
        let Ok(status) = std::fs::read_to_string(thread.join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).unwrap();
        let blocked = u64::from_str_radix(field("SigBlk:"), 16).unwrap();
        let is_ours = field("Name:").starts_with("delouse");
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGCHLD] {
            assert_eq!(blocked >> (signal - 1) & 1 == 1, is_ours, "{status}");
        }
        assert_eq!(blocked >> (libc::SIGURG - 1) & 1, 0, "captures are answered: {status}");
        ours += u32::from(is_ours);
    }
    assert!(ours >= 2, "the server and the log");
}
