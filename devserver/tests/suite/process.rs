//! The binary: its ready line, its signals, and the end of its parent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_fluvio-devserver");
const SOON: Duration = Duration::from_secs(10);

/// A server that is killed if the test fails before it ends.
struct Running(Child);

impl Running {
    fn assert_success(mut self) {
        assert!(self.0.wait().expect("wait").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        if self.0.kill().is_ok() {
            self.0.wait().expect("wait");
        }
    }
}

/// Reads the ready line of a server and returns its endpoint.
fn endpoint_of(stdout: &mut impl BufRead) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the ready line");
    let endpoint = line.strip_prefix("fluvio-devserver ready endpoint=").expect("the ready line");
    endpoint.trim_end_matches('\n').to_owned()
}

fn start(arguments: &[&str]) -> (Running, String) {
    let child = Command::new(BINARY)
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let mut child = Running(child);
    let stdout = child.0.stdout.as_mut().expect("stdout");
    let endpoint = endpoint_of(&mut BufReader::with_capacity(1, stdout));
    (child, endpoint)
}

fn signal(child: &Running, name: &str) {
    let status = Command::new("kill").args([name, &child.0.id().to_string()]).status().expect("kill");
    assert!(status.success());
}

fn connect(endpoint: &str) -> TcpStream {
    let socket = TcpStream::connect(endpoint).expect("connect");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket
}

/// Whether the server closes the connection without having sent anything.
fn is_closed(mut socket: TcpStream) -> bool {
    match socket.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn ends_with_status_zero_on_signals() {
    for name in ["-TERM", "-INT"] {
        let (mut child, endpoint) = start(&[]);
        // It ends before the server does: what SmartModules print goes elsewhere, since nobody may be reading any more.
        let mut rest = String::new();
        child.0.stdout.take().expect("stdout").read_to_string(&mut rest).expect("read");
        assert_eq!(rest, "", "the ready line is all there is on stdout");
        let socket = connect(&endpoint);
        signal(&child, name);
        assert!(child.0.wait().expect("wait").success(), "{name}");
        assert!(is_closed(socket));
    }
}

#[test]
fn closes_connections_on_request_and_goes_on() {
    let (child, endpoint) = start(&[]);
    let mut socket = connect(&endpoint);
    // An answered request shows that the connection is known to the server.
    socket.write_all(b"\0\0\0\x15\0\x12\0\x02\0\0\0\x01\0\0\0\x050.1.0\0\0\0\0").expect("send");
    socket.read_exact(&mut [0; 58]).expect("an answer");
    signal(&child, "-USR1");
    loop {
        match socket.read(&mut [0; 64]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                break;
            }
        }
    }
    connect(&endpoint);
    signal(&child, "-TERM");
    child.assert_success();
}

#[test]
fn ends_with_its_parent() {
    // The shell starts a server, tells where it listens, and ends when its input does.
    let script = format!("{BINARY} --listen 127.0.0.1:0 --exit-with-parent & read line");
    let mut parent = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let mut stdout = BufReader::new(parent.stdout.take().expect("stdout"));
    let endpoint = endpoint_of(&mut stdout);
    let socket = connect(&endpoint);
    parent.kill().expect("kill");
    parent.wait().expect("wait");
    assert!(is_closed(socket));
}

#[test]
fn does_not_outlive_a_parent_that_is_already_gone() {
    let started = Instant::now();
    // No process is the parent of its own child's siblings: process 1 of a container apart, 2^22 + 1 is no process at all.
    let (child, _) = start(&["--parent-pid", "4194305"]);
    child.assert_success();
    assert!(started.elapsed() < SOON);
}

#[test]
fn says_what_is_wrong_with_its_options() {
    let (child, endpoint) = start(&[]);
    let second = Command::new(BINARY).args(["--listen", &endpoint]).output().expect("run");
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains(&endpoint), "the address is named");
    assert!(second.stdout.is_empty());
    let wrong = Command::new(BINARY).args(["--platform-version", "new"]).output().expect("run");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--platform-version"));
    signal(&child, "-TERM");
    child.assert_success();
}
