//! A program that is killed, or executes itself, and is started again at once: it reports what is still in use.
//!
//! `lifecycle restarts ADDRESS LOCK ROUND`: listens at `ADDRESS`, without `SO_REUSEADDR`, and locks the file `LOCK`. A
//! datagram to `ADDRESS` has it execute itself, for the next round.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// What others may not have at the same time.
struct Held {
    _listener: OwnedFd,
    _lock: File,
    datagrams: UdpSocket,
}

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [address, lock, round] = &*arguments else { return ExitCode::FAILURE };
    let (Ok(address), Ok(round)) = (address.parse(), round.parse::<u32>()) else { return ExitCode::FAILURE };
    match Held::take(address, lock) {
        Ok(held) => serve(held, &[address.to_string(), lock.clone(), (round + 1).to_string()], round),
        Err(taken) => {
            println!("round {round}: taken: {taken}");
            ExitCode::FAILURE
        }
    }
}

impl Held {
    fn take(address: SocketAddrV4, path: &str) -> Result<Self, String> {
        // delouse itself waits a moment for its port.
        let debug: Option<SocketAddr> = std::env::var("DELOUSE_BIND").ok().and_then(|bind| bind.parse().ok());
        let debug = debug.ok_or("no DELOUSE_BIND")?;
        drop(TcpListener::bind(debug).map_err(|error| format!("delouse's port: {error}"))?);
        let listener = listen(address).map_err(|error| format!("the program's port: {error}"))?;
        let datagrams =
            UdpSocket::bind(address).map_err(|error| format!("the program's UDP port: {error}"))?;
        let file = File::options().write(true).open(path).map_err(|error| error.to_string())?;
        lock(&file).map_err(|error| format!("the lock: {error}"))?;
        lock_record(&file).map_err(|error| format!("the record lock: {error}"))?;
        Ok(Self { _listener: listener, _lock: file, datagrams })
    }
}

/// As std does, but without `SO_REUSEADDR`.
fn listen(address: SocketAddrV4) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers, for which zeroes are valid; a socket that no other object owns.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let mut name: libc::sockaddr_in = std::mem::zeroed();
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = address.port().to_be();
        name.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
        let length = size_of_val(&name) as libc::socklen_t;
        if libc::bind(fd, (&raw const name).cast(), length) != 0 || libc::listen(fd, 16) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}

/// By flock(2): a lock of the open file.
fn lock(file: &File) -> io::Result<()> {
    // SAFETY: a call without memory of ours.
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if locked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// By fcntl(2): a lock of the process, not of the open file.
fn lock_record(file: &File) -> io::Result<()> {
    // SAFETY: plain numbers, for which zeroes are valid.
    let locked = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as _;
        libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock)
    };
    if locked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[delouse::main(worker_threads = 2)]
async fn serve(held: Held, next: &[String], round: u32) -> ExitCode {
    let padding = std::hint::black_box(vec![1_u8; 32 << 20]);
    tokio::spawn(std::future::pending::<()>());
    println!("round {round}: ready");
    let asked = tokio::task::spawn_blocking(move || held.datagrams.recv(&mut [0; 8]));
    let _asked = asked.await;
    // It has the same process id, and none of the files: all are close-on-exec.
    let executable = std::env::current_exe().unwrap_or_default();
    let failed = Command::new(executable).arg("restarts").args(next).exec();
    println!("round {round}: {failed} {}", padding.len());
    ExitCode::FAILURE
}
