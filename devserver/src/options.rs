//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fluvio_devserver::Config;
use fluvio_devserver::Fault;
use fluvio_types::defaults::SPU_SMARTENGINE_STORE_MAX_BYTES;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// A Fluvio-compatible development server: one process, for first steps and tests.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    disable_help_subcommand = true,
    subcommand_help_heading = "Other commands",
    override_usage = "fluvio-devserver [OPTIONS]\n       fluvio-devserver certs [OPTIONS] DIR",
    after_help = AFTER_HELP,
)]
pub struct CommandLine {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve
    #[command(flatten)]
    pub serve: ServeOptions,
}

const AFTER_HELP: &str = "\
Once clients can connect, one line goes to stdout: fluvio-devserver ready endpoint=127.0.0.1:PORT

Signals:
  SIGTERM, SIGINT  close everything and end with status 0
  SIGUSR1          close all client connections and go on, to test reconnection

Examples:
  fluvio-devserver                                  where clients look for a cluster by default
  fluvio-devserver --listen 127.0.0.1:0 --log info  on a free port, telling what happens
  fluvio-devserver --data-dir data --fsync always   keep everything, even if the power fails
  fluvio-devserver certs tls                        make test certificates, then:
  fluvio-devserver --tls-cert tls/server.crt --tls-key tls/server.key --client-ca tls/ca.crt";

/// Commands other than serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make test certificates: an authority, a server and clients
    Certs(CertsOptions),
}

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeOptions {
    /// Address for clients; port 0 takes a free one. SPUs listen on ports of their own of the same address
    #[arg(long, default_value = "127.0.0.1:9003", value_name = "ADDRESS", help_heading = "Listening")]
    pub listen: String,
    /// Host that SPUs announce to clients, for containers and port forwarding; without it, where they listen
    #[arg(long, value_name = "HOST", help_heading = "Listening")]
    pub advertise: Option<String>,
    /// Port of the first SPU, the others take those behind it; without it each takes a free one
    #[arg(
        long,
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..),
        help_heading = "Listening"
    )]
    pub spu_port: Option<u16>,
    /// Largest request; a larger one closes its connection
    #[arg(
        long,
        default_value_t = wire::frame::DEFAULT_MAX_PAYLOAD,
        value_name = "BYTES",
        help_heading = "Listening"
    )]
    pub max_frame_bytes: usize,

    /// How much longer every answer takes, as if clients were far away: half of it in each direction
    #[arg(long, default_value_t = 0, value_name = "MS", help_heading = "Listening")]
    pub latency: u64,

    /// Certificate of the server and those of its issuers (PEM); clients have to use TLS
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "TLS")]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate (PEM: PKCS#8, PKCS#1 or SEC1), without a password
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,
    /// Accept only clients with a certificate of one of these authorities (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    pub client_ca: Option<PathBuf>,

    /// Keep topics, records and offsets in this directory, and serve what is in it; without it all is in memory
    #[arg(long, value_name = "DIR", help_heading = "Storage")]
    pub data_dir: Option<PathBuf>,
    /// When data is made to survive a loss of power: never by force, every --fsync-interval, or always before it is
    /// acknowledged. A killed process alone never loses anything
    #[arg(
        long,
        value_enum,
        default_value_t = FsyncMode::Interval,
        value_name = "WHEN",
        requires = "data_dir",
        help_heading = "Storage"
    )]
    pub fsync: FsyncMode,
    /// How often, for --fsync interval
    #[arg(
        long,
        default_value_t = 1000,
        value_name = "MS",
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = "Storage"
    )]
    pub fsync_interval: u64,
    /// How often records are removed that their topic does not keep any longer
    #[arg(
        long,
        default_value_t = 10_000,
        value_name = "MS",
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = "Storage"
    )]
    pub retention_interval: u64,

    /// Number of streaming processing units (SPUs), over which topics are spread
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=100),
        help_heading = "Cluster"
    )]
    pub spus: u16,
    /// Cut stream answers at max_bytes in the middle of a batch, as the real server does
    #[arg(long, help_heading = "Cluster")]
    pub cut_batches: bool,
    /// Answers of a stream on their way before the first is acknowledged (1 to 8; the real server has 1)
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        value_parser = window,
        conflicts_with = "cut_batches",
        help_heading = "Cluster"
    )]
    pub window: usize,
    /// Memory that the SmartModules of one stream or request may have together
    #[arg(
        long,
        default_value_t = SPU_SMARTENGINE_STORE_MAX_BYTES,
        value_name = "BYTES",
        help_heading = "Cluster"
    )]
    pub smartmodule_memory: usize,
    /// Lose records as the real server does where the first output of a stream's SmartModules exceeds max_bytes
    #[arg(long, help_heading = "Cluster")]
    pub smartmodule_overflow: bool,
    /// Platform version that is announced to clients
    #[arg(long, default_value = "0.18.2", value_name = "VERSION", help_heading = "Cluster")]
    pub platform_version: semver::Version,

    /// Something that goes wrong on purpose, such as {"kind": "delay", "request": "produce", "seconds": 0.5}; may be
    /// given several times. docs/devserver.md has the list
    #[arg(long, value_name = "JSON", help_heading = "Faults")]
    pub fault: Vec<Fault>,
    /// Take faults and other orders through a Unix socket at this path
    #[arg(long, value_name = "PATH", help_heading = "Faults")]
    pub control: Option<PathBuf>,

    /// End when the process that started this one ends; the folder of the control socket, if empty, goes too
    #[arg(long, help_heading = "Process")]
    pub exit_with_parent: bool,
    /// The process that started this one: end with it, even if it ended before this one looked
    #[arg(long, value_name = "PID", help_heading = "Process")]
    pub parent_pid: Option<u32>,
    /// What is logged to stderr: off, error, warn, info, debug, trace, or a filter such as
    /// fluvio_devserver=debug,rustls=debug
    #[arg(
        long,
        default_value = "warn",
        value_name = "LEVEL",
        value_parser = log_filter,
        help_heading = "Process"
    )]
    pub log: EnvFilter,
}

/// When what was written is made to survive a loss of power.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FsyncMode {
    // Plain comments: help texts of values would take the whole help apart.
    // When the system sees fit.
    Never,
    // Every --fsync-interval milliseconds.
    Interval,
    // Before anything is acknowledged.
    Always,
}

/// What certificates to make.
#[derive(Debug, Args)]
pub struct CertsOptions {
    /// Folder for the files; made if it does not exist. Nothing in it is overwritten
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Domain that clients expect. It needs a dot: an SPU is verified as custom-spu-5001.DOMAIN
    #[arg(long, default_value = "fluvio.local")]
    pub domain: String,
    /// For how many days the certificates are valid
    #[arg(
        long,
        default_value_t = 365,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=36_500)
    )]
    pub days: u32,
}

fn window(text: &str) -> Result<usize, String> {
    let window = text.parse().ok().filter(|window| (1..=Config::MAX_WINDOW).contains(window));
    window.ok_or_else(|| format!("a number from 1 to {} is needed", Config::MAX_WINDOW))
}

/// A bare level is that of the server's own messages: those of the libraries below it help nobody who did not ask.
fn log_filter(text: &str) -> Result<EnvFilter, String> {
    let own = match text.parse::<LevelFilter>() {
        Ok(level) if level > LevelFilter::WARN => format!("warn,fluvio_devserver={level}"),
        _ => text.to_owned(),
    };
    EnvFilter::try_new(own).map_err(|error| error.to_string())
}
