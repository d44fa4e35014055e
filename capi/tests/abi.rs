//! The binary interface is the recorded one: exported symbols and struct layouts, seen from Rust and from C.
//!
//! abi/<FLUVIO_ABI_VERSION>/ holds the record. Additions are rewritten with UPDATE=1 and reviewed; anything else needs a new
//! FLUVIO_ABI_VERSION (and soname in build.rs).

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

use common::{
    LANGUAGES, WARNINGS, assert_committed, crate_path, declarations, functions, library_folder, run,
};
use fluvio_cffi::{
    FLUVIO_ABI_VERSION, fluvio_batch_view, fluvio_completion, fluvio_deliveries_view, fluvio_error_kind,
    fluvio_error_kind_name, fluvio_object_kind, fluvio_outcome, fluvio_outcome_name, fluvio_sink,
    fluvio_slot, fluvio_status, fluvio_status_name, fluvio_subscription_kind, fluvio_value_kind,
};

const _: () = assert!(size_of::<fluvio_completion>() == 64);
const _: () = assert!(size_of::<fluvio_sink>() == 32);
const _: () = assert!(size_of::<fluvio_status>() == 4 && size_of::<fluvio_error_kind>() == 4);
const _: () = assert!(size_of::<fluvio_value_kind>() == 4 && size_of::<fluvio_object_kind>() == 4);

/// Exported, but not in the header: for tests, behind a feature.
const TEST_SYMBOL: &str = "fluvio_live_objects";

/// A struct: name, size, and the offset of each field.
type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

/// The structs of the header as Rust sees them.
fn layouts() -> Vec<Layout> {
    vec![
        (
            "fluvio_completion",
            size_of::<fluvio_completion>(),
            vec![
                ("user_data", offset_of!(fluvio_completion, user_data)),
                ("status", offset_of!(fluvio_completion, status)),
                ("kind", offset_of!(fluvio_completion, kind)),
                ("value", offset_of!(fluvio_completion, value)),
                ("offset", offset_of!(fluvio_completion, offset)),
                ("partition", offset_of!(fluvio_completion, partition)),
                ("reserved", offset_of!(fluvio_completion, reserved)),
            ],
        ),
        (
            "fluvio_sink",
            size_of::<fluvio_sink>(),
            vec![
                ("size", offset_of!(fluvio_sink, size)),
                ("complete", offset_of!(fluvio_sink, complete)),
                ("release", offset_of!(fluvio_sink, release)),
                ("context", offset_of!(fluvio_sink, context)),
            ],
        ),
        ("fluvio_slot", size_of::<fluvio_slot>(), vec![("user_data", offset_of!(fluvio_slot, user_data))]),
        (
            "fluvio_deliveries_view",
            size_of::<fluvio_deliveries_view>(),
            vec![
                ("count", offset_of!(fluvio_deliveries_view, count)),
                ("failed", offset_of!(fluvio_deliveries_view, failed)),
                ("partitions", offset_of!(fluvio_deliveries_view, partitions)),
                ("offsets", offset_of!(fluvio_deliveries_view, offsets)),
                ("errors", offset_of!(fluvio_deliveries_view, errors)),
                ("reserved", offset_of!(fluvio_deliveries_view, reserved)),
            ],
        ),
        (
            "fluvio_batch_view",
            size_of::<fluvio_batch_view>(),
            vec![
                ("data", offset_of!(fluvio_batch_view, data)),
                ("data_len", offset_of!(fluvio_batch_view, data_len)),
                ("count", offset_of!(fluvio_batch_view, count)),
                ("offsets", offset_of!(fluvio_batch_view, offsets)),
                ("timestamps", offset_of!(fluvio_batch_view, timestamps)),
                ("key_starts", offset_of!(fluvio_batch_view, key_starts)),
                ("key_ends", offset_of!(fluvio_batch_view, key_ends)),
                ("value_starts", offset_of!(fluvio_batch_view, value_starts)),
                ("value_ends", offset_of!(fluvio_batch_view, value_ends)),
                ("high_watermark", offset_of!(fluvio_batch_view, high_watermark)),
                ("partition", offset_of!(fluvio_batch_view, partition)),
                ("reserved", offset_of!(fluvio_batch_view, reserved)),
            ],
        ),
    ]
}

fn recorded(name: &str) -> std::path::PathBuf {
    crate_path(&format!("abi/{FLUVIO_ABI_VERSION}/{name}"))
}

