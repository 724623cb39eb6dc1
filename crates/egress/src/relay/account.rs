//! What somebody may use, what they have used, and what they may yet use with the requests that are under way.

use std::ops::{AddAssign, SubAssign};

use super::{money::Usd, usage::Tokens};

/// Amounts of all that is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Requests that went on to the provider.
    pub requests: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Tokens of every kind.
    pub tokens: u64,
    /// What they cost, as far as their prices are known.
    pub cost: Usd,
}

/// How much somebody may use; `None`: as much as they like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// See [`Spent::requests`].
    pub requests: Option<u64>,
    /// See [`Spent::output_tokens`].
    pub output_tokens: Option<u64>,
    /// See [`Spent::tokens`].
    pub tokens: Option<u64>,
    /// See [`Spent::cost`].
    pub cost: Option<Usd>,
}

/// Whose allowance it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A session's, as long as it lives.
    Session,
    /// That of all sessions of one caller, on one day (UTC).
    CallerDay,
    /// That of all sessions of the server, on one day (UTC).
    ServerDay,
}

/// An allowance that is used up, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub scope: Scope,
    pub cap: Cap,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cap {
    Requests(u64),
    OutputTokens(u64),
    Tokens(u64),
    Cost(Usd),
}

/// Why a request may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The allowance is used up.
    Used(Cap),
    /// Requests under way may use what is left of it.
    Held(Cap),
}

/// One allowance's account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub spent: Spent,
    /// What the requests under way may cost beyond what they are charged already.
    exposed: Spent,
    /// How many those are.
    pub open: u64,
}

impl Spent {
    pub(crate) const fn of(tokens: &Tokens, cost: Usd) -> Self {
        Spent {
            requests: 0,
            output_tokens: tokens.output,
            tokens: tokens.total(),
            cost,
        }
    }

    const fn without(self, other: Self) -> Self {
        Spent {
            requests: self.requests.saturating_sub(other.requests),
            output_tokens: self.output_tokens.saturating_sub(other.output_tokens),
            tokens: self.tokens.saturating_sub(other.tokens),
            cost: self.cost.saturating_sub(other.cost),
        }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.cost += other.cost;
    }
}

impl SubAssign for Spent {
    fn sub_assign(&mut self, other: Self) {
        *self = self.without(other);
    }
}

impl Allowance {
    /// What is left of it.
    pub fn left(&self, spent: &Spent) -> Allowance {
        Allowance {
            requests: self.requests.map(|cap| cap.saturating_sub(spent.requests)),
            output_tokens: self
                .output_tokens
                .map(|cap| cap.saturating_sub(spent.output_tokens)),
            tokens: self.tokens.map(|cap| cap.saturating_sub(spent.tokens)),
            cost: self.cost.map(|cap| cap.saturating_sub(spent.cost)),
        }
    }

    /// Whether anything is limited.
    pub fn is_limited(&self) -> bool {
        *self != Allowance::default()
    }

    /// The first limit of what an answer costs that is used up.
    pub(crate) fn used_up(&self, spent: &Spent) -> Option<Cap> {
        let cost = self.cost.filter(|cap| spent.cost >= *cap).map(Cap::Cost);
        let output = self.output_tokens.filter(|cap| spent.output_tokens >= *cap);
        let tokens = self.tokens.filter(|cap| spent.tokens >= *cap);
        cost.or(output.map(Cap::OutputTokens))
            .or(tokens.map(Cap::Tokens))
    }

    fn beyond(&self, spent: &Spent) -> Option<Cap> {
        let cost = self.cost.filter(|cap| spent.cost > *cap).map(Cap::Cost);
        let output = self.output_tokens.filter(|cap| spent.output_tokens > *cap);
        let tokens = self.tokens.filter(|cap| spent.tokens > *cap);
        cost.or(output.map(Cap::OutputTokens))
            .or(tokens.map(Cap::Tokens))
    }
}

impl Account {
    pub(crate) fn new(spent: Spent) -> Self {
        Account {
            spent,
            ..Account::default()
        }
    }

