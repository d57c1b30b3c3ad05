//! A body that is written by a thread while the client reads it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use dropshot::Body;
use http_body::Frame;
use tokio::sync::mpsc;

/// Chunks under way between the thread and the client: what the thread is ahead by.
const CHUNKS: usize = 4;

/// The thread's side. Blocks while the client is slower; fails when it has gone.
pub(crate) struct Writer(mpsc::Sender<io::Result<Bytes>>);

/// A writer, and the body of what is written to it.
pub(crate) fn channel() -> (Writer, Body) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    (Writer(sender), Body::wrap(Chunks(receiver)))
}

impl Writer {
    /// Ends the body as incomplete: the client's end of the connection is closed in the middle.
    pub(crate) fn fail(self, error: io::Error) {
        // The client may have gone as well.
        let _gone = self.0.blocking_send(Err(error));
    }
}

impl io::Write for Writer {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(chunk)));
        sent.map(|()| chunk.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Chunks(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
