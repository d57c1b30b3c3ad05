//! Both debug servers answer, of one program.
#![cfg(all(tokio_unstable, feature = "debug"))]

use std::io::{Read, Write};
use std::net::TcpStream;

use delouse_tests::{Program, program};

#[test]
fn tokio_console_lives_beside_it() {
    let program = Program::start(program!("with-console"));
    let console = program.printed("console on ").rsplit(' ').next().unwrap().to_owned();
    program.printed("beat");
    // The console's server speaks gRPC: HTTP/2's preface is answered with its SETTINGS frame (type 4).
    let mut peer = TcpStream::connect(&console).unwrap();
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    peer.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "{frame:?}");
    assert_eq!(program.get("/stacktrace/rust").status, 200);
    let text = program.get("/stacktrace/tokio").stacktrace();
    assert!(text.contains("with_console::beat"), "{text}");
}
