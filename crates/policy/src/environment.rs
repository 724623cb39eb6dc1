//! Environment variables that a caller may set.
//!
//! `PATH`, `HOME` and `LD_*` are allowed: whatever runs inside can set them for its own children anyway, set-uid programs
//! gain nothing there, and the supervisor is static and takes no environment of a caller. No wall rests on a variable;
//! reserved are only those that would bring a key inside or break what the server itself sets.

use std::collections::BTreeMap;

use model::{Reason, Refusal, Secret};

use crate::hardening::Hardening;

/// Variables in one call.
pub const MAX_ENVIRONMENT_VARIABLES: usize = 256;
/// Names and values of one call together, bytes. The session's travels by itself and is kept by the supervisor, the
/// command's with its arguments; each fits its frame of 1 MiB.
pub const MAX_ENVIRONMENT_BYTES: usize = 128 * 1024;
/// Longest name, bytes; the longest in common use have about 60.
const MAX_NAME_BYTES: usize = 256;

pub(crate) fn check(
    env: &BTreeMap<String, Secret<String>>,
    hardening: &Hardening,
) -> Result<(), Refusal> {
    if env.len() > MAX_ENVIRONMENT_VARIABLES {
        let message = format!(
            "{} environment variables are more than the {MAX_ENVIRONMENT_VARIABLES} of one call.",
            env.len()
        );
        return Err(Refusal::new(
            Reason::TooLarge,
            message,
            "Put them in a file and read that.",
        )
        .in_field("env"));
    }
    let bytes: usize = env
        .iter()
        .map(|(name, value)| name.len() + value.expose().len() + 2)
        .sum();
    if bytes > MAX_ENVIRONMENT_BYTES {
        let message = format!(
            "The environment has {bytes} bytes, more than the {MAX_ENVIRONMENT_BYTES} of one call."
        );
        return Err(Refusal::new(
            Reason::TooLarge,
            message,
            "Pass large values by standard input or a file.",
        )
        .in_field("env"));
    }
    env.iter()
        .try_for_each(|(name, value)| check_variable(name, value, hardening))
}

fn check_variable(
    name: &str,
    value: &Secret<String>,
    hardening: &Hardening,
) -> Result<(), Refusal> {
    let field = field_of(name);
    if !is_name(name) {
        let message = "The name of an environment variable is not letters, digits and `_`, starting with no digit.";
        let hint = format!("Use a name of at most {MAX_NAME_BYTES} characters like `MY_SETTING`.");
        return Err(Refusal::new(Reason::InvalidArgument, message, hint).in_field(field));
    }
    if let Some(why) = hardening.why_reserved(name) {
        let message = format!("The environment variable {name} cannot be set in a session: {why}.");
        let hint = "Leave it out. Keys belong into the environment or configuration of the server.";
        return Err(Refusal::new(Reason::PolicyDenied, message, hint).in_field(field));
    }
    if value.expose().contains('\0') {
        let message = format!("The value of the environment variable {name} contains a NUL.");
        let hint = "Remove it; pass binary data by standard input or a file.";
        return Err(Refusal::new(Reason::InvalidArgument, message, hint).in_field(field));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    starts
        && name.len() <= MAX_NAME_BYTES
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The field of a variable. A name that is none is shown shortened and escaped: it may carry anything.
fn field_of(name: &str) -> String {
    if is_name(name) {
        return format!("env.{name}");
    }
    let shown: String = name
        .chars()
        .take(40)
        .flat_map(char::escape_default)
        .collect();
    format!("env.{shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str, value: &str) -> Result<(), Refusal> {
        let env = BTreeMap::from([(name.to_owned(), Secret::new(value.to_owned()))]);
        check(&env, &Hardening::load().unwrap())
    }

    #[test]
    fn ordinary_variables_pass() {
        for (name, value) in [
            ("PATH", "/opt/bin:/usr/bin"),
            ("LD_LIBRARY_PATH", "/opt/lib"),
            ("_", ""),
            ("a1", "x=y\nz"),
            ("HOME", "/tmp"),
            ("ANTHROPIC_MODEL", "m"),
            ("AWS_REGION", "eu"),
            ("CLAUDE_CODE_MCPX", "1"),
        ] {
            assert_eq!(verdict(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn hostile_names_and_values_are_refused_and_the_value_is_never_told() {
        let long = "A".repeat(257);
        let names = [
            "",
            "1A",
            "A-B",
            "A B",
            "A=B",
            "A\0",
            "A\n",
            "Ä",
            "Ａ",
            "A\u{200b}",
            "$A",
            "../A",
            " A",
            "A.B",
            &long,
        ];
        for name in names {
            let refusal = verdict(name, "canary").unwrap_err();
            assert_eq!(refusal.reason, Reason::InvalidArgument, "{name:?}");
            let told = format!("{refusal:?}");
            assert!(!told.contains("canary") && told.len() < 600, "{told}");
        }
        for name in [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "CLAUDE_CONFIG_DIR",
            "CLAUDE_CODE_MCP_PROJECT_ROOTS",
            "AWS_SESSION_TOKEN",
        ] {
            let refusal = verdict(name, "canary").unwrap_err();
            assert_eq!(
                (refusal.reason, refusal.field),
                (Reason::PolicyDenied, Some(format!("env.{name}")))
            );
        }
        assert_eq!(
            verdict("A", "can\0ary").unwrap_err().reason,
            Reason::InvalidArgument
        );
    }

    #[test]
    fn the_environment_is_bounded() {
        let hardening = Hardening::load().unwrap();
        let many = |count: usize, bytes: usize| {
            (0..count)
                .map(|n| (format!("A{n}"), Secret::new("x".repeat(bytes))))
                .collect()
        };
        assert_eq!(check(&many(256, 1), &hardening), Ok(()));
        assert_eq!(
            check(&many(257, 1), &hardening).unwrap_err().reason,
            Reason::TooLarge
        );
        assert_eq!(check(&many(1, 128 * 1024 - 4), &hardening), Ok(()));
        assert_eq!(
            check(&many(1, 128 * 1024 - 3), &hardening)
                .unwrap_err()
                .reason,
            Reason::TooLarge
        );
    }
}
