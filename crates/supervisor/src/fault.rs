//! Faults as the wire knows them.

use rustix::io::Errno;
use wire::{Fault, FaultKind};

/// A fault of the request itself.
pub fn fault(kind: FaultKind, step: &str) -> Fault {
    Fault {
        kind,
        errno: 0,
        step: step.to_owned(),
    }
}

/// A system call that failed.
pub fn failed(kind: FaultKind, step: &str, errno: Errno) -> Fault {
    Fault {
        kind,
        errno: errno.raw_os_error(),
        step: step.to_owned(),
    }
}

/// [`failed`] as a closure for `map_err`.
pub fn system(step: &'static str) -> impl Fn(Errno) -> Fault {
    move |errno| failed(FaultKind::System, step, errno)
}
