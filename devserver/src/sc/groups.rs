//! SPU groups: the SPUs of a group are started with it, and gone with it.
//!
//! The real server has Kubernetes start them: SPU `i` of group `g` is called `g-i` and has the id `min_id + i`. A group whose
//! ids are taken is stored as invalid, and its creation succeeds nevertheless.

use std::sync::Arc;

use fluvio_controlplane_metadata::spg::{SpuGroupSpec, SpuGroupStatus};
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_protocol::link::ErrorCode;
use fluvio_sc_schema::Status;
use fluvio_sc_schema::objects::{CreateRequest, Metadata};
use fluvio_types::SpuId;

use super::refused;
use crate::cluster::Cluster;
use crate::server::Shared;
use crate::units::MAX_SPUS;

pub(super) async fn create(
    cluster: &Cluster,
    units: &Arc<Shared>,
    request: CreateRequest<SpuGroupSpec>,
) -> Status {
    let (common, spec) = request.parts();
    let name = common.name;
    let members: Vec<_> = members(&name, &spec).collect();
    let (started, surplus) = {
        let objects = &mut *cluster.objects.lock();
        let former: Vec<_> = match objects.spu_groups.get(&name) {
            Some(known) if known.status.is_already_valid() => self::members(&name, &known.spec).collect(),
            _ => Vec::new(),
        };
        let is_former =
            |spu: &Metadata<SpuSpec>| former.iter().any(|(id, name)| spu.spec.id == *id && spu.name == *name);
        let others = || objects.spus.iter().filter(|spu| !is_former(spu));
        let taken =
            others().find(|spu| members.iter().any(|(id, name)| spu.spec.id == *id || spu.name == *name));
        if let Some(id) = taken.map(|spu| spu.spec.id) {
            let status = SpuGroupStatus::invalid(format!("conflict with: {id}"));
            objects.spu_groups.put(vec![Metadata { name: name.clone(), spec, status }]);
            return Status::new_ok(name);
        }
        if members.len() < spec.replicas.into() || others().count() + members.len() > MAX_SPUS {
            let message = format!("the development server has SPU ids from 0 on and at most {MAX_SPUS} SPUs");
            return refused(&name, ErrorCode::SpuError, message);
        }
        let status = SpuGroupStatus::reserved();
        objects.spu_groups.put(vec![Metadata { name: name.clone(), spec, status }]);
        let started: Vec<_> = members.iter().filter(|member| !former.contains(member)).cloned().collect();
        let surplus: Vec<_> = former.into_iter().filter(|member| !members.contains(member)).collect();
        (started, surplus)
    };
    for (id, _) in surplus {
        units.remove(id).await;
    }
    for (id, member) in started {
        if let Err(error) = units.start_managed(id, member).await {
            return refused(&name, ErrorCode::SpuError, format!("SPU {id}: {error}"));
        }
    }
    Status::new_ok(name)
}

pub(super) async fn delete(cluster: &Cluster, units: &Arc<Shared>, name: String) -> Status {
    let group = cluster.objects.lock().spu_groups.get(&name).cloned();
    let Some(group) = group else {
        return refused(&name, ErrorCode::SpuNotFound, "not found");
    };
    if group.status.is_already_valid() {
        for (id, _) in members(&name, &group.spec) {
            units.remove(id).await;
        }
    }
    cluster.objects.lock().spu_groups.remove([name.as_str()]);
    Status::new_ok(name)
}

/// Ids and names of the SPUs of a group, as far as there are such ids.
fn members(group: &str, spec: &SpuGroupSpec) -> impl Iterator<Item = (SpuId, String)> {
    let first = spec.min_id;
    (0..spec.replicas)
        .map_while(move |index| first.checked_add(index.into()).filter(|id| *id >= 0).map(|id| (id, index)))
        .map(move |(id, index)| (id, format!("{group}-{index}")))
}
