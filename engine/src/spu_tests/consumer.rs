//! The consumer before a scripted SPU.

use bytes::{Buf, BytesMut};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::Decoder;
use fluvio_sc_schema::objects::MetadataUpdate;
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::stream_fetch::{StreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::UpdateOffsetsResponse;
use wire::builder::BatchBuilder;

use super::{OTHER, World, encoded, scripted, scripted_per_connection, send, soon};
use crate::consumer::{Consumer, Taken};
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
    let partition =
        FetchablePartitionResponse { records: RecordBytes(records.to_vec().into()), ..Default::default() };
    encoded(&StreamFetchResponse { topic: "orders".to_owned(), stream_id: 1, partition })
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
    let mut records = Some(records);
    move |key| match key {
        1003 => records.take().map(|records| streamed(&records)),
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
    let (address, mut asked) = scripted(one_answer(batch(1, &[b"after"]))).await;
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
    let (address, mut asked) = scripted(move |key| (key == 1003).then(|| streamed(&start))).await;
    world.lead_to(&address).await;
    let error = take(&consumer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{error}");
    let mut streams = 0;
    while let Ok((key, _)) = asked.try_recv() {
        streams += u32::from(key == 1003);
    }
    assert!(streams < 12, "{streams} attempts");
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
        let (address, _asked) = scripted(one_answer(batch(0, &[b"value"]))).await;
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

/// The first answer of a watch holds everything there is: what it does not name is gone.
#[tokio::test]
async fn a_watch_that_starts_over_forgets_what_is_gone() {
    let world = World::new().await;
    let view = &world.cluster.view;
    let nothing = || MetadataUpdate::<TopicSpec> { epoch: 1, changes: Vec::new(), all: Vec::new() };
    view.update_topics(nothing(), false);
    assert_eq!(view.partition_count(world.topic), Some(1));
    view.update_topics(nothing(), true);
    assert_eq!(view.partition_count(world.topic), None);
}
