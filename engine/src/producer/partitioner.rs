//! Which partition a record goes to: keys land where other clients of the platform put them, and records without a key
//! stay together.
//!
//! As in the fluvio crate 0.50.1, `producer/partitioning.rs`: SipHash-2-4 with zero keys over the key as a Rust slice
//! (its length first), modulo the number of partitions. Without a key a record goes to the partition of the one before
//! until its batch is full or sent, then to the next that can be reached: the server pays by the batch, and taking turns
//! by the record makes the most batches of the fewest records.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use siphasher::sip::SipHasher;

use super::partition::Partition;

/// The partitioner of one producer.
#[derive(Debug, Default)]
pub(super) struct Partitioner {
    turn: AtomicU32,
}

impl Partitioner {
    /// An index into `partitions`, which is not empty.
    pub(super) fn choose(
        &self,
        key: Option<&[u8]>,
        partitions: &[Arc<Partition>],
        most: Option<usize>,
    ) -> usize {
        if let Some(key) = key {
            return by_key(key, partitions.len());
        }
        let turn = self.turn.load(Ordering::Relaxed) as usize % partitions.len();
        if partitions[turn].is_reachable() { turn } else { self.pass(turn, partitions, most) }
    }

    /// The batch of this partition is full or sent: whose turn is next, unless somebody else has passed it on already. Those
    /// whose SPU has the `most` that it may have come last.
    pub(super) fn pass(&self, from: usize, partitions: &[Arc<Partition>], most: Option<usize>) -> usize {
        let others = || (1..=partitions.len()).map(|step| (from + step) % partitions.len());
        let reachable = |index: &usize| partitions[*index].is_reachable();
        let has_room = |index: &usize| most.is_none_or(|most| partitions[*index].held() < most);
        let next = others().find(|index| reachable(index) && has_room(index));
        let next = next.or_else(|| others().find(reachable)).unwrap_or(from);
        match self.turn.compare_exchange(from as u32, next as u32, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => next,
            Err(turn) => turn as usize % partitions.len(),
        }
    }
}

fn by_key(key: &[u8], partitions: usize) -> usize {
    let mut hasher = SipHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % partitions as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::super::share::Share;
    use super::*;

    fn partitions(count: u32) -> Vec<Arc<Partition>> {
        (0..count).map(|index| Arc::new(Partition::new(index))).collect()
    }

    #[test]
    fn a_key_has_one_place() {
        let partitions = partitions(3);
        let partitioner = Partitioner::default();
        let first: Vec<usize> =
            (0..9u8).map(|key| partitioner.choose(Some(&[key]), &partitions, None)).collect();
        let again: Vec<usize> =
            (0..9u8).map(|key| partitioner.choose(Some(&[key]), &partitions, None)).collect();
        assert_eq!(first, again);
        assert!((0..3).all(|index| first.contains(&index)));
    }

    #[test]
    fn records_without_a_key_stay_together_among_the_reachable() {
        let partitions = partitions(3);
        let partitioner = Partitioner::default();
        let choose = || partitioner.choose(None, &partitions, None);
        assert_eq!([choose(), choose()], [0, 0]);
        assert_eq!(partitioner.pass(0, &partitions, None), 1);
        assert_eq!(choose(), 1);
        // Somebody else has passed it on.
        assert_eq!(partitioner.pass(0, &partitions, None), 1);
        partitions[2].set_avoided(true);
        assert_eq!(partitioner.pass(1, &partitions, None), 0);
        let share = Arc::new(Share::default());
        share.away.store(true, Ordering::Relaxed);
        partitions[0].set_share(&share);
        assert_eq!(choose(), 1);
        // Nobody can be reached: no worse than any other.
        partitions[1].set_avoided(true);
        assert!(choose() < 3);
    }
}
