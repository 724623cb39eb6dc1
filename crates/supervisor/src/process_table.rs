//! Who descends from whom: pure, over one reading of `/proc`.

use std::collections::{BTreeMap, BTreeSet};

/// One process, from `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub parent: i32,
    /// `R`, `S`, `T`, `Z`, …
    pub state: u8,
    /// Threads.
    pub threads: u64,
    /// Start time in clock ticks: with the id it names a process for good.
    pub started: u64,
    /// Resident pages.
    pub resident_pages: u64,
}

impl Process {
    /// Reads a line of `/proc/<pid>/stat` (proc_pid_stat(5)). The second field is the program's name in parentheses and
    /// can hold anything, parentheses included.
    pub fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        let (head, tail) = (stat.split_once(' ')?.0, stat.rsplit_once(')')?.1);
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Process {
            pid: head.parse().ok()?,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            threads: number(17)?,
            started: number(19)?,
            resident_pages: number(21)?,
        })
    }

    /// Still able to run. A process whose first thread has ended looks like a zombie while its other threads run on; the
    /// first one then still counts among its threads.
    pub const fn alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }

    /// Stopped by a signal or a tracer.
    pub const fn stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

/// Which processes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// All that descend from this stub, itself not included.
    OfStub(i32),
    /// Children of pid 1 that are none of its own, and all that descend from them: their stub was killed.
    Escapees,
}

/// One reading of `/proc`.
#[derive(Debug, Default)]
pub struct ProcessTable {
    processes: BTreeMap<i32, Process>,
    children: BTreeMap<i32, Vec<i32>>,
}

impl FromIterator<Process> for ProcessTable {
    fn from_iter<T: IntoIterator<Item = Process>>(processes: T) -> Self {
        let mut table = ProcessTable::default();
        for process in processes {
            table
                .children
                .entry(process.parent)
                .or_default()
                .push(process.pid);
            table.processes.insert(process.pid, process);
        }
        table
    }
}

impl ProcessTable {
    /// The living processes of a tree, parents first. `own` are pid 1's stubs and workers.
    pub fn tree(&self, tree: Tree, own: &BTreeSet<i32>) -> Vec<Process> {
        let below_stub = match tree {
            Tree::OfStub(stub) => self.children_of(stub),
            Tree::Escapees => &[],
        };
        // With every tree: where only pid 1 can be a reaper of orphans (gVisor), they are the way out of one.
        let escapees = self.children_of(1).iter().filter(|pid| !own.contains(pid));
        let mut queue: Vec<i32> = below_stub.iter().chain(escapees).copied().collect();
        let mut seen: BTreeSet<i32> = queue.iter().copied().collect();
        let mut next = 0;
        // A table read while processes come and go can hold anything, so the walk must end whatever it says.
        while let Some(pid) = queue.get(next).copied() {
            next += 1;
            queue.extend(
                self.children_of(pid)
                    .iter()
                    .copied()
                    .filter(|child| seen.insert(*child)),
            );
        }
        queue
            .iter()
            .filter_map(|pid| self.processes.get(pid))
            .filter(|process| process.alive())
            .copied()
            .collect()
    }

    /// Whether a process has a parent that is not there: it ended in the course of the reading, and its children are another
    /// process's by now. Who has the parent 0 came from outside of the sandbox.
    pub fn is_torn(&self) -> bool {
        let mut parents = self.children.keys();
        parents.any(|parent| *parent != 0 && !self.processes.contains_key(parent))
    }

    /// All processes.
    pub fn all(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// Whether it was read.
    pub fn knows(&self, pid: i32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// How many parents a process has below pid 1.
    pub fn depth(&self, pid: i32) -> usize {
        let parents = std::iter::successors(self.processes.get(&pid), |process| {
            self.processes.get(&process.parent)
        });
        parents.take(self.processes.len()).count()
    }

    fn children_of(&self, pid: i32) -> &[i32] {
        self.children.get(&pid).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, state: u8) -> Process {
        Process {
            pid,
            parent,
            state,
            threads: 1,
            started: 0,
            resident_pages: 0,
        }
    }

    fn pids(processes: &[Process]) -> Vec<i32> {
        processes.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) S 1 (b) T 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 99 1000 55 1844";
        let process = Process::parse(line).unwrap();
        assert_eq!((process.pid, process.parent, process.state), (42, 7, b'T'));
        assert_eq!(
            (process.threads, process.started, process.resident_pages),
            (3, 99, 55)
        );
        assert_eq!(Process::parse(b"42 (a"), None);
    }

    #[test]
    fn a_tree_is_its_living_descendants_without_the_stub() {
        let table: ProcessTable = [
            process(1, 0, b'S'),
            process(2, 1, b'S'),
            process(3, 2, b'Z'),
            process(4, 3, b'S'),
            process(5, 1, b'S'),
        ]
        .into_iter()
        .collect();
        let (stubs, own) = (BTreeSet::from([2, 5]), BTreeSet::from([2]));
        assert_eq!(pids(&table.tree(Tree::OfStub(2), &stubs)), [4]);
        let with_an_escapee = pids(&table.tree(Tree::OfStub(2), &own));
        assert_eq!(with_an_escapee, [5, 4], "whatever came to pid 1 goes, too");
    }

    #[test]
    fn a_child_without_its_parent_tears_the_table() {
        let table = |parent| -> ProcessTable {
            [
                process(1, 0, b'S'),
                process(2, 1, b'S'),
                process(9, parent, b'S'),
            ]
            .into_iter()
            .collect()
        };
        assert!(table(7).is_torn());
        for parent in [0, 1, 2] {
            assert!(!table(parent).is_torn(), "{parent}");
        }
    }

    #[test]
    fn a_process_whose_first_thread_ended_is_no_zombie() {
        let table: ProcessTable = [
            process(2, 1, b'S'),
            Process {
                threads: 2,
                ..process(3, 2, b'Z')
            },
        ]
        .into_iter()
        .collect();
        assert_eq!(
            pids(&table.tree(Tree::OfStub(2), &BTreeSet::from([2]))),
            [3]
        );
    }

    #[test]
    fn children_of_pid_1_that_are_no_stub_are_escapees_with_all_below_them() {
        let table: ProcessTable = [
            process(2, 1, b'S'),
            process(3, 2, b'S'),
            process(8, 1, b'S'),
            process(9, 8, b'T'),
        ]
        .into_iter()
        .collect();
        assert_eq!(
            pids(&table.tree(Tree::Escapees, &BTreeSet::from([2]))),
            [8, 9]
        );
    }

    #[test]
    fn a_table_with_a_cycle_still_ends() {
        let table: ProcessTable = [process(2, 3, b'S'), process(3, 2, b'S')]
            .into_iter()
            .collect();
        assert_eq!(
            pids(&table.tree(Tree::OfStub(2), &BTreeSet::from([2]))),
            [3, 2]
        );
        assert_eq!(table.depth(2), 2);
    }
}
