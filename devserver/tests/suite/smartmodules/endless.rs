//! Modules that never return: they hold up neither other clients nor the end of the server. In a process of its own, since
//! only the end of the process ends them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use fluvio_controlplane_metadata::topic::TopicSpec;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::support::{Stream, ad_hoc, batch_of, produce_through};
use crate::common::{Raw, SOON, create, produce, unit_of};

/// A server that is killed if the test fails before it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        if self.0.kill().is_ok() {
            self.0.wait().expect("wait");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_never_ends_stops_nobody_else() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_fluvio-devserver"));
    server.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut server = Running(server.spawn().expect("start"));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("stdout")).read_line(&mut line).expect("the ready line");
    let endpoint = line.trim().rsplit('=').next().expect("an endpoint");

    let mut controller = Raw::connect(endpoint).await;
    let unit = unit_of(&mut controller).await;
    let spec = TopicSpec::new_computed(1, 1, None);
    assert!(create(&mut controller, "t", spec).await.error_code.is_ok());
    let mut connection = Raw::connect(&unit).await;
    assert!(produce(&mut connection, "t", &[&batch_of(&["apple"])]).await[0].0.is_ok());

    // More of them than the runtime has threads: two streams, one that has left, and a produce request.
    let mut endless = Vec::new();
    for _ in 0..3 {
        endless.push(Stream::open(&unit, vec![ad_hoc("endless.wat")]).await);
    }
    endless.pop();
    let mut stuck = Raw::connect(&unit).await;
    let sets = [batch_of(&["apple"])];
    let unanswered = produce_through(&mut stuck, vec![ad_hoc("endless.wat")], &sets);
    let others = async {
        // The connections of those streams still answer, and so do others.
        for stream in &mut endless {
            stream.acknowledge(0).await;
        }
        assert!(produce(&mut connection, "t", &[&batch_of(&["banana"])]).await[0].0.is_ok());
        let answer = Stream::open(&unit, vec![ad_hoc("filter")]).await.answer().await;
        assert_eq!(answer.values(), ["apple", "banana"]);
    };
    tokio::select! {
        written = unanswered => panic!("{written:?}"),
        () = others => {}
    }

    let terminated = Command::new("kill").arg(server.0.id().to_string()).status().expect("kill");
    assert!(terminated.success());
    let ended = spawn_blocking(move || server.0.wait().expect("wait"));
    assert!(timeout(SOON, ended).await.expect("the server ends").expect("wait").success());
}
