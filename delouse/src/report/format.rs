//! Tasks, numbers, times and sizes as text: one way of writing for all answers.

use std::fmt::Display;
use std::time::Duration;

use crate::tasks::Waiting;
use crate::waits::TaskIds;

/// Follows what the text leaves out. The command replaces it by the name of its option.
pub(crate) const FULL_HINT: &str = "(?full=true shows them)";

/// A task in a sentence.
pub(crate) fn task(id: u64) -> String {
    if id == 0 { "the main future".to_owned() } else { format!("task {id}") }
}

/// ` in app::serve at src/main.rs:9`; nothing if the place is not known.
pub(crate) fn in_place(place: Option<impl Display>) -> String {
    place.map(|place| format!(" in {place}")).unwrap_or_default()
}

/// `7, 9, 12 and 4 more`.
pub(crate) fn list(tasks: &TaskIds) -> String {
    let short = |id: &u64| if *id == 0 { "main".to_owned() } else { id.to_string() };
    let listed = tasks.tasks.iter().map(short).collect::<Vec<_>>().join(", ");
    match tasks.count.saturating_sub(tasks.tasks.len()) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// `task 7`, `tasks 7, 9, 12 and 4 more`.
pub(crate) fn tasks(tasks: &TaskIds) -> String {
    match (tasks.tasks.as_slice(), tasks.count) {
        ([only], 1) => task(*only),
        _ => format!("tasks {}", list(tasks)),
    }
}

/// `task 7`, `90 tasks (1, 2, 3 and 87 more)`.
pub(crate) fn counted(tasks: &TaskIds) -> String {
    match tasks.count {
        1 => self::tasks(tasks),
        count => format!("{count} tasks ({})", list(tasks)),
    }
}

/// `1 task`, `2 tasks`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `1 task waits`, `2 tasks wait`; of `what` is counted.
pub(crate) fn count_waiting(n: usize, what: &str) -> String {
    format!("{} wait{}", count(n, what), if n == 1 { "s" } else { "" })
}

/// `1,204`.
pub(crate) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `a, b or c`.
pub(crate) fn alternatives(names: &[String]) -> String {
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// `950 µs`, `4.2 ms`, `150 ms`, `2.0 s`, `3 min 5 s`, `23 h 59 min`.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..1_000 => format!("{us} µs"),
        us @ 1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        us @ 10_000..1_000_000 => format!("{} ms", us / 1_000),
        us @ 1_000_000..60_000_000 => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
        _ => match time.as_secs() {
            s @ 0..3_600 => format!("{} min {} s", s / 60, s % 60),
            s => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        },
    }
}

pub(crate) fn millis(ms: u64) -> String {
    // `4.0 ms` would be more precise than what was measured.
    if ms < 10 { format!("{ms} ms") } else { duration(Duration::from_millis(ms)) }
}

/// `in 1.5 s`, `due 20 ms ago`.
pub(crate) fn in_time(ms: i64) -> String {
    let time = millis(ms.unsigned_abs());
    if ms < 0 { format!("due {time} ago") } else { format!("in {time}") }
}

/// `for at least 42.0 s`; `None` where it is so short that it says nothing.
pub(crate) fn waiting(waiting: Option<Waiting>) -> Option<String> {
    let Waiting { at_least_ms, exact } = waiting.filter(|waiting| waiting.at_least_ms >= 1000)?;
    Some(format!("for {}{}", if exact { "" } else { "at least " }, millis(at_least_ms)))
}

/// `512 B`, `1.5 kB`, `76.3 MB`: powers of 1000.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes / 100;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while tenths >= 10_000
        && let Some(next) = units.next()
    {
        tenths /= 1000;
        unit = Some(next);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, unit.unwrap_or(&"TB"))
}

/// The sentence with a capital.
pub(crate) fn upper(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(char::to_uppercase).into_iter().flatten().chain(letters).collect()
}

/// The sentence in the middle of another.
pub(crate) fn lower(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(char::to_lowercase).into_iter().flatten().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_digits_or_more() {
        let micros = [950, 4_210, 150_000, 2_040_000, 185_000_000, 86_340_000_000];
        assert_eq!(
            micros.map(|us| duration(Duration::from_micros(us))),
            ["950 µs", "4.2 ms", "150 ms", "2.0 s", "3 min 5 s", "23 h 59 min"]
        );
        assert_eq!([0, 9, 10, 1500].map(millis), ["0 ms", "9 ms", "10 ms", "1.5 s"]);
    }

    #[test]
    fn sizes_are_powers_of_1000() {
        assert_eq!(
            [0, 999, 1_536, 76_300_000, 3 << 30, u64::MAX].map(size),
            ["0 B", "999 B", "1.5 kB", "76.3 MB", "3.2 GB", "18446744.0 TB"]
        );
    }

    #[test]
    fn long_lists_of_tasks_are_cut() {
        assert_eq!(tasks(&TaskIds::of([0])), "the main future");
        assert_eq!(tasks(&TaskIds::of([7, 0])), "tasks 7, main");
        assert_eq!(counted(&TaskIds::of(1..=12)), "12 tasks (1, 2, 3, 4, 5, 6, 7, 8 and 4 more)");
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
