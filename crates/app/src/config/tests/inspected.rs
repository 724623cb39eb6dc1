//! `config check`, `config show`, `config schema`, and reading the configuration again.

use super::*;

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
