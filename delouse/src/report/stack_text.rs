//! The stack of a group of tasks as text: a tree of futures, with each wait below the future that it belongs to.

use std::cmp::Reverse;
use std::fmt::Write as _;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::format::FULL_HINT;
use super::wait_text;
use crate::debuginfo::symbols::shorten;
use crate::tasks::{Frame, Origin, ResourceKind, Task, WaitsOn};

/// Waits shown of one future, where the list of tasks is all that a person reads.
pub(super) const MAX_WAITS: usize = 8;
/// Lines of one stack, where not all is asked for.
const MAX_LINES: usize = 120;
/// Levels that are indented: of those below, the number is written, so that a line stays short however deep it is.
const MAX_INDENT: usize = 20;

/// How much to write of each stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style<'t> {
    /// Every frame of every library, and every wait.
    pub(super) full: bool,
    /// Waits shown of one future, if not all are.
    pub(super) waits: usize,
    pub(super) current_dir: &'t str,
}

/// Writes stacks.
struct StackText<'t> {
    out: &'t mut String,
    full: bool,
    max_waits: usize,
    current_dir: &'t str,
    /// The tasks that have this stack; none where what they wait for is not to be shown.
    tasks: &'t [&'t Task],
    lines: usize,
    left_out: usize,
}

/// A future of the stack, and its place in `waits_on` of each task: several places where futures that are equal are shown
/// as one.
#[derive(Clone)]
struct Spot<'f> {
    frame: &'f Frame,
    starts: Vec<usize>,
}

/// An entry of `waits_on`, and the future that it belongs to.
type Entry<'f> = (usize, &'f Frame);

/// Writes one stack from `depth` on; without what its futures wait for where there are no tasks.
pub(super) fn write(
    out: &mut String,
    stack: &[Frame],
    tasks: &[&Task],
    depth: usize,
    Style { full, waits, current_dir }: Style<'_>,
) {
    let mut text = StackText { out, full, max_waits: waits, current_dir, tasks, lines: 0, left_out: 0 };
    let mut spots = Vec::new();
    let end = siblings(stack, &[0], 0, &mut spots);
    text.frames(spots, depth);
    if text.left_out > 0 {
        let left_out = text.left_out;
        text.write(depth, &format!("… {left_out} more futures {FULL_HINT}"));
    }
    // What no future of the stack has.
    let longest = tasks.iter().map(|task| task.waits_on.len()).max().unwrap_or(0);
    let rest: Vec<usize> = (end..longest).collect();
    text.waits(&rest.into_iter().map(|at| (at, None)).collect::<Vec<_>>(), depth);
}

impl StackText<'_> {
    fn write(&mut self, depth: usize, text: &str) {
        let indent = depth.min(MAX_INDENT) * 2;
        let level = if depth > MAX_INDENT { format!("({depth}) ") } else { String::new() };
        let _infallible = writeln!(self.out, "{:indent$}{level}{text}", "");
    }

    /// The depth of recursion is bounded by the walk's.
    fn frames(&mut self, level: Vec<Spot<'_>>, depth: usize) {
        let mut rest = level.as_slice();
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|other| *other.frame == *first.frame).count();
            let (alike, others) = rest.split_at(same);
            rest = others;
            if !self.full && self.lines >= MAX_LINES {
                self.left_out += alike.iter().map(|spot| size(spot.frame)).sum::<usize>();
                continue;
            }
            let starts = alike.iter().flat_map(|spot| &spot.starts).copied().collect();
            self.frame(Spot { frame: first.frame, starts }, same, depth);
        }
    }

    fn frame(&mut self, mut spot: Spot<'_>, same: usize, depth: usize) {
        let (mut below, mut own) = self.below(&spot);
        let mut levels = 1;
        // A recursion.
        while !self.full
            && own.is_empty()
            && let [only] = below.as_slice()
            && is_again(spot.frame, only.frame)
        {
            spot = only.clone();
            (below, own) = self.below(&spot);
            levels += 1;
        }
        let frame = spot.frame;
        let times = if same > 1 { format!("{same} × ") } else { String::new() };
        let place = match (&frame.file, frame.line) {
            (Some(file), Some(line)) => {
                let at = if frame.at_declaration { ", declared at" } else { " at" };
                format!("{at} {}:{line}", shorten(file, Some(self.current_dir)).0)
            }
            _ => String::new(),
        };
        let levels = if levels > 1 { format!(" ({levels} levels)") } else { String::new() };
        let carries = frame.carries.as_ref().map(|carries| format!("{carries}, in ")).unwrap_or_default();
        self.lines += 1;
        self.write(depth, &format!("{times}{carries}{}{place}{levels}", frame.function));
        let own: Vec<(usize, Option<&Frame>)> = own
            .into_iter()
            .map(|(at, leaf)| (at, Some(leaf).filter(|leaf| !std::ptr::eq(*leaf, frame))))
            .collect();
        self.waits(&own, depth + 1);
        self.frames(below, depth + 1);
    }

    /// What is shown below a future, and the waits that are shown at it: its own, and those of what is not shown.
    fn below<'f>(&self, spot: &Spot<'f>) -> (Vec<Spot<'f>>, Vec<Entry<'f>>) {
        let mut waits: Vec<Entry<'f>> = spot.own().collect();
        let mut open = spot.children();
        if self.full || spot.frame.origin == Origin::User {
            return (open, waits);
        }
        let mut shown = Vec::new();
        open.reverse();
        while let Some(spot) = open.pop() {
            if spot.frame.origin == Origin::User {
                shown.push(spot);
            } else {
                waits.extend(spot.own());
                open.extend(spot.children().into_iter().rev());
            }
        }
        (shown, waits)
    }

    /// What all tasks wait for there: each resource once, and how many tasks wait for it where several do.
    fn waits(&mut self, entries: &[(usize, Option<&Frame>)], depth: usize) {
        let mut resources: Vec<(&WaitsOn, Option<&Frame>, usize)> = Vec::new();
        let mut known = FxHashMap::with_capacity_and_hasher(self.tasks.len(), FxBuildHasher);
        let tasks = self.tasks;
        for (at, leaf) in entries {
            for waits in tasks.iter().filter_map(|task| task.waits_on.get(*at)) {
                let leaf = leaf.filter(|_| waits.kind == ResourceKind::Unknown);
                let key = (waits.kind, waits.address, leaf.map(|leaf| leaf.function.as_str()));
                let at = *known.entry(key).or_insert(resources.len());
                match resources.get_mut(at) {
                    Some((.., times)) => *times += 1,
                    None => resources.push((waits, leaf, 1)),
                }
            }
        }
        resources.sort_by_key(|(.., times)| Reverse(*times));
        let shown = if self.full { resources.len() } else { self.max_waits.min(resources.len()) };
        for (waits, leaf, times) in resources.iter().take(shown) {
            let times = if *times == 1 { String::new() } else { format!("{times} × ") };
            // The future itself is not shown.
            let leaf = leaf.map(|leaf| format!(": `{}`", leaf.function)).unwrap_or_default();
            self.write(depth, &format!("→ {times}{}{leaf}", wait_text::text(waits)));
        }
        if resources.len() > shown {
            self.write(depth, &format!("→ and {} more", resources.len() - shown));
        }
    }
}

