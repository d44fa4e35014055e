//! The files of the metadata: changes, one line for those that happen together. A snapshot is a single line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::change::{Change, Encoded};
use crate::log::sync_directory;

pub(super) const SNAPSHOT: &str = "snapshot.json";
const SNAPSHOT_IN_WORK: &str = "snapshot.json.new";

/// All objects of a server: by kind, then by name.
pub(super) type Objects = BTreeMap<(String, String), Encoded>;

/// A line: changes that happen together, and the checksum of their text.
#[derive(Serialize, Deserialize)]
struct Line {
    crc32c: u32,
    changes: Vec<Change>,
}

pub(super) fn line_of(changes: Vec<Change>) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line { crc32c: checksum(&changes)?, changes })?;
    line.push(b'\n');
    Ok(line)
}

/// Of the changes as they are written; there is one way to write them.
fn checksum(changes: &[Change]) -> io::Result<u32> {
    Ok(crc32c::crc32c(&serde_json::to_vec(changes)?))
}

pub(super) fn apply(objects: &mut Objects, changes: Vec<Change>) {
    for Change { kind, name, object } in changes {
        match object {
            Some(object) => objects.insert((kind, name), object),
            None => objects.remove(&(kind, name)),
        };
    }
}

/// Applies the lines of a file. With `torn`, its last line may lack an end, and is no line then. Returns the bytes of the
/// lines.
pub(super) fn read_file(path: &Path, objects: &mut Objects, torn: bool) -> anyhow::Result<u64> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut bytes = 0;
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if torn && !line.ends_with(b"\n") {
            tracing::warn!("{}: the last line was never ended and is left out", path.display());
            break;
        }
        let changes = read_line(line).with_context(|| {
            format!(
                "line {} of {} is damaged: restore the file from a copy, or remove the line to go on without the change",
                number + 1,
                path.display()
            )
        })?;
        apply(objects, changes);
        bytes += line.len() as u64;
    }
    Ok(bytes)
}

fn read_line(line: &[u8]) -> anyhow::Result<Vec<Change>> {
    let line: Line = serde_json::from_slice(line)?;
    let computed = checksum(&line.changes)?;
    ensure!(computed == line.crc32c, "its checksum is {computed}, not {}", line.crc32c);
    Ok(line.changes)
}

/// Replaces the snapshot. Returns its size.
pub(super) fn write_snapshot(dir: &Path, objects: &Objects) -> io::Result<u64> {
    let change = |((kind, name), object): (&(String, String), &Encoded)| Change {
        kind: kind.clone(),
        name: name.clone(),
        object: Some(object.clone()),
    };
    let text = line_of(objects.iter().map(change).collect())?;
    let in_work = dir.join(SNAPSHOT_IN_WORK);
    let written = || -> io::Result<()> {
        let file = File::create(&in_work)?;
        file.write_all_at(&text, 0)?;
        file.sync_all()?;
        fs::rename(&in_work, dir.join(SNAPSHOT))
    };
    if let Err(error) = written() {
        // What there is of it would only take the room that was missing.
        let _ = fs::remove_file(&in_work);
        return Err(error);
    }
    sync_directory(dir)?;
    Ok(text.len() as u64)
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
