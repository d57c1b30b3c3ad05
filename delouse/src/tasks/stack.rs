//! Makes the frames that users read from the results of a walk.

use std::cell::RefCell;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::layout::{Body, Interest, Layout, LayoutId, Layouts};
use super::walk::{FramePlace, Node, Part, Walked};
use super::{Frame, Origin};
use crate::debuginfo::types::{Type, TypeId, names};

/// A frame's layout and place.
type ShapeNode = (LayoutId, FramePlace);

/// The most distinct stacks that are kept.
const MAX_KNOWN: usize = 1 << 14;

/// Stacks that were made already: tasks that are suspended at the same place share one.
#[derive(Default)]
pub(super) struct KnownStacks {
    by_shape: FxHashMap<Box<[ShapeNode]>, Arc<[Frame]>>,
    /// A buffer that is reused.
    shape: Vec<ShapeNode>,
}

/// The wrapper that tokio puts around every task in a build with its task dump.
const WRAPPER: &str = "tokio::runtime::task::trace::Root<";

/// Makes stacks, each distinct one once.
pub(super) struct Stacks<'s, 'i> {
    layouts: &'s Layouts<'i>,
    known: &'s RefCell<KnownStacks>,
}

impl<'s, 'i> Stacks<'s, 'i> {
    pub(super) fn new(layouts: &'s Layouts<'i>, known: &'s RefCell<KnownStacks>) -> Self {
        Self { layouts, known }
    }

    /// The frames of a future.
    pub(super) fn stack(&self, walked: &Walked) -> Arc<[Frame]> {
        let mut known = self.known.borrow_mut();
        let KnownStacks { by_shape, shape } = &mut *known;
        shape.clear();
        shape.extend(walked.nodes.iter().map(|node| (node.layout, node.place)));
        if let Some(stack) = by_shape.get(shape.as_slice()) {
            return stack.clone();
        }
        let mut frames = self.siblings(&mut walked.nodes.iter().peekable(), 0);
        self.carried(walked, &mut frames);
        let stack: Arc<[Frame]> = frames.into();
        if by_shape.len() >= MAX_KNOWN {
            by_shape.clear();
        }
        by_shape.insert(shape.as_slice().into(), stack.clone());
        stack
    }

    /// Adds to the outermost future what it carries, unless it is a future of the program itself.
    fn carried(&self, walked: &Walked, frames: &mut [Frame]) {
        let is_wrapper = |name: &str| name.starts_with(WRAPPER);
        let mut layouts = walked.nodes.iter().filter_map(|node| self.layouts.get(node.layout));
        let layout = layouts.find(|layout| !is_wrapper(layout.frame.as_deref().unwrap_or_default()));
        let outermost = match frames {
            [root] if is_wrapper(&root.function) => root.children.first_mut(),
            all => all.first_mut(),
        };
        if let (Some(layout), Some(frame)) = (layout, outermost.filter(|frame| frame.origin != Origin::User))
        {
            let is_own = |krate: &str| self.origin_of_crate(krate) == Origin::User;
            let ty = self.layouts.program.ty(layout.of);
            frame.carries = ty.and_then(|ty| names::carried(&ty.name, is_own));
        }
    }

    /// The closure that runs on the blocking pool: `F` of `BlockingTask<F>`. `None` for the workers of a
    /// runtime, which run there too.
    pub(super) fn blocking(&self, layout: &Layout) -> Option<Frame> {
        let process = &self.layouts.program;
        let mut closure = process.ty(process.ty(layout.of)?.parameter("T")?)?;
        if names::without_parameters(&closure.name).ends_with("::BlockingTask") {
            // `Instrumented<BlockingTask<T>>`: builds with tokio's feature `tracing`.
            closure = process.ty(closure.parameter("T")?)?;
        }
        // `launch`, and `block_in_place`, which hands the worker over to another thread.
        if closure.name.starts_with("tokio::runtime::scheduler::multi_thread::worker::") {
            return None;
        }
        let function = names::ty(&closure.name);
        let origin = self.origin_of_crate(&function);
        Some(Frame { function, origin, ..Frame::default() })
    }

    /// The frame of a coroutine of that type in that state.
    pub(super) fn coroutine(&self, of: TypeId, state: u64) -> Option<Frame> {
        let layout = self.layouts.of(Interest::Futures, of)?;
        let Body::Coroutine(coroutine) = &layout.body else { return None };
        let index = coroutine.states.iter().position(|known| known.value == state)?;
        Some(self.frame(&Node { layout: layout.id, place: FramePlace::new(0, Part::State(index)) }))
    }

