//! The development server as a process: the ready line, signals, the parent's end, and the command that makes
//! certificates.

mod options;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use fluvio_devserver::{Config, Control, Fsync, Server, Tls, certificates};
use tokio::signal::unix::{SignalKind, signal};

use options::{CertsOptions, Command, CommandLine, FsyncMode, ServeOptions};

/// Why it stops, where nobody told it to.
const PARENT_ENDED: &str = "the parent has ended";

/// How often the parent is looked for.
const PARENT_INTERVAL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let done = match command_line.command {
        Some(Command::Certs(options)) => make_certificates(&options),
        None => serve(command_line.serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fluvio-devserver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: ServeOptions) -> anyhow::Result<()> {
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

async fn run(options: ServeOptions, parent: Option<u32>) -> anyhow::Result<()> {
    let stderr = std::io::stderr;
    let colours = stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(options.log)
        .with_ansi(colours)
        .with_writer(stderr)
        // Whoever has read stderr may be gone; telling there that telling has failed would be a panic.
        .log_internal_errors(false)
        .init();
    // Thousands of connections are within what this server is for, and the usual limit is 1024 descriptors.
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "file descriptors"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of file descriptors"),
    }
    // Before the ready line: whoever has read it may send signals.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut close_connections = signal(SignalKind::user_defined1())?;
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(Tls::load(certificate, key, options.client_ca.as_deref()).context("preparing TLS")?)
        }
        _ => None,
    };
    tracing::info!(
        "fluvio-devserver {}, as platform {}",
        env!("CARGO_PKG_VERSION"),
        options.platform_version
    );
    let server = Server::start(Config {
        listen: options.listen,
        advertise: options.advertise,
        spu_port: options.spu_port,
        spus: options.spus,
        cut_batches: options.cut_batches,
        window: options.window,
        platform_version: options.platform_version,
        max_frame_bytes: options.max_frame_bytes,
        latency: Duration::from_millis(options.latency),
        tls,
        data_dir: options.data_dir,
        fsync: match options.fsync {
            FsyncMode::Never => Fsync::Never,
            FsyncMode::Interval => Fsync::Interval(Duration::from_millis(options.fsync_interval)),
            FsyncMode::Always => Fsync::Always,
        },
        retention_interval: Duration::from_millis(options.retention_interval),
        smart_module_memory: options.smartmodule_memory,
        smart_module_overflow: options.smartmodule_overflow,
    })
    .await?;
    for fault in options.fault {
        server.inject(fault).context("--fault")?;
    }
    let control = match &options.control {
        Some(path) => {
            let bound = Control::bind(path);
            Some(bound.with_context(|| format!("listening on the control socket {}", path.display()))?)
        }
        None => None,
    };
    announce(&server.endpoint()).context("writing the ready line")?;
    // What SmartModules print would fill a pipe that nobody reads after the ready line.
    rustix::stdio::dup2_stdout(std::io::stderr()).context("joining stdout with stderr")?;

    let ended = async {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = parent_ended(parent) => PARENT_ENDED,
        }
    };
    let closing = async {
        while close_connections.recv().await.is_some() {
            tracing::info!("closing all connections: SIGUSR1");
            server.close_connections();
        }
        std::future::pending().await
    };
    let controlled = async {
        match &control {
            Some(control) => control.serve(&server).await,
            None => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        reason = ended => reason,
        reason = closing => reason,
        reason = controlled => reason,
    };
    tracing::info!("stopping: {reason}");
    server.shutdown().await;
    drop(control);
    if reason == PARENT_ENDED
        && let Some(folder) = options.control.as_deref().and_then(Path::parent)
    {
        // The parent made it for the socket and cannot remove it any more. Where something else is in it, it stays.
        let _ = std::fs::remove_dir(folder);
    }
    tracing::info!("stopped");
    Ok(())
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

fn make_certificates(options: &CertsOptions) -> anyhow::Result<()> {
    let CertsOptions { folder, domain, days } = options;
    let made = certificates::create(folder, domain, *days)?;
    let mut text = format!("Test certificates for {domain}, valid for {days} days:\n\n");
    for (files, what) in [
        (&made.authority, "the authority that signed the next two"),
        (&made.server, &format!("the server: {domain}, *.{domain}, localhost, 127.0.0.1, ::1")),
        (&made.client, "a client that is accepted"),
        (&made.untrusted_client, "a client that is refused: of another authority"),
    ] {
        writeln!(text, "  {}, .key\n      {what}", files.certificate.display())?;
    }
    let (authority, server, client) = (&made.authority, &made.server, &made.client);
    write!(
        text,
        "
Serve with them (without --client-ca, clients need no certificate):
  fluvio-devserver --tls-cert {} --tls-key {} --client-ca {ca}

Try it:
  openssl s_client -connect 127.0.0.1:9003 -servername {domain} -CAfile {ca} -cert {cert} -key {key}

In a profile (~/.fluvio/config):
  [cluster.local-tls]
  endpoint = \"127.0.0.1:9003\"
  [cluster.local-tls.tls]
  tls_policy = \"verified\"
  tls_source = \"files\"
  [cluster.local-tls.tls.certs]
  domain = \"{domain}\"
  ca_cert = \"{ca}\"
  cert = \"{cert}\"
  key = \"{key}\"

They are for tests: whoever has ca.key can pose as this server.
",
        server.certificate.display(),
        server.key.display(),
        ca = authority.certificate.display(),
        cert = client.certificate.display(),
        key = client.key.display(),
    )?;
    std::io::stdout().lock().write_all(text.as_bytes()).context("telling what was made")
}
