//! A chain of modules on a thread of its own.

use std::io;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use fluvio_protocol::Version;
use fluvio_protocol::link::ErrorCode;
use fluvio_smartengine::{
    EngineError, SmartEngine, SmartModuleChainBuilder, SmartModuleChainInstance, SmartModuleConfig,
    SmartModuleInitialData,
};
use fluvio_smartmodule::dataplane::smartmodule::SmartModuleInput;
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::server::smartmodule::{
    SmartModuleContextData, SmartModuleInvocation, SmartModuleInvocationWasm, SmartModuleKind,
};

use super::batches::{Input, Output};
use super::worker::{Failed, Worker};
use super::{ChainFailed, Limit, Transformed, look_back, unpack};
use crate::cluster::Replica;

/// Compiles and runs modules. It has no state but its configuration, so all chains share it.
static ENGINE: LazyLock<SmartEngine> = LazyLock::new(SmartEngine::new);

/// Initialized modules, each of which takes what the one before puts out.
pub(crate) struct Chain {
    worker: Worker<SmartModuleChainInstance>,
}

impl Chain {
    /// Compiles and initializes modules that were resolved. `version` is that of the request, in which modules and engine
    /// talk, and `max_memory` what the modules may have together, in bytes.
    pub(crate) async fn start(
        modules: Vec<SmartModuleInvocation>,
        version: Version,
        max_memory: usize,
    ) -> Result<Self, ErrorCode> {
        let worker = Worker::start(move || build(modules, version, max_memory)).await;
        let worker = worker.map_err(|failed| ErrorCode::SmartModuleChainInitError(failed.to_string()))??;
        Ok(Chain { worker })
    }

    /// Shows the modules that look back the records that they want to see, as far as `isolation` may.
    pub(crate) async fn look_back(
        &self,
        replica: Arc<Replica>,
        isolation: Isolation,
    ) -> Result<(), ErrorCode> {
        let looked = self.worker.run(move |chain, _| look_back::look_back(chain, &replica, isolation)).await;
        looked
            .unwrap_or_else(|failed| Err(failed.into()))
            .map_err(|error| ErrorCode::SmartModuleLookBackError(error.root_cause().to_string()))
    }

    /// Sends batches through the chain, until they end or the output has reached its limit.
    pub(crate) async fn transform(
        &self,
        batches: impl Iterator<Item = io::Result<Bytes>> + Send + 'static,
        limit: Limit,
    ) -> Result<Transformed, ChainFailed> {
        let job = move |chain: &mut SmartModuleChainInstance, wanted: &dyn Fn() -> bool| {
            transform(chain, batches.take_while(|_| wanted()), limit)
        };
        Ok(self.worker.run(job).await.unwrap_or_else(|failed| Err(failed.into()))?)
    }
}

fn build(
    modules: Vec<SmartModuleInvocation>,
    version: Version,
    max_memory: usize,
) -> Result<SmartModuleChainInstance, ErrorCode> {
    let mut builder = SmartModuleChainBuilder::default();
    builder.set_store_memory_limit(max_memory);
    for module in modules {
        let invalid = |error: String| ErrorCode::SmartModuleInvalid { error, name: None };
        let SmartModuleInvocationWasm::AdHoc(packed) = module.wasm else {
            return Err(invalid("unable to represent as raw data".to_owned()));
        };
        let wasm = unpack::module(&packed).map_err(|error| invalid(error.to_string()))?;
        let initial_data = match module.kind {
            SmartModuleKind::Aggregate { accumulator }
            | SmartModuleKind::Generic(SmartModuleContextData::Aggregate { accumulator }) => {
                SmartModuleInitialData::with_aggregate(accumulator)
            }
            _ => SmartModuleInitialData::None,
        };
        let config = SmartModuleConfig::builder()
            .smartmodule_names([module.name.unwrap_or_default()])
            .lookback(module.params.lookback().map(Into::into))
            .params(module.params)
            .version(version)
            .initial_data(initial_data)
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        builder.add_smart_module(config, wasm);
    }
    builder.initialize(&ENGINE).map_err(|error| match memory_exceeded(&error) {
        Some((requested, max)) => ErrorCode::SmartModuleMemoryLimitExceeded { requested, max },
        None => ErrorCode::SmartModuleChainInitError(error.to_string()),
    })
}

fn transform(
    chain: &mut SmartModuleChainInstance,
    batches: impl Iterator<Item = io::Result<Bytes>>,
    limit: Limit,
) -> anyhow::Result<Transformed> {
    let mut output = Output::new(limit);
    let mut error = None;
    for batch in batches {
        let Input { header, records } = Input::read(&batch?)?;
        let input = SmartModuleInput::new(records, header.base_offset, header.first_timestamp);
        let processed = chain.process(input)?;
        error = processed.error;
        if !output.add(&header, processed.successes) || error.is_some() {
            break;
        }
    }
    Ok(Transformed { batch: output.finish()?, error })
}

/// What a module wanted and what it may have, if that is what an error is about.
fn memory_exceeded(error: &anyhow::Error) -> Option<(u64, u64)> {
    match error.downcast_ref() {
        Some(EngineError::StoreMemoryExceeded { requested, max, .. }) => {
            Some((*requested as u64, *max as u64))
        }
        _ => None,
    }
}

impl From<anyhow::Error> for ChainFailed {
    fn from(error: anyhow::Error) -> Self {
        ChainFailed { reason: error.to_string(), memory: memory_exceeded(&error) }
    }
}

impl From<Failed> for ChainFailed {
    fn from(failed: Failed) -> Self {
        anyhow::Error::from(failed).into()
    }
}
