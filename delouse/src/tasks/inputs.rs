//! What a future takes from: channels, sockets, sets of futures; and whether these have ended, so that whatever polls
//! them gets an answer at once, each time.
//!
//! Few tasks are read in this way: those that seem to be polled without pause, whose futures change while memory is read, so
//! that what is found counts only together with other samples; and some that wait, if finished tasks or bodies are kept.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Frame;
use super::process::Process;
use super::route::Route;
use crate::debuginfo::types::{Discriminant, Shape, Type, TypeId, Variant};
use crate::snapshot::Address;

/// The most values of one future that are visited.
const MAX_VALUES: usize = 4096;
/// The most inputs of one future.
const MAX_INPUTS: usize = 32;

/// Something that a future takes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    /// What it is.
    pub(crate) source: Source,
    /// The variable.
    pub(crate) variable: String,
    /// The function that has the variable, where it was suspended last.
    pub(crate) function: Option<Frame>,
    /// Nothing more comes: polling it returns at once. `None` if that is not known.
    pub(crate) ended: Option<bool>,
    /// A number that changes when something comes; `None` if there is none.
    pub(crate) progress: Option<u64>,
    /// The descriptor of a socket or pipe.
    pub(crate) fd: Option<i32>,
    /// How many bytes the kernel has for its reader; `None` if the kernel was not asked or does not say.
    pub(crate) unread: Option<u64>,
    /// The address of what it belongs to: of a body, the connection.
    pub(crate) resource: Option<Address>,
    /// How many handles of tasks it has; `None` if it has none.
    pub(crate) handles: Option<u64>,
    /// The modules whose functions take from it.
    pub(crate) polled_in: &'static [&'static str],
}

/// What a future takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// A channel for messages.
    Channel,
    /// A `watch` channel.
    Watch,
    /// A socket or pipe.
    File,
    /// A `CancellationToken`.
    Token,
    /// A `FuturesUnordered` or a `JoinSet`.
    Set,
    /// The body of an HTTP/2 message.
    Body,
}

/// A type that is an input.
struct InputFact {
    path: &'static str,
    source: Source,
    /// It has ended if all of these are true; not known without tests.
    ended: &'static [Test],
    /// To the number that changes when something comes.
    progress: &'static str,
    /// To the descriptor.
    fd: &'static str,
    /// To the number of handles of tasks.
    handles: &'static str,
    polled_in: &'static [&'static str],
}

