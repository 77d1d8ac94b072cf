//! A disk that is too full for a copy or a rewind.
use std::fs;
use std::path::Path;

use surus::host::postgres::Server;

use crate::data::Mount;
use crate::place::*;

const MB: u64 = 1024 * 1024;

fn fill(dir: &Path, mb: u64) {
    fs::create_dir_all(dir).expect("mkdir");
    fs::write(dir.join("file"), vec![1; (mb * MB) as usize]).expect("written");
}

/// It says what may go, and goes on when that is gone; what is replaced counts as room.
#[tokio::test]
async fn a_repair_waits_for_room() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let disk = server.data_dir.with_file_name("disk");
    let Some(_mount) = Mount::tmpfs_of(&disk, "200m") else {
        eprintln!("SKIPPED: no right to mount");
        return;
    };
    let server = Server { data_dir: disk.join("data"), ..server };
    server.has_room(None, false).await.expect("an empty disk, and no directory yet");
    server.has_room(Some(100 * MB), false).await.expect("as large as that");
    let refused = server.has_room(Some(150 * MB), false).await.expect_err("larger");
    assert!(refused.contains("nothing was set aside"), "{refused}");

    fill(&server.data_dir, 30);
    let (aside, others) = (disk.join("data.diverged.2"), disk.join("data.old"));
    fill(&aside, 110);
    fill(&others, 1);
    let refused = server.has_room(None, false).await.expect_err("59 MB are free");
    assert!(refused.contains(&format!("{} (110 MB)", aside.display())), "{refused}");
    assert!(!refused.contains("data.old"), "not ours to offer: {refused}");
    server.has_room(None, true).await.expect("with the 30 MB that are replaced");
    fs::remove_dir_all(&aside).expect("removed");
    server.has_room(None, false).await.expect("there is room again");
}
