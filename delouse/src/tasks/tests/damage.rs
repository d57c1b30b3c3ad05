//! Damaged memory and damaged types give a shorter answer, and no crash.

use tokio::runtime::Builder;
use tokio::sync::Mutex;

use super::super::{Address, Options, list};
use crate::debuginfo::image::Image;
use crate::debuginfo::types::Types;
use crate::host::shared_bytes::SharedBytes;
use crate::registry::Roots;
use crate::snapshot::{self, Snapshot};
use crate::targets::{self, Limits};

/// A snapshot of which some bytes are wrong.
struct Damaged<'s> {
    snapshot: &'s dyn Snapshot,
    seed: u64,
    /// One byte of so many is damaged.
    one_of: u64,
}

impl Snapshot for Damaged<'_> {
    fn read(&self, address: Address, buf: &mut [u8]) -> usize {
        let read = self.snapshot.read(address, buf);
        for (offset, byte) in (0..).zip(&mut buf[..read]) {
            let random = mix(address.get().wrapping_add(offset) ^ self.seed);
            if random.is_multiple_of(self.one_of) {
                *byte ^= (random >> 32) as u8;
            }
        }
        read
    }

    fn mappings(&self) -> &[snapshot::Mapping] {
        self.snapshot.mappings()
    }

    fn threads(&self) -> &[snapshot::Thread] {
        self.snapshot.threads()
    }

    fn capture(&self) -> &snapshot::Capture {
        self.snapshot.capture()
    }
}

/// A number that looks random (splitmix64).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Tasks with lists, boxes, collections and timers, and a handle to them.
fn crowd() -> tokio::runtime::Runtime {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for _ in 0..20 {
        runtime.spawn(async {
            let never = || Box::pin(std::future::pending::<()>());
            let mutex = Mutex::new(1);
            let _held = mutex.lock().await;
            tokio::select! {
                () = never() => {}
                _ = mutex.lock() => {}
                () = tokio::time::sleep(std::time::Duration::from_secs(86_400)) => {}
            }
        });
        runtime.spawn(async {
            let mut set = tokio::task::JoinSet::new();
            set.spawn(std::future::pending::<()>());
            set.join_next().await;
        });
    }
    runtime
}

#[test]
fn damaged_memory_gives_a_shorter_answer() {
    let runtime = crowd();
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    // No image lives for as long as all seeds may take together.
    let capture = || targets::fork(Limits { force: true, ..Limits::default() }).unwrap();
    let executable = std::env::current_exe().unwrap();
    let file = Image::open(&executable).unwrap();
    let bias = file.bias(&executable, capture().mappings()).unwrap();
    let types = Types::open(&file);
    let mut found = 0;
    for seed in 0..16 {
        let snapshot = capture();
        let one_of = [2_000, 200, 20, 3][seed as usize % 4];
        let damaged = Damaged { snapshot: &snapshot, seed, one_of };
        let begun = std::time::Instant::now();
        let options =
            Options { bias, scan: 64 << 20, now: Some(1), history: None, places: true, entered: false };
        let listing = list(&damaged, &types, &roots.addresses(), &options);
        found += listing.tasks.len();
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "seed {seed}: {:?}", begun.elapsed());
        assert!(listing.tasks.len() < 10_000, "seed {seed}: {}", listing.tasks.len());
    }
    assert!(found > 0);
}

#[test]
fn damaged_types_give_a_shorter_answer() {
    let runtime = crowd();
    let mut roots = Roots::new();
    roots.add_runtime(runtime.handle());
    let capture = || targets::fork_with_threads(Limits { force: true, ..Limits::default() }).unwrap();
    let executable = std::env::current_exe().unwrap();
    let whole = std::fs::read(&executable).unwrap();
    let bias = Image::open(&executable).unwrap().bias(&executable, capture().mappings()).unwrap();
    let mut found = 0;
    // DELOUSE_FUZZ: how many seeds, by hand. Each build is another file to be damaged.
    let seeds = std::env::var("DELOUSE_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(10_u64);
    for seed in 0..seeds {
        let mut bytes = whole.clone();
        // Behind what is loaded: debug sections and symbols.
        let start = bytes.len() / 4;
        let mut at = start as u64;
        while let Some(byte) = bytes.get_mut(at as usize) {
            let random = mix(at ^ seed);
            *byte ^= (random >> 32) as u8;
            at += 1 + random % [20_000, 2_000, 200][seed as usize % 3];
        }
        let Ok(file) = Image::parse(SharedBytes::new(bytes)) else { continue };
        let snapshot = capture();
        let begun = std::time::Instant::now();
        let types = Types::open(&file);
        let options = Options { bias, scan: 16 << 20, now: None, history: None, places: true, entered: true };
        found += list(&snapshot, &types, &roots.addresses(), &options).tasks.len();
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "seed {seed}: {:?}", begun.elapsed());
    }
    // What is found does not matter, only that it ends; the first seeds leave most types whole.
    assert!((found as u64) < 1000 * seeds);
}
