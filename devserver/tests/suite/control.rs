//! The control socket of the binary: line by line, its errors, its file.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_fluvio-devserver");
const SOON: Duration = Duration::from_secs(10);

/// A server that is killed if the test fails before it ends.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["--listen", "127.0.0.1:0"]).args(arguments).stdout(Stdio::piped());
        let mut child = Running(command.spawn().expect("start"));
        let mut line = String::new();
        let stdout = child.0.stdout.as_mut().expect("stdout");
        BufReader::with_capacity(1, stdout).read_line(&mut line).expect("read");
        assert!(line.starts_with("fluvio-devserver ready endpoint="), "{line}");
        child
    }

    fn terminate(mut self) {
        let status = Command::new("kill").arg(self.0.id().to_string()).status().expect("kill");
        assert!(status.success());
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

/// A connection to a control socket.
struct Orders(BufReader<UnixStream>);

impl Orders {
    fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).expect("connect");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        Orders(BufReader::new(socket))
    }

    fn give(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).expect("send");
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("an answer");
        answer.trim_end().to_owned()
    }
}

fn socket_path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("control-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder.join(name)
}

#[test]
fn orders_are_answered_line_by_line() {
    let path = socket_path("orders");
    let server = Running::start(&["--spus", "2", "--control", path.to_str().expect("UTF-8")]);
    assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o600);
    let mut orders = Orders::connect(&path);
    for (order, expected) in [
        (r#"{"list": true}"#, r#"{"faults":[]}"#),
        (r#"{"inject": {"kind": "black-hole", "plane": "spu"}}"#, r#"{"id":1}"#),
        (r#"{"inject": {"kind": "delay", "seconds": 0.5, "count": 3}}"#, r#"{"id":2}"#),
        (r#"{"clear": 1}"#, r#"{"done":true}"#),
        (r#"{"clear": 1}"#, r#"{"done":true}"#),
        (
            r#"{"list": true}"#,
            r#"{"faults":[{"id":2,"fault":{"kind":"delay","when":"before","seconds":0.5,"count":3},"left":3}]}"#,
        ),
        (r#"{"clear": "all"}"#, r#"{"cleared":1}"#),
        (r#"{"move_leader": {"topic": "consumer-offset", "partition": 0, "spu": 5002}}"#, r#"{"done":true}"#),
        (r#"{"stop_spu": 5002}"#, r#"{"done":true}"#),
        (r#"{"start_spu": 5002}"#, r#"{"done":true}"#),
        (r#"{"close_connections": true}"#, r#"{"done":true}"#),
        (
            r#"{"counters": true}"#,
            r#"{"counters":{"controller":{"requests":{},"connections_opened":0,"connections_open":0,"streams_opened":0,"streams_open":0,"received_bytes":0,"sent_bytes":0},"spus":{}}}"#,
        ),
    ] {
        assert_eq!(orders.give(order), expected, "{order}");
    }
    for (order, expected) in [
        ("nonsense", "expected"),
        ("{}", "expected value"),
        (r#"{"inject": {"kind": "delay", "second": 1}}"#, "unknown field `second`"),
        (r#"{"inject": {"kind": "black-hole", "plane": 5009}}"#, "no SPU 5009"),
        (r#"{"explode": true}"#, "unknown variant `explode`, expected one of `inject`, `clear`, `list`"),
        (r#"{"clear": 99}"#, "no fault 99"),
        (r#"{"clear": "some"}"#, r#"expected the number of a fault or \"all\""#),
        (r#"{"list": false}"#, "expected true"),
        (r#"{"move_leader": {"topic": "t", "partition": 0, "spu": 5002}}"#, "no partition 0 of topic"),
        (r#"{"move_leader": {"topic": "t", "partition": 0}}"#, "missing field `spu`"),
        (r#"{"stop_spu": 5009}"#, "no SPU 5009"),
    ] {
        let answer = orders.give(order);
        assert!(answer.starts_with(r#"{"error":""#) && answer.contains(expected), "{order}: {answer}");
    }
    // Somebody who leaves in mid-sentence disturbs nobody.
    let mut rude = Orders::connect(&path);
    rude.0.get_mut().write_all(br#"{"inject": "#).expect("send");
    drop(rude);
    assert_eq!(Orders::connect(&path).give(r#"{"list": true}"#), r#"{"faults":[]}"#);
    // An endless line is answered once, and not taken for several.
    let mut endless = Orders::connect(&path);
    assert!(endless.give(&"x".repeat(65_536)).starts_with(r#"{"error":""#));
    // Closed, or reset because of what was not read.
    assert!(matches!(endless.0.read(&mut [0; 64]), Ok(0) | Err(_)));
    server.terminate();
    assert!(!path.exists());
}

#[test]
fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_not() {
    let path = socket_path("left-behind");
    let arguments = ["--control", path.to_str().expect("UTF-8")];
    let mut killed = Running::start(&arguments);
    let second =
        Command::new(BINARY).args(["--listen", "127.0.0.1:0"]).args(arguments).output().expect("run");
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains(arguments[1]), "the path is named");
    assert!(path.exists());
    killed.0.kill().expect("kill");
    killed.0.wait().expect("wait");
    assert!(path.exists());
    let server = Running::start(&arguments);
    assert_eq!(Orders::connect(&path).give(r#"{"list": true}"#), r#"{"faults":[]}"#);
    server.terminate();
    // What is no socket is left alone.
    fs::write(&path, "important").expect("write");
    let refused =
        Command::new(BINARY).args(["--listen", "127.0.0.1:0"]).args(arguments).output().expect("run");
    assert!(!refused.status.success());
    assert_eq!(fs::read(&path).expect("read"), b"important");
}

#[test]
fn faults_of_the_command_line_are_there_from_the_beginning() {
    let path = socket_path("faults");
    let fault = r#"{"kind":"platform-version","version":"0.8.0"}"#;
    let server = Running::start(&["--fault", fault, "--control", path.to_str().expect("UTF-8")]);
    let listed = format!(r#"{{"faults":[{{"id":1,"fault":{fault}}}]}}"#);
    assert_eq!(Orders::connect(&path).give(r#"{"list": true}"#), listed);
    server.terminate();
    let wrong = Command::new(BINARY).args(["--fault", r#"{"kind": "dealy"}"#]).output().expect("run");
    assert!(!wrong.status.success());
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("--fault") && said.contains("unknown variant `dealy`"), "{said}");
}
