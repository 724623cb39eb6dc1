//! Killing a whole tree: by descent from its stub, one process at a time by pidfd, again and again until none is left.
//!
//! A round is one reading of `/proc`; between rounds the loop does other things. A tree that keeps growing is frozen
//! together with everything else for a moment, because a stop to all (`kill(-1)`) is atomic against forks.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::{Pid, Signal};

use crate::{
    clock::Moment,
    process_files::ProcessFiles,
    process_table::{Process, ProcessTable, Tree},
    sys::signal_everything,
};

/// Pause between two rounds, milliseconds: the dying need a moment, and the loop needs to run.
const ROUND_MS: [u64; 4] = [1, 2, 5, 10];
/// Rounds that may find new processes before everything is frozen.
const ROUNDS_BEFORE_FREEZE: u32 = 3;
/// Processes killed in one round that make a tree one that could be growing.
const MANY: u32 = 8;
/// Freezes that may fail, and time that they get, before the whole sandbox is killed. Only a second execution that wakes
/// the first one's processes inside every freeze can get there. Milliseconds.
const FREEZES_BEFORE_LAST_RESORT: u32 = 5;
const LAST_RESORT_MS: u64 = 700;
/// Killed processes that are still there after that long (uninterruptible in the kernel) run no code of their own any
/// more; the execution ends without them. Milliseconds.
const UNKILLABLE_MS: u64 = 5_000;

/// A sweep in progress.
pub struct Sweep {
    tree: Tree,
    since: Moment,
    next: Moment,
    rounds: u32,
    growing_rounds: u32,
    signalled: BTreeSet<(i32, u64)>,
    /// What was stopped before the first freeze, and stays so. Later readings could show what a freeze has stopped.
    stopped: Option<BTreeSet<(i32, u64)>>,
    killed: u32,
}

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    Going,
    /// The tree is gone.
    Gone,
    /// Nothing short of ending everything helps.
    LastResort,
}

impl Sweep {
    /// A sweep whose first round is due now.
    pub const fn new(tree: Tree, now: Moment) -> Self {
        let signalled = BTreeSet::new();
        Sweep {
            tree,
            since: now,
            next: now,
            rounds: 0,
            growing_rounds: 0,
            signalled,
            stopped: None,
            killed: 0,
        }
    }

    /// When the next round is due.
    pub const fn next(&self) -> Moment {
        self.next
    }

    /// Processes that got SIGKILL so far, without `main`.
    pub const fn killed(&self) -> u32 {
        self.killed
    }

    /// From now on the tree has lost its stub.
    pub fn lost_stub(&mut self, now: Moment) {
        self.tree = Tree::Escapees;
        self.next = now;
    }

    /// One round. `main` is not counted, `own` are pid 1's stubs and workers.
    pub fn round(
        &mut self,
        files: &ProcessFiles,
        main: Option<Pid>,
        own: &BTreeSet<i32>,
    ) -> Progress {
        let pause = ROUND_MS[(self.rounds as usize).min(ROUND_MS.len() - 1)];
        self.rounds = self.rounds.saturating_add(1);
        self.next = Moment::now().after_ms(pause);
        // Without a table nothing is known, least of all that the tree is gone. It may come back.
        let Ok(table) = files.table() else {
            return if self.overdue() {
                Progress::LastResort
            } else {
                Progress::Going
            };
        };
        let found = table.tree(self.tree, own);
        if found.is_empty() {
            return self.unless_it_hid(files, &table, main, own);
        }
        let grown = found
            .iter()
            .any(|process| !self.signalled.contains(&(process.pid, process.started)));
        self.growing_rounds += u32::from(grown);
        if grown && self.hopeless() {
            return Progress::LastResort;
        }
        let found = match grown && self.growing_rounds > ROUNDS_BEFORE_FREEZE {
            true => self.kill_frozen(files, &table, own),
            false => {
                found
                    .iter()
                    .for_each(|process| files.signal(process, Signal::KILL));
                found
            }
        };
        self.count(&found, main);
        self.unless_unkillable()
    }

    /// What forks and ends all the time can be between two places of `/proc` whenever these are read. A tree that has grown
    /// under the sweep is gone when nothing of it is there while nothing can move.
    fn unless_it_hid(
        &mut self,
        files: &ProcessFiles,
        table: &ProcessTable,
        main: Option<Pid>,
        own: &BTreeSet<i32>,
    ) -> Progress {
        if self.growing_rounds <= 1 && self.killed < MANY {
            return Progress::Gone;
        }
        let found = self.kill_frozen(files, table, own);
        if found.is_empty() {
            return Progress::Gone;
        }
        self.growing_rounds += 1;
        self.count(&found, main);
        match self.hopeless() {
            true => Progress::LastResort,
            false => self.unless_unkillable(),
        }
    }

