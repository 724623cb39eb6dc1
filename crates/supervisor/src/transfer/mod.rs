//! Moving trees in and out, each in a process of its own: forked from pid 1 and never executed, so that it is as little
//! open to the agent as pid 1 is, and blocking, because it does nothing else.
//!
//! What is atomic: a new destination appears complete, by one rename, and a file takes the place of a file by one. Into an existing directory everything is staged
//! first (a hidden directory in the destination) and checked against what is there; then file after file is renamed
//! into place, each at once, but not all together.

mod channel;
mod export;
mod import;
mod merge;
mod paths;
mod tree;

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{self, Errno},
    process::Pid,
};
use wire::{Fault, FaultKind, ToHost, TransferKind, TransferSpec};

use self::{channel::Channel, import::Destination};
use crate::{
    fault::{fault, system},
    link::Link,
    sys::{self, Forked},
};

/// Transfers at once. More wait at the host.
const MAX_WORKERS: usize = 8;

/// The transfers that run.
pub struct Workers {
    /// Part of the names of staging directories: random, one for each supervisor.
    tag: String,
    running: Vec<Worker>,
}

struct Worker {
    pid: Pid,
    /// What an import leaves behind when it is killed.
    staging: Option<Destination>,
}

impl Workers {
    /// No transfer yet.
    pub fn new(epoch: &[u8; 16]) -> Self {
        let tag = epoch
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Workers {
            tag,
            running: Vec::new(),
        }
    }

    /// Dials the data connection, so that its peer is pid 1, and forks the worker.
    pub fn open(
        &mut self,
        spec: TransferSpec,
        link: &mut Link,
        own: &mut std::collections::BTreeSet<i32>,
    ) -> Result<(), Fault> {
        if self.running.len() >= MAX_WORKERS {
            return Err(fault(FaultKind::TooMany, "too many transfers"));
        }
        let staging = match &spec.kind {
            TransferKind::Import { path, .. } => {
                let name = format!(".incoming-{}-{:x}", self.tag, spec.transfer);
                Some(Destination::parse(path, name.into_bytes())?)
            }
            TransferKind::Export { path } => {
                paths::absolute(path)?;
                None
            }
        };
        let socket = link
            .dial_data()
            .map_err(system("dial the data connection"))?;
        set_blocking(&socket).map_err(system("set up the data connection"))?;
        let pid = match sys::fork().map_err(system("fork"))? {
            Forked::Child => sys::exit_now(work(socket, &spec, staging.as_ref())),
            Forked::Parent(pid) => pid,
        };
        own.insert(pid.as_raw_nonzero().get());
        self.running.push(Worker { pid, staging });
        Ok(())
    }

    /// A child has ended, perhaps one of these. One that was killed could not clean up, so another process does.
    pub fn ended(&mut self, pid: Pid, well: bool, own: &mut std::collections::BTreeSet<i32>) {
        let Some(index) = self.running.iter().position(|worker| worker.pid == pid) else {
            return;
        };
        let Some(staging) = self.running.swap_remove(index).staging else {
            return;
        };
        if well {
            return;
        }
        match sys::fork() {
            Ok(Forked::Child) => {
                let _ = sys::close_all_except(&[]);
                staging.remove();
                sys::exit_now(0)
            }
            // Not kept for a third try: an agent that kills every worker only soils its own disk.
            Ok(Forked::Parent(pid)) => drop(own.insert(pid.as_raw_nonzero().get())),
            Err(_) => {}
        }
    }
}

/// The worker's life; its exit status says whether it cleaned up behind itself.
fn work(socket: OwnedFd, spec: &TransferSpec, staging: Option<&Destination>) -> i32 {
    if sys::close_all_except(&[socket.as_raw_fd()]).is_err() {
        return 1;
    }
    sys::keep_freed_memory();
    let Ok(mut channel) = Channel::new(socket) else {
        return 1;
    };
    if channel
        .send(&ToHost::TransferHello {
            transfer: spec.transfer,
        })
        .is_err()
    {
        return 0;
    }
    match (&spec.kind, staging) {
        (TransferKind::Export { path }, _) => export::run(&mut channel, path, spec),
        (TransferKind::Import { refuse, .. }, Some(destination)) => {
            import::run(&mut channel, destination, refuse, spec);
        }
        (TransferKind::Import { .. }, None) => return 1,
    }
    0
}

fn set_blocking(socket: &OwnedFd) -> io::Result<()> {
    let flags = fcntl_getfl(socket)?;
    fcntl_setfl(socket, flags.difference(OFlags::NONBLOCK)).map_err(|errno: Errno| errno)
}
