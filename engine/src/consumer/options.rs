//! Consumer options.

use serde::{Deserialize, Serialize};

use crate::config::parse_json;
use crate::error::{Error, ErrorKind, Result};
use crate::producer::Isolation;

/// What to read and how much to hold. As JSON: `{"start": {"beginning": 0}}`; unknown fields are refused.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsumerOptions {
    /// The partitions to read; all of them, those that are added later too, if absent.
    pub partitions: Option<Vec<u32>>,
    /// Where to start in each of them.
    pub start: Start,
    /// Bytes that may wait to be taken, over all partitions.
    pub prefetch_bytes: usize,
    /// Whether records are read as soon as the leader has them, or once they are replicated.
    pub isolation: Isolation,
    /// Whether the checksum of every batch is verified.
    pub check_crc: bool,
}

/// Where to start, resolved when the consumer is opened. The end is that of what may be read: by the isolation, of the log
/// or of what is replicated. `Beginning` and `End` mean what is there: if retention removes it before anything was read,
/// reading begins with the first record that is left. What is removed later is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// So many records behind the first one that is there, at most at the end.
    Beginning(u64),
    /// So many records in front of the end, at most at the first one that is there.
    End(u64),
    /// This offset. It is an error if it is not, or no longer, in the log.
    Offset(u64),
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        ConsumerOptions {
            partitions: None,
            start: Start::End(0),
            prefetch_bytes: 8 * 1024 * 1024,
            isolation: Isolation::ReadUncommitted,
            check_crc: true,
        }
    }
}

const MIN_PREFETCH: usize = 64 * 1024;
const MAX_PREFETCH: usize = 1024 * 1024 * 1024;

impl ConsumerOptions {
    /// Reads the JSON form.
    pub fn from_json(text: &str) -> Result<Self> {
        let options: Self = parse_json("consumer options", text)?;
        options.check()?;
        Ok(options)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !(MIN_PREFETCH..=MAX_PREFETCH).contains(&self.prefetch_bytes) {
            return Err(Error::invalid(format!(
                "prefetch_bytes is {}: give a value between {MIN_PREFETCH} and {MAX_PREFETCH}",
                self.prefetch_bytes
            )));
        }
        let (Start::Beginning(value) | Start::End(value) | Start::Offset(value)) = self.start;
        if i64::try_from(value).is_err() {
            return Err(Error::invalid(format!("start is {value}: offsets have 63 bits")));
        }
        if self.partitions.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid("partitions is empty: name at least one, or leave it out for all"));
        }
        Ok(())
    }

    /// The partitions to read of a topic that has `count`.
    pub(crate) fn select(&self, topic: &str, count: u32) -> Result<Vec<u32>> {
        let Some(wanted) = &self.partitions else { return Ok((0..count).collect()) };
        let mut selected = wanted.clone();
        selected.sort_unstable();
        selected.dedup();
        match selected.iter().find(|partition| **partition >= count) {
            None => Ok(selected),
            Some(partition) => {
                let message = format!("topic {topic:?} has no partition {partition}, it has {count}");
                let error = Error::new(ErrorKind::PartitionNotFound, message);
                Err(error.with_partition(topic, *partition))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_named() {
        for (text, expected) in [
            (r#"{"begin": 5}"#, "begin"),
            (r#"{"start": {"offset": -1}}"#, "-1"),
            (r#"{"start": {"middle": 1}}"#, "middle"),
            (r#"{"prefetch_bytes": 5}"#, "prefetch_bytes is 5"),
            (r#"{"partitions": []}"#, "partitions is empty"),
            (r#"{"partitions": [-1]}"#, "-1"),
        ] {
            let error = ConsumerOptions::from_json(text).expect_err(text);
            assert!(error.message().contains(expected), "{text}: {error}");
        }
        let options = ConsumerOptions::from_json(r#"{"partitions": [2, 1, 2]}"#).unwrap();
        assert_eq!(options.select("t", 3).unwrap(), [1, 2]);
        let error = options.select("t", 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PartitionNotFound);
        assert_eq!((error.topic(), error.partition()), (Some("t"), Some(2)));
    }
}
