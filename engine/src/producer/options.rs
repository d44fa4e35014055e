//! Producer options.

use std::time::Duration;

use serde::Deserialize;

use crate::config::{MAX_TIMEOUT_MS, parse_json};
use crate::error::{Error, Result};

/// How a producer batches, buffers and retries. As JSON: `{"linger_ms": 5}`; unknown fields are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerOptions {
    /// A batch is sent once it has this many bytes.
    pub batch_bytes: usize,
    /// The most bytes of one request, and so of one record.
    pub max_request_bytes: usize,
    /// How long a batch may gather although nothing is in flight, in milliseconds. 0 sends at once, and gathers only
    /// while the answer to the previous request is awaited.
    pub linger_ms: u64,
    /// Bytes that may wait for their acknowledgement.
    pub buffer_bytes: usize,
    /// Requests that may be unanswered per SPU. More than 1 gives up the order of records when one is retried.
    pub in_flight: usize,
    /// Whether the server acknowledges once the record is written, or once it is replicated.
    pub isolation: Isolation,
    /// How long a record may be retried after it was accepted, in milliseconds.
    pub delivery_timeout_ms: u64,
    /// The first pause before a retry, in milliseconds; it doubles.
    pub retry_initial_ms: u64,
    /// The longest pause before a retry, in milliseconds.
    pub retry_max_ms: u64,
}

/// What an acknowledgement, or a read, refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
            batch_bytes: 128 * 1024,
            max_request_bytes: 1024 * 1024,
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
        within("batch_bytes", self.batch_bytes as u64, 1024, self.max_request_bytes as u64)?;
        within("max_request_bytes", self.max_request_bytes as u64, 1024, MAX_REQUEST_BYTES as u64)?;
        within("linger_ms", self.linger_ms, 0, 60_000)?;
        within("buffer_bytes", self.buffer_bytes as u64, 1024, MAX_BUFFER_BYTES as u64)?;
        within("in_flight", self.in_flight as u64, 1, 64)?;
        within("delivery_timeout_ms", self.delivery_timeout_ms, 1, MAX_TIMEOUT_MS)?;
        within("retry_initial_ms", self.retry_initial_ms, 1, MAX_TIMEOUT_MS)?;
        within("retry_max_ms", self.retry_max_ms, self.retry_initial_ms, MAX_TIMEOUT_MS)
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
            (r#"{"batch_bytes": 5}"#, "batch_bytes is 5"),
            (r#"{"batch_bytes": 2000000}"#, "batch_bytes is 2000000"),
            (r#"{"in_flight": 0}"#, "in_flight is 0"),
            (r#"{"linger_ms": -1}"#, "-1"),
            (r#"{"isolation": "read"}"#, "read_committed"),
            (r#"{"retry_max_ms": 1}"#, "retry_max_ms is 1"),
        ] {
            let error = ProducerOptions::from_json(text).expect_err(text);
            assert!(error.message().contains(expected), "{text}: {error}");
        }
    }
}
