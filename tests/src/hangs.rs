//! What the tests of the package `hanging` say, whichever program runs them.

/// A test that hangs: its name, what the first line of its message must contain, one of these between `|`, and the place.
pub type Hang = (&'static str, &'static str, &'static str);

/// Tests that fail. On a busy machine, the shutdown that `child_left_over` waits for may be over when it is examined.
pub const FAILING: [Hang; 9] = [
    ("deadlock", "eadlock: task", "hangs::cross"),
    ("deadlock_on_one_thread", "eadlock: task", "hangs::cross"),
    ("leaked_sender", "eaked tasks: ", "hangs::leaked_sender"),
    ("blocked_worker", "eadlock: the main future and task", "hangs::blocked_worker"),
    ("paused_clock", "eaked tasks: ", "hangs::paused_clock"),
    ("local_runtime", "eadlock: the main future", "hangs::local_runtime"),
    ("local_set", "eadlock: the main future", "hangs::local_set"),
    ("child_left_over", "shutdown that waits: | has not ended", "hangs::child_left_over"),
    ("prints_for_long", "eaked tasks: ", "hangs::prints_for_long"),
];

/// Tests that block the thread that would have to fail: the process ends.
pub const ENDING: [Hang; 3] = [
    ("std_mutex", "deadlock: the main future blocks its thread", "`_guard` in `hangs::std_mutex"),
    ("hang_in_drop", "locked worker: the main future", "hangs::HangsInDrop"),
    ("hang_before_the_first_await", "locked worker: the main future", "hangs::hang_before_the_first_await"),
];

/// Tests that pass.
pub const HEALTHY: [&str; 5] = [
    "healthy",
    "healthy_for_an_hour_of_a_paused_clock",
    "leaves_no_task",
    "panics_by_itself",
    "returns_a_result",
];

/// Whether a line names one of the causes, and the place.
#[must_use]
pub fn names(line: &str, causes: &str, place: &str) -> bool {
    causes.split('|').any(|cause| line.contains(cause)) && line.contains(place)
}
