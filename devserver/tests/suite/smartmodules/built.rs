//! The built test modules are what their sources are built to.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/smartmodules");

#[test]
fn the_built_modules_match_their_sources() {
    let lacks = |program| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err();
    let is_ci = env::var_os("CI").is_some_and(|value| value == "true");
    if !is_ci && ["clang", "wasm-ld"].into_iter().any(lacks) {
        eprintln!("not checked: clang and wasm-ld (Debian: clang, lld) are not on PATH");
        return;
    }
    let built = tempfile::tempdir().expect("a folder");
    let out = format!("OUT={}", built.path().display());
    let output = Command::new("make").args(["-C", MODULES, &out]).output().expect("make runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let read = |folder: &Path, name: &str| fs::read(folder.join(name)).expect(name);
    let modules = Path::new(MODULES);
    let [theirs, ours] = [modules, built.path()].map(|folder| read(folder, "BUILT_WITH"));
    if !is_ci && theirs != ours {
        let theirs = String::from_utf8_lossy(&theirs).into_owned();
        eprintln!(
            "not checked: they were built with\n{theirs}and here is\n{}",
            String::from_utf8_lossy(&ours)
        );
        return;
    }
    let mut checked = 0;
    for entry in fs::read_dir(modules).expect("the modules") {
        let name = entry.expect("a file").file_name().into_string().expect("a name");
        if let Some(stem) = name.strip_suffix(".c") {
            let wasm = format!("{stem}.wasm");
            let same = read(modules, &wasm) == read(built.path(), &wasm);
            assert!(same, "{wasm} is not what {name} is built to: run `make -C tests/data/smartmodules`");
            checked += 1;
        }
    }
    assert!(checked > 0);
}
