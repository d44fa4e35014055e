//! The dev server as a process of its own: it can be stopped, continued and killed without a word.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server that is killed at the end of the test.
pub struct Process {
    child: Child,
    pub endpoint: String,
}

impl Process {
    /// On a free port.
    pub fn start() -> Self {
        Self::listen("127.0.0.1:0")
    }

    /// On the given address, as after a restart.
    pub fn listen(address: &str) -> Self {
        let mut child = Command::new(binary())
            .args(["--listen", address, "--cut-batches", "--exit-with-parent"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the dev server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the ready line");
        let endpoint = line.trim().strip_prefix("fluvio-devserver ready endpoint=").expect("the ready line");
        Process { endpoint: endpoint.to_owned(), child }
    }

    /// Stops all of its threads: from here on it says nothing, and nothing is lost of it.
    pub fn stop(&self) {
        self.signal("STOP");
        let threads = format!("/proc/{}/task", self.child.id());
        let running = |status: PathBuf| {
            // A thread that has ended meanwhile is not running.
            std::fs::read_to_string(status).is_ok_and(|text| !text.contains("\nState:\tT"))
        };
        while std::fs::read_dir(&threads)
            .expect("the server is there")
            .any(|thread| running(thread.expect("a thread").path().join("status")))
        {
            std::thread::yield_now();
        }
    }

    /// Lets it go on after [`Process::stop`].
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill can be run").success());
    }

    /// Ends it without a word, and waits until its port is free.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server was running");
        self.child.wait().expect("the server has ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's binary beside the test's, built if it is not there: cargo builds only the library for this crate.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let binary = folder.join("fluvio-devserver");
    if !binary.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "fluvio-devserver", "--bin", "fluvio-devserver"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo can be run").success());
    }
    binary
}