    /// See [`freeze_and_kill`]; what was stopped before is what the first freeze of the sweep found so.
    fn kill_frozen(
        &mut self,
        files: &ProcessFiles,
        before: &ProcessTable,
        own: &BTreeSet<i32>,
    ) -> Vec<Process> {
        let stopped = self.stopped.get_or_insert_with(|| {
            let stopped = before.all().filter(|process| process.stopped());
            stopped.map(name).collect()
        });
        freeze_and_kill(files, before, self.tree, own, stopped)
    }

    fn count(&mut self, found: &[Process], main: Option<Pid>) {
        let main = main.map_or(0, |pid| pid.as_raw_nonzero().get());
        let fresh = found
            .iter()
            .filter(|process| process.pid != main && !self.signalled.contains(&name(process)));
        self.killed = self
            .killed
            .saturating_add(u32::try_from(fresh.count()).unwrap_or(u32::MAX));
        // Only those still there: as many as the sandbox may have processes, not as many as ever were.
        self.signalled = found.iter().map(name).collect();
    }

    /// It went on for longer than anything that can still run would take.
    pub const fn overdue(&self) -> bool {
        self.next.micros_since(self.since) > UNKILLABLE_MS * 1000
    }

    const fn hopeless(&self) -> bool {
        self.growing_rounds > ROUNDS_BEFORE_FREEZE + FREEZES_BEFORE_LAST_RESORT
            && self.next.micros_since(self.since) > LAST_RESORT_MS * 1000
    }

    fn unless_unkillable(&self) -> Progress {
        if self.overdue() {
            Progress::Gone
        } else {
            Progress::Going
        }
    }
}

/// What names a process for good.
const fn name(process: &Process) -> (i32, u64) {
    (process.pid, process.started)
}

/// Stops everything at once, kills the tree, and lets the others go on that were not stopped before.
fn freeze_and_kill(
    files: &ProcessFiles,
    before: &ProcessTable,
    tree: Tree,
    own: &BTreeSet<i32>,
    stopped_before: &BTreeSet<(i32, u64)>,
) -> Vec<Process> {
    let _ = signal_everything(libc::SIGSTOP);
    let (targets, others) = match files.table() {
        Ok(table) => {
            let targets = table.tree(tree, own);
            targets
                .iter()
                .for_each(|process| files.signal(process, Signal::KILL));
            let others = to_continue(&table, &targets, stopped_before);
            (targets, others)
        }
        Err(_) => (
            Vec::new(),
            before
                .all()
                .filter(|process| !stopped_before.contains(&name(process)))
                .copied()
                .collect(),
        ),
    };
    others
        .iter()
        .for_each(|process| files.signal(process, Signal::CONT));
    targets
}

/// Children before parents, so that a shell never sees its job stopped.
fn to_continue(
    table: &ProcessTable,
    targets: &[Process],
    stopped_before: &BTreeSet<(i32, u64)>,
) -> Vec<Process> {
    let targets: BTreeSet<i32> = targets.iter().map(|process| process.pid).collect();
    let mut by_depth: BTreeMap<usize, Vec<Process>> = BTreeMap::new();
    for process in table
        .all()
        .filter(|process| process.pid != 1 && process.alive())
    {
        if !targets.contains(&process.pid) && !stopped_before.contains(&name(process)) {
            by_depth
                .entry(table.depth(process.pid))
                .or_default()
                .push(*process);
        }
    }
    by_depth.into_values().rev().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_freeze_others_go_on_children_first_unless_they_were_stopped_before() {
        let process = |pid, parent| Process {
            pid,
            parent,
            state: b'T',
            threads: 1,
            started: 0,
            resident_pages: 0,
        };
        let all = [
            process(1, 0),
            process(2, 1),
            process(3, 2),
            process(4, 3),
            process(5, 1),
            process(6, 5),
        ];
        let table: ProcessTable = all.into_iter().collect();
        let targets = [process(6, 5)];
        let continued = to_continue(&table, &targets, &BTreeSet::from([(3, 0)]));
        assert_eq!(
            continued
                .iter()
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
            [4, 2, 5]
        );
    }
}
