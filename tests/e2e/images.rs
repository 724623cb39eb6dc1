//! Images made, listed, pinned and unpacked through the real binary (S6; issue 3, item 5).

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    base::make_base,
    support::{
        Machine,
        engine::{machine, runtime},
        image::{IMAGE, engine, make_image},
        program, skip,
    },
};

/// What decides what a bootstrapped image holds: another one is made when any of it changes.
const RECIPE: [&str; 2] = [
    include_str!("../../crates/sandbox-docker/src/images/recipe.rs"),
    include_str!("../../crates/sandbox-docker/src/images/bootstrap.rs"),
];

/// The name of an image of Debian's packages, made by the program. It stays in the engine, for the next run.
fn bootstrapped(machine: &Machine, leg: &str) -> Option<String> {
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        skip("mmdebstrap", &format!("{leg}: it is not installed"));
        return None;
    }
    let key = hex::encode(Sha256::digest(RECIPE.concat()));
    let repository = "claude-code-mcp-test-bootstrap";
    let name = format!("{repository}:{}", &key[..12]);
    // Tests run in processes of their own: one makes it, the others wait.
    let lock = File::create(std::env::temp_dir().join("claude-code-mcp-test-bootstrap.lock"));
    let lock = lock.expect("a lock");
    lock.lock().expect("the lock");
    if runtime().block_on(engine().inspect_image(&name)).is_err() {
        // Those of other recipes are of no use any more.
        names_with(repository).iter().for_each(|old| remove(old));
        let built = machine.cli(&["image", "build", "--bootstrap", "--tag", &name, "--json"]);
        assert!(built.status.success(), "{}", text(&built.stderr));
        let reply = json(&built);
        assert_eq!(reply["name"], json!(name));
        assert!(reply["id"].to_string().contains("sha256:"), "{reply}");
        let steps = text(&built.stderr);
        for step in ["make a root file system", "import it", "name it"] {
            assert!(steps.contains(step), "{step} in {steps}");
        }
    }
    Some(name)
}

fn remove(name: &str) {
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    let _ = runtime().block_on(engine().remove_image(name, Some(options), None));
}

/// All names of images with that word in them.
fn names_with(word: &str) -> Vec<String> {
    let options = ListImagesOptionsBuilder::new().build();
    let images = runtime().block_on(engine().list_images(Some(options)));
    let images = images.expect("the engine answers");
    let names = images.into_iter().flat_map(|image| image.repo_tags);
    names.filter(|name| name.contains(word)).collect()
}

/// Names that only an image bears that is not whole.
fn unfinished() -> Vec<String> {
    names_with("claude-code-mcp-unfinished")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", text(&output.stdout), text(&output.stderr))
    })
}

/// The error of a command that must fail.
fn error(output: &Output) -> Value {
    assert!(!output.status.success(), "{}", text(&output.stdout));
    json(output)["error"].clone()
}

