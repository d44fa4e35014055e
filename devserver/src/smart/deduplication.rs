//! Deduplication: the chain of one module that every record of a partition passes before it is written.
//!
//! It remembers what it has seen, and looks back on the log when it starts. That is at the first produce, so that a topic of
//! a thousand partitions does not start a thousand threads, and again after records that it has seen were not written: it
//! would take them for duplicates when they come again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fluvio_controlplane_metadata::topic::Deduplication;
use fluvio_protocol::link::ErrorCode;
use fluvio_smartmodule::dataplane::smartmodule::{Lookback, SmartModuleExtraParams};
use fluvio_spu_schema::server::smartmodule::{
    SmartModuleInvocation, SmartModuleInvocationWasm, SmartModuleKind,
};
use fluvio_spu_schema::{COMMON_VERSION, Isolation};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio_util::task::TaskTracker;

use super::{Chain, ChainFailed, Limit, Transformed, resolve};
use crate::cluster::{Cluster, Replica};
use crate::log::Appending;

/// What keeps duplicates out of a partition.
pub(crate) struct Deduplicator {
    settings: Deduplication,
    /// A module that has seen nothing but what is in the log. Locked from the filtering of records until they are written:
    /// the log has them in the order in which the module has seen them, and no duplicate is acknowledged before them.
    chain: Arc<Mutex<Option<Chain>>>,
}

/// The right to write what has been filtered. If it is dropped before that, the next one starts the module anew.
pub(crate) struct Turn {
    chain: Chain,
    slot: OwnedMutexGuard<Option<Chain>>,
}

impl Deduplicator {
    pub(crate) fn new(settings: Deduplication) -> Self {
        Deduplicator { settings, chain: Arc::default() }
    }

    /// Waits until all that came before is written or has failed. Starts the module if there is none.
    pub(crate) async fn turn(&self, cluster: &Cluster, replica: &Arc<Replica>) -> Result<Turn, ErrorCode> {
        let mut slot = self.chain.clone().lock_owned().await;
        let chain = match slot.take() {
            Some(chain) => chain,
            None => {
                let chain = start_deduplication(cluster, &self.settings).await?;
                // What is not committed yet is written all the same.
                chain.look_back(replica.clone(), Isolation::ReadUncommitted).await?;
                chain
            }
        };
        Ok(Turn { chain, slot })
    }
}

