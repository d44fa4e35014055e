//! A frame to write: pieces that are sent one behind the other without being copied together.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// The bytes that wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Chunks {
    /// Appends a piece.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.remaining += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Appends all pieces of `other`.
    pub(crate) fn append(&mut self, other: Chunks) {
        self.remaining += other.remaining;
        self.pieces.extend(other.pieces);
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advance past the end");
        self.remaining -= count;
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else { break };
            if count < front.len() {
                front.advance(count);
                break;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let count = out.len().min(self.pieces.len());
        for (slot, piece) in out.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_written_comes_out(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
            step in 1usize..30,
        ) {
            let mut chunks = Chunks::default();
            for piece in &pieces {
                chunks.push(Bytes::copy_from_slice(piece));
            }
            let mut written = Vec::new();
            while chunks.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = chunks.chunks_vectored(&mut slices);
                let joined: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let taken = step.min(joined.len());
                written.extend_from_slice(&joined[..taken]);
                chunks.advance(taken);
            }
            prop_assert_eq!(written, pieces.concat());
        }
    }
}
