//! Every key from everywhere, against one list.

use model::Kernel;

use super::*;

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
