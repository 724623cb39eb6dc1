//! `dockerOpts`, judged field by field by `profiles/host-config.json`. Options only narrow: the least of two limits holds,
//! and whatever else an engine could be told is fixed by the profile. What is not understood is refused.

use model::{DockerOptions, LimitName, LimitRequest, OptionValue, Reason, Refusal};
use serde::Deserialize;

use crate::PolicyError;

const FILE: &str = "host-config.json";
const DATA: &str = include_str!("../../../profiles/host-config.json");
/// An engine's period of CPU time where none is named, microseconds (the kernel's `cpu.cfs_period_us`).
const DEFAULT_PERIOD_US: i64 = 100_000;
/// The kernel's bounds of a period, microseconds.
const PERIOD_US: std::ops::RangeInclusive<i64> = 1_000..=1_000_000;
/// The least quota of a period, microseconds (the kernel's `min_cfs_quota_period`).
const MIN_QUOTA_US: i64 = 1_000;
/// Entries of a list of options: all capabilities there are, and room.
const MAX_ENTRIES: usize = 64;

/// The table.
#[derive(Debug, Clone)]
pub(crate) struct HostConfig(Vec<Field>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(rename = "about")]
    _about: String,
    fields: Vec<Field>,
}

/// One field of an engine's `HostConfig`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    field: String,
    rule: String,
    treatment: Treatment,
    limit: Option<LimitName>,
    reason: String,
}

/// What a field accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Treatment {
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

/// What the options add up to, while they are read.
#[derive(Default)]
struct Read {
    limits: Vec<LimitRequest>,
    memory: Option<u64>,
    memory_and_swap: Option<u64>,
    quota_us: Option<i64>,
    period_us: Option<i64>,
    nano_cpus: Option<i64>,
}

impl HostConfig {
    pub(crate) fn load() -> Result<Self, PolicyError> {
        let data: Data = serde_json::from_str(DATA)
            .map_err(|source| PolicyError::ProfileSyntax { file: FILE, source })?;
        check(&data.fields).map_err(|why| PolicyError::Profile { file: FILE, why })?;
        Ok(HostConfig(data.fields))
    }

    /// The limits that the options name, in the unit of the limit; each may be above the profile's, which then holds.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`] for what is no option or no value of one, [`Reason::PolicyDenied`] for what would widen.
    pub(crate) fn judge(&self, options: &DockerOptions) -> Result<Vec<LimitRequest>, Refusal> {
        let mut read = Read::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in &options.0 {
            let path = format!("dockerOpts.{name}");
            let Some(field) = self.0.iter().find(|field| field.field == *name) else {
                return Err(self.unknown(name));
            };
            if seen.contains(&name.as_str()) {
                return Err(malformed(&path, "is given twice", "Give each option once."));
            }
            seen.push(name);
            if !matches!(value, OptionValue::Null) {
                field.judge(&path, value, &mut read)?;
            }
        }
        read.finish()
    }

    fn unknown(&self, name: &str) -> Refusal {
        let meant = self
            .0
            .iter()
            .find(|field| field.field.eq_ignore_ascii_case(name));
        let hint = match meant {
            Some(field) => format!(
                "Names are written as the engine writes them: `{}`.",
                field.field
            ),
            None => "Leave it out; only fields of the engine's HostConfig are options.".to_owned(),
        };
        let shown: String = name.chars().take(64).collect();
        malformed(
            &format!("dockerOpts.{}", shown.escape_debug()),
            "is no option",
            &hint,
        )
    }
}

