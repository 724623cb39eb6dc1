//! `compose lint` as scripts use it (C2): exit codes, and what is on which stream.

use std::path::Path;

use serde_json::Value;

use crate::support::{Machine, User};

fn lint(arguments: &[&str]) -> (Option<i32>, String, String) {
    let machine = Machine::new(User::Ordinary);
    let output = machine.cli(&[&["compose", "lint"], arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn exit_codes_tell_findings_from_none_and_from_what_cannot_be_judged() {
    let machine = Machine::new(User::Ordinary);
    let guide = machine.write("guide.yaml", include_str!("guide-compose.yaml"));
    let ours = machine.write("ours.yaml", include_str!("../../deploy/compose.yaml"));
    let garbage = machine.write("garbage.yaml", "services: [\n");
    let large = machine.write("large.yaml", &"#".repeat(1024 * 1024 + 1));
    let path = |path: &Path| path.display().to_string();

    let (code, out, _) = lint(&[&path(&guide), "--json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)));
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(13));
    let (code, out, _) = lint(&[&path(&guide)]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("guide.yaml:9: critical engine_socket_read_only: mcp-server:"),
        "{out}"
    );

    let (code, out, _) = lint(&[&path(&ours)]);
    assert_eq!(code, Some(0), "{out}");
    for unreadable in [&path(&garbage), &path(&large), "/nowhere", "/"] {
        let (code, out, err) = lint(&[unreadable]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{unreadable}");
        assert!(err.contains("cannot judge"), "{err}");
    }
}
