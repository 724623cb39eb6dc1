//! Every configuration key, once.

/// What a key's value may be. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An absolute path; `~/` stands for the home directory.
    Path,
    /// Several of them: a TOML list, or separated by colons in a variable.
    PathList,
    /// A duration, seconds; a text with a unit (`90s`, `15m`, `2h`, `1d`) is accepted too.
    Seconds {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A number.
    Count {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A size, bytes; a text with a unit (`512m`, `2g`) is accepted too.
    Bytes {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A number of CPUs with up to three decimals; bounds in thousandths.
    Cpus {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Dollars with up to six decimals; bounds in millionths.
    Dollars {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// `true` or `false`; a variable may also say `1`, `0`, `yes`, `no`.
    Switch,
    /// Several words: a TOML list, or separated by commas in a variable.
    Words {
        /// Longest word, bytes.
        max: usize,
    },
    /// Several rules of a network, `host`, `host:port` or `host:port,port`: a TOML list, or separated by spaces in a variable.
    Rules,
    /// Any text but none.
    Text {
        /// Longest, bytes.
        max: usize,
    },
    /// A table of tables, each with a name: in a variable and in a flag an inline table of TOML.
    Tables,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// When another value of a key counts for a server that runs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// As soon as the configuration is read again, also for what runs.
    AtOnce,
    /// For sessions that are made afterwards; those that live keep what they were made with.
    NewSessions,
    /// When the server starts again.
    Restart,
}

impl Applies {
    /// As programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Applies::AtOnce => "at_once",
            Applies::NewSessions => "new_sessions",
            Applies::Restart => "restart",
        }
    }
}

/// One configuration key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name in the file; a dot stands for a TOML table.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Its default, as the file would say it, or in words.
    pub default: &'static str,
    /// What it does, for the reference page.
    pub documentation: &'static str,
}

/// A year: no duration here is longer. Timers further away are mistakes of unit.
const YEAR_SECONDS: u64 = 365 * 86_400;
/// Longest life of a session, and so of an execution in it: policy allows no more.
const MONTH_SECONDS: u64 = 30 * 86_400;
/// One tebibyte: sizes beyond are mistakes of unit.
pub(super) const TEBIBYTE: u64 = 1 << 40;
/// One gibibyte.
const GIBIBYTE: u64 = 1 << 30;
/// Ten million dollars: amounts beyond are mistakes of unit.
const MOST_MICRO_USD: u64 = 10_000_000_000_000;
/// Tokens of a day that a limit can name.
const MOST_TOKENS: u64 = 4_000_000_000;
/// One mebibyte.
pub(super) const MEBIBYTE: u64 = 1 << 20;

macro_rules! keys {
    ($($constant:ident = $name:literal, $variable:literal, $kind:expr, $default:literal, $documentation:literal;)*) => {
        $(pub(super) const $constant: Key = Key {
            name: $name, variable: $variable, kind: $kind, default: $default, documentation: $documentation,
        };)*

        /// Every key, in the order of the reference page.
        pub const KEYS: &[Key] = &[$($constant,)*];
    };
}

keys! {
    PROJECT_ROOTS = "project_roots", "CLAUDE_CODE_MCP_PROJECT_ROOTS", Kind::PathList, "[]",
        "Directories below which a session's project may stand, beside the project directory that each client hands \
         over. Never `/` or the home directory itself.";
    EXTRA_READ_ONLY = "extra_read_only", "CLAUDE_CODE_MCP_EXTRA_READ_ONLY", Kind::PathList, "[]",
        "Host directories that every session of the embedded runtime sees read-only at the same path: toolchains under a \
         home or `/opt`. Sessions on a Docker engine see none of them: their tools belong in the image. What \
         `profiles/forbidden-paths.json` keeps from projects and mounts is refused here too, and so is what would be \
         hidden inside (`/tmp`). `claude-code-mcp doctor` prints the line for the entries of your `PATH`.";
    STATE_DIR = "state_dir", "CLAUDE_CODE_MCP_STATE_DIR", Kind::Path,
        "`$XDG_STATE_HOME/claude-code-mcp`, else `~/.local/state/claude-code-mcp`; as root `/var/lib/claude-code-mcp`",
        "Where the server keeps its state. One server runs per user and state directory. Made with mode 0700. \
         Flag: `--state-dir`.";
    AUDIT_LOG = "audit_log", "MCP_AUDIT_LOG", Kind::Path, "`audit.jsonl` in the state directory",
        "The audit log. The server does not start when it cannot be written, and changes nothing that it cannot log.";
    AUDIT_SINKS = "audit_sinks", "CLAUDE_CODE_MCP_AUDIT_SINKS", Kind::Tables, "none",
        "Who else gets the records of the audit log, a table each: `[audit_sinks.siem]` with `kind` (`stderr`, `syslog`, `journald`, \
         `webhook`, `file`), `format` (`jsonl`, `ocsf`, `cef`) and `max_lag` (records that may wait); for syslog `address` and \
         `facility`, for a webhook `url`, `secret_file`, `ca_file`, for a file `path`. See [audit log export](audit-log-export.md#sinks).";
    AUDIT_ROTATE_SIZE = "audit_rotate_size", "CLAUDE_CODE_MCP_AUDIT_ROTATE_SIZE",
        Kind::Bytes { min: 0, max: TEBIBYTE }, "67108864",
        "The audit log goes on in a new file when its file has this size, at least 1 MiB; the old one keeps its place beside it. \
         `0`: whatever size it has.";
    AUDIT_ROTATE_INTERVAL = "audit_rotate_interval", "CLAUDE_CODE_MCP_AUDIT_ROTATE_INTERVAL",
        Kind::Seconds { min: 0, max: YEAR_SECONDS }, "0",
        "The audit log goes on in a new file when the first record of its file is this old. `0`: however old it is.";
    AUDIT_KEEP_FILES = "audit_keep_files", "CLAUDE_CODE_MCP_AUDIT_KEEP_FILES", Kind::Count { min: 0, max: 100_000 }, "0",
        "Old files of the audit log that are kept; older ones are removed, and the log says so. `0`: all.";
    AUDIT_KEEP_DAYS = "audit_keep_days", "CLAUDE_CODE_MCP_AUDIT_KEEP_DAYS", Kind::Count { min: 0, max: 36_500 }, "0",
        "Days that an old file of the audit log is kept after its last record. `0`: for ever.";
    DEFAULT_SESSION_TIMEOUT = "default_session_timeout", "DEFAULT_SESSION_TIMEOUT",
        Kind::Seconds { min: 1, max: MONTH_SECONDS }, "3600",
        "Lifetime of a session whose creator names none. At most `max_session_timeout`.";
    MAX_SESSION_TIMEOUT = "max_session_timeout", "CLAUDE_CODE_MCP_MAX_SESSION_TIMEOUT",
        Kind::Seconds { min: 1, max: MONTH_SECONDS }, "86400",
        "Longest lifetime that a session can be given or extended to.";
    DEFAULT_IDLE_TIMEOUT = "default_idle_timeout", "CLAUDE_CODE_MCP_DEFAULT_IDLE_TIMEOUT",
        Kind::Seconds { min: 1, max: YEAR_SECONDS }, "1800",
        "A session ends after that long without a running execution or a call, when its creator names nothing else.";
    MAX_CONCURRENT_SESSIONS = "max_concurrent_sessions", "MAX_CONCURRENT_SESSIONS",
        Kind::Count { min: 1, max: 10_000 }, "10",
        "Sessions that may live at one time.";
    MAX_SESSIONS_PER_CALLER = "max_sessions_per_caller", "CLAUDE_CODE_MCP_MAX_SESSIONS_PER_CALLER",
        Kind::Count { min: 0, max: 10_000 }, "0",
        "Sessions of one caller that may live at one time; `0`: as many as the server may have. A key can have a bound of its own, and \
         the lower one counts.";
    MAX_SESSIONS_PER_PROJECT = "max_sessions_per_project", "CLAUDE_CODE_MCP_MAX_SESSIONS_PER_PROJECT",
        Kind::Count { min: 0, max: 10_000 }, "0",
        "Sessions on one project directory that may live at one time, whosever they are; `0`: as many as the server may have.";
    OVERCOMMIT_MEMORY_PERCENT = "overcommit_memory_percent", "CLAUDE_CODE_MCP_OVERCOMMIT_MEMORY_PERCENT",
        Kind::Count { min: 0, max: 100_000 }, "400",
        "How much of the machine's memory and swap (or its control group's) live sessions may be promised, as the sum of their memory \
         limits; `0`: not looked at. Few sessions reach their limit: `100` promises no more than there is.";
    OVERCOMMIT_CPU_PERCENT = "overcommit_cpu_percent", "CLAUDE_CODE_MCP_OVERCOMMIT_CPU_PERCENT",
        Kind::Count { min: 0, max: 100_000 }, "2000",
        "The same of processors, as the sum of CPU limits.";
    OVERCOMMIT_DISK_PERCENT = "overcommit_disk_percent", "CLAUDE_CODE_MCP_OVERCOMMIT_DISK_PERCENT",
        Kind::Count { min: 0, max: 100_000 }, "400",
        "The same of the space that is free where the state directory is, as the sum of the limits of `/state`.";
    QUEUE_WAIT = "queue_wait", "CLAUDE_CODE_MCP_QUEUE_WAIT", Kind::Seconds { min: 0, max: 45 }, "0",
        "How long a new session waits for a place when there is none, fairly between callers; `0`: it is refused at once, so that \
         whoever asks can end something.";
    MAX_CALLS_PER_CALLER = "max_calls_per_caller", "CLAUDE_CODE_MCP_MAX_CALLS_PER_CALLER",
        Kind::Count { min: 1, max: 1_024 }, "512",
        "Calls of one caller that may be under way at one time, those that wait for an execution among them.";
    RATE_CALLS_PER_MINUTE = "rate_calls_per_minute", "CLAUDE_CODE_MCP_RATE_CALLS_PER_MINUTE",
        Kind::Count { min: 0, max: 6_000_000 }, "60000",
        "Calls a minute of one caller, in the long run; `0`: no limit. What ends sessions and executions is never limited. See \
         [limits](limits.md).";
    RATE_BURST = "rate_burst", "CLAUDE_CODE_MCP_RATE_BURST", Kind::Count { min: 1, max: 1_000_000 }, "10000",
        "Calls that may come at once after a rest, for each of the rates; at most as many as its minute has.";
    RATE_CREATES_PER_MINUTE = "rate_creates_per_minute", "CLAUDE_CODE_MCP_RATE_CREATES_PER_MINUTE",
        Kind::Count { min: 0, max: 6_000_000 }, "600", "New sessions a minute of one caller; `0`: no limit.";
    RATE_EXECUTIONS_PER_MINUTE = "rate_executions_per_minute", "CLAUDE_CODE_MCP_RATE_EXECUTIONS_PER_MINUTE",
        Kind::Count { min: 0, max: 6_000_000 }, "6000", "Commands and prompts a minute of one caller; `0`: no limit.";
    RATE_TRANSFERS_PER_MINUTE = "rate_transfers_per_minute", "CLAUDE_CODE_MCP_RATE_TRANSFERS_PER_MINUTE",
        Kind::Count { min: 0, max: 6_000_000 }, "3000", "Transfers of files a minute of one caller; `0`: no limit.";
    RATE_SESSION_CALLS_PER_MINUTE = "rate_session_calls_per_minute", "CLAUDE_CODE_MCP_RATE_SESSION_CALLS_PER_MINUTE",
        Kind::Count { min: 0, max: 6_000_000 }, "30000", "Calls a minute to one session; `0`: no limit.";
    MAX_EXECUTION_TIMEOUT = "max_execution_timeout", "CLAUDE_CODE_MCP_MAX_EXECUTION_TIMEOUT",
        Kind::Seconds { min: 1, max: MONTH_SECONDS }, "21600",
        "Longest running time of one execution, also when its caller names none; its whole process tree is then ended. At \
         most `max_session_timeout`, which is also the default where it is shorter.";
    LEASE_SECONDS = "lease_seconds", "CLAUDE_CODE_MCP_LEASE_SECONDS", Kind::Seconds { min: 2, max: 3600 }, "60",
        "How long a session lives without a sign of life from the server. It ends by itself afterwards, whether or not \
         a server ever comes back.";
    IDLE_EXIT_SECONDS = "idle_exit_seconds", "CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS",
        Kind::Seconds { min: 1, max: YEAR_SECONDS }, "30",
        "A server that was started on demand ends after that long without a client and without a live session. A \
         server that was started by `serve` stays.";
    HTTP_LISTEN = "http_listen", "CLAUDE_CODE_MCP_HTTP_LISTEN", Kind::Text { max: 128 }, "none",
        "Serve MCP over HTTP, too, at `/mcp`: an address and a port (`127.0.0.1:7860`), or `unix:` and an absolute \
         path. Only a server that was started by `serve` does. Everybody needs a key (`claude-code-mcp keys \
         create`) or an access token, on a loopback address as well. See [http](http.md). Flag: `serve --http`.";
    HTTP_HOSTS = "http_hosts", "CLAUDE_CODE_MCP_HTTP_HOSTS", Kind::Words { max: 260 }, "[]",
        "Names by which clients reach the HTTP door, `host` or `host:port`, besides those of a loopback address \
         and the host of `oauth_audience`. A request under another name is refused.";
    HTTP_ORIGINS = "http_origins", "CLAUDE_CODE_MCP_HTTP_ORIGINS", Kind::Words { max: 300 }, "[]",
        "Origins of web pages that may use the HTTP door from a browser, such as `https://app.example`. Pages of \
         others are refused.";
    HTTP_TLS_CERT = "http_tls_cert", "CLAUDE_CODE_MCP_HTTP_TLS_CERT", Kind::Path, "none",
        "The HTTP door speaks TLS: a PEM file with its certificate and those that vouch for it. Read again when it \
         changes.";
    HTTP_TLS_KEY = "http_tls_key", "CLAUDE_CODE_MCP_HTTP_TLS_KEY", Kind::Path, "none",
        "The key of `http_tls_cert`, PEM, of the server's user or root, mode 0600 or less.";
    HTTP_BEHIND_PROXY = "http_behind_proxy", "CLAUDE_CODE_MCP_HTTP_BEHIND_PROXY", Kind::Words { max: 64 }, "[]",
        "Addresses of reverse proxies in front of the HTTP door, which speak TLS to the outside. Their \
         `X-Forwarded-For` is believed; without TLS of our own nobody but them and this machine is let in. Flag: \
         `serve --behind-proxy`.";
    OAUTH_ISSUERS = "oauth_issuers", "CLAUDE_CODE_MCP_OAUTH_ISSUERS", Kind::Words { max: 2048 }, "[]",
        "Authorization servers whose access tokens (JWT) the HTTP door takes: `iss` of the tokens, exactly. Their \
         keys are found by their metadata.";
    OAUTH_AUDIENCE = "oauth_audience", "CLAUDE_CODE_MCP_OAUTH_AUDIENCE", Kind::Text { max: 2048 }, "none",
        "The URL by which clients reach the HTTP door, such as `https://mcp.example.com/mcp`: `aud` of access \
         tokens for it.";
    OAUTH_ROOTS = "oauth_roots", "CLAUDE_CODE_MCP_OAUTH_ROOTS", Kind::PathList, "[]",
        "Directories below which projects of those stand who come with an access token. They name projects \
         relative to them.";
    OAUTH_MAX_SESSIONS = "oauth_max_sessions", "CLAUDE_CODE_MCP_OAUTH_MAX_SESSIONS",
        Kind::Count { min: 1, max: 10_000 }, "as `max_concurrent_sessions`",
        "Live sessions of one of them at a time.";
    BACKEND = "backend", "CLAUDE_CODE_MCP_BACKEND", Kind::Choice(&["auto", "native", "docker"]), "\"auto\"",
        "What sessions are made of when their creator names nothing: `native` is the embedded runtime, `docker` an \
         engine. `auto` takes the engine where one answers and has the image when the server starts, and `image_digest` and \
         `image_max_age` allow it, else the embedded runtime. The other one, where it works, can still be named in a call.";
    DOCKER_HOST = "docker_host", "DOCKER_HOST", Kind::Text { max: 4096 },
        "a rootless engine's socket in `$XDG_RUNTIME_DIR`, else `unix:///var/run/docker.sock`",
        "The engine: `unix://` and an absolute path, or `tcp://` with a host and a port, which needs `docker_tls_verify`. \
         Without it a user's own engine comes before the machine's, if it can carry sessions; `docker context` is not read. \
         An engine on another host carries no session yet (`engine_not_local`): projects are mounted, and there are no \
         workspaces yet that are copied.";
    DOCKER_TLS_VERIFY = "docker_tls_verify", "DOCKER_TLS_VERIFY", Kind::Switch, "false",
        "Speak TLS with an engine at `tcp://`: its certificate is checked against `ca.pem` alone, ours is shown. Plain \
         `tcp://` is refused: whoever reaches such a port is root on the engine's machine.";
    DOCKER_CERT_PATH = "docker_cert_path", "DOCKER_CERT_PATH", Kind::Path, "`~/.docker`",
        "The directory with `ca.pem`, `cert.pem` and `key.pem`, read when the server first speaks to the engine. They must \
         belong to the server's user or root; nobody else may change them, or read `key.pem`.";
    IMAGE = "image", "DEFAULT_CLAUDE_IMAGE", Kind::Text { max: 512 }, "\"claude-code-custom:latest\"",
        "The engine's image that sessions on Docker see as their root file system, read-only, by name or id. What it says \
         about users, programs, volumes and variables does not count; one that declares volumes is refused.";
    RUNTIME_CLASSES = "runtime_classes", "CLAUDE_CODE_MCP_RUNTIME_CLASSES", Kind::Words { max: 64 }, "[]",
        "Runtimes of the engine that sessions may have, the default first; empty: the engine's own default alone. `runc` \
         and `crun` share the host's kernel, `runsc` (gVisor) has its own. Another name says which after a `=`: \
         `kata=guest`, `sysbox=shared`. A runtime that is said to have its own kernel and does not show one is refused.";
    IMAGE_DIGEST = "image_digest", "CLAUDE_CODE_MCP_IMAGE_DIGEST", Kind::Text { max: 71 }, "none",
        "Pins the image: its id, or the digest that its registry knows it by, as `sha256:` and 64 digits (`claude-code-mcp \
         image list` shows the id). A name that stands for another image is then refused with `image_refused`. \
         `image = \"name@sha256:…\"` says the same.";
    IMAGE_MAX_AGE = "image_max_age", "CLAUDE_CODE_MCP_IMAGE_MAX_AGE",
        Kind::Seconds { min: 0, max: 10 * YEAR_SECONDS }, "0",
        "No session is made of an image that was made longer ago, so that security updates are not forgotten; `0` stands for \
         no limit. Such a session is refused with `image_refused`; `claude-code-mcp image build` makes a new image.";
    NATIVE_ROOT = "native_root", "CLAUDE_CODE_MCP_NATIVE_ROOT", Kind::Path, "this machine's own system directories",
        "The root file system of sessions of the embedded runtime, read-only: a directory that `claude-code-mcp image unpack` \
         made, or another that nobody but its owner, the server's user or root, can write to. It need have no more than a \
         POSIX shell at `/bin/sh`.";
    AGENT = "agent", "CLAUDE_CODE_MCP_AGENT", Kind::Text { max: 72 }, "\"auto\"",
        "The Claude Code that new sessions find at `/opt/claude-code/claude` and on their `PATH`. `auto`: the one that was \
         installed last by `claude-code-mcp agent install`, if there is one. `none`: only what the root file system brings. Else \
         a hash, or 6 or more of its digits, as `claude-code-mcp agent list` shows them; sessions are then refused with \
         `agent_unavailable` where it is not there.";
    PROVIDER = "provider", "CLAUDE_CODE_MCP_PROVIDER", Kind::Choice(&["auto", "anthropic", "bedrock", "vertex"]), "\"auto\"",
        "The model provider of sessions whose creator names none. `auto`: Amazon Bedrock where `CLAUDE_CODE_USE_BEDROCK` is set, \
         Google Vertex AI where `CLAUDE_CODE_USE_VERTEX` is, else Anthropic. Its credentials stay with the server: no key is \
         ever inside a session.";
    API_KEY_FILE = "api_key_file", "CLAUDE_CODE_MCP_API_KEY_FILE", Kind::Path, "none",
        "A file with a key of Anthropic: no link, of the server's user or root, mode 0600 or less. It is read again when it \
         changes, while the server runs. Wins over `ANTHROPIC_API_KEY`.";
    AUTH_TOKEN_FILE = "auth_token_file", "CLAUDE_CODE_MCP_AUTH_TOKEN_FILE", Kind::Path, "none",
        "As `api_key_file`, with a bearer token of Anthropic or a gateway. Wins over `ANTHROPIC_AUTH_TOKEN`.";
    AUTH_TOKEN_COMMAND = "auth_token_command", "CLAUDE_CODE_MCP_AUTH_TOKEN_COMMAND", Kind::Words { max: 4096 }, "[]",
        "A program of this machine and its arguments that prints a bearer token of Anthropic or a gateway. It runs again before \
         180 s are over, and when a token is refused.";
    ANTHROPIC_BASE_URL = "anthropic_base_url", "ANTHROPIC_BASE_URL", Kind::Text { max: 2048 }, "Anthropic's own",
        "Where the server reaches the Messages API: `https://…`, or `http://` on a loopback address.";
    AWS_REGION = "aws_region", "AWS_REGION", Kind::Text { max: 64 }, "none", "The region of Amazon Bedrock.";
    BEDROCK_TOKEN_FILE = "bedrock_token_file", "CLAUDE_CODE_MCP_BEDROCK_TOKEN_FILE", Kind::Path, "none",
        "As `api_key_file`, with an API key of Amazon Bedrock. Wins over `AWS_BEARER_TOKEN_BEDROCK`.";
    AWS_CREDENTIALS = "aws_credentials", "CLAUDE_CODE_MCP_AWS_CREDENTIALS",
        Kind::Choice(&["auto", "environment", "default-chain"]), "\"auto\"",
        "Where keys for Amazon Bedrock are looked for. `environment`: `AWS_ACCESS_KEY_ID` and its companions. `default-chain`: \
         there, then as AWS's own tools do: profiles with credential processes and single sign-on, web identity, container, \
         instance. `auto`: the chain where Bedrock is the provider or `aws_profile` or `aws_role_arn` is set, else `environment`.";
    AWS_PROFILE = "aws_profile", "CLAUDE_CODE_MCP_AWS_PROFILE", Kind::Text { max: 256 }, "`AWS_PROFILE`, or AWS's default",
        "The profile of `~/.aws/config` to use. It wins over keys in the environment, which `AWS_PROFILE` does not.";
    AWS_ROLE_ARN = "aws_role_arn", "CLAUDE_CODE_MCP_AWS_ROLE_ARN", Kind::Text { max: 2048 }, "none",
        "A role that each session assumes for itself with what was found, under the name `claude-code-mcp-` and the session's id.";
    AWS_EXTERNAL_ID = "aws_external_id", "CLAUDE_CODE_MCP_AWS_EXTERNAL_ID", Kind::Text { max: 1224 }, "none",
        "The external id that the owner of `aws_role_arn` asks for.";
    AWS_SOURCE_IDENTITY = "aws_source_identity", "CLAUDE_CODE_MCP_AWS_SOURCE_IDENTITY", Kind::Switch, "false",
        "Name the session's id as source identity too, which stays through further roles. The trust policy of `aws_role_arn` \
         must allow `sts:SetSourceIdentity`.";
    AWS_SESSION_POLICY = "aws_session_policy", "CLAUDE_CODE_MCP_AWS_SESSION_POLICY", Kind::Choice(&["bedrock", "none"]),
        "\"bedrock\"",
        "What a session's keys of `aws_role_arn` may do at most: `bedrock`: ask models and count tokens. `none`: all that the \
         role may.";
    BEDROCK_BASE_URL = "bedrock_base_url", "ANTHROPIC_BEDROCK_BASE_URL", Kind::Text { max: 2048 }, "the region's own",
        "Where the server reaches Amazon Bedrock.";
    VERTEX_PROJECT = "vertex_project", "ANTHROPIC_VERTEX_PROJECT_ID", Kind::Text { max: 64 }, "none",
        "The project of Google Vertex AI.";
    VERTEX_REGION = "vertex_region", "CLOUD_ML_REGION", Kind::Text { max: 64 }, "none", "The region of Google Vertex AI.";
    VERTEX_BASE_URL = "vertex_base_url", "ANTHROPIC_VERTEX_BASE_URL", Kind::Text { max: 2048 }, "the region's own",
        "Where the server reaches Google Vertex AI.";
    VERTEX_CREDENTIALS = "vertex_credentials", "CLAUDE_CODE_MCP_VERTEX_CREDENTIALS",
        Kind::Choice(&["auto", "command", "default"]), "\"auto\"",
        "Where access tokens of Google come from. `command`: `vertex_token_command`. `default`: application default credentials, \
         looked for as Google's own tools do: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's directory, the metadata server. `auto`: \
         the command if there is one, else `default` where Vertex AI is the provider.";
    VERTEX_TOKEN_COMMAND = "vertex_token_command", "CLAUDE_CODE_MCP_VERTEX_TOKEN_COMMAND", Kind::Words { max: 4096 }, "[]",
        "A program of this machine and its arguments that prints an access token of Google: `[\"gcloud\", \"auth\", \
         \"print-access-token\"]`. The server runs it, with its own environment.";
    MODEL = "model", "ANTHROPIC_MODEL", Kind::Text { max: 200 }, "Claude Code's own",
        "The model that is asked where nobody names one.";
    SMALL_MODEL = "small_model", "ANTHROPIC_SMALL_FAST_MODEL", Kind::Text { max: 200 }, "Claude Code's own",
        "The model for small work.";
    MODELS = "models", "CLAUDE_CODE_MCP_MODELS", Kind::Words { max: 200 }, "[]",
        "Models that sessions may ask, by name or with `*` at the end; empty: all. Requests for others do not leave the machine.";
    SESSION_MAX_REQUESTS = "session_max_requests", "CLAUDE_CODE_MCP_SESSION_MAX_REQUESTS",
        Kind::Count { min: 0, max: 1_000_000_000 }, "0", "Requests to the model provider of one session; `0`: no limit.";
    SESSION_MAX_TOKENS = "session_max_tokens", "CLAUDE_CODE_MCP_SESSION_MAX_TOKENS",
        Kind::Count { min: 0, max: 4_000_000_000 }, "0", "Tokens of all kinds of one session; `0`: no limit.";
    NETWORK_PRESETS = "network_presets", "CLAUDE_CODE_MCP_NETWORK_PRESETS", Kind::Words { max: 64 }, "[]",
        "Named sets of hosts that callers may let their sessions reach: `github`, `debian`, `crates`, `pypi`, `npm`, `anthropic`. \
         `docs/network.md` says what each has. Nothing here and in the next two keys: sessions reach their model provider alone.";
    NETWORK_ALLOW = "network_allow", "CLAUDE_CODE_MCP_NETWORK_ALLOW", Kind::Rules, "[]",
        "Hosts that callers may let their sessions reach, each with all that is narrower: `registry.example.com`, \
         `*.example.com:80,443`. No session gets past these, `network_presets` and `network_default`, whoever asks.";
    NETWORK_DEFAULT = "network_default", "CLAUDE_CODE_MCP_NETWORK_DEFAULT", Kind::Rules, "[]",
        "What every session reaches unasked: presets by name, and hosts as in `network_allow`. A word without a dot and a port is \
         a preset.";
    NETWORK_PRIVATE = "network_private", "CLAUDE_CODE_MCP_NETWORK_PRIVATE", Kind::Rules, "[]",
        "Of what the three keys above allow: hosts that may be at a private or loopback address, such as \
         `registry.corp.example:443`. Any other host whose name leads to one is refused.";
    CREDENTIALS = "credentials", "CLAUDE_CODE_MCP_CREDENTIALS", Kind::Tables, "none",
        "What requests of sessions may be given on their way out, a table each: `[credentials.github]` with `file` (mode 0600) or \
         `command`; for other services also `destinations` (`\"host\"`, `\"host:port/path/\"`), and as wanted `header`, `variables` \
         (inside, with a placeholder), `git_user`, `always` (for every session that reaches a destination). See \
         [network](network.md#credentials).";
    MAX_USD_PER_SESSION = "max_usd_per_session", "CLAUDE_CODE_MCP_MAX_USD_PER_SESSION",
        Kind::Dollars { min: 0, max: MOST_MICRO_USD }, "0",
        "What the requests of one session may cost, by the price table; `0`: no limit. Where any limit is in dollars, a model \
         without a price is refused with `price_unknown`.";
    MAX_USD_PER_CALLER_PER_DAY = "max_usd_per_caller_per_day", "CLAUDE_CODE_MCP_MAX_USD_PER_CALLER_PER_DAY",
        Kind::Dollars { min: 0, max: MOST_MICRO_USD }, "0",
        "What the requests of all sessions of one caller may cost on one day (UTC); `0`: no limit.";
    MAX_USD_PER_DAY = "max_usd_per_day", "CLAUDE_CODE_MCP_MAX_USD_PER_DAY",
        Kind::Dollars { min: 0, max: MOST_MICRO_USD }, "0",
        "What the requests of all sessions of the server may cost on one day (UTC); `0`: no limit.";
    MAX_REQUESTS_PER_CALLER_PER_DAY = "max_requests_per_caller_per_day",
        "CLAUDE_CODE_MCP_MAX_REQUESTS_PER_CALLER_PER_DAY", Kind::Count { min: 0, max: 1_000_000_000 }, "0",
        "Requests to the model provider of all sessions of one caller on one day (UTC); `0`: no limit.";
    MAX_REQUESTS_PER_DAY = "max_requests_per_day", "CLAUDE_CODE_MCP_MAX_REQUESTS_PER_DAY",
        Kind::Count { min: 0, max: 1_000_000_000 }, "0",
        "Requests to the model provider of all sessions on one day (UTC); `0`: no limit.";
    MAX_TOKENS_PER_CALLER_PER_DAY = "max_tokens_per_caller_per_day", "CLAUDE_CODE_MCP_MAX_TOKENS_PER_CALLER_PER_DAY",
        Kind::Count { min: 0, max: MOST_TOKENS }, "0",
        "Tokens of all kinds of all sessions of one caller on one day (UTC); `0`: no limit.";
    MAX_TOKENS_PER_DAY = "max_tokens_per_day", "CLAUDE_CODE_MCP_MAX_TOKENS_PER_DAY",
        Kind::Count { min: 0, max: MOST_TOKENS }, "0", "Tokens of all kinds of all sessions on one day (UTC); `0`: no limit.";
    PRICES_FILE = "prices_file", "CLAUDE_CODE_MCP_PRICES_FILE", Kind::Path, "none",
        "A price table of your own (JSON, of the form of `profiles/prices.json`), which is looked at before the built-in one: \
         for models of a gateway, agreed prices, or prices that have changed.";
    CALLER_MAY_ANSWER = "caller_may_answer", "CLAUDE_CODE_MCP_CALLER_MAY_ANSWER", Kind::Switch, "false",
        "In sessions with `strictPermissions` the calling model may answer what Claude Code asks; otherwise only a person may.";
    PERMISSION_TIMEOUT = "permission_timeout", "CLAUDE_CODE_MCP_PERMISSION_TIMEOUT", Kind::Seconds { min: 1, max: 86_400 }, "300",
        "How long what Claude Code asks, or what a session wants to reach, waits for a person; then it is denied, and the work goes on \
         without.";
    PERMISSION_ALLOW = "permission_allow", "CLAUDE_CODE_MCP_PERMISSION_ALLOW", Kind::Words { max: 200 }, "[]",
        "What Claude Code may do without asking in sessions with `strictPermissions`: rules such as `Bash(git status)`.";
    PERMISSION_DENY = "permission_deny", "CLAUDE_CODE_MCP_PERMISSION_DENY", Kind::Words { max: 200 }, "[]",
        "What Claude Code may never do, in all sessions: rules such as `WebFetch` or `Bash(curl *)`.";
    DANGEROUSLY_TRUST_PROJECT_SETTINGS = "dangerously_trust_project_settings",
        "CLAUDE_CODE_MCP_DANGEROUSLY_TRUST_PROJECT_SETTINGS", Kind::Switch, "false",
        "Settings, hooks and MCP servers that a project brings count for Claude Code, and run inside before the first prompt; \
         never in sessions with `strictPermissions`. `CLAUDE.md` counts either way.";
    LIMIT_MEMORY = "limits.memory", "CLAUDE_CODE_MCP_LIMIT_MEMORY",
        Kind::Bytes { min: 16 * MEBIBYTE, max: TEBIBYTE }, "the hardening profile's",
        "Memory and swap of a session together.";
    LIMIT_CPUS = "limits.cpus", "CLAUDE_CODE_MCP_LIMIT_CPUS", Kind::Cpus { min: 10, max: 1_024_000 },
        "the hardening profile's", "CPUs of a session.";
    LIMIT_PIDS = "limits.pids", "CLAUDE_CODE_MCP_LIMIT_PIDS", Kind::Count { min: 8, max: 65_536 },
        "the hardening profile's", "Processes and threads of a session.";
    LIMIT_OPEN_FILES = "limits.open_files", "CLAUDE_CODE_MCP_LIMIT_OPEN_FILES",
        Kind::Count { min: 64, max: 1_048_576 }, "the hardening profile's", "Open files of one process.";
    LIMIT_FILE_SIZE = "limits.file_size", "CLAUDE_CODE_MCP_LIMIT_FILE_SIZE",
        Kind::Bytes { min: MEBIBYTE, max: TEBIBYTE }, "the hardening profile's", "Size of a single file.";
    LIMIT_TEMPORARY = "limits.temporary", "CLAUDE_CODE_MCP_LIMIT_TEMPORARY",
        Kind::Bytes { min: MEBIBYTE, max: 64 * GIBIBYTE }, "the hardening profile's",
        "`/tmp`, home, `/run` and `/dev/shm` of a session together; they live in memory.";
    LIMIT_STATE = "limits.state", "CLAUDE_CODE_MCP_LIMIT_STATE", Kind::Bytes { min: MEBIBYTE, max: TEBIBYTE },
        "the hardening profile's", "`/state` of a session.";
    ALLOW_PROTECTED_CHANGES = "allow_protected_changes", "CLAUDE_CODE_MCP_ALLOW_PROTECTED_CHANGES", Kind::Switch,
        "false",
        "Leave files in place that a session made and that this machine would execute or trust (`.git/hooks` of a \
         nested repository, `.envrc`, …). They are reported either way; by default they are moved aside.";
    DANGEROUSLY_PLAIN_LOOPBACK_ENGINE = "dangerously_plain_loopback_engine",
        "CLAUDE_CODE_MCP_DANGEROUSLY_PLAIN_LOOPBACK_ENGINE", Kind::Switch, "false",
        "Speak to an engine at `tcp://` without TLS, as long as that is an address of loopback (`127.0.0.0/8`, `::1`). Every \
         user and program of the machine that reaches such a port is root on it.";
    DANGEROUSLY_ACCEPT_SOFT_LIMITS = "dangerously_accept_soft_limits",
        "CLAUDE_CODE_MCP_DANGEROUSLY_ACCEPT_SOFT_LIMITS", Kind::Switch, "false",
        "Accept a limit that a caller names although the kernel cannot enforce it here and the supervisor only watches \
         it. Without this such a session is refused.";
}

/// Counts at once.
const AT_ONCE: &[Key] = &[
    MAX_SESSION_TIMEOUT,
    MAX_CONCURRENT_SESSIONS,
    MAX_SESSIONS_PER_CALLER,
    MAX_SESSIONS_PER_PROJECT,
    OVERCOMMIT_MEMORY_PERCENT,
    OVERCOMMIT_CPU_PERCENT,
    OVERCOMMIT_DISK_PERCENT,
    QUEUE_WAIT,
    MAX_CALLS_PER_CALLER,
    RATE_CALLS_PER_MINUTE,
    RATE_BURST,
    RATE_CREATES_PER_MINUTE,
    RATE_EXECUTIONS_PER_MINUTE,
    RATE_TRANSFERS_PER_MINUTE,
    RATE_SESSION_CALLS_PER_MINUTE,
    MAX_EXECUTION_TIMEOUT,
    NETWORK_PRESETS,
    NETWORK_ALLOW,
    NETWORK_DEFAULT,
    NETWORK_PRIVATE,
    CREDENTIALS,
    MAX_USD_PER_CALLER_PER_DAY,
    MAX_USD_PER_DAY,
    MAX_REQUESTS_PER_CALLER_PER_DAY,
    MAX_REQUESTS_PER_DAY,
    MAX_TOKENS_PER_CALLER_PER_DAY,
    MAX_TOKENS_PER_DAY,
    PRICES_FILE,
    CALLER_MAY_ANSWER,
];

/// Counts for sessions that are made afterwards.
const NEW_SESSIONS: &[Key] = &[
    PROJECT_ROOTS,
    DEFAULT_SESSION_TIMEOUT,
    DEFAULT_IDLE_TIMEOUT,
    LEASE_SECONDS,
    AGENT,
    PROVIDER,
    API_KEY_FILE,
    AUTH_TOKEN_FILE,
    AUTH_TOKEN_COMMAND,
    ANTHROPIC_BASE_URL,
    AWS_REGION,
    BEDROCK_TOKEN_FILE,
    AWS_CREDENTIALS,
    AWS_PROFILE,
    AWS_ROLE_ARN,
    AWS_EXTERNAL_ID,
    AWS_SOURCE_IDENTITY,
    AWS_SESSION_POLICY,
    BEDROCK_BASE_URL,
    VERTEX_PROJECT,
    VERTEX_REGION,
    VERTEX_BASE_URL,
    VERTEX_CREDENTIALS,
    VERTEX_TOKEN_COMMAND,
    MODEL,
    SMALL_MODEL,
    MODELS,
    SESSION_MAX_REQUESTS,
    SESSION_MAX_TOKENS,
    MAX_USD_PER_SESSION,
    PERMISSION_TIMEOUT,
    PERMISSION_ALLOW,
    PERMISSION_DENY,
    DANGEROUSLY_TRUST_PROJECT_SETTINGS,
    LIMIT_MEMORY,
    LIMIT_CPUS,
    LIMIT_PIDS,
    LIMIT_OPEN_FILES,
    LIMIT_FILE_SIZE,
    LIMIT_TEMPORARY,
    LIMIT_STATE,
    ALLOW_PROTECTED_CHANGES,
    DANGEROUSLY_ACCEPT_SOFT_LIMITS,
];

/// Counts when the server starts again: what it holds open, and what sandboxes are made of.
const RESTART: &[Key] = &[
    EXTRA_READ_ONLY,
    STATE_DIR,
    AUDIT_LOG,
    AUDIT_SINKS,
    AUDIT_ROTATE_SIZE,
    AUDIT_ROTATE_INTERVAL,
    AUDIT_KEEP_FILES,
    AUDIT_KEEP_DAYS,
    HTTP_LISTEN,
    HTTP_HOSTS,
    HTTP_ORIGINS,
    HTTP_TLS_CERT,
    HTTP_TLS_KEY,
    HTTP_BEHIND_PROXY,
    OAUTH_ISSUERS,
    OAUTH_AUDIENCE,
    OAUTH_ROOTS,
    OAUTH_MAX_SESSIONS,
    IDLE_EXIT_SECONDS,
    BACKEND,
    DOCKER_HOST,
    DOCKER_TLS_VERIFY,
    DOCKER_CERT_PATH,
    IMAGE,
    RUNTIME_CLASSES,
    IMAGE_DIGEST,
    IMAGE_MAX_AGE,
    NATIVE_ROOT,
    DANGEROUSLY_PLAIN_LOOPBACK_ENGINE,
];

impl Key {
    /// When another value of it counts. One that stands in no list needs a restart; a test finds it.
    pub fn applies(&self) -> Applies {
        let lists = [
            (AT_ONCE, Applies::AtOnce),
            (NEW_SESSIONS, Applies::NewSessions),
            (RESTART, Applies::Restart),
        ];
        let found = lists
            .iter()
            .find(|(keys, _)| keys.iter().any(|key| key.name == self.name));
        found.map_or(Applies::Restart, |(_, applies)| *applies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_kind_of_reload() {
        for key in KEYS {
            let listed = [AT_ONCE, NEW_SESSIONS, RESTART].into_iter().flatten();
            let times = listed.filter(|listed| listed.name == key.name).count();
            assert_eq!(times, 1, "{} must stand in one of the lists", key.name);
        }
        assert_eq!(NETWORK_ALLOW.applies(), Applies::AtOnce);
        assert_eq!(LIMIT_MEMORY.applies(), Applies::NewSessions);
        assert_eq!(STATE_DIR.applies(), Applies::Restart);
    }
}
