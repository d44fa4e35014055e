//! The development server as a process: options, the ready line, signals and the parent's end.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use fluvio_devserver::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How often the parent is looked for.
const PARENT_INTERVAL: Duration = Duration::from_millis(100);

/// A Fluvio-compatible development server: in memory, one process, for first steps and tests.
///
/// Prints one line to stdout once clients can connect:
/// `fluvio-devserver ready endpoint=127.0.0.1:PORT`. Ends with status 0 on SIGTERM, on SIGINT and with its parent
/// (--exit-with-parent, --parent-pid). SIGUSR1 closes all client connections; the server goes on and accepts new ones.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Options {
    /// Address of the endpoint for clients; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9003")]
    listen: String,
    /// Number of streaming processing units (SPUs), over which topics are spread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    spus: u16,
    /// Cut stream answers at max_bytes in the middle of a batch, as the real server does
    #[arg(long)]
    cut_batches: bool,
    /// Answers of a stream on their way before the first is acknowledged (1 to 8; the real server has 1)
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = window, conflicts_with = "cut_batches")]
    window: usize,
    /// Largest request in bytes; a larger one closes its connection
    #[arg(long, default_value_t = wire::frame::DEFAULT_MAX_PAYLOAD)]
    max_frame_bytes: usize,
    /// Platform version that is announced to clients
    #[arg(long, default_value = "0.18.2")]
    platform_version: semver::Version,
    /// End when the process that started this one ends
    #[arg(long)]
    exit_with_parent: bool,
    /// The process that started this one: end with it, even if it ended before this one looked
    #[arg(long, value_name = "PID")]
    parent_pid: Option<u32>,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter such as fluvio_devserver=debug
    #[arg(long, default_value = "warn", value_name = "LEVEL")]
    log: EnvFilter,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // Known before anything else happens: a parent that ends from here on is noticed.
    let parent = match options.parent_pid {
        Some(pid) => Some(pid),
        None => options.exit_with_parent.then(std::os::unix::process::parent_id),
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(run(options, parent))
}

async fn run(options: Options, parent: Option<u32>) -> anyhow::Result<()> {
    let stderr = std::io::stderr;
    let colours = stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(options.log).with_ansi(colours).with_writer(stderr).init();
    // Before the ready line: whoever has read it may send signals.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut close_connections = signal(SignalKind::user_defined1())?;
    let server = Server::start(Config {
        listen: options.listen.clone(),
        spus: options.spus,
        cut_batches: options.cut_batches,
        window: options.window,
        platform_version: options.platform_version,
        max_frame_bytes: options.max_frame_bytes,
    })
    .await
    .with_context(|| format!("listening on {}", options.listen))?;
    announce(&server.endpoint()).context("writing the ready line")?;

    let parent_ended = parent_ended(parent);
    tokio::pin!(parent_ended);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut parent_ended => break,
            _ = close_connections.recv() => server.close_connections(),
        }
    }
    server.shutdown().await;
    Ok(())
}

fn window(text: &str) -> Result<usize, String> {
    let window = text.parse().ok().filter(|window| (1..=Config::MAX_WINDOW).contains(window));
    window.ok_or_else(|| format!("a number from 1 to {} is needed", Config::MAX_WINDOW))
}

fn announce(endpoint: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "fluvio-devserver ready endpoint={endpoint}")?;
    stdout.flush()
}

/// Returns when `parent` is no longer the parent of this process. An orphan gets another parent at once, so there is no
/// moment at which the end could be missed, and unlike PR_SET_PDEATHSIG this is not about the end of a thread.
async fn parent_ended(parent: Option<u32>) {
    let Some(parent) = parent else {
        return std::future::pending().await;
    };
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(PARENT_INTERVAL).await;
    }
}
