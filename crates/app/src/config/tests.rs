//! The configuration from outside: files, variables and flags in, a configuration or a sentence out.

#[path = "../../../../tests/support/json_schema.rs"]
mod json_schema;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use model::Kernel;

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
            },
            &Environment::of(self.uid, all),
        )
    }
}

/// File, variables, `--set` flags, and the sentence that they lead to.
type Row = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    &'static str,
);

/// The error and its causes, the scratch path left out.
fn sentence(case: &Case, error: &ConfigError) -> String {
    let mut sentence = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        sentence.push_str(": ");
        sentence.push_str(cause.to_string().lines().next().unwrap_or_default());
        source = cause.source();
    }
    sentence.replace(&case.file().display().to_string(), "FILE")
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
fn every_key_is_read_from_the_file_and_from_its_variable() {
    let case = Case::new();
    let file = r#"
        project_roots = ["~/src", "/srv/code/"]
        extra_read_only = ["/opt/tools"]
        state_dir = "/var/tmp/state"
        audit_log = "/var/log/audit.jsonl"
        audit_sinks = { second = { kind = "file", path = "/mnt/audit.jsonl" } }
        audit_rotate_size = "1m"
        audit_rotate_interval = "7d"
        audit_keep_files = 12
        audit_keep_days = 90
        default_session_timeout = "15m"
        max_session_timeout = 7200
        default_idle_timeout = 60
        max_concurrent_sessions = 1
        max_sessions_per_caller = 3
        max_sessions_per_project = 2
        overcommit_memory_percent = 150
        overcommit_cpu_percent = 0
        overcommit_disk_percent = 100
        queue_wait = "20s"
        max_calls_per_caller = 7
        rate_calls_per_minute = 1000
        rate_burst = 50
        rate_creates_per_minute = 20
        rate_executions_per_minute = 0
        rate_transfers_per_minute = 300
        rate_session_calls_per_minute = 400
        max_execution_timeout = "1h"
        lease_seconds = 5
        idle_exit_seconds = 1
        http_listen = "127.0.0.1:7860"
        http_hosts = ["mcp.example.com", "other.example:8443"]
        http_origins = ["https://app.example"]
        http_tls_cert = "/srv/tls/cert.pem"
        http_tls_key = "/srv/tls/key.pem"
        http_behind_proxy = ["192.0.2.1", "2001:db8::1"]
        oauth_issuers = ["https://id.example/tenant"]
        oauth_audience = "https://mcp.example.com/mcp"
        oauth_roots = ["/srv/projects"]
        oauth_max_sessions = 3
        backend = "native"
        docker_host = "unix:///run/engine.sock"
        docker_tls_verify = true
        docker_cert_path = "/srv/certificates"
        image = "debian:bookworm-slim"
        image_digest = "sha256:00000000000000000000000000000000000000000000000000000000000000ff"
        image_max_age = "30d"
        native_root = "/srv/root"
        agent = "sha256-0123456789ab"
        runtime_classes = ["runc", "runsc", "kata=guest"]
        provider = "vertex"
        api_key_file = "/srv/key"
        auth_token_file = "/srv/token"
        auth_token_command = ["token", "print"]
        bedrock_token_file = "/srv/bedrock"
        aws_credentials = "default-chain"
        aws_profile = "models"
        aws_role_arn = "arn:aws:iam::1:role/r"
        aws_external_id = "outside"
        aws_source_identity = true
        aws_session_policy = "none"
        vertex_credentials = "default"
        anthropic_base_url = "https://gateway.example"
        aws_region = "us-east-1"
        bedrock_base_url = "https://bedrock.example"
        vertex_project = "my-proj"
        vertex_region = "us-east5"
        vertex_base_url = "https://vertex.example"
        vertex_token_command = ["gcloud", "auth", "print-access-token"]
        model = "claude-opus-5-5"
        small_model = "claude-haiku-5-5"
        models = ["claude-*"]
        session_max_requests = 1000
        session_max_tokens = 2000000
        network_presets = ["github", "crates"]
        network_allow = ["registry.example.com", "*.example.com:80,443"]
        network_default = ["debian", "time.example.com:8080"]
        network_private = ["registry.example.com:443"]
        credentials = { github = { file = "/srv/github" } }
        max_usd_per_session = 2.5
        max_usd_per_caller_per_day = "10.000001"
        max_usd_per_day = 100
        max_requests_per_caller_per_day = 500
        max_requests_per_day = 5000
        max_tokens_per_caller_per_day = 1000000
        max_tokens_per_day = 10000000
        prices_file = "/srv/prices.json"
        caller_may_answer = true
        permission_timeout = "2m"
        permission_allow = ["Bash(git status)"]
        permission_deny = ["WebFetch", "Bash(curl *)"]
        dangerously_trust_project_settings = true
        allow_protected_changes = true
        dangerously_accept_soft_limits = true
        dangerously_plain_loopback_engine = true
        [limits]
        memory = "2g"
        cpus = 1.5
        pids = 100
        open_files = 512
        file_size = "1g"
        temporary = 67108864
        state = "1.5g"
    "#;
    let from_file = case.load(file, &[], &[]).unwrap();
    let http = from_file.http.as_ref().unwrap();
    assert_eq!(http.listen.to_string(), "127.0.0.1:7860");
    assert_eq!((http.hosts.len(), http.proxies.len()), (2, 2));
    assert_eq!(http.origins, ["https://app.example"]);
    let tls = http.tls.as_ref().unwrap();
    assert_eq!(
        (tls.certificate.as_path(), tls.key.as_path()),
        (
            Path::new("/srv/tls/cert.pem"),
            Path::new("/srv/tls/key.pem")
        )
    );
    let oauth = http.oauth.as_ref().unwrap();
    assert_eq!(oauth.issuers, ["https://id.example/tenant"]);
    assert_eq!(oauth.audience, "https://mcp.example.com/mcp");
    assert_eq!(from_file.token_rights.roots, [Path::new("/srv/projects")]);
    assert_eq!(from_file.token_rights.max_sessions, Some(3));
    assert_eq!(
        from_file.project_roots,
        [Path::new("/home/someone/src"), Path::new("/srv/code")]
    );
    let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
    let rotation = audit::Rotation {
        size_bytes: Some(1 << 20),
        interval: days(7),
        keep_files: Some(12),
        keep: days(90),
    };
    assert_eq!(from_file.audit_rotation, rotation);
    let classes: Vec<_> = from_file
        .runtime_classes
        .iter()
        .map(|class| (class.name.as_str(), class.kernel))
        .collect();
    assert_eq!(
        classes,
        [
            ("runc", Kernel::Shared),
            ("runsc", Kernel::Guest),
            ("kata", Kernel::Guest)
        ]
    );
    let budgets = &from_file.provider.budgets;
    assert_eq!(
        budgets.session_cost,
        Some(egress::Usd::from_micro(2_500_000))
    );
    assert_eq!(
        budgets.caller_day.cost,
        Some(egress::Usd::from_micro(10_000_001))
    );
    assert_eq!(budgets.caller_day.tokens, Some(1_000_000));
    assert_eq!(budgets.server_day.requests, Some(5_000));
    assert_eq!(from_file.limits[&LimitName::CpuMillis], 1500);
    assert_eq!(from_file.limits[&LimitName::MemoryBytes], 2 << 30);
    assert_eq!(from_file.limits.len(), 7);
    let callers = &from_file.callers;
    assert_eq!(callers.rates.calls, policy::Rate::new(1_000, 50));
    assert_eq!(
        callers.rates.creates,
        policy::Rate::new(20, 20),
        "no more at once than in a minute"
    );
    assert_eq!(callers.rates.executions, None);
    assert_eq!(callers.overcommit.memory, Some(150));
    assert_eq!(callers.overcommit.cpu, None);
    assert_eq!(callers.queue_wait.as_secs(), 20);

    let variables = [
        ("CLAUDE_CODE_MCP_PROJECT_ROOTS", "~/src:/srv/code"),
        ("CLAUDE_CODE_MCP_EXTRA_READ_ONLY", "/opt/tools"),
        ("CLAUDE_CODE_MCP_STATE_DIR", "/var/tmp/state"),
        ("MCP_AUDIT_LOG", "/var/log/audit.jsonl"),
        (
            "CLAUDE_CODE_MCP_AUDIT_SINKS",
            r#"{ second = { kind = "file", path = "/mnt/audit.jsonl" } }"#,
        ),
        ("CLAUDE_CODE_MCP_AUDIT_ROTATE_SIZE", "1048576"),
        ("CLAUDE_CODE_MCP_AUDIT_ROTATE_INTERVAL", "168h"),
        ("CLAUDE_CODE_MCP_AUDIT_KEEP_FILES", "12"),
        ("CLAUDE_CODE_MCP_AUDIT_KEEP_DAYS", "90"),
        ("DEFAULT_SESSION_TIMEOUT", "900"),
        ("CLAUDE_CODE_MCP_MAX_SESSION_TIMEOUT", "2h"),
        ("CLAUDE_CODE_MCP_DEFAULT_IDLE_TIMEOUT", "1m"),
        ("MAX_CONCURRENT_SESSIONS", "1"),
        ("CLAUDE_CODE_MCP_MAX_SESSIONS_PER_CALLER", "3"),
        ("CLAUDE_CODE_MCP_MAX_SESSIONS_PER_PROJECT", "2"),
        ("CLAUDE_CODE_MCP_OVERCOMMIT_MEMORY_PERCENT", "150"),
        ("CLAUDE_CODE_MCP_OVERCOMMIT_CPU_PERCENT", "0"),
        ("CLAUDE_CODE_MCP_OVERCOMMIT_DISK_PERCENT", "100"),
        ("CLAUDE_CODE_MCP_QUEUE_WAIT", "20"),
        ("CLAUDE_CODE_MCP_MAX_CALLS_PER_CALLER", "7"),
        ("CLAUDE_CODE_MCP_RATE_CALLS_PER_MINUTE", "1000"),
        ("CLAUDE_CODE_MCP_RATE_BURST", "50"),
        ("CLAUDE_CODE_MCP_RATE_CREATES_PER_MINUTE", "20"),
        ("CLAUDE_CODE_MCP_RATE_EXECUTIONS_PER_MINUTE", "0"),
        ("CLAUDE_CODE_MCP_RATE_TRANSFERS_PER_MINUTE", "300"),
        ("CLAUDE_CODE_MCP_RATE_SESSION_CALLS_PER_MINUTE", "400"),
        ("CLAUDE_CODE_MCP_MAX_EXECUTION_TIMEOUT", "3600"),
        ("CLAUDE_CODE_MCP_LEASE_SECONDS", "5"),
        ("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "1"),
        ("CLAUDE_CODE_MCP_HTTP_LISTEN", "127.0.0.1:7860"),
        (
            "CLAUDE_CODE_MCP_HTTP_HOSTS",
            "mcp.example.com,other.example:8443",
        ),
        ("CLAUDE_CODE_MCP_HTTP_ORIGINS", "https://app.example"),
        ("CLAUDE_CODE_MCP_HTTP_TLS_CERT", "/srv/tls/cert.pem"),
        ("CLAUDE_CODE_MCP_HTTP_TLS_KEY", "/srv/tls/key.pem"),
        ("CLAUDE_CODE_MCP_HTTP_BEHIND_PROXY", "192.0.2.1,2001:db8::1"),
        ("CLAUDE_CODE_MCP_OAUTH_ISSUERS", "https://id.example/tenant"),
        (
            "CLAUDE_CODE_MCP_OAUTH_AUDIENCE",
            "https://mcp.example.com/mcp",
        ),
        ("CLAUDE_CODE_MCP_OAUTH_ROOTS", "/srv/projects"),
        ("CLAUDE_CODE_MCP_OAUTH_MAX_SESSIONS", "3"),
        ("CLAUDE_CODE_MCP_BACKEND", "native"),
        ("DOCKER_HOST", "unix:///run/engine.sock"),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", "/srv/certificates"),
        ("DEFAULT_CLAUDE_IMAGE", "debian:bookworm-slim"),
        (
            "CLAUDE_CODE_MCP_IMAGE_DIGEST",
            "sha256:00000000000000000000000000000000000000000000000000000000000000ff",
        ),
        ("CLAUDE_CODE_MCP_IMAGE_MAX_AGE", "720h"),
        ("CLAUDE_CODE_MCP_NATIVE_ROOT", "/srv/root"),
        ("CLAUDE_CODE_MCP_AGENT", "sha256-0123456789ab"),
        ("CLAUDE_CODE_MCP_RUNTIME_CLASSES", "runc, runsc,kata=guest"),
        ("CLAUDE_CODE_MCP_PROVIDER", "vertex"),
        ("CLAUDE_CODE_MCP_API_KEY_FILE", "/srv/key"),
        ("CLAUDE_CODE_MCP_AUTH_TOKEN_FILE", "/srv/token"),
        ("CLAUDE_CODE_MCP_AUTH_TOKEN_COMMAND", "token,print"),
        ("CLAUDE_CODE_MCP_BEDROCK_TOKEN_FILE", "/srv/bedrock"),
        ("CLAUDE_CODE_MCP_AWS_CREDENTIALS", "default-chain"),
        ("CLAUDE_CODE_MCP_AWS_PROFILE", "models"),
        ("CLAUDE_CODE_MCP_AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("CLAUDE_CODE_MCP_AWS_EXTERNAL_ID", "outside"),
        ("CLAUDE_CODE_MCP_AWS_SOURCE_IDENTITY", "1"),
        ("CLAUDE_CODE_MCP_AWS_SESSION_POLICY", "none"),
        ("CLAUDE_CODE_MCP_VERTEX_CREDENTIALS", "default"),
        ("ANTHROPIC_BASE_URL", "https://gateway.example"),
        ("AWS_REGION", "us-east-1"),
        ("ANTHROPIC_BEDROCK_BASE_URL", "https://bedrock.example"),
        ("ANTHROPIC_VERTEX_PROJECT_ID", "my-proj"),
        ("CLOUD_ML_REGION", "us-east5"),
        ("ANTHROPIC_VERTEX_BASE_URL", "https://vertex.example"),
        (
            "CLAUDE_CODE_MCP_VERTEX_TOKEN_COMMAND",
            "gcloud,auth,print-access-token",
        ),
        ("ANTHROPIC_MODEL", "claude-opus-5-5"),
        ("ANTHROPIC_SMALL_FAST_MODEL", "claude-haiku-5-5"),
        ("CLAUDE_CODE_MCP_MODELS", "claude-*"),
        ("CLAUDE_CODE_MCP_SESSION_MAX_REQUESTS", "1000"),
        ("CLAUDE_CODE_MCP_SESSION_MAX_TOKENS", "2000000"),
        ("CLAUDE_CODE_MCP_NETWORK_PRESETS", "github,crates"),
        (
            "CLAUDE_CODE_MCP_NETWORK_ALLOW",
            "registry.example.com *.example.com:80,443",
        ),
        (
            "CLAUDE_CODE_MCP_NETWORK_DEFAULT",
            "debian time.example.com:8080",
        ),
        ("CLAUDE_CODE_MCP_NETWORK_PRIVATE", "registry.example.com"),
        (
            "CLAUDE_CODE_MCP_CREDENTIALS",
            r#"{ github = { file = "/srv/github" } }"#,
        ),
        ("CLAUDE_CODE_MCP_MAX_USD_PER_SESSION", "2.5"),
        ("CLAUDE_CODE_MCP_MAX_USD_PER_CALLER_PER_DAY", "10.000001"),
        ("CLAUDE_CODE_MCP_MAX_USD_PER_DAY", "100"),
        ("CLAUDE_CODE_MCP_MAX_REQUESTS_PER_CALLER_PER_DAY", "500"),
        ("CLAUDE_CODE_MCP_MAX_REQUESTS_PER_DAY", "5000"),
        ("CLAUDE_CODE_MCP_MAX_TOKENS_PER_CALLER_PER_DAY", "1000000"),
        ("CLAUDE_CODE_MCP_MAX_TOKENS_PER_DAY", "10000000"),
        ("CLAUDE_CODE_MCP_PRICES_FILE", "/srv/prices.json"),
        ("CLAUDE_CODE_MCP_CALLER_MAY_ANSWER", "true"),
        ("CLAUDE_CODE_MCP_PERMISSION_TIMEOUT", "120"),
        ("CLAUDE_CODE_MCP_PERMISSION_ALLOW", "Bash(git status)"),
        ("CLAUDE_CODE_MCP_PERMISSION_DENY", "WebFetch,Bash(curl *)"),
        ("CLAUDE_CODE_MCP_DANGEROUSLY_TRUST_PROJECT_SETTINGS", "1"),
        ("CLAUDE_CODE_MCP_ALLOW_PROTECTED_CHANGES", "1"),
        ("CLAUDE_CODE_MCP_DANGEROUSLY_PLAIN_LOOPBACK_ENGINE", "true"),
        ("CLAUDE_CODE_MCP_DANGEROUSLY_ACCEPT_SOFT_LIMITS", "yes"),
        ("CLAUDE_CODE_MCP_LIMIT_MEMORY", "2g"),
        ("CLAUDE_CODE_MCP_LIMIT_CPUS", "1.5"),
        ("CLAUDE_CODE_MCP_LIMIT_PIDS", "100"),
        ("CLAUDE_CODE_MCP_LIMIT_OPEN_FILES", "512"),
        ("CLAUDE_CODE_MCP_LIMIT_FILE_SIZE", "1g"),
        ("CLAUDE_CODE_MCP_LIMIT_TEMPORARY", "64m"),
        ("CLAUDE_CODE_MCP_LIMIT_STATE", "1536m"),
    ];
    assert_eq!(variables.len(), KEYS.len());
    assert_eq!(
        format!("{:?}", case.load("", &variables, &[]).unwrap()),
        format!("{from_file:?}")
    );
    let set: Vec<_> = KEYS
        .iter()
        .filter_map(|key| {
            variables
                .iter()
                .find(|(name, _)| *name == key.variable)
                .map(|(_, v)| (key.name, v))
        })
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let from_flags = case.load("", &[], &set.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(
        format!("{:?}", from_flags.unwrap()),
        format!("{from_file:?}")
    );
}

#[test]
fn what_is_no_rule_and_no_preset_is_told_with_its_key() {
    let case = Case::new();
    for (file, sentence_part) in [
        (
            "network_allow = [\"10.0.0.1\"]",
            "`network_allow` in FILE:1 has a rule that cannot be read: \"10.0.0.1\" is no host",
        ),
        ("network_allow = [\"*.com\"]", "too wide"),
        (
            "network_allow = \"example.com\"",
            "`network_allow` in FILE:1 must be a list of texts",
        ),
        (
            "network_private = [\"example.com:0\"]",
            "`network_private` in FILE:1",
        ),
        (
            "network_presets = [\"gihub\"]",
            "`network_presets` in FILE:1 names the preset `gihub`, but there are anthropic, github",
        ),
        (
            "network_default = [\"localhost\"]",
            "`network_default` in FILE:1 names the preset `localhost`",
        ),
    ] {
        let error = case.load(file, &[], &[]).unwrap_err();
        let told = sentence(&case, &error);
        assert!(told.contains(sentence_part), "{told}");
    }
    let local = case
        .load("network_default = [\"localhost:8080\"]", &[], &[])
        .unwrap();
    assert_eq!(local.network.default.len(), 1);
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
fn what_is_not_accepted_is_named_with_its_place() {
    let case = Case::new();
    let table: &[Row] = &[
        (
            "lease_second = 1",
            &[],
            &[],
            "unknown key `lease_second` in FILE:1; did you mean `lease_seconds`?",
        ),
        ("colour = 1", &[], &[], "unknown key `colour` in FILE:1"),
        (
            "[limits]\nmemmory = 1",
            &[],
            &[],
            "unknown key `limits.memmory` in FILE:2; did you mean `limits.memory`?",
        ),
        (
            "[limit]\nmemory = 1",
            &[],
            &[],
            "unknown key `limit` in FILE:1",
        ),
        (
            "",
            &[],
            &["memory=2g"],
            "unknown key `memory` in the flag --set",
        ),
        (
            "",
            &[],
            &["memory"],
            "`--set memory` must have the form `--set key=value`",
        ),
        (
            "= 1",
            &[],
            &[],
            "the configuration file FILE is not valid TOML: TOML parse error at line 1, column 1",
        ),
        (
            "max_concurrent_sessions = 0",
            &[],
            &[],
            "`max_concurrent_sessions` in FILE:1 is 0, but must be from 1 to 10000",
        ),
        (
            "max_concurrent_sessions = -1",
            &[],
            &[],
            "`max_concurrent_sessions` in FILE:1 must be a whole number, not negative",
        ),
        (
            "",
            &[("MAX_CONCURRENT_SESSIONS", "many")],
            &[],
            "`max_concurrent_sessions` in the variable MAX_CONCURRENT_SESSIONS must be a whole number, not negative",
        ),
        (
            "",
            &[("DEFAULT_SESSION_TIMEOUT", "1w")],
            &[],
            "`default_session_timeout` in the variable DEFAULT_SESSION_TIMEOUT cannot be read: \"1w\" is not a duration \
             such as 90, 90s, 15m, 2h or 1d",
        ),
        (
            "lease_seconds = 4000",
            &[],
            &[],
            "`lease_seconds` in FILE:1 is 4000 seconds, but must be from 2 seconds to 3600 seconds",
        ),
        (
            "default_session_timeout = \"2d\"",
            &[],
            &[],
            "`default_session_timeout` is 172800 seconds, which is more than `max_session_timeout` (86400 seconds)",
        ),
        (
            "[limits]\nmemory = \"1m\"",
            &[],
            &[],
            "`limits.memory` in FILE:2 is 1 MiB, but must be from 16 MiB to 1 TiB",
        ),
        (
            "[limits]\ncpus = true",
            &[],
            &[],
            "`limits.cpus` in FILE:2 must be a number, or a text with a unit",
        ),
        (
            "image = \"a\\nb\"",
            &[],
            &[],
            "`image` in FILE:1 must be a text of 1 to 512 bytes without control characters",
        ),
        (
            "runtime_classes = [\"kata\"]",
            &[],
            &[],
            "`runtime_classes` in FILE:1 must be a list of runtimes such as [\"runc\", \"runsc\", \"kata=guest\"], each once",
        ),
        (
            "runtime_classes = [\"runc\", \"runc=guest\"]",
            &[],
            &[],
            "`runtime_classes` in FILE:1 must be a list of runtimes such as [\"runc\", \"runsc\", \"kata=guest\"], each once",
        ),
        (
            "runtime_classes = [\"a b=guest\"]",
            &[],
            &[],
            "`runtime_classes` in FILE:1 must be a list of runtimes such as [\"runc\", \"runsc\", \"kata=guest\"], each once",
        ),
        (
            "runtime_classes = [\"kata=own\"]",
            &[],
            &[],
            "`runtime_classes` in FILE:1 must be a list of runtimes such as [\"runc\", \"runsc\", \"kata=guest\"], each once",
        ),
        (
            "runtime_classes = \"runc\"",
            &[],
            &[],
            "`runtime_classes` in FILE:1 must be a list of runtimes such as [\"runc\", \"runsc\", \"kata=guest\"], each once",
        ),
        (
            "backend = \"podman\"",
            &[],
            &[],
            "`backend` in FILE:1 must be \"auto\", \"native\" or \"docker\"",
        ),
        (
            "allow_protected_changes = \"yes\"",
            &[],
            &[],
            "`allow_protected_changes` in FILE:1 must be true or false",
        ),
        (
            "project_roots = \"/srv\"",
            &[],
            &[],
            "`project_roots` in FILE:1 must be a list of paths",
        ),
        (
            "project_roots = [\"srv\"]",
            &[],
            &[],
            "`project_roots` in FILE:1: srv must be an absolute path, or begin with ~/",
        ),
        (
            "audit_rotate_size = \"4k\"",
            &[],
            &[],
            "`audit_rotate_size` in FILE:1 is 4 KiB, but must be from 1 MiB to 1 TiB",
        ),
        (
            "audit_log = \"/a/../b\"",
            &[],
            &[],
            "`audit_log` in FILE:1: /a/../b must not hold `..` or a null byte",
        ),
    ];
    for (file, variables, set, expected) in table {
        let error = case.load(file, variables, set).expect_err(expected);
        assert_eq!(sentence(&case, &error), *expected);
    }
}

#[test]
fn neither_the_whole_machine_nor_a_whole_home_is_ever_offered() {
    let case = Case::new();
    for key in ["project_roots", "extra_read_only"] {
        for path in ["/", "/home", "/home/someone", "~", "~/", "//", "/./"] {
            let result = case.load(&format!("{key} = [{path:?}]"), &[], &[]);
            assert!(
                matches!(result, Err(ConfigError::Path { .. })),
                "{key} {path}"
            );
        }
        assert!(case.load(&format!("{key} = [\"~/src\"]"), &[], &[]).is_ok());
    }
}

#[test]
fn what_no_session_may_have_is_not_offered_either() {
    let case = Case::new();
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let home = home.path().canonicalize().unwrap();
    for directory in [".ssh", "tools"] {
        std::fs::create_dir(home.join(directory)).unwrap();
    }
    std::os::unix::fs::symlink(home.join(".ssh"), home.join("link")).unwrap();
    let variables = [("HOME", home.to_str().unwrap())];
    let offered =
        |key: &str, path: &str| case.load(&format!("{key} = [{path:?}]"), &variables, &[]);
    for key in ["project_roots", "extra_read_only"] {
        let keys = home.join(".ssh").display().to_string();
        let link = home.join("link").display().to_string();
        for path in [
            "~/.ssh",
            "~/.ssh/deeper",
            "~/link",
            "/etc",
            "/root/x",
            &keys,
            &link,
        ] {
            let error = offered(key, path).expect_err(path);
            let said = sentence(&case, &error);
            assert!(
                said.starts_with(&format!("`{key}` in FILE:1: "))
                    && said.contains("that no session may have"),
                "{key} {path}: {said}"
            );
        }
        offered(key, "~/tools").unwrap();
    }
    std::os::unix::fs::symlink(home.join("tools"), home.join("current")).unwrap();
    let config = offered("extra_read_only", "~/current").unwrap();
    assert_eq!(
        config.extra_read_only,
        [home.join("tools")],
        "as it was judged"
    );
    let error = offered("extra_read_only", "/tmp/tools").unwrap_err();
    assert_eq!(
        sentence(&case, &error),
        "`extra_read_only` in FILE:1: /tmp/tools would not be seen inside: the session's temporary files"
    );
    offered("project_roots", "/tmp/tools").unwrap();
}

#[test]
fn an_address_of_a_provider_is_checked_before_anything_starts() {
    let case = Case::new();
    let keys = ["anthropic_base_url", "bedrock_base_url", "vertex_base_url"];
    for key in keys {
        for fit in ["https://gateway.example/x", "http://127.0.0.1:8080"] {
            case.load("", &[], &[&format!("{key}={fit}")]).unwrap();
        }
        let error = |url: &str| {
            let error = case.load("", &[], &[&format!("{key}={url}")]);
            sentence(&case, &error.expect_err(url))
        };
        let plain = error("http://example.org");
        assert!(
            plain.starts_with(&format!(
                "`{key}` in the flag --set cannot be used: plain http"
            )),
            "{plain}"
        );
        assert!(error("ftp://x").contains("is not a base URL"));
    }
    let error = case.load("", &[("ANTHROPIC_BASE_URL", "http://example.org")], &[]);
    let said = sentence(&case, &error.unwrap_err());
    assert!(
        said.contains("in the variable ANTHROPIC_BASE_URL"),
        "{said}"
    );
}

#[test]
fn a_file_that_others_can_write_is_not_trusted() {
    let case = Case::new();
    let flags = Flags {
        config: Some(case.file()),
        ..Flags::default()
    };
    let environment = Environment::of(case.uid, [("HOME", "/home/someone")]);
    std::fs::write(case.file(), "").unwrap();
    assert!(load(&flags, &environment).is_ok());
    std::fs::set_permissions(case.file(), std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(
        load(&flags, &environment),
        Err(ConfigError::Unsafe { .. })
    ));
}

#[test]
fn a_named_file_must_exist_and_the_usual_one_need_not() {
    let case = Case::new();
    let home = case.scratch.path().to_str().unwrap();
    let missing = format!("{home}/missing.toml");
    let usual = Environment::of(4242, [("HOME", home), ("XDG_CONFIG_HOME", home)]);
    assert!(load(&Flags::default(), &usual).is_ok());
    let flags = Flags {
        config: Some(missing.clone().into()),
        ..Flags::default()
    };
    assert!(matches!(
        load(&flags, &usual),
        Err(ConfigError::Read { .. })
    ));
    let named = Environment::of(
        4242,
        [("HOME", home), ("CLAUDE_CODE_MCP_CONFIG", missing.as_str())],
    );
    assert!(matches!(
        load(&Flags::default(), &named),
        Err(ConfigError::Read { .. })
    ));
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
fn names_of_keys_and_variables_are_unique_and_danger_is_named() {
    let mut names: Vec<_> = KEYS
        .iter()
        .flat_map(|key| [key.name, key.variable])
        .collect();
    names.extend(OTHER_VARIABLES.iter().map(|variable| variable.name));
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for key in KEYS
        .iter()
        .filter(|key| key.variable.contains("DANGEROUSLY"))
    {
        assert!(key.name.starts_with("dangerously_"));
    }
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

#[test]
fn everything_that_is_wrong_is_told_at_once_with_file_and_line() {
    let case = Case::new();
    let file = "\
lease_second = 1
max_concurrent_sessions = 0
network_allow = [
    \"fine.example\",
    \"10.0.0.1\",
    \"also.fine.example:80\",
    \"*\",
]
network_presets = [\"github\", \"nothing\"]
default_session_timeout = \"2d\"
[limits]
memory = \"lots\"
memmory = 1
[credentials.hub]
file = \"relative\"
destinations = [\"hub.example\"]
[credentials.fine]
file = \"/srv/token\"
destinations = [\"fine.example\"]
";
    std::fs::write(case.file(), file).unwrap();
    let variables = [
        ("HOME", "/home/someone"),
        ("CLAUDE_CODE_MCP_BACKEND", "podman"),
        ("CLAUDE_CODE_MCP_NETWORK_ALOW", "x"),
        ("CLAUDE_CODE_MCP_CREDENTIAL_HUB", "canary"),
    ];
    let flags = Flags {
        config: Some(case.file()),
        set: vec!["colour=1".to_owned()],
        ..Flags::default()
    };
    let found = inspect(&flags, &Environment::of(case.uid, variables));
    let mut told: Vec<_> = found
        .problems
        .iter()
        .map(|problem| {
            let place = problem.place.as_ref().map(Place::to_string);
            let place = place.unwrap_or_default();
            let place = place.replace(&case.file().display().to_string(), "FILE");
            let key = problem.key.as_deref().unwrap_or_default();
            assert!(!problem.hint.is_empty() && !problem.message.is_empty());
            format!("{place} {} {key}", problem.code)
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "FILE:1 unknown_key lease_second",
            "FILE:10 contradiction default_session_timeout",
            "FILE:12 unreadable_value limits.memory",
            "FILE:13 unknown_key limits.memmory",
            "FILE:14 bad_credential credentials.hub",
            "FILE:2 out_of_range max_concurrent_sessions",
            "FILE:5 bad_rule network_allow",
            "FILE:7 bad_rule network_allow",
            "FILE:9 unknown_preset network_presets",
            "flag --set unknown_key colour",
            "variable CLAUDE_CODE_MCP_BACKEND wrong_type backend",
        ]
    );
    assert_eq!(
        found.warnings,
        [
            "the variable CLAUDE_CODE_MCP_NETWORK_ALOW is not known; did you mean CLAUDE_CODE_MCP_NETWORK_ALLOW?"
        ]
    );
    assert!(!format!("{found:?}").contains("canary"));
    // Without what is wrong the rest can still be looked at.
    let config = found.config.unwrap();
    assert_eq!(config.lease, Duration::from_secs(60));
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line_and_the_rest_is_looked_at_too() {
    let case = Case::new();
    std::fs::write(case.file(), "backend = \"native\"\n= 1\n").unwrap();
    let flags = Flags {
        config: Some(case.file()),
        set: vec!["lease_seconds=1d".to_owned()],
        ..Flags::default()
    };
    let environment = Environment::of(case.uid, [("HOME", "/home/someone")]);
    let codes = |flags: &Flags| {
        let problems = inspect(flags, &environment).problems;
        let told = problems
            .into_iter()
            .map(|problem| (problem.code, problem.place));
        told.collect::<Vec<_>>()
    };
    let path = case.file().display().to_string();
    let line = Some(2);
    assert_eq!(
        codes(&flags),
        [
            ("toml_syntax", Some(Place::File { path, line })),
            ("out_of_range", Some(Place::Flag("--set")))
        ]
    );
    std::fs::write(case.file(), "backend = \"native\"\n").unwrap();
    assert_eq!(codes(&flags).len(), 1);
}

#[test]
fn what_is_shown_tells_where_each_value_is_written() {
    let case = Case::new();
    let file = "# first\nmax_concurrent_sessions = 2\n[limits]\ncpus = 1.5\n";
    let variables = [("CLAUDE_CODE_MCP_AUTH_TOKEN_COMMAND", "print,canary")];
    let config = case.load(file, &variables, &["lease_seconds=5"]).unwrap();
    let rows = shown(&config);
    assert_eq!(rows.len(), KEYS.len());
    let row = |key: &str| {
        let row = rows.iter().find(|row| row.key == key).unwrap();
        let place = row.place.as_ref().map(Place::to_string).unwrap_or_default();
        let place = place.replace(&case.file().display().to_string(), "FILE");
        format!("{} | {place} | {}", row.text, row.value)
    };
    assert_eq!(row("max_concurrent_sessions"), "2 | FILE:2 | 2");
    assert_eq!(row("limits.cpus"), "1.5 | FILE:4 | 1.5");
    assert_eq!(row("lease_seconds"), "\"5\" | flag --set | \"5\"");
    assert_eq!(row("idle_exit_seconds"), "30 |  | 30");
    assert_eq!(row("max_execution_timeout"), "21600 |  | 21600");
    assert!(row("state_dir").contains("/claude-code-mcp |  | \"/"));
    assert!(row("limits.memory").ends_with(char::is_numeric));
    let token = row("auth_token_command");
    assert!(
        token.contains("print") && token.contains("[secret]") && !token.contains("canary"),
        "{token}"
    );
    assert!(!format!("{rows:?}").contains("canary"));
}

#[test]
fn the_schema_takes_what_the_page_shows_and_refuses_what_a_form_can_show_to_be_wrong() {
    let schema = schema();
    let accepts = |text: &str| {
        let value: toml::Table = text.parse().unwrap();
        json_schema::fits(&schema, &serde_json::to_value(value).unwrap())
    };
    let page = reference_page();
    let (_, example) = page.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    assert!(example.contains("[limits]") && accepts(example));
    // Each refused file has a sibling that is accepted, so that nothing is refused for another reason.
    for (wrong, right) in [
        ("lease_second = 1", "lease_seconds = 2"),
        ("lease_seconds = 4000", "lease_seconds = 3600"),
        ("lease_seconds = \"soon\"", "lease_seconds = \"15m\""),
        ("lease_seconds = 1.5", "lease_seconds = \"1.5m\""),
        ("max_concurrent_sessions = 0", "max_concurrent_sessions = 1"),
        (
            "max_concurrent_sessions = -1",
            "max_concurrent_sessions = 10000",
        ),
        (
            "max_concurrent_sessions = \"many\"",
            "max_concurrent_sessions = 7",
        ),
        ("backend = \"podman\"", "backend = \"docker\""),
        (
            "allow_protected_changes = \"yes\"",
            "allow_protected_changes = true",
        ),
        (
            "project_roots = \"/srv\"",
            "project_roots = [\"/srv/code\", \"~/src\"]",
        ),
        ("project_roots = [\"srv\"]", "project_roots = []"),
        ("runtime_classes = \"runc\"", "runtime_classes = [\"runc\"]"),
        ("image = \"a\\nb\"", "image = \"a\""),
        ("image = \"\"", "image = \"a:b\""),
        ("[limit]\nmemory = 1", "[limits]\nmemory = \"2g\""),
        ("[limits]\nmemmory = 1", "[limits]\nmemory = 16777216"),
        ("[limits]\nmemory = 1", "[limits]\nmemory = \"512MiB\""),
        ("[limits]\ncpus = true", "[limits]\ncpus = 0.5"),
        ("max_usd_per_day = -1", "max_usd_per_day = 0.25"),
        (
            "[credentials.github]\nfiel = \"/t\"",
            "[credentials.github]\nfile = \"/t\"",
        ),
        (
            "[credentials.github]\nfile = \"/t\"\ncommand = [\"x\"]",
            "[credentials.github]\ncommand = [\"x\"]",
        ),
        (
            "[credentials.Hub]\nfile = \"/t\"",
            "[credentials.hub]\nfile = \"/t\"",
        ),
        (
            "[audit_sinks.a]\nkind = \"kafka\"",
            "[audit_sinks.a]\nkind = \"syslog\"",
        ),
        (
            "[audit_sinks.a]\npath = \"/x\"",
            "[audit_sinks.a]\nkind = \"file\"\npath = \"/x\"",
        ),
        (
            "[audit_sinks.a]\nkind = \"stderr\"\nformat = \"xml\"",
            "[audit_sinks.a]\nkind = \"stderr\"\nformat = \"ocsf\"",
        ),
    ] {
        assert!(!accepts(wrong), "{wrong}");
        assert!(accepts(right), "{right}");
        let case = Case::new();
        assert!(case.load(wrong, &[], &[]).is_err(), "{wrong}");
        // Credentials need a destination, and the schema leaves that to services that are not known.
        if !right.contains("credentials.hub") {
            case.load(right, &[], &[]).expect(right);
        }
    }
}

#[test]
fn a_running_server_takes_over_what_it_can_and_nothing_of_what_is_wrong() {
    let case = Case::new();
    let flags = Flags {
        config: Some(case.file()),
        set: vec!["lease_seconds=5".to_owned()],
        ..Flags::default()
    };
    let environment = Environment::of(
        case.uid,
        [("HOME", "/home/someone"), ("MAX_CONCURRENT_SESSIONS", "3")],
    );
    let write = |text: &str| std::fs::write(case.file(), text).unwrap();
    write("backend = \"native\"\nlease_seconds = 9\nauth_token_command = [\"a\", \"canary\"]");
    let mut running = Running::new(load(&flags, &environment).unwrap(), flags, environment);
    let again = running.read_again().unwrap();
    assert_eq!((again.changes.len(), again.pending.len()), (0, 0));

    write(
        "backend = \"docker\"\nmax_concurrent_sessions = 4\ndefault_idle_timeout = 60\nauth_token_command = [\"a\", \"b\"]",
    );
    let reread = running.read_again().unwrap();
    let told: Vec<_> = reread
        .changes
        .iter()
        .map(|change| {
            let side = |written: &Option<Written>| {
                written.as_ref().map_or("default".to_owned(), |written| {
                    format!(
                        "{}{}",
                        written.shown,
                        ["", " (less)"][usize::from(written.is_redacted)]
                    )
                })
            };
            format!(
                "{} {:?}: {} -> {}",
                change.key,
                change.applies,
                side(&change.old),
                side(&change.new)
            )
        })
        .collect();
    // What a variable or a flag says wins, before and after.
    assert_eq!(
        told,
        [
            "default_idle_timeout NewSessions: default -> 60",
            "backend Restart: \"native\" -> \"docker\"",
            "auth_token_command NewSessions: [\"a\", \"[secret]\"] (less) -> [\"a\", \"[secret]\"] (less)",
        ]
    );
    assert_ne!(
        reread.changes[2].old.as_ref().unwrap().sha256,
        reread.changes[2].new.as_ref().unwrap().sha256
    );
    assert!(!format!("{reread:?}").contains("canary"));
    assert_eq!(reread.pending, ["backend"]);
    assert_eq!(reread.config.backend, BackendChoice::Native);
    assert_eq!(reread.config.default_idle_timeout.as_secs(), 60);
    running.take_over(reread);
    // Told once; that it waits for a restart is told every time.
    let again = running.read_again().unwrap();
    assert!(again.changes.is_empty());
    assert_eq!(again.pending, ["backend"]);

    write("default_idle_timeout = 0\nnothing = 1");
    assert_eq!(running.read_again().unwrap_err().len(), 2);
    assert_eq!(running.config().default_idle_timeout.as_secs(), 60);
    std::fs::remove_file(case.file()).unwrap();
    assert_eq!(running.read_again().unwrap_err()[0].code, "file_unreadable");
    // Values that need a restart are judged together with the others as they count.
    write("max_session_timeout = 600");
    assert!(!running.read_again().unwrap_err().is_empty());
}
