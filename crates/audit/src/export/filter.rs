//! Which records are wanted.

use jiff::Timestamp;

use super::{Line, Told};

/// Conditions that a record meets, all of them. An empty filter takes everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The session: its id, or the beginning of it.
    pub session: Option<String>,
    /// Who asked: any of these names or tags.
    pub actors: Vec<String>,
    /// The action.
    pub action: Option<Pattern>,
    /// How it ended.
    pub result: Option<String>,
    /// The operation.
    pub operation: Option<String>,
    /// Written then or later.
    pub since: Option<Timestamp>,
    /// Written before.
    pub until: Option<Timestamp>,
    /// Stands in the line, as the line is spelled.
    pub text: Option<String>,
}

impl Filter {
    /// Whether the record is wanted.
    pub fn takes(&self, line: &Line) -> bool {
        let record = &line.record;
        self.in_time(record)
            && holds(&self.session, |wanted| of_session(record, wanted))
            && (self.actors.is_empty() || self.actors.iter().any(|actor| is_actor(record, actor)))
            && holds(&self.action, |pattern| pattern.matches(&record.action))
            && holds(&self.result, |wanted| record.result == *wanted)
            && holds(&self.operation, |wanted| record.op.as_ref() == Some(wanted))
            && holds(&self.text, |wanted| line.text.contains(wanted))
    }

    fn in_time(&self, record: &Told) -> bool {
        self.since.is_none_or(|since| record.timestamp >= since)
            && self.until.is_none_or(|until| record.timestamp < until)
    }
}

fn holds<T>(condition: &Option<T>, test: impl FnOnce(&T) -> bool) -> bool {
    condition.as_ref().is_none_or(test)
}

fn of_session(record: &Told, wanted: &str) -> bool {
    let id = record.session_id.as_deref();
    id.is_some_and(|id| !wanted.is_empty() && id.starts_with(wanted))
}

fn is_actor(record: &Told, wanted: &str) -> bool {
    record.actor.hash == wanted || record.actor.id.as_deref() == Some(wanted)
}

/// A name in which `*` stands for any text and `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

impl Pattern {
    /// The pattern of that spelling; each spelling is one.
    pub fn new(text: &str) -> Pattern {
        Pattern(text.chars().collect())
    }

    /// Whether the whole text fits. Linear but for the stars: each is tried once from the last one on.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut in_text) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while in_text < text.len() {
            match self.0.get(at) {
                Some('*') => {
                    star = Some((at, in_text));
                    at += 1;
                }
                Some(wanted) if *wanted == '?' || *wanted == text[in_text] => {
                    at += 1;
                    in_text += 1;
                }
                Some(_) | None => match star {
                    // The star takes one more.
                    Some((star_at, taken)) => {
                        star = Some((star_at, taken + 1));
                        at = star_at + 1;
                        in_text = taken + 1;
                    }
                    None => return false,
                },
            }
        }
        self.0[at..].iter().all(|rest| *rest == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_the_whole_text() {
        for (pattern, text, fits) in [
            ("session.*", "session.create", true),
            ("session.*", "files.transfer", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("*.create", "session.create", true),
            ("*.create", "session.created", false),
            ("s?ssion.*e*e", "session.create", true),
            ("?", "é", true),
            ("??", "x", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("session", "session.create", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                fits,
                "{pattern} {text}"
            );
        }
    }
}
