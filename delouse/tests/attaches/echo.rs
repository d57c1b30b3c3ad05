//! Clients that put load on `plain_server`, and check what it sends back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::{Program, until};

/// Clients that run until [`stop`](Self::stop), each on a connection of its own.
pub(super) struct Clients {
    over: Arc<AtomicBool>,
    answered: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Clients {
    pub(super) fn start(server: &Program, count: usize) -> Self {
        let address = server.ready.split_whitespace().nth(1).expect("an address").to_owned();
        let over = Arc::new(AtomicBool::new(false));
        let answered: Vec<Arc<AtomicU64>> = (0..count).map(|_| Arc::default()).collect();
        let threads = answered.iter().map(|answered| {
            let (address, over, answered) = (address.clone(), over.clone(), answered.clone());
            std::thread::spawn(move || asks(&address, &over, &answered))
        });
        let threads = threads.collect();
        let clients = Self { over, threads, answered };
        clients.each_is_answered();
        clients
    }

    /// Waits until each client has got an answer to a request that it sends after this call.
    pub(super) fn each_is_answered(&self) {
        for answered in &self.answered {
            // The next answer may be to a request before.
            let before = answered.load(SeqCst);
            until(|| (answered.load(SeqCst) >= before + 2).then_some(()));
        }
    }

    /// Ends them. Fails if one of them got a wrong answer or none. Returns how many they got.
    pub(super) fn stop(mut self) -> String {
        self.over.store(true, SeqCst);
        let longest = self.threads.drain(..).map(|thread| thread.join().expect("each echo was right")).max();
        let answered: u64 = self.answered.iter().map(|answered| answered.load(SeqCst)).sum();
        format!("{answered} echoes, all right, the slowest took {:?}", longest.unwrap_or_default())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
    }
}

/// One request after the other. Returns how long the slowest one took.
fn asks(address: &str, over: &AtomicBool, answered: &AtomicU64) -> Duration {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut longest = Duration::ZERO;
    for number in 0_u64.. {
        if over.load(SeqCst) {
            break;
        }
        let (mut message, mut back) = ([0; 64], [0; 64]);
        for (place, byte) in message.iter_mut().zip(number.to_le_bytes().iter().cycle()) {
            *place = *byte;
        }
        let begun = Instant::now();
        connection.write_all(&message).unwrap();
        connection.read_exact(&mut back).unwrap();
        longest = longest.max(begun.elapsed());
        assert_eq!(back, message, "a wrong echo");
        answered.fetch_add(1, SeqCst);
        // Some load, not all that the machine can bear.
        if number.is_multiple_of(16) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    longest
}
