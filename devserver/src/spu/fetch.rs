//! Fetch (key 1): the records of partitions, once. The real server advertises it, though its clients open streams instead.

use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::fetch::{
    FetchResponse, FetchablePartitionResponse, FetchableTopicResponse, FileFetchRequest,
};
use fluvio_types::SpuId;

use super::records::Records;
use super::stream::error_of;
use crate::cluster::Cluster;

pub(super) async fn fetch(
    cluster: &Cluster,
    spu: SpuId,
    request: FileFetchRequest,
) -> FetchResponse<Records> {
    // Cut as on the real server, always: no client that cannot read cut batches sends this request.
    let (isolation, cut) = (request.isolation_level, true);
    // Per partition, and a negative limit is a huge one, both as on the real server.
    let max_bytes = request.max_bytes as u32 as usize;
    let mut response = FetchResponse::default();
    for topic in request.topics {
        let mut answered = FetchableTopicResponse { name: topic.name, ..FetchableTopicResponse::default() };
        for wanted in topic.fetch_partitions {
            let mut partition = FetchablePartitionResponse {
                partition_index: wanted.partition_index,
                ..FetchablePartitionResponse::default()
            };
            match cluster.replica_led_by(spu, &answered.name, wanted.partition_index) {
                None => partition.error_code = ErrorCode::NotLeaderForPartition,
                Some(replica) => match replica.log.read(wanted.fetch_offset, isolation, max_bytes, cut).await
                {
                    Ok(slice) => {
                        partition.high_watermark = slice.high_watermark;
                        partition.log_start_offset = slice.start;
                        partition.records = Records(slice.pieces);
                    }
                    Err(error) => partition.error_code = error_of(error, wanted.fetch_offset),
                },
            }
            answered.partitions.push(partition);
        }
        response.topics.push(answered);
    }
    response
}
