//! Lists of objects, filtered as the real server does: most by a part of their name, SmartModules by their whole one,
//! partitions and mirrors not at all.

use anyhow::bail;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::smartmodule::SmartModulePackageKey;
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::{CustomSpuSpec, SpuSpec};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::{Decoder, Encoder, Version};
use fluvio_sc_schema::mirror::MirrorSpec;
use fluvio_sc_schema::objects::{
    ListFilter, ListFilters, ListRequest, ListResponse, Metadata, ObjectApiListRequest, ObjectApiListResponse,
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
    // Objects are taken out under the lock and encoded after it: a list may be long.
    let objects = || cluster.objects.lock();
    if let Some(ListRequest { name_filters, system, .. }) = downcast::<TopicSpec>(request)? {
        let mut topics = named(&objects().topics, &name_filters);
        topics.retain(|topic| topic.spec.is_system() == system);
        respond(topics, version)
    } else if let Some(ListRequest { system, .. }) = downcast::<PartitionSpec>(request)? {
        // The real server does not filter partitions by name.
        let of_system = |partition: &&Metadata<PartitionSpec>| partition.spec.system == system;
        let partitions = objects().partitions.shown().filter(of_system).cloned().collect();
        respond(partitions, version)
    } else if let Some(request) = downcast::<SpuSpec>(request)? {
        let spus = named(&objects().spus, &request.name_filters);
        respond(spus, version)
    } else if let Some(request) = downcast::<CustomSpuSpec>(request)? {
        let mut spus = named(&objects().spus, &request.name_filters);
        spus.retain(|spu| spu.spec.is_custom());
        respond(spus.into_iter().map(custom_spu).collect(), version)
    } else if let Some(request) = downcast::<SpuGroupSpec>(request)? {
        let groups = named(&objects().spu_groups, &request.name_filters);
        respond(groups, version)
    } else if let Some(request) = downcast::<SmartModuleSpec>(request)? {
        let mut modules = smart_modules(&objects().smart_modules, request.name_filters)?;
        if request.summary {
            modules = modules.into_iter().map(Metadata::summary).collect();
        }
        respond(modules, version)
    } else if let Some(request) = downcast::<TableFormatSpec>(request)? {
        let formats = named(&objects().table_formats, &request.name_filters);
        respond(formats, version)
    } else if downcast::<MirrorSpec>(request)?.is_some() {
        // Nor mirrors.
        let mirrors = objects().mirrors.shown().cloned().collect();
        respond(mirrors, version)
    } else {
        bail!("a list of objects of an unknown kind")
    }
}

fn downcast<S: AdminSpec>(request: &ObjectApiListRequest) -> anyhow::Result<Option<ListRequest<S>>> {
    request.downcast()
}

fn named<S>(store: &Store<S>, filters: &ListFilters) -> Vec<Metadata<S>>
where
    S: AdminSpec + Clone,
    S::Status: Encoder + Decoder + Clone,
{
    store.shown().filter(|object| filters.filter(&object.name)).cloned().collect()
}

/// SmartModules are found by their whole name, `group/name@version` or a part of that, and not by a part of the name.
fn smart_modules(
    store: &Store<SmartModuleSpec>,
    filters: ListFilters,
) -> anyhow::Result<Vec<Metadata<SmartModuleSpec>>> {
    let filters: Vec<ListFilter> = filters.into();
    let keys = filters.iter().map(|filter| SmartModulePackageKey::from_qualified_name(&filter.name));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let wanted = |module: &&Metadata<SmartModuleSpec>| {
        let package = module.spec.meta.as_ref().map(|meta| &meta.package);
        keys.is_empty() || keys.iter().any(|key| key.is_match(&module.name, package))
    };
    Ok(store.shown().filter(wanted).cloned().collect())
}

fn respond<S>(objects: Vec<Metadata<S>>, version: Version) -> anyhow::Result<ObjectApiListResponse>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    ObjectApiListResponse::try_encode_from(ListResponse::new(objects), version)
}

fn custom_spu(spu: Metadata<SpuSpec>) -> Metadata<CustomSpuSpec> {
    Metadata { name: spu.name, spec: spu.spec.into(), status: spu.status }
}
