//! What the tests of the border share: where things are, and committed files that `UPDATE=1` rewrites.
#![allow(dead_code)] // Every test binary uses its part.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A path inside the crate.
pub fn crate_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The folder with the shared library that cargo built for this test run: the one that this test binary is in.
pub fn library_folder() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let deps = executable.parent().unwrap();
    // cargo links the library in deps/; a copy beside it appears only with `cargo build`.
    [deps.to_owned(), deps.parent().unwrap().to_owned()]
        .into_iter()
        .find(|folder| folder.join("libfluvio_cffi.so").exists())
        .unwrap_or_else(|| panic!("no libfluvio_cffi.so in {} or above", deps.display()))
}

/// The committed header, without its comments.
pub fn declarations() -> String {
    let text = std::fs::read_to_string(crate_path("include/fluvio.h")).unwrap();
    let mut rest = text.as_str();
    let mut code = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").unwrap().1;
    }
    code + rest
}

/// A function of the header.
#[derive(Debug, Clone)]
pub struct Function {
    pub name: String,
    pub returns: String,
    /// Type and name of each, such as `const char *options`.
    pub parameters: Vec<String>,
}

/// All functions of the committed header, in its order.
pub fn functions() -> Vec<Function> {
    let code = declarations();
    let body = &code[code.find("extern \"C\" {").unwrap()..];
    body.split(';')
        .filter_map(|declaration| {
            let (before, after) = declaration.split_once('(')?;
            let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
            let returns = before[..before.len() - name.len()].lines().last()?.trim().to_owned();
            let parameters = after
                .rsplit_once(')')?
                .0
                .split(',')
                .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
            name.starts_with("fluvio_").then(|| Function {
                name: name.to_owned(),
                returns,
                parameters: parameters.filter(|parameter| parameter != "void").collect(),
            })
        })
        .collect()
}

/// Compares a committed file with what it should be; with UPDATE=1 rewrites it.
pub fn assert_committed(file: &Path, expected: &str) {
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(file).unwrap_or_default();
    if let Some((number, (old, new))) =
        found.lines().zip(expected.lines()).enumerate().find(|(_, (old, new))| old != new)
    {
        panic!(
            "{} is out of date at line {}: {old:?} should be {new:?}; UPDATE=1 rewrites it",
            file.display(),
            number + 1
        );
    }
    assert!(
        found == expected,
        "{} is out of date: it is cut or has more lines; UPDATE=1 rewrites it",
        file.display()
    );
}

/// Runs a command to its end; panics with its output if it fails.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The languages that the header and the C tests are compiled as: compiler, flags.
pub const LANGUAGES: [(&str, &[&str]); 2] = [("cc", &["-std=c11", "-xc"]), ("c++", &["-std=c++17", "-xc++"])];

/// Warnings are errors in both.
pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
