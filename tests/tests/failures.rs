//! What may go wrong with `/core`, made to go wrong: the program does not notice, the answer says what
//! happened, and nothing is left behind.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use delouse_tests::controlled::Controlled;
use delouse_tests::process::{self, Entry};
use delouse_tests::wire::{Head, Wire};
use delouse_tests::{PATIENCE, program, request};

/// A small program.
fn sized_process() -> Controlled {
    Controlled::start(program!("sized_process"), 20, 30)
}

/// `GET path`, whatever the answer is.
fn ask(controlled: &Controlled, path: &str) -> (Head, std::io::Result<Vec<u8>>) {
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    let head = wire.ask("GET", path, &[]).unwrap();
    let body = wire.body(&head);
    (head, body)
}

/// The message of an error.
fn message(body: std::io::Result<Vec<u8>>) -> String {
    let json: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
    json["message"].as_str().unwrap().to_owned()
}

/// Waits until `condition` holds.
fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// The one image of the program, once there is one.
fn image(controlled: &Controlled) -> Entry {
    let pid = controlled.program.pid();
    until("an image", || !process::images(pid).is_empty());
    process::images(pid).remove(0)
}

/// Checks that the program runs, has no child or zombie, and still answers with a core file.
fn unharmed(controlled: &mut Controlled, what: &str) {
    let pid = controlled.program.pid();
    until("no child", || process::children(pid).is_empty());
    println!("{what}: the ticker paused for {:?} at most", controlled.longest_gap());
    assert!(controlled.program.is_running());
    let begun = Instant::now();
    loop {
        let (head, body) = ask(controlled, "/core?force=true");
        if head.status == 200 {
            assert!(!body.unwrap().is_empty());
            break;
        }
        assert!(head.status == 429 && begun.elapsed() < PATIENCE, "{:?}", message(body));
    }
    until("no child", || process::children(pid).is_empty());
    assert_eq!(process::zombies(pid), []);
}

/// No process and no thread more than there are: first the fork fails, then the thread for the capture.
fn no_more_processes(controlled: &mut Controlled, what: &str, limit: impl Fn(Option<usize>)) {
    // Tokio's threads of delouse's own server come when first needed: before we count.
    let _warm = ask(controlled, "/stacktrace/rust");
    controlled.longest_gap();
    // A thread of the last capture may just be ending: then there is room for one more, and we count again.
    let refused = |controlled: &Controlled, more: usize, reason: &str| {
        let begun = Instant::now();
        loop {
            limit(Some(process::threads(controlled.program.pid()).len() + more));
            let (head, body) = ask(controlled, "/core");
            let said = if head.status == 503 { message(body) } else { head.status.to_string() };
            if said.contains(reason) && said.contains("pids.max") {
                return println!("{what}: 503 {said}");
            }
            assert!(begun.elapsed() < PATIENCE, "{said}");
        }
    };
    refused(controlled, 1, "cannot fork");
    assert!(controlled.longest_gap() < Duration::from_secs(1));
    refused(controlled, 0, "no thread");
    // Stacks need no new process; where there is no thread either, the server's own does it.
    let (head, body) = ask(controlled, "/stacktrace/rust");
    let body = String::from_utf8(body.unwrap()).unwrap();
    assert!(head.status == 200 && body.contains("rests_in_park"), "{} {body}", head.status);
    limit(None);
    unharmed(controlled, what);
}

#[test]
fn no_more_processes_in_the_cgroup() {
    let mut controlled = sized_process();
    let Some(group) = Group::with("pids", "pids.max", "pids.max", controlled.program.pid()) else {
        delouse_tests::skipped!("no cgroup with a pids controller may be made here");
        return;
    };
    no_more_processes(&mut controlled, "pids.max", |most| {
        fs::write(&group.limit, most.map_or("max".to_owned(), |n| n.to_string())).unwrap();
    });
    drop(controlled);
}

/// A cgroup of our own, of either version.
struct Group {
    path: PathBuf,
    /// The file that its limit is written to.
    limit: PathBuf,
}

impl Group {
    /// One that holds process `pid` alone, with the file of its limit in version 1 or 2.
    fn with(controller: &str, version_1: &str, version_2: &str, pid: u32) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let places = [(root.join(controller), version_1), (root.to_owned(), version_2)];
        let group = places.iter().find_map(|(hierarchy, file)| {
            let path = hierarchy.join(format!("delouse-test-{pid}"));
            fs::create_dir(&path).ok()?;
            let group = Self { limit: path.join(file), path };
            group.limit.exists().then_some(group)
        })?;
        fs::write(group.path.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(group)
    }

