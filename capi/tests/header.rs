//! The header is what cbindgen makes of the sources, documented throughout, and compiles alone as C and as C++.

mod common;

use std::process::Command;

use common::{LANGUAGES, WARNINGS, assert_committed, crate_path, run};

/// The sources in the order of the header.
const SOURCES: [&str; 18] = [
    "version",
    "completion",
    "error",
    "sink",
    "context",
    "queue",
    "options",
    "slots",
    "client",
    "admin",
    "document",
    "subscription",
    "producer",
    "room",
    "deliveries",
    "undelivered",
    "consumer",
    "batch",
];

fn generate() -> String {
    let config = cbindgen::Config::from_file(crate_path("cbindgen.toml")).unwrap();
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, source| {
        builder.with_src(crate_path(&format!("src/{source}.rs")))
    });
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    let lines: Vec<String> =
        String::from_utf8(header).unwrap().trim_end().lines().map(parenthesised).collect();
    lines.join("\n") + "\n"
}

/// A macro that is a number stands in parentheses, and is unsigned if it does not fit into an int.
fn parenthesised(line: &str) -> String {
    let number = line.strip_prefix("#define ").and_then(|rest| rest.split_once(' '));
    match number.map(|(name, value)| (name, value, value.parse::<i64>())) {
        Some((name, value, Ok(number))) => {
            let unsigned = if number > i64::from(i32::MAX) { "u" } else { "" };
            format!("#define {name} ({value}{unsigned})")
        }
        _ => line.to_owned(),
    }
}

#[test]
fn header_is_current() {
    assert_committed(&crate_path("include/fluvio.h"), &generate());
}

#[test]
fn header_compiles_alone_as_c_and_cpp() {
    let folder = tempfile::tempdir().unwrap();
    for (compiler, flags) in LANGUAGES {
        let source = folder.path().join("alone.c");
        std::fs::write(&source, "#include \"fluvio.h\"\n#include \"fluvio.h\"\n").unwrap();
        run(Command::new(compiler)
            .args(flags)
            .args(WARNINGS)
            .arg("-fsyntax-only")
            .arg(format!("-I{}", crate_path("include").display()))
            .arg(&source));
    }
}

#[test]
fn version_macros_are_the_versions_of_the_crate() {
    let header = generate();
    let macro_is = |name: &str, value: &str| {
        let line = format!("#define {name} {value}");
        assert!(header.lines().any(|found| found == line), "the header lacks: {line} (see cbindgen.toml)");
    };
    macro_is("FLUVIO_VERSION", &format!("\"{}\"", env!("CARGO_PKG_VERSION")));
    for (name, value) in [
        ("FLUVIO_VERSION_MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("FLUVIO_VERSION_MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("FLUVIO_VERSION_PATCH", env!("CARGO_PKG_VERSION_PATCH")),
        ("FLUVIO_ABI_VERSION", &fluvio_cffi::FLUVIO_ABI_VERSION.to_string()),
    ] {
        macro_is(name, &format!("({value})"));
    }
    // SAFETY: a static string.
    let version = unsafe { std::ffi::CStr::from_ptr(fluvio_cffi::fluvio_version()) };
    assert_eq!(version.to_str().unwrap(), env!("CARGO_PKG_VERSION"));
    assert_eq!(fluvio_cffi::fluvio_abi_version(), fluvio_cffi::FLUVIO_ABI_VERSION);
}

/// Every function has a comment, whose paragraphs have the agreed names and order.
#[test]
fn functions_are_documented_in_the_agreed_order() {
    const ORDER: [&str; 6] =
        ["Parameters:", "Ownership:", "Completion:", "Threads:", "Errors:", "Cancellation:"];
    let header = generate();
    for (index, _) in header.match_indices(" fluvio_").chain(header.match_indices("*fluvio_")) {
        let line_start = header[..index].rfind('\n').map_or(0, |newline| newline + 1);
        let line = header[line_start..].lines().next().unwrap();
        let is_function = line.starts_with(|first: char| first.is_ascii_lowercase())
            && !line.starts_with("typedef")
            && line.contains('(');
        if !is_function {
            continue;
        }
        let before = &header[..line_start];
        assert!(before.ends_with(" */\n"), "no comment: {line}");
        let comment = &before[before.rfind("/**").unwrap()..];
        let labels: Vec<usize> = comment
            .lines()
            .filter_map(|text| {
                ORDER.iter().position(|label| text.trim_start_matches(" * ").starts_with(label))
            })
            .collect();
        assert!(labels.is_sorted_by(|left, right| left < right), "wrong order: {line}");
        assert!(labels.contains(&3), "no word on threads: {line}");
        let declaration = header[line_start..].split(';').next().unwrap();
        let asynchronous = declaration.contains("user_data") && !declaration.contains("fluvio_cancel(");
        let needed: &[usize] = if asynchronous { &[1, 2, 3, 4, 5] } else { &[] };
        for label in needed {
            assert!(labels.contains(label), "no {} in: {line}", ORDER[*label]);
        }
    }
}
