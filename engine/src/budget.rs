//! One account of bytes: what a consumer holds in memory, and who may add to it.
//!
//! Invariants: `used` is the sum of all charges; nothing is read into memory before it is charged, in the order of the
//! requests; whoever holds nothing may always hold one thing, however large. An answer is charged by its length before it
//! is read, and by its columns before it is decoded; no more than a part of the budget is ever charged for answers that are
//! not decoded, so that there is always room to decode one, or something to take. A charge ends when it is dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use wire::memory::Memory;

/// What may be kept in free blocks beyond the limit.
const SLACK: usize = 1024 * 1024;

/// The part of the limit that answers may take up before they are decoded.
const READ_AHEAD: usize = 4;

#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    memory: Memory,
    state: Mutex<State>,
    /// Told when a charge ends.
    returned: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// What of it is not decoded yet.
    unread: usize,
    waiting: VecDeque<(usize, oneshot::Sender<Charge>)>,
    idle: bool,
}

/// Bytes that are held.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
    unread: bool,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget {
            limit,
            memory: Memory::new(limit + SLACK),
            state: Mutex::default(),
            returned: Notify::new(),
        })
    }

    /// Where blocks for what is charged come from.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Completes once `bytes` may be read. Dropping the future gives up the place in the line.
    pub(crate) async fn admit(self: &Arc<Self>, bytes: usize) -> Charge {
        let granted = {
            let mut state = self.state.lock();
            state.idle = false;
            if state.waiting.is_empty() && self.fits(&state, bytes) {
                return self.charge(&mut state, bytes);
            }
            let (sender, granted) = oneshot::channel();
            state.waiting.push_back((bytes, sender));
            granted
        };
        match granted.await {
            Ok(charge) => charge,
            // Senders are dropped only by who gives a charge.
            Err(_) => self.charge(&mut self.state.lock(), bytes),
        }
    }

    fn fits(&self, state: &State, bytes: usize) -> bool {
        state.used == 0
            || (state.used + bytes <= self.limit
                && (state.unread == 0 || state.unread + bytes <= self.limit / READ_AHEAD))
    }

    fn charge(self: &Arc<Self>, state: &mut State, bytes: usize) -> Charge {
        state.used += bytes;
        state.unread += bytes;
        self.memory.keep((self.limit + SLACK).saturating_sub(state.used));
        Charge { budget: Arc::clone(self), bytes, unread: true }
    }

    /// Completes once a charge has ended after this was called first.
    pub(crate) async fn returned(&self) {
        self.returned.notified().await;
    }

    /// Nothing came for a while: free blocks go back to the system, now and until something comes.
    pub(crate) fn rest(&self) {
        self.state.lock().idle = true;
        self.memory.keep(0);
    }

    /// Whether somebody waits until something is taken.
    #[cfg(test)]
    pub(crate) fn is_short(&self) -> bool {
        !self.state.lock().waiting.is_empty()
    }

    /// Lets in who waits, as far as there is room.
    fn grant(self: &Arc<Self>) {
        loop {
            let (sender, charge) = {
                let mut state = self.state.lock();
                while state.waiting.front().is_some_and(|(_, sender)| sender.is_closed()) {
                    // Whoever waited has gone.
                    state.waiting.pop_front();
                }
                match state.waiting.front() {
                    Some((bytes, _)) if self.fits(&state, *bytes) => {}
                    _ => return,
                }
                let Some((bytes, sender)) = state.waiting.pop_front() else { return };
                (sender, self.charge(&mut state, bytes))
            };
            // If nobody waits any more the charge ends here.
            drop(sender.send(charge));
        }
    }
}

impl Charge {
    /// Charges what decoding takes, `more` bytes. `false`: there is no room for it, and something else to take first.
    pub(crate) fn decode(&mut self, more: usize) -> bool {
        {
            let mut state = self.budget.state.lock();
            if self.unread && state.used + more > self.budget.limit && state.used > state.unread {
                return false;
            }
            if std::mem::replace(&mut self.unread, false) {
                state.unread -= self.bytes;
            }
            state.used += more;
            self.bytes += more;
        }
        self.budget.grant();
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        {
            let mut state = self.budget.state.lock();
            state.used -= self.bytes;
            if self.unread {
                state.unread -= self.bytes;
            }
            if !state.idle {
                self.budget.memory.keep((self.budget.limit + SLACK).saturating_sub(state.used));
            }
        }
        self.budget.grant();
        self.budget.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;

    #[tokio::test]
    async fn whoever_holds_nothing_may_hold_one_thing() {
        let budget = Budget::new(1000);
        let huge = budget.admit(50_000).await;
        let mut next = pin!(budget.admit(1));
        assert!(poll!(next.as_mut()).is_pending());
        assert!(budget.is_short());
        drop(huge);
        assert!(poll!(next).is_ready());
    }

    #[tokio::test]
    async fn what_is_not_decoded_takes_up_a_part_only() {
        let budget = Budget::new(1000);
        let mut first = budget.admit(200).await;
        let mut second = pin!(budget.admit(200));
        assert!(poll!(second.as_mut()).is_pending());
        assert!(first.decode(300));
        let mut second = second.await;
        // Nothing fits besides, but something can be taken.
        assert!(!second.decode(301));
        drop(first);
        assert!(second.decode(10_000), "nothing can be taken");
    }

    #[tokio::test]
    async fn who_waits_is_let_in_in_turn_and_who_has_gone_is_left_out() {
        let budget = Budget::new(1000);
        let mut held = budget.admit(800).await;
        assert!(held.decode(0));
        let mut large = pin!(budget.admit(900));
        assert!(poll!(large.as_mut()).is_pending());
        {
            let mut gone = pin!(budget.admit(10));
            assert!(poll!(gone.as_mut()).is_pending());
        }
        let mut small = pin!(budget.admit(10));
        assert!(poll!(small.as_mut()).is_pending(), "overtakes nobody");
        drop(held);
        let large = large.await;
        assert!(poll!(small.as_mut()).is_pending());
        drop(large);
        drop(small.await);
        let state = budget.state.lock();
        assert_eq!((state.used, state.unread), (0, 0));
    }
}
