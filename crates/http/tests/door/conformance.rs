//! The official conformance suite against the whole HTTP door (S1), in both eras. The suite cannot present a token, so a proxy of
//! the test adds one. Each entry of `expected-failures-*.yml` names what shows our behavior to be right.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use control::Road;
use mcp::HttpService;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_util::sync::CancellationToken;

use crate::{
    fixtures::Fixtures,
    skip::skip,
    support::{KEY, TestRoad, loopback, open_with},
};

const BUNDLE: &str = "conformance-0.2.0-alpha.12-node20-bundle.tgz";

async fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}

/// The suite, unpacked.
async fn suite(unpacked: &Path) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bundle = std::env::var_os("CONFORMANCE_BUNDLE")
        .map_or_else(|| root.join("../shared/tools").join(BUNDLE), PathBuf::from);
    if !bundle.exists() {
        return Err("CONFORMANCE_BUNDLE names no bundle of the suite".to_owned());
    }
    run(Command::new("node").arg("--version")).await?;
    run(Command::new("tar")
        .arg("xzf")
        .arg(&bundle)
        .arg("-C")
        .arg(unpacked))
    .await?;
    Ok(unpacked.join("t/dist/index.js"))
}

/// Adds the key to each request.
async fn add_key(listener: TcpListener, to: u16) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match client.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let is_kept = |line: &&str| !line.to_ascii_lowercase().starts_with("connection:");
            let mut lines: Vec<&str> = head.trim_end().split("\r\n").filter(is_kept).collect();
            let key = format!("Authorization: Bearer {KEY}");
            lines.insert(1, &key);
            lines.insert(1, "Connection: close");
            let head = lines.join("\r\n") + "\r\n\r\n";
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else {
                return;
            };
            if server.write_all(head.as_bytes()).await.is_ok() {
                let _either_left = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

/// What failed, from the files that the suite leaves.
fn failures(results: &Path) -> String {
    let mut told = String::new();
    for directory in std::fs::read_dir(results).into_iter().flatten().flatten() {
        let checks = std::fs::read_to_string(directory.path().join("checks.json"));
        let checks: serde_json::Value =
            serde_json::from_str(&checks.unwrap_or_default()).unwrap_or_default();
        for check in checks.as_array().into_iter().flatten() {
            if check["status"] == "FAILURE" {
                let name = directory.file_name();
                told.push_str(&format!(
                    "{name:?} {}: {}\n",
                    check["id"], check["errorMessage"]
                ));
            }
        }
    }
    told
}

async fn conforms(revision: &str) {
    let unpacked = tempfile::tempdir().expect("a directory");
    let script = match suite(unpacked.path()).await {
        Ok(script) => script,
        Err(why) => return skip("conformance", &why),
    };
    let proxy = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = proxy.local_addr().expect("an address").port();
    let mut settings = loopback();
    settings.hosts = vec![format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let (road, stop, key) = (
        Arc::new(TestRoad::default()),
        CancellationToken::new(),
        Fixtures::key(),
    );
    let service = HttpService::wrapping(
        Arc::clone(&road) as Arc<dyn Road>,
        stop.clone(),
        move |service| Fixtures::new(service, key.clone()),
    );
    let door = open_with(settings, road, service, stop).await;
    let adding = tokio::spawn(add_key(proxy, door.port()));
    let expected = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/door/expected-failures-{revision}.yml"));
    let mut command = Command::new("node");
    command
        .arg(script)
        .args(["server", "--url", &format!("http://127.0.0.1:{port}/mcp")])
        .args(["--requirements", revision])
        .arg("--expected-failures")
        .arg(expected)
        .arg("-o")
        .arg(unpacked.path().join("results"))
        .current_dir(unpacked.path());
    let done = tokio::time::timeout(std::time::Duration::from_secs(120), run(&mut command)).await;
    let said = done
        .expect("the suite ends")
        .unwrap_or_else(|said| panic!("{said}\n{}", failures(&unpacked.path().join("results"))));
    assert!(said.contains("passed"), "{said}");
    adding.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_in_the_legacy_era() {
    conforms("2025-11-25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_in_the_modern_era() {
    conforms("2026-07-28").await;
}
