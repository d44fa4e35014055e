//! Lists of objects, filtered by name.

use anyhow::bail;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::{CustomSpuSpec, SpuSpec};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::{Decoder, Encoder, Version};
use fluvio_sc_schema::mirror::MirrorSpec;
use fluvio_sc_schema::objects::{
    ListFilters, ListRequest, ListResponse, Metadata, ObjectApiListRequest, ObjectApiListResponse,
};
use fluvio_sc_schema::smartmodule::SmartModuleSpec;
use fluvio_sc_schema::store::KeyFilter;
use fluvio_sc_schema::tableformat::TableFormatSpec;
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};

use crate::cluster::Cluster;
use crate::metadata::Store;

pub(super) fn list(
    cluster: &Cluster,
    request: &ObjectApiListRequest,
    version: Version,
) -> anyhow::Result<ObjectApiListResponse> {
    cluster.publish_log_ends();
    let objects = &*cluster.objects.lock();
    if let Some(request) = downcast::<TopicSpec>(request)? {
        let named = named(&objects.topics, &request.name_filters);
        respond(named.filter(|topic| topic.spec.is_system() == request.system), version)
    } else if let Some(request) = downcast::<PartitionSpec>(request)? {
        // The real server does not filter partitions by name.
        let all = objects.partitions.iter().cloned();
        respond(all.filter(|partition| partition.spec.system == request.system), version)
    } else if let Some(request) = downcast::<SpuSpec>(request)? {
        respond(named(&objects.spus, &request.name_filters), version)
    } else if let Some(request) = downcast::<CustomSpuSpec>(request)? {
        let spus = named(&objects.spus, &request.name_filters);
        respond(spus.filter(|spu| spu.spec.is_custom()).map(custom_spu), version)
    } else if let Some(request) = downcast::<SpuGroupSpec>(request)? {
        respond(named(&objects.spu_groups, &request.name_filters), version)
    } else if let Some(request) = downcast::<SmartModuleSpec>(request)? {
        let summary = request.summary;
        let modules = named(&objects.smart_modules, &request.name_filters);
        respond(modules.map(|module| if summary { module.summary() } else { module }), version)
    } else if let Some(request) = downcast::<TableFormatSpec>(request)? {
        respond(named(&objects.table_formats, &request.name_filters), version)
    } else if let Some(request) = downcast::<MirrorSpec>(request)? {
        respond(named(&objects.mirrors, &request.name_filters), version)
    } else {
        bail!("a list of objects of an unknown kind")
    }
}

fn downcast<S: AdminSpec>(request: &ObjectApiListRequest) -> anyhow::Result<Option<ListRequest<S>>> {
    request.downcast()
}

fn named<'a, S>(store: &'a Store<S>, filters: &'a ListFilters) -> impl Iterator<Item = Metadata<S>> + 'a
where
    S: AdminSpec + Clone,
    S::Status: Encoder + Decoder + Clone,
{
    store.iter().filter(|object| filters.filter(&object.name)).cloned()
}

fn respond<S>(
    objects: impl Iterator<Item = Metadata<S>>,
    version: Version,
) -> anyhow::Result<ObjectApiListResponse>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    ObjectApiListResponse::try_encode_from(ListResponse::new(objects.collect()), version)
}

fn custom_spu(spu: Metadata<SpuSpec>) -> Metadata<CustomSpuSpec> {
    Metadata { name: spu.name, spec: spu.spec.into(), status: spu.status }
}
