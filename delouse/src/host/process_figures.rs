//! What the kernel counts of this process: the figures of `process_*` metrics.

use std::fs;
use std::sync::OnceLock;

use super::descriptors;

/// The directory whose entries are the open descriptors.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Of this process. What cannot be read is missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProcessFigures {
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) open_files: Option<usize>,
    pub(crate) max_files: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) resident_bytes: Option<u64>,
    /// Since 1970.
    pub(crate) start_seconds: Option<f64>,
    pub(crate) threads: Option<u64>,
}

impl ProcessFigures {
    /// Reads a file of `/proc`, and the size of a directory there. A scrape must not take a millisecond, however many
    /// descriptors and processors there are.
    pub(crate) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            open_files: size().or_else(entries),
            max_files: descriptors::limit().ok().flatten(),
            ..Self::of(&stat, booted())
        }
    }

    /// From the contents of `/proc/PID/stat` (proc_pid_stat(5)), and when the system was booted.
    fn of(stat: &str, booted: Option<f64>) -> Self {
        // The name may contain anything but the last parenthesis.
        let Some((_, fields)) = stat.rsplit_once(") ") else { return Self::default() };
        let fields: Vec<&str> = fields.split(' ').collect();
        // The third field of the file is the first one here.
        let field = |number: usize| fields.get(number - 3)?.trim().parse::<u64>().ok();
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        let seconds = |number: usize| Some(field(number)? as f64 / ticks);
        let both = |user: Option<f64>, system: Option<f64>| Some(user? + system?);
        Self {
            cpu_seconds: both(seconds(14), seconds(15)),
            threads: field(20),
            start_seconds: both(booted, seconds(22)),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * rustix::param::page_size() as u64),
            ..Self::default()
        }
    }
}

/// How many descriptors are open, by the size of their directory. `None` if the kernel does not count them: it does so since
/// Linux 6.2.
fn size() -> Option<usize> {
    let size = fs::metadata(DESCRIPTORS).ok()?.len();
    usize::try_from(size).ok().filter(|size| *size > 0)
}

/// The same by counting: 1 ms for some thousand descriptors.
fn entries() -> Option<usize> {
    // One of them is the directory itself.
    Some(fs::read_dir(DESCRIPTORS).ok()?.count().saturating_sub(1))
}

/// When the system was booted, in seconds since 1970. Read once: the file counts each interrupt of each processor, and the
/// value moves when the clock is set, which would look like another start of the process.
fn booted() -> Option<f64> {
    static BOOTED: OnceLock<Option<f64>> = OnceLock::new();
    *BOOTED.get_or_init(|| {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_stat() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1000 4096 3 18446744073709551615 1\n";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let figures = ProcessFigures::of(stat, Some(1000.0));
        assert_eq!(figures.cpu_seconds, Some(300.0 / ticks));
        assert_eq!(figures.start_seconds, Some(1000.0 + 1000.0 / ticks));
        assert_eq!((figures.threads, figures.virtual_bytes), (Some(9), Some(4096)));
        assert_eq!(figures.resident_bytes, Some(3 * rustix::param::page_size() as u64));
        assert_eq!(ProcessFigures::of("", None), ProcessFigures::default());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn of_this_process() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes > Some(1 << 20) && figures.open_files >= Some(3), "{figures:?}");
        assert!(figures.start_seconds > Some(1.6e9), "{figures:?}");
        assert_eq!(ProcessFigures::read().start_seconds, figures.start_seconds);
    }

    /// Other tests open and close descriptors meanwhile.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_size_of_the_directory_counts_descriptors() {
        let Some(_counts) = size() else { return };
        let begun = std::time::Instant::now();
        while size() != entries() {
            assert!(begun.elapsed().as_secs() < 60, "{:?} {:?}", size(), entries());
        }
        let files: Vec<_> = (0..50).map_while(|_| fs::File::open("/dev/null").ok()).collect();
        assert!(
            files.len() == 50 && size() > Some(50) && entries() > Some(50),
            "{:?} {:?}",
            size(),
            entries()
        );
    }
}
