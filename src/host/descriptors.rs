//! How many files may be open, and how many of them are kept from strangers (SEC-40).
use rustix::process::{Resource, getrlimit, setrlimit};

/// More than this is never asked for.
const LIMIT_MAX: u64 = 65_536;
/// Kept for the log, peers, programs and looks at PostgreSQL: a quarter, but at least so many.
const RESERVED_MIN: u64 = 256;

/// Raises the soft limit to the hard one. What is not allowed stays as it is.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
}

/// Connections that the REST interface may hold open.
pub fn for_strangers(wanted_max: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(LIMIT_MAX);
    share(limit, wanted_max)
}

/// Of a very low limit half is left: an interface that answers nobody helps nobody.
fn share(limit: u64, wanted_max: usize) -> usize {
    let left = limit.saturating_sub(RESERVED_MIN.max(limit / 4)).max(limit / 8);
    wanted_max.min(usize::try_from(left).unwrap_or(wanted_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_and_at_least_256_are_kept() {
        assert_eq!(share(65_536, 512), 512);
        assert_eq!(share(1024, 4096), 768);
        assert_eq!(share(512, 4096), 256);
        assert_eq!(share(300, 512), 44);
        assert_eq!(share(128, 512), 16);
    }
}
