//! Answers that clients have not read to the end.
//!
//! What an answer is made of stays in memory until its client has read it. A client that stops reading would keep it for
//! ever, and a hundred such clients a hundred listings. So there are few such answers at a time; the kernel closes a
//! connection on which nothing could be sent for [`STALLED`]; and before that, a new answer takes the place of one whose
//! client does not read.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dropshot::Body;
use http_body::{Frame, SizeHint};

use super::error::ApiError;

/// How long a client may read nothing before its connection is closed.
pub(crate) const STALLED: Duration = Duration::from_secs(30);
/// What the kernel keeps for a client that reads slowly, in bytes, beside some 400 kB of hyper's.
pub(crate) const SOCKET_BUFFER: usize = 256 << 10;

/// Answers at a time that are in memory until their clients have read them.
const MOST_KEPT: usize = 8;
/// Answers that were not read to the end, with those of which nothing is left but what hyper and the kernel have.
const MOST_OPEN: usize = 64;
/// An answer of which nothing was read for so long gives way to a new one.
const SLOW: Duration = Duration::from_secs(1);
/// What hyper is handed at once, in bytes: as much as a socket takes in one or two writes.
pub(super) const PIECE: usize = 128 << 10;

static READERS: Readers = Readers(Mutex::new(Vec::new()));

/// Where the parts of an answer come from.
pub(super) trait Source: Send {
    /// The next part; `None` after the last one.
    fn next(&mut self) -> Option<io::Result<Bytes>>;

    /// Whether there is no next part.
    fn is_over(&self) -> bool;

    /// The bytes that are left, where that is known.
    fn left(&self) -> Option<u64> {
        None
    }
}

/// A body that hands out the parts of `source` as the client reads them.
pub(super) fn body(source: impl Source + 'static) -> Body {
    Body::wrap(READERS.add(Box::new(source)))
}

/// The same, of an answer that is written out.
pub(super) fn whole(bytes: Bytes) -> Body {
    if bytes.len() <= PIECE { Body::from(bytes) } else { body(Whole(bytes)) }
}

/// Whether one more answer may be made.
pub(super) fn room() -> Result<(), ApiError> {
    READERS.room()
}

struct Readers(Mutex<Vec<Weak<Reading>>>);

/// One answer that a client reads.
struct Reading(Mutex<State>);

struct State {
    /// `None` once all was handed out, or given up.
    source: Option<Box<dyn Source>>,
    /// When the last part was handed out.
    progress: Instant,
    given_up: bool,
}

impl Reading {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When something was read of it last; `None` where nothing is kept for it.
    fn progress(&self) -> Option<Instant> {
        let state = self.lock();
        state.source.as_ref().map(|_| state.progress)
    }

    fn give_up(&self) {
        let mut state = self.lock();
        state.given_up = true;
        let source = state.source.take();
        drop(state);
        drop(source);
    }
}

impl Readers {
    fn open(&self) -> (MutexGuard<'_, Vec<Weak<Reading>>>, Vec<Arc<Reading>>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = Vec::new();
        all.retain(|reading| {
            let reading = reading.upgrade();
            open.extend(reading.iter().cloned());
            reading.is_some()
        });
        (all, open)
    }

    fn room(&self) -> Result<(), ApiError> {
        let (_all, open) = self.open();
        let reads = |reading: &&Arc<Reading>| reading.progress().is_some_and(|last| last.elapsed() < SLOW);
        let busy = open.iter().filter(reads).count();
        if open.len() >= MOST_OPEN || busy >= MOST_KEPT {
            return Err(ApiError::Unread { answers: open.len() });
        }
        Ok(())
    }

    fn add(&self, source: Box<dyn Source>) -> ReadingBody {
        let (mut all, open) = self.open();
        let mut kept: Vec<_> = open.iter().filter_map(|of| Some((of.progress()?, of))).collect();
        kept.sort_by_key(|(progress, _)| *progress);
        let too_many = (kept.len() + 1).saturating_sub(MOST_KEPT);
        kept.iter().take(too_many).for_each(|(_, reading)| reading.give_up());
        let state = State { source: Some(source), progress: Instant::now(), given_up: false };
        let reading = Arc::new(Reading(Mutex::new(state)));
        all.push(Arc::downgrade(&reading));
        ReadingBody(reading)
    }
}

/// One client's reading of an answer.
struct ReadingBody(Arc<Reading>);

impl http_body::Body for ReadingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut state = self.0.lock();
        if state.given_up {
            let error = "the client did not read its answer, and others wanted one";
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, error))));
        }
        state.progress = Instant::now();
        let part = state.source.as_mut().and_then(|source| source.next());
        let over = part.is_none() || state.source.as_ref().is_none_or(|source| source.is_over());
        let source = if over { state.source.take() } else { None };
        drop(state);
        drop(source);
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        state.source.is_none() && !state.given_up
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.0.lock().source.as_ref().map_or(Some(0), |source| source.left());
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer that is written out, in parts: hyper would else keep all of it, however much of it is sent.
struct Whole(Bytes);

impl Source for Whole {
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let part = self.0.split_to(self.0.len().min(PIECE));
        // A copy, so that what is left can be freed although hyper has this part.
        (!part.is_empty()).then(|| Ok(Bytes::copy_from_slice(&part)))
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn left(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]
    use super::*;

    async fn next(body: &mut ReadingBody) -> Option<io::Result<Bytes>> {
        let frame =
            std::future::poll_fn(|context| http_body::Body::poll_frame(Pin::new(body), context)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    fn listing() -> Box<Whole> {
        Box::new(Whole(Bytes::from(vec![b'x'; 3 * PIECE + 1])))
    }

    #[tokio::test]
    async fn a_client_that_reads_gets_everything() {
        let readers = Readers(Mutex::default());
        let mut body = readers.add(listing());
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3 * PIECE as u64 + 1));
        let mut read = 0;
        while let Some(part) = next(&mut body).await {
            read += part.unwrap().len();
        }
        assert_eq!(read, 3 * PIECE + 1);
        assert!(http_body::Body::is_end_stream(&body));
        assert!(readers.open().1.iter().all(|reading| reading.progress().is_none()));
    }

    #[tokio::test]
    async fn a_hundred_clients_that_stop_reading_keep_a_few_answers() {
        let readers = Readers(Mutex::default());
        let mut bodies: Vec<_> = (0..100).map(|_| readers.add(listing())).collect();
        let kept = readers.open().1.iter().filter(|reading| reading.progress().is_some()).count();
        assert_eq!(kept, MOST_KEPT);
        assert!(matches!(readers.room(), Err(ApiError::Unread { answers: 100 })));
        // Those that came first were given up, and their clients see that theirs is not whole.
        assert_eq!(next(&mut bodies[0]).await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!http_body::Body::is_end_stream(&bodies[0]));
        assert!(next(&mut bodies[99]).await.unwrap().is_ok());
        drop(bodies);
        assert!(readers.room().is_ok() && readers.open().1.is_empty());
    }

    #[test]
    fn clients_that_read_are_not_given_up_for_others() {
        let readers = Readers(Mutex::default());
        let bodies: Vec<_> = (0..MOST_KEPT).map(|_| readers.add(listing())).collect();
        assert!(readers.room().is_err(), "all of them have just been handed something");
        for body in &bodies {
            body.0.lock().progress -= SLOW;
        }
        assert!(readers.room().is_ok());
    }
}
