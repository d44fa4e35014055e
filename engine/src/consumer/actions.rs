//! What sessions want done, and what is to be done when time passes.

use bytes::Bytes;
use fluvio_protocol::api::Request;
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest};
use wire::batch::{BatchError, HEADER_LEN};
use wire::view::{columns_bytes, decode};

use super::Batch;
use super::driver::{Driver, Handed, LEADERLESS, LinkId, Records};
use super::requests;
use super::spu::Asked;
use crate::error::{Error, ErrorKind};
use crate::producer::Isolation;
use crate::session::{Action, Time};

/// What a batch takes up besides its bytes and columns.
const BATCH_OVERHEAD: usize = 512;

/// When nothing has to be done at all.
const NEVER: Time = Time::from_secs(24 * 3600);

impl Driver {
    /// Does what the session of a partition wants done; `records` are those of the answer at hand.
    pub(super) fn perform(&mut self, index: u32, out: &mut Vec<Action>, mut records: Option<Records>) {
        let now = self.now();
        for action in out.drain(..) {
            let Some(partition) = self.partitions.get(&index) else { return };
            let link = partition.link.unwrap_or_default();
            match action {
                Action::Check { request, offset } => {
                    self.headers.entry(link).or_default().push((index, request, offset));
                }
                Action::Open { stream, offset, max_bytes } => {
                    let isolation = self.parts.options.isolation;
                    let request =
                        requests::stream(self.parts.topic.name(), index, offset, max_bytes, isolation);
                    self.ask(link, request, Asked::Stream { partition: index, number: stream });
                }
                Action::FetchOne { request: number, offset, max_bytes } => {
                    let isolation = self.parts.options.isolation;
                    let wanted = [(index, offset)];
                    let request = requests::fetch(self.parts.topic.name(), wanted, max_bytes, isolation);
                    self.ask(link, request, Asked::One { partition: index, request: number });
                }
                Action::Acknowledge { stream, session, offset } => {
                    let acknowledgements = self.acknowledgements.entry(link).or_default();
                    acknowledgements.push((index, stream, session, offset));
                }
                Action::Deliver { from, bytes } => {
                    if let Some(link) = self.links.get_mut(&link) {
                        link.healthy();
                    }
                    if let Some(mut records) = records.take() {
                        records.bytes.truncate(bytes);
                        let generation = partition.fetch.generation();
                        self.handed.push_back(Handed::Records {
                            partition: index,
                            generation,
                            from,
                            records,
                        });
                    }
                }
                Action::LookUp => self.look_up(),
                Action::Distrust(error) => {
                    let link = self.links.get(&link);
                    if let Some(connection) = link.and_then(|link| link.connection.as_ref()) {
                        connection.fail(error);
                    }
                }
                Action::Left => {
                    if let Some(link) = self.links.get_mut(&link) {
                        link.left(now);
                    }
                }
                Action::End(error) => {
                    if let Some(link) = self.links.get_mut(&link) {
                        link.partitions.remove(&index);
                    }
                    self.handed.push_back(Handed::End { partition: index, error });
                }
                // Which is told to everyone who uses it, this consumer included.
                Action::Deleted(why) => self.parts.topic.declare_deleted(&why),
            }
        }
        match self.partitions.get(&index).and_then(|partition| partition.fetch.deadline()) {
            Some(deadline) => drop(self.deadlines.insert(index, deadline)),
            None => drop(self.deadlines.remove(&index)),
        }
    }

    fn ask<R: Request>(&mut self, id: LinkId, request: R, asked: Asked) {
        let now = self.now();
        if let Some(link) = self.links.get_mut(&id) {
            self.requests += 1;
            let tag = (self.requests << LinkId::BITS) | u64::from(id);
            link.ask(now, request, asked, &self.inbox, tag);
        }
    }

    /// Sends what was gathered: one request for all partitions of a link.
    pub(super) fn send(&mut self) {
        for (id, acknowledgements) in std::mem::take(&mut self.acknowledgements) {
            let update = |(_, _, session_id, offset): &(u32, u64, u32, i64)| OffsetUpdate {
                session_id: *session_id,
                offset: *offset,
            };
            let request = UpdateOffsetsRequest::new(acknowledgements.iter().map(update).collect());
            let streams =
                acknowledgements.into_iter().map(|(index, stream, session, _)| (index, stream, session));
            self.ask(id, request, Asked::Acknowledgements(streams.collect()));
        }
        for (id, headers) in std::mem::take(&mut self.headers) {
            let wanted = headers.iter().map(|(index, _, offset)| (*index, *offset));
            // Whoever wrote it, it is there: what is committed is another question.
            let isolation = Isolation::ReadUncommitted;
            let request = requests::fetch(self.parts.topic.name(), wanted, HEADER_LEN, isolation);
            let asked = headers.into_iter().map(|(index, request, _)| (index, request)).collect();
            self.ask(id, request, Asked::Headers(asked));
        }
    }

