//! A body that is made while the client reads it: JSON that ends in one long list.
//!
//! A million tasks are gigabytes of JSON, of which never more than a piece exists at a time.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::readers::{PIECE, Source};
use super::thread::Material;

/// What makes bodies: they share the list.
pub(crate) struct Pieces<I: Send + 'static> {
    head: Bytes,
    items: Arc<Material<Vec<I>>>,
}

impl<I: Send + 'static> Clone for Pieces<I> {
    fn clone(&self) -> Self {
        Self { head: self.head.clone(), items: Arc::clone(&self.items) }
    }
}

impl<I: Serialize + Send + 'static> Pieces<I> {
    /// `answer` with an empty list as its last field, of that name, and what belongs into it.
    ///
    /// # Errors
    /// Where the answer cannot be written, or does not end in that empty list.
    pub(crate) fn new(
        answer: &impl Serialize,
        field: &str,
        items: Material<Vec<I>>,
    ) -> Result<Self, serde_json::Error> {
        let mut head = serde_json::to_vec(answer)?;
        if !head.ends_with(format!("\"{field}\":[{END}").as_bytes()) {
            return Err(serde::ser::Error::custom("the list must be the answer's last field"));
        }
        head.truncate(head.len() - END.len());
        Ok(Self { head: head.into(), items: Arc::new(items) })
    }

    /// From the beginning.
    pub(crate) fn begin(&self) -> PiecesBody<I> {
        PiecesBody { pieces: self.clone(), at: At::Head }
    }
}

const END: &str = "]}";

/// One client's reading of it.
pub(crate) struct PiecesBody<I: Send + 'static> {
    pieces: Pieces<I>,
    at: At,
}

/// What comes next.
enum At {
    Head,
    Item(usize),
    Nothing,
}

impl<I: Serialize + Send + Sync + 'static> Source for PiecesBody<I> {
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let from = match self.at {
            At::Head => {
                self.at = At::Item(0);
                return Some(Ok(self.pieces.head.clone()));
            }
            At::Item(index) => index,
            At::Nothing => return None,
        };
        // At least that long, but for the last one.
        let mut piece = Vec::with_capacity(PIECE + (PIECE >> 3));
        let items = self.pieces.items.get().into_iter().flatten();
        for (index, item) in items.enumerate().skip(from) {
            if piece.len() >= PIECE {
                self.at = At::Item(index);
                return Some(Ok(piece.into()));
            }
            if index > 0 {
                piece.push(b',');
            }
            if let Err(error) = serde_json::to_writer(&mut piece, item) {
                self.at = At::Nothing;
                return Some(Err(error.into()));
            }
        }
        self.at = At::Nothing;
        piece.extend_from_slice(END.as_bytes());
        Some(Ok(piece.into()))
    }

    fn is_over(&self) -> bool {
        matches!(self.at, At::Nothing)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]
    use super::*;

    #[derive(Serialize)]
    struct Answer {
        text: &'static str,
        items: Vec<String>,
    }

    fn material<I: Send>(items: Vec<I>) -> Material<Vec<I>> {
        Material::new(items)
    }

    fn read(items: &[String]) -> (Vec<u8>, usize) {
        let answer = Answer { text: "[]}", items: Vec::new() };
        let pieces = Pieces::new(&answer, "items", material(items.to_vec())).unwrap();
        let (mut body, mut all, mut count) = (pieces.begin(), Vec::new(), 0);
        while let Some(piece) = body.next() {
            all.extend_from_slice(&piece.unwrap());
            count += 1;
        }
        (all, count)
    }

    #[test]
    fn the_pieces_are_the_whole() {
        for count in [0, 1, 2, 10_000] {
            let items: Vec<String> = (0..count).map(|n| format!("{n} {}", "x".repeat(100))).collect();
            let (read, pieces) = read(&items);
            assert_eq!(read, serde_json::to_vec(&Answer { text: "[]}", items }).unwrap());
            assert!(pieces <= 2 + count * 120 / PIECE, "{pieces} pieces for {count}");
        }
    }

    #[test]
    fn a_list_that_is_not_last_is_refused() {
        assert!(Pieces::new(&["no list"], "items", material(Vec::<u8>::new())).is_err());
        let other = Answer { text: "", items: Vec::new() };
        assert!(
            Pieces::new(&other, "tasks", material(Vec::<u8>::new())).is_err(),
            "the list of another field"
        );
    }
}
