//! New sessions that wait for a place, fairly between callers.
//!
//! When something ends, the first of those who wait tries whether it has a place now, and then the next, until all have
//! tried: callers in turn, each with its oldest. What ends meanwhile lets the first one try again before the others. Whoever gets
//! a place goes to the end of the callers' line. One that needs more than became free does not keep the others from trying, so a
//! large session can wait for long among small ones: its wait is bounded.
//!
//! What this does not do: keep a place. The store alone says who has one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;

use crate::sessions::lock;

/// Callers' waiting sessions in all: each holds a call of its caller, a few kilobytes.
const MAX_WAITING: usize = 256;
/// Waiting sessions of one caller: so that nobody fills the line.
const MAX_WAITING_OF_CALLER: usize = 32;

/// Nobody else is let into the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// This caller has as many waiting as one may.
    Caller(usize),
    /// All have.
    Everybody(usize),
}

/// The line, and how those in it are woken.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    line: Line,
    wakers: HashMap<u64, Arc<Notify>>,
}

/// One who waits. Dropped, it is out of the line.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    queue: &'a Queue,
    number: u64,
    woken: Arc<Notify>,
}

impl Queue {
    /// Nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).line.len() == 0
    }

    /// At the end of that caller's line.
    pub(crate) fn join(&self, caller: &str) -> Result<Waiting<'_>, Crowded> {
        let mut state = lock(&self.0);
        let number = state.line.join(caller)?;
        let woken = Arc::new(Notify::new());
        state.wakers.insert(number, Arc::clone(&woken));
        // There may be a place that those before could not use; they need not try again for that.
        let next = state.line.next_or_again();
        state.wake(next);
        drop(state);
        Ok(Waiting {
            queue: self,
            number,
            woken,
        })
    }

    /// Something ended.
    pub(crate) fn place_is_free(&self) {
        let mut state = lock(&self.0);
        let first = state.line.begin();
        state.wake(first);
    }
}

impl State {
    fn wake(&self, number: Option<u64>) {
        if let Some(woken) = number.and_then(|number| self.wakers.get(&number)) {
            woken.notify_one();
        }
    }
}

impl Waiting<'_> {
    /// Comes back when it is this one's turn to try.
    pub(crate) async fn turn(&self) {
        self.woken.notified().await;
    }

    /// It tried, and has no place: the next one tries.
    pub(crate) fn pass_on(&self) {
        self.tried(false);
    }

    /// It has a place; there may be another one for the next.
    pub(crate) fn got_one(self) {
        self.tried(true);
    }

    /// How many would have their turn before it, and itself.
    pub(crate) fn position(&self) -> usize {
        lock(&self.queue.0).line.position(self.number)
    }

    fn tried(&self, has_place: bool) {
        let mut state = lock(&self.queue.0);
        let next = state.line.tried(self.number, has_place);
        state.wake(next);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.0);
        state.wakers.remove(&self.number);
        let next = state.line.leave(self.number);
        state.wake(next);
    }
}

/// Who is next. Knows nothing of time and of waking.
#[derive(Debug, Default)]
struct Line {
    /// Callers in turn, each with those of it that wait, oldest first; none is without.
    callers: VecDeque<(String, VecDeque<u64>)>,
    next_number: u64,
    /// Whose turn it is.
    turn: Option<u64>,
    /// Who has tried since the last place became free.
    tried: HashSet<u64>,
    /// Another place became free while somebody had its turn.
    again: bool,
}

impl Line {
    fn len(&self) -> usize {
        self.callers.iter().map(|(_, waiting)| waiting.len()).sum()
    }

    fn join(&mut self, caller: &str) -> Result<u64, Crowded> {
        if self.len() >= MAX_WAITING {
            return Err(Crowded::Everybody(MAX_WAITING));
        }
        let number = self.next_number;
        match self.callers.iter_mut().find(|(name, _)| name == caller) {
            Some((_, waiting)) if waiting.len() >= MAX_WAITING_OF_CALLER => {
                return Err(Crowded::Caller(MAX_WAITING_OF_CALLER));
            }
            Some((_, waiting)) => waiting.push_back(number),
            None => self
                .callers
                .push_back((caller.to_owned(), VecDeque::from([number]))),
        }
        self.next_number += 1;
        Ok(number)
    }

    /// Lets all try anew; who is first.
    fn begin(&mut self) -> Option<u64> {
        if self.turn.is_some() {
            self.again = true;
            return None;
        }
        self.tried.clear();
        self.next()
    }

    fn tried(&mut self, number: u64, has_place: bool) -> Option<u64> {
        if self.turn == Some(number) {
            self.turn = None;
        }
        self.tried.insert(number);
        if has_place && let Some(place) = self.place_of(number) {
            let caller = self.remove(place, number);
            // Behind all others, for what else it has waiting.
            self.callers.extend(caller);
        }
        self.next_or_again()
    }

    fn leave(&mut self, number: u64) -> Option<u64> {
        if let Some(place) = self.place_of(number)
            && let Some(caller) = self.remove(place, number)
        {
            self.callers.insert(place, caller);
        }
        self.tried.remove(&number);
        if self.turn != Some(number) {
            return None;
        }
        self.turn = None;
        self.next_or_again()
    }

    /// Who is next, where nobody has its turn.
    fn next_or_again(&mut self) -> Option<u64> {
        if self.turn.is_some() {
            return None;
        }
        if std::mem::take(&mut self.again) {
            self.tried.clear();
        }
        self.next()
    }

    fn next(&mut self) -> Option<u64> {
        let tried = &self.tried;
        let untried = |(_, waiting): &(String, VecDeque<u64>)| {
            waiting
                .iter()
                .find(|number| !tried.contains(number))
                .copied()
        };
        self.turn = self.callers.iter().find_map(untried);
        self.turn
    }

    fn place_of(&self, number: u64) -> Option<usize> {
        self.callers
            .iter()
            .position(|(_, waiting)| waiting.contains(&number))
    }

    /// Takes the caller out, without that one; nothing where it has no other.
    fn remove(&mut self, place: usize, number: u64) -> Option<(String, VecDeque<u64>)> {
        let (caller, mut waiting) = self.callers.remove(place)?;
        waiting.retain(|waits| *waits != number);
        (!waiting.is_empty()).then_some((caller, waiting))
    }

    fn position(&self, number: u64) -> usize {
        let Some(place) = self.place_of(number) else {
            return 0;
        };
        let depth = self.callers[place]
            .1
            .iter()
            .take_while(|waits| **waits != number)
            .count();
        let before = |(at, (_, waiting)): (usize, &(String, VecDeque<u64>))| {
            waiting.len().min(depth + usize::from(at < place))
        };
        self.callers
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != place)
            .map(before)
            .sum::<usize>()
            + depth
            + 1
    }
}

#[cfg(test)]
mod tests;
