//! What faults there are, and their JSON form.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use fluvio_types::{PartitionId, SpuId};
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::codes;
use super::requests::RequestName;
use crate::plane::Plane;

/// An address of this machine at which nobody listens, so that connections are refused at once.
const NOWHERE: &str = "127.0.0.1:1";

/// Why a text is no fault. The message names the field and says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FaultError(String);

impl FaultError {
    pub(super) fn new(message: &str) -> Self {
        FaultError(message.to_owned())
    }
}

/// Something that goes wrong on purpose.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    /// What happens.
    #[serde(flatten)]
    pub effect: Effect,
    /// What it happens to.
    #[serde(flatten)]
    pub selector: Selector,
    /// How often; until it is cleared if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<NonZeroU32>,
}

/// What a fault happens to: everything that it can happen to, unless fields say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// `controller`, `spu` for all SPUs, or the id of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plane: Option<PlaneSelector>,
    /// The kind of request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestName>,
    /// The name of a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// A partition of that topic, or of every topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionId>,
}

/// Which servers of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"controller\", \"spu\" or the id of an SPU")]
pub enum PlaneSelector {
    /// All of a kind.
    Kind(PlaneKind),
    /// The SPU with this id.
    Spu(SpuId),
}

/// The kinds of servers of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaneKind {
    /// The streaming controller.
    Controller,
    /// The streaming processing units.
    Spu,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Effect {
    /// Requests wait before they are handled, or their answers wait before they are sent.
    Delay {
        /// Before or after the request is handled.
        #[serde(default)]
        when: When,
        /// How long; until the fault is cleared if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<Seconds>,
    },
    /// Requests are not answered; the connection goes on with the next one.
    NeverAnswer {
        /// `before`: the request is not handled either.
        #[serde(default)]
        when: When,
    },
    /// The connection is closed.
    Close(Interruption),
    /// The connection stays and nothing moves on it any more, until the fault is cleared.
    Stall(Interruption),
    /// Connections stay, new ones are accepted, and nothing moves on any of them, until the fault is cleared. What was
    /// underway goes on then.
    BlackHole {},
    /// Answers announce a length that no answer has.
    OversizedFrame {
        /// The announced length.
        #[serde(default = "largest_length")]
        length: i32,
    },
    /// The parts of an answer are written one by one and without TCP_NODELAY. Concerns connections that are accepted from
    /// then on.
    SplitWrites {},
    /// Produced batches are refused, nothing is written.
    ProduceError {
        /// The error's name or number in the protocol.
        #[serde(with = "codes")]
        code: ErrorCode,
    },
    /// The high watermark stands still.
    HoldHighWatermark {},
    /// Stream answers end at `max_bytes`, in the middle of a batch.
    CutBatches {},
    /// Where the output of a stream's SmartModules for the first batch exceeds `max_bytes`, nothing is sent and the stream
    /// goes on at the end of the log.
    SmartModuleOverflow {},
    /// The first batch of stream answers has a wrong checksum.
    CorruptCrc {},
    /// Lists are empty, watches show that everything was deleted; it is all there again afterwards.
    EmptyCluster {},
    /// Another platform version is announced.
    PlatformVersion {
        /// The version.
        version: Version,
    },
    /// A kind of request is missing in what servers say that they support. It is answered nevertheless.
    Unadvertised {},
    /// The metadata has a wrong address for an SPU, or for all of them.
    AdvertisedAddress {
        /// `host:port`; by default one that refuses connections.
        #[serde(default = "nowhere")]
        address: String,
    },
}

/// Where a connection is interrupted: at a request, or at a byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Interruption {
    /// Before the request is handled, or instead of its answer.
    pub when: When,
    /// Once so many bytes were received, counted from the injection or from the beginning of a later connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// Once so many bytes were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
}

/// A point in the life of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// It is read and not handled.
    #[default]
    Before,
    /// It is handled and not answered. For streams and watches: each of their answers.
    After,
}

/// A length of time, in JSON a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Seconds(pub Duration);

impl Interruption {
    /// Whether it comes at this point in the life of a request.
    pub(super) fn is_at(&self, point: When) -> bool {
        self.when == point && self.received_bytes.is_none() && self.sent_bytes.is_none()
    }
}

impl Fault {
    /// A fault that happens to everything, until it is cleared.
    pub fn new(effect: Effect) -> Self {
        Fault { effect, selector: Selector::default(), count: None }
    }

    /// Reads the JSON form.
    pub fn from_json(text: &str) -> Result<Self, FaultError> {
        serde_json::from_str(text).map_err(|error| FaultError(error.to_string()))
    }

    fn read(mut fields: Map<String, Value>) -> Result<Self, FaultError> {
        let given: Vec<String> = fields.keys().cloned().collect();
        let selector = Selector::NAMES.iter().filter_map(|name| fields.remove_entry(*name)).collect();
        let selector: Selector = read("which", Value::Object(selector))?;
        let count = fields.remove("count").map(|count| read("count", count)).transpose()?;
        let effect: Effect = read("fault", Value::Object(fields))?;
        let takes = effect.takes();
        for name in Selector::NAMES.into_iter().chain(["count"]) {
            if given.iter().any(|field| field == name) && !takes.contains(&name) {
                let kind = effect.kind();
                return Err(FaultError(match takes {
                    [] => format!("a fault of kind {kind:?} takes no {name:?}"),
                    _ => format!("a fault of kind {kind:?} takes no {name:?}, only {}", takes.join(", ")),
                }));
            }
        }
        Ok(Fault { effect, selector, count })
    }

