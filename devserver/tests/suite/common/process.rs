//! The server as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// The binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_fluvio-devserver");

/// A server that is killed if the test fails before it ends.
pub struct Process {
    pub child: Child,
    pub endpoint: String,
}

impl Process {
    /// Starts the server and waits until clients can connect.
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(options(data_dir)).args(arguments);
        Self::run(&mut command)
    }

    /// Runs a command that starts a server and becomes it.
    pub fn run(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let endpoint = endpoint_of(&mut child);
        Process { endpoint, child }
    }

    /// Waits for the server that the command starts after this one has ended.
    pub fn follow(&mut self) {
        self.endpoint = endpoint_of(&mut self.child);
    }

    /// Ends the server at once, as a crash does.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Ends the server properly and returns what it has logged.
    pub fn terminate(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let log = rest(self.child.stderr.take());
        assert!(self.child.wait().expect("wait").success(), "{log}");
        log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        if self.child.kill().is_ok() {
            let _ = self.child.wait();
        }
    }
}

/// The options of a server on a free port with this data directory.
pub fn options(data_dir: &Path) -> [&str; 4] {
    ["--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().expect("a path of text")]
}

/// Reads the ready line.
fn endpoint_of(child: &mut Child) -> String {
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("stdout");
    BufReader::with_capacity(1, stdout).read_line(&mut line).expect("the ready line");
    match line.trim_end().strip_prefix("fluvio-devserver ready endpoint=") {
        Some(endpoint) => endpoint.to_owned(),
        None => panic!("no ready line but {line:?}; {}", rest(child.stderr.take())),
    }
}

fn rest(stderr: Option<ChildStderr>) -> String {
    stderr.map(|stderr| std::io::read_to_string(stderr).expect("read")).unwrap_or_default()
}
