//! Deletion of every kind of object.

use std::sync::Arc;

use fluvio_controlplane_metadata::smartmodule::SmartModulePackageKey;
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::{CustomSpuKey, CustomSpuSpec};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::mirror::MirrorSpec;
use fluvio_sc_schema::objects::{DeleteRequest, ObjectApiDeleteRequest};
use fluvio_sc_schema::smartmodule::SmartModuleSpec;
use fluvio_sc_schema::tableformat::TableFormatSpec;
use fluvio_sc_schema::{AdminSpec, DeletableAdminSpec, Status, TryEncodableFrom};

use super::{groups, kept_or_not, refused, topics, unknown_kind};
use crate::cluster::{Cluster, Objects};
use crate::metadata::Store;
use crate::server::Shared;

pub(super) async fn delete(
    cluster: &Arc<Cluster>,
    units: &Arc<Shared>,
    request: &ObjectApiDeleteRequest,
) -> anyhow::Result<Status> {
    if let Some(request) = downcast::<SpuGroupSpec>(request)? {
        return Ok(groups::delete(cluster, units, request.key()).await);
    }
    if let Some(request) = downcast::<TopicSpec>(request)? {
        let (force, name) = (request.is_force(), request.key());
        // It waits for the disk.
        let deletion = cluster.clone();
        let deletion = cluster.tasks.spawn_blocking(move || topics::delete(&deletion, name, force));
        return Ok(deletion.await?);
    }
    let objects = &mut *cluster.objects.lock();
    Ok(if let Some(request) = downcast::<TableFormatSpec>(request)? {
        let missing = |_: &str| (ErrorCode::TableFormatNotFound, "not found".to_owned());
        remove(&mut objects.table_formats, request.key(), missing)
    } else if let Some(request) = downcast::<SmartModuleSpec>(request)? {
        let name = request.key();
        let stored = SmartModulePackageKey::from_qualified_name(&name)?.store_id();
        if objects.smart_modules.get(&stored).is_none() {
            return Ok(refused(&name, ErrorCode::SmartModuleNotFound { name: name.clone() }, "not found"));
        }
        kept_or_not(objects.smart_modules.remove_durably(&stored), name)
    } else if let Some(request) = downcast::<MirrorSpec>(request)? {
        let missing = |name: &str| (ErrorCode::MirrorNotFound, format!("remote cluster {name:?} not found"));
        remove(&mut objects.mirrors, request.key(), missing)
    } else if let Some(request) = downcast::<CustomSpuSpec>(request)? {
        unregister_spu(objects, request.key())
    } else {
        unknown_kind("create error")
    })
}

fn downcast<S: DeletableAdminSpec>(
    request: &ObjectApiDeleteRequest,
) -> anyhow::Result<Option<DeleteRequest<S>>> {
    request.downcast()
}

fn remove<S>(store: &mut Store<S>, name: String, missing: impl FnOnce(&str) -> (ErrorCode, String)) -> Status
where
    S: AdminSpec + Clone,
    S::Status: Encoder + Decoder + Clone,
{
    if store.get(&name).is_none() {
        let (code, message) = missing(&name);
        return refused(&name, code, message);
    }
    kept_or_not(store.remove_durably(&name), name)
}

/// As on the real server, an SPU that is online can be unregistered; it goes on serving those who know its address.
fn unregister_spu(objects: &mut Objects, key: CustomSpuKey) -> Status {
    let (asked, found) = match &key {
        CustomSpuKey::Name(name) => (name.clone(), objects.spus.get(name)),
        CustomSpuKey::Id(id) => (format!("spu-{id}"), objects.spus.iter().find(|spu| spu.spec.id == *id)),
    };
    let Some(spu) = found else {
        return refused(&asked, ErrorCode::SpuNotFound, "not found");
    };
    let name = spu.name.clone();
    if !spu.spec.is_custom() {
        return refused(&name, ErrorCode::SpuError, "expected 'Custom' spu, found 'Managed' spu");
    }
    kept_or_not(objects.spus.remove_durably(&name), name)
}