impl<'f> Spot<'f> {
    /// The entries that are the frame's own.
    fn own(&self) -> impl Iterator<Item = Entry<'f>> {
        let (frame, own) = (self.frame, self.frame.waits as usize);
        self.starts.iter().flat_map(move |start| (*start..start + own).map(move |at| (at, frame)))
    }

    fn children(&self) -> Vec<Self> {
        let mut children = Vec::new();
        siblings(&self.frame.children, &self.starts, self.frame.waits as usize, &mut children);
        children
    }
}

/// Adds these frames, the first of which has its entries `before` behind each of `starts`. Returns how many entries there
/// are up to the last one's.
fn siblings<'f>(frames: &'f [Frame], starts: &[usize], before: usize, found: &mut Vec<Spot<'f>>) -> usize {
    let mut offset = before;
    for frame in frames {
        found.push(Spot { frame, starts: starts.iter().map(|start| start + offset).collect() });
        offset += entries(frame);
    }
    offset
}

/// How many entries of `waits_on` a frame and those below it have.
fn entries(frame: &Frame) -> usize {
    frame.waits as usize + frame.children.iter().map(entries).sum::<usize>()
}

/// How many frames there are.
fn size(frame: &Frame) -> usize {
    1 + frame.children.iter().map(size).sum::<usize>()
}

