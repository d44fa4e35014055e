//! Watches: all objects of a kind at first, then every change.

use std::sync::Arc;

use anyhow::bail;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::api::RequestHeader;
use fluvio_sc_schema::TryEncodableFrom;
use fluvio_sc_schema::objects::{ObjectApiWatchRequest, WatchRequest};
use fluvio_sc_schema::smartmodule::SmartModuleSpec;
use fluvio_sc_schema::tableformat::TableFormatSpec;

use crate::cluster::Cluster;
use crate::outbox::Outbox;

pub(super) fn watch(
    cluster: &Cluster,
    outbox: &Arc<Outbox>,
    header: &RequestHeader,
    request: &ObjectApiWatchRequest,
) -> anyhow::Result<()> {
    cluster.publish_log_ends();
    let objects = &mut *cluster.objects.lock();
    let (id, version) = (header.correlation_id(), header.api_version());
    if is::<WatchRequest<TopicSpec>>(request)? {
        objects.topics.watch(outbox, id, version, false)
    } else if is::<WatchRequest<PartitionSpec>>(request)? {
        objects.partitions.watch(outbox, id, version, false)
    } else if is::<WatchRequest<SpuSpec>>(request)? {
        objects.spus.watch(outbox, id, version, false)
    } else if is::<WatchRequest<SpuGroupSpec>>(request)? {
        objects.spu_groups.watch(outbox, id, version, false)
    } else if let Some(request) = downcast::<WatchRequest<SmartModuleSpec>>(request)? {
        objects.smart_modules.watch(outbox, id, version, request.summary)
    } else if is::<WatchRequest<TableFormatSpec>>(request)? {
        objects.table_formats.watch(outbox, id, version, false)
    } else {
        bail!("a watch of objects that cannot be watched")
    }
}

fn downcast<R>(request: &ObjectApiWatchRequest) -> anyhow::Result<Option<R>>
where
    ObjectApiWatchRequest: TryEncodableFrom<R>,
{
    request.downcast()
}

fn is<R>(request: &ObjectApiWatchRequest) -> anyhow::Result<bool>
where
    ObjectApiWatchRequest: TryEncodableFrom<R>,
{
    Ok(downcast::<R>(request)?.is_some())
}