/// The output of a shell line in a new session of the command line.
fn in_session(machine: &Machine, line: &str) -> String {
    let created = machine.cli(&["session", "create", "--json"]);
    assert!(created.status.success(), "{}", text(&created.stderr));
    let id = json(&created)["sessionId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let ran = machine.cli(&["session", "exec", &id, "--", "/bin/sh", "-c", line]);
    assert!(machine.cli(&["session", "destroy", &id]).status.success());
    format!("{}{}", text(&ran.stdout), text(&ran.stderr))
}

#[test]
fn an_image_of_debian_packages_carries_sessions_on_both_backends() {
    let leg = "an image of packages";
    let Some(mut machine) = machine(leg) else {
        return;
    };
    let Some(name) = bootstrapped(&machine, leg) else {
        return;
    };
    machine.set("DEFAULT_CLAUDE_IMAGE", &name);
    let found = runtime()
        .block_on(engine().inspect_image(&name))
        .expect("the image");
    let config = found.config.expect("its configuration");
    assert_eq!(config.user.as_deref(), Some("agent"));
    assert!(config.volumes.unwrap_or_default().is_empty());
    assert!(config.entrypoint.unwrap_or_default().is_empty());
    let what = "git --version && rg --version && python3 -c 'print(6*7)' && grep -c . /etc/ssl/certs/ca-certificates.crt \
                && ls -d /home/agent && ! grep claude /etc/passwd && id -un";
    let told = in_session(&machine, what);
    for word in ["git version", "ripgrep", "42", "agent"] {
        assert!(told.contains(word), "{word} in {told}");
    }
    let listed = json(&machine.cli(&["image", "list", "--json"]));
    let image = &listed["images"][0];
    assert_eq!(image["isDefault"], true, "{listed:#}");
    assert_eq!(image["usable"], true, "{listed:#}");
    assert_eq!(image["madeBy"], env!("CARGO_PKG_VERSION"), "{listed:#}");
    assert!(image["base"].to_string().contains("bookworm"), "{listed:#}");
    assert_eq!(unfinished(), Vec::<String>::new());

    let unpacked = machine.cli(&["image", "unpack", "--json"]);
    assert!(unpacked.status.success(), "{}", text(&unpacked.stderr));
    let directory = json(&unpacked)["directory"]
        .as_str()
        .expect("a path")
        .to_owned();
    machine.wait_for_server_end();
    machine
        .set("CLAUDE_CODE_MCP_BACKEND", "native")
        .set("CLAUDE_CODE_MCP_NATIVE_ROOT", &directory);
    let told = in_session(&machine, what);
    for word in ["git version", "ripgrep", "42", "agent"] {
        assert!(told.contains(word), "{word} in {told}");
    }
}

#[test]
fn the_demo_plays_on_an_engine_too() {
    let leg = "the demo on an engine";
    let Some(mut machine) = machine(leg) else {
        return;
    };
    let Some(name) = bootstrapped(&machine, leg) else {
        return;
    };
    machine.set("DEFAULT_CLAUDE_IMAGE", &name);
    let played = machine.cli(&["demo", "--backend", "docker", "--json"]);
    let story = json(&played);
    assert!(played.status.success(), "{story:#}");
    assert_eq!(story["passed"], true, "{story:#}");
    assert_eq!(story["leftBehind"], json!([]), "{story:#}");
    assert_eq!(story["attacks"].as_array().map(Vec::len), Some(5));
    assert!(story.to_string().contains("Docker"), "{story:#}");
}

#[test]
fn what_fails_at_its_very_end_becomes_no_image() {
    let Some(mut machine) = machine("a bootstrap that fails") else {
        return;
    };
    let mut root = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o755);
    root.append_data(&mut header, "bin/sh", &b"#!"[..])
        .expect("a shell");
    let programs = machine.base().join("programs");
    fs::create_dir(&programs).expect("a directory");
    fs::write(programs.join("root.tar"), root.into_inner().expect("a tar")).expect("a file");
    machine.set("PATH", &format!("{}:/usr/bin:/bin", programs.display()));
    let name = "claude-code-mcp-test-fake:1";
    let build = |code: u8| {
        // Writes a whole root file system, and then ends so.
        let script = format!(
            "#!/bin/sh\ncat {}/root.tar\necho 'E: the reason' >&2\nexit {code}\n",
            programs.display()
        );
        let program = programs.join("mmdebstrap");
        fs::write(&program, script).expect("a program");
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        machine.cli(&["image", "build", "--bootstrap", "--tag", name, "--json"])
    };
    let is_there = || runtime().block_on(engine().inspect_image(name)).is_ok();
    let failed = error(&build(3));
    assert_eq!(failed["code"], "image_not_built", "{failed}");
    assert!(
        failed["message"].to_string().contains("the reason"),
        "{failed}"
    );
    assert!(!is_there());
    // The control: the same files, and a good end.
    let built = build(0);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert!(is_there());
    remove(name);
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let leg = "an interrupted build";
    let Some(machine) = machine(leg) else {
        return;
    };
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        skip("mmdebstrap", &format!("{leg}: it is not installed"));
        return;
    }
    let scratch = machine.base().join("scratch");
    fs::create_dir(&scratch).expect("a directory");
    let name = "claude-code-mcp-test-interrupted:1";
    let child = machine
        .command(program())
        .args(["image", "build", "--bootstrap", "--tag", name, "--json"])
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let began = Instant::now();
    let entries = || fs::read_dir(&scratch).expect("the directory").count();
    while entries() == 0 && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(entries(), 1, "it is under way");
    std::thread::sleep(Duration::from_secs(1));
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT)
        .expect("interrupted");
    let ended = child.wait_with_output().expect("its end");
    assert_eq!(ended.status.signal(), None, "it ends by itself");
    let error = error(&ended);
    assert_eq!(error["code"], "image_not_built", "{error}");
    assert!(
        error["message"].to_string().contains("interrupted"),
        "{error}"
    );
    assert_eq!(entries(), 0, "nothing of mmdebstrap is left");
    assert!(runtime().block_on(engine().inspect_image(name)).is_err());
}

