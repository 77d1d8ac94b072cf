//! A disk that a test may cut off or freeze.
#![allow(dead_code)] // each test uses its part
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in a file, on a loop device; unmounted when dropped.
pub struct Loop {
    device: String,
    pub mount: PathBuf,
}

pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("the path is plain")
}

impl Loop {
    /// With direct I/O: what the file system wrote to its device is in the file, nothing else.
    pub fn attach(image: &Path, mount: PathBuf) -> Result<Loop, String> {
        fs::create_dir_all(&mount).map_err(|e| e.to_string())?;
        let device = run("losetup", &["--direct-io=on", "--show", "-f", text(image)])?;
        let attached = Loop { device: device.clone(), mount };
        run("mount", &["-t", "ext4", &device, text(&attached.mount)])?;
        Ok(attached)
    }
}

impl Loop {
    /// Whoever writes here waits, and cannot even be killed, until the result is dropped.
    pub fn freeze(&self) -> Result<Frozen<'_>, String> {
        self.stall()?;
        Ok(Frozen(self))
    }

    /// The same until [`Loop::thaw`].
    pub fn stall(&self) -> Result<(), String> {
        run("fsfreeze", &["-f", text(&self.mount)]).map(|_| ())
    }

    pub fn thaw(&self) -> Result<(), String> {
        run("fsfreeze", &["-u", text(&self.mount)]).map(|_| ())
    }
}

pub struct Frozen<'a>(&'a Loop);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.thaw().expect("a frozen disk can be thawed");
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("umount", &["-l", text(&self.mount)]).ok();
        run("losetup", &["-d", &self.device]).ok();
    }
}

pub fn make_image(image: &Path) -> Result<(), String> {
    File::create(image).and_then(|f| f.set_len(64 << 20)).map_err(|e| e.to_string())?;
    run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", text(image)]).map(|_| ())
}
