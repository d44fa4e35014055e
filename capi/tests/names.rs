//! The names and integer types of the header follow the rule that docs/c.md states under "Names".

mod common;

use std::collections::BTreeSet;

use common::{Function, declarations, functions};

/// Functions of the library as a whole, and the two short names.
const WITHOUT_TYPE: [&str; 5] =
    ["fluvio_abi_version", "fluvio_version", "fluvio_flush_all", "fluvio_connect", "fluvio_cancel"];

/// What functions are named after, besides types: administration, and the value of a completion.
const AREAS: [&str; 2] = ["fluvio_admin", "fluvio_value"];

/// Enums that say how something went; all others say what kind of thing something is.
const WITHOUT_KIND: [&str; 2] = ["fluvio_status", "fluvio_outcome"];

/// Handles whose head can be read. The library makes them, and what follows the head is its own: they can grow.
const HEADS: [&str; 1] = ["fluvio_slot"];

/// Where a negative number has a meaning.
const SIGNED: [&str; 3] = ["fluvio_error_get_code", "fluvio_error_get_spu", "fluvio_queue_get_fd"];

/// Names declared by `typedef KEYWORD NAME`, with or without a body.
fn declared(keyword: &str, with_body: bool) -> BTreeSet<String> {
    declarations()
        .lines()
        .filter_map(|line| line.strip_prefix("typedef ")?.strip_prefix(keyword)?.strip_prefix(' '))
        .filter(|rest| rest.ends_with('{') == with_body)
        .map(|rest| rest.split_whitespace().next().unwrap().to_owned())
        .collect()
}

/// The fields of each struct that has any.
fn fields() -> Vec<(String, Vec<String>)> {
    let code = declarations();
    declared("struct", true)
        .into_iter()
        .map(|name| {
            let start = code.find(&format!("typedef struct {name} {{")).unwrap();
            let body = code[start..].split_once('{').unwrap().1.split_once('}').unwrap().0;
            let fields = body.split(';').map(str::trim).filter(|field| !field.is_empty());
            (name, fields.map(str::to_owned).collect())
        })
        .collect()
}

fn last_word(declaration: &str) -> &str {
    let name = declaration.split('[').next().unwrap();
    name.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap()
}

fn check(function: &Function, types: &BTreeSet<String>, enums: &BTreeSet<String>) {
    let name = function.name.as_str();
    if WITHOUT_TYPE.contains(&name) {
        return;
    }
    if let Some(subject) = name.strip_suffix("_name")
        && enums.contains(subject)
    {
        assert_eq!(function.returns, "const char *", "{name}");
        return;
    }
    let subject = types
        .iter()
        .map(String::as_str)
        .chain(AREAS)
        .find(|subject| name.starts_with(&format!("{subject}_")))
        .unwrap_or_else(|| panic!("{name} is named after no type"));
    let verb = &name[subject.len() + 1..];
    let handle = format!("const struct {subject} *");
    let reads = function.parameters.first().is_some_and(|first| first.starts_with(&handle));
    let accessor = verb.starts_with("get_") || verb.starts_with("is_");
    assert_eq!(accessor, reads, "{name}: who reads is named get_ or is_ and takes a const handle");
    assert_eq!(
        verb.starts_with("is_"),
        function.returns == "bool",
        "{name}: is_ gives a bool, nothing else does"
    );
    if verb == "free" {
        assert_eq!(function.returns, "void", "{name}");
    }
}

#[test]
fn functions_are_named_after_their_type_and_what_they_do() {
    let (mut types, enums) = (declared("struct", false), declared("enum", true));
    types.extend(HEADS.map(str::to_owned));
    assert!(types.len() > 8 && enums.len() > 3, "{types:?} {enums:?}");
    for function in functions() {
        check(&function, &types, &enums);
    }
}

#[test]
fn every_handle_has_its_free_function() {
    let names: BTreeSet<String> = functions().into_iter().map(|function| function.name).collect();
    for handle in declared("struct", false) {
        assert!(names.contains(&format!("{handle}_free")), "{handle}");
    }
}

#[test]
fn enums_and_enumerators() {
    let code = declarations();
    for name in declared("enum", true) {
        assert!(name.ends_with("_kind") || WITHOUT_KIND.contains(&name.as_str()), "{name}");
        let start = code.find(&format!("typedef enum {name} {{")).unwrap();
        let body = code[start..].split_once('{').unwrap().1.split_once('}').unwrap().0;
        let prefix = format!("{}_", name.to_ascii_uppercase());
        for enumerator in body.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            assert!(enumerator.starts_with(&prefix), "{enumerator} of {name}");
            assert!(enumerator.contains(" = "), "{enumerator} has no number of its own");
        }
    }
}

#[test]
fn macros_stand_in_parentheses() {
    let code = declarations();
    let values: Vec<&str> = code
        .lines()
        .filter_map(|line| line.strip_prefix("#define FLUVIO_")?.split_once(' '))
        .map(|(_, value)| value)
        .collect();
    assert!(values.len() > 8);
    for value in values {
        assert!(value.starts_with('"') || value.starts_with('(') && value.ends_with(')'), "{value}");
    }
}

#[test]
fn integers_have_a_width_and_a_sign_only_where_it_means_something() {
    for function in functions() {
        for text in function.parameters.iter().chain([&function.returns]) {
            for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                assert!(!["int", "long", "short", "unsigned"].contains(&word), "{}: {text}", function.name);
            }
        }
        assert_eq!(
            function.returns == "int32_t",
            SIGNED.contains(&function.name.as_str()),
            "{}",
            function.name
        );
        for parameter in &function.parameters {
            assert!(!parameter.starts_with("int32_t"), "{}: {parameter}", function.name);
            let milliseconds = parameter.starts_with("int64_t");
            assert_eq!(milliseconds, last_word(parameter) == "timeout_ms", "{}: {parameter}", function.name);
        }
    }
    for (name, fields) in fields() {
        for field in fields {
            assert!(!field.starts_with("int32_t"), "{name}: {field}");
        }
    }
}

#[test]
fn structs_can_grow() {
    let fields = fields();
    assert_eq!(fields.len(), declared("struct", true).len());
    for (name, fields) in fields {
        let first = last_word(fields.first().unwrap());
        let last = last_word(fields.last().unwrap());
        assert!(
            first == "size" || last == "reserved" || HEADS.contains(&name.as_str()),
            "{name} neither starts with its size nor ends in reserved space"
        );
    }
}
