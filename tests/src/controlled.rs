//! Programs that tests control over a connection, such as `sized_process` (`src/bin/sized_process.rs`).

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::{PATIENCE, Program};

/// The running program and the connection for commands.
pub struct Controlled {
    /// The program.
    pub program: Program,
    control: BufReader<TcpStream>,
}

impl Controlled {
    /// Starts `command` with so many resting threads and so much memory, and waits until all rest.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(mut command: Command, threads: usize, megabytes: usize) -> Self {
        command.args([threads.to_string(), megabytes.to_string()]);
        Self::of(Program::start(command))
    }

    /// Any program that prints `control ADDRESS` when it accepts commands.
    ///
    /// # Panics
    /// If nothing listens there.
    pub fn of(program: Program) -> Self {
        let address = program.printed("control ").split(' ').nth(1).expect("an address").to_owned();
        let control = TcpStream::connect(address).expect("it listens");
        control.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { program, control: BufReader::new(control) }
    }

    /// One command and its answer.
    ///
    /// # Panics
    /// Where the program does not answer.
    pub fn tell(&mut self, command: &str) -> String {
        self.try_tell(command).expect("it answers")
    }

    /// The same; `None` if the program does not answer in time. Do not send further commands after that.
    ///
    /// # Panics
    /// Where the program is gone.
    pub fn try_tell(&mut self, command: &str) -> Option<String> {
        self.control.get_mut().write_all(format!("{command}\n").as_bytes()).expect("it reads");
        let mut answer = String::new();
        match self.control.read_line(&mut answer) {
            Ok(_) => Some(answer.trim_end().to_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{command}: {error}"),
        }
    }

    /// The longest time between two ticks of a thread that sleeps for a millisecond, since the last time
    /// that this was asked.
    ///
    /// # Panics
    /// Where the program does not answer.
    pub fn longest_gap(&mut self) -> Duration {
        Duration::from_micros(self.tell("gap").parse().expect("a number"))
    }
}
