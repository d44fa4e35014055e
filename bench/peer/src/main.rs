//! The fluvio crate's own client as a peer of the benchmarks: it runs one case and prints its result as one JSON line.
//!
//! `fluvio-crate-peer TASK`, with TASK as `bench/run.py` writes it. What is measured is what a user of the crate gets with
//! its documented calls and, unless the task says otherwise, its defaults.

mod consume;
mod measure;
mod produce;

use anyhow::{Context, bail};
use fluvio::metadata::topic::TopicSpec;
use fluvio::{Fluvio, FluvioConfig};
use serde::Deserialize;

use crate::measure::Outcome;

/// What to do, and where.
#[derive(Deserialize)]
struct Task {
    case: String,
    endpoint: String,
    #[serde(default)]
    topic: String,
    /// Bytes of a value.
    #[serde(default)]
    size: usize,
    /// Records (or operations) that are measured.
    #[serde(default)]
    count: usize,
    /// As many before the clock starts.
    #[serde(default)]
    warm: usize,
    /// Records between two waits for all acks.
    #[serde(default)]
    chunk: usize,
    /// Concurrent tasks.
    #[serde(default)]
    tasks: usize,
    /// The producer's batch size, where it is not the crate's default.
    batch_size: Option<usize>,
    /// The server's process, whose CPU time is reported beside our own.
    server_pid: Option<u32>,
}

fn main() -> anyhow::Result<()> {
    let argument = std::env::args().nth(1).context("usage: fluvio-crate-peer TASK (a JSON document)")?;
    let task: Task = serde_json::from_str(&argument).context("reading the task")?;
    let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&task))?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn run(task: &Task) -> anyhow::Result<Outcome> {
    let idle_threads = measure::threads()?;
    let client = Fluvio::connect_with_config(&FluvioConfig::new(&task.endpoint)).await?;
    match task.case.as_str() {
        "create" => {
            client
                .admin()
                .await
                .create(task.topic.clone(), false, TopicSpec::new_computed(1, 1, None))
                .await?;
            Ok(Outcome::default())
        }
        "delete" => {
            client.admin().await.delete::<TopicSpec>(task.topic.clone()).await?;
            Ok(Outcome::default())
        }
        "produce" => produce::bulk(&client, task).await,
        "ack" => produce::one_at_a_time(&client, task).await,
        "tasks" => produce::concurrent(&client, task).await,
        "records" => consume::records(&client, task).await,
        "batches" => consume::batches(&client, task).await,
        "live" => consume::live(&client, task).await,
        "threads" => consume::threads(&client, task, idle_threads).await,
        other => bail!("unknown case {other:?}"),
    }
}