    /// Whether a request may begin that costs `estimate` at most. Alone it always may while anything is left: nobody knows
    /// what it costs before it is answered, and what is left is to be of use. Beside others it may where all of them
    /// fit. So an allowance is passed by one answer at most.
    pub(crate) fn admits(&self, allowance: &Allowance, estimate: &Spent) -> Result<(), Refused> {
        if let Some(cap) = allowance.requests.filter(|cap| self.spent.requests >= *cap) {
            return Err(Refused::Used(Cap::Requests(cap)));
        }
        if let Some(cap) = allowance.used_up(&self.spent) {
            return Err(Refused::Used(cap));
        }
        if self.open == 0 {
            return Ok(());
        }
        let mut together = self.spent;
        together += self.exposed;
        together += *estimate;
        match allowance.beyond(&together) {
            Some(cap) => Err(Refused::Held(cap)),
            None => Ok(()),
        }
    }

    /// A request begins.
    pub(crate) fn enter(&mut self, estimate: &Spent) {
        self.open += 1;
        self.spent.requests = self.spent.requests.saturating_add(1);
        self.exposed += *estimate;
    }

    /// Corrects what a request is charged from `before` to `after`.
    pub(crate) fn correct(&mut self, estimate: &Spent, before: Spent, after: Spent) {
        self.spent += after;
        self.spent -= before;
        self.exposed += estimate.without(after);
        self.exposed -= estimate.without(before);
    }

    /// A request has ended with this charge.
    pub(crate) fn leave(&mut self, estimate: &Spent, last: Spent) {
        self.open = self.open.saturating_sub(1);
        self.exposed -= estimate.without(last);
    }
}

