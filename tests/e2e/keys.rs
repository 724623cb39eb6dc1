//! Keys from the command line (P2a): shown once, on standard output alone; on record without their secret; ended at once.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use serde_json::Value;

use crate::support::{Machine, users, walk};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

/// The code of a refusal; a wrong argument has an exit code of its own.
fn refused(output: &Output) -> String {
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    error["error"]["code"].as_str().expect("a code").to_owned()
}

#[test]
fn a_key_is_made_listed_rotated_and_revoked_without_a_running_server_and_its_secret_is_nowhere() {
    let machine = Machine::new(users()[0]);
    let root = machine.project.to_str().expect("a path");
    let create = [
        "keys",
        "create",
        "--name",
        "ci",
        "--scope",
        "sessions:read",
        "--scope",
        "sessions:run",
        "--root",
        root,
    ];
    let made = machine.cli(&create);
    let key = good(&made);
    let key = key.strip_suffix('\n').expect("one line");
    let parsed = model_key(key);
    assert!(text(&made.stderr).contains("shown this once"), "{made:?}");
    assert!(!text(&made.stderr).contains(key));

    let list = good(&machine.cli(&["keys", "list", "--json"]));
    assert!(!list.contains(&parsed.1));
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let row = &list["keys"][0];
    assert_eq!(
        (&row["keyId"], &row["state"], &row["name"]),
        (
            &Value::from(parsed.0.clone()),
            &"active".into(),
            &"ci".into()
        )
    );
    assert_eq!(row["roots"][0], root);
    assert!(good(&machine.cli(&["keys", "list"])).contains("sessions:read sessions:run"));

    let rotated = good(&machine.cli(&["keys", "rotate", &parsed.0, "--overlap", "0", "--json"]));
    let rotated: Value = serde_json::from_str(&rotated).expect("JSON");
    let second = model_key(rotated["secret"].as_str().expect("a key"));
    assert_eq!(
        rotated["key"]["owner"],
        format!("key:{}", parsed.0),
        "sessions stay with the line"
    );
    assert_eq!(rotated["replaces"]["state"], "expired");
    assert!(good(&machine.cli(&["keys", "revoke", &second.0])).contains("is revoked"));
    assert_eq!(
        refused(&machine.cli(&["keys", "revoke", "aaaaaaaaaaaa", "--json"])),
        "key_not_found"
    );
    assert_eq!(
        refused(&machine.cli(&["keys", "rotate", "no-id", "--json"])),
        "invalid_argument"
    );
    let etc = [
        "keys", "create", "--name", "x", "--scope", "files", "--root", "/etc", "--json",
    ];
    assert_eq!(refused(&machine.cli(&etc)), "path_forbidden");
    let without = [
        "keys",
        "create",
        "--name",
        "x",
        "--scope",
        "sessions:run",
        "--json",
    ];
    assert_eq!(refused(&machine.cli(&without)), "invalid_argument");
    machine.wait_for_server_end();

    // Every change is in the audit log; the secrets are on no file of the state, and the pepper is the server's alone.
    let log = fs::read_to_string(machine.audit_log()).expect("the audit log");
    for action in ["key.create", "key.rotate", "key.revoke"] {
        assert!(log.contains(action), "{action}");
    }
    let pepper = machine.state().join("keys.pepper");
    assert_eq!(
        fs::metadata(&pepper)
            .expect("the pepper")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let mut looked = 0;
    for file in walk(&machine.state()) {
        let Ok(bytes) = fs::read(&file) else { continue };
        looked += 1;
        for secret in [&parsed.1, &second.1] {
            let has = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!has, "{}", file.display());
        }
    }
    assert!(looked >= 3, "the control: there are files to look at");
}

/// Id and secret of a key, whose form is checked.
fn model_key(text: &str) -> (String, String) {
    assert_eq!(text.len(), 69, "{text}");
    assert!(text.starts_with("ccmcp_"), "{text}");
    (text[6..18].to_owned(), text[19..62].to_owned())
}
