//! Pid 1 of every sandbox: dials the host, starts and ends executions, keeps their output, moves files, and ends the
//! sandbox when its lease runs out.
//!
//! One thread, one `poll` loop, no runtime. The agent runs under the same uid and is assumed to attack: this process and
//! the stubs it forks are not dumpable, hold every descriptor that matters, and take no signal but `SIGCHLD`.
//!
//! Reading order: `confinement` and `attestation` (start), `supervisor` (the loop) with `requests`, then one execution:
//! `environment` → `spawn` → `stub` → `execution` → `sweep`, with `output`, `spool` and `input`; `relay` is the way out; `transfer` stands apart, in its own
//! processes, and so does `trial`, which is no pid 1 at all but a program that tries the walls from inside. `unsafe` lives in `sys` only.

#![deny(unsafe_code)]

mod attestation;
mod beneath;
mod carrier;
mod clock;
mod confinement;
mod disk_walk;
mod environment;
mod execution;
mod fault;
mod input;
mod link;
mod output;
mod parked;
mod process_files;
mod process_table;
mod relay;
mod requests;
mod soft_limits;
mod spawn;
mod spool;
mod stub;
mod supervisor;
mod sweep;
#[allow(unsafe_code)]
mod sys;
mod transfer;
mod trial;

use std::process::ExitCode;

use wire::{SupervisorArguments, TRIAL_OPTION};

/// Exit status of a start that was refused: nothing ran.
const EXIT_REFUSED: u8 = 70;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // The only thing ever written here: the backend keeps pid 1's standard error for its log.
            let _ = rustix::io::write(
                rustix::stdio::stderr(),
                format!("supervisor: {why}\n").as_bytes(),
            );
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

fn start() -> Result<(), String> {
    if std::env::args().skip(1).eq([TRIAL_OPTION]) {
        return trial::run();
    }
    let arguments =
        SupervisorArguments::parse(std::env::args().skip(1)).map_err(|error| error.to_string())?;
    // Everything below kills with `kill(-1)` sooner or later.
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        return Err("refuses to run as anything but pid 1".to_owned());
    }
    sys::prepare_process().map_err(|errno| format!("cannot prepare the process: {errno}"))?;
    let confinement = confinement::confine(&arguments)?;
    let attestation =
        attestation::read(&confinement).map_err(|error| format!("cannot read /proc: {error}"))?;
    supervisor::Supervisor::new(arguments, attestation)
        .map_err(|errno| format!("cannot set up: {errno}"))?
        .run()
        .map_err(|errno| format!("the event loop failed: {errno}"))
}
