//! SPU groups: the SPUs of a group are started with it, and gone with it.
//!
//! The real server has Kubernetes start them: SPU `i` of group `g` is called `g-i` and has the id `min_id + i`. A group whose
//! ids are taken is stored as invalid, and its creation succeeds nevertheless.

use std::sync::Arc;

use fluvio_controlplane_metadata::spg::{SpuGroupSpec, SpuGroupStatus};
use fluvio_controlplane_metadata::spu::{SpuSpec, SpuStatus, SpuType};
use fluvio_protocol::link::ErrorCode;
use fluvio_sc_schema::Status;
use fluvio_sc_schema::objects::{CreateRequest, Metadata};
use fluvio_types::SpuId;

use super::{kept_or_not, not_stored, refused};
use crate::cluster::{Cluster, Objects, spu};
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
    let (bound, surplus) = {
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
            let group = Metadata { name: name.clone(), spec, status };
            return kept_or_not(objects.spu_groups.put_durably(vec![group]), name);
        }
        if members.len() < spec.replicas.into() || others().count() + members.len() > MAX_SPUS {
            let message = format!("the development server has SPU ids from 0 on and at most {MAX_SPUS} SPUs");
            return refused(&name, ErrorCode::SpuError, message);
        }
        let started = members.iter().filter(|member| !former.contains(member)).cloned();
        // Before the group is stored: it must not be there after an error, nor in the way of the next start of the server.
        let bound = match units.bind_managed(started) {
            Ok(bound) => bound,
            Err(error) => return refused(&name, ErrorCode::SpuError, error.to_string()),
        };
        let status = SpuGroupStatus::reserved();
        let group = Metadata { name: name.clone(), spec, status };
        if objects.spu_groups.put_durably(vec![group]).is_err() {
            return not_stored(&name);
        }
        let surplus: Vec<_> = former.into_iter().filter(|member| !members.contains(member)).collect();
        (bound, surplus)
    };
    for (id, _) in surplus {
        units.remove(id).await;
    }
    for spu in bound {
        if let Err(error) = units.start_managed(spu) {
            return refused(&name, ErrorCode::SpuError, error.to_string());
        }
    }
    Status::new_ok(name)
}

pub(super) async fn delete(cluster: &Cluster, units: &Arc<Shared>, name: String) -> Status {
    let group = {
        let objects = &mut *cluster.objects.lock();
        let Some(group) = objects.spu_groups.get(&name).cloned() else {
            return refused(&name, ErrorCode::SpuNotFound, "not found");
        };
        if objects.spu_groups.remove_durably(&name).is_err() {
            return not_stored(&name);
        }
        group
    };
    if group.status.is_already_valid() {
        for (id, _) in members(&name, &group.spec) {
            units.remove(id).await;
        }
    }
    Status::new_ok(name)
}

/// The SPUs of the groups that are known from the last time; offline until [`restart`].
pub(crate) fn members_to_start(objects: &Objects) -> Vec<Metadata<SpuSpec>> {
    let valid = objects.spu_groups.iter().filter(|group| group.status.is_already_valid());
    let members = valid.flat_map(|group| members(&group.name, &group.spec));
    let offline = |(id, name)| {
        let object = spu(name, id, SpuType::Managed, String::new(), 0);
        Metadata { status: SpuStatus::default(), ..object }
    };
    members.map(offline).collect()
}

/// Starts the SPUs of the groups that are known from the last time. One that cannot listen stays offline.
pub(crate) fn restart(units: &Arc<Shared>) {
    let groups: Vec<_> = units.cluster.objects.lock().spu_groups.iter().cloned().collect();
    for group in groups.into_iter().filter(|group| group.status.is_already_valid()) {
        for member in members(&group.name, &group.spec) {
            let bound = units.bind_managed([member]);
            let started =
                bound.and_then(|bound| bound.into_iter().try_for_each(|spu| units.start_managed(spu)));
            if let Err(error) = started {
                tracing::error!(group = group.name, "an SPU of the group stays offline: {error}");
            }
        }
    }
}

/// Ids and names of the SPUs of a group, as far as there are such ids.
fn members(group: &str, spec: &SpuGroupSpec) -> impl Iterator<Item = (SpuId, String)> {
    let first = spec.min_id;
    (0..spec.replicas)
        .map_while(move |index| first.checked_add(index.into()).filter(|id| *id >= 0).map(|id| (id, index)))
        .map(move |(id, index)| (id, format!("{group}-{index}")))
}