impl Field {
    fn judge(&self, path: &str, value: &OptionValue, read: &mut Read) -> Result<(), Refusal> {
        match self.treatment {
            Treatment::Bytes => {
                let bytes = bytes(path, value)?;
                read.memory = read
                    .memory
                    .or(Some(bytes).filter(|_| self.limit == Some(LimitName::MemoryBytes)));
                read.lower(self.limit, bytes);
            }
            Treatment::Count => read.lower(self.limit, positive(path, value)?.unsigned_abs()),
            Treatment::MemoryAndSwap => read.memory_and_swap = Some(bytes(path, value)?),
            Treatment::CpuQuota => {
                let quota = positive(path, value)?;
                if quota < MIN_QUOTA_US {
                    return Err(malformed(
                        path,
                        "is less than the kernel's least quota",
                        "Give at least 1000 µs.",
                    ));
                }
                read.quota_us = Some(quota);
            }
            Treatment::CpuPeriod => {
                let period = positive(path, value)?;
                if !PERIOD_US.contains(&period) {
                    return Err(malformed(
                        path,
                        "is no period that the kernel knows",
                        "Give 1000 to 1000000 µs.",
                    ));
                }
                read.period_us = Some(period);
            }
            Treatment::NanoCpus => read.nano_cpus = Some(positive(path, value)?),
            Treatment::Ulimits => self.ulimits(path, value, read)?,
            Treatment::Capabilities => {
                for (index, name) in texts(path, value)?.into_iter().enumerate() {
                    let plain = name
                        .bytes()
                        .all(|byte| byte.is_ascii_uppercase() || byte == b'_');
                    if !plain || name.is_empty() || name.len() > MAX_ENTRIES {
                        return Err(malformed(
                            &format!("{path}[{index}]"),
                            "is no name of a capability",
                            "Write it as `ALL` or `NET_RAW`.",
                        ));
                    }
                }
            }
            Treatment::OnlyTrue if *value == OptionValue::Boolean(true) => {}
            Treatment::OnlyTrueOrNothing
                if *value == OptionValue::Boolean(true) || value.says_nothing() => {}
            Treatment::OnlyNone if *value == OptionValue::Text("none".to_owned()) => {}
            Treatment::NoNewPrivileges => {
                for (index, option) in texts(path, value)?.into_iter().enumerate() {
                    if !["no-new-privileges", "no-new-privileges=true"].contains(&option) {
                        return Err(self.denied(&format!("{path}[{index}]")));
                    }
                }
            }
            Treatment::Nothing if value.says_nothing() => {}
            Treatment::OnlyTrue
            | Treatment::OnlyTrueOrNothing
            | Treatment::OnlyNone
            | Treatment::Nothing
            | Treatment::Absent => return Err(self.denied(path)),
        }
        Ok(())
    }

    /// `[{"Name": "nofile", "Soft": 1024, "Hard": 2048}]`
    fn ulimits(&self, path: &str, value: &OptionValue, read: &mut Read) -> Result<(), Refusal> {
        for (index, entry) in list(path, value)?.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let shape = || {
                malformed(
                    &path,
                    "is no limit",
                    "Give Name, Soft and Hard, and nothing else.",
                )
            };
            let OptionValue::Object(entries) = entry else {
                return Err(shape());
            };
            let of = |wanted: &str| {
                entries
                    .iter()
                    .find(|(name, _)| name == wanted)
                    .map(|(_, value)| value)
            };
            let (Some(OptionValue::Text(name)), Some(soft), Some(hard), 3) =
                (of("Name"), of("Soft"), of("Hard"), entries.len())
            else {
                return Err(shape());
            };
            let soft = positive(&format!("{path}.Soft"), soft)?;
            let hard = positive(&format!("{path}.Hard"), hard)?;
            if soft > hard {
                return Err(malformed(
                    &path,
                    "has a soft limit above its hard one",
                    "Give Soft at most Hard.",
                ));
            }
            let limit = match name.as_str() {
                "nofile" => LimitName::OpenFiles,
                "fsize" => LimitName::FileBytes,
                _ => return Err(self.denied(&format!("{path}.Name"))),
            };
            // What a program meets is the soft one.
            read.lower(Some(limit), soft.unsigned_abs());
        }
        Ok(())
    }

    fn denied(&self, path: &str) -> Refusal {
        Refusal::new(
            Reason::PolicyDenied,
            format!("`{path}` is refused by rule {}: {}", self.rule, self.reason),
            "Leave it out: options can only narrow what a session may do.",
        )
        .in_field(path)
    }
}

