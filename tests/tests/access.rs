//! Hostile clients: each is refused or served, and the program is not disturbed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use delouse_tests::{PATIENCE, Program, program, request};

const PATHS: [&str; 4] = ["/", "/stacktrace/tokio", "/stacktrace/rust", "/elf/info"];

fn heartbeat() -> Program {
    let program = Program::start(program!("example-heartbeat"));
    program.printed("heartbeat 1");
    program
}

/// Waits for two more lines of the program.
fn undisturbed(program: &Program) {
    let next = program.stdout().len() + 2;
    program.printed(&format!("heartbeat {next}"));
    assert_eq!(program.get("/").status, 200);
}

/// Sends bytes and returns what the server sends until it closes the connection or is silent for a while.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may close before it has read everything: then the answer counts.
    let _refused = peer.write_all(bytes);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match peer.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(n) => answer.extend_from_slice(&chunk[..n]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn foreign_requests_are_refused_everywhere() {
    let program = heartbeat();
    let own = format!("http://{}", program.address());
    for path in PATHS.into_iter().chain(["/coredump"]) {
        for (name, value, code) in [
            ("host", "evil.example", "ForeignHost"),
            ("host", "localhost.evil.example:7132", "ForeignHost"),
            ("host", "10.0.0.1", "ForeignHost"),
            ("origin", "http://evil.example", "ForeignOrigin"),
            ("origin", "null", "ForeignOrigin"),
            ("sec-fetch-site", "cross-site", "CrossSite"),
            ("sec-fetch-site", "same-site", "CrossSite"),
        ] {
            let response = program.get_with(path, &[(name, value)]);
            assert_eq!(response.status, 403, "{path} {name}: {value}: {}", response.body);
            assert_eq!(response.json()["error_code"], code);
            assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(response.header("access-control-allow-origin"), None);
        }
    }
    program.complained("refused: Host is `evil.example`");
    let served = program.get_with("/", &[("origin", &own), ("sec-fetch-site", "same-origin")]);
    assert_eq!(served.status, 200, "{}", served.body);
    assert_eq!(program.get_with("/", &[("host", "localhost")]).status, 200);
    undisturbed(&program);
}

/// One request in HTTP/2 without TLS ("prior knowledge"); the first byte of the answer's header block.
fn over_http2(address: SocketAddr, authority: &str) -> u8 {
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    // HPACK (RFC 7541): GET, http and / from the static table; `:authority`, number 1, with a literal value.
    let mut block = vec![0x82, 0x86, 0x84, 0x41, u8::try_from(authority.len()).unwrap()];
    block.extend_from_slice(authority.as_bytes());
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // HEADERS, END_STREAM and END_HEADERS, stream 1 (RFC 9113, 6.2).
    request.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    request.extend_from_slice(&block);
    peer.write_all(&request).unwrap();
    loop {
        let mut head = [0; 9];
        peer.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        peer.read_exact(&mut payload).unwrap();
        if head[3] == 1 {
            return payload[0];
        }
    }
}

#[test]
fn http2_is_served_by_the_same_rules() {
    /// `:status: 200` in the static table; others are literals.
    const OK: u8 = 0x88;
    let program = heartbeat();
    assert_eq!(over_http2(program.address(), "localhost:7132"), OK);
    assert_ne!(over_http2(program.address(), "evil.example"), OK);
    program.complained("refused: Host is `evil.example`");
}

#[test]
fn oversized_requests_are_refused() {
    let program = heartbeat();
    let address = program.address();
    let long = "x".repeat(1 << 20);
    let header = raw(address, format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n").as_bytes());
    assert!(header.starts_with("HTTP/1.1 431"), "{header}");
    let many = "X: y\r\n".repeat(10_000);
    let headers = raw(address, format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes());
    assert!(headers.starts_with("HTTP/1.1 431"), "{headers}");
    let uri = raw(address, format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    assert!(uri.starts_with("HTTP/1.1 414") || uri.starts_with("HTTP/1.1 431"), "{uri}");
    let garbage = raw(address, b"\0\xff\x16\x03\x01 not http at all\r\n\r\n");
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    // No endpoint reads a body: a huge one costs nothing, and is not waited for.
    let body = format!(
        "GET /stacktrace/rust HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{long}",
        1u64 << 40
    );
    let answer = raw(address, body.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer}");
    undisturbed(&program);
}

#[test]
fn half_sent_requests_and_vanishing_clients_lock_nothing() {
    let program = heartbeat();
    let address = program.address();
    let mut halves = Vec::new();
    for request in
        ["", "G", "GET /stacktrace/tokio HTTP/1.1\r\nHost: loc", "GET / HTTP/1.1\r\nHost: localhost\r\n"]
    {
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(request.as_bytes()).unwrap();
        halves.push(peer);
    }
    for _ in 0..20 {
        // Requests the most expensive answer and closes the connection before it arrives.
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(b"GET /stacktrace/rust HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    }
    // At most the running capture delays this, and it ends by itself.
    let refused = |status| status == 429;
    while refused(program.get("/stacktrace/rust?format=text").status) {}
    undisturbed(&program);
}

#[test]
fn two_hundred_connections_at_once() {
    let program = heartbeat();
    let address = program.address();
    let idle: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    let clients: Vec<_> = (0..200)
        .map(|n| {
            std::thread::spawn(move || {
                let path = ["/stacktrace/rust", "/", "/stacktrace/tokio", "/elf/info"][n % 4];
                request("GET", address, path, &[]).status
            })
        })
        .collect();
    for client in clients {
        let status = client.join().unwrap();
        assert!([200, 429, 501, 503].contains(&status), "{status}");
    }
    drop(idle);
    undisturbed(&program);
}

#[test]
fn different_captures_do_not_run_at_once() {
    let program = heartbeat();
    let address = program.address();
    let ask = move |path: &'static str| std::thread::spawn(move || request("GET", address, path, &[]));
    // The first capture reads symbols, which takes long enough for the others to come in between.
    let mut refused = None;
    for _ in 0..50 {
        let answers: Vec<_> =
            ["/stacktrace/rust", "/stacktrace/tokio"].repeat(4).into_iter().map(ask).collect();
        let answers = answers.into_iter().map(|a| a.join().unwrap()).collect::<Vec<_>>();
        refused = answers.into_iter().find(|a| a.status == 429);
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("one was refused");
    assert_eq!(refused.json()["error_code"], "Busy");
    assert_eq!(refused.header("retry-after"), Some("1"));
}

#[test]
fn the_token_is_wanted_everywhere() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let mut command = program!("example-heartbeat");
    command.env("DELOUSE_TOKEN", TOKEN);
    let program = Program::start(command);
    program.printed("heartbeat 1");
    for path in PATHS.into_iter().chain(["/coredump"]) {
        let response = program.get(path);
        assert_eq!(response.status, 401, "{path}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        assert!(
            response.json()["message"].as_str().unwrap().contains("Authorization: Bearer $DELOUSE_TOKEN")
        );
    }
    // However much of it is right, the answer is the same to the byte, but for the request's own id.
    let told = |token: &str| {
        let response = program.get_with("/", &[("authorization", &format!("Bearer {token}"))]);
        (response.status, response.json()["message"].as_str().map(str::to_owned))
    };
    let wrong = told("nothing-right");
    assert_eq!(wrong.0, 401);
    for right in 1..TOKEN.len() {
        assert_eq!(told(&TOKEN[..right]), wrong);
        assert_eq!(told(&format!("{}{}", &TOKEN[..right], "x".repeat(TOKEN.len() - right))), wrong);
    }
    assert_eq!(told(&format!("{TOKEN}x")), wrong);
    assert_eq!(told(TOKEN).0, 200);
}

#[test]
fn nothing_private_is_told() {
    let mut command = program!("example-heartbeat");
    command.env("SECRET_OF_THE_TEST", "hunter2-in-env").arg("--password=hunter2-in-args");
    let program = Program::start(command);
    program.printed("heartbeat 1");
    for path in PATHS {
        assert!(!program.get(path).body.contains("hunter2"), "{path}");
    }
}