    fn limit(&self, most: u64) {
        fs::write(&self.limit, most.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The program has gone, or goes to the group above.
        let parent = self.path.parent().map(|parent| parent.join("cgroup.procs"));
        for pid in fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default().lines() {
            let _gone = parent.as_ref().map(|procs| fs::write(procs, pid));
        }
        let _left = fs::remove_dir(&self.path);
    }
}

/// Sets the soft limit of a running process; `None` restores the limit from before. Runs `prlimit` as `user`, the owner of the process.
fn prlimit(user: &[&str], pid: u32, what: &str, most: Option<u64>) {
    let mut words = user.to_vec();
    words.extend(["prlimit", "--pid"]);
    let (pid, soft) = (pid.to_string(), most.map_or("unlimited".to_owned(), |most| most.to_string()));
    let limit = format!("--{what}={soft}:");
    words.extend([pid.as_str(), limit.as_str()]);
    let set = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(set.success(), "{words:?}");
}

/// A user without other processes: the limit counts all processes of a user.
const OTHER_USER: [&str; 4] = ["setpriv", "--reuid=61432", "--regid=61432", "--clear-groups"];

/// `program` where anybody may run it, as [`OTHER_USER`].
fn as_another_user(program: &Command) -> Option<(tempfile::TempDir, Command)> {
    let have = |tool: &str| Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
    let root = fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t0");
    if !root || !have("setpriv") || !have("prlimit") {
        delouse_tests::skipped!("needs root, setpriv and prlimit");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("sized_process");
    fs::copy(program.get_program(), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args(&OTHER_USER[1..]).arg(copy);
    Some((directory, command))
}

#[test]
fn no_more_processes_for_the_user() {
    let Some((_directory, command)) = as_another_user(&program!("sized_process")) else { return };
    let mut controlled = Controlled::start(command, 20, 30);
    let pid = controlled.program.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let before = limits.lines().find_map(|line| line.strip_prefix("Max processes")).unwrap();
    let before = before.split_whitespace().next().unwrap().parse().ok();
    no_more_processes(&mut controlled, "RLIMIT_NPROC", |most| {
        prlimit(&OTHER_USER, pid, "nproc", most.map_or(before, |most| Some(most as u64)));
    });
}

#[test]
fn no_more_address_space() {
    let mut controlled = sized_process();
    if Command::new("prlimit").arg("--version").output().is_err() {
        delouse_tests::skipped!("no prlimit");
        return;
    }
    let pid = controlled.program.pid();
    controlled.longest_gap();
    prlimit(&[], pid, "as", Some(process::bytes(pid, "VmSize")));
    for path in ["/core", "/stacktrace/rust", "/stacktrace/rust?consistent=true"] {
        let (head, body) = ask(&controlled, path);
        let said = message(body);
        println!("RLIMIT_AS {path}: {} {said}", head.status);
        let remedy = format!("prlimit --pid {pid} --as=");
        assert!(head.status == 503 && said.contains(&remedy), "{said}");
    }
    prlimit(&[], pid, "as", None);
    unharmed(&mut controlled, "RLIMIT_AS");
}

/// Asks for everything that reads debug information while `meanwhile` is called again and again, and returns the answers.
fn ask_all(controlled: &mut Controlled, mut meanwhile: impl FnMut(&mut Controlled)) -> Vec<(u16, String)> {
    let address = controlled.program.address();
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || {
            ["/stacktrace/tokio", "/stacktrace/rust", "/diagnosis"].map(|path| {
                let answer = request("GET", address, &format!("{path}?format=text"), &[]);
                (answer.status, answer.body)
            })
        });
        while !asking.is_finished() {
            meanwhile(controlled);
        }
        asking.join().unwrap().to_vec()
    })
}

#[test]
fn little_address_space() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        delouse_tests::skipped!("no prlimit");
        return;
    }
    let (mut partial, mut whole) = (0, 0);
    for left in [60, 200, 320, 450, 700, 2000] {
        let mut controlled = sized_process();
        let pid = controlled.program.pid();
        prlimit(&[], pid, "as", Some(process::bytes(pid, "VmSize") + (left << 20)));
        // What the program could allocate before, it can at any time.
        let reserve = format!("reserve {}", (left / 3).min(64));
        let mut reserved = 0;
        let answers = ask_all(&mut controlled, |controlled| {
            assert_eq!(controlled.tell(&reserve), "reserved", "with {left} MB left");
            reserved += 1;
        });
        for (status, text) in answers {
            let complete = !text.contains(&format!("prlimit --pid {pid} --as="));
            assert!(status == 200 || (status == 503 && !complete), "{left} MB left: {status} {text}");
            *(if complete { &mut whole } else { &mut partial }) += 1;
        }
        println!(
            "{left} MB left: {reserved} times {reserve}; {whole} answers complete, {partial} not, so far"
        );
        assert!(controlled.program.is_running());
    }
    assert!(partial >= 3, "with 60 MB left nothing can be read");
    assert!(whole >= 3, "2 GB are enough");
}

