//! `dockerOpts`, judged field by field by `profiles/host-config.json`. Options only narrow: the least of two limits holds,
//! and whatever else an engine could be told is fixed by the profile. What is not understood is refused. Every refusal
//! names the place and the rule.
//!
//! Reading order: the decision (here), `table` (the data), `fields` (what each treatment accepts), `values` (how values are
//! read), `read` (what they add up to).

mod fields;
mod read;
mod table;
mod values;

pub(crate) use read::OptionLimit;
pub(crate) use table::HostConfig;

use model::{DockerOptions, OptionValue, Refusal, Unreadable};

use read::Read;
use table::{Form, shown};
use values::Place;

impl HostConfig {
    /// The limits that the options name, in the unit of the limit; each may be above the profile's, which then holds.
    ///
    /// # Errors
    /// [`model::Reason::InvalidArgument`] for what is no option or no value of one, [`model::Reason::PolicyDenied`] for what
    /// would widen.
    pub(crate) fn judge(&self, options: &DockerOptions) -> Result<Vec<OptionLimit>, Refusal> {
        let mut read = Read::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in &options.0 {
            if let (true, OptionValue::Unreadable(why)) = (name.is_empty(), value) {
                return Err(self.unreadable("dockerOpts", *why));
            }
            let path = format!("dockerOpts.{}", shown(name));
            let Some(field) = self.field(name) else {
                return Err(self.unknown(&path, name));
            };
            if seen.contains(&name.as_str()) {
                return Err(self.given_twice(&path));
            }
            seen.push(name);
            self.check_form(&path, value)?;
            if !matches!(value, OptionValue::Null) {
                field.judge(&path, value, &mut read)?;
            }
        }
        read.finish(self)
    }

    /// What no value of any option can have in it.
    fn check_form(&self, path: &str, value: &OptionValue) -> Result<(), Refusal> {
        match value {
            OptionValue::Unreadable(why) => Err(self.unreadable(path, *why)),
            OptionValue::List(values) => values
                .iter()
                .enumerate()
                .try_for_each(|(index, value)| self.check_form(&format!("{path}[{index}]"), value)),
            OptionValue::Object(entries) => {
                for (index, (name, value)) in entries.iter().enumerate() {
                    let path = format!("{path}.{}", shown(name));
                    if entries[..index].iter().any(|(other, _)| other == name) {
                        return Err(self.given_twice(&path));
                    }
                    self.check_form(&path, value)?;
                }
                Ok(())
            }
            OptionValue::Null
            | OptionValue::Boolean(_)
            | OptionValue::Integer(_)
            | OptionValue::Text(_) => Ok(()),
        }
    }

    fn unknown(&self, path: &str, name: &str) -> Refusal {
        let hint = match self.meant_by(name) {
            Some(meant) => format!("Names are written as the engine writes them: `{meant}`."),
            None => "Leave it out; only fields of the engine's HostConfig are options.".to_owned(),
        };
        self.in_form(Form::UnknownName, path)
            .malformed("is no option", &hint)
    }

    fn given_twice(&self, path: &str) -> Refusal {
        self.in_form(Form::GivenTwice, path)
            .malformed("is given twice", "Give each option once.")
    }

    fn unreadable(&self, path: &str, why: Unreadable) -> Refusal {
        let (form, what, hint) = match why {
            Unreadable::GivenTwice => return self.given_twice(path),
            Unreadable::NoWholeNumber => (
                Form::NoWholeNumber,
                "must be a whole number of 64 bits",
                "Write it without a fraction or an exponent.",
            ),
            Unreadable::TooDeep => (
                Form::TooDeep,
                "is nested deeper than any option of an engine",
                "Give the option as the engine takes it.",
            ),
            Unreadable::TooMany => (
                Form::TooMany,
                "has more than a thousand values",
                "Give only the options that are meant.",
            ),
            Unreadable::NoObject => (
                Form::NoObject,
                "must be an object",
                "Give names with values, or leave it out.",
            ),
            Unreadable::NoJson => (
                Form::NoJson,
                "cannot be read",
                "Give plain JSON: numbers of 64 bits, whole characters, few levels.",
            ),
        };
        self.in_form(form, path).malformed(what, hint)
    }

    fn in_form<'a>(&'a self, form: Form, path: &'a str) -> Place<'a> {
        Place {
            path,
            rule: self.rule_of(form),
        }
    }
}
