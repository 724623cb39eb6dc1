//! Limits only narrow: what a caller names must lie between what works and what the profile gives.

use model::{Limit, LimitName, LimitRequest, Limits, Reason, Refusal};

use crate::hardening::Hardening;

/// The profile's limits with what the caller named.
pub(crate) fn narrow(
    profile: &Limits,
    requests: &[LimitRequest],
    hardening: &Hardening,
) -> Result<Limits, Refusal> {
    let mut effective = *profile;
    let mut named = Vec::new();
    for request in requests {
        let name = request.limit;
        if named.contains(&name) {
            return Err(refusal(name, "is named twice", "Name each limit once."));
        }
        named.push(name);
        let (floor, maximum) = (hardening.range(name).floor, profile.get(name).value);
        if request.value > maximum {
            let message = format!(
                "is {}, above this server's maximum of {}",
                show(name, request.value),
                show(name, maximum)
            );
            let hint = format!(
                "Ask for at most {maximum}, or leave it out. The operator can raise `{}` in the configuration file.",
                key(name)
            );
            return Err(refusal(name, &message, &hint));
        }
        if request.value < floor {
            let message = format!(
                "is {}, too little for a session to work",
                show(name, request.value)
            );
            return Err(refusal(
                name,
                &message,
                &format!("Ask for at least {}.", show(name, floor)),
            ));
        }
        effective.set(
            name,
            Limit {
                value: request.value,
                named: true,
            },
        );
    }
    Ok(effective)
}

/// The configuration's key of a limit.
pub const fn key(name: LimitName) -> &'static str {
    match name {
        LimitName::MemoryBytes => "limits.memory",
        LimitName::CpuMillis => "limits.cpus",
        LimitName::Pids => "limits.pids",
        LimitName::OpenFiles => "limits.open_files",
        LimitName::FileBytes => "limits.file_size",
        LimitName::TemporaryBytes => "limits.temporary",
        LimitName::StateBytes => "limits.state",
    }
}

fn refusal(name: LimitName, what: &str, hint: &str) -> Refusal {
    Refusal::new(
        Reason::InvalidArgument,
        format!("The limit {} {what}.", name.as_str()),
        hint,
    )
    .in_field(format!("limits.{}", name.as_str()))
}

/// A value with the noun of its limit.
pub(crate) fn show(name: LimitName, value: u64) -> String {
    let unit = match name {
        LimitName::MemoryBytes
        | LimitName::FileBytes
        | LimitName::TemporaryBytes
        | LimitName::StateBytes => "bytes",
        LimitName::CpuMillis => "thousandths of a CPU",
        LimitName::Pids => "processes",
        LimitName::OpenFiles => "open files",
    };
    format!("{value} {unit}")
}
