//! A shutdown that is written and held up by somebody else ends, with everybody who was left.
use std::fs;
use std::path::Path;
use std::time::Duration;

use surus::host::postgres::start::Ready;
use surus::host::postgres::stop::StoppedBy;
use surus::pure::deed::StopMode;

use super::place::{LONG, Place, files, sql};

/// Longer than this test is given.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_archive_command_that_hangs_holds_up_no_stop() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    let note = server.state_dir.join("archiving");
    let mut files = files(&server, None);
    files.postgresql_conf.get_or_insert_default().push_str(&format!(
        "archive_mode = on\narchive_command = 'echo $$ > {}; exec sleep 3600'\n",
        note.display()
    ));
    server.start(&files, LONG, Ready::ReadWrite).await.expect("start");
    sql(&server, "CREATE TABLE t AS SELECT 1 AS x").await;
    sql(&server, "SELECT pg_catalog.pg_switch_wal()").await;
    let command = loop {
        let text = fs::read_to_string(&note).unwrap_or_default();
        if let Some(pid) = text.strip_suffix('\n') {
            break pid.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let all = server.presence().expect("a look");
    let stopped = server.stop(StopMode::Fast, Some(NEVER)).await.expect("stop");
    assert!(stopped.clean, "{stopped:?}");
    assert!(stopped.by > StoppedBy::Fast, "{stopped:?}");
    assert_eq!(server.presence(), Ok(Default::default()));
    let pids = all.postmaster.into_iter().chain(all.others).map(|pid| pid.to_string());
    for pid in pids.chain([command]) {
        assert!(fs::read_link(Path::new("/proc").join(&pid).join("cwd")).is_err(), "{pid} lives");
    }
}
