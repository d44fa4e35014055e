//! What the server has served: requests by plane and kind, connections, streams and bytes.
//!
//! Counted for ever and read at any moment, so that a test of a client can say what something costs: the difference of two
//! readings. Invariants: what has opened is counted before its client can have an answer, and what is open is counted by a
//! guard, so that however it ends it counts no longer. Bytes are those of the protocol, without TLS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fluvio_types::SpuId;
use parking_lot::Mutex;
use serde::Serialize;

use crate::faults::RequestName;
use crate::plane::Plane;

/// What a server has counted since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Of the streaming controller.
    pub controller: PlaneCounters,
    /// Of the streaming processing units that have had a connection, by id.
    pub spus: BTreeMap<SpuId, PlaneCounters>,
}

/// What one of a cluster's servers has counted since the start. An SPU that was away counts on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlaneCounters {
    /// Requests that were received, by kind: the names that faults have for them, or `key-N` for others.
    pub requests: BTreeMap<String, u64>,
    /// Connections that were accepted.
    pub connections_opened: u64,
    /// Connections that are open.
    pub connections_open: u64,
    /// Streams that were opened.
    pub streams_opened: u64,
    /// Streams that are open.
    pub streams_open: u64,
    /// Bytes that clients have sent.
    pub received_bytes: u64,
    /// Bytes that were sent to clients.
    pub sent_bytes: u64,
}

impl Counters {
    /// All SPUs together.
    pub fn spu_total(&self) -> PlaneCounters {
        let mut total = PlaneCounters::default();
        for spu in self.spus.values() {
            for (name, count) in &spu.requests {
                *total.requests.entry(name.clone()).or_default() += count;
            }
            total.connections_opened += spu.connections_opened;
            total.connections_open += spu.connections_open;
            total.streams_opened += spu.streams_opened;
            total.streams_open += spu.streams_open;
            total.received_bytes += spu.received_bytes;
            total.sent_bytes += spu.sent_bytes;
        }
        total
    }
}

impl PlaneCounters {
    /// Requests of one kind.
    pub fn requests_of(&self, name: &str) -> u64 {
        self.requests.get(name).copied().unwrap_or_default()
    }

    /// Requests of all kinds.
    pub fn all_requests(&self) -> u64 {
        self.requests.values().sum()
    }
}

/// The counts of all servers of a cluster.
#[derive(Default)]
pub(crate) struct Counts(Mutex<BTreeMap<Plane, Arc<PlaneCounts>>>);

/// The counts of one of them.
#[derive(Default)]
pub(crate) struct PlaneCounts {
    requests: Mutex<BTreeMap<u16, u64>>,
    connections: OpenCount,
    streams: OpenCount,
    received: AtomicU64,
    sent: AtomicU64,
}

#[derive(Default)]
struct OpenCount {
    opened: AtomicU64,
    ended: AtomicU64,
}

/// Something that is open until this is dropped.
pub(crate) struct Open(Arc<PlaneCounts>, fn(&PlaneCounts) -> &OpenCount);

impl Counts {
    pub(crate) fn of(&self, plane: Plane) -> Arc<PlaneCounts> {
        self.0.lock().entry(plane).or_default().clone()
    }

    pub(crate) fn read(&self) -> Counters {
        let mut counters = Counters::default();
        for (plane, counts) in &*self.0.lock() {
            match plane {
                Plane::Controller => counters.controller = counts.read(*plane),
                Plane::Unit(spu) => drop(counters.spus.insert(*spu, counts.read(*plane))),
            }
        }
        counters
    }
}

impl PlaneCounts {
    /// Counts a connection for as long as the result lives.
    pub(crate) fn connection(self: &Arc<Self>) -> Open {
        Open::new(self.clone(), |counts| &counts.connections)
    }

    /// Counts a stream for as long as the result lives.
    pub(crate) fn stream(self: &Arc<Self>) -> Open {
        Open::new(self.clone(), |counts| &counts.streams)
    }

    pub(crate) fn request(&self, key: u16) {
        *self.requests.lock().entry(key).or_default() += 1;
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self, plane: Plane) -> PlaneCounters {
        let name = |key| match RequestName::of(plane, key) {
            Some(name) => name.to_string(),
            None => format!("key-{key}"),
        };
        let (connections_opened, connections_open) = self.connections.read();
        let (streams_opened, streams_open) = self.streams.read();
        PlaneCounters {
            requests: self.requests.lock().iter().map(|(key, count)| (name(*key), *count)).collect(),
            connections_opened,
            connections_open,
            streams_opened,
            streams_open,
            received_bytes: self.received.load(Ordering::Relaxed),
            sent_bytes: self.sent.load(Ordering::Relaxed),
        }
    }
}

impl OpenCount {
    /// How many were opened, and are open.
    fn read(&self) -> (u64, u64) {
        // The ends first: what ends in between counts as open, and never as less than nothing.
        let ended = self.ended.load(Ordering::Acquire);
        let opened = self.opened.load(Ordering::Acquire);
        (opened, opened - ended)
    }
}

impl Open {
    fn new(counts: Arc<PlaneCounts>, which: fn(&PlaneCounts) -> &OpenCount) -> Self {
        which(&counts).opened.fetch_add(1, Ordering::Release);
        Open(counts, which)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.1)(&self.0).ended.fetch_add(1, Ordering::Release);
    }
}
