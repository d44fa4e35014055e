//! Blocks of memory that are used again while there is traffic and go back to the system when there is none.
//!
//! A general allocator keeps freed megabytes for later, and so do its threads each for itself: what a bounded buffer has
//! held once would stay resident for good. Blocks from [`SMALLEST`] on are therefore mappings of their own. A fresh
//! mapping costs more than the copy into it, because the kernel hands out its pages one fault at a time, so a few are kept:
//! [`Memory::keep`] says how many bytes of them, and may say 0 at any time. A block comes home by itself when it is dropped,
//! on whichever thread that is.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::MmapMut;
use zerocopy::IntoBytes;

/// Blocks smaller than this come from the allocator.
pub const SMALLEST: usize = 16 * 1024;

/// What mappings are made of.
const PAGE: usize = 4096;

/// A kept block is used for what needs at least this part of it, so that little does not take up much.
const PART: usize = 2;

/// A process may have 65 530 mappings by default, and other libraries need some of them.
const MOST_MAPPINGS: usize = 16 * 1024;

/// Mappings of all pools.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// Where blocks come from and where they go. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    free: Mutex<Free>,
}

/// Invariant: `bytes` is the size of all `blocks` and at most `keep`.
#[derive(Debug, Default)]
struct Free {
    keep: usize,
    bytes: usize,
    blocks: Vec<Mapping>,
}

/// A block of bytes, aligned for every integer. What is in it is not defined.
#[derive(Debug)]
pub struct Block {
    bytes: Bytes,
    home: Weak<Shared>,
}

#[derive(Debug)]
enum Bytes {
    /// Words instead of bytes, for the alignment.
    Allocated(Vec<u64>),
    Mapped(Mapping),
    /// Gone home.
    Gone,
}

/// A mapping that is counted.
#[derive(Debug)]
struct Mapping(MmapMut);

impl Mapping {
    fn new(bytes: usize) -> Option<Self> {
        if MAPPINGS.fetch_add(1, Ordering::Relaxed) < MOST_MAPPINGS
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            return Some(Mapping(map));
        }
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new(0)
    }
}

impl Memory {
    /// Keeps at most `keep` bytes of blocks that nobody uses.
    pub fn new(keep: usize) -> Self {
        Memory { shared: Arc::new(Shared { free: Mutex::new(Free { keep, ..Free::default() }) }) }
    }

    /// From now on keeps at most so many bytes.
    pub fn keep(&self, bytes: usize) {
        let mut free = self.shared.free();
        free.keep = bytes;
        free.shrink(bytes);
    }

    /// Bytes of the blocks that nobody uses.
    pub fn kept(&self) -> usize {
        self.shared.free().bytes
    }

    /// A block of at least `bytes` bytes.
    pub fn take(&self, bytes: usize) -> Block {
        let home = Arc::downgrade(&self.shared);
        if bytes >= SMALLEST {
            let size = bytes.next_multiple_of(PAGE);
            let kept = {
                let mut free = self.shared.free();
                let kept = free.take(size);
                if kept.is_none() {
                    // None fits what is wanted now: makes room for what comes back later.
                    let rest = free.bytes.saturating_sub(size);
                    free.shrink(rest);
                }
                kept
            };
            if let Some(mapping) = kept.or_else(|| Mapping::new(size)) {
                return Block { bytes: Bytes::Mapped(mapping), home };
            }
        }
        Block { bytes: Bytes::Allocated(vec![0; bytes.div_ceil(size_of::<u64>())]), home }
    }
}

impl Shared {
    /// No code runs under the lock that could leave it half changed, so a poisoned one is as good as any.
    fn free(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    fn take(&mut self, size: usize) -> Option<Mapping> {
        let fits = |mapping: &Mapping| (size..=size * PART).contains(&mapping.0.len());
        let index = self.blocks.iter().position(fits)?;
        let mapping = self.blocks.swap_remove(index);
        self.bytes -= mapping.0.len();
        Some(mapping)
    }

    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes
            && let Some(mapping) = self.blocks.pop()
        {
            self.bytes -= mapping.0.len();
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let (Bytes::Mapped(mapping), Some(home)) =
            (std::mem::replace(&mut self.bytes, Bytes::Gone), self.home.upgrade())
        {
            let mut free = home.free();
            if free.bytes + mapping.0.len() <= free.keep {
                free.bytes += mapping.0.len();
                free.blocks.push(mapping);
            }
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Allocated(words) => words.as_bytes(),
            Bytes::Mapped(mapping) => &mapping.0,
            Bytes::Gone => &[],
        }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.bytes {
            Bytes::Allocated(words) => words.as_mut_bytes(),
            Bytes::Mapped(mapping) => &mut mapping.0,
            Bytes::Gone => &mut [],
        }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_once_it_is_dropped() {
        let memory = Memory::new(4 * SMALLEST);
        let mut first = memory.take(SMALLEST);
        first[0] = 7;
        let at = first.as_ptr();
        assert_ne!(memory.take(SMALLEST).as_ptr(), at);
        drop(first);
        assert_eq!(memory.kept(), 2 * SMALLEST);
        let again = [memory.take(SMALLEST), memory.take(SMALLEST)];
        assert!(again.iter().any(|block| block.as_ptr() == at));
    }

    #[test]
    fn little_does_not_take_up_much() {
        let memory = Memory::new(100 * SMALLEST);
        drop(memory.take(10 * SMALLEST));
        assert!(memory.take(4 * SMALLEST).len() == 4 * SMALLEST);
        drop(memory.take(10 * SMALLEST));
        assert!(memory.take(6 * SMALLEST).len() == 10 * SMALLEST);
    }

    #[test]
    fn no_more_is_kept_than_said_and_the_pool_may_go_first() {
        let memory = Memory::new(2 * SMALLEST);
        drop([memory.take(SMALLEST), memory.take(SMALLEST), memory.take(SMALLEST), memory.take(10)]);
        assert_eq!(memory.kept(), 2 * SMALLEST);
        memory.keep(SMALLEST);
        assert_eq!(memory.kept(), SMALLEST);
        let late = memory.take(SMALLEST);
        drop(memory);
        assert_eq!(late.len(), SMALLEST);
    }

    #[test]
    fn small_blocks_are_aligned_too() {
        let block = Memory::default().take(13);
        assert!(block.len() >= 13 && block.as_ptr().addr() % 8 == 0);
    }
}
