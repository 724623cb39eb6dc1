//! Long runs of the real binary: kills at random times, leases, many sessions after each other. `scripts/soak` runs them;
//! each test says that it is skipped unless `SOAK=1`.
//!
//! `SOAK_SEED` repeats a run, `SOAK_ROUND` one round of it; `SOAK_SCALE` multiplies all counts, `SOAK_KILLS` sets that of
//! the killed servers. What a kill meets is a matter of the machine's timing, too, so a repeated seed makes a failure
//! likely, not certain.
#![allow(clippy::print_stderr, reason = "a long run tells how far it is")]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod control;
mod fronts;
mod kills;
mod leases;
mod limits;
mod place;
mod plan;
mod sequence;
