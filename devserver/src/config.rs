//! What can be chosen when a server starts.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use fluvio_types::defaults::SPU_SMARTENGINE_STORE_MAX_BYTES;
use semver::Version;

use crate::tls::Tls;

/// How a [`crate::Server`] behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the endpoint that clients connect to, such as `127.0.0.1:9003` or `[::1]:0`; port 0 takes a free one. Each
    /// streaming processing unit (SPU) listens on a port of its own of the same address.
    pub listen: String,
    /// The host that SPUs announce to clients. Without it they announce the address that they listen on, or, where that is
    /// all addresses, the one of the interface that leads out of this machine.
    pub advertise: Option<String>,
    /// The port of the first SPU, the others take those behind it. Without it each takes a free one.
    pub spu_port: Option<u16>,
    /// How many streaming processing units there are; topics are spread over them.
    pub spus: u16,
    /// Cut stream answers at `max_bytes`, in the middle of a batch, as the real server does. Without it an answer holds
    /// whole batches and at least one.
    pub cut_batches: bool,
    /// How many answers of a stream may be on their way before the first is acknowledged: 1 as on the real server, and up
    /// to [`Config::MAX_WINDOW`]. More than one needs whole batches, so it excludes [`Config::cut_batches`].
    pub window: usize,
    /// The platform version that is announced to clients.
    pub platform_version: Version,
    /// The largest request that is read; a larger one closes its connection.
    pub max_frame_bytes: usize,
    /// How much longer every answer takes, as if clients were far away: half of it in each direction. What passes per
    /// second stays the same.
    pub latency: Duration,
    /// Clients have to use TLS, on every listener.
    pub tls: Option<Tls>,
    /// Where topics, records and offsets are kept; in memory without it.
    pub data_dir: Option<PathBuf>,
    /// When what was written to [`Config::data_dir`] is made to survive a loss of power.
    pub fsync: Fsync,
    /// How often records are removed that their topic does not keep any longer.
    pub retention_interval: Duration,
    /// What the SmartModules of one chain may have of memory together, in bytes.
    pub smart_module_memory: usize,
    /// Do as the real server where the output of a stream's SmartModules for the first batch exceeds `max_bytes`: send
    /// nothing and go on at the end of the log, so that records are lost. Without it that output is sent.
    pub smart_module_overflow: bool,
}

/// When what was written is made to survive a loss of power. The end of the process alone never loses anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// When the system sees fit.
    Never,
    /// So often.
    Interval(Duration),
    /// Before anything is acknowledged.
    Always,
}

impl Config {
    /// The largest [`Config::window`]: a client's queue per stream holds 10 answers.
    pub const MAX_WINDOW: usize = 8;

    /// What is wrong with this configuration, if anything is.
    pub(crate) fn check(&self) -> io::Result<()> {
        let invalid = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        if !(1..=Config::MAX_WINDOW).contains(&self.window) {
            return invalid(format!(
                "the window is {}, but must be 1 to {}",
                self.window,
                Config::MAX_WINDOW
            ));
        }
        if self.window > 1 && self.cut_batches {
            let window = self.window;
            return invalid(format!(
                "a window of {window} needs whole batches: leave cut batches or the window out"
            ));
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            spu_port: None,
            spus: 1,
            cut_batches: false,
            window: 1,
            platform_version: Version::new(0, 18, 2),
            max_frame_bytes: wire::frame::DEFAULT_MAX_PAYLOAD,
            latency: Duration::ZERO,
            tls: None,
            data_dir: None,
            fsync: Fsync::Interval(Duration::from_secs(1)),
            retention_interval: Duration::from_secs(10),
            smart_module_memory: SPU_SMARTENGINE_STORE_MAX_BYTES,
            smart_module_overflow: false,
        }
    }
}