impl Reached {
    /// The stable name of the limit: that of its configuration key, or of the cap.
    pub(crate) const fn rule(&self) -> &'static str {
        match (self.scope, self.cap) {
            (Scope::Session, Cap::Requests(_)) => "max_requests",
            (Scope::Session, Cap::OutputTokens(_)) => "max_output_tokens",
            (Scope::Session, Cap::Tokens(_)) => "max_total_tokens",
            (Scope::Session, Cap::Cost(_)) => "max_usd_per_session",
            (Scope::CallerDay, Cap::Requests(_)) => "max_requests_per_caller_per_day",
            (Scope::CallerDay, Cap::OutputTokens(_)) => "max_output_tokens_per_caller_per_day",
            (Scope::CallerDay, Cap::Tokens(_)) => "max_tokens_per_caller_per_day",
            (Scope::CallerDay, Cap::Cost(_)) => "max_usd_per_caller_per_day",
            (Scope::ServerDay, Cap::Requests(_)) => "max_requests_per_day",
            (Scope::ServerDay, Cap::OutputTokens(_)) => "max_output_tokens_per_day",
            (Scope::ServerDay, Cap::Tokens(_)) => "max_tokens_per_day",
            (Scope::ServerDay, Cap::Cost(_)) => "max_usd_per_day",
        }
    }

    /// Whose, how much, and what to do next.
    pub(crate) fn sentence(&self) -> String {
        let rule = self.rule();
        let (verb, amount) = match self.cap {
            Cap::Requests(cap) => ("made", format!("{cap} requests")),
            Cap::OutputTokens(cap) => ("used", format!("{cap} output tokens")),
            Cap::Tokens(cap) => ("used", format!("{cap} tokens")),
            Cap::Cost(cap) => ("spent", cap.to_string()),
        };
        match self.scope {
            Scope::Session => format!(
                "this session has {verb} the {amount} that it may ({rule}); start a new session or have the limit raised"
            ),
            Scope::CallerDay => format!(
                "your sessions have together {verb} the {amount} that they may on one day ({rule}); go on after midnight UTC \
                 or have the operator raise the limit"
            ),
            Scope::ServerDay => format!(
                "the sessions of this server have together {verb} the {amount} that they may on one day ({rule}); go on after \
                 midnight UTC or have the operator raise the limit"
            ),
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spent(tokens: u64) -> Spent {
        Spent {
            tokens,
            ..Spent::default()
        }
    }

    fn allowed(tokens: u64) -> Allowance {
        Allowance {
            tokens: Some(tokens),
            ..Allowance::default()
        }
    }

    #[test]
    fn alone_a_request_may_use_what_is_left_and_beside_others_what_fits() {
        let mut account = Account::new(spent(90));
        assert_eq!(account.admits(&allowed(100), &spent(1_000)), Ok(()));
        account.enter(&spent(5));
        assert_eq!(account.admits(&allowed(100), &spent(5)), Ok(()));
        assert_eq!(
            account.admits(&allowed(100), &spent(6)),
            Err(Refused::Held(Cap::Tokens(100)))
        );
        account.correct(&spent(5), Spent::default(), spent(2));
        account.leave(&spent(5), spent(2));
        assert_eq!(
            (account.spent.tokens, account.exposed, account.open),
            (92, Spent::default(), 0)
        );
        assert_eq!(
            account.admits(&allowed(92), &spent(0)),
            Err(Refused::Used(Cap::Tokens(92)))
        );
    }

    #[test]
    fn requests_are_counted_as_they_begin() {
        let allowance = Allowance {
            requests: Some(2),
            ..Allowance::default()
        };
        let mut account = Account::default();
        for _ in 0..2 {
            assert_eq!(account.admits(&allowance, &Spent::default()), Ok(()));
            account.enter(&Spent::default());
        }
        let refused = Err(Refused::Used(Cap::Requests(2)));
        assert_eq!(account.admits(&allowance, &Spent::default()), refused);
        account.leave(&Spent::default(), Spent::default());
        assert_eq!(account.admits(&allowance, &Spent::default()), refused);
    }

    /// One step of one of several requests.
    #[derive(Debug, Clone)]
    enum Step {
        Begin { estimate: u64 },
        Charge { which: usize, tokens: u64 },
        End { which: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..200_u64).prop_map(|estimate| Step::Begin { estimate }),
            (0..8_usize, 0..300_u64).prop_map(|(which, tokens)| Step::Charge { which, tokens }),
            (0..8_usize).prop_map(|which| Step::End { which }),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever the order: what is spent is the sum of the charges, and what is exposed the sum of what each request
        /// under way may yet cost. At the end nothing is exposed.
        #[test]
        fn the_books_balance(steps in steps()) {
            let mut account = Account::default();
            let mut open: Vec<(u64, u64)> = Vec::new();
            let mut settled = 0;
            let mut begun = 0;
            for step in steps {
                match step {
                    Step::Begin { estimate } => {
                        account.enter(&spent(estimate));
                        open.push((estimate, 0));
                        begun += 1;
                    }
                    Step::Charge { which, tokens } if !open.is_empty() => {
                        let which = which % open.len();
                        let (estimate, before) = open[which];
                        account.correct(&spent(estimate), spent(before), spent(tokens));
                        open[which].1 = tokens;
                    }
                    Step::End { which } if !open.is_empty() => {
                        let (estimate, last) = open.swap_remove(which % open.len());
                        account.leave(&spent(estimate), spent(last));
                        settled += last;
                    }
                    Step::Charge { .. } | Step::End { .. } => {}
                }
                let charged: u64 = open.iter().map(|(_, charged)| charged).sum();
                let may: u64 = open.iter().map(|(estimate, charged)| estimate.saturating_sub(*charged)).sum();
                prop_assert_eq!(account.spent.tokens, settled + charged);
                prop_assert_eq!(account.exposed.tokens, may);
                prop_assert_eq!(account.open, open.len() as u64);
                prop_assert_eq!(account.spent.requests, begun);
            }
        }

        /// Answers that keep to their estimates pass an allowance only where one of them was let in alone, and then by that
        /// one at most.
        #[test]
        fn an_allowance_is_passed_by_one_answer_at_most(cap in 1..500_u64, steps in steps()) {
            let mut account = Account::default();
            let mut open: Vec<(u64, u64)> = Vec::new();
            let mut largest = 0;
            for step in steps {
                match step {
                    Step::Begin { estimate } => {
                        if account.admits(&allowed(cap), &spent(estimate)).is_ok() {
                            account.enter(&spent(estimate));
                            open.push((estimate, 0));
                            largest = largest.max(estimate);
                        }
                    }
                    Step::Charge { which, tokens } if !open.is_empty() => {
                        let which = which % open.len();
                        let (estimate, before) = open[which];
                        let after = before.max(tokens.min(estimate));
                        account.correct(&spent(estimate), spent(before), spent(after));
                        open[which].1 = after;
                    }
                    Step::End { which } if !open.is_empty() => {
                        let (estimate, last) = open.swap_remove(which % open.len());
                        account.leave(&spent(estimate), spent(last));
                    }
                    Step::Charge { .. } | Step::End { .. } => {}
                }
                prop_assert!(account.spent.tokens < cap + largest.max(1));
            }
        }
    }
}
