//! HTTP/1.1 by hand, for what a client library hides: slow readers, clients that go away, bodies as they
//! are on the wire, connections that are used again and again.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::PATIENCE;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<TcpStream>,
}

/// What precedes a body.
#[derive(Debug, Clone)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// The headers, by lower-case name.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream) })
    }

    /// Sends a request and reads the answer's head. The body follows in [`body`](Self::body).
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Head> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut head = Head { status: status.ok_or(io::ErrorKind::InvalidData)?, headers: Vec::new() };
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            head.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(head)
    }

    /// The body that goes with `head`, to its end.
    pub fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if let Some(length) = head.header("content-length").and_then(|length| length.parse::<u64>().ok()) {
            (&mut self.stream).take(length).read_to_end(&mut body)?;
            return if body.len() as u64 == length {
                Ok(body)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        loop {
            let line = self.line()?;
            let length = u64::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let before = body.len() as u64;
            (&mut self.stream).take(length).read_to_end(&mut body)?;
            if body.len() as u64 != before + length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.line()?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads `bytes` of the body as they come, with the framing in between, and no more.
    pub fn sip(&mut self, bytes: u64) -> io::Result<u64> {
        io::copy(&mut (&mut self.stream).take(bytes), &mut io::sink())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}
