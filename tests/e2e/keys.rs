//! Keys from the command line (P2a): shown once, on standard output alone; on record without their secret; ended at once.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use serde_json::{Value, json};

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

/// `transfer_files` by content through the real binary, in one piece and in several, for who sits at the machine.
#[test]
fn a_file_goes_by_content_into_a_session_and_out_of_it() {
    let machine = Machine::new(users()[0]);
    let mut client = machine.client();
    let session = client.create(&machine.project);
    let mut transfer = |arguments: Value| {
        let mut all = json!({ "sessionId": session });
        let more = arguments.as_object().expect("an object").clone();
        all.as_object_mut().expect("an object").extend(more);
        client.tool("transfer_files", all)
    };
    let into = json!({ "direction": "to_container", "destPath": "note.txt", "content": "héllo\n" });
    let written = transfer(into).expect("written");
    let file = machine.project.join("note.txt");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "héllo\n");
    let out = json!({ "direction": "from_container", "sourcePath": "note.txt" });
    let read = transfer(out).expect("read");
    assert_eq!(read["content"], "héllo\n");
    assert_eq!(read["sha256"], written["sha256"]);
    // Half a MiB in pieces, of which each but the last says that more follows.
    let piece = "0123456789abcdef".repeat(12 * 1024);
    let (mut handle, mut offset) = (Value::Null, json!(0));
    for more in [true, true, false] {
        let mut next = json!({ "direction": "to_container", "destPath": "/tmp/large", "content": piece, "offset": offset, "more": more });
        if !handle.is_null() {
            next["handle"] = handle;
        }
        let reply = transfer(next).expect("a piece");
        (handle, offset) = (reply["handle"].clone(), reply["nextOffset"].clone());
        assert_eq!(handle.is_null(), !more, "{reply}");
    }
    let whole = transfer(
        json!({ "direction": "from_container", "sourcePath": "/tmp/large", "length": 1000 }),
    );
    let whole = whole.expect("read");
    assert_eq!(whole["bytes"], 3 * piece.len());
    assert_eq!(
        (&whole["nextOffset"], whole["handle"].is_string()),
        (&json!(1000), true)
    );
    let hook = json!({ "direction": "to_container", "destPath": ".envrc", "content": "x" });
    let refused = transfer(hook).expect_err("protected");
    assert_eq!(refused["code"], "path_protected", "{refused}");
    let directory = json!({ "direction": "from_container", "sourcePath": "/workspace" });
    let refused = transfer(directory).expect_err("no file");
    assert_eq!(refused["code"], "transfer_entry_refused", "{refused}");
    client.destroy(&session);
}
