//! What is not accepted, and how that is said.

use std::os::unix::fs::PermissionsExt;

use super::*;

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
fn what_is_no_rule_and_no_preset_is_told_with_its_key() {
    let case = Case::new();
    for (file, sentence_part) in [
        (
            "network_allow = [\"10.0.0.1\"]",
            "`network_allow` in FILE:1 has a rule that cannot be read: \"10.0.0.1\" is no host",
        ),
        ("network_allow = [\"*.com\"]", "too wide"),
        // It was told that `//x` is no port.
        (
            "network_allow = [\"http://x\"]",
            "\"http://x\" is a URL: write HOST or HOST:PORT, without scheme and path",
        ),
        (
            "[credentials.hub]\nfile = \"/t\"\ndestinations = [\"https://hub.example/a\"]",
            "in `destinations` \"https://hub.example/a\" is a URL",
        ),
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
    let root = case.load("project_roots = [\"/\"]", &[], &[]).unwrap_err();
    let told = sentence(&case, &root);
    assert!(told.contains("/ is the whole machine"), "{told}");
    let local = case
        .load("network_default = [\"localhost:8080\"]", &[], &[])
        .unwrap();
    assert_eq!(local.network.default.len(), 1);
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
