//! Whole decisions, through the public interface.

mod callers;
mod commands;
mod configuration;
mod create;
mod docker_options;
mod fixture;
mod hostile;
mod network;
mod properties;
mod protected;
mod rates;
mod roles;
mod transfers;
