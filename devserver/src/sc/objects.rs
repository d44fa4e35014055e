//! Creation of every kind of object. All but topics and SPU groups are metadata only.

use std::sync::Arc;

use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::{CustomSpuSpec, SpuStatus};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::link::ErrorCode;
use fluvio_sc_schema::mirror::{MirrorSpec, MirrorType};
use fluvio_sc_schema::objects::{CreateRequest, Metadata, ObjectApiCreateRequest};
use fluvio_sc_schema::smartmodule::SmartModuleSpec;
use fluvio_sc_schema::tableformat::TableFormatSpec;
use fluvio_sc_schema::{Status, TryEncodableFrom};

use super::{groups, kept_or_not, not_stored, refused, topics, unknown_kind};
use crate::cluster::Cluster;
use crate::server::Shared;

pub(super) async fn create(
    cluster: &Cluster,
    units: &Arc<Shared>,
    request: &ObjectApiCreateRequest,
) -> anyhow::Result<Status> {
    Ok(if let Some(request) = downcast::<CreateRequest<TopicSpec>>(request)? {
        topics::create(cluster, request).await
    } else if let Some(request) = downcast::<CreateRequest<TableFormatSpec>>(request)? {
        create_table_format(cluster, request)
    } else if let Some(request) = downcast::<CreateRequest<SmartModuleSpec>>(request)? {
        create_smart_module(cluster, request)
    } else if let Some(request) = downcast::<CreateRequest<MirrorSpec>>(request)? {
        create_mirror(cluster, request)
    } else if let Some(request) = downcast::<CreateRequest<CustomSpuSpec>>(request)? {
        register_spu(cluster, units, request)
    } else if let Some(request) = downcast::<CreateRequest<SpuGroupSpec>>(request)? {
        groups::create(cluster, units, request).await
    } else {
        unknown_kind("create error")
    })
}

fn downcast<R>(request: &ObjectApiCreateRequest) -> anyhow::Result<Option<R>>
where
    ObjectApiCreateRequest: TryEncodableFrom<R>,
{
    request.downcast()
}

fn create_table_format(cluster: &Cluster, request: CreateRequest<TableFormatSpec>) -> Status {
    let (common, spec) = request.parts();
    let name = common.name;
    let formats = &mut cluster.objects.lock().table_formats;
    if formats.get(&name).is_some() {
        let message = format!("tableformat '{name}' already defined");
        return refused(&name, ErrorCode::TableFormatAlreadyExists, message);
    }
    let object = Metadata { name: name.clone(), spec, status: Default::default() };
    kept_or_not(formats.put_durably(vec![object]), name)
}

/// Uploads replace what is there; a package gives the name.
fn create_smart_module(cluster: &Cluster, request: CreateRequest<SmartModuleSpec>) -> Status {
    let (common, spec) = request.parts();
    let name = match &spec.meta {
        Some(meta) if !meta.package.is_valid() => {
            let message = "invalid SmartModule package";
            return refused(&common.name, ErrorCode::SmartModuleError, message);
        }
        Some(meta) => meta.store_id(),
        None => common.name,
    };
    let object = Metadata { name: name.clone(), spec, status: Default::default() };
    kept_or_not(cluster.objects.lock().smart_modules.put_durably(vec![object]), name)
}

/// A remote is registered once; a home is replaced.
fn create_mirror(cluster: &Cluster, request: CreateRequest<MirrorSpec>) -> Status {
    let (common, spec) = request.parts();
    let name = common.name;
    let mirrors = &mut cluster.objects.lock().mirrors;
    let known = mirrors.get(&name).map(|mirror| &mirror.spec.mirror_type);
    if matches!(known, Some(MirrorType::Remote(_))) {
        let message = format!("remote cluster {name:?} already exists");
        return refused(&name, ErrorCode::MirrorAlreadyExists, message);
    }
    let object = Metadata { name: name.clone(), spec, status: Default::default() };
    kept_or_not(mirrors.put_durably(vec![object]), name)
}

/// A registered SPU comes online when a process with its id reports, which is at once if this server has such an SPU, as
/// after it was unregistered. Otherwise it stays in its initial state.
fn register_spu(cluster: &Cluster, units: &Shared, request: CreateRequest<CustomSpuSpec>) -> Status {
    let (common, spec) = request.parts();
    let (name, id) = (common.name, spec.id);
    {
        let spus = &mut cluster.objects.lock().spus;
        if spus.iter().any(|spu| spu.name == name || spu.spec.id == id) {
            let message = format!("spu '{name}({id})' already defined");
            return refused(&name, ErrorCode::SpuAlreadyExists, message);
        }
        if common.dry_run {
            return Status::default();
        }
        let object = Metadata { name: name.clone(), spec: spec.into(), status: SpuStatus::default() };
        if spus.put_durably(vec![object]).is_err() {
            return not_stored(&name);
        }
    }
    if units.is_running(id)
        && let Err(error) = cluster.set_spu_online(id, true)
    {
        return refused(&name, ErrorCode::SpuError, error.to_string());
    }
    Status::new_ok(name)
}
