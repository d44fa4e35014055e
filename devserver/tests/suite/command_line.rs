//! The binary's other command, its help, its messages and what it logs.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_fluvio-devserver");

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).env("RUST_BACKTRACE", "1").output().expect("run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn files(folder: &Path) -> Vec<(String, u32)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
            (entry.file_name().into_string().expect("text"), mode)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn makes_certificates_once() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("deep/tls");
    let folder_text = folder.to_str().expect("text");
    let made = run(&["certs", folder_text, "--domain", "example.test", "--days", "3"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let told = text(&made.stdout);
    for word in ["--tls-cert", "--client-ca", "openssl s_client", "example.test", "ca_cert"] {
        assert!(told.contains(word), "{told}");
    }
    let expected = [
        ("ca.crt", 0o644),
        ("ca.key", 0o600),
        ("client.crt", 0o644),
        ("client.key", 0o600),
        ("server.crt", 0o644),
        ("server.key", 0o600),
        ("untrusted-client.crt", 0o644),
        ("untrusted-client.key", 0o600),
    ];
    assert_eq!(files(&folder), expected.map(|(name, mode)| (name.to_owned(), mode)));

    let before = std::fs::read(folder.join("ca.key")).expect("read");
    let again = run(&["certs", folder_text]);
    assert!(!again.status.success());
    assert!(text(&again.stderr).contains("ca.crt exists already"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read(folder.join("ca.key")).expect("read"), before);

    // One file in the way: the others are not left behind.
    for (name, _) in files(&folder) {
        if name != "client.crt" {
            std::fs::remove_file(folder.join(name)).expect("remove");
        }
    }
    assert!(!run(&["certs", folder_text]).status.success());
    assert_eq!(files(&folder), [("client.crt".to_owned(), 0o644)]);
}

#[test]
fn refuses_what_no_client_would_verify() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("tls");
    for domain in ["localhost", "127.0.0.1", "*.fluvio.local", "fluvio..local", ""] {
        let output = run(&["certs", folder.to_str().expect("text"), "--domain", domain]);
        assert!(!output.status.success(), "{domain}");
        assert!(text(&output.stderr).contains("domain with a dot"), "{}", text(&output.stderr));
    }
    assert!(!folder.exists());
}

#[test]
fn messages_are_one_line_that_names_the_file() {
    let output =
        run(&["--listen", "127.0.0.1:0", "--tls-cert", "/nowhere/a.crt", "--tls-key", "/nowhere/a.key"]);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "not ready");
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("fluvio-devserver: preparing TLS: reading /nowhere/a.crt: No such file"),
        "{said}"
    );
    let output = run(&["--tls-cert", "a.crt"]);
    assert!(text(&output.stderr).contains("--tls-key"));
    let output = run(&["--client-ca", "a.crt"]);
    assert!(text(&output.stderr).contains("--tls-cert"));
}

#[test]
fn help_groups_the_options_and_names_the_other_command() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for heading in
        ["Listening:", "TLS:", "Storage:", "Cluster:", "Process:", "Other commands:", "Signals:", "Examples:"]
    {
        assert!(help.lines().any(|line| line == heading), "{heading}\n{help}");
    }
    // Every option stands under a heading, apart from these two.
    let options = help.split_once("\nOptions:\n").expect("a list").1.split("\n\n").next().expect("a list");
    assert_eq!(options.lines().filter(|line| line.contains("--")).count(), 2, "{options}");
}

#[test]
fn tells_at_info_what_happens_and_nothing_without_being_asked() {
    for (level, expected) in [
        (None, &[][..]),
        (
            Some("info"),
            &[
                "as platform 0.18.2",
                "SPU 5001 listens on 127.0.0.1:",
                "SPU 5002 listens on 127.0.0.1:",
                "clients connect to 127.0.0.1:",
                "stopping: SIGTERM",
                "stopped",
            ][..],
        ),
    ] {
        let mut command = Command::new(BINARY);
        // Of an option that is given twice, the last one counts.
        command.args(["--listen", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--spus", "2"]);
        command.args(level.iter().flat_map(|level| ["--log", level]));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().expect("stdout")).read_line(&mut ready).expect("the ready line");
        assert!(ready.starts_with("fluvio-devserver ready endpoint=127.0.0.1:"), "{ready}");
        let status = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
        assert!(status.success());
        let output = child.wait_with_output().expect("wait");
        assert!(output.status.success());
        let said = text(&output.stderr);
        assert_eq!(said.lines().count(), expected.len(), "{said}");
        for (line, expected) in said.lines().zip(expected) {
            assert!(line.contains(expected), "{line}");
        }
    }
}

#[test]
fn the_log_says_who_speaks_the_other_protocol() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().to_str().expect("text");
    assert!(run(&["certs", folder]).status.success());
    let (cert, key) = (format!("{folder}/server.crt"), format!("{folder}/server.key"));
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    for (options, sent, expected) in [
        (&tls[..], &b"GET / HTTP/1.1\r\n\r\n"[..], "the client does not use TLS"),
        (&[], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "the client seems to use TLS"),
    ] {
        let mut command = Command::new(BINARY);
        command.args(["--listen", "127.0.0.1:0"]).args(options);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().expect("stdout")).read_line(&mut ready).expect("the ready line");
        let (_, endpoint) = ready.trim_end().split_once("endpoint=").expect("the ready line");
        let mut socket = TcpStream::connect(endpoint).expect("connect");
        socket.write_all(sent).expect("send");
        let mut said = String::new();
        BufReader::new(child.stderr.as_mut().expect("stderr")).read_line(&mut said).expect("a message");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(said.contains(expected) && said.contains("peer=127.0.0.1:"), "{said}");
    }
}
