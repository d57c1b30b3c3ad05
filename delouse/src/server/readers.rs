//! Limits the memory of answers that clients have not read to the end.
//!
//! The data of an answer stays in memory until its client has read it. A hundred clients that stop reading would keep a
//! hundred listings. Therefore the number of such answers is limited; the kernel closes a connection on which it could not
//! send for [`STALLED`]; and before that, a new answer replaces one whose client does not read.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dropshot::Body;
use http_body::{Frame, SizeHint};

use crate::host::lock::lock;

/// How long a client may read nothing before its connection is closed.
pub(crate) const STALLED: Duration = Duration::from_secs(30);
/// Bytes that the kernel buffers for a slow client. hyper buffers about 400 kB more.
pub(crate) const SOCKET_BUFFER: usize = 256 << 10;

/// The most answers whose data is in memory.
const MOST_KEPT: usize = 8;
/// The most answers that are not read to the end, including those that only hyper and the kernel buffer.
const MOST_OPEN: usize = 64;
/// An answer of which nothing was read for this time may be replaced by a new one.
const SLOW: Duration = Duration::from_secs(1);
/// Bytes handed to hyper at a time: as many as a socket takes in one or two writes.
pub(super) const PIECE: usize = 128 << 10;

static READERS: Readers = Readers(Mutex::new(Vec::new()));

/// Produces the parts of an answer.
pub(super) trait Source: Send {
    /// The next part; `None` after the last one.
    fn next(&mut self) -> Option<io::Result<Bytes>>;

    /// Whether the last part has been produced.
    fn is_over(&self) -> bool;

    /// The number of bytes left, if known.
    fn left(&self) -> Option<u64> {
        None
    }
}

/// The error if too many answers are not read to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) answers: usize,
}

/// A body of the parts of `source`, which are produced as the client reads them.
pub(super) fn body(source: impl Source + 'static) -> Body {
    Body::wrap(READERS.add(Box::new(source)))
}

/// A body of an answer that is already rendered.
pub(super) fn whole(bytes: Bytes) -> Body {
    if bytes.len() <= PIECE { Body::from(bytes) } else { body(Whole(bytes)) }
}

/// Checks whether another answer may be made.
pub(super) fn check() -> Result<(), Unread> {
    READERS.check()
}

struct Readers(Mutex<Vec<Weak<Reading>>>);

/// An answer that a client reads.
struct Reading(Mutex<ReadState>);

struct ReadState {
    /// `None` after the last part, or after [`Reading::cancel`].
    source: Option<Box<dyn Source>>,
    /// When the last part was produced.
    progress: Instant,
    is_cancelled: bool,
}

impl Reading {
    /// When the client last read a part; `None` if no data is kept for it.
    fn progress(&self) -> Option<Instant> {
        let state = lock(&self.0);
        state.source.as_ref().map(|_| state.progress)
    }

    /// Drops the data, so that the client's connection is closed.
    fn cancel(&self) {
        let mut state = lock(&self.0);
        state.is_cancelled = true;
        let source = state.source.take();
        drop(state);
        drop(source);
    }
}

impl Readers {
    /// The locked list, and the answers in it whose bodies still exist.
    fn open(&self) -> (MutexGuard<'_, Vec<Weak<Reading>>>, Vec<Arc<Reading>>) {
        let mut all = lock(&self.0);
        let mut open = Vec::new();
        all.retain(|reading| {
            let reading = reading.upgrade();
            open.extend(reading.iter().cloned());
            reading.is_some()
        });
        (all, open)
    }

    fn check(&self) -> Result<(), Unread> {
        let (_all, open) = self.open();
        let reads = |reading: &&Arc<Reading>| reading.progress().is_some_and(|last| last.elapsed() < SLOW);
        let busy = open.iter().filter(reads).count();
        if open.len() >= MOST_OPEN || busy >= MOST_KEPT {
            return Err(Unread { answers: open.len() });
        }
        Ok(())
    }

    fn add(&self, source: Box<dyn Source>) -> ReadingBody {
        let (mut all, open) = self.open();
        let mut kept: Vec<_> =
            open.iter().filter_map(|reading| Some((reading.progress()?, reading))).collect();
        kept.sort_by_key(|(progress, _)| *progress);
        let too_many = (kept.len() + 1).saturating_sub(MOST_KEPT);
        kept.iter().take(too_many).for_each(|(_, reading)| reading.cancel());
        let state = ReadState { source: Some(source), progress: Instant::now(), is_cancelled: false };
        let reading = Arc::new(Reading(Mutex::new(state)));
        all.push(Arc::downgrade(&reading));
        ReadingBody(reading)
    }
}

/// The body for one client.
struct ReadingBody(Arc<Reading>);

impl http_body::Body for ReadingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut state = lock(&self.0.0);
        if state.is_cancelled {
            let error = "the client did not read this answer, and newer answers have replaced it";
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
        let state = lock(&self.0.0);
        state.source.is_none() && !state.is_cancelled
    }

    fn size_hint(&self) -> SizeHint {
        let left = lock(&self.0.0).source.as_ref().map_or(Some(0), |source| source.left());
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A rendered answer, produced in parts. If hyper got it as a whole, it would keep all of it until the end is sent.
struct Whole(Bytes);

impl Source for Whole {
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let part = self.0.split_to(self.0.len().min(PIECE));
        // Copied, so that the answer can be freed while hyper still has this part.
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
        assert!(matches!(readers.check(), Err(Unread { answers: 100 })));
        // The oldest answers were cancelled, and their clients see that they are incomplete.
        assert_eq!(next(&mut bodies[0]).await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!http_body::Body::is_end_stream(&bodies[0]));
        assert!(next(&mut bodies[99]).await.unwrap().is_ok());
        drop(bodies);
        assert!(readers.check().is_ok() && readers.open().1.is_empty());
    }

    #[test]
    fn answers_that_are_being_read_are_not_replaced() {
        let readers = Readers(Mutex::default());
        let bodies: Vec<_> = (0..MOST_KEPT).map(|_| readers.add(listing())).collect();
        assert!(readers.check().is_err(), "all clients have read a part just now");
        for body in &bodies {
            lock(&body.0.0).progress -= SLOW;
        }
        assert!(readers.check().is_ok());
    }
}
