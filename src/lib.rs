//! Surus keeps a PostgreSQL cluster alive.
//!
//! Three modules, three ideas: [`pure`] is what we decide, [`host`] is the real world, [`sim`] is
//! the made-up one. See `docs` in each.
pub mod host;
pub mod pure;
#[cfg(feature = "sim")]
pub mod sim;