#[test]
fn little_memory_in_the_cgroup() {
    let mut controlled = sized_process();
    let pid = controlled.program.pid();
    let Some(group) = Group::with("memory", "memory.limit_in_bytes", "memory.max", pid) else {
        delouse_tests::skipped!("no cgroup with a memory controller may be made here");
        return;
    };
    group.limit(48 << 20);
    let answers = ask_all(&mut controlled, |controlled| drop(controlled.tell("gap")));
    for (status, text) in &answers {
        println!("memory.max: {status} {text}");
        assert!(*status == 200 || *status == 503, "{status} {text}");
    }
    let told = |(_, text): &(u16, String)| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(answers.iter().map(told).any(|text| text.contains("the cgroup's memory limit leaves")));
    assert!(controlled.program.is_running());
}

#[test]
fn the_image_is_killed_in_the_middle() {
    let mut controlled = sized_process();
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    let head = wire.ask("GET", "/core", &[]).unwrap();
    assert_eq!(head.status, 200);
    let image = image(&controlled);
    // By its number: it is a child of a child of ours.
    assert!(Command::new("kill").args(["-KILL", &image.id.to_string()]).status().unwrap().success());
    let cut = wire.body(&head);
    assert!(cut.is_err(), "a core that is cut must not look complete: {} bytes", cut.unwrap().len());
    let logged = controlled.program.complained("the core file was not sent to its end");
    assert!(logged.contains("the forked image has ended: its process was killed"), "{logged}");
    unharmed(&mut controlled, "the image killed");
}

#[test]
fn the_client_goes_away_in_the_middle() {
    // A gigabyte by hand: DELOUSE_STRESS=1.
    let megabytes = if std::env::var_os("DELOUSE_STRESS").is_some() { 1024 } else { 256 };
    let mut controlled = Controlled::start(program!("sized_process"), 20, megabytes);
    controlled.longest_gap();
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    let head = wire.ask("GET", "/core?force=true", &[]).unwrap();
    assert_eq!(head.status, 200);
    let pause = head.header("x-delouse-pause-us").unwrap().to_owned();
    wire.sip((megabytes as u64) << 19).unwrap();
    assert_eq!(process::images(controlled.program.pid()).len(), 1);
    drop(wire);
    let begun = Instant::now();
    until("the image is given up", || process::images(controlled.program.pid()).is_empty());
    println!("{megabytes} MB: pause {pause} µs, image gone {:?} after its client", begun.elapsed());
    unharmed(&mut controlled, "the client gone");
}

/// As when the disk is full on its side and it waits for its user: the image ends by itself.
#[test]
fn the_client_stops_reading() {
    let mut controlled = Controlled::start(program!("sized_process"), 20, 100);
    let mut wire = Wire::connect(controlled.program.address()).unwrap();
    let head = wire.ask("GET", "/core", &[]).unwrap();
    let image = image(&controlled);
    // Meanwhile another capture is refused, with what to do.
    let (busy, body) = ask(&controlled, "/core");
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("1")));
    assert!(message(body).contains("Repeat the request in a second"));
    let pid = controlled.program.pid();
    if std::env::var_os("DELOUSE_STRESS").is_some() {
        let begun = Instant::now();
        until("its life is over", || {
            !process::images(pid).iter().any(|i| i.id == image.id && i.state != 'Z')
        });
        println!("the image ended {:?} after its client stopped", begun.elapsed());
        assert!(wire.body(&head).is_err(), "a core that is cut must not look complete");
        let logged = controlled.program.complained("the core file was not sent to its end");
        assert!(logged.contains("it was not read for 30 s"), "{logged}");
    }
    drop(wire);
    unharmed(&mut controlled, "the client stopped");
}

#[test]
fn over_the_budget() {
    let mut command = program!("sized_process");
    command.env("DELOUSE_PAUSE_BUDGET_MS", "0");
    let mut controlled = Controlled::start(command, 20, 30);
    let (head, body) = ask(&controlled, "/core");
    let said = message(body);
    assert_eq!(head.status, 503, "{said}");
    for part in ["more than the 0 ms allowed", "DELOUSE_PAUSE_BUDGET_MS", "?force=true"] {
        assert!(said.contains(part), "{said}");
    }
    let (head, body) = ask(&controlled, "/core?estimate=true");
    let estimate: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(estimate["budget_us"], 0);
    assert!(estimate["refused"].as_str().unwrap().contains("0 ms allowed"), "{estimate}");
    assert!(process::children(controlled.program.pid()).is_empty());
    unharmed(&mut controlled, "over the budget, forced");
}
