//! The consumer before a scripted SPU.

use bytes::{Buf, BytesMut};
use fluvio_protocol::Decoder;
use fluvio_spu_schema::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchablePartitionResponse, FetchableTopic,
    FetchableTopicResponse,
};
use fluvio_spu_schema::server::stream_fetch::{StreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::UpdateOffsetsResponse;
use wire::builder::BatchBuilder;

use super::{OTHER, World, encoded, scripted, scripted_per_connection, send, soon};
use crate::consumer::{Consumer, Taken};
use crate::link::Connection;
use crate::protocol::RecordBytes;
use crate::{ErrorKind, Result};

/// Takes one batch: its first offset and its first value.
async fn take(consumer: &Consumer) -> Result<(i64, Vec<u8>)> {
    loop {
        soon(consumer.ready()).await;
        if let Taken::Batch(batch) = consumer.take()? {
            let columns = batch.columns();
            let value = &batch.data()[columns.value_starts[0] as usize..columns.value_ends[0] as usize];
            return Ok((columns.offsets[0], value.to_vec()));
        }
    }
}

fn streamed(records: &[u8]) -> Vec<u8> {
    streamed_of(0, records)
}

fn streamed_of(partition_index: u32, records: &[u8]) -> Vec<u8> {
    let records = RecordBytes(records.to_vec().into());
    let partition = FetchablePartitionResponse { partition_index, records, ..Default::default() };
    encoded(&StreamFetchResponse { topic: "orders".to_owned(), stream_id: 1, partition })
}

/// The answer to a request for one batch of partition 0.
fn fetched(records: &[u8]) -> Vec<u8> {
    let records = RecordBytes(records.to_vec().into());
    let partitions = vec![FetchablePartitionResponse { records, ..Default::default() }];
    let topic = FetchableTopicResponse { name: "orders".to_owned(), partitions, ..Default::default() };
    encoded(&FetchResponse { topics: vec![topic], ..Default::default() })
}

/// What the dev server has stored in partition 0.
async fn stored(world: &World) -> Vec<u8> {
    let address = world.leader(0).unwrap().address;
    let connection = Connection::open(&address, &world.cluster.settings).await.unwrap();
    let wanted = FetchPartition { max_bytes: 1 << 20, ..Default::default() };
    let topic = FetchableTopic { name: world.topic.to_owned(), fetch_partitions: vec![wanted] };
    let request =
        FetchRequest::<RecordBytes> { max_bytes: 1 << 20, topics: vec![topic], ..Default::default() };
    let mut answer = connection.call(request).await.unwrap();
    answer.topics.remove(0).partitions.remove(0).records.0.to_vec()
}

fn batch(base_offset: i64, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::with_capacity(100);
    for value in values {
        builder.push(None, value, 1_000);
    }
    let mut batch = builder.finish().to_vec();
    wire::batch::set_base_offset(&mut batch, base_offset);
    batch
}

/// The body of a request, behind the client id.
fn body(mut frame: BytesMut) -> BytesMut {
    let length = frame.get_i16() as usize;
    frame.advance(length);
    frame
}

/// The answers to a consumer that is given `records` once, and then nothing.
fn one_answer(records: Vec<u8>) -> impl FnMut(u16) -> Option<Vec<u8>> {
    answers(Vec::new(), streamed(&records))
}

/// The answers to a consumer that has read `read`, is given an answer once, and then nothing.
fn answers(read: Vec<u8>, streamed: Vec<u8>) -> impl FnMut(u16) -> Option<Vec<u8>> {
    let mut streamed = Some(streamed);
    move |key| match key {
        1 => Some(fetched(&read)),
        1003 => streamed.take(),
        1005 => Some(encoded(&UpdateOffsetsResponse::default())),
        _ => None,
    }
}

/// The old leader keeps its stream open and says nothing: the consumer goes on at the new one, where it was.
#[tokio::test]
async fn a_consumer_follows_the_leader() {
    let world = World::new().await;
    let producer = world.producer("{}").await;
    send(&producer, b"before").await.unwrap().unwrap();
    let consumer = world.consumer().await;
    assert_eq!(take(&consumer).await.unwrap(), (0, b"before".to_vec()));
    let after = streamed(&batch(1, &[b"after"]));
    let (address, mut asked) = scripted(answers(stored(&world).await, after)).await;
    world.lead_to(&address).await;
    assert_eq!(take(&consumer).await.unwrap(), (1, b"after".to_vec()));
    let request = loop {
        let (key, frame) = soon(asked.recv()).await.unwrap();
        if key == 1003 {
            break StreamFetchRequest::<RecordBytes>::decode_from(&mut body(frame), 25).unwrap();
        }
    };
    assert_eq!((request.topic.as_str(), request.partition, request.fetch_offset), ("orders", 0, 1));
}

/// A damaged batch is an error, told after the good ones in front of it, and nothing of it is handed out.
#[tokio::test]
async fn a_damaged_batch_is_told_after_the_good_ones() {
    let world = World::new().await;
    let consumer = world.consumer().await;
    let mut damaged = batch(1, &[b"bad"]);
    damaged[70] ^= 1;
    let (address, _asked) = scripted(one_answer([batch(0, &[b"good"]), damaged].concat())).await;
    world.lead_to(&address).await;
    assert_eq!(take(&consumer).await.unwrap(), (0, b"good".to_vec()));
    let error = take(&consumer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("partition 0 of topic \"orders\""), "{error}");
    assert!(matches!(consumer.take(), Ok(Taken::End)));
}

/// A server that cuts far below what it was asked for is not asked for ever.
#[tokio::test]
async fn a_batch_that_never_comes_whole_is_an_error() {
    let world = World::new().await;
    let consumer = world.consumer().await;
    let start = batch(0, &[&[7; 1000]])[..100].to_vec();
    let (address, mut asked) = scripted(move |key| match key {
        1003 => Some(streamed(&start)),
        1 => Some(fetched(&start)),
        _ => None,
    })
    .await;
    world.lead_to(&address).await;
    let error = take(&consumer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{error}");
    let (mut streams, mut batches) = (0, 0);
    while let Ok((key, _)) = asked.try_recv() {
        streams += u32::from(key == 1003);
        batches += u32::from(key == 1);
    }
    assert!(streams == 1 && batches < 12, "{streams} streams, {batches} attempts");
}

/// An SPU that says nothing, not even to the question for a sign of life, is given up although the consumer waits only.
#[tokio::test]
async fn silence_on_an_idle_stream_is_noticed() {
    let world = World::patient(200).await;
    let consumer = world.consumer().await;
    let mut answer = one_answer(batch(0, &[b"value"]));
    let (address, _asked) =
        scripted_per_connection(move |connection, key| if connection == 0 { None } else { answer(key) })
            .await;
    world.lead_to(&address).await;
    assert_eq!(take(&consumer).await.unwrap(), (0, b"value".to_vec()));
}

/// A partition that is added is read from its first record, also if it is added while the consumer is being opened.
#[tokio::test]
async fn an_added_partition_is_read() {
    for early in [true, false] {
        let world = World::new().await;
        let opening = world.consumer();
        tokio::pin!(opening);
        let begun = futures_util::poll!(opening.as_mut());
        assert!(begun.is_pending());
        let value = streamed_of(1, &batch(0, &[b"value"]));
        let (address, _asked) = scripted(answers(Vec::new(), value)).await;
        world.place(OTHER, &address).await;
        let mut consumer = None;
        if !early {
            consumer = Some(opening.as_mut().await);
        }
        world.add_partition(OTHER).await;
        let consumer = match consumer {
            Some(consumer) => consumer,
            None => opening.await,
        };
        assert_eq!(take(&consumer).await.unwrap(), (0, b"value".to_vec()));
    }
}

/// What an answer says of itself is checked: another partition, or a hole in front of it, is handed out by nobody.
#[tokio::test]
async fn an_answer_that_cannot_be_true_is_not_handed_out() {
    let value = || batch(0, &[b"value"]);
    let gap = batch(1000, &[b"value"]);
    for untrue in [streamed_of(7, &value()), streamed(&gap), streamed(&[value(), gap].concat())] {
        let world = World::new().await;
        let consumer = world.consumer().await;
        let (mut first, mut others) = (answers(Vec::new(), untrue), one_answer(value()));
        let (address, _asked) = scripted_per_connection(move |connection, key| match connection {
            0 => first(key),
            _ => others(key),
        })
        .await;
        world.lead_to(&address).await;
        assert_eq!(take(&consumer).await.unwrap(), (0, b"value".to_vec()));
    }
}

/// The batch that was read last is another one after the leader was away: so is the topic.
#[tokio::test]
async fn another_last_batch_is_another_topic() {
    let world = World::new().await;
    let producer = world.producer("{}").await;
    send(&producer, b"old").await.unwrap().unwrap();
    let consumer = world.consumer().await;
    assert_eq!(take(&consumer).await.unwrap(), (0, b"old".to_vec()));
    let next = streamed(&batch(1, &[b"next"]));
    let (address, _asked) = scripted(answers(batch(0, &[b"new"]), next)).await;
    world.lead_to(&address).await;
    let error = take(&consumer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}");
    assert!(matches!(consumer.take(), Ok(Taken::End)));
}

/// A bug in the task of a consumer reaches whoever waits.
#[tokio::test]
async fn a_panic_reaches_whoever_waits() {
    let world = World::new().await;
    let records = RecordBytes(Vec::new().into());
    let partition = FetchablePartitionResponse { log_start_offset: i64::MIN, records, ..Default::default() };
    let bug = encoded(&StreamFetchResponse { topic: "orders".to_owned(), stream_id: 1, partition });
    let consumer = world.consumer().await;
    let (address, _asked) = scripted(answers(Vec::new(), bug)).await;
    world.lead_to(&address).await;
    let error = take(&consumer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panic, "{error}");
    soon(consumer.close()).await;
}
