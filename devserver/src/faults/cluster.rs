//! Faults of the cluster's state: what is injected changes it, what is cleared restores it.

use fluvio_controlplane_metadata::spu::{IngressAddr, IngressPort, SpuSpec};
use fluvio_sc_schema::objects::Metadata;

use super::kinds::{Effect, Fault, FaultError};
use super::registry::{ClearError, FaultId};
use crate::cluster::Cluster;

impl Cluster {
    /// Injects a fault.
    pub(crate) fn inject(&self, fault: Fault) -> Result<FaultId, FaultError> {
        fault.check(|id| self.objects.lock().spus.iter().any(|spu| spu.spec.id == id))?;
        if matches!(fault.effect, Effect::CutBatches {}) && self.config.window > 1 {
            let message = "answers can only be cut one at a time: start the server without --window";
            return Err(FaultError::new(message));
        }
        tracing::info!("fault injected: {fault:?}");
        let id = self.faults.add(fault.clone());
        self.apply(&[fault]);
        Ok(id)
    }

    /// Clears a fault.
    pub(crate) fn clear_fault(&self, id: FaultId) -> Result<(), ClearError> {
        let cleared = self.faults.clear(id)?;
        self.apply(cleared.as_slice());
        Ok(())
    }

    /// Clears all faults and tells how many there were.
    pub(crate) fn clear_faults(&self) -> usize {
        let cleared = self.faults.clear_all();
        self.apply(&cleared);
        cleared.len()
    }

    /// Makes the state what it has to be after `changed` came or went.
    fn apply(&self, changed: &[Fault]) {
        for Fault { effect, selector, .. } in changed {
            match effect {
                Effect::HoldHighWatermark {} => {
                    for replica in self.replicas() {
                        let (topic, partition) = (&replica.key.topic, replica.key.partition);
                        if selector.has_partition(topic, partition) {
                            let held = self.faults.holds_high_watermark(topic, partition);
                            replica.log.hold_high_watermark(held);
                            replica.note_change();
                        }
                    }
                }
                Effect::EmptyCluster {} => {
                    let objects = &mut *self.objects.lock();
                    // Under the lock: another fault may come or go at the same time.
                    let hidden = self.faults.empties_cluster();
                    objects.topics.hide(hidden);
                    objects.partitions.hide(hidden);
                    objects.spus.hide(hidden);
                    objects.spu_groups.hide(hidden);
                    objects.smart_modules.hide(hidden);
                    objects.table_formats.hide(hidden);
                    objects.mirrors.hide(hidden);
                }
                Effect::AdvertisedAddress { .. } => self.advertise(),
                _ => {}
            }
        }
    }

    /// Tells everybody the addresses of the SPUs: the true ones, unless a fault has others.
    pub(crate) fn advertise(&self) {
        let mut objects = self.objects.lock();
        let mut true_endpoints = self.true_endpoints.lock();
        let changed = objects.spus.iter().filter_map(|spu| {
            let id = spu.spec.id;
            let public_endpoint = match self.faults.advertised_address(id) {
                Some(address) => {
                    let truth = true_endpoints.entry(id).or_insert_with(|| spu.spec.public_endpoint.clone());
                    endpoint(truth, &address)
                }
                None => true_endpoints.remove(&id)?,
            };
            Some(Metadata { spec: SpuSpec { public_endpoint, ..spu.spec.clone() }, ..spu.clone() })
        });
        let changed = changed.collect();
        objects.spus.put(changed);
    }
}

fn endpoint(truth: &IngressPort, address: &str) -> IngressPort {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    IngressPort {
        // Checked when the fault was injected.
        port: port.parse().unwrap_or_default(),
        ingress: vec![IngressAddr::from_host(host.to_owned())],
        ..truth.clone()
    }
}
