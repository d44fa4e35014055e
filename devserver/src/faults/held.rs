//! Answers that a fault holds back.
//!
//! Invariant: answers of one stream, and replies among each other, keep their order, so whatever comes behind a held one is
//! held too.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::FaultId;

/// The held answers of one connection.
#[derive(Default)]
pub(crate) struct HeldAnswers {
    waiting: VecDeque<Held>,
}

struct Held {
    /// The stream that it belongs to; `None` for replies.
    stream: Option<i32>,
    frame: Vec<Bytes>,
    /// It is released when this is cleared, if it waits for that.
    fault: Option<FaultId>,
    /// It is released at this time, if it waits for one.
    due: Option<Instant>,
}

impl HeldAnswers {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether an answer of this stream is held, so that the next one has to wait behind it.
    pub(crate) fn holds(&self, stream: Option<i32>) -> bool {
        self.waiting.iter().any(|held| held.stream == stream)
    }

    pub(crate) fn push(
        &mut self,
        stream: Option<i32>,
        frame: Vec<Bytes>,
        fault: Option<FaultId>,
        due: Option<Instant>,
    ) {
        self.waiting.push_back(Held { stream, frame, fault, due });
    }

    /// Takes out what is held no longer.
    pub(crate) fn release(&mut self, is_injected: impl Fn(FaultId) -> bool) -> Vec<Bytes> {
        let now = Instant::now();
        let mut released = Vec::new();
        let mut held: VecDeque<Held> = VecDeque::new();
        for answer in std::mem::take(&mut self.waiting) {
            let waits = answer.fault.is_some_and(&is_injected) && answer.due.is_none_or(|due| due > now);
            if waits {
                held.push_back(answer);
            } else if held.iter().any(|earlier| earlier.stream == answer.stream) {
                // From now on it waits for its turn only.
                held.push_back(Held { fault: None, due: None, ..answer });
            } else {
                released.extend(answer.frame);
            }
        }
        self.waiting = held;
        released
    }

    /// When the next answer is released.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|held| held.due).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_its_turn_only_has_no_time_of_its_own() {
        let fault: Option<FaultId> = serde_json::from_str("1").expect("the number of a fault");
        let soon = Some(Instant::now() + Duration::from_millis(1));
        let mut held = HeldAnswers::default();
        held.push(None, vec![Bytes::from_static(b"first")], fault, None);
        held.push(None, vec![Bytes::from_static(b"second")], fault, soon);
        held.push(Some(1), vec![Bytes::from_static(b"of a stream")], fault, soon);
        assert_eq!(held.next_due(), soon);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(held.release(|_| true), ["of a stream"]);
        // Otherwise the connection would look again and again.
        assert_eq!(held.next_due(), None);
        assert_eq!(held.release(|_| false), ["first", "second"]);
        assert!(held.is_empty());
    }
}
