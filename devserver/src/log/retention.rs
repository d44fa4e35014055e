//! How long records are kept: by age and by the size of their partition, whole segments at a time.
//!
//! As on the real server, only closed segments go, the oldest first: the one that is written to stays whatever its age.

use std::time::{Duration, SystemTime};

use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_types::defaults::{SPU_LOG_SEGMENT_MAX_BYTES, SPU_PARTITION_MAX_BYTES};

/// What a topic says about its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// A batch that would make a segment larger than this begins the next one.
    pub(crate) segment_bytes: u64,
    /// The oldest closed segments go while the partition is larger than this.
    pub(crate) partition_bytes: u64,
    /// A closed segment goes once its last record was written longer ago than this.
    pub(crate) age: Duration,
}

/// A segment as its retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) base_offset: i64,
    pub(super) bytes: u64,
    /// When the last record was written.
    pub(super) modified: SystemTime,
}

impl From<&TopicSpec> for Retention {
    fn from(spec: &TopicSpec) -> Self {
        let storage = spec.get_storage();
        let segment = storage.and_then(|storage| storage.segment_size).unwrap_or(SPU_LOG_SEGMENT_MAX_BYTES);
        let partition = storage.and_then(|storage| storage.max_partition_size);
        Retention {
            segment_bytes: segment.into(),
            partition_bytes: partition.unwrap_or(SPU_PARTITION_MAX_BYTES),
            age: Duration::from_secs(spec.retention_secs().into()),
        }
    }
}

impl Retention {
    /// Whether `bytes` more make a segment of `segment` bytes too large.
    pub(super) fn rolls(&self, segment: u64, bytes: u64) -> bool {
        segment > 0 && segment + bytes > self.segment_bytes
    }

    /// How many of the oldest segments go; the last one never does.
    pub(super) fn expired<'a>(
        &self,
        segments: impl ExactSizeIterator<Item = &'a Extent> + Clone,
        now: SystemTime,
    ) -> usize {
        let mut bytes: u64 = segments.clone().map(|segment| segment.bytes).sum();
        let closed = segments.len().saturating_sub(1);
        segments
            .take(closed)
            .take_while(|segment| {
                let too_large = bytes > self.partition_bytes;
                bytes -= segment.bytes;
                // A time in the future, after the clock was set back, is no age.
                too_large || now.duration_since(segment.modified).is_ok_and(|age| age > self.age)
            })
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Retention =
        Retention { segment_bytes: 100, partition_bytes: 250, age: Duration::from_secs(60) };

    fn segments(bytes: &[u64], ages: &[u64], now: SystemTime) -> Vec<Extent> {
        let extent = |(&bytes, &age)| {
            let modified = now - Duration::from_secs(age);
            Extent { base_offset: 0, bytes, modified }
        };
        bytes.iter().zip(ages).map(extent).collect()
    }

    #[test]
    fn removes_the_oldest_closed_segments() {
        let now = SystemTime::now();
        let expired = |bytes: &[u64], ages: &[u64]| {
            let segments = segments(bytes, ages, now);
            POLICY.expired(segments.iter(), now)
        };
        assert_eq!(expired(&[], &[]), 0);
        assert_eq!(expired(&[100, 100, 50], &[3, 2, 1]), 0);
        // One byte too much costs a segment, and only as many go as must.
        assert_eq!(expired(&[100, 100, 51], &[3, 2, 1]), 1);
        assert_eq!(expired(&[100, 100, 100, 100], &[4, 3, 2, 1]), 2);
        // By age; the segment that is written to stays however large and old it is.
        assert_eq!(expired(&[10, 10, 10], &[62, 61, 60]), 2);
        assert_eq!(expired(&[10, 1000], &[1, 1000]), 1);
        assert_eq!(expired(&[1000], &[1000]), 0);
    }

    #[test]
    fn a_clock_that_was_set_back_removes_nothing() {
        let now = SystemTime::now();
        let segments = segments(&[10, 10], &[0, 0], now + Duration::from_secs(3600));
        assert_eq!(POLICY.expired(segments.iter(), now), 0);
    }
}
