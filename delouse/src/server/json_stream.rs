//! Renders JSON that ends with a long list, while the client reads it.
//!
//! A million tasks are gigabytes of JSON. Only one piece of it is in memory at a time.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::readers::{PIECE, Source};
use crate::own_threads::Material;
use crate::report::json::{Items, LIST_END, LongList};

/// An answer from which bodies are made. All bodies share the list.
#[derive(Clone)]
pub(crate) struct Pieces {
    head: Bytes,
    items: Arc<Material<Box<dyn Items>>>,
}

impl Pieces {
    pub(crate) fn new(LongList { head, items }: LongList) -> Self {
        Self { head: head.into(), items: Arc::new(Material::new(items)) }
    }

    /// A new body.
    pub(crate) fn begin(&self) -> PiecesBody {
        PiecesBody { pieces: self.clone(), at: At::Head }
    }
}

/// The body for one client.
pub(crate) struct PiecesBody {
    pieces: Pieces,
    at: At,
}

/// The next part to render.
enum At {
    Head,
    Item(usize),
    Nothing,
}

impl Source for PiecesBody {
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let from = match self.at {
            At::Head => {
                self.at = At::Item(0);
                return Some(Ok(self.pieces.head.clone()));
            }
            At::Item(index) => index,
            At::Nothing => return None,
        };
        // Each piece except the last is at least `PIECE` bytes long.
        let mut piece = Vec::with_capacity(PIECE + (PIECE >> 3));
        for index in from.. {
            if piece.len() >= PIECE {
                self.at = At::Item(index);
                return Some(Ok(piece.into()));
            }
            let before = piece.len();
            if index > 0 {
                piece.push(b',');
            }
            match self.pieces.items.get().and_then(|items| items.write(index, &mut piece)) {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    self.at = At::Nothing;
                    return Some(Err(error.into()));
                }
                None => {
                    piece.truncate(before);
                    break;
                }
            }
        }
        self.at = At::Nothing;
        piece.extend_from_slice(LIST_END.as_bytes());
        Some(Ok(piece.into()))
    }

    fn is_over(&self) -> bool {
        matches!(self.at, At::Nothing)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by it")]
    use serde::Serialize;

    use super::*;
    use crate::report::json::list;

    #[derive(Serialize)]
    struct Answer {
        text: &'static str,
        items: Vec<String>,
    }

    fn read(items: &[String]) -> (Vec<u8>, usize) {
        let answer = Answer { text: "[]}", items: Vec::new() };
        let pieces = Pieces::new(list(&answer, "items", items.to_vec()).unwrap());
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
        assert!(list(&["no list"], "items", Vec::<u8>::new()).is_err());
        let other = Answer { text: "", items: Vec::new() };
        assert!(list(&other, "tasks", Vec::<u8>::new()).is_err(), "the list of another field");
    }
}
