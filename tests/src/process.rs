//! A process under test, read from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

/// A process or a thread, by its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Process or thread id.
    pub id: u32,
    /// `comm`: at most 15 bytes.
    pub name: String,
    /// The letter of `/proc/PID/stat`.
    pub state: char,
}

/// The threads of process `pid`, by id; none where it is gone.
pub fn threads(pid: u32) -> Vec<Entry> {
    let directory = format!("/proc/{pid}/task");
    let mut threads: Vec<_> = numbers(&directory)
        .filter_map(|tid| Some(stat(&format!("{directory}/{tid}/stat"), tid)?.0))
        .collect();
    threads.sort();
    threads
}

/// The processes that `pid` has started or forked and that are not reaped yet.
pub fn children(pid: u32) -> Vec<Entry> {
    numbers("/proc")
        .filter_map(|child| stat(&format!("/proc/{child}/stat"), child))
        .filter(|(_, parent)| *parent == pid)
        .map(|(entry, _)| entry)
        .collect()
}

/// The forked images of `pid` that live or wait to be reaped.
pub fn images(pid: u32) -> Vec<Entry> {
    children(pid).into_iter().filter(|child| child.name == "delouse-image").collect()
}

/// Children of `pid` that have ended and are not reaped within half a second.
pub fn zombies(pid: u32) -> Vec<Entry> {
    let dead = || children(pid).into_iter().filter(|child| child.state == 'Z').collect::<Vec<_>>();
    let begun = Instant::now();
    let mut lasting = dead();
    while !lasting.is_empty() && begun.elapsed() < Duration::from_millis(500) {
        std::thread::yield_now();
        let now = dead();
        lasting.retain(|zombie| now.contains(zombie));
    }
    lasting
}

/// A line of `/proc/PID/status` in bytes, such as `RssAnon`.
///
/// # Panics
/// Where the process is gone.
pub fn bytes(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kilobytes.unwrap_or_else(|| panic!("no {key} in {status}")) << 10
}

/// How many files `pid` has open.
pub fn open_files(pid: u32) -> usize {
    numbers(&format!("/proc/{pid}/fd")).count()
}

fn numbers(directory: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// One `stat` file, and the parent's id.
fn stat(path: &str, id: u32) -> Option<(Entry, u32)> {
    let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
    let (before, after) = text.rsplit_once(") ")?;
    let mut fields = after.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let name = before.split_once('(')?.1.to_owned();
    Some((Entry { id, name, state }, parent))
}
