//! Lines of the program's own code, in the stacks of tasks and threads.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tasks::{BlockingCall, Frame, Origin, Task};
use crate::threads::{StackFrame, ThreadStack};

/// The most user frames that are listed of one stack.
const MAX_OWN: usize = 4;

/// A function, and the line that it is at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct CodeLocation {
    /// The function, or the type of the future.
    pub function: String,
    /// Source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The line is that of the function's declaration, as in a task's stack.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_declaration: bool,
    /// The program's own function or type inside of a library's future, as in a task's stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carries: Option<String>,
}

impl CodeLocation {
    /// Where a future is suspended.
    pub(crate) fn of_frame(frame: &Frame) -> Self {
        Self {
            function: frame.function.clone(),
            file: frame.file.clone(),
            line: frame.line.filter(|_| frame.file.is_some()),
            at_declaration: frame.at_declaration && frame.file.is_some(),
            carries: frame.carries.clone(),
        }
    }

    fn of_stack_frame(frame: &StackFrame) -> Self {
        // The symbol table calls the body of an `async fn` a closure; the source has the function's name.
        let function = frame.function.as_deref().unwrap_or(&frame.address).trim_end_matches("::{{closure}}");
        let (file, line) = (frame.file.clone(), frame.line.filter(|_| frame.file.is_some()));
        Self { function: function.to_owned(), file, line, ..Self::default() }
    }
}

impl CodeLocation {
    /// Of its text.
    fn parse(text: &str) -> Self {
        let (text, file) = match text.rsplit_once(" at ") {
            Some((before, file)) => (before, Some(file)),
            None => (text, None),
        };
        let declared = text.strip_suffix(", declared").filter(|_| file.is_some());
        let text = declared.unwrap_or(text);
        let (carries, function) = match text.split_once(", in ") {
            Some((carries, function)) => (Some(carries.to_owned()), function),
            None => (None, text),
        };
        let line = file.and_then(|file| file.rsplit_once(':')?.1.parse().ok());
        let file = file.map(|file| match (line, file.rsplit_once(':')) {
            (Some(_), Some((file, _))) => file.to_owned(),
            _ => file.to_owned(),
        });
        Self { function: function.to_owned(), file, line, at_declaration: declared.is_some(), carries }
    }
}

/// `function at file:line`, with what a library's future carries in front.
impl fmt::Display for CodeLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(carries) = &self.carries {
            write!(f, "{carries}, in ")?;
        }
        f.write_str(&self.function)?;
        if let Some(file) = &self.file {
            f.write_str(if self.at_declaration { ", declared at " } else { " at " })?;
            f.write_str(file)?;
        }
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// The innermost user frame that all branches of the stack have in common; the outermost frame if there is no user
/// frame.
pub(crate) fn user_frame(stack: &[Frame]) -> Option<&Frame> {
    let mut found = None;
    let mut level = stack;
    while let [frame] = level {
        if frame.origin == Origin::User {
            found = Some(frame);
        }
        level = &frame.children;
    }
    // A branch below a `select!` is more precise than the `select!` only if no other branch has user frames.
    let own = level.iter().filter_map(|branch| user_frame(std::slice::from_ref(branch)));
    let mut own = own.filter(|frame| frame.origin == Origin::User);
    match (own.next(), own.next()) {
        (Some(only), None) => Some(only),
        _ => found.or_else(|| stack.first()),
    }
}

/// The same, as a location.
pub(crate) fn of_task(stack: &[Frame]) -> Option<Arc<CodeLocation>> {
    user_frame(stack).map(|frame| CodeLocation::of_frame(frame).into())
}

/// The call that a task, or a thread with a future of a library's, is blocked in.
pub(super) fn blocking_call(task: &Task) -> Option<&BlockingCall> {
    let is_own = |frame: &&Frame| frame.origin == Origin::User;
    let of_library = || user_frame(&task.stack).filter(is_own).is_none();
    let innermost = task.drives.last().map(|driven| &driven.call);
    innermost.or_else(|| task.found_in.as_ref().filter(|_| of_library()))
}

/// The program's function that has made a call that blocks.
pub(super) fn of_call(call: &BlockingCall) -> Option<Arc<CodeLocation>> {
    call.caller.as_ref().map(|caller| CodeLocation::of_frame(caller).into())
}

/// The program's innermost function that a task waits in: the one that has made the call which blocks its thread, if there is
/// one.
pub(crate) fn of_waiting(task: &Task) -> Option<Arc<CodeLocation>> {
    blocking_call(task).map_or_else(|| of_task(&task.stack), of_call)
}

/// The program's own line on a thread's stack, and the foreign function that it called.
pub(crate) fn own_line(thread: &ThreadStack) -> Option<(CodeLocation, Option<&str>)> {
    let at = thread.frames.iter().position(|frame| frame.own)?;
    let own = thread.frames.get(at)?;
    let called = at.checked_sub(1).and_then(|inner| thread.frames.get(inner));
    Some((CodeLocation::of_stack_frame(own), called.and_then(|frame| frame.function.as_deref())))
}

/// The function of a library that the program called, or that tokio called for it: `Stdin::read`.
pub(crate) fn called(thread: &ThreadStack) -> Option<&str> {
    if let Some((_, called)) = own_line(thread) {
        return called;
    }
    let functions = thread.frames.iter().filter_map(|frame| frame.function.as_deref());
    functions.take_while(|function| !function.contains("tokio::")).last()
}

/// The program's own frames on a thread's stack, innermost first.
pub(crate) fn own_path(thread: &ThreadStack) -> Vec<CodeLocation> {
    let own = thread.frames.iter().filter(|frame| frame.own);
    own.take(MAX_OWN).map(CodeLocation::of_stack_frame).collect()
}

/// A location as one text in JSON: `function at file:line`.
pub(super) mod text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::CodeLocation;

    pub(in crate::waits) fn serialize<S: Serializer>(
        location: &Option<Arc<CodeLocation>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match location {
            Some(location) => serializer.collect_str(location),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::waits) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<CodeLocation>>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        Ok(text.map(|text| CodeLocation::parse(&text).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_back() {
        let mut location = CodeLocation {
            function: "app::run".to_owned(),
            file: Some("src/main.rs".to_owned()),
            line: Some(31),
            ..CodeLocation::default()
        };
        for text in ["app::run at src/main.rs:31", "app::run, declared at src/main.rs:31", "app::run", ""] {
            assert_eq!(CodeLocation::parse(text).to_string(), text);
        }
        assert_eq!(CodeLocation::parse("app::run at src/main.rs:31"), location);
        location.carries = Some("app::hello".to_owned());
        assert_eq!(CodeLocation::parse(&location.to_string()), location);
    }
}
