//! The table, `profiles/host-config.json`.

use model::LimitName;
use serde::Deserialize;

use crate::{PolicyError, lexical};

const FILE: &str = "host-config.json";
const DATA: &str = include_str!("../../../../profiles/host-config.json");
/// Longest part of a name that a refusal repeats, characters: the longest of an engine has 21.
const MAX_SHOWN_CHARACTERS: usize = 64;

/// The table.
#[derive(Debug, Clone)]
pub(crate) struct HostConfig {
    fields: Vec<Field>,
    forms: Vec<FormRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(rename = "about")]
    _about: String,
    fields: Vec<Field>,
    config: Vec<Field>,
    forms: Vec<FormRule>,
}

/// One field of an engine's `HostConfig`, or beside it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Field {
    pub(super) field: String,
    pub(super) rule: String,
    pub(super) treatment: Treatment,
    pub(super) limit: Option<LimitName>,
    pub(super) reason: String,
}

/// What a field accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Treatment {
    /// A size, which lowers that limit.
    Bytes,
    /// A number, which lowers that limit.
    Count,
    /// Memory's own value.
    MemoryAndSwap,
    /// Microseconds of CPU time of each period.
    CpuQuota,
    /// Microseconds, beside a quota.
    CpuPeriod,
    /// Thousand-millionths of a CPU.
    NanoCpus,
    /// Limits of a process by name.
    Ulimits,
    /// Sizes of the temporary places that are there anyway.
    Tmpfs,
    /// A size of `/dev/shm`.
    SharedMemory,
    /// Names of capabilities.
    Capabilities,
    /// `true`.
    OnlyTrue,
    /// `true`, or nothing.
    OnlyTrueOrNothing,
    /// `no-new-privileges`.
    NoNewPrivileges,
    /// `none`.
    OnlyNone,
    /// Only what says nothing.
    Nothing,
    /// Not to be given: to an engine, an empty list is a wish.
    Absent,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormRule {
    form: Form,
    rule: String,
    reason: String,
}

/// What is refused in whatever field it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Form {
    UnknownName,
    GivenTwice,
    NoWholeNumber,
    TooDeep,
    TooMany,
    NoObject,
    NoJson,
}

impl Form {
    const ALL: [Form; 7] = [
        Form::UnknownName,
        Form::GivenTwice,
        Form::NoWholeNumber,
        Form::TooDeep,
        Form::TooMany,
        Form::NoObject,
        Form::NoJson,
    ];
}

impl HostConfig {
    pub(crate) fn load() -> Result<Self, PolicyError> {
        let data: Data = serde_json::from_str(DATA)
            .map_err(|source| PolicyError::ProfileSyntax { file: FILE, source })?;
        let Data {
            mut fields,
            config,
            forms,
            ..
        } = data;
        if let Some(field) = config
            .iter()
            .find(|field| field.treatment != Treatment::Absent)
        {
            let why = format!("`{}` is no option, and accepts something", field.field);
            return Err(PolicyError::Profile { file: FILE, why });
        }
        fields.extend(config);
        check(&fields, &forms).map_err(|why| PolicyError::Profile { file: FILE, why })?;
        Ok(HostConfig { fields, forms })
    }

    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.field == name)
    }

    /// The field that has this name but for case.
    pub(super) fn meant_by(&self, name: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|field| field.field.eq_ignore_ascii_case(name));
        found.map(|field| field.field.as_str())
    }

    /// The rule of a field that is known to stand in the table.
    pub(super) fn rule(&self, name: &str) -> &str {
        self.field(name).map_or("", |field| field.rule.as_str())
    }

    pub(super) fn rule_of(&self, form: Form) -> &str {
        let found = self.forms.iter().find(|found| found.form == form);
        // All are there: the table was checked when it was loaded.
        found.map_or("", |found| found.rule.as_str())
    }
}

/// A name that the caller chose, fit to be repeated: cut, and nothing in it acts unseen.
pub(super) fn shown(name: &str) -> String {
    let mut shown = String::new();
    for (index, character) in name.chars().enumerate() {
        if index == MAX_SHOWN_CHARACTERS {
            shown.push('…');
            break;
        }
        if lexical::is_deceptive(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.extend(character.escape_debug());
        }
    }
    shown
}

fn check(fields: &[Field], forms: &[FormRule]) -> Result<(), String> {
    for (index, field) in fields.iter().enumerate() {
        let name = &field.field;
        if fields[..index]
            .iter()
            .any(|other| other.field == *name || other.rule == field.rule)
        {
            return Err(format!("`{name}` or its rule stands twice"));
        }
        if field.reason.trim().is_empty() {
            return Err(format!("`{name}` has no reason"));
        }
        let needs_limit = matches!(field.treatment, Treatment::Bytes | Treatment::Count);
        if needs_limit != field.limit.is_some() {
            return Err(format!(
                "`{name}` has a limit that it does not need, or none"
            ));
        }
    }
    if !forms.iter().map(|form| form.form).eq(Form::ALL) {
        return Err("`forms` must name every form once, in their order".to_owned());
    }
    let form_rules = forms.iter().map(|form| &form.rule);
    let mut rules: Vec<_> = fields
        .iter()
        .map(|field| &field.rule)
        .chain(form_rules)
        .collect();
    let count = rules.len();
    rules.sort_unstable();
    rules.dedup();
    if rules.len() != count || forms.iter().any(|form| form.reason.trim().is_empty()) {
        return Err("a form has no reason, or the rule of something else".to_owned());
    }
    Ok(())
}
