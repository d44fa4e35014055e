//! Time, CPU time and threads of a process, and the result of a case.
//!
//! CPU times are read from /proc, which counts in ticks of 10 ms: figures of runs below a second are coarse.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

/// Linux gives times to user space in this unit on every platform that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a case found; what it has no figure for stays out of the document.
#[derive(Default, Serialize)]
pub(crate) struct Outcome {
    /// Records that arrived or operations that were done.
    pub(crate) count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// CPU seconds of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu: Option<f64>,
    /// Latencies in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<usize>,
}

impl Outcome {
    /// Adds the percentiles of `samples`.
    pub(crate) fn with_latencies(mut self, mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |share: f64| {
            let index = (samples.len() as f64 * share) as usize;
            samples.get(index.min(samples.len().saturating_sub(1))).map(|sample| sample.as_secs_f64() * 1e6)
        };
        (self.p50, self.p99) = (at(0.50), at(0.99));
        self
    }
}

/// A running measurement.
pub(crate) struct Clock {
    server_pid: Option<u32>,
    cpu: f64,
    server_cpu: Option<f64>,
    started: Instant,
}

impl Clock {
    /// Starts it.
    pub(crate) fn start(server_pid: Option<u32>) -> anyhow::Result<Self> {
        let server_cpu = server_pid.map(|pid| cpu_seconds(&pid.to_string())).transpose()?;
        Ok(Clock { server_pid, cpu: cpu_seconds("self")?, server_cpu, started: Instant::now() })
    }

    /// Stops it after `count` records.
    pub(crate) fn stop(self, count: usize) -> anyhow::Result<Outcome> {
        self.stop_at(Instant::now(), count)
    }

    /// As [`Clock::stop`], where the last record came at `end`.
    pub(crate) fn stop_at(self, end: Instant, count: usize) -> anyhow::Result<Outcome> {
        let server_cpu = match (self.server_pid, self.server_cpu) {
            (Some(pid), Some(before)) => Some(cpu_seconds(&pid.to_string())? - before),
            _ => None,
        };
        Ok(Outcome {
            count,
            seconds: Some(end.duration_since(self.started).as_secs_f64()),
            cpu: Some(cpu_seconds("self")? - self.cpu),
            server_cpu,
            ..Outcome::default()
        })
    }
}

/// CPU seconds of all threads of a process so far.
fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program stands in parentheses and may hold anything; utime and stime are fields 14 and 15.
    let fields: Vec<&str> =
        text.rsplit_once(") ").context("reading /proc/.../stat")?.1.split_ascii_whitespace().collect();
    let ticks =
        |index: usize| -> anyhow::Result<f64> { Ok(fields.get(index).context("a short line")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Threads of this process now.
pub(crate) fn threads() -> anyhow::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}