    /// Finds what contradicts itself, and what can never happen.
    pub(super) fn check(&self, is_spu: impl Fn(SpuId) -> bool) -> Result<(), FaultError> {
        if let Some(PlaneSelector::Spu(id)) = self.selector.plane
            && !is_spu(id)
        {
            return Err(FaultError(format!("plane: there is no SPU {id}")));
        }
        match &self.effect {
            Effect::Close(at) | Effect::Stall(at) => {
                let at_byte = at.received_bytes.is_some() || at.sent_bytes.is_some();
                if at.received_bytes.is_some() && at.sent_bytes.is_some() {
                    return Err(FaultError(
                        "received_bytes and sent_bytes are given: give one of them".into(),
                    ));
                }
                if at_byte && (self.selector.request.is_some() || at.when != When::default()) {
                    let message = "at a byte there is no request: leave out request and when, or the bytes";
                    return Err(FaultError(message.into()));
                }
            }
            Effect::Unadvertised {} if self.selector.request.is_none() => {
                return Err(FaultError("missing field `request`: the kind of request to leave out".into()));
            }
            Effect::AdvertisedAddress { address } => {
                let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                if port.is_none() {
                    return Err(FaultError(format!(
                        "address {address:?} is not host:port, such as {NOWHERE}"
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        Self::from_json(text)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        Fault::read(fields).map_err(serde::de::Error::custom)
    }
}

/// Reads a part of a fault; the message names it unless it is the whole.
fn read<T: serde::de::DeserializeOwned>(name: &str, value: Value) -> Result<T, FaultError> {
    let shown = value.is_object().then(String::new).unwrap_or_else(|| format!("{name}: "));
    serde_json::from_value(value).map_err(|error| FaultError(format!("{shown}{error}")))
}

impl Selector {
    const NAMES: [&str; 4] = ["plane", "request", "topic", "partition"];

    /// Whether a server is meant.
    pub(super) fn has_plane(&self, plane: Plane) -> bool {
        match (self.plane, plane) {
            (None, _) => true,
            (Some(PlaneSelector::Kind(PlaneKind::Controller)), plane) => plane == Plane::Controller,
            (Some(PlaneSelector::Kind(PlaneKind::Spu)), plane) => plane != Plane::Controller,
            (Some(PlaneSelector::Spu(id)), plane) => plane == Plane::Unit(id),
        }
    }

    /// Whether requests with this key to a server are meant.
    pub(super) fn has_request(&self, plane: Plane, key: u16) -> bool {
        self.has_plane(plane) && self.request.is_none_or(|request| request.key_on(plane) == Some(key))
    }

    /// Whether a partition is meant.
    pub(super) fn has_partition(&self, topic: &str, partition: PartitionId) -> bool {
        self.topic.as_ref().is_none_or(|name| name == topic)
            && self.partition.is_none_or(|id| id == partition)
    }
}

impl Effect {
    /// Its name in JSON.
    pub(crate) fn kind(&self) -> String {
        let fields = serde_json::to_value(self).unwrap_or_default();
        fields["kind"].as_str().unwrap_or_default().to_owned()
    }

    /// The selectors that it knows, and whether it can be counted.
    fn takes(&self) -> &'static [&'static str] {
        match self {
            Effect::Delay { .. } | Effect::NeverAnswer { .. } | Effect::OversizedFrame { .. } => {
                &["plane", "request", "count"]
            }
            Effect::Close(_) | Effect::Stall(_) => &["plane", "request", "count"],
            Effect::BlackHole {} | Effect::SplitWrites {} | Effect::AdvertisedAddress { .. } => &["plane"],
            Effect::ProduceError { .. } => &["plane", "topic", "partition", "count"],
            Effect::CorruptCrc {} => &["topic", "partition", "count"],
            Effect::HoldHighWatermark {} | Effect::CutBatches {} | Effect::SmartModuleOverflow {} => {
                &["topic", "partition"]
            }
            Effect::Unadvertised {} => &["plane", "request"],
            Effect::EmptyCluster {} | Effect::PlatformVersion { .. } => &[],
        }
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        const DAY: f64 = 24.0 * 3600.0;
        if (0.0..=DAY).contains(&seconds) {
            Ok(Seconds(Duration::from_secs_f64(seconds)))
        } else {
            Err(format!("{seconds} is not a number of seconds between 0 and {DAY}"))
        }
    }
}

impl From<Seconds> for f64 {
    fn from(seconds: Seconds) -> f64 {
        seconds.0.as_secs_f64()
    }
}

fn largest_length() -> i32 {
    i32::MAX
}

fn nowhere() -> String {
    NOWHERE.to_owned()
}
