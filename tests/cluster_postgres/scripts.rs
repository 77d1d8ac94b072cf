//! Scripts of the operator's, and the directory that they lie in.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A directory that every account may write to.
pub fn scripts() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    dir
}

/// A script that anybody may run; its path.
pub fn plain(dir: &Path, name: &str, body: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("it can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
    path.display().to_string()
}

/// The same, and it adds its arguments as a line to a file beside it.
pub fn script(dir: &Path, name: &str, end: &str) -> String {
    let log = dir.join(name).display().to_string() + ".log";
    plain(dir, name, &format!("echo \"$@\" >> {log}\n{end}"))
}

/// What such a script was called with.
pub fn lines(script: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("{script}.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
