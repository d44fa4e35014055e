//! The stream connections of one consumer: one per SPU, shared by its partitions.
//!
//! No request ends a stream, only closing the connection does, so a consumer shares its connections with nobody. Each is
//! asked for a sign of life every request time-out: a peer that is gone without a word is noticed although nothing is
//! sent to it otherwise.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use fluvio_spu_schema::server::fetch_offset::{FetchOffsetPartition, FetchOffsetTopic, FetchOffsetsRequest};
use parking_lot::Mutex;

use super::Core;
use crate::error::Result;
use crate::metadata::Spu;
use crate::transport::Connection;

/// At most one connection per address; the lock of a slot is held while it is being opened.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Mutex<HashMap<String, Slot>>,
}

impl Connections {
    pub(super) fn clear(&self) {
        self.slots.lock().clear();
    }
}

impl Core {
    /// The connection to an SPU, opened if there is none.
    pub(super) async fn connection(self: &Arc<Self>, spu: &Spu) -> Result<Connection> {
        let slot = Arc::clone(self.connections.slots.lock().entry(spu.address.clone()).or_default());
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_lost()) {
            return Ok(connection.clone());
        }
        let connection = self.cluster.connect_spu(spu).await?;
        *slot = Some(connection.clone());
        self.spawn(probe(Arc::downgrade(self), connection.clone()));
        Ok(connection)
    }
}

/// Asks a connection for a sign of life now and then, and gives it up if there is none.
async fn probe(core: Weak<Core>, connection: Connection) {
    loop {
        let Some(pause) = core.upgrade().map(|core| core.cluster.settings.request_timeout) else { return };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = connection.lost() => return,
        }
        let Some(topic) = core.upgrade().map(|core| core.topic.clone()) else { return };
        if let Err(error) = connection.call(offsets_request(topic, &[0])).await {
            connection.fail(error);
            return;
        }
    }
}

/// Asks for first and last offset of partitions.
pub(super) fn offsets_request(topic: String, partitions: &[u32]) -> FetchOffsetsRequest {
    let partitions =
        partitions.iter().map(|index| FetchOffsetPartition { partition_index: *index }).collect();
    FetchOffsetsRequest { topics: vec![FetchOffsetTopic { name: topic, partitions }], ..Default::default() }
}