impl Turn {
    /// What is left of the batches. Errors are those of the real server.
    pub(crate) async fn filter(
        &self,
        batches: impl Iterator<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Transformed, ErrorCode> {
        let failed = |failed: ChainFailed| match failed.memory {
            Some((requested, max)) => ErrorCode::SmartModuleMemoryLimitExceeded { requested, max },
            None => {
                tracing::warn!("deduplication failed: {failed}");
                ErrorCode::StorageError
            }
        };
        let filtered = self.chain.transform(batches, Limit::NONE).await.map_err(failed)?;
        match &filtered.error {
            None => Ok(filtered),
            Some(error) => {
                tracing::warn!("deduplication failed: {error}");
                Err(ErrorCode::StorageError)
            }
        }
    }

    /// Everything that was filtered is in the log.
    pub(crate) fn written(mut self) {
        *self.slot = Some(self.chain);
    }

    /// Ends when what was filtered is written or has failed, even if the producer does not wait for that.
    pub(crate) fn until_written(self, appending: Appending, tasks: &TaskTracker) -> Appending {
        if let Appending::Done(_) = appending {
            self.written();
            return appending;
        }
        let (reply, written) = oneshot::channel();
        tasks.spawn(async move {
            let offset = appending.done().await;
            if offset.is_ok() {
                self.written();
            }
            // Whoever has left does not need an answer.
            let _ = reply.send(offset);
        });
        Appending::Waiting(written)
    }
}

/// Starts the module of a topic, which has not seen anything.
pub(crate) async fn start_deduplication(
    cluster: &Cluster,
    settings: &Deduplication,
) -> Result<Chain, ErrorCode> {
    let modules = resolve(&cluster.objects.lock().smart_modules, vec![invocation(settings)])?;
    Chain::start(modules, COMMON_VERSION, cluster.config.smart_module_memory).await
}

fn invocation(settings: &Deduplication) -> SmartModuleInvocation {
    let Deduplication { bounds, filter } = settings;
    let mut params = BTreeMap::from([("count".to_owned(), bounds.count.to_string())]);
    if let Some(age) = bounds.age {
        params.insert("age".to_owned(), age.as_millis().to_string());
    }
    params.extend(filter.transform.with.clone());
    let look_back = Lookback { last: bounds.count, age: bounds.age };
    let name = filter.transform.uses.clone();
    SmartModuleInvocation {
        wasm: SmartModuleInvocationWasm::Predefined(name.clone()),
        kind: SmartModuleKind::Filter,
        params: SmartModuleExtraParams::new(params, Some(look_back)),
        name: Some(name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fluvio_controlplane_metadata::topic::{Bounds, Filter, Transform};
    #[cfg(feature = "smartengine")]
    use {
        crate::cluster::{FIRST_SPU, spu},
        crate::config::Config,
        crate::log::StorageError,
        fluvio_controlplane_metadata::spu::SpuType,
        fluvio_controlplane_metadata::topic::TopicSpec,
        fluvio_sc_schema::objects::Metadata,
        fluvio_sc_schema::smartmodule::{SmartModuleSpec, SmartModuleWasm},
    };

    use super::*;

    #[test]
    fn the_module_learns_the_bounds_and_its_own_parameters() {
        let settings = Deduplication {
            bounds: Bounds { count: 5, age: Some(Duration::from_secs(2)) },
            filter: Filter {
                transform: Transform {
                    uses: "group/filter@0.1.0".to_owned(),
                    with: BTreeMap::from([("key".to_owned(), "value".to_owned())]),
                },
            },
        };
        let made = invocation(&settings);
        assert!(
            matches!(&made.wasm, SmartModuleInvocationWasm::Predefined(name) if name == "group/filter@0.1.0")
        );
        for (name, value) in [("count", "5"), ("age", "2000"), ("key", "value")] {
            assert_eq!(made.params.get(name).map(String::as_str), Some(value));
        }
        assert_eq!(made.params.lookback(), Some(&Lookback::age(Duration::from_secs(2), Some(5))));
    }

    #[cfg(feature = "smartengine")]
    #[tokio::test]
    async fn only_what_is_written_is_a_duplicate_and_nobody_has_a_turn_before_that() {
        let (cluster, replica) = deduplicated();
        let deduplicator = replica.deduplicator.as_ref().expect("deduplication");
        let turn = async || deduplicator.turn(&cluster, &replica).await.expect("a turn");
        let is_new = async |turn: &Turn| {
            let mut batch = wire::builder::BatchBuilder::with_capacity(64);
            batch.push(None, b"apple", 0);
            let filtered = turn.filter(std::iter::once(Ok(batch.finish().into()))).await;
            filtered.expect("filtered").batch.is_some()
        };
        // The first loses its connection, the write of the second fails.
        assert!(is_new(&turn().await).await);
        let second = turn().await;
        assert!(is_new(&second).await);
        let failed = Appending::Waiting(oneshot::channel().1);
        assert_eq!(second.until_written(failed, &cluster.tasks).done().await, Err(StorageError));

        let third = turn().await;
        assert!(is_new(&third).await);
        let (written, appending) = oneshot::channel();
        drop(third.until_written(Appending::Waiting(appending), &cluster.tasks));
        let fourth = turn();
        tokio::pin!(fourth);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut fourth).await.is_err());
        written.send(Ok(0)).expect("somebody waits for it");
        assert!(!is_new(&fourth.await).await);
    }

    /// A cluster with a topic that has deduplication, and the partition of that.
    #[cfg(feature = "smartengine")]
    fn deduplicated() -> (Cluster, Arc<Replica>) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/smartmodules/dedup.wasm");
        let wasm = std::fs::read(path).expect("a module");
        let packed = SmartModuleInvocationWasm::adhoc_from_bytes(&wasm).expect("compress");
        let SmartModuleInvocationWasm::AdHoc(packed) = packed else { unreachable!() };
        let spec = SmartModuleSpec {
            wasm: SmartModuleWasm { payload: packed.into(), ..SmartModuleWasm::default() },
            ..SmartModuleSpec::default()
        };
        let unit = spu("spu".to_owned(), FIRST_SPU, SpuType::Custom, "localhost".to_owned(), 9010);
        let cluster = Cluster::open(Config::default(), [unit]).expect("a cluster");
        let module = Metadata { name: "dedup".to_owned(), spec, status: Default::default() };
        cluster.objects.lock().smart_modules.put(vec![module]);
        let mut topic = TopicSpec::new_computed(1, 1, None);
        topic.set_deduplication(Some(Deduplication {
            bounds: Bounds { count: 5, age: None },
            filter: Filter { transform: Transform { uses: "dedup".to_owned(), with: BTreeMap::new() } },
        }));
        cluster.put_topic("t".to_owned(), topic).expect("a topic");
        let replica = cluster.replica("t", 0).expect("a partition");
        (cluster, replica)
    }
}
