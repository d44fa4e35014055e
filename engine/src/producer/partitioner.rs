//! Which partition a record goes to, so that keys land where other clients of the platform put them.
//!
//! As in the fluvio crate 0.50.1, `producer/partitioning.rs`: SipHash-2-4 with zero keys over the key as a Rust slice
//! (its length first), modulo the number of partitions; round robin without a key, passing over partitions that cannot
//! be reached as long as another can.

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
    pub(super) fn choose(&self, key: Option<&[u8]>, partitions: &[Arc<Partition>]) -> usize {
        if let Some(key) = key {
            return by_key(key, partitions.len());
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) as usize % partitions.len();
        if partitions[first].is_reachable() {
            return first;
        }
        let others = (1..partitions.len()).map(|step| (first + step) % partitions.len());
        others.into_iter().find(|index| partitions[*index].is_reachable()).unwrap_or(first)
    }
}

fn by_key(key: &[u8], partitions: usize) -> usize {
    let mut hasher = SipHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % partitions as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(count: u32) -> Vec<Arc<Partition>> {
        (0..count).map(|index| Arc::new(Partition::new(index))).collect()
    }

    #[test]
    fn a_key_has_one_place() {
        let partitions = partitions(3);
        let partitioner = Partitioner::default();
        let first: Vec<usize> = (0..9u8).map(|key| partitioner.choose(Some(&[key]), &partitions)).collect();
        let again: Vec<usize> = (0..9u8).map(|key| partitioner.choose(Some(&[key]), &partitions)).collect();
        assert_eq!(first, again);
        assert!((0..3).all(|index| first.contains(&index)));
    }

    #[test]
    fn records_without_a_key_take_turns_among_the_reachable() {
        let partitions = partitions(3);
        let partitioner = Partitioner::default();
        let chosen: Vec<usize> = (0..6).map(|_| partitioner.choose(None, &partitions)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
        partitions[1].set_reachable(false);
        assert!((0..6).all(|_| partitioner.choose(None, &partitions) != 1));
        partitions[0].set_reachable(false);
        partitions[2].set_reachable(false);
        assert!((0..6).any(|_| partitioner.choose(None, &partitions) == 1));
    }
}
