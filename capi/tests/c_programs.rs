//! Compiles the C programs as C and as C++, and runs them against a development server; under valgrind where it is installed.
//!
//! Each test has its own server, so that they may run at once and topics do not collide.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{LANGUAGES, WARNINGS, crate_path, functions, library_folder, run};
use fluvio_devserver::{Config, Server};

/// What a memory checker costs is too much for the full numbers.
const FULL: &str = "20000";
const REDUCED: &str = "300";

struct Program {
    _folder: tempfile::TempDir,
    file: PathBuf,
}

/// Compiles tests/c/`name`.c, linked to the library under test.
fn compile(source: &Path, compiler: &str, flags: &[&str]) -> Program {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libfluvio_cffi.so.0");
    symlink(library_folder().join("libfluvio_cffi.so"), &library).unwrap();
    let file = folder.path().join("program");
    run(Command::new(compiler)
        .args(flags)
        .args(WARNINGS)
        .args(["-g", "-O1", "-pthread"])
        .arg(format!("-I{}", crate_path("include").display()))
        .arg(source)
        // -x would make the compiler read the library as a source.
        .args(["-xnone", "-o"])
        .arg(&file)
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", folder.path().display())));
    Program { _folder: folder, file }
}

fn serve(body: impl FnOnce(&str)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(Config { cut_batches: true, ..Config::default() })).unwrap();
    body(&server.endpoint());
    runtime.block_on(server.shutdown());
}

fn show(output: &Output) {
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

fn valgrind_works() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// valgrind with the program: exit status 99 for invalid accesses and for definite and indirect leaks.
fn valgrind(program: &Program) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--num-callers=30"])
        .args(["--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect"])
        .arg(&program.file);
    command
}

/// Runs the program as C and as C++, once for each set of arguments; `checked` ones also under valgrind.
fn run_program(source: &str, arguments: &[&[&str]], checked: &[&[&str]]) {
    let checks = valgrind_works();
    if !checked.is_empty() && !checks {
        println!("valgrind is not installed: {source} was not checked for leaks and invalid accesses");
    }
    for (compiler, flags) in LANGUAGES {
        let program = compile(&crate_path(source), compiler, flags);
        for arguments in arguments {
            serve(|endpoint| {
                let output = run(Command::new(&program.file).arg(endpoint).args(*arguments));
                if cfg!(feature = "live-objects") && source.starts_with("tests/") {
                    assert!(String::from_utf8_lossy(&output.stdout).contains("no live objects are left"));
                }
                show(&output);
            });
        }
        for arguments in checked.iter().filter(|_| checks) {
            serve(|endpoint| show(&run(valgrind(&program).arg(endpoint).args(*arguments))));
        }
    }
}

#[test]
fn round_trip_with_the_callback_sink() {
    run_program("tests/c/roundtrip.c", &[&["callback", FULL]], &[&["callback", REDUCED]]);
}

#[test]
fn round_trip_with_the_queue() {
    run_program(
        "tests/c/roundtrip.c",
        &[&["queue", FULL], &["poll", FULL], &["socket", FULL]],
        &[&["queue", REDUCED], &["poll", REDUCED]],
    );
}

#[test]
fn the_examples_run() {
    for example in ["../examples/c/callback.c", "../examples/c/queue.c"] {
        run_program(example, &[&[]], &[&[]]);
    }
}

#[test]
fn bad_input_is_refused() {
    run_program("tests/c/misuse.c", &[&["callback"], &["queue"]], &[&["queue"]]);
}

#[test]
fn handles_end_in_any_order() {
    run_program("tests/c/lifecycle.c", &[&["callback"], &["queue"], &["poll"]], &[&["callback"], &["queue"]]);
}

#[test]
fn cancelling_around_the_completion() {
    run_program("tests/c/cancel.c", &[&["callback", "6000"], &["poll", "6000"]], &[&["queue", "120"]]);
}

#[test]
fn a_forked_child_is_told_and_starts_anew() {
    // Not under valgrind: what belongs to the parent is left alone in the child, which looks like a leak.
    run_program("tests/c/fork.c", &[&["callback", "15"], &["queue", "15"], &["poll", "15"]], &[]);
}

#[test]
fn room_stays_the_callers_until_a_send_takes_it() {
    run_program("tests/c/room.c", &[&["queue", "300"]], &[&["queue", "20"]]);
}

/// Every function of the header is called with NULL, twice, after its parents were freed and from inside `complete`.
#[test]
fn every_function_in_every_situation() {
    for (compiler, flags) in LANGUAGES {
        let program = compile(&crate_path("tests/c/every.c"), compiler, flags);
        let mut commands = vec![Command::new(&program.file)];
        if valgrind_works() {
            commands.push(valgrind(&program));
        }
        for mut command in commands {
            serve(|endpoint| {
                let output = run(command.arg(endpoint));
                let called: BTreeSet<String> =
                    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
                for situation in ["null", "twice", "orphan", "inside"] {
                    for function in functions() {
                        let line = format!("{situation} {}", function.name);
                        assert!(called.contains(&line), "tests/c/every.c lacks: {line}");
                    }
                }
            });
        }
    }
}

/// A subscription tells that the connection was severed, and that it is back.
#[test]
fn the_connection_of_a_client_is_watched() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(Config::default())).unwrap();
    for (compiler, flags) in LANGUAGES {
        let program = compile(&crate_path("tests/c/subscription.c"), compiler, flags);
        for kind in ["callback", "poll"] {
            let mut child = Command::new(&program.file)
                .args([&server.endpoint(), kind])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            if line == "watching\n" {
                server.close_connections();
                child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            }
            let output = child.wait_with_output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{kind}: {}: {errors}", output.status);
        }
    }
    runtime.block_on(server.shutdown());
}

/// Severed connections mean writes to closed sockets.
#[test]
fn severed_connections_raise_no_signal() {
    const TIMES: u32 = 40;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(Config::default())).unwrap();
    let program = compile(&crate_path("tests/c/severed.c"), LANGUAGES[0].0, LANGUAGES[0].1);
    let mut child = Command::new(&program.file)
        .args([&server.endpoint(), "queue"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "sending\n");
    for _ in 0..TIMES {
        server.close_connections();
        // Not to wait for something: so that the connections are severed in different states.
        std::thread::sleep(Duration::from_millis(7));
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    runtime.block_on(server.shutdown());
}

/// The memory checks above mean something only if valgrind fails on a leak.
#[test]
fn valgrind_notices_a_leak() {
    if !valgrind_works() {
        println!("valgrind is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("leak.c");
    let leak = "#include <fluvio.h>\nint main(void) { return fluvio_queue_new(0, 0) == 0; }\n";
    std::fs::write(&source, leak).unwrap();
    let program = compile(&source, LANGUAGES[0].0, LANGUAGES[0].1);
    assert_eq!(valgrind(&program).output().unwrap().status.code(), Some(99));
}
