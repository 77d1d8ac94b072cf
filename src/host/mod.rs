//! The real world: actix, tokio, sled, sockets, processes and the clock.
pub mod clock;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod postgres;
pub mod programs;
pub mod request;
