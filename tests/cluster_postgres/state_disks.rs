//! Disks for the Raft log and the journal that a test may freeze.
use super::cluster::Cluster;
use super::disk::{Loop, make_image};

/// A disk of its own for the state directory of every node; `None` where there are no loop devices.
pub fn state_disks(cluster: &Cluster) -> Option<Vec<Loop>> {
    let attach = |k: usize| {
        let image = cluster.nodes[k].dir.join("disk");
        let disk =
            make_image(&image).and_then(|()| Loop::attach(&image, cluster.nodes[k].state()))?;
        cluster.give_away(&disk.mount);
        Ok(disk)
    };
    let disks: Result<Vec<Loop>, String> = cluster.numbers().into_iter().map(attach).collect();
    match disks {
        Ok(disks) => Some(disks),
        Err(why) => {
            assert!(std::env::var_os("SURUS_REQUIRE_LOOP").is_none(), "{why}");
            eprintln!("SKIPPED: no disk can be frozen here: {why}");
            None
        }
    }
}