/// Whether a future awaits itself at the same place.
fn is_again(frame: &Frame, below: &Frame) -> bool {
    (&frame.function, &frame.file, frame.line) == (&below.function, &below.file, below.line)
        && frame.line.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Address;
    use crate::waits::fixtures;

    fn frame(function: &str, origin: Origin, waits: u32, children: Vec<Frame>) -> Frame {
        let line = (origin == Origin::User).then_some(7);
        let file = line.map(|_| "src/main.rs".to_owned());
        Frame { function: function.to_owned(), file, line, origin, waits, children, ..Frame::default() }
    }

    fn waits(kind: ResourceKind, address: u64) -> WaitsOn {
        WaitsOn { kind, address: Some(Address::new(address)), ..WaitsOn::default() }
    }

    fn text(stack: Vec<Frame>, of_tasks: Vec<Vec<WaitsOn>>, full: bool) -> String {
        let tasks: Vec<Task> = of_tasks
            .into_iter()
            .map(|waits_on| Task { waits_on, ..fixtures::task(1, "app::f", 1) })
            .collect();
        let tasks: Vec<&Task> = tasks.iter().collect();
        let mut out = String::new();
        write(&mut out, &stack, &tasks, 1, Style { full, waits: MAX_WAITS, current_dir: "" });
        out
    }

    #[test]
    fn each_branch_of_a_select_says_what_it_waits_for() {
        let branch = |name: &str| {
            let leaf = frame("tokio::sync::notify::Notified", Origin::Dependency, 1, Vec::new());
            let library = frame("tokio::sync::watch::changed", Origin::Dependency, 0, vec![leaf]);
            frame(name, Origin::User, 0, vec![library])
        };
        let timer = frame("tokio::time::Sleep", Origin::Dependency, 1, Vec::new());
        let select = frame("app::run", Origin::User, 0, vec![branch("app::one"), timer, branch("app::two")]);
        let of_task =
            vec![waits(ResourceKind::Watch, 1), waits(ResourceKind::Timer, 2), waits(ResourceKind::Watch, 3)];
        assert_eq!(
            text(vec![select], vec![of_task], false),
            "  app::run at src/main.rs:7\n\
             \x20   app::one at src/main.rs:7\n\
             \x20     tokio::sync::watch::changed\n\
             \x20       → a change of watch 0x1\n\
             \x20   tokio::time::Sleep\n\
             \x20     → a timer\n\
             \x20   app::two at src/main.rs:7\n\
             \x20     tokio::sync::watch::changed\n\
             \x20       → a change of watch 0x3\n"
        );
    }

    #[test]
    fn tasks_with_one_stack_have_bounded_lists_at_each_leaf() {
        let leaf = |name: &str| frame(name, Origin::Dependency, 1, Vec::new());
        let stack = vec![frame("app::run", Origin::User, 0, vec![leaf("lib::Lock"), leaf("lib::Receive")])];
        let of_task =
            |id: u64| vec![waits(ResourceKind::Mutex, 1), waits(ResourceKind::ChannelRecv, 100 + id)];
        let text = text(stack, (0..250).map(of_task).collect(), false);
        assert!(text.contains("    lib::Lock\n      → 250 × mutex 0x1\n    lib::Receive\n"), "{text}");
        assert!(text.ends_with("      → and 242 more\n"), "{text}");
        assert_eq!(text.lines().count(), 13, "{text}");
    }

    #[test]
    fn equal_futures_are_one_with_the_waits_of_all() {
        let leaf = || frame("lib::Receive", Origin::Dependency, 1, Vec::new());
        let stack = vec![frame("app::all", Origin::User, 0, vec![leaf(), leaf(), leaf()])];
        let of_task = (1..=3).map(|at| waits(ResourceKind::ChannelRecv, at)).collect();
        assert_eq!(
            text(stack, vec![of_task], false),
            "  app::all at src/main.rs:7\n\
             \x20   3 × lib::Receive\n\
             \x20     → a message of channel 0x1\n\
             \x20     → a message of channel 0x2\n\
             \x20     → a message of channel 0x3\n"
        );
    }

    #[test]
    fn an_unknown_future_that_is_not_shown_is_named() {
        let leaf = frame("lib::Hidden", Origin::Dependency, 1, Vec::new());
        let library = frame("lib::outer", Origin::Dependency, 0, vec![leaf]);
        let text = text(vec![library], vec![vec![WaitsOn::default()]], false);
        assert_eq!(text, "  lib::outer\n    → something that delouse does not know: `lib::Hidden`\n");
    }

    #[test]
    fn depth_costs_no_width() {
        let nested = |name: fn(usize) -> String| {
            let leaf = frame("lib::Leaf", Origin::Dependency, 1, Vec::new());
            let deep = (0..250).fold(leaf, |below, at| frame(&name(at), Origin::User, 0, vec![below]));
            move |full| text(vec![deep.clone()], vec![vec![waits(ResourceKind::Timer, 1)]], full)
        };
        let different = nested(|at| format!("app::f{at}"));
        let all = different(true);
        assert_eq!(all.lines().count(), 252, "{all}");
        assert!(all.lines().all(|line| line.chars().count() < 80), "{all}");
        let short = different(false);
        assert!(short.lines().count() < 130 && short.contains("more futures (?full=true"), "{short}");
        assert_eq!(
            nested(|_| "app::dive".to_owned())(false),
            "  app::dive at src/main.rs:7 (250 levels)\n    lib::Leaf\n      → a timer\n"
        );
    }

    #[test]
    fn a_connection_is_named_by_what_it_carries() {
        let connection = Frame {
            carries: Some("app::hello".to_owned()),
            ..frame("futures_util::future::Map<…>", Origin::Dependency, 1, Vec::new())
        };
        let text = text(vec![connection], vec![vec![waits(ResourceKind::Timer, 1)]], false);
        assert_eq!(text, "  app::hello, in futures_util::future::Map<…>\n    → a timer\n");
    }

    #[test]
    fn waits_that_no_frame_has_are_shown_at_the_end() {
        let stack = vec![frame("app::run", Origin::User, 0, Vec::new())];
        let text = text(stack, vec![vec![waits(ResourceKind::Timer, 1)]], false);
        assert_eq!(text, "  app::run at src/main.rs:7\n  → a timer\n");
    }
}
