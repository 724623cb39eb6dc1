//! Which turn answers.

use std::collections::HashMap;

use crate::{
    request::Request,
    script::{CountPer, Script, Turn, When},
};

/// A script and how often its turns were used.
pub(crate) struct Chooser {
    script: Script,
    used: HashMap<(String, usize), u32>,
}

impl Chooser {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            script,
            used: HashMap::new(),
        }
    }

    /// The first turn that fits and is not used up, by its index; using it once.
    pub(crate) fn choose(&mut self, request: &Request) -> Option<(usize, Turn)> {
        let scope = match self.script.count_per {
            CountPer::Conversation => request.conversation.clone(),
            CountPer::Server => String::new(),
        };
        for (index, turn) in self.script.turns.iter().enumerate() {
            let used = self.used.entry((scope.clone(), index)).or_default();
            if turn.times.is_none_or(|times| *used < times) && turn.when.fits(request) {
                *used += 1;
                return Some((index, turn.clone()));
            }
        }
        None
    }

    pub(crate) fn script(&self) -> &Script {
        &self.script
    }
}

impl When {
    fn fits(&self, request: &Request) -> bool {
        let prompt = request.prompt();
        let earlier = request.earlier_prompts();
        let results = u32::try_from(request.results.len()).unwrap_or(u32::MAX);
        let last_result = request.results.last().map_or("", String::as_str);
        self.purpose == request.purpose
            && self
                .prompt_contains
                .iter()
                .all(|part| prompt.contains(part))
            && self
                .earlier_contains
                .iter()
                .all(|part| earlier.iter().any(|prompt| prompt.contains(part)))
            && self.tool_results.is_none_or(|count| count == results)
            && self
                .result_contains
                .as_ref()
                .is_none_or(|part| last_result.contains(part))
            && self.stream.is_none_or(|stream| stream == request.stream)
            && self
                .provider
                .is_none_or(|provider| provider == request.provider)
            && self
                .model_contains
                .as_ref()
                .is_none_or(|part| request.model.contains(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Block;

    fn request(conversation: &str, prompt: &str, results: usize) -> Request {
        Request {
            conversation: conversation.to_owned(),
            prompts: vec![prompt.to_owned()],
            results: vec![String::new(); results],
            ..Request::default()
        }
    }

    #[test]
    fn turns_in_order_are_used_up_for_each_conversation() {
        let turns = ["one", "two"].map(|text| Turn::say([Block::text(text)]));
        let mut chooser = Chooser::new(Script::in_order(turns));
        let mut index = |conversation| {
            let chosen = chooser.choose(&request(conversation, "", 0));
            chosen.map(|(index, _)| index)
        };
        assert_eq!(
            [index("a"), index("a"), index("a")],
            [Some(0), Some(1), None]
        );
        assert_eq!(index("b"), Some(0), "another conversation begins anew");
    }

    #[test]
    fn rules_look_at_the_request_alone() {
        let when = When::prompt(["build"]);
        let mut chooser = Chooser::new(Script::of([
            Turn::say([Block::text("first")]).when(when.clone().tool_results(0)),
            Turn::say([Block::text("then")]).when(when),
        ]));
        let mut index = |prompt, results| {
            let chosen = chooser.choose(&request("", prompt, results));
            chosen.map(|(index, _)| index)
        };
        assert_eq!(index("build it", 0), Some(0));
        assert_eq!(
            index("build it", 0),
            Some(0),
            "a repeated request gets the same"
        );
        assert_eq!(index("build it", 2), Some(1));
        assert_eq!(index("test it", 0), None);
    }

    #[test]
    fn a_side_request_uses_up_no_turn_of_the_conversation() {
        let mut chooser = Chooser::new(Script::in_order([Turn::say([Block::text("one")])]));
        let side = Request {
            purpose: crate::Purpose::Title,
            ..request("", "", 0)
        };
        assert!(chooser.choose(&side).is_none());
        assert!(chooser.choose(&request("", "", 0)).is_some());
    }
}
