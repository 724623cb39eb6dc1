//! Limits that the kernel cannot enforce here: watched, and enforced by killing.
//!
//! Soft means soft: between two looks a program can take more than its limit.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::{CWD, Mode, OFlags, openat};
use wire::{ExecutionKey, SoftLimits};

use crate::{
    clock::Moment,
    disk_walk::DiskWalk,
    execution::Execution,
    process_files::ProcessFiles,
    process_table::{Process, ProcessTable, Tree},
    sys::page_size,
};

/// Between two looks, milliseconds.
const INTERVAL_MS: u64 = 250;
/// Entries of the state directory counted at one look: about a millisecond.
const ENTRIES_EACH: usize = 500;

/// Who has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// The execution that uses most.
    Execution(ExecutionKey),
    /// All: what lies on a disk belongs to none of them.
    All,
}

/// The watch.
pub struct SoftWatch {
    limits: SoftLimits,
    next: Moment,
    state: Option<DiskWalk>,
}

impl SoftWatch {
    /// Watches the session's disk too, which is where `state` lies.
    pub fn new(limits: SoftLimits, state: &str, now: Moment) -> Self {
        let open = || {
            openat(
                CWD,
                state,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let state = (limits.state_bytes > 0)
            .then(open)
            .and_then(Result::ok)
            .map(DiskWalk::new);
        SoftWatch {
            limits,
            next: now,
            state,
        }
    }

    /// When to look next; never while nothing runs or nothing is limited.
    pub fn next_due(&self, executions: &[Execution]) -> Option<Moment> {
        let running = executions.iter().any(|execution| !execution.ended());
        (running && self.limits != SoftLimits::default()).then_some(self.next)
    }

    /// Looks, if that is due.
    pub fn check(
        &mut self,
        now: Moment,
        files: &ProcessFiles,
        own: &BTreeSet<i32>,
        executions: &[Execution],
    ) -> Option<Offence> {
        if self.next_due(executions).is_none_or(|due| due > now) {
            return None;
        }
        self.next = now.after_ms(INTERVAL_MS);
        if self
            .state
            .as_mut()
            .is_some_and(|walk| walk.step(ENTRIES_EACH) > self.limits.state_bytes)
        {
            return Some(Offence::All);
        }
        if self.limits.memory_bytes == 0 && self.limits.pids == 0 {
            return None;
        }
        let table = files.table().ok()?;
        let trees: BTreeMap<ExecutionKey, Vec<Process>> = executions
            .iter()
            .filter_map(|execution| {
                execution
                    .stub
                    .map(|stub| (execution.key, stub.as_raw_nonzero().get()))
            })
            .map(|(key, stub)| (key, table.tree(Tree::OfStub(stub), own)))
            .collect();
        over(self.limits.pids, &trees, |process| process.threads)
            .or_else(|| self.over_memory(files, &table, &trees))
            .map(Offence::Execution)
    }

    fn over_memory(
        &self,
        files: &ProcessFiles,
        table: &ProcessTable,
        trees: &BTreeMap<ExecutionKey, Vec<Process>>,
    ) -> Option<ExecutionKey> {
        let page = page_size();
        let resident = |process: &Process| process.resident_pages.saturating_mul(page);
        // What is shared counts for each here, so this is never too little: the exact figure is dear and rarely needed.
        let most: u64 = table.all().map(resident).sum();
        if self.limits.memory_bytes == 0 || most <= self.limits.memory_bytes {
            return None;
        }
        over(self.limits.memory_bytes, trees, |process| {
            files
                .proportional_bytes(process.pid)
                .unwrap_or_else(|| resident(process))
        })
    }
}

/// The tree that uses most, when all together use more than `limit` (0: no limit).
fn over(
    limit: u64,
    trees: &BTreeMap<ExecutionKey, Vec<Process>>,
    use_of: impl Fn(&Process) -> u64,
) -> Option<ExecutionKey> {
    if limit == 0 {
        return None;
    }
    let uses: Vec<(u64, ExecutionKey)> = trees
        .iter()
        .map(|(key, tree)| (tree.iter().map(&use_of).sum(), *key))
        .collect();
    let all: u64 = uses.iter().map(|(used, _)| used).sum();
    if all > limit {
        uses.into_iter().max().map(|(_, key)| key)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(threads: &[u64]) -> Vec<Process> {
        let process = |threads: &u64| Process {
            pid: 2,
            parent: 1,
            state: b'S',
            threads: *threads,
            started: 0,
            resident_pages: 0,
        };
        threads.iter().map(process).collect()
    }

    #[test]
    fn the_execution_that_uses_most_is_the_one_to_go() {
        let trees = BTreeMap::from([([1; 16], tree(&[3, 3])), ([2; 16], tree(&[7]))]);
        let threads = |process: &Process| process.threads;
        assert_eq!(over(12, &trees, threads), Some([2; 16]));
        assert_eq!(over(13, &trees, threads), None);
        assert_eq!(over(0, &trees, threads), None);
    }
}
