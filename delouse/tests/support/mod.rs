//! Programs, servers and the command, for the tests of the command.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The most time that a condition takes to become true, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the command has printed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let status = output.status.code().expect("no signal has ended it");
        Self { status, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Checks that there is no answer, and the reason in one line.
    pub(crate) fn fails_with(&self, reason: &str) {
        assert_eq!(self.status, 1, "{self:?}");
        assert!(
            self.err.starts_with("delouse: ") && self.err.contains(reason),
            "{reason} is not in {self:?}"
        );
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        assert_eq!(self.out, "");
    }
}

/// The command, or another build of it that `DELOUSE_COMMAND` names.
pub(crate) fn command() -> Command {
    let other = std::env::var_os("DELOUSE_COMMAND");
    Command::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_delouse").into()))
}

/// Runs the command.
pub(crate) fn delouse(arguments: &[&str]) -> Answer {
    let mut command = command();
    Answer::of(command.args(arguments).env_remove("DELOUSE_TOKEN").stdin(Stdio::null()).output().unwrap())
}

/// Waits until `condition` returns something.
pub(crate) fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(result) = condition() {
            return result;
        }
        assert!(begun.elapsed() < PATIENCE, "the condition has not become true");
    }
}

/// The path of a program of the packages `plain`, `optimised` and `thread_kinds`, which are built first
/// in the profile of the tests.
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "plain", "--package", "optimised"])
            .args(["--package", "thread_kinds"])
            .args((!cfg!(debug_assertions)).then_some("--release"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .status();
        assert!(cargo.unwrap().success());
        Path::new(env!("CARGO_BIN_EXE_delouse")).parent().unwrap().to_owned()
    });
    directory.join(name)
}

/// A program that runs until it is dropped.
pub(crate) struct Program {
    child: Child,
    /// The line that it printed when it had begun its work.
    pub(crate) ready: String,
}

impl Program {
    /// Starts a program of these packages, and waits until it has begun its work.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// The same with arguments. Its standard input is a pipe, which stays open and empty.
    pub(crate) fn start_with(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program(name));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = Lines::of(child.stdout.take().unwrap());
        let ready = lines.until_either(["ready", "READY"]);
        // Later lines are read and dropped: otherwise the program could not write them.
        thread::spawn(move || std::io::copy(&mut lines.0, &mut std::io::sink()));
        Self { child, ready }
    }

    pub(crate) fn start_command(command: &mut Command) -> Self {
        Self { child: command.stdout(Stdio::null()).spawn().unwrap(), ready: String::new() }
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// The lines of a pipe.
pub(crate) struct Lines<R>(BufReader<R>);

impl<R: Read> Lines<R> {
    pub(crate) fn of(pipe: R) -> Self {
        Self(BufReader::new(pipe))
    }

    /// The next line that contains `part`.
    pub(crate) fn until(&mut self, part: &str) -> String {
        self.until_either([part, part])
    }

    /// The next line that contains one of `parts`.
    pub(crate) fn until_either(&mut self, parts: [&str; 2]) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.0.read_line(&mut line).unwrap();
            assert!(read > 0, "the pipe has ended before a line with {}", parts.join(" or "));
            if parts.iter().any(|part| line.contains(part)) {
                return line;
            }
        }
    }
}

/// `delouse serve`, which runs until it is dropped.
pub(crate) struct Served {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    /// The line that says what it serves.
    pub(crate) subject: String,
}

/// An answer of a server.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
    pub(crate) bytes: Vec<u8>,
}

impl Served {
    /// Starts it for a target, on a free port unless the arguments name one, and waits until it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_delouse"));
        command.arg("serve").args(arguments).env_remove("DELOUSE_TOKEN").env("DELOUSE_BIND", "127.0.0.1:0");
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut err = Lines::of(child.stderr.take().unwrap());
        // In any order: another thread prints the address.
        let (mut subject, mut url) = (None, None);
        while subject.is_none() || url.is_none() {
            let line = err.until("delouse: ");
            let address = line.split_whitespace().find(|word| word.starts_with("http://"));
            url = url.or_else(|| address.map(str::to_owned));
            subject = subject.or_else(|| line.contains("answers are about").then_some(line));
        }
        let (subject, url) = (subject.unwrap(), url.unwrap());
        // Later lines are read and dropped: otherwise the server could not write them.
        thread::spawn(move || std::io::copy(&mut err.0, &mut std::io::sink()));
        Self { child, url, subject }
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    /// Sends a request. `headers` override those that each request has.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let authority = self.url.strip_prefix("http://").unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str(&format!("Host: {authority}\r\n"));
        }
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        let mut stream = TcpStream::connect(authority).unwrap();
        write!(stream, "{request}\r\n").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let end = all.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let body = &all[end + 4..];
        let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let bytes = if is_chunked { unchunked(body) } else { body.to_vec() };
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        Response { status, head, text: String::from_utf8_lossy(&bytes).into_owned(), bytes }
    }

    /// Ends it as Ctrl-C does. Returns its exit status.
    pub(crate) fn stop(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code().expect("no signal has ended it")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// The content of a body in chunks (RFC 9112, 7.1).
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let line = body.windows(2).position(|part| part == b"\r\n").expect("a size");
        let size = std::str::from_utf8(&body[..line]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&body[line + 2..line + 2 + size]);
        body = &body[line + 4 + size..];
    }
}

/// Starts a server that answers each connection by `answer`, after its request was read. Returns its address.
pub(crate) fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    serve_paths(move |_, stream| answer(stream))
}

/// The same with the path of the request.
pub(crate) fn serve_paths(answer: impl Fn(&str, TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut request = BufReader::new(&stream);
            let (mut first, mut line) = (String::new(), String::new());
            let _closed = request.read_line(&mut first);
            while request.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            answer(first.split_whitespace().nth(1).unwrap_or_default(), stream);
        }
    });
    format!("http://{address}")
}

/// The same, with one answer to all requests. `status` may have further headers.
pub(crate) fn answer_with(content_type: &str, body: &str, status: &str) -> String {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    serve(move |mut stream| {
        let _closed = stream.write_all(answer.as_bytes());
    })
}
