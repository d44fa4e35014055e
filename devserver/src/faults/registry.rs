//! The faults that are injected, and the questions that the server asks about them.
//!
//! Invariants: `present` is the number of entries, so one look at it tells that there is nothing to ask about; a fault
//! whose count is used up goes away by itself, unless something waits for it to be cleared. Connections are told of every
//! change, because what waits on them may go on.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::ApiVersionKey;
use fluvio_types::{PartitionId, SpuId};
use parking_lot::Mutex;
use semver::Version;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Effect, Fault, Selector};
use crate::outbox::Outbox;
use crate::plane::Plane;

/// The number of an injected fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(NonZeroU64);

/// A fault as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct InjectedFault {
    /// Its number.
    pub id: FaultId,
    /// What was injected.
    pub fault: Fault,
    /// How often it will happen yet, if it is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u32>,
}

/// No fault ever had this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault {}, and there never was one", .0.0)]
pub struct ClearError(FaultId);

/// All faults of a server.
#[derive(Default)]
pub(crate) struct Faults {
    present: AtomicUsize,
    list: Mutex<List>,
    /// Changes with every fault that is cleared.
    cleared: watch::Sender<()>,
    connections: Mutex<Vec<Weak<Outbox>>>,
}

#[derive(Default)]
struct List {
    entries: Vec<InjectedFault>,
    last_id: u64,
}

impl Faults {
    /// Whether there is no fault. Costs one relaxed load.
    pub(crate) fn is_quiet(&self) -> bool {
        self.present.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn add(&self, fault: Fault) -> FaultId {
        let id = {
            let mut list = self.list.lock();
            list.last_id += 1;
            // The sum is above zero.
            let id = FaultId(NonZeroU64::new(list.last_id).unwrap_or(NonZeroU64::MIN));
            let left = fault.count.map(Into::into);
            list.entries.push(InjectedFault { id, fault, left });
            self.present.store(list.entries.len(), Ordering::Relaxed);
            id
        };
        self.tell_connections();
        id
    }

    /// Removes the faults that `which` wants and returns them.
    fn remove(&self, which: impl Fn(&InjectedFault) -> bool) -> Vec<Fault> {
        let removed: Vec<_> = {
            let mut list = self.list.lock();
            let removed =
                list.entries.extract_if(.., |entry| which(entry)).map(|entry| entry.fault).collect();
            self.present.store(list.entries.len(), Ordering::Relaxed);
            removed
        };
        self.cleared.send_replace(());
        self.tell_connections();
        removed
    }

    /// Clears one fault. One that has gone by itself gives `None`.
    pub(crate) fn clear(&self, id: FaultId) -> Result<Option<Fault>, ClearError> {
        if id.0.get() > self.list.lock().last_id {
            return Err(ClearError(id));
        }
        Ok(self.remove(|entry| entry.id == id).pop())
    }

    pub(crate) fn clear_all(&self) -> Vec<Fault> {
        self.remove(|_| true)
    }

    pub(crate) fn list(&self) -> Vec<InjectedFault> {
        self.list.lock().entries.clone()
    }

    /// Tells a connection of every change from now on.
    pub(crate) fn register(&self, connection: &Arc<Outbox>) {
        let mut connections = self.connections.lock();
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Arc::downgrade(connection));
    }

    fn tell_connections(&self) {
        let connections: Vec<_> = self.connections.lock().iter().filter_map(Weak::upgrade).collect();
        connections.iter().for_each(|connection| connection.faults_changed());
    }

    /// Waits until a fault is cleared.
    pub(crate) async fn cleared(&self, id: FaultId) {
        self.until(|| !self.is_injected(id)).await;
    }

    /// Waits until something is so, which may change whenever a fault is cleared.
    pub(super) async fn until(&self, is_so: impl Fn() -> bool) {
        if is_so() {
            return;
        }
        let mut cleared = self.cleared.subscribe();
        while !is_so() {
            // The sender lives as long as `self`: waiting cannot fail.
            let _ = cleared.changed().await;
        }
    }

    pub(crate) fn is_injected(&self, id: FaultId) -> bool {
        !self.is_quiet() && self.list.lock().entries.iter().any(|entry| entry.id == id)
    }

    /// Asks every fault that has not happened often enough. What `happens` returns a value for has happened once more.
    pub(super) fn happen<T>(&self, mut happens: impl FnMut(FaultId, &Fault) -> Option<T>) -> Vec<T> {
        if self.is_quiet() {
            return Vec::new();
        }
        let mut list = self.list.lock();
        let mut values = Vec::new();
        for entry in &mut list.entries {
            if entry.left == Some(0) {
                continue;
            }
            if let Some(value) = happens(entry.id, &entry.fault) {
                entry.left = entry.left.map(|left| left - 1);
                values.push(value);
            }
        }
        list.entries.retain(|entry| entry.left != Some(0) || is_waited_for(&entry.fault.effect));
        self.present.store(list.entries.len(), Ordering::Relaxed);
        values
    }

