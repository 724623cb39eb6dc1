//! T1.4, P2a: tunnels whose TLS is opened, from inside: methods and paths are held in them, credentials are put in on the way
//! out, and nothing of these is ever inside. By the tools that people use, which are told nothing: they believe the proxy and
//! find the placeholder by the variables of the session.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::{Value, json};

use crate::{
    egress_tools::{each_toolbox, run},
    probe::Sandbox,
    support::{
        lab::{Event, Lab, content::WORD, is_inside},
        until,
    },
    way_out::{arrived, denied},
};

/// What every session reaches, unopened.
const RULES: &str = "pypi.example.com";
const TOKEN: &str = "hub-token-that-nobody-inside-may-see";
const CREDENTIALS: &str = r#"{ hub = { destinations = ["git.example.com/private/", "api.example.com"],
    variables = ["HUB_TOKEN"], git_user = "robot" } }"#;

/// Sessions of all places, which read one page of one host, and use the credential `hub` at two others.
fn each(lab: &Lab, attack: impl Fn(&Lab, &mut Sandbox)) {
    let arguments = json!({ "network": {
        "allow": ["git.example.com", "api.example.com", "evil.example.org"],
        "rules": [
            { "host": "www.example.com", "methods": ["GET"], "paths": ["/page"] },
            { "host": "expired.example.com", "methods": ["GET"] },
        ],
        "credentials": ["hub"],
    } });
    let set = |machine: &mut crate::support::Machine| {
        machine
            .set(
                "CLAUDE_CODE_MCP_NETWORK_ALLOW",
                "*.example.com evil.example.org",
            )
            .set("CLAUDE_CODE_MCP_CREDENTIALS", CREDENTIALS)
            .set("CLAUDE_CODE_MCP_CREDENTIAL_HUB", TOKEN)
            // Whom the server believes.
            .set("SSL_CERT_FILE", &lab.authority().display().to_string());
    };
    each_toolbox(lab, |tools| {
        let mut sandbox = tools.session(RULES, arguments.clone(), set);
        attack(lab, &mut sandbox);
        sandbox.destroy();
    });
}

/// Heads of what a host was asked for, and their `authorization`.
fn asked(events: &[Event], name: &str) -> Vec<(String, Option<String>)> {
    let one = |event: &Event| match event {
        Event::Requested {
            host,
            method,
            path,
            headers,
            ..
        } if host == name => {
            let authorization = headers.iter().find(|(name, _)| name == "authorization");
            Some((
                format!("{method} {path}"),
                authorization.map(|(_, value)| value.clone()),
            ))
        }
        Event::Requested { .. }
        | Event::Asked { .. }
        | Event::Connected { .. }
        | Event::Greeted { .. }
        | Event::Datagram { .. } => None,
    };
    events.iter().filter_map(one).collect()
}

#[test]
fn methods_and_paths_are_held_inside_of_tls() {
    if !is_inside("egress_opened::methods_and_paths_are_held_inside_of_tls") {
        return;
    }
    let lab = Lab::start();
    each(&lab, |lab, sandbox| {
        arrived(lab);
        let ran = run(sandbox, "curl -sS 'https://www.example.com/page?q=1'");
        assert!(ran.out.starts_with("reached www.example.com"), "{ran:#?}");
        for (count, (line, code)) in [
            ("curl -sS -X POST -d x https://www.example.com/page", "method_not_allowed"),
            ("curl -sS https://www.example.com/other", "path_not_allowed"),
            ("curl -sS --path-as-is https://www.example.com/page/../other", "path_not_allowed"),
            ("curl -sS --path-as-is https://www.example.com/page/%2e%2e/other", "path_not_allowed"),
            ("curl -sS -H 'Host: git.example.com' https://www.example.com/page", "host_mismatch"),
            ("curl -sS -x socks5h://127.0.0.1:1080 https://www.example.com/other", "path_not_allowed"),
            ("curl -sS --http1.1 -H 'Upgrade: websocket' -H 'Connection: Upgrade' https://www.example.com/page", "upgrade"),
            ("curl -sS https://expired.example.com/", "certificate_refused"),
        ]
        .into_iter()
        .enumerate()
        {
            let ran = run(sandbox, line);
            assert!(ran.out.contains(&format!("egress denied ({code})")), "{line}: {ran:#?}");
            assert_eq!(
                denied(sandbox, count + 1).last().map(String::as_str),
                Some(code)
            );
        }
        let came = arrived(lab);
        assert_eq!(
            asked(&came, "www.example.com"),
            [("GET /page?q=1".to_owned(), None)]
        );
        assert_eq!(asked(&came, "expired.example.com"), []);
        // Where no rule asks for it nothing is opened: who believes the authority of the installation alone is not at home.
        let line = "curl -sS --cacert ca.pem https://pypi.example.com/simple/ && ! curl -sS --cacert ca.pem https://www.example.com/page";
        let ran = run(sandbox, line);
        assert_eq!(ran.code, 0, "{ran:#?}");
    });
}