#[test]
fn an_image_on_a_base_has_our_user_and_labels_and_a_failed_build_leaves_nothing() {
    let Some(machine) = machine("an image on a base") else {
        return;
    };
    let (base, name) = (
        "claude-code-mcp-test-base:1",
        "claude-code-mcp-test-built:1",
    );
    runtime().block_on(make_base(base));
    let built = machine.cli(&["image", "build", "--base", base, "--tag", name, "--json"]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let found = runtime()
        .block_on(engine().inspect_image(name))
        .expect("the image");
    let config = found.config.expect("its configuration");
    assert_eq!(config.user.as_deref(), Some("agent"));
    assert_eq!(config.entrypoint.unwrap_or_default(), Vec::<String>::new());
    let labels = config.labels.expect("labels");
    assert_eq!(labels["org.opencontainers.image.base.name"], base);
    assert_eq!(labels["claude-code-mcp.image"], env!("CARGO_PKG_VERSION"));
    assert!(labels["org.opencontainers.image.created"].starts_with("20"));
    let unpacked = machine.cli(&["image", "unpack", name, "--json"]);
    let directory = json(&unpacked)["directory"]
        .as_str()
        .expect("a path")
        .to_owned();
    let passwd = fs::read_to_string(Path::new(&directory).join("etc/passwd")).expect("users");
    assert!(
        passwd.contains("agent:x:1000:") && !passwd.contains("node"),
        "{passwd}"
    );

    // The small image lacks git, and there is nothing to install it with.
    let failed = "claude-code-mcp-test-failed:1";
    let error =
        error(&machine.cli(&["image", "build", "--base", IMAGE, "--tag", failed, "--json"]));
    assert_eq!(error["code"], "image_not_built", "{error}");
    assert!(runtime().block_on(engine().inspect_image(failed)).is_err());
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let containers = runtime().block_on(engine().list_containers(Some(options)));
    for container in containers.expect("the engine answers") {
        let command = container.command.unwrap_or_default();
        assert!(
            !command.contains("ripgrep"),
            "a container of the build is left: {command}"
        );
    }
    for name in [name, base] {
        remove(name);
    }
}

#[test]
fn what_cannot_be_built_is_refused_with_the_way_on() {
    let Some(mut machine) = machine("refused builds") else {
        return;
    };
    let build = |machine: &Machine, arguments: &[&str]| {
        let fixed = [
            "image",
            "build",
            "--json",
            "--tag",
            "claude-code-mcp-test-refused:1",
        ];
        error(&machine.cli(&[&fixed[..], arguments].concat()))
    };
    // A registry that nobody runs.
    let unreachable = build(&machine, &["--base", "localhost:9/nothing:1"]);
    assert_eq!(unreachable["code"], "image_not_built", "{unreachable}");
    for way in ["--bootstrap", "--base"] {
        assert!(
            unreachable["hint"].to_string().contains(way),
            "{unreachable}"
        );
    }
    let with_volumes = "claude-code-mcp-test-volumes-base:1";
    runtime().block_on(make_image(with_volumes, "VOLUME /data"));
    let refused = build(&machine, &["--base", with_volumes]);
    assert!(
        refused["message"].to_string().contains("/data"),
        "{refused}"
    );
    let listed = machine.cli(&[
        "--set",
        &format!("image={with_volumes}"),
        "image",
        "list",
        "--json",
    ]);
    let listed = json(&listed);
    assert_eq!(listed["images"][0]["usable"], false, "{listed:#}");
    assert!(
        listed["images"][0]["reason"].to_string().contains("/data"),
        "{listed:#}"
    );
    remove(with_volumes);
    for odd in ["../x", "a b", "Upper/Case:1", "-x"] {
        let base = format!("--base={odd}");
        assert_eq!(
            build(&machine, &[&base])["code"],
            "invalid_argument",
            "{odd}"
        );
    }
    machine.set("PATH", "/nowhere");
    let missing = build(&machine, &["--bootstrap"]);
    assert!(
        missing["hint"]
            .to_string()
            .contains("apt-get install mmdebstrap"),
        "{missing}"
    );
    machine.set("DOCKER_HOST", "unix:///nowhere.sock");
    let no_engine = build(&machine, &[]);
    assert_eq!(no_engine["code"], "backend_unavailable", "{no_engine}");
    assert_eq!(unfinished(), Vec::<String>::new());
}

#[test]
fn an_image_that_is_too_old_or_not_the_pinned_one_carries_no_session() {
    let Some(mut machine) = machine("pins and ages") else {
        return;
    };
    let id = runtime()
        .block_on(engine().inspect_image(IMAGE))
        .expect("the image")
        .id;
    let id = id.expect("its id");
    let other = format!("sha256:{}", "0".repeat(64));
    let pinned = format!("{IMAGE}@{id}");
    let mispinned = format!("{IMAGE}@{other}");
    let create = |machine: &mut Machine, settings: &[(&str, &str)]| {
        for (name, value) in settings {
            machine.set(name, value);
        }
        let created = machine.cli(&["session", "create", "--json"]);
        if created.status.success() {
            let id = json(&created)["sessionId"]
                .as_str()
                .expect("an id")
                .to_owned();
            assert!(machine.cli(&["session", "destroy", &id]).status.success());
        }
        machine.wait_for_server_end();
        created
    };
    let refused = |output: &Output, words: &[&str]| {
        let error = error(output);
        assert_eq!(error["code"], "image_refused", "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{word} in {error}");
        }
    };
    let (image, digest, age) = (
        "DEFAULT_CLAUDE_IMAGE",
        "CLAUDE_CODE_MCP_IMAGE_DIGEST",
        "CLAUDE_CODE_MCP_IMAGE_MAX_AGE",
    );
    assert!(
        create(&mut machine, &[(digest, &id), (age, "3650d")])
            .status
            .success()
    );
    let listed = json(&machine.cli(&["image", "list", "--json"]));
    assert_eq!(listed["images"][0]["usable"], true, "{listed:#}");
    refused(
        &create(&mut machine, &[(digest, &other)]),
        &[&other, "pins", "image_digest"],
    );
    let listed = json(&machine.cli(&["image", "list", "--json"]));
    assert_eq!(listed["images"][0]["usable"], false, "{listed:#}");
    let unpacked = machine.cli(&["image", "unpack", "--json"]);
    assert_eq!(error(&unpacked)["code"], "image_refused");
    let as_other = machine.cli(&["image", "unpack", &id, "--json"]);
    assert!(
        as_other.status.success(),
        "the pin is of the name: {}",
        text(&as_other.stderr)
    );
    assert!(
        create(&mut machine, &[(digest, ""), (image, &pinned)])
            .status
            .success()
    );
    refused(&create(&mut machine, &[(image, &mispinned)]), &[&other]);
    std::thread::sleep(Duration::from_secs(1));
    refused(
        &create(&mut machine, &[(image, IMAGE), (age, "1s")]),
        &["image_max_age", "image build"],
    );
    let doctor = json(&machine.cli(&["doctor", "--json"]));
    assert_eq!(doctor["docker"]["usable"], false, "{doctor:#}");
    assert!(
        doctor["docker"].to_string().contains("image build"),
        "{doctor:#}"
    );
}