    /// The function whose future is of type `of`, at its declaration; of a future of a library, what it carries.
    pub(super) fn declaration(&self, of: TypeId) -> Option<Frame> {
        /// The state of a coroutine that was not polled yet.
        const UNRESUMED: u64 = 0;
        let (of, ty) = self.within(of)?;
        let is_own = |krate: &str| self.origin_of_crate(krate) == Origin::User;
        if let Some(frame) = self.coroutine(of, UNRESUMED) {
            return Some(Frame { at_declaration: true, ..frame });
        }
        let function = names::carried(&ty.name, is_own).unwrap_or_else(|| names::ty(&ty.name));
        let origin = self.origin_of_crate(&function);
        Some(Frame { function, origin, ..Frame::default() })
    }

    /// The one frame of a future in which nothing was recognised.
    pub(super) fn opaque(&self, layout: &Layout) -> Frame {
        let name = self.within(layout.of).map(|(_, ty)| names::ty(&ty.name));
        let function = name.unwrap_or_else(|| "?".to_owned());
        let origin = self.origin_of_crate(&function);
        Frame { function, origin, waits: 1, ..Frame::default() }
    }

    /// The user's type, without what tokio wraps around every future of a task.
    fn within(&self, mut of: TypeId) -> Option<(TypeId, Arc<Type>)> {
        loop {
            let ty = self.layouts.program.ty(of)?;
            match names::without_parameters(&ty.name) {
                "tokio::runtime::task::trace::Root" | "tracing::instrument::Instrumented" => {
                    of = ty.parameter("T")?;
                }
                _ => return Some((of, ty)),
            }
        }
    }

    /// All frames at `depth` that follow, each with those below it. The walk has bounded the depth.
    fn siblings<'n>(
        &self,
        nodes: &mut std::iter::Peekable<impl Iterator<Item = &'n Node>>,
        depth: u16,
    ) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(node) = nodes.next_if(|node| node.place.depth() >= depth) {
            let mut frame = Frame { waits: node.place.waits(), ..self.frame(node) };
            if nodes.peek().is_some_and(|next| next.place.depth() > node.place.depth()) {
                frame.children = self.siblings(nodes, node.place.depth() + 1);
                drop_echo(&mut frame);
            }
            frames.push(frame);
        }
        frames
    }

    fn frame(&self, node: &Node) -> Frame {
        let Some(layout) = self.layouts.get(node.layout) else { return Frame::default() };
        let name = layout.frame.as_deref().unwrap_or("?");
        let of_type = |name: &str| Frame {
            function: name.to_owned(),
            origin: self.origin_of_crate(name),
            ..Frame::default()
        };
        let Body::Coroutine(coroutine) = &layout.body else { return of_type(name) };
        match node.place.part() {
            Part::Type => of_type(name),
            Part::State(index) | Part::Awaitee(index) => {
                let Some(state) = coroutine.states.get(index) else { return of_type(name) };
                let details = self.layouts.suspended(layout.of, coroutine, state);
                if matches!(node.place.part(), Part::Awaitee(_)) {
                    return of_type(details.awaitee.as_deref().unwrap_or("?"));
                }
                let source = details.source.as_ref();
                Frame {
                    function: name.to_owned(),
                    file: source.map(|source| source.shown.to_string()),
                    line: source.map(|source| source.line),
                    at_declaration: details.at_declaration && source.is_some(),
                    origin: source
                        .map_or_else(|| self.origin_of_crate(name), |source| Origin::of_file(&source.file)),
                    ..Frame::default()
                }
            }
        }
    }

    fn origin_of_crate(&self, name: &str) -> Origin {
        match name.split("::").next().unwrap_or_default() {
            "core" | "alloc" | "std" => Origin::Std,
            _ if self.layouts.program.types.is_own(name) => Origin::User,
            _ => Origin::Dependency,
        }
    }
}

/// A public type around a private one of the same name, as `future::Map` is around `future::map::Map`,
/// is shown once.
fn drop_echo(frame: &mut Frame) {
    let name = |frame: &Frame| {
        let path = names::without_parameters(&frame.function);
        (path.split("::").next().map(str::to_owned), names::last_segment(path).to_owned())
    };
    let own = name(frame);
    if frame.line.is_none()
        && let [only] = frame.children.as_mut_slice()
        && only.line.is_none()
        && name(only) == own
    {
        frame.waits += only.waits;
        frame.children = std::mem::take(&mut only.children);
    }
}
