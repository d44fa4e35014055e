//! A server with a topic `t` of one partition, and a connection to each of its sides.

use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Fault, FaultId, Server};
use fluvio_protocol::Decoder;
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, StreamFetchResponse};

use super::{Raw, create, frame_of, unit_of};

/// A running server.
pub struct Fixture {
    pub server: Server,
    pub controller: Raw,
    pub unit: Raw,
    pub unit_address: String,
}

impl Fixture {
    /// With one SPU.
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let server = Server::start(config).await.expect("start");
        let mut controller = Raw::connect(&server.endpoint()).await;
        assert!(create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await.error_code.is_ok());
        let unit_address = unit_of(&mut controller).await;
        let unit = Raw::connect(&unit_address).await;
        Fixture { server, controller, unit, unit_address }
    }

    /// Injects a fault, given as JSON.
    pub fn fault(&self, json: &str) -> FaultId {
        self.server.inject(Fault::from_json(json).expect("a fault")).expect("injected")
    }

    pub fn clear(&self, fault: FaultId) {
        self.server.clear(fault).expect("cleared");
    }

    /// Another connection to the SPU.
    pub async fn unit(&self) -> Raw {
        Raw::connect(&self.unit_address).await
    }
}

/// Opens a stream on partition 0 of `t` from its beginning.
pub async fn open(unit: &mut Raw, isolation: Isolation, max_bytes: i32) {
    let mut request = DefaultStreamFetchRequest::builder();
    request.topic("t".to_owned()).isolation(isolation).max_bytes(max_bytes);
    unit.send(&frame_of(request.build().expect("a request"))).await;
}

/// An answer of a stream: what stands in front of the records, and the records.
pub fn stream_answer(frame: &[u8]) -> (FetchablePartitionResponse<i32>, Vec<u8>) {
    let mut rest = &frame[8..];
    let answer = StreamFetchResponse::<i32>::decode_from(&mut rest, 25).expect("an answer");
    (answer.partition, rest.to_vec())
}
