//! The configuration from outside: files, variables and flags in, a configuration or a sentence out.

#[path = "../../../../tests/support/json_schema.rs"]
mod json_schema;

mod every_key;
mod inspected;
mod refused;

use std::{path::Path, time::Duration};

use super::*;

struct Case {
    scratch: tempfile::TempDir,
    uid: u32,
}

impl Case {
    fn new() -> Self {
        Case {
            scratch: tempfile::tempdir().unwrap(),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    fn file(&self) -> PathBuf {
        self.scratch.path().join("config.toml")
    }

    fn load(
        &self,
        file: &str,
        variables: &[(&str, &str)],
        set: &[&str],
    ) -> Result<Config, ConfigError> {
        std::fs::write(self.file(), file).unwrap();
        let mut all = vec![("HOME", "/home/someone")];
        all.extend_from_slice(variables);
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        load(
            &Flags {
                config: Some(self.file()),
                state_dir: None,
                set,
                of_command: Vec::new(),
            },
            &Environment::of(self.uid, all),
        )
    }
}

#[test]
fn defaults_are_those_of_the_reference_page() {
    let config = load(
        &Flags::default(),
        &Environment::of(4242, [("HOME", "/home/someone")]),
    )
    .unwrap();
    assert_eq!(config.file, None);
    assert_eq!(
        config.paths.state_dir,
        Path::new("/home/someone/.local/state/claude-code-mcp")
    );
    assert_eq!(
        config.audit_log,
        Path::new("/home/someone/.local/state/claude-code-mcp/audit.jsonl")
    );
    assert_eq!(config.default_session_timeout, Duration::from_secs(3600));
    assert_eq!(config.max_session_timeout, Duration::from_secs(86_400));
    assert_eq!(config.default_idle_timeout, Duration::from_secs(1800));
    assert_eq!(config.max_concurrent_sessions, 10);
    assert_eq!(
        config.callers,
        policy::CallerLimits::default(),
        "the reference page says what counts"
    );
    assert_eq!(config.lease, Duration::from_secs(60));
    assert_eq!(config.idle_exit, Duration::from_secs(30));
    assert_eq!(config.backend, BackendChoice::Auto);
    assert!(
        config.limits.is_empty()
            && config.project_roots.is_empty()
            && config.extra_read_only.is_empty()
    );
    assert!(!config.allow_protected_changes && !config.dangerously_accept_soft_limits);
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let case = Case::new();
    let count = |file, variables: &[_], set: &[_]| {
        case.load(file, variables, set)
            .unwrap()
            .max_concurrent_sessions
    };
    let file = "max_concurrent_sessions = 2";
    let variable = ("MAX_CONCURRENT_SESSIONS", "3");
    assert_eq!(count("", &[], &[]), 10);
    assert_eq!(count(file, &[], &[]), 2);
    assert_eq!(count(file, &[variable], &[]), 3);
    assert_eq!(count(file, &[variable], &["max_concurrent_sessions=4"]), 4);
    assert_eq!(
        count(
            file,
            &[variable],
            &["max_concurrent_sessions=4", "max_concurrent_sessions = 5"]
        ),
        5
    );
    assert_eq!(
        count(file, &[("MAX_CONCURRENT_SESSIONS", "")], &[]),
        2,
        "an empty variable counts as not set"
    );
}

#[test]
fn an_image_is_pinned_in_its_name_or_beside_it() {
    let case = Case::new();
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let pinned = |image: &str, beside: &str| {
        let file = format!("image = \"{image}\"\n{beside}");
        case.load(&file, &[], &[])
            .map(|config| (config.image, config.image_digest))
            .map_err(|error| error.to_string())
    };
    let (a, b) = (digest("a"), digest("b"));
    let name = "place/name:1".to_owned();
    let in_name = format!("{name}@{a}");
    let beside = format!("image_digest = \"{a}\"");
    assert_eq!(pinned(&name, ""), Ok((name.clone(), None)));
    for (image, beside) in [
        (&in_name, ""),
        (&name, beside.as_str()),
        (&in_name, &beside),
    ] {
        assert_eq!(pinned(image, beside), Ok((name.clone(), Some(a.clone()))));
    }
    let other = pinned(&in_name, &format!("image_digest = \"{b}\"")).unwrap_err();
    assert!(other.contains("`image_digest`"), "{other}");
    let short = pinned("name@sha256:00", "").unwrap_err();
    assert!(
        short.contains("`image`") && short.contains("64 digits"),
        "{short}"
    );
    assert!(pinned(&name, "image_digest = \"latest\"").is_err());
    let age = |value: &str| {
        let file = format!("image_max_age = {value}");
        case.load(&file, &[], &[])
            .map(|config| config.image_max_age)
    };
    assert_eq!(age("0").unwrap(), None, "no limit");
    assert_eq!(age("\"1d\"").unwrap(), Some(Duration::from_secs(86_400)));
}

#[test]
fn keys_of_aws_are_looked_for_where_they_are_meant_to_be() {
    let case = Case::new();
    let keys: &[_] = &[
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let chain = |file: &str, variables: &[_]| {
        let chain = case
            .load(file, variables, &[])
            .unwrap()
            .provider
            .aws_chain();
        chain.map(|chain| (chain.keys.is_some(), chain.profile, chain.role.is_some()))
    };
    // A host's own role is not used for a provider that nobody chose.
    assert_eq!(chain("", &[]), None);
    assert_eq!(chain("", keys), Some((true, None, false)));
    let of_nothing = Some((false, None, false));
    assert_eq!(chain("provider = \"bedrock\"", &[]), of_nothing);
    assert_eq!(chain("", &[("CLAUDE_CODE_USE_BEDROCK", "1")]), of_nothing);
    assert_eq!(
        chain("aws_credentials = \"default-chain\"", &[]),
        of_nothing
    );
    let environment = "provider = \"bedrock\"\naws_credentials = \"environment\"";
    assert_eq!(chain(environment, &[]), None);
    assert_eq!(chain(environment, keys), Some((true, None, false)));
    let profile = Some((false, Some("p".to_owned()), false));
    assert_eq!(chain("aws_profile = \"p\"", &[]), profile);
    assert_eq!(
        chain("aws_role_arn = \"arn:aws:iam::1:role/r\"", keys),
        Some((true, None, true))
    );
    for (file, key) in [
        ("aws_external_id = \"x\"", "aws_external_id"),
        ("aws_source_identity = true", "aws_source_identity"),
        (
            "aws_profile = \"p\"\naws_credentials = \"environment\"",
            "aws_profile",
        ),
        ("aws_credentials = \"chain\"", "aws_credentials"),
    ] {
        let error = case.load(file, &[], &[]).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
    let google = |file: &str| {
        case.load(file, &[], &[])
            .unwrap()
            .provider
            .uses_google_default()
    };
    assert!(!google(""));
    assert!(google("provider = \"vertex\""));
    assert!(!google(
        "provider = \"vertex\"\nvertex_token_command = [\"x\"]"
    ));
    assert!(google("vertex_credentials = \"default\""));
}

#[test]
fn an_environment_shows_no_values() {
    let environment = Environment::of(0, [("ANTHROPIC_API_KEY", "canary")]);
    let shown = format!("{environment:?}");
    assert!(
        shown.contains("ANTHROPIC_API_KEY") && !shown.contains("canary"),
        "{shown}"
    );
}

#[test]
fn the_state_directory_follows_the_base_directories() {
    let state = |uid, variables: &[(&str, &str)]| {
        load(
            &Flags::default(),
            &Environment::of(uid, variables.iter().copied()),
        )
        .map(|config| config.paths.state_dir)
    };
    let home = ("HOME", "/home/u");
    assert_eq!(
        state(7, &[home]).unwrap(),
        Path::new("/home/u/.local/state/claude-code-mcp")
    );
    assert_eq!(
        state(7, &[home, ("XDG_STATE_HOME", "/s")]).unwrap(),
        Path::new("/s/claude-code-mcp")
    );
    assert_eq!(
        state(7, &[home, ("XDG_STATE_HOME", "relative")]).unwrap(),
        Path::new("/home/u/.local/state/claude-code-mcp")
    );
    assert!(matches!(state(7, &[]), Err(ConfigError::NoHome)));
    assert_eq!(
        state(7, &[("CLAUDE_CODE_MCP_STATE_DIR", "/x")]).unwrap(),
        Path::new("/x")
    );
}

#[test]
fn a_shorter_longest_session_shortens_the_longest_execution() {
    let case = Case::new();
    let config = case.load("max_session_timeout = \"2h\"", &[], &[]).unwrap();
    assert_eq!(config.max_execution_timeout.as_secs(), 7_200);
    let both = "max_session_timeout = \"2h\"\nmax_execution_timeout = \"3h\"";
    let error = case.load(both, &[], &[]).unwrap_err().to_string();
    assert!(
        error.contains("max_execution_timeout") && error.contains("max_session_timeout"),
        "{error}"
    );
}

#[test]
fn what_the_keys_allow_policy_allows() {
    for key in KEYS {
        let (Kind::Bytes { max, .. } | Kind::Count { max, .. } | Kind::Cpus { max, .. }) = key.kind
        else {
            continue;
        };
        if !key.name.starts_with("limits.") {
            continue;
        }
        let name = LimitName::ALL
            .into_iter()
            .find(|name| policy::limit_key(*name) == key.name)
            .unwrap_or_else(|| panic!("policy has no key {}", key.name));
        assert_eq!(
            max,
            policy::Policy::limit_ceiling(name).unwrap(),
            "{}",
            key.name
        );
    }
}
