//! Which PostgreSQL the demo runs: what a daemon with the demo's configuration would find itself.
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Error, Result, ensure};

use super::plan::Plan;
use crate::host::programs::{find_bin_dir, program_version};
use crate::pure::config::load;

/// Versions that Surus manages.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// A directory with a complete set of programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
}

/// In the plan's `bin_dir` if it has one; else PATH, then the distributions' places.
pub fn find(plan: &Plan) -> Result<Binaries> {
    let loaded = load(&plan.config("n1"), &plan.yaml(0)?, &BTreeMap::new());
    let config = loaded.map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Error::msg(faults.join("; "))
    })?;
    let postgresql = config.postgresql.context("the demo's nodes are no witnesses")?;
    let dir = find_bin_dir(&postgresql).map_err(Error::msg).context(
        "no PostgreSQL server; scripts/install-postgresql installs one on Debian and Ubuntu, \
         --bin-dir names the directory of another",
    )?;
    let version = program_version(&dir)
        .with_context(|| format!("`{}/postgres --version` has no answer", dir.display()))?;
    ensure!(
        MAJORS.contains(&version.major()),
        "{} holds PostgreSQL {version}, but Surus manages 13 to 18; name another with --bin-dir",
        dir.display()
    );
    Ok(Binaries { dir, major: version.major() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::{Passwords, Ports};

    #[test]
    fn a_directory_without_programs_is_refused_by_name() {
        let empty = tempfile::tempdir().expect("a temporary directory");
        let plan = Plan {
            dir: "/d".into(),
            nodes: 1,
            ports: Ports::default(),
            bin_dir: Some(empty.path().into()),
            version: 0,
            passwords: Passwords::draw().expect("random bytes"),
        };
        let error = format!("{:#}", find(&plan).expect_err("there is nothing in it"));
        assert!(error.contains("has no postgres, pg_ctl, initdb"), "{error}");
    }
}
