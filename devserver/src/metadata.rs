//! The objects of the cluster and those who watch them.
//!
//! One store per kind of object. A change and its publication are one step under the lock of [`crate::cluster::Cluster`],
//! and sending never waits, so every watcher gets every change, in order, before the reply to the request that caused it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use fluvio_protocol::{Decoder, Encoder, Version};
use fluvio_sc_schema::message::{Message, MsgType};
use fluvio_sc_schema::objects::{Metadata, MetadataUpdate, ObjectApiWatchResponse, WatchResponse};
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};
use wire::frame::LENGTH_PREFIX;

use crate::log::StorageError;
use crate::outbox::Outbox;
use crate::store::{Change, Journal};

/// A watcher that leaves this much unread loses its connection: updates would pile up for ever.
const MAX_UNREAD_BYTES: usize = 64 * 1024 * 1024;

/// All objects of one kind.
pub(crate) struct Store<S>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    objects: BTreeMap<String, Metadata<S>>,
    watchers: Vec<Watcher>,
    /// A fault hides everything.
    hidden: bool,
    epoch: i64,
    /// Where objects are kept beyond the life of this process.
    journal: Option<Arc<Journal>>,
}

/// Where the changes of one kind go.
struct Watcher {
    outbox: Weak<Outbox>,
    correlation_id: i32,
    version: Version,
    summary: bool,
}

impl<S> Store<S>
where
    S: AdminSpec + Clone,
    S::Status: Encoder + Decoder + Clone,
{
    /// Holds `objects`, and keeps what is put durably in `journal`, if there is one.
    pub(crate) fn new(objects: Vec<Metadata<S>>, journal: Option<Arc<Journal>>) -> Self {
        let objects = objects.into_iter().map(|object| (object.name.clone(), object)).collect();
        Store { objects, watchers: Vec::new(), hidden: false, epoch: 0, journal }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Metadata<S>> {
        self.objects.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Metadata<S>> {
        self.objects.values()
    }

    /// Adds or replaces objects for good, and tells the watchers. Nothing has changed after an error.
    pub(crate) fn put_durably(&mut self, objects: Vec<Metadata<S>>) -> Result<(), StorageError> {
        self.record(&objects)?;
        self.put(objects);
        Ok(())
    }

    /// The first half of [`Store::put_durably`]: the objects will be there after a restart, [`Store::put`] shows them.
    pub(crate) fn record(&self, objects: &[Metadata<S>]) -> Result<(), StorageError> {
        match &self.journal {
            Some(journal) => journal.record(objects.iter().map(Change::put).collect()),
            None => Ok(()),
        }
    }

    /// Removes an object for good, and tells the watchers. Nothing has changed after an error.
    pub(crate) fn remove_durably(&mut self, name: &str) -> Result<(), StorageError> {
        if let Some(journal) = &self.journal {
            journal.record(vec![Change::remove::<S>(name)])?;
        }
        self.remove([name]);
        Ok(())
    }

    /// Adds or replaces objects as long as this process lives, and tells the watchers.
    pub(crate) fn put(&mut self, objects: Vec<Metadata<S>>) {
        for object in &objects {
            self.objects.insert(object.name.clone(), object.clone());
        }
        self.publish(MsgType::UPDATE, objects);
    }

    /// Removes the objects that exist and tells the watchers.
    pub(crate) fn remove<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let removed = names.into_iter().filter_map(|name| self.objects.remove(name)).collect();
        self.publish(MsgType::DELETE, removed);
    }

    /// Shows watchers that nothing is left, or that it is all back.
    pub(crate) fn hide(&mut self, hidden: bool) {
        if self.hidden == hidden {
            return;
        }
        let all = self.objects.values().cloned().collect();
        self.hidden = false;
        self.publish(if hidden { MsgType::DELETE } else { MsgType::UPDATE }, all);
        self.hidden = hidden;
    }

    /// What lists show.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Metadata<S>> {
        self.objects.values().filter(|_| !self.hidden)
    }

    /// Sends all objects to a new watcher, and every change from then on.
    pub(crate) fn watch(
        &mut self,
        outbox: &Arc<Outbox>,
        correlation_id: i32,
        version: Version,
        summary: bool,
    ) -> anyhow::Result<()> {
        let all = self.shown().map(|object| shown(object, summary)).collect();
        let body = encode(MetadataUpdate::with_all(self.epoch, all), version)?;
        outbox.send([frame(correlation_id, &body)?, body]);
        let outbox = Arc::downgrade(outbox);
        self.watchers.push(Watcher { outbox, correlation_id, version, summary });
        Ok(())
    }

    fn publish(&mut self, kind: MsgType, objects: Vec<Metadata<S>>) {
        if objects.is_empty() || self.hidden {
            return;
        }
        self.epoch += 1;
        let epoch = self.epoch;
        // Watchers of one version get the same bytes, whatever their number.
        let mut encoded: Vec<((Version, bool), Bytes)> = Vec::new();
        let mut body_for = |version, summary| -> anyhow::Result<Bytes> {
            if let Some((_, body)) = encoded.iter().find(|(key, _)| *key == (version, summary)) {
                return Ok(body.clone());
            }
            let changes =
                objects.iter().map(|object| Message::new(kind.clone(), shown(object, summary))).collect();
            let body = encode(MetadataUpdate::<S>::with_changes(epoch, changes), version)?;
            encoded.push(((version, summary), body.clone()));
            Ok(body)
        };
        self.watchers.retain(|watcher| {
            let Some(outbox) = watcher.outbox.upgrade().filter(|outbox| !outbox.is_closed()) else {
                return false;
            };
            let sent = body_for(watcher.version, watcher.summary).and_then(|body| {
                anyhow::ensure!(outbox.backlog() < MAX_UNREAD_BYTES, "the watcher reads nothing");
                outbox.send([frame(watcher.correlation_id, &body)?, body]);
                Ok(())
            });
            if let Err(error) = &sent {
                tracing::warn!("closing the connection of a watcher: {error:#}");
                outbox.close();
            }
            sent.is_ok()
        });
    }
}

fn shown<S>(object: &Metadata<S>, summary: bool) -> Metadata<S>
where
    S: AdminSpec + Clone,
    S::Status: Encoder + Decoder + Clone,
{
    if summary { object.clone().summary() } else { object.clone() }
}

fn encode<S>(update: MetadataUpdate<S>, version: Version) -> anyhow::Result<Bytes>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    let response = ObjectApiWatchResponse::try_encode_from(WatchResponse::new(update), version)?;
    let mut body = BytesMut::with_capacity(response.write_size(version));
    response.encode(&mut body, version).context("encoding a watch update")?;
    Ok(body.freeze())
}

fn frame(correlation_id: i32, body: &Bytes) -> io::Result<Bytes> {
    let mut head = BytesMut::with_capacity(LENGTH_PREFIX + 4);
    let length = i32::try_from(4 + body.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "update of more than 2 GiB"))?;
    head.put_i32(length);
    head.put_i32(correlation_id);
    Ok(head.freeze())
}
