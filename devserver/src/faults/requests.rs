//! The names of requests: faults select by them, and counters are told apart by them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plane::Plane;

/// The kinds of requests that clients send. Both kinds of servers number their requests on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum RequestName {
    ApiVersions,
    Create,
    Delete,
    List,
    Watch,
    Update,
    Produce,
    FetchOffsets,
    StreamFetch,
    UpdateOffsets,
    UpdateConsumerOffset,
    DeleteConsumerOffset,
    FetchConsumerOffsets,
}

impl fmt::Display for RequestName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As in JSON.
        self.serialize(formatter)
    }
}

impl RequestName {
    const ALL: [Self; 13] = [
        Self::ApiVersions,
        Self::Create,
        Self::Delete,
        Self::List,
        Self::Watch,
        Self::Update,
        Self::Produce,
        Self::FetchOffsets,
        Self::StreamFetch,
        Self::UpdateOffsets,
        Self::UpdateConsumerOffset,
        Self::DeleteConsumerOffset,
        Self::FetchConsumerOffsets,
    ];

    /// Its key on a server, if that knows it.
    pub(super) fn key_on(self, plane: Plane) -> Option<u16> {
        match (plane, self) {
            (_, Self::ApiVersions) => Some(18),
            (Plane::Controller, Self::Create) => Some(1001),
            (Plane::Controller, Self::Delete) => Some(1002),
            (Plane::Controller, Self::List) => Some(1003),
            (Plane::Controller, Self::Watch) => Some(1004),
            (Plane::Controller, Self::Update) => Some(1006),
            (Plane::Unit(_), Self::Produce) => Some(0),
            (Plane::Unit(_), Self::FetchOffsets) => Some(1002),
            (Plane::Unit(_), Self::StreamFetch) => Some(1003),
            (Plane::Unit(_), Self::UpdateOffsets) => Some(1005),
            (Plane::Unit(_), Self::UpdateConsumerOffset) => Some(1006),
            (Plane::Unit(_), Self::DeleteConsumerOffset) => Some(1007),
            (Plane::Unit(_), Self::FetchConsumerOffsets) => Some(1008),
            _ => None,
        }
    }

    /// The kind of request that has this key on a server.
    pub(crate) fn of(plane: Plane, key: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.key_on(plane) == Some(key))
    }

    /// Whether a request is answered more than once.
    pub(super) fn is_followed(plane: Plane, key: u16) -> bool {
        [Self::Watch, Self::StreamFetch].iter().any(|name| name.key_on(plane) == Some(key))
    }
}
