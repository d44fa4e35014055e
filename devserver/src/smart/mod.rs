//! SmartModules: WebAssembly that filters and transforms records, run by the platform's own engine.
//!
//! A [`Chain`] is the modules of one stream, of one produce request for one partition, or of the deduplication of one
//! partition. It runs on a thread of its own. Without the cargo feature `smartengine` none can be started, which is a clear
//! error: to pass records through would be a lie.
//!
//! Modules run in this process and are trusted: the engine (fluvio-smartengine 0.50.1) copies a module's input to wherever
//! the module's `alloc` says, unchecked, so a faulty module can end the server, as it can a real SPU.

#[cfg(not(feature = "smartengine"))]
mod absent;
#[cfg(feature = "smartengine")]
mod batches;
#[cfg(feature = "smartengine")]
mod chain;
mod deduplication;
#[cfg(feature = "smartengine")]
mod look_back;
mod stored;
#[cfg(feature = "smartengine")]
mod unpack;
#[cfg(feature = "smartengine")]
mod worker;

use std::sync::Arc;

use bytes::BytesMut;
use fluvio_controlplane_metadata::smartmodule::SmartModulePackageKey;
use fluvio_protocol::Version;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::smartmodule::SmartModuleTransformRuntimeError;
use fluvio_sc_schema::smartmodule::SmartModuleSpec;
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::server::smartmodule::{SmartModuleInvocation, SmartModuleInvocationWasm};

#[cfg(not(feature = "smartengine"))]
pub(crate) use self::absent::Chain;
#[cfg(feature = "smartengine")]
pub(crate) use self::chain::Chain;
pub(crate) use self::deduplication::{Deduplicator, start_deduplication};
pub(crate) use self::stored::StoredBatches;
use crate::cluster::{Cluster, Replica};
use crate::metadata::Store;

/// How much may come out of a chain at once.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "smartengine"), expect(dead_code, reason = "only the engine reads them"))]
pub(crate) struct Limit {
    /// Bytes of records; the output of a batch that would exceed it is left for the next time.
    pub(crate) max_bytes: usize,
    /// Whether that also holds for the first output, so that there is none at all. The real server does so and goes on at
    /// the end of the log: the records are lost to the consumer.
    pub(crate) even_the_first: bool,
}

impl Limit {
    /// Everything comes out.
    pub(crate) const NONE: Limit = Limit { max_bytes: usize::MAX, even_the_first: false };
}

/// What came out of a chain.
#[derive(Debug)]
pub(crate) struct Transformed {
    /// All records in one batch, and the offset behind the last batch that went in; `None` if no record came out.
    pub(crate) batch: Option<(BytesMut, i64)>,
    /// A module has reported an error; `batch` holds what came out before it.
    pub(crate) error: Option<SmartModuleTransformRuntimeError>,
}

/// Why nothing comes out of a chain: a module or the engine has failed, or a batch cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct ChainFailed {
    reason: String,
    /// A module wanted more memory than it may have: how much, and how much that is.
    memory: Option<(u64, u64)>,
}

/// The chain of a request for `replica`: its modules found, compiled, initialized, and shown what they look back on.
pub(crate) async fn start_chain(
    cluster: &Cluster,
    replica: &Arc<Replica>,
    invocations: Vec<SmartModuleInvocation>,
    version: Version,
) -> Result<Chain, ErrorCode> {
    let modules = resolve(&cluster.objects.lock().smart_modules, invocations)?;
    let chain = Chain::start(modules, version, cluster.config.smart_module_memory).await?;
    chain.look_back(replica.clone(), Isolation::ReadCommitted).await?;
    Ok(chain)
}

/// Puts what was uploaded in the place of names.
fn resolve(
    uploaded: &Store<SmartModuleSpec>,
    invocations: Vec<SmartModuleInvocation>,
) -> Result<Vec<SmartModuleInvocation>, ErrorCode> {
    let named = |mut invocation: SmartModuleInvocation| {
        if let SmartModuleInvocationWasm::Predefined(name) = invocation.wasm {
            invocation.wasm = SmartModuleInvocationWasm::AdHoc(payload(uploaded, &name)?);
            invocation.name = Some(name);
        }
        Ok(invocation)
    };
    invocations.into_iter().map(named).collect()
}

fn payload(uploaded: &Store<SmartModuleSpec>, name: &str) -> Result<Vec<u8>, ErrorCode> {
    let key = SmartModulePackageKey::from_qualified_name(name)
        .map_err(|error| ErrorCode::Other(format!("error parsing SmartModule name: {error}")))?;
    let matches = |package: Option<_>, stored_as: &str| key.is_match(stored_as, package);
    uploaded
        .iter()
        .find(|module| matches(module.spec.meta.as_ref().map(|meta| &meta.package), &module.name))
        .map(|module| module.spec.wasm.payload.to_vec())
        .ok_or_else(|| ErrorCode::SmartModuleNotFound { name: name.to_owned() })
}