#[test]
fn an_unpacked_image_is_what_an_embedded_session_sees_and_the_host_is_not() {
    let Some(mut machine) = machine("an unpacked image") else {
        return;
    };
    machine.set("CLAUDE_CODE_MCP_BACKEND", "native");
    let look = "test -e /usr/bin/apt-get && echo host; test -x /usr/bin/perl && echo shell; cat /etc/debian_version";
    // The control: without it the host's own files are there.
    let host = in_session(&machine, look);
    assert!(host.contains("host\nshell\n"), "{host}");
    machine.wait_for_server_end();

    let archive = machine.base().join("saved.tar");
    let bytes = runtime().block_on(async {
        let engine = engine();
        let mut parts = Box::pin(engine.export_image(IMAGE));
        let mut file = File::create(&archive).expect("a file");
        while let Some(part) = parts.next().await {
            file.write_all(&part.expect("a part")).expect("written");
        }
        file.metadata().expect("its size").len()
    });
    assert!(bytes > 1_000_000);
    let unpacked = machine.cli(&["image", "unpack", IMAGE, "--json"]);
    assert!(unpacked.status.success(), "{}", text(&unpacked.stderr));
    let unpacked = json(&unpacked);
    assert_eq!(unpacked["wasThere"], false, "{unpacked:#}");
    let directory = unpacked["directory"].as_str().expect("a path").to_owned();
    let again = json(&machine.cli(&[
        "image",
        "unpack",
        archive.to_str().expect("a path"),
        "--json",
    ]));
    assert_eq!(again["wasThere"], true, "{again:#}");
    assert_eq!(again["directory"], unpacked["directory"]);

    machine.set("CLAUDE_CODE_MCP_NATIVE_ROOT", &directory);
    let inside = in_session(
        &machine,
        &format!("{look}; echo x > /usr/bin/new; ls {directory}"),
    );
    assert!(inside.starts_with("shell\n"), "{inside}");
    assert!(inside.contains("Read-only file system"), "{inside}");
    assert_eq!(inside.matches("No such file").count(), 2, "{inside}");
    machine.wait_for_server_end();

    // One that others can change is not used.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("its mode");
    let refused = machine.cli(&["session", "create"]);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("native_root"),
        "{}",
        text(&refused.stderr)
    );
    let doctor = json(&machine.cli(&["doctor", "--json"]));
    assert_eq!(doctor["backend"]["usable"], false, "{doctor:#}");
}
