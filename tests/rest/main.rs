//! Patroni's interfaces against views that are built by hand.
mod actions;
mod bodies;
mod health;
mod live;
mod node;
