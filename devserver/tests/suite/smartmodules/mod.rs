//! SmartModules of our own (`tests/data/smartmodules`), run by the real engine: seen frame by frame, and by the `fluvio`
//! crate's client.

mod built;
mod consume;
mod consume_errors;
mod deduplication;
mod endless;
mod produce;
mod stranger;
mod support;