/// A test of numbers at the ends of routes.
enum Test {
    Zero(&'static str),
    NotZero(&'static str),
    /// One of these bits is set.
    Bits(&'static str, u64),
    /// The first number is at most that much larger than the second.
    Near(&'static str, &'static str, u64),
}

/// The table. Paths and fields are those of tokio 1.40 to 1.54 (`sync/mpsc/chan.rs`, `sync/broadcast.rs`,
/// `sync/watch.rs`, `task/join_set.rs`, `io/poll_evented.rs`), tokio-util 0.7 (`sync/cancellation_token/tree_node.rs`),
/// futures 0.3 (`stream/futures_unordered/mod.rs`), flume 0.11 and 0.12 (`lib.rs`). Of a type without these fields, it is
/// not known whether it has ended.
static INPUTS: &[InputFact] = &[
    InputFact {
        path: "tokio::sync::mpsc::chan::Rx",
        source: Source::Channel,
        // The end of the last sender takes a place behind the messages.
        ended: &[
            Test::Zero("inner * tx_count"),
            Test::Near("inner * tx tail_position", "inner * rx_fields list index", 1),
        ],
        progress: "inner * rx_fields list index",
        fd: "",
        handles: "",
        polled_in: &["tokio::sync::mpsc::"],
    },
    InputFact {
        path: "tokio::sync::broadcast::Receiver",
        source: Source::Channel,
        ended: &[Test::Zero("shared * num_tx"), Test::Near("shared * tail pos", "next", 0)],
        progress: "next",
        fd: "",
        handles: "",
        polled_in: &["tokio::sync::broadcast::"],
    },
    InputFact {
        path: "tokio::sync::watch::Receiver",
        source: Source::Watch,
        ended: &[Test::Bits("shared * state", 1)],
        progress: "shared * state",
        fd: "",
        handles: "",
        polled_in: &["tokio::sync::watch::"],
    },
    InputFact {
        path: "flume::Receiver",
        source: Source::Channel,
        ended: &[Test::Zero("shared * sender_count"), Test::Zero("shared * chan queue len")],
        progress: "shared * chan queue head",
        fd: "",
        handles: "",
        polled_in: &["flume::"],
    },
    InputFact {
        path: "tokio_util::sync::cancellation_token::CancellationToken",
        source: Source::Token,
        ended: &[Test::NotZero("inner * is_cancelled")],
        progress: "inner * is_cancelled",
        fd: "",
        handles: "",
        polled_in: &["tokio_util::sync::cancellation_token::"],
    },
    InputFact {
        path: "tokio::task::join_set::JoinSet",
        source: Source::Set,
        ended: &[Test::Zero("inner length")],
        progress: "inner length",
        fd: "",
        handles: "inner length",
        polled_in: &["tokio::task::join_set::", "tokio::util::idle_notified_set::"],
    },
    InputFact {
        path: "futures_util::stream::futures_unordered::FuturesUnordered",
        source: Source::Set,
        ended: &[Test::Zero("head_all")],
        progress: "head_all",
        fd: "",
        handles: "",
        polled_in: &["futures_util::stream::futures_unordered::"],
    },
    InputFact {
        path: "h2::share::RecvStream",
        source: Source::Body,
        ended: &[],
        progress: "key stream_id",
        fd: "",
        handles: "",
        polled_in: &[],
    },
    InputFact {
        path: JOIN_HANDLES,
        source: Source::Set,
        ended: &[],
        progress: "len",
        fd: "",
        handles: "len",
        polled_in: &[],
    },
    InputFact {
        path: "tokio::io::poll_evented::PollEvented",
        source: Source::File,
        // `READ_CLOSED` of `io/ready.rs`. With the count of events in the same word, it is also the progress.
        ended: &[Test::Bits("registration shared * readiness", 4)],
        progress: "registration shared * readiness",
        fd: "io fd",
        handles: "",
        polled_in: &["tokio::io::poll_evented::", "tokio::net::", "tokio::io::util::read"],
    },
];

/// The name of a vector of handles of tasks begins with this.
const JOIN_HANDLES: &str = "alloc::vec::Vec<tokio::runtime::task::join::JoinHandle<";

/// Types that are not searched.
const SKIPPED: &[&str] = &[
    "alloc::rc::Rc",
    "alloc::sync::Arc",
    "core::task::wake::",
    "std::thread::",
    "tokio::runtime::driver::",
    "tokio::runtime::scheduler::",
];

/// A value to visit.
struct Visit {
    of: TypeId,
    at: Address,
    /// The variable that it is in.
    variable: Option<String>,
    /// The coroutine with the variable, and its state.
    function: Option<(TypeId, u64)>,
}

/// The inputs of the future of type `of` at `at`; `frame` makes the frame of a coroutine in a state.
pub(super) fn of_future(
    process: &Process<'_, '_>,
    (of, at): (TypeId, Address),
    frame: &dyn Fn(TypeId, u64) -> Option<Frame>,
) -> Vec<Input> {
    let mut found: Vec<Input> = Vec::new();
    let mut queue = VecDeque::from([Visit { of, at, variable: None, function: None }]);
    let mut seen = std::collections::HashSet::new();
    while let Some(visit) = queue.pop_front() {
        let Some(ty) = process.ty(visit.of).filter(|_| seen.insert((visit.of, visit.at))) else { continue };
        if seen.len() > MAX_VALUES || found.len() >= MAX_INPUTS {
            break;
        }
        let path = ty.path();
        if let Some(fact) = INPUTS.iter().find(|fact| {
            fact.path == path || (fact.path == JOIN_HANDLES && ty.name.starts_with(JOIN_HANDLES))
        }) {
            let function = visit.function.and_then(|(of, state)| frame(of, state));
            found.push(fact.read(process, &visit, function));
        } else if !SKIPPED.iter().any(|skipped| path.starts_with(skipped)) {
            inside(process, &visit, &ty, &mut queue);
        }
    }
    found
}

/// Adds the values inside of a value.
fn inside(process: &Process<'_, '_>, visit: &Visit, ty: &Type, queue: &mut VecDeque<Visit>) {
    let mut add = |of, offset: u64, variable: Option<String>, function| {
        if let Some(at) = visit.at.checked_add(offset) {
            queue.push_back(Visit { of, at, variable, function });
        }
    };
    match &ty.shape {
        Shape::Struct => {
            for member in &ty.members {
                add(member.of, member.offset, visit.variable.clone(), visit.function);
            }
        }
        Shape::Variants(variants) => {
            let Some(variant) = present(process, visit.at, variants.discriminant, &variants.list) else {
                return;
            };
            let Some(content) = process.ty(variant.member.of) else { return };
            for member in &content.members {
                let offset = variant.member.offset.saturating_add(member.offset);
                match variant.value.filter(|_| variants.coroutine) {
                    Some(state) => add(member.of, offset, Some(member.name.clone()), Some((visit.of, state))),
                    None => add(member.of, offset, visit.variable.clone(), visit.function),
                }
            }
        }
        Shape::Pointer(Some(target)) if super::layout::is_owned(&ty.name) => {
            if let Some(at) = process.memory.pointer(visit.at) {
                queue.push_back(Visit {
                    of: *target,
                    at,
                    variable: visit.variable.clone(),
                    function: visit.function,
                });
            }
        }
        Shape::Pointer(_) | Shape::Array { .. } | Shape::Scalar => {}
    }
}

/// The variant that is there; of a coroutine, only a state in which it has variables.
fn present<'v>(
    process: &Process<'_, '_>,
    at: Address,
    discriminant: Option<Discriminant>,
    list: &'v [Variant],
) -> Option<&'v Variant> {
    let value = match discriminant {
        Some(of) => Some(process.memory.discriminant(of, at)?),
        None => None,
    };
    let exact = list.iter().find(|variant| variant.value.is_some() && variant.value == value);
    exact.or_else(|| list.iter().find(|variant| variant.value.is_none()))
}

/// The connection of a body, at the address that leaves have for it.
fn resource(process: &Process<'_, '_>, visit: &Visit) -> Option<Address> {
    Route::compile(process, visit.of, "inner *")?.follow(process, visit.at)
}

impl InputFact {
    fn read(&self, process: &Process<'_, '_>, visit: &Visit, function: Option<Frame>) -> Input {
        let number = |way: &str| {
            let route = Route::compile(process, visit.of, way)?;
            let size = process.ty(route.end)?.size;
            process.memory.number(route.follow(process, visit.at)?, size.min(8))
        };
        let holds = |test: &Test| match test {
            Test::Zero(way) => Some(number(way)? == 0),
            Test::NotZero(way) => Some(number(way)? != 0),
            Test::Bits(way, bits) => Some(number(way)? & bits != 0),
            Test::Near(one, other, by) => Some(number(one)?.wrapping_sub(number(other)?) <= *by),
        };
        let results: Option<Vec<bool>> = self.ended.iter().map(holds).collect();
        let fd = Some(self.fd).filter(|way| !way.is_empty()).and_then(number);
        Input {
            source: self.source,
            variable: visit.variable.clone().unwrap_or_default(),
            function,
            ended: results
                .filter(|results| !results.is_empty())
                .map(|results| results.iter().all(|holds| *holds)),
            progress: number(self.progress),
            fd: fd.map(|fd| fd as u32 as i32).filter(|fd| *fd >= 0),
            unread: None,
            resource: (self.source == Source::Body).then(|| resource(process, visit)).flatten(),
            handles: Some(self.handles).filter(|way| !way.is_empty()).and_then(number),
            polled_in: self.polled_in,
        }
    }
}
