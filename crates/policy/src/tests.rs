//! Whole decisions, through the public interface.

mod commands;
mod configuration;
mod create;
mod docker_options;
mod fixture;
mod hostile;
mod network;
mod properties;
mod protected;
mod roles;
mod transfers;
