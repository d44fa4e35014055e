//! Objects as they are kept on disk: in the platform's own encoding, which holds everything that clients can ask for. (Its
//! JSON does not: some types skip fields, others are meant for YAML only.)

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fluvio_protocol::record::ReplicaKey;
use fluvio_protocol::{Decoder, Encoder, Version};
use fluvio_sc_schema::AdminSpec;
use fluvio_sc_schema::objects::Metadata;
use fluvio_spu_schema::server::consumer_offset::ConsumerOffset;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version in which objects are encoded; what is read brings its own.
const OBJECT_VERSION: Version = 19;
/// The same for the offsets of consumers.
const OFFSET_VERSION: Version = fluvio_spu_schema::COMMON_VERSION;
/// The kind of consumer offsets; objects have those of the protocol.
pub(super) const CONSUMER_OFFSET: &str = "ConsumerOffset";

/// An object that is new, has changed, or is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(super) kind: String,
    pub(super) name: String,
    /// `None`: it is gone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) object: Option<Encoded>,
}

/// An encoded object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Encoded {
    version: Version,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    bytes: Bytes,
}

impl Change {
    /// The object is new, or has changed.
    pub(crate) fn put<S>(object: &Metadata<S>) -> Self
    where
        S: AdminSpec,
        S::Status: Encoder + Decoder,
    {
        let encoded = Encoded::new(object, OBJECT_VERSION);
        Change { kind: S::LABEL.to_owned(), name: object.name.clone(), object: Some(encoded) }
    }

    /// The object of this name is gone.
    pub(crate) fn remove<S: AdminSpec>(name: &str) -> Self {
        Change { kind: S::LABEL.to_owned(), name: name.to_owned(), object: None }
    }

    /// A consumer has stored an offset.
    pub(crate) fn put_offset(offset: &ConsumerOffset) -> Self {
        let encoded = Encoded::new(offset, OFFSET_VERSION);
        Change { object: Some(encoded), ..Change::remove_offset(&offset.replica_id, &offset.consumer_id) }
    }

    /// An offset is forgotten.
    pub(crate) fn remove_offset(replica: &ReplicaKey, consumer_id: &str) -> Self {
        // No partition has a space in its name.
        let name = format!("{replica} {consumer_id}");
        Change { kind: CONSUMER_OFFSET.to_owned(), name, object: None }
    }
}

impl Encoded {
    fn new(object: &impl Encoder, version: Version) -> Self {
        let mut bytes = Vec::with_capacity(object.write_size(version));
        object
            .encode(&mut bytes, version)
            .expect("what a request brought can be encoded, and memory takes it");
        Encoded { version, bytes: bytes.into() }
    }

    pub(super) fn decode<T: Decoder>(&self) -> std::io::Result<T> {
        T::decode_from(&mut &self.bytes[..], self.version)
    }
}

fn to_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}
