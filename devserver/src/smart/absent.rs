//! The place of the engine in a server that was built without it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fluvio_protocol::Version;
use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::server::smartmodule::SmartModuleInvocation;

use super::{ChainFailed, Limit, Transformed};
use crate::cluster::Replica;

/// There is none.
pub(crate) struct Chain {
    never: Infallible,
}

impl Chain {
    /// Says that there is no engine.
    pub(crate) async fn start(
        _: Vec<SmartModuleInvocation>,
        _: Version,
        _: usize,
    ) -> Result<Self, ErrorCode> {
        let message = "built without the smartengine feature: this development server cannot run SmartModules; \
                       use one that was built with `--features smartengine`";
        Err(ErrorCode::SmartModuleChainInitError(message.to_owned()))
    }

    /// Cannot be called.
    pub(crate) async fn look_back(&self, _: Arc<Replica>, _: Isolation) -> Result<(), ErrorCode> {
        match self.never {}
    }

    /// Cannot be called.
    pub(crate) async fn transform(
        &self,
        _: impl Iterator<Item = io::Result<Bytes>> + Send + 'static,
        _: Limit,
    ) -> Result<Transformed, ChainFailed> {
        match self.never {}
    }
}
