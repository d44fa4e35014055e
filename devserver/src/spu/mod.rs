//! A streaming processing unit (SPU): produce, stream fetch and offsets.

mod fetch;
mod offsets;
mod produce;
mod records;
mod stream;

use std::sync::Arc;

use anyhow::Context;
use bytes::{Buf, BytesMut};
use fluvio_protocol::api::{ApiMessage, Request, RequestHeader, RequestMessage};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::{ApiVersionKey, ApiVersionsResponse, PlatformVersion};
use fluvio_protocol::{Decoder, Encoder};
use fluvio_spu_schema::fetch::DefaultFetchRequest;
use fluvio_spu_schema::produce::DefaultProduceRequest;
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use fluvio_spu_schema::server::update_offset::UpdateOffsetsRequest;
use fluvio_spu_schema::server::{SpuServerApiKey, SpuServerRequest};
use fluvio_types::SpuId;
use tokio_util::sync::CancellationToken;

use self::stream::Streams;
use crate::cluster::Cluster;
use crate::connection::Service;
use crate::frames;
use crate::outbox::Outbox;
use crate::plane::Plane;

/// Answers the requests of one client to the unit.
pub(crate) struct Unit {
    cluster: Arc<Cluster>,
    spu: SpuId,
    outbox: Arc<Outbox>,
    streams: Streams,
}

impl Unit {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        spu: SpuId,
        outbox: Arc<Outbox>,
        closed: CancellationToken,
    ) -> Self {
        let streams = Streams::new(cluster.clone(), spu, outbox.clone(), closed);
        Unit { cluster, spu, outbox, streams }
    }

    fn reply<B: Encoder>(&self, header: &RequestHeader, body: &B) -> anyhow::Result<()> {
        let frame = frames::encode(header.correlation_id(), body, header.api_version())?;
        self.outbox.send([frame]);
        Ok(())
    }
}

impl Service for Unit {
    async fn handle(&mut self, mut request: BytesMut) -> anyhow::Result<()> {
        let mut unread = &request[..];
        let header = RequestHeader::decode_from(&mut unread, 0).context("a request header")?;
        check_version(&header)?;
        let body_at = request.len() - unread.len();
        if header.api_key() == DefaultProduceRequest::API_KEY {
            request.advance(body_at);
            let response = produce::produce(&self.cluster, self.spu, request, header.api_version()).await?;
            return self.reply(&header, &response);
        }
        let request = SpuServerRequest::decode_with_header(&mut unread, header)
            .context("a request that cannot be decoded")?;
        match request {
            SpuServerRequest::ApiVersionsRequest(RequestMessage { header, .. }) => {
                let mut response = api_versions();
                self.cluster.faults.hide_keys(Plane::Unit(self.spu), &mut response.api_keys);
                self.reply(&header, &response)
            }
            SpuServerRequest::FileStreamFetchRequest(RequestMessage { header, request }) => {
                self.streams.open(&header, request)
            }
            SpuServerRequest::FileFetchRequest(RequestMessage { header, request }) => {
                let response = fetch::fetch(&self.cluster, self.spu, request).await;
                self.reply(&header, &response)
            }
            SpuServerRequest::UpdateOffsetsRequest(RequestMessage { header, request }) => {
                let response = self.streams.acknowledge(request);
                self.reply(&header, &response)
            }
            SpuServerRequest::FetchOffsetsRequest(RequestMessage { header, request }) => {
                let response = offsets::fetch(&self.cluster, self.spu, request);
                self.reply(&header, &response)
            }
            SpuServerRequest::UpdateConsumerOffsetRequest(RequestMessage { header, request }) => {
                let session = self.streams.session(request.session_id);
                let mut response = offsets::store(&self.cluster, self.spu, session, request.offset);
                if self.cluster.acknowledgeable().await.is_err() {
                    response.error_code = ErrorCode::StorageError;
                }
                self.reply(&header, &response)
            }
            SpuServerRequest::FetchConsumerOffsetsRequest(RequestMessage { header, request }) => {
                let response = offsets::stored(&self.cluster, self.spu, &request);
                self.reply(&header, &response)
            }
            SpuServerRequest::DeleteConsumerOffsetRequest(RequestMessage { header, request }) => {
                let mut response = offsets::forget(&self.cluster, self.spu, request);
                if self.cluster.acknowledgeable().await.is_err() {
                    response.error_code = ErrorCode::StorageError;
                }
                self.reply(&header, &response)
            }
            other => anyhow::bail!("{other} is not served"),
        }
    }
}