    /// Decodes what waits, as far as there is room for it.
    pub(super) fn hand_out(&mut self) {
        while let Some(next) = self.handed.front_mut() {
            if let Handed::Records { records: Records { bytes, charge: Some(charge), .. }, .. } = next
                && !charge.decode(columns_bytes(bytes) + BATCH_OVERHEAD)
            {
                return;
            }
            match self.handed.pop_front() {
                Some(Handed::Records { partition, generation, from, records }) => {
                    self.decode(partition, generation, from, records);
                }
                Some(Handed::End { partition, error }) => self.tell(partition, error),
                Some(Handed::Deleted(error)) => self.parts.buffer.end(error),
                None => return,
            }
        }
    }

    fn decode(&mut self, index: u32, generation: u32, from: i64, records: Records) {
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        if partition.told || partition.fetch.generation() != generation {
            return;
        }
        let Records { bytes, high_watermark, charge } = records;
        let memory = self.parts.budget.memory();
        let decoded = decode(&bytes, from, self.parts.options.check_crc, memory);
        if !decoded.columns.is_empty() {
            let data: Bytes = bytes.slice(..decoded.consumed);
            let batch = Batch { partition: index, high_watermark, data, columns: decoded.columns };
            self.parts.buffer.push(batch, charge);
        }
        if let Some(error) = decoded.error {
            let error = broken(&partition.fetch.name(), error);
            let error = error.with_partition(self.parts.topic.name(), index);
            let mut out = Vec::new();
            partition.fetch.end(error.clone(), &mut out);
            self.tell(index, error);
            self.perform(index, &mut out, None);
        }
    }

    /// Tells the end of a partition, once.
    fn tell(&mut self, index: u32, error: Error) {
        if let Some(partition) = self.partitions.get_mut(&index)
            && !std::mem::replace(&mut partition.told, true)
        {
            self.parts.buffer.fail(index, error);
        }
        // A link that nobody needs any more is closed.
        let idle = self.links.iter().find(|(_, link)| link.partitions.is_empty()).map(|(id, _)| *id);
        if let Some(id) = idle {
            self.drop_link(id);
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        let (now, patience) = (self.now(), self.patience());
        let due: Vec<u32> = self
            .deadlines
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(index, _)| *index)
            .collect();
        let mut out = Vec::new();
        for index in due {
            if let Some(partition) = self.partitions.get_mut(&index) {
                partition.fetch.tick(now, &mut out);
            }
            self.perform(index, &mut out, None);
        }
        let mut silent = Vec::new();
        for (id, link) in &mut self.links {
            if link.look_after(now, patience)
                && let Some(partition) = link.partitions.first()
            {
                silent.push((*id, *partition));
            }
        }
        for (id, partition) in silent {
            self.ask(id, requests::offsets(self.parts.topic.name(), &[partition]), Asked::Probe);
        }
        if self.leaderless.is_some_and(|due| due <= now) {
            self.leaderless = Some(now + LEADERLESS);
            self.look_up();
        }
        if self.rest.is_some_and(|due| due <= now) {
            self.rest = None;
            self.parts.budget.rest();
        }
    }

    /// When [`Driver::tick`] has something to do at the latest.
    pub(super) fn deadline(&self) -> Time {
        let (now, patience) = (self.now(), self.patience());
        let links = self.links.values().filter_map(|link| link.deadline(now, patience));
        let others = [self.leaderless, self.rest].into_iter().flatten();
        let sessions = self.deadlines.values().copied();
        links.chain(others).chain(sessions).min().unwrap_or(now + NEVER)
    }
}

/// The error for a batch that cannot be read.
fn broken(name: &str, error: BatchError) -> Error {
    match error {
        BatchError::Compressed { .. } => {
            Error::new(ErrorKind::Unsupported, format!("{name}: {error}, which this version cannot read"))
        }
        _ => Error::new(ErrorKind::Corrupt, format!("{name}: {error}")),
    }
}
