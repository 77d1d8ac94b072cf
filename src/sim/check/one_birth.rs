//! P3: a scope is initialised at most once.
use super::super::world::World;

impl World {
    pub fn check_one_birth(&mut self, identity: Option<String>) {
        match (&self.checks.identity, identity) {
            (None, Some(new)) => self.checks.identity = Some(new),
            (Some(old), new) if new.as_ref() != Some(old) => {
                let what = format!("the cluster was {old} and is now {new:?}");
                self.checks.broken("P3", what);
            }
            (None, None) | (Some(_), _) => {}
        }
    }
}
