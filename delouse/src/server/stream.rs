//! A response body that a thread writes while the client reads it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dropshot::Body;
use http_body::Frame;
use tokio::sync::mpsc::{self, error::TrySendError};

/// The most chunks that are written and not read.
const CHUNKS: usize = 4;

/// How long a client may read nothing before writing fails. Meanwhile the captured image exists, and no other capture may
/// start.
const STALLED: Duration = Duration::from_secs(30);

/// The thread's end. Writing blocks while the client is slower, and fails if the client has disconnected or reads nothing
/// for [`STALLED`].
///
/// If it is dropped without [`finish`](Writer::finish), by an error or a panic, the connection is closed, so that the
/// client sees that the body is incomplete.
pub(crate) struct Writer {
    chunks: mpsc::Sender<Bytes>,
    /// Signalled when a chunk has been read.
    taken: blocking::Receiver<()>,
    stalled: Duration,
    whole: Arc<AtomicBool>,
}

/// Creates a writer and its body.
pub(crate) fn channel() -> (Writer, Body) {
    let (writer, chunks) = pair(STALLED);
    (writer, Body::wrap(chunks))
}

fn pair(stalled: Duration) -> (Writer, Chunks) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let (took, taken) = blocking::sync_channel(1);
    let whole = Arc::new(AtomicBool::new(false));
    let writer = Writer { chunks: sender, taken, stalled, whole: Arc::clone(&whole) };
    (writer, Chunks { chunks: receiver, took, whole })
}

impl Writer {
    /// Ends the body as complete.
    pub(crate) fn finish(self) {
        // The channel is closed after this, when `self` is dropped.
        self.whole.store(true, Ordering::Release);
    }

    fn send(&self, mut chunk: Bytes) -> io::Result<()> {
        loop {
            chunk = match self.chunks.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(TrySendError::Full(chunk)) => chunk,
            };
            match self.taken.recv_timeout(self.stalled) {
                Ok(()) => {}
                Err(blocking::RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(blocking::RecvTimeoutError::Timeout) => {
                    let stalled = self.stalled;
                    let error = format!("the client has read nothing for {stalled:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, error));
                }
            }
        }
    }
}

impl io::Write for Writer {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.send(Bytes::copy_from_slice(chunk))?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    took: blocking::SyncSender<()>,
    whole: Arc<AtomicBool>,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = self.chunks.poll_recv(context);
        if chunk.is_ready() {
            let _already_signalled = self.took.try_send(());
        }
        chunk.map(|chunk| match chunk {
            Some(chunk) => Some(Ok(Frame::data(chunk))),
            None if self.whole.load(Ordering::Acquire) => None,
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn writing_fails_if_the_client_reads_nothing() {
        let (mut writer, _unread) = pair(Duration::from_millis(1));
        for _ in 0..CHUNKS {
            writer.write_all(b"taken by the queue").unwrap();
        }
        assert_eq!(writer.write_all(b"one more").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn writing_fails_if_the_client_disconnects() {
        let (mut writer, body) = pair(Duration::from_secs(60));
        let written = std::thread::spawn(move || (0..=CHUNKS).try_for_each(|_| writer.write_all(b"chunk")));
        drop(body);
        assert_eq!(written.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    async fn next(body: &mut Chunks) -> Option<io::Result<Bytes>> {
        let frame =
            std::future::poll_fn(|context| http_body::Body::poll_frame(Pin::new(body), context)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn a_slow_client_gets_everything() {
        let (mut writer, mut body) = pair(Duration::from_secs(60));
        let written = std::thread::spawn(move || {
            (0..100u8).try_for_each(|n| writer.write_all(&[n])).map(|()| writer.finish())
        });
        let mut read = Vec::new();
        while let Some(chunk) = next(&mut body).await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert_eq!(read, (0..100).collect::<Vec<_>>());
        written.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_unfinished_body_is_incomplete() {
        let (mut writer, mut body) = pair(Duration::from_secs(60));
        writer.write_all(b"half").unwrap();
        drop(writer);
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "half");
        assert_eq!(next(&mut body).await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