#[test]
fn exports_are_the_functions_of_the_header_and_recorded() {
    let library = library_folder().join("libfluvio_cffi.so");
    let output = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let exports: BTreeSet<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .filter(|name| name != TEST_SYMBOL)
        .collect();
    assert_eq!(exports, functions().into_iter().map(|function| function.name).collect());
    let list: String = exports.iter().map(|name| format!("{name}\n")).collect();
    assert_committed(&recorded("symbols.txt"), &list);
}

#[test]
fn the_library_stays_loaded_and_has_the_soname_of_the_abi() {
    let library = library_folder().join("libfluvio_cffi.so");
    let output = run(Command::new("readelf").args(["-d", "-W"]).arg(&library));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("Library soname: [libfluvio_cffi.so.{FLUVIO_ABI_VERSION}]")), "{text}");
    assert!(text.contains("NODELETE"), "{text}");
}

#[test]
fn layouts_are_recorded_and_the_same_in_c() {
    let mut record = String::new();
    let mut program = String::from(
        "#include \"fluvio.h\"\n#ifdef __cplusplus\n#define _Static_assert static_assert\n#endif\n",
    );
    for (name, size, fields) in layouts() {
        writeln!(record, "{name} size {size}").unwrap();
        writeln!(program, "_Static_assert(sizeof({name}) == {size}, \"{name}\");").unwrap();
        for (field, offset) in fields {
            writeln!(record, "{name}.{field} at {offset}").unwrap();
            writeln!(program, "_Static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");")
                .unwrap();
        }
    }
    for (name, value) in constants() {
        writeln!(record, "{name} = {value}").unwrap();
        writeln!(program, "_Static_assert({name} == {value}, \"{name}\");").unwrap();
    }
    assert_committed(&recorded("layouts.txt"), &record);

    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("layouts.c");
    std::fs::write(&source, program).unwrap();
    for (compiler, flags) in LANGUAGES {
        run(Command::new(compiler)
            .args(flags)
            .args(WARNINGS)
            .arg("-fsyntax-only")
            .arg(format!("-I{}", crate_path("include").display()))
            .arg(&source));
    }
}

/// Enumerators of the header: `FLUVIO_X = n`. The compiler checks them against the same header, so this records them.
fn constants() -> Vec<(String, i64)> {
    declarations()
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(" = "))
        .filter(|(name, _)| name.starts_with("FLUVIO_"))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn enumerators_are_the_same_in_rust() {
    let found: std::collections::HashMap<String, i64> = constants().into_iter().collect();
    for (name, value) in [
        ("FLUVIO_STATUS_ERROR", fluvio_status::Error as i64),
        ("FLUVIO_STATUS_CANCELLED", fluvio_status::Cancelled as i64),
        ("FLUVIO_VALUE_KIND_DOCUMENT", fluvio_value_kind::Document as i64),
        ("FLUVIO_ERROR_KIND_INVALID_ARGUMENT", fluvio_error_kind::InvalidArgument as i64),
        ("FLUVIO_ERROR_KIND_SYSTEM", fluvio_error_kind::System as i64),
        ("FLUVIO_OUTCOME_WRITTEN", fluvio_outcome::Written as i64),
        ("FLUVIO_OBJECT_KIND_TOPIC", fluvio_object_kind::Topic as i64),
        ("FLUVIO_SUBSCRIPTION_KIND_CONNECTION", fluvio_subscription_kind::Connection as i64),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}");
    }
}

/// Every enum whose values have names gives each of them the name of its enumerator, and other numbers none.
#[test]
fn names_are_those_of_the_enumerators() {
    type Name = extern "C" fn(u32) -> *const std::ffi::c_char;
    for (prefix, name_of) in [
        ("FLUVIO_STATUS_", fluvio_status_name as Name),
        ("FLUVIO_ERROR_KIND_", fluvio_error_kind_name),
        ("FLUVIO_OUTCOME_", fluvio_outcome_name),
    ] {
        // SAFETY: a static string.
        let name = |value: u32| unsafe { std::ffi::CStr::from_ptr(name_of(value)) }.to_str().unwrap();
        let values: Vec<(String, i64)> =
            constants().into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
        assert!(values.len() > 3, "{prefix}");
        for (enumerator, value) in values {
            assert_eq!(name(u32::try_from(value).unwrap()), &enumerator[prefix.len()..]);
        }
        assert_eq!(name(u32::MAX), "UNKNOWN");
    }
}
