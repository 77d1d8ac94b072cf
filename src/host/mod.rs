//! The real world: actix, tokio, sled, sockets, processes and the clock.
pub mod clock;
pub mod config;
pub mod ctl;
pub mod programs;
pub mod postgres;
pub mod durable;
pub mod frame;
pub mod guard;
pub mod journal;
pub mod peer;
pub mod demo;
pub mod request;
pub mod store;
pub mod dump;
pub mod rest;
