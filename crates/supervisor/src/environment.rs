//! The environment that every execution gets: secrets among it, so it lives in the memory of this process alone, which
//! is not dumpable. What this does not stop: an execution that got a secret may write it down.

use wire::{Fault, FaultKind, MAX_ENVIRONMENT_BYTES};

use crate::fault::fault;

/// `NAME=value` each.
#[derive(Default)]
pub struct Environment(Vec<Vec<u8>>);

impl Environment {
    /// Replaces all of it, or nothing when it is refused.
    pub fn set(&mut self, env: Vec<Vec<u8>>) -> Result<(), Fault> {
        let invalid = |step| Err(fault(FaultKind::Invalid, step));
        // The kernel counts the end of each string, too.
        if env.iter().map(|entry| entry.len() + 1).sum::<usize>() > MAX_ENVIRONMENT_BYTES {
            return invalid("too large an environment");
        }
        if env.iter().any(|entry| !entry.contains(&b'=')) {
            return invalid("an environment entry without a value");
        }
        // Refused here, or every later start would be.
        if env.iter().any(|entry| entry.contains(&0)) {
            return invalid("a NUL in a string");
        }
        self.0 = env;
        Ok(())
    }

    /// What a start gets: its own variables, and all others from here.
    pub fn merged<'a>(&'a self, own: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
        let kept = self
            .0
            .iter()
            .filter(|entry| !own.iter().any(|other| name(other) == name(entry)));
        kept.chain(own).map(Vec::as_slice).collect()
    }
}

fn name(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or(entry)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn entries(entries: &[&str]) -> Vec<Vec<u8>> {
        entries
            .iter()
            .map(|entry| entry.as_bytes().to_vec())
            .collect()
    }

    #[test]
    fn a_starts_own_variables_win_by_their_whole_name() {
        let mut environment = Environment::default();
        environment
            .set(entries(&["A=session", "AB=session", "C=x=y"]))
            .unwrap();
        let own = entries(&["A=own", "C=", "D=own"]);
        let due: [&[u8]; 4] = [b"AB=session", b"A=own", b"C=", b"D=own"];
        assert_eq!(environment.merged(&own), due);
    }

    #[test]
    fn what_is_refused_leaves_what_was_there() {
        let mut environment = Environment::default();
        let full = [b"A=".to_vec(), vec![b'x'; MAX_ENVIRONMENT_BYTES - 3]].concat();
        environment.set(vec![full.clone()]).unwrap();
        let refused = [
            vec![full.clone(), b"B=".to_vec()],
            entries(&["no value"]),
            entries(&["A=\0"]),
        ];
        for refused in refused {
            let fault = environment.set(refused).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Invalid);
            assert_eq!(environment.merged(&[]), [full.as_slice()]);
        }
    }
}
