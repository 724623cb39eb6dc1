//! Replacing the process image.

use std::ffi::{CStr, CString, c_char};

use rustix::io::Errno;

use super::fork::last_error;

/// Strings with the pointer array that `execve` wants, made before the fork.
pub struct CStringArray {
    /// What `pointers` points into.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStringArray {
    /// `None` when a string holds a NUL.
    pub fn new<'a>(strings: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let strings: Vec<CString> = strings
            .into_iter()
            .map(CString::new)
            .collect::<Result<_, _>>()
            .ok()?;
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Some(CStringArray {
            _strings: strings,
            pointers,
        })
    }
}

/// Becomes another program; comes back only when that failed.
pub fn execute(program: &CStr, arguments: &CStringArray, environment: &CStringArray) -> Errno {
    // JUSTIFICATION: no safe crate wraps execve with a given environment in a forked child.
    // SAFETY: both arrays end with a null pointer and point into strings that the borrowed structs own.
    unsafe {
        libc::execve(
            program.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    last_error()
}
