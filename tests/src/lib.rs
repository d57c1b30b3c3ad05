//! Shared by the end-to-end tests: a program that runs, and requests to its debug server.

pub mod controlled;
pub mod core_dump;
pub mod hangs;
pub mod measure;
pub mod process;
pub mod wire;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Longer than any step takes on a loaded machine; only a failing test reaches it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A program that runs until it is dropped.
pub struct Program {
    child: Child,
    /// Where it prints to.
    pipe: OwnedFd,
    stdout: Lines,
    stderr: Lines,
}

/// What a program has printed so far.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers, by lower-case name.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// From the request to the body's end.
    pub took: Duration,
}

impl Program {
    /// Starts `command` with its debug server on a free port.
    ///
    /// # Panics
    /// Where it cannot be started; like everything here, so that the test fails where it goes wrong.
    pub fn start(command: impl Into<Command>) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// The same with a standard input that is not empty: a pipe stays open until the program is dropped.
    ///
    /// # Panics
    /// Like [`start`](Self::start).
    pub fn start_reading(command: impl Into<Command>, stdin: Stdio) -> Self {
        let mut command = command.into();
        if !command.get_envs().any(|(name, _)| name == "DELOUSE_BIND") {
            command.env("DELOUSE_BIND", "127.0.0.1:0");
        }
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("piped");
        let pipe = stdout.as_fd().try_clone_to_owned().expect("a descriptor");
        let stderr = Lines::read(child.stderr.take().expect("piped"));
        Self { child, pipe, stdout: Lines::read(stdout), stderr }
    }

    /// Waits for the first line on stdout that contains `part`, and returns it.
    pub fn printed(&self, part: &str) -> String {
        self.stdout.wait_for(part)
    }

    /// Waits for the first line on stderr that contains `part`, and returns it.
    pub fn complained(&self, part: &str) -> String {
        self.stderr.wait_for(part)
    }

    /// All lines of stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.0.0.lock().expect("no panic").clone()
    }

    /// All lines of stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.0.0.lock().expect("no panic").clone()
    }

    /// The address of its debug server, as the program prints it.
    pub fn address(&self) -> SocketAddr {
        let line = self.complained("listening on http://");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        address.expect("an address").parse().expect("an address")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits for the program to end.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "still running; stderr: {:#?}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The same, without polling.
    pub fn wait_closely(&mut self) -> ExitStatus {
        self.child.wait().expect("our child")
    }

    /// Whether no process has the program's end of its standard output open any more.
    pub fn has_closed_stdout(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.pipe.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one `pollfd`; does not wait.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 && poll.revents & libc::POLLHUP != 0 }
    }

    /// `curl localhost:PORT{path}`.
    pub fn get(&self, path: &str) -> Response {
        self.get_with(path, &[])
    }

    /// The same, with further headers.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        request("GET", self.address(), path, headers)
    }

    /// `curl -X POST`.
    pub fn post(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        request("POST", self.address(), path, headers)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to do.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// One request on a connection of its own.
pub fn request(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let begun = Instant::now();
    let response = agent.run(request.body(()).expect("a request"));
    let mut response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let body = response.body_mut().with_config().limit(1 << 30).read_to_string().expect("a body in UTF-8");
    Response {
        status: response.status().as_u16(),
        headers: response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body,
        took: begun.elapsed(),
    }
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// `jq -r .stacktrace`.
    pub fn stacktrace(&self) -> String {
        let json = self.json();
        let text = json["stacktrace"].as_str();
        text.unwrap_or_else(|| panic!("no stacktrace: {}", self.body)).to_owned()
    }
}

impl Lines {
    fn read(source: impl std::io::Read + Send + 'static) -> Self {
        let lines = Self::default();
        let ours = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                ours.0.0.lock().expect("no panic").push(line);
                ours.0.1.notify_all();
            }
        });
        lines
    }

    fn wait_for(&self, part: &str) -> String {
        let (lines, grown) = &*self.0;
        let found = |lines: &Vec<String>| lines.iter().find(|line| line.contains(part)).cloned();
        let lines = lines.lock().expect("no panic");
        let (lines, _) =
            grown.wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none()).expect("no panic");
        found(&lines).unwrap_or_else(|| panic!("never printed: {part}; but: {:#?}", *lines))
    }
}

/// The command of a program of this package, by the path that cargo gives its tests.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        std::process::Command::new(env!(concat!("CARGO_BIN_EXE_", $name)))
    };
}

/// Reports on stderr that a test cannot run here. `println!` would not do: libtest hides what passing tests print.
#[macro_export]
macro_rules! skipped {
    ($($reason:tt)+) => {{
        use std::io::Write as _;
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {}", format_args!($($reason)+));
    }};
}
