//! What the kernel counts of this process: the figures of `process_*` metrics.

use std::fs;

use super::descriptors;

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
    /// Reads three files of `/proc`, and counts the entries of a directory there.
    pub(crate) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let booted = fs::read_to_string("/proc/stat").unwrap_or_default();
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
        let entries = fs::read_dir("/proc/self/fd").ok();
        Self {
            // One of them is the directory itself.
            open_files: entries.map(|entries| entries.count().saturating_sub(1)),
            max_files: descriptors::limit().ok().flatten(),
            ..Self::of(&stat, booted)
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
    }
}
