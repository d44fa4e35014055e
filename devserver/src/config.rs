//! What can be chosen when a server starts.

use semver::Version;

/// How a [`crate::Server`] behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the endpoint that clients connect to; port 0 takes a free one. Each streaming processing unit listens
    /// on a free port of the same address.
    pub listen: String,
    /// How many streaming processing units there are; topics are spread over them.
    pub spus: u16,
    /// Cut stream answers at `max_bytes`, in the middle of a batch, as the real server does. Without it an answer holds
    /// whole batches and at least one.
    pub cut_batches: bool,
    /// The platform version that is announced to clients.
    pub platform_version: Version,
    /// The largest request that is read; a larger one closes its connection.
    pub max_frame_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: "127.0.0.1:0".to_owned(),
            spus: 1,
            cut_batches: false,
            platform_version: Version::new(0, 18, 2),
            max_frame_bytes: wire::frame::DEFAULT_MAX_PAYLOAD,
        }
    }
}
