//! Whole decisions, through the public interface.

mod commands;
mod configuration;
mod create;
mod fixture;
mod hostile;
mod properties;
mod protected;
mod roles;
mod transfers;
