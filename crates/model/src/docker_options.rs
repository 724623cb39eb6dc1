//! What a caller asks of a sandbox in the words of a container engine, before anybody has judged it.

/// `dockerOpts`: names of the Docker Engine's `HostConfig` with their values, as often and in the order in which they were
/// given. An entry without a name is about the whole: that it could not be read, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerOptions(pub Vec<(String, OptionValue)>);

impl DockerOptions {
    /// Options of which nothing can be said but what is wrong with them.
    pub fn unreadable(why: Unreadable) -> Self {
        DockerOptions(vec![(String::new(), OptionValue::Unreadable(why))])
    }
}

/// A value of JSON without fractions: no option of an engine has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// `null`: not given.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<OptionValue>),
    /// Names with values, as often and in the order in which they were given.
    Object(Vec<(String, OptionValue)>),
    /// Something that the door cannot turn into any of these. It is handed on all the same: its refusal is on record.
    Unreadable(Unreadable),
}

/// Why a value could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// A number with a fraction or an exponent, or beyond 64 bits.
    NoWholeNumber,
    /// Lists and objects within each other, deeper than in any option of an engine.
    TooDeep,
    /// More values than an engine has options.
    TooMany,
    /// `dockerOpts` itself stands there twice.
    GivenTwice,
    /// `dockerOpts` is no object.
    NoObject,
    /// No JSON that can be represented: a number beyond all bounds, half a character, endless nesting.
    NoJson,
}

impl OptionValue {
    /// Not given, or as an engine says that nothing is set: `0`, `""`, `[]`, `{}`, `false`.
    pub fn says_nothing(&self) -> bool {
        match self {
            OptionValue::Null => true,
            OptionValue::Boolean(value) => !value,
            OptionValue::Integer(value) => *value == 0,
            OptionValue::Text(text) => text.is_empty(),
            OptionValue::List(values) => values.is_empty(),
            OptionValue::Object(entries) => entries.is_empty(),
            OptionValue::Unreadable(_) => false,
        }
    }
}
