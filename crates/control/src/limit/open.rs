//! Calls under way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::lock;

/// Calls under way at once. Most wait for an execution and cost nothing; beyond, something runs wild.
const MAX_CALLS: u32 = 1_152;
/// The last of them are for callers with few.
const KEPT_FOR_FEW: u32 = 128;
/// So many are few.
const FEW: u32 = 8;

/// Who has how many. A caller gets another one as long as it has fewer than are free (dynamic thresholds: Choudhury and Hahne,
/// 1998), so that one that runs wild has half, and two a third each; and the last ones go to callers that have few.
#[derive(Debug, Default)]
pub(crate) struct OpenCalls(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    all: u32,
    by_caller: HashMap<Arc<str>, u32>,
}

/// One call. Dropped, it is over.
#[derive(Debug)]
pub(crate) struct OpenCall<'a> {
    calls: &'a OpenCalls,
    caller: Arc<str>,
}

impl OpenCalls {
    /// One more of that caller, which may have so many.
    pub(crate) fn take(&self, caller: &str, of_one: u32) -> Option<OpenCall<'_>> {
        let mut open = lock(&self.0);
        let own = open.by_caller.get(caller).copied().unwrap_or(0);
        let free = MAX_CALLS.saturating_sub(open.all);
        let is_fair = own < free.saturating_sub(KEPT_FOR_FEW) || (own < FEW && free > 0);
        if own >= of_one || !is_fair {
            return None;
        }
        let caller: Arc<str> = match open.by_caller.get_key_value(caller) {
            Some((name, _)) => Arc::clone(name),
            None => caller.into(),
        };
        open.all += 1;
        open.by_caller.insert(Arc::clone(&caller), own + 1);
        Some(OpenCall {
            calls: self,
            caller,
        })
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let mut open = lock(&self.calls.0);
        open.all = open.all.saturating_sub(1);
        match open.by_caller.get_mut(&self.caller) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => drop(open.by_caller.remove(&self.caller)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all<'a>(calls: &'a OpenCalls, caller: &str, of_one: u32) -> Vec<OpenCall<'a>> {
        std::iter::from_fn(|| calls.take(caller, of_one)).collect()
    }

    #[test]
    fn one_caller_has_half_of_all_and_the_last_are_for_those_with_few() {
        let calls = OpenCalls::default();
        let wild: Vec<_> = (0..9)
            .map(|caller| take_all(&calls, &format!("wild {caller}"), u32::MAX))
            .collect();
        assert_eq!((wild[0].len(), wild[1].len()), (512, 256));
        let modest: Vec<_> = (0..15)
            .map(|caller| take_all(&calls, &format!("modest {caller}"), u32::MAX))
            .collect();
        assert!(
            modest.iter().all(|taken| taken.len() == FEW as usize),
            "{modest:?}"
        );
        let all = calls.0.lock().unwrap().all;
        assert!(all <= MAX_CALLS, "{all}");
        drop((wild, modest));
        let open = calls.0.lock().unwrap();
        assert_eq!(
            (open.all, open.by_caller.len()),
            (0, 0),
            "all are given back"
        );
    }

    #[test]
    fn a_caller_has_no_more_than_it_may() {
        let calls = OpenCalls::default();
        let mut taken = take_all(&calls, "one", 3);
        assert_eq!(taken.len(), 3);
        assert!(calls.take("other", 3).is_some());
        taken.pop();
        assert!(
            calls.take("one", 3).is_some(),
            "a call that is over makes room"
        );
    }
}
