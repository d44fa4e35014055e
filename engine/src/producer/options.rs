//! Producer options.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{MAX_TIMEOUT_MS, parse_json};
use crate::error::{Error, Result};

/// How a producer batches, buffers and retries. As JSON: `{"linger_ms": 5}`; unknown fields are refused.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerOptions {
    /// A batch is sent once it has this many bytes. The default gives way where another limit is lower.
    pub batch_size_bytes: usize,
    /// The most bytes of one request, and so of one record.
    pub max_request_size_bytes: usize,
    /// How long a batch may gather although nothing is in flight, in milliseconds. 0 sends at once, and gathers only
    /// while the answer to the previous request is awaited.
    pub linger_ms: u64,
    /// What records without a fate may take of the memory, each with an overhead (see [`super::RECORD_OVERHEAD`]).
    pub buffer_bytes: usize,
    /// Requests that may be unanswered per SPU. More than 1 gives up the order of records when one is retried.
    pub in_flight: usize,
    /// Whether the server acknowledges once the record is written, or once it is replicated.
    pub isolation: Isolation,
    /// How long a record may be without a fate after it was accepted, in milliseconds: also while it is in flight. It is
    /// counted by the batch, from its first record: one that joins later has what is left of it. That is nearly all, but
    /// where a batch gathers for long: while it lingers, or an answer is awaited. While an SPU cannot be reached a batch
    /// gathers for an eighth of this at most.
    pub delivery_timeout_ms: u64,
    /// The first pause before a retry, in milliseconds; it doubles.
    pub retry_initial_ms: u64,
    /// The longest pause before a retry, in milliseconds.
    pub retry_max_ms: u64,
}

/// What an acknowledgement, or a read, refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Written by the leader.
    #[default]
    ReadUncommitted,
    /// Replicated: below the high watermark.
    ReadCommitted,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        ProducerOptions {
            batch_size_bytes: BATCH_SIZE_BYTES,
            max_request_size_bytes: 1024 * 1024,
            linger_ms: 0,
            buffer_bytes: 32 * 1024 * 1024,
            in_flight: 1,
            isolation: Isolation::ReadUncommitted,
            delivery_timeout_ms: 120_000,
            retry_initial_ms: 20,
            retry_max_ms: 5_000,
        }
    }
}

const BATCH_SIZE_BYTES: usize = 128 * 1024;

/// What a server accepts in one batch (32 MiB), and so the most that a request can hold here.
const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;

/// Room is counted in 32 bits.
const MAX_BUFFER_BYTES: usize = 1024 * 1024 * 1024;

impl ProducerOptions {
    /// Reads the JSON form.
    pub fn from_json(text: &str) -> Result<Self> {
        let options: Self = parse_json("producer options", text)?;
        options.check()?;
        Ok(options)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let within = |name: &str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::invalid(format!("{name} is {value}: give a value between {min} and {max}")))
            }
        };
        let ordered = |low: &str, smaller: u64, high: &str, larger: u64| {
            if smaller <= larger {
                Ok(())
            } else {
                Err(Error::invalid(format!("{low} is {smaller}, more than {high}, which is {larger}")))
            }
        };
        within("max_request_size_bytes", self.max_request_size_bytes as u64, 1024, MAX_REQUEST_BYTES as u64)?;
        within("linger_ms", self.linger_ms, 0, 60_000)?;
        within("buffer_bytes", self.buffer_bytes as u64, 1024, MAX_BUFFER_BYTES as u64)?;
        within("in_flight", self.in_flight as u64, 1, 64)?;
        within("delivery_timeout_ms", self.delivery_timeout_ms, 1, MAX_TIMEOUT_MS)?;
        within("retry_initial_ms", self.retry_initial_ms, 1, MAX_TIMEOUT_MS)?;
        within("retry_max_ms", self.retry_max_ms, 1, MAX_TIMEOUT_MS)?;
        let batch = self.batch_size_bytes as u64;
        within("batch_size_bytes", batch, 1024, MAX_REQUEST_BYTES as u64)?;
        if self.batch_size_bytes != BATCH_SIZE_BYTES {
            let (request, buffer) = (self.max_request_size_bytes as u64, self.buffer_bytes as u64);
            ordered("batch_size_bytes", batch, "max_request_size_bytes", request)?;
            ordered("batch_size_bytes", batch, "buffer_bytes", buffer)?;
        }
        ordered("linger_ms", self.linger_ms, "delivery_timeout_ms", self.delivery_timeout_ms)?;
        ordered("retry_initial_ms", self.retry_initial_ms, "retry_max_ms", self.retry_max_ms)
    }

    pub(crate) fn batch_bytes(&self) -> usize {
        self.batch_size_bytes.min(self.max_request_size_bytes).min(self.buffer_bytes)
    }

    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }

    pub(crate) fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery_timeout_ms)
    }

    pub(crate) fn retry_initial(&self) -> Duration {
        Duration::from_millis(self.retry_initial_ms)
    }

    pub(crate) fn retry_max(&self) -> Duration {
        Duration::from_millis(self.retry_max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_named() {
        for (text, expected) in [
            (r#"{"batch_size": 5}"#, "batch_size"),
            (r#"{"batch_size_bytes": 5}"#, "batch_size_bytes is 5"),
            (
                r#"{"batch_size_bytes": 2000000}"#,
                "batch_size_bytes is 2000000, more than max_request_size_bytes, which is 1048576",
            ),
            (
                r#"{"batch_size_bytes": 5000, "buffer_bytes": 4096}"#,
                "batch_size_bytes is 5000, more than buffer_bytes, which is 4096",
            ),
            (
                r#"{"linger_ms": 11, "delivery_timeout_ms": 10}"#,
                "linger_ms is 11, more than delivery_timeout_ms, which is 10",
            ),
            (r#"{"in_flight": 0}"#, "in_flight is 0"),
            (r#"{"linger_ms": -1}"#, "-1"),
            (r#"{"isolation": "read"}"#, "read_committed"),
            (r#"{"retry_max_ms": 1}"#, "retry_initial_ms is 20, more than retry_max_ms, which is 1"),
            (r#"{"retry_max_ms": 0}"#, "retry_max_ms is 0"),
        ] {
            let error = ProducerOptions::from_json(text).expect_err(text);
            assert!(error.message().contains(expected), "{text}: {error}");
        }
    }
}