impl Read {
    /// Of several requests for one limit, the least counts.
    fn lower(&mut self, limit: Option<LimitName>, value: u64) {
        let Some(limit) = limit else { return };
        match self.limits.iter_mut().find(|found| found.limit == limit) {
            Some(found) => found.value = found.value.min(value),
            None => self.limits.push(LimitRequest { limit, value }),
        }
    }

    fn finish(mut self) -> Result<Vec<LimitRequest>, Refusal> {
        if self.memory_and_swap.is_some() && self.memory_and_swap != self.memory {
            return Err(malformed(
                "dockerOpts.MemorySwap",
                "differs from Memory",
                "Leave it out: memory and swap together are limited by Memory.",
            ));
        }
        if self.nano_cpus.is_some() && self.quota_us.is_some() {
            return Err(malformed(
                "dockerOpts.NanoCpus",
                "is given beside CpuQuota",
                "Give one of them.",
            ));
        }
        if self.period_us.is_some() && self.quota_us.is_none() {
            return Err(malformed(
                "dockerOpts.CpuPeriod",
                "is given without CpuQuota",
                "Give both, or neither.",
            ));
        }
        let millis = match (self.quota_us, self.nano_cpus) {
            (Some(quota), _) => Some(
                i128::from(quota) * 1_000 / i128::from(self.period_us.unwrap_or(DEFAULT_PERIOD_US)),
            ),
            (None, Some(nano)) => Some(i128::from(nano) / 1_000_000),
            (None, None) => None,
        };
        if let Some(millis) = millis {
            self.lower(
                Some(LimitName::CpuMillis),
                u64::try_from(millis).unwrap_or(u64::MAX),
            );
        }
        Ok(self.limits)
    }
}

fn positive(path: &str, value: &OptionValue) -> Result<i64, Refusal> {
    if let OptionValue::Integer(number) = value
        && *number > 0
    {
        return Ok(*number);
    }
    Err(malformed(
        path,
        "must be a whole number above 0",
        "0 and less mean no limit to an engine.",
    ))
}

/// A number of bytes, or a text as `docker run --memory` takes it: digits and b, k, m, g or t, in powers of 1,024.
fn bytes(path: &str, value: &OptionValue) -> Result<u64, Refusal> {
    let wrong = || {
        malformed(
            path,
            "must be a size above 0",
            "Give bytes as a number, or a text such as \"512m\" or \"2g\".",
        )
    };
    let OptionValue::Text(text) = value else {
        return positive(path, value)
            .map(i64::unsigned_abs)
            .map_err(|_| wrong());
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "b" | "B" => 0,
        "k" | "K" | "kb" | "KB" | "KiB" => 10,
        "m" | "M" | "mb" | "MB" | "MiB" => 20,
        "g" | "G" | "gb" | "GB" | "GiB" => 30,
        "t" | "T" | "tb" | "TB" | "TiB" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0 && i64::try_from(*bytes).is_ok())
        .ok_or_else(wrong)
}

fn list<'a>(path: &str, value: &'a OptionValue) -> Result<&'a [OptionValue], Refusal> {
    if let OptionValue::List(entries) = value
        && entries.len() <= MAX_ENTRIES
    {
        return Ok(entries);
    }
    Err(malformed(
        path,
        "must be a list of at most 64 entries",
        "Give a list, as the engine takes it.",
    ))
}

fn texts<'a>(path: &str, value: &'a OptionValue) -> Result<Vec<&'a str>, Refusal> {
    let text = |(index, entry): (usize, &'a OptionValue)| {
        if let OptionValue::Text(text) = entry {
            return Ok(text.as_str());
        }
        Err(malformed(
            &format!("{path}[{index}]"),
            "must be a text",
            "Give a list of texts.",
        ))
    };
    list(path, value)?.iter().enumerate().map(text).collect()
}

fn malformed(path: &str, what: &str, hint: &str) -> Refusal {
    Refusal::new(Reason::InvalidArgument, format!("`{path}` {what}."), hint).in_field(path)
}

fn check(fields: &[Field]) -> Result<(), String> {
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
    Ok(())
}
