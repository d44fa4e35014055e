//! The streaming controller: the endpoint that clients connect to, with the metadata of the cluster.

mod delete;
pub(crate) mod groups;
mod list;
mod objects;
mod topics;
mod watch;

use std::sync::Arc;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use fluvio_protocol::Encoder;
use fluvio_protocol::api::{ApiMessage, Request, RequestHeader, RequestMessage};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::{
    ApiVersionKey, ApiVersionsRequest, ApiVersionsResponse, PlatformVersion,
};
use fluvio_sc_schema::mirroring::ObjectMirroringRequest;
use fluvio_sc_schema::objects::{
    ObjectApiCreateRequest, ObjectApiDeleteRequest, ObjectApiListRequest, ObjectApiUpdateRequest,
    ObjectApiWatchRequest,
};
use fluvio_sc_schema::{AdminPublicDecodedRequest, Status};

use crate::cluster::Cluster;
use crate::connection::Service;
use crate::frames;
use crate::log::StorageError;
use crate::outbox::Outbox;
use crate::plane::Plane;
use crate::server::Shared;

/// Answers the requests of one client to the controller.
pub(crate) struct Controller {
    cluster: Arc<Cluster>,
    units: Arc<Shared>,
    outbox: Arc<Outbox>,
}

impl Controller {
    pub(crate) fn new(cluster: Arc<Cluster>, units: Arc<Shared>, outbox: Arc<Outbox>) -> Self {
        Controller { cluster, units, outbox }
    }

    fn reply<B: Encoder>(&self, header: &RequestHeader, body: &B) -> anyhow::Result<()> {
        let frame = frames::encode(header.correlation_id(), body, header.api_version())?;
        self.outbox.send([frame]);
        Ok(())
    }

    /// The answer to a change, once the change is as safe as it is promised to be.
    async fn kept(&self, status: Status) -> Status {
        match self.cluster.acknowledgeable().await {
            Ok(()) => status,
            Err(StorageError) => not_stored(&status.name),
        }
    }
}

impl Service for Controller {
    async fn handle(&mut self, request: BytesMut) -> anyhow::Result<()> {
        let mut body: Bytes = request.freeze();
        let request =
            AdminPublicDecodedRequest::decode_from(&mut body).context("a request that cannot be decoded")?;
        match request {
            AdminPublicDecodedRequest::ApiVersionsRequest(request) => {
                let response = api_versions(&self.cluster, &request.request)?;
                self.reply(&request.header, &response)
            }
            AdminPublicDecodedRequest::CreateRequest(request) => {
                let RequestMessage { header, request } = *request;
                check_version::<ObjectApiCreateRequest>(&header)?;
                let status = objects::create(&self.cluster, &self.units, &request).await?;
                let status = self.kept(status).await;
                self.reply(&header, &status)
            }
            AdminPublicDecodedRequest::DeleteRequest(RequestMessage { header, request }) => {
                check_version::<ObjectApiDeleteRequest>(&header)?;
                let status = delete::delete(&self.cluster, &self.units, &request).await?;
                let status = self.kept(status).await;
                self.reply(&header, &status)
            }
            AdminPublicDecodedRequest::ListRequest(RequestMessage { header, request }) => {
                check_version::<ObjectApiListRequest>(&header)?;
                let response = list::list(&self.cluster, &request, header.api_version())?;
                self.reply(&header, &response)
            }
            AdminPublicDecodedRequest::WatchRequest(RequestMessage { header, request }) => {
                check_version::<ObjectApiWatchRequest>(&header)?;
                watch::watch(&self.cluster, &self.outbox, &header, &request)
            }
            AdminPublicDecodedRequest::UpdateRequest(RequestMessage { header, request }) => {
                check_version::<ObjectApiUpdateRequest>(&header)?;
                let status = self.kept(topics::update(&self.cluster, &request)?).await;
                self.reply(&header, &status)
            }
            AdminPublicDecodedRequest::MirroringRequest(_) => {
                anyhow::bail!("mirroring between clusters is not served")
            }
        }
    }
}

fn api_versions(cluster: &Cluster, request: &ApiVersionsRequest) -> anyhow::Result<ApiVersionsResponse> {
    semver::Version::parse(&request.client_version)
        .with_context(|| format!("client version {:?}", request.client_version))?;
    let mut response = ApiVersionsResponse {
        error_code: ErrorCode::None,
        api_keys: vec![
            versions_of::<ObjectApiCreateRequest>(),
            versions_of::<ObjectApiDeleteRequest>(),
            versions_of::<ObjectApiListRequest>(),
            versions_of::<ObjectApiWatchRequest>(),
            versions_of::<ObjectMirroringRequest>(),
            versions_of::<ObjectApiUpdateRequest>(),
        ],
        platform_version: PlatformVersion::new(&cluster.config.platform_version),
    };
    if let Some(version) = cluster.faults.platform_version() {
        response.platform_version = PlatformVersion::new(&version);
    }
    cluster.faults.hide_keys(Plane::Controller, &mut response.api_keys);
    Ok(response)
}

fn versions_of<R: Request>() -> ApiVersionKey {
    ApiVersionKey {
        api_key: R::API_KEY as i16,
        min_version: R::MIN_API_VERSION,
        max_version: R::MAX_API_VERSION,
    }
}

fn check_version<R: Request>(header: &RequestHeader) -> anyhow::Result<()> {
    let version = header.api_version();
    anyhow::ensure!(
        (R::MIN_API_VERSION..=R::MAX_API_VERSION).contains(&version),
        "version {version} of request {} is not served",
        R::API_KEY
    );
    Ok(())
}

/// The answer to a change that could not be written to the data directory.
fn not_stored(name: &str) -> Status {
    let message = "the change could not be written to the data directory: the server's log says why";
    refused(name, ErrorCode::StorageError, message)
}

/// The answer to a change of the object `name`.
fn kept_or_not(kept: Result<(), StorageError>, name: String) -> Status {
    match kept {
        Ok(()) => Status::new_ok(name),
        Err(StorageError) => not_stored(&name),
    }
}

/// The answer "no" to an admin request.
fn refused(name: &str, code: ErrorCode, message: impl Into<String>) -> Status {
    Status::new(name.to_owned(), code, Some(message.into()))
}

/// The answer to a request about objects that cannot be created, deleted or updated.
fn unknown_kind(request: &str) -> Status {
    let code = ErrorCode::Other("unknown admin object type".to_owned());
    Status::new(request.to_owned(), code, None)
}
