//! Objects of any kind: create, delete, list and watch them.

use fluvio_protocol::api::RequestMessage;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::message::MsgType;
use fluvio_sc_schema::objects::{
    CommonCreateRequest, CreateRequest, DeleteRequest, ListFilter, ListRequest, ListResponse, Metadata,
    MetadataUpdate, ObjectApiCreateRequest, ObjectApiDeleteRequest, ObjectApiListRequest,
    ObjectApiWatchRequest, ObjectApiWatchResponse, WatchRequest, WatchResponse,
};
use fluvio_sc_schema::{AdminSpec, CreatableAdminSpec, DeletableAdminSpec, Status, TryEncodableFrom};

use super::{Raw, ask, frame_of, framed};

/// Creates an object.
pub async fn put<S: CreatableAdminSpec>(controller: &mut Raw, name: &str, spec: S) -> Status
where
    ObjectApiCreateRequest: TryEncodableFrom<CreateRequest<S>>,
{
    let common = CommonCreateRequest { name: name.to_owned(), ..CommonCreateRequest::default() };
    let request = CreateRequest::new(common, spec);
    ask(controller, ObjectApiCreateRequest::try_encode_from(request, 19).expect("encode")).await
}

/// Deletes an object.
pub async fn delete<S: DeletableAdminSpec>(controller: &mut Raw, key: S::DeleteKey) -> Status {
    let request = DeleteRequest::<S>::new(key);
    ask(controller, ObjectApiDeleteRequest::try_encode_from(request, 19).expect("encode")).await
}

/// Lists objects.
pub async fn list<S>(controller: &mut Raw, request: ListRequest<S>) -> Vec<Metadata<S>>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    let request = ObjectApiListRequest::try_encode_from(request, 19).expect("encode");
    let response: Option<ListResponse<S>> = ask(controller, request).await.downcast().expect("a list");
    response.expect("objects").inner()
}

/// All objects that are not the system's.
pub async fn all<S>(controller: &mut Raw) -> Vec<Metadata<S>>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    list(controller, ListRequest::new(Vec::<ListFilter>::new(), false)).await
}

/// Names of the objects that a list with these filters has.
pub async fn named<S>(controller: &mut Raw, filters: &[&str]) -> Vec<String>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    let filters: Vec<ListFilter> =
        filters.iter().map(|filter| ListFilter::from((*filter).to_owned())).collect();
    let found = list(controller, ListRequest::<S>::new(filters, false)).await;
    found.into_iter().map(|object| object.name).collect()
}

/// The frame of a request to watch, whose updates carry `correlation_id`.
pub fn watch_frame<S: AdminSpec>(correlation_id: i32) -> Vec<u8> {
    let request = ObjectApiWatchRequest::try_encode_from(WatchRequest::<S>::default(), 19).expect("encode");
    let mut message = RequestMessage::new_request(request);
    message.header.set_correlation_id(correlation_id);
    let mut body = Vec::new();
    message.encode(&mut body, 0).expect("encode");
    framed(&body)
}

/// Takes the next update of a watch.
pub async fn update<S>(watcher: &mut Raw) -> MetadataUpdate<S>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    let frame = watcher.receive().await;
    let response = ObjectApiWatchResponse::decode_from(&mut &frame[8..], 19).expect("an update");
    let response: Option<WatchResponse<S>> = response.downcast().expect("an update");
    response.expect("an update of that kind").inner()
}

/// Takes the next update and gives what it says of each object.
pub async fn changes<S>(watcher: &mut Raw) -> Vec<(MsgType, String)>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    let update = update::<S>(watcher).await;
    update.changes.into_iter().map(|change| (change.header, change.content.name)).collect()
}

/// Asks to watch a kind that cannot be watched.
pub async fn watch_in_vain<S: AdminSpec>(endpoint: &str) -> super::Arrival {
    let mut watcher = Raw::connect(endpoint).await;
    let request = ObjectApiWatchRequest::try_encode_from(WatchRequest::<S>::default(), 19).expect("encode");
    watcher.send(&frame_of(request)).await;
    watcher.receive_within(super::SOON).await
}
