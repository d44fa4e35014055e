//! Large buffers that are used again.
//!
//! A fresh buffer of a megabyte costs more than the copy into it: the kernel hands out its pages one fault at a time.
//! Buffers come back by themselves when the last `Bytes` that refers to them is dropped, on whichever thread that is.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

/// Buffers smaller than this are cheap to allocate and not kept.
pub const SMALLEST: usize = 32 * 1024;

/// Buffers larger than this are rare and not kept.
pub const LARGEST: usize = 2 * 1024 * 1024;

/// A buffer is used for what needs at least this part of it, so that little is not kept alive by much.
const PART: usize = 8;

/// Free buffers, at most `kept` of them. All share the one pool that its clones refer to.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

/// A buffer that goes home when it is dropped.
struct Borrowed {
    buffer: Vec<u8>,
    home: Weak<Shared>,
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.give_back(std::mem::take(&mut self.buffer));
        }
    }
}

impl Shared {
    /// No code runs under the lock that could leave it half changed, so a poisoned one is as good as any.
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, buffer: Vec<u8>) {
        if !(SMALLEST..=LARGEST).contains(&buffer.capacity()) {
            return;
        }
        let mut free = self.free();
        if free.len() < self.kept {
            free.push(buffer);
        }
    }
}

impl Pool {
    /// A pool that keeps at most `kept` free buffers.
    pub fn new(kept: usize) -> Self {
        Pool { shared: Arc::new(Shared { kept, free: Mutex::default() }) }
    }

    /// An empty buffer with room for `capacity` bytes.
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        if !(SMALLEST..=LARGEST).contains(&capacity) {
            return Vec::with_capacity(capacity);
        }
        let mut free = self.shared.free();
        match free.iter().position(|buffer| (capacity..=capacity * PART).contains(&buffer.capacity())) {
            Some(index) => {
                let mut buffer = free.swap_remove(index);
                buffer.clear();
                buffer
            }
            None => {
                // None fits what is wanted now: makes room for what comes back later.
                free.pop();
                Vec::with_capacity(capacity)
            }
        }
    }

    /// The content of `buffer`, which comes back to this pool when nobody refers to it any more.
    pub fn freeze(&self, buffer: Vec<u8>) -> Bytes {
        if (SMALLEST..=LARGEST).contains(&buffer.capacity()) {
            Bytes::from_owner(Borrowed { buffer, home: Arc::downgrade(&self.shared) })
        } else {
            Bytes::from(buffer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &Pool, capacity: usize, byte: u8) -> Bytes {
        let mut buffer = pool.take(capacity);
        buffer.resize(capacity, byte);
        pool.freeze(buffer)
    }

    #[test]
    fn a_buffer_is_used_again_once_the_last_reference_is_gone() {
        let pool = Pool::new(2);
        let first = filled(&pool, SMALLEST, 1);
        let at = first.as_ptr();
        let part = first.slice(10..20);
        drop(first);
        assert_ne!(filled(&pool, SMALLEST, 2).as_ptr(), at);
        assert!(part.iter().all(|byte| *byte == 1));
        drop(part);
        let again: Vec<*const u8> =
            [filled(&pool, SMALLEST, 3), filled(&pool, SMALLEST, 4)].iter().map(|b| b.as_ptr()).collect();
        assert!(again.contains(&at));
    }

    #[test]
    fn small_and_huge_buffers_are_not_kept_and_the_pool_may_go_first() {
        let pool = Pool::new(2);
        for capacity in [10, SMALLEST - 1, LARGEST + 1] {
            drop(filled(&pool, capacity, 0));
            assert!(pool.shared.free().is_empty());
        }
        let late = filled(&pool, SMALLEST, 5);
        drop(pool);
        assert!(late.iter().all(|byte| *byte == 5));
    }

    #[test]
    fn no_more_are_kept_than_asked_for() {
        let pool = Pool::new(2);
        let all: Vec<Bytes> = (0..5).map(|byte| filled(&pool, SMALLEST, byte)).collect();
        drop(all);
        assert_eq!(pool.shared.free().len(), 2);
    }
}
