//! The tests of the server, seen from outside; one program, because each would link the SmartModule engine anew.

mod common;

mod command_line;
mod control;
mod counters;
mod durable;
mod faults;
mod faults_cluster;
mod full_disk;
mod hostile;
mod kills;
mod latency;
mod leaders;
mod load;
mod objects;
mod offsets;
mod process;
mod replay;
#[cfg(feature = "smartengine")]
mod smartmodules;
mod stranger;
mod streams;
mod tls;
mod units;
mod watches;
mod window;
#[cfg(not(feature = "smartengine"))]
mod without_engine;
