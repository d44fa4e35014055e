//! The servers of a cluster, each of which listens on an address of its own.

use fluvio_types::SpuId;

/// One of the cluster's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plane {
    /// The streaming controller.
    Controller,
    /// A streaming processing unit.
    Unit(SpuId),
}
