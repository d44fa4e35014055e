//! What comes for a consumer: answers, each to the session that asked for it.

use std::collections::HashMap;

use bytes::Bytes;
use fluvio_protocol::Decoder;
use fluvio_protocol::api::Request;
use fluvio_spu_schema::fetch::{FetchRequest, FetchResponse};
use fluvio_spu_schema::server::fetch_offset::{FetchOffsetsRequest, FetchOffsetsResponse};
use fluvio_spu_schema::server::stream_fetch::{StreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::{UpdateOffsetsRequest, UpdateOffsetsResponse};

use super::driver::{Driver, LinkId, REST, Records, link_of};
use super::spu::Asked;
use crate::budget::Charge;
use crate::link::{Incoming, decode_body};
use crate::protocol::RecordBytes;
use crate::session::{Answer, Time};

impl Driver {
    /// An answer has come.
    pub(super) fn take_in(&mut self, Incoming { tag, body, charge }: Incoming) {
        let (now, patience) = (self.now(), self.patience());
        self.rest = Some(now + REST);
        let id = link_of(tag);
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.answered(now, tag, patience) {
            None => {}
            Some(&Asked::Stream { partition, number }) => {
                self.stream_answer(now, id, partition, number, body, charge)
            }
            Some(_) => {
                let Some(asked) = link.forget(tag) else { return };
                self.single_answer(now, id, asked, body, charge);
            }
        }
    }

    /// Decodes an answer; one that cannot be decoded ends the connection.
    fn decoded<T: Decoder>(&self, id: LinkId, mut body: Bytes, version: i16) -> Option<T> {
        match decode_body(&mut body, version) {
            Ok(answer) => Some(answer),
            Err(error) => {
                if let Some(connection) = self.links.get(&id).and_then(|link| link.connection.as_ref()) {
                    connection.fail(connection.protocol(error));
                }
                None
            }
        }
    }

    fn version<R: Request>(&self, id: LinkId) -> i16 {
        let connection = self.links.get(&id).and_then(|link| link.connection.as_ref());
        // It was good enough to send the request.
        connection.and_then(|connection| connection.version::<R>().ok()).unwrap_or_default()
    }

    fn stream_answer(
        &mut self,
        now: Time,
        id: LinkId,
        index: u32,
        number: u64,
        body: Bytes,
        charge: Option<Charge>,
    ) {
        let version = self.version::<StreamFetchRequest<RecordBytes>>(id);
        let Some(answer) = self.decoded::<StreamFetchResponse<RecordBytes>>(id, body, version) else {
            return;
        };
        // A bug, to see what becomes of one.
        #[cfg(test)]
        assert_ne!(answer.partition.log_start_offset, i64::MIN);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let mut out = Vec::new();
        let seen = Answer {
            topic: &answer.topic,
            partition: answer.partition.partition_index,
            session: answer.stream_id,
            code: &answer.partition.error_code,
            next_filter_offset: answer.partition.next_filter_offset,
            records: &answer.partition.records.0,
        };
        partition.fetch.answered(now, number, &seen, &mut out);
        let records = Records {
            bytes: answer.partition.records.0,
            high_watermark: answer.partition.high_watermark,
            charge,
        };
        self.perform(index, &mut out, Some(records));
    }

    fn single_answer(&mut self, now: Time, id: LinkId, asked: Asked, body: Bytes, charge: Option<Charge>) {
        type Fetched = FetchResponse<RecordBytes>;
        let mut out = Vec::new();
        match asked {
            Asked::Stream { .. } => {}
            Asked::One { partition: index, request } => {
                let version = self.version::<FetchRequest<RecordBytes>>(id);
                let Some(answer) = self.decoded::<Fetched>(id, body, version) else { return };
                let topic = answer.topics.into_iter().next().unwrap_or_default();
                let name = topic.name;
                let partitions = topic.partitions.into_iter();
                let answer = partitions.last().unwrap_or_default();
                let Some(partition) = self.partitions.get_mut(&index) else { return };
                let seen = Answer {
                    topic: &name,
                    partition: answer.partition_index,
                    session: 0,
                    code: &answer.error_code,
                    next_filter_offset: 0,
                    records: &answer.records.0,
                };
                partition.fetch.fetched(now, request, &seen, &mut out);
                let (bytes, high_watermark) = (answer.records.0, answer.high_watermark);
                self.perform(index, &mut out, Some(Records { bytes, high_watermark, charge }));
            }
            Asked::Headers(asked) => {
                let version = self.version::<FetchRequest<RecordBytes>>(id);
                let Some(answer) = self.decoded::<Fetched>(id, body, version) else { return };
                let topic = answer.topics.into_iter().find(|topic| topic.name == self.parts.topic.name());
                let mut answers: HashMap<u32, _> = topic
                    .into_iter()
                    .flat_map(|topic| topic.partitions)
                    .map(|answer| (answer.partition_index, answer))
                    .collect();
                for (index, request) in asked {
                    let (Some(answer), Some(partition)) =
                        (answers.remove(&index), self.partitions.get_mut(&index))
                    else {
                        return self.distrust(id, format!("it did not answer for partition {index}"));
                    };
                    let records = &answer.records.0;
                    partition.fetch.checked(now, request, &answer.error_code, records, &mut out);
                    self.perform(index, &mut out, None);
                }
            }
            Asked::Acknowledgements(asked) => {
                let version = self.version::<UpdateOffsetsRequest>(id);
                let Some(answer) = self.decoded::<UpdateOffsetsResponse>(id, body, version) else { return };
                for status in answer.status.into_iter().filter(|status| status.error.is_error()) {
                    let stream = asked.iter().find(|(_, _, session)| *session == status.session_id);
                    if let Some((index, number, _)) = stream
                        && let Some(partition) = self.partitions.get_mut(index)
                    {
                        partition.fetch.refused(now, *number, &status.error, &mut out);
                        self.perform(*index, &mut out, None);
                    }
                }
            }
            Asked::Probe => {
                let version = self.version::<FetchOffsetsRequest>(id);
                if self.decoded::<FetchOffsetsResponse>(id, body, version).is_none() {
                    return;
                }
                let Some(link) = self.links.get_mut(&id) else { return };
                link.healthy();
                for index in &link.partitions {
                    if let Some(partition) = self.partitions.get_mut(index) {
                        partition.fetch.healthy();
                    }
                }
            }
        }
    }

    fn distrust(&self, id: LinkId, what: String) {
        if let Some(connection) = self.links.get(&id).and_then(|link| link.connection.as_ref()) {
            connection.fail(connection.protocol(what));
        }
    }
}
