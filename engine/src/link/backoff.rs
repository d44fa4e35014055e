//! Growing delays with jitter, that start anew after a healthy while.

use std::time::Duration;

use rand::Rng;

/// A connection that lived less than this was not healthy, however short the pause before it was.
const HEALTHY: Duration = Duration::from_secs(1);

/// Growing delays with jitter.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    initial: Duration,
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Delays that start at `initial` and double up to `max`.
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        let initial = initial.min(max);
        Backoff { initial, next: initial, max }
    }

    /// For connections that are re-opened for ever.
    pub(crate) fn reconnect() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }

    /// The next delay: between half and all of the current step.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.max);
        delay
    }

    /// What was tried went well for so long. Starts anew if that was longer than the last pause, and no blink: whoever
    /// accepts connections only to drop them is not hammered, and losses that are far apart do not add up.
    pub(crate) fn lasted(&mut self, lived: Duration) {
        if lived >= HEALTHY && lived >= self.next / 2 {
            self.start_anew();
        }
    }

    /// What was tried was of use.
    pub(crate) fn start_anew(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_while_starts_it_anew() {
        let mut backoff = Backoff::reconnect();
        for _ in 0..20 {
            backoff.lasted(Duration::from_millis(900));
            assert!(backoff.next_delay() <= Duration::from_secs(5));
        }
        assert!(backoff.next_delay() >= Duration::from_millis(2500));
        backoff.lasted(Duration::from_secs(2));
        assert!(backoff.next_delay() >= Duration::from_millis(2500));
        backoff.lasted(Duration::from_secs(3));
        assert!(backoff.next_delay() <= Duration::from_millis(50));
    }
}