fn api_versions() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::None,
        api_keys: vec![
            versions_of::<DefaultProduceRequest>(),
            versions_of::<DefaultFetchRequest>(),
            only_newest::<FetchOffsetsRequest>(),
            ApiVersionKey { min_version: 0, ..versions_of::<DefaultStreamFetchRequest>() },
            versions_of::<UpdateOffsetsRequest>(),
        ],
        // As the real one: only the controller announces its version.
        platform_version: PlatformVersion::default(),
    }
}

fn versions_of<R: Request>() -> ApiVersionKey {
    ApiVersionKey {
        api_key: R::API_KEY as i16,
        min_version: R::MIN_API_VERSION,
        max_version: R::MAX_API_VERSION,
    }
}

fn only_newest<R: Request>() -> ApiVersionKey {
    ApiVersionKey { min_version: R::DEFAULT_API_VERSION, ..versions_of::<R>() }
}

/// No request of a version that this server does not know is decoded: it would be misread.
fn check_version(header: &RequestHeader) -> anyhow::Result<()> {
    let key = SpuServerApiKey::try_from(header.api_key()).context("an unknown request")?;
    let newest = match key {
        // A newer client may announce itself in more words than we know.
        SpuServerApiKey::ApiVersion => i16::MAX,
        SpuServerApiKey::UpdateOffsets => UpdateOffsetsRequest::MAX_API_VERSION,
        _ => fluvio_spu_schema::COMMON_VERSION,
    };
    let version = header.api_version();
    anyhow::ensure!((0..=newest).contains(&version), "version {version} of request {key:?} is not served");
    Ok(())
}

#[cfg(test)]
mod tests {
    use fluvio_controlplane_metadata::spu::SpuType;
    use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
    use fluvio_types::defaults::CONSUMER_STORAGE_TOPIC;

    use super::*;
    use crate::cluster::{FIRST_SPU, spu};
    use crate::config::Config;
    use crate::faults::ConnectionFaults;

    /// On one thread, so that the stream gets its turn only while somebody waits.
    #[tokio::test]
    async fn a_stream_has_let_go_of_the_cluster_when_that_is_closed() {
        let object = spu("spu".to_owned(), FIRST_SPU, SpuType::Custom, "localhost".to_owned(), 9010);
        let cluster = Arc::new(Cluster::open(Config::default(), [object]).expect("a cluster"));
        let closed = CancellationToken::new();
        let faults = ConnectionFaults::new(cluster.faults.clone(), Plane::Unit(FIRST_SPU));
        let outbox = Outbox::new(Box::new(tokio::io::sink()), closed.clone(), faults, Arc::default(), false);
        let mut unit = Unit::new(cluster.clone(), FIRST_SPU, Arc::new(outbox), closed.clone());
        let mut request = DefaultStreamFetchRequest::builder();
        request.topic(CONSUMER_STORAGE_TOPIC.to_owned()).max_bytes(1);
        let request = RequestMessage::new_request(request.build().expect("a request"));
        let mut frame = Vec::new();
        request.encode(&mut frame, 0).expect("encode");
        unit.handle(BytesMut::from(&frame[..])).await.expect("a stream");
        assert_eq!(unit.streams.session(1).map(|session| session.replica.strong_count()), Some(2));
        drop(unit);
        closed.cancel();
        cluster.close().await;
        assert_eq!(Arc::strong_count(&cluster), 1);
    }
}