#[test]
fn a_credential_is_used_by_the_tools_inside_and_is_nowhere_inside() {
    if !is_inside("egress_opened::a_credential_is_used_by_the_tools_inside_and_is_nowhere_inside") {
        return;
    }
    let lab = Lab::start();
    each(&lab, |lab, sandbox| {
        arrived(lab);
        let placeholder = run(sandbox, "printenv HUB_TOKEN").out.trim().to_owned();
        assert!(placeholder.starts_with("ccm-placeholder-"), "{placeholder}");
        let by_token =
            "curl -sS -H \"Authorization: Bearer $HUB_TOKEN\" https://api.example.com/user";
        assert!(
            run(sandbox, by_token)
                .out
                .starts_with("reached api.example.com")
        );
        let ran = run(
            sandbox,
            "git clone -q https://git.example.com/private/project.git cloned && cat cloned/README",
        );
        assert!(ran.out.contains(WORD), "{ran:#?}");
        let came = arrived(lab);
        let bearer = Some(format!("Bearer {TOKEN}"));
        assert_eq!(
            asked(&came, "api.example.com"),
            [("GET /user".to_owned(), bearer)]
        );
        // "robot:" and the token.
        let basic = "Basic cm9ib3Q6aHViLXRva2VuLXRoYXQtbm9ib2R5LWluc2lkZS1tYXktc2Vl";
        let at_git = asked(&came, "git.example.com");
        assert!(
            at_git
                .iter()
                .any(|(_, shown)| shown.as_deref() == Some(basic)),
            "{at_git:#?}"
        );
        // pip believes the whole chain by the same file, in a tunnel that is not opened.
        let ran = run(
            sandbox,
            "test ! -d /usr/lib/python3/dist-packages/pip || python3 -m pip install -q --disable-pip-version-check --no-cache-dir \
             --index-url https://pypi.example.com/simple/ --target packages labpackage",
        );
        assert_eq!(ran.code, 0, "{ran:#?}");
        arrived(lab);
        for (count, line) in [
            // Not the path, not the host, not the header, not in clear.
            "curl -sS -H \"Authorization: Bearer $HUB_TOKEN\" https://git.example.com/project.git/HEAD",
            "curl -sS -H \"Authorization: Bearer $HUB_TOKEN\" https://www.example.com/page",
            "curl -sS -H \"X-Token: $HUB_TOKEN\" https://api.example.com/user",
            "curl -sS \"https://api.example.com/user?token=$HUB_TOKEN\"",
        ]
        .into_iter()
        .enumerate()
        {
            let ran = run(sandbox, line);
            assert!(ran.out.contains("egress denied (placeholder_misplaced)"), "{line}: {ran:#?}");
            assert_eq!(denied(sandbox, count + 1).last().map(String::as_str), Some("placeholder_misplaced"));
        }
        let came = arrived(lab);
        assert!(
            !came
                .iter()
                .any(|event| matches!(event, Event::Requested { .. })),
            "{came:#?}"
        );
        on_record(sandbox);
        nowhere(sandbox, &placeholder);
    });
}

/// What was given to which request stands in the audit log, by name.
fn on_record(sandbox: &Sandbox) {
    let named = || {
        let log = fs::read_to_string(sandbox.machine.audit_log()).expect("the audit log");
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|record| record["parameters"]["credential"] == "hub")
            .filter(|record| record["parameters"]["way"] == "https")
            .count()
    };
    until("it is on record", || named() >= 2);
}

/// The credential stands on no disk of the server's and in nothing that a session can read; the same search finds the
/// placeholder.
fn nowhere(sandbox: &mut Sandbox, placeholder: &str) {
    let state = sandbox.machine.state();
    let found = |what: &str| {
        let search = Command::new("grep")
            .args(["-rlaF", what])
            .arg(&state)
            .output();
        String::from_utf8(search.expect("grep").stdout).expect("text")
    };
    assert_ne!(found(placeholder), "", "the control");
    assert_eq!(found(TOKEN), "");
    let inside = |what: &str| {
        // Not written as a whole on a command line, since those are searched.
        let (first, rest) = what.split_at(5);
        format!(
            "printf %s%s '{first}' '{rest}' >/tmp/what; \
             grep -slaFf /tmp/what /proc/[0-9]*/environ /proc/[0-9]*/cmdline /etc/claude-code-mcp/* | head -1"
        )
    };
    assert_ne!(run(sandbox, &inside(placeholder)).out, "", "the control");
    assert_eq!(run(sandbox, &inside(TOKEN)).out, "");
    let key = state.join("authority/key.pem");
    let mode = fs::metadata(&key)
        .expect("the authority's key")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let pem = fs::read_to_string(&key).expect("the key");
    let line = pem.lines().nth(1).expect("a line of it");
    assert_eq!(run(sandbox, &inside(line)).out, "");
}

#[test]
fn what_is_not_offered_or_not_reached_is_refused_when_the_session_is_made() {
    let mut machine = crate::support::Machine::new(crate::support::users()[0]);
    machine
        .set("CLAUDE_CODE_MCP_NETWORK_ALLOW", "*.example.com")
        .set("CLAUDE_CODE_MCP_CREDENTIALS", CREDENTIALS)
        .set("CLAUDE_CODE_MCP_CREDENTIAL_HUB", TOKEN);
    let mut client = machine.client();
    let info = client
        .tool("get_server_info", json!({}))
        .expect("its facts");
    assert_eq!(info["networkCredentials"], json!(["hub"]));
    let mut create = |network: Value| {
        let arguments = json!({ "projectPath": machine.project, "network": network });
        client.tool("create_session", arguments)
    };
    for (network, code) in [
        (json!({ "credentials": ["other"] }), "network_not_allowed"),
        (json!({ "credentials": ["hub"] }), "invalid_argument"),
        (
            json!({ "credentials": ["hub"], "allow": ["www.example.com"] }),
            "invalid_argument",
        ),
    ] {
        let refused = create(network.clone()).expect_err("a refusal");
        assert_eq!(refused["code"], code, "{network}: {refused}");
    }
    let made = create(json!({ "credentials": ["hub"], "allow": ["api.example.com"] }));
    assert_eq!(
        made.expect("the control")["network"]["credentials"],
        json!(["hub"])
    );
}