    /// Looks at every fault that has not happened often enough, and changes nothing.
    pub(super) fn look<T>(&self, look: impl Fn(FaultId, &Fault) -> Option<T>) -> Vec<T> {
        if self.is_quiet() {
            return Vec::new();
        }
        let list = self.list.lock();
        let left = list.entries.iter().filter(|entry| entry.left != Some(0));
        left.filter_map(|entry| look(entry.id, &entry.fault)).collect()
    }

    /// Whether a fault stands that is not counted.
    pub(super) fn stands(&self, is_meant: impl Fn(&Effect, &Selector) -> bool) -> bool {
        !self.look(|_, fault| is_meant(&fault.effect, &fault.selector).then_some(())).is_empty()
    }

    /// The error for a produced batch.
    pub(crate) fn produce_error(
        &self,
        spu: SpuId,
        topic: &str,
        partition: PartitionId,
    ) -> Result<(), ErrorCode> {
        let mut refused = false;
        let codes = self.happen(|_, Fault { effect, selector, .. }| match effect {
            Effect::ProduceError { code }
                if !refused
                    && selector.has_plane(Plane::Unit(spu))
                    && selector.has_partition(topic, partition) =>
            {
                refused = true;
                Some(code.clone())
            }
            _ => None,
        });
        codes.into_iter().next().map_or(Ok(()), Err)
    }

    /// Whether stream answers of a partition are cut.
    pub(crate) fn cuts(&self, topic: &str, partition: PartitionId) -> bool {
        self.stands(|effect, selector| {
            matches!(effect, Effect::CutBatches {}) && selector.has_partition(topic, partition)
        })
    }

    /// Whether the SmartModules of a partition's streams lose what exceeds `max_bytes`.
    pub(crate) fn overflows(&self, topic: &str, partition: PartitionId) -> bool {
        self.stands(|effect, selector| {
            matches!(effect, Effect::SmartModuleOverflow {}) && selector.has_partition(topic, partition)
        })
    }

    /// Whether the next stream answer of a partition is corrupted.
    pub(crate) fn corrupts(&self, topic: &str, partition: PartitionId) -> bool {
        let corrupted = self.happen(|_, Fault { effect, selector, .. }| {
            let meant = matches!(effect, Effect::CorruptCrc {}) && selector.has_partition(topic, partition);
            meant.then_some(())
        });
        !corrupted.is_empty()
    }

    /// Whether the high watermark of a partition stands still.
    pub(crate) fn holds_high_watermark(&self, topic: &str, partition: PartitionId) -> bool {
        self.stands(|effect, selector| {
            matches!(effect, Effect::HoldHighWatermark {}) && selector.has_partition(topic, partition)
        })
    }

    /// Whether the cluster shows nothing of what it has.
    pub(crate) fn empties_cluster(&self) -> bool {
        self.stands(|effect, _| matches!(effect, Effect::EmptyCluster {}))
    }

    /// Whether connections to a server write their answers in parts.
    pub(crate) fn splits_writes(&self, plane: Plane) -> bool {
        self.stands(|effect, selector| matches!(effect, Effect::SplitWrites {}) && selector.has_plane(plane))
    }

    /// Takes out of what a server says that it supports what it is not to say.
    pub(crate) fn hide_keys(&self, plane: Plane, keys: &mut Vec<ApiVersionKey>) {
        keys.retain(|key| {
            !self.stands(|effect, selector| {
                matches!(effect, Effect::Unadvertised {}) && selector.has_request(plane, key.api_key as u16)
            })
        });
    }

    /// The platform version to announce instead of the true one.
    pub(crate) fn platform_version(&self) -> Option<Version> {
        let mut versions = self.look(|_, fault| match &fault.effect {
            Effect::PlatformVersion { version } => Some(version.clone()),
            _ => None,
        });
        versions.pop()
    }

    /// The address to announce for an SPU instead of the true one.
    pub(crate) fn advertised_address(&self, spu: SpuId) -> Option<String> {
        let mut addresses = self.look(|_, Fault { effect, selector, .. }| match effect {
            Effect::AdvertisedAddress { address } if selector.has_plane(Plane::Unit(spu)) => {
                Some(address.clone())
            }
            _ => None,
        });
        addresses.pop()
    }
}

/// Whether something may wait for the end of a fault although it happens no more.
fn is_waited_for(effect: &Effect) -> bool {
    matches!(effect, Effect::Delay { .. } | Effect::Stall(_))
}
