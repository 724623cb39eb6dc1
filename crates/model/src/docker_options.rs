//! What a caller asks of a sandbox in the words of a container engine, before anybody has judged it.

/// `dockerOpts`: names of the Docker Engine's `HostConfig` with their values. A door whose parser keeps the
/// last of two with one name hands over that one, which is then the one that is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerOptions(pub Vec<(String, OptionValue)>);

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
    /// Names with values.
    Object(Vec<(String, OptionValue)>),
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
        }
    }
}
