//! Deduplication: the chain of one module that every record of a partition passes before it is written.
//!
//! It lives as long as its partition, remembers what it has seen, and looks back on the log when it starts. That is
//! at the first produce, so that a topic of a thousand partitions does not start a thousand threads.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fluvio_controlplane_metadata::topic::Deduplication;
use fluvio_protocol::link::ErrorCode;
use fluvio_smartmodule::dataplane::smartmodule::{Lookback, SmartModuleExtraParams};
use fluvio_spu_schema::COMMON_VERSION;
use fluvio_spu_schema::server::smartmodule::{
    SmartModuleInvocation, SmartModuleInvocationWasm, SmartModuleKind,
};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::{Chain, ChainFailed, Limit, Transformed, resolve};
use crate::cluster::{Cluster, Replica};

/// What keeps duplicates out of a partition.
pub(crate) struct Deduplicator {
    settings: Deduplication,
    chain: OnceCell<Chain>,
    /// Held from the filtering of records until they are written, so that the log has them in the order in which the
    /// module has seen them.
    order: Mutex<()>,
}

/// The right to write what has been filtered.
pub(crate) struct Turn<'a> {
    chain: &'a Chain,
    _order: MutexGuard<'a, ()>,
}

impl Deduplicator {
    pub(crate) fn new(settings: Deduplication) -> Self {
        Deduplicator { settings, chain: OnceCell::new(), order: Mutex::new(()) }
    }

    /// Waits until all that came before is written. The first one starts the module.
    pub(crate) async fn turn(
        &self,
        cluster: &Cluster,
        replica: &Arc<Replica>,
    ) -> Result<Turn<'_>, ErrorCode> {
        let order = self.order.lock().await;
        let start = async || {
            let chain = start_deduplication(cluster, &self.settings).await?;
            chain.look_back(replica.clone()).await?;
            Ok(chain)
        };
        let chain = self.chain.get_or_try_init(start).await?;
        Ok(Turn { chain, _order: order })
    }
}

impl Turn<'_> {
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
}
