//! The real world: actix, tokio, sled, sockets, processes and the clock.
pub mod clock;
pub mod demo;
pub mod ctl;
pub mod config;
pub mod ctl;
pub mod programs;
pub mod postgres;
pub mod request;
