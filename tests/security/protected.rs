//! S5: what the host would execute or trust is not the agent's to change: read-only where it exists, masked where it does
//! not, found and moved aside where it appears later. Afterwards nothing of the protection is left on the host.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    place::{Place, places},
    probe::{Sandbox, each, snapshot},
    support::Machine,
};

/// A project with a repository and some of the protected paths.
fn repository(machine: &Machine) {
    for (path, content) in [
        (".git/HEAD", "ref: refs/heads/main\n"),
        (".git/config", "[core]\n\tbare = false\n"),
        (".git/hooks/pre-commit", "#!/bin/sh\nexit 0\n"),
        (".git/index", "index"),
        (".git/objects/x", "object"),
        (".vscode/tasks.json", "{}"),
        (".envrc", "export A=1\n"),
        ("src/main.c", "int main;\n"),
    ] {
        machine.write(path, content);
    }
}

fn each_repository(attack: impl Fn(&mut Sandbox)) {
    for place in places() {
        eprintln!("at {place:?}");
        let machine = place.machine();
        repository(&machine);
        attack(&mut Sandbox::on(place, machine, json!({})));
    }
}

/// Carries out Perl expressions, each of which must be refused in one of these ways.
fn refused(sandbox: &mut Sandbox, attempts: &[&str], ways: &[&str]) {
    // A file that stands under another owner's name is one that the agent may not write: so say kernels that look at that first.
    let more = sandbox.place.expected().read_only;
    for attempt in attempts {
        let answer = sandbox.perl(&format!(
            "chdir '/workspace'; my $r = do {{ {attempt} }}; print $r eq 'ok' || $r eq '1' ? 'DONE' : $r =~ /^E/ ? $r : err()"
        ));
        let ways = [ways, more].concat();
        assert!(ways.contains(&answer.as_str()), "{attempt}: {answer}");
    }
}

#[test]
fn protected_files_that_exist_cannot_be_written() {
    each_repository(|sandbox| {
        let before = snapshot(&sandbox.machine.project);
        refused(
            sandbox,
            &[
                "writes('.git/config')",
                "writes('.git/hooks/pre-commit')",
                "writes('.git/hooks/post-checkout')",
                "writes('.vscode/tasks.json')",
                "writes('.vscode/settings.json')",
                "writes('.envrc')",
                "truncate('.git/config', 0)",
                "mkdir('.git/hooks/x')",
                "symlink('/tmp/evil', '.git/hooks/post-merge')",
                "link('src/main.c', '.git/hooks/post-merge')",
                "chmod(0777, '.git/hooks/pre-commit')",
                "utime(1, 1, '.envrc')",
                "call(188, '.envrc', 'user.x', 'y', 1, 0)",
            ],
            &["EROFS", "EXDEV"],
        );
        refused(
            sandbox,
            &[
                "unlink('.git/config')",
                "unlink('.envrc')",
                "rename('.envrc', 'envrc2')",
                "rename('src/main.c', '.envrc')",
                "rename('src/main.c', '.git/config')",
                "rename('.git/config', '.git/config2')",
                "rename('.git/hooks', '.git/hooks2')",
                "rename('.git', '.git2')",
                "rename('.vscode', 'vscode2')",
                "rmdir('.vscode')",
                "call(316, -100, '.git', -100, 'src', 2)",
                "call(316, -100, '.envrc', -100, 'src/main.c', 2)",
                "call(316, -100, 'src/main.c', -100, '.git/hooks/pre-commit', 2)",
                "rename('/workspace', '/workspace2')",
                "rename('.git/hooks/pre-commit', 'src/x')",
                "unlink('.git/hooks/pre-commit')",
            ],
            &["EBUSY", "EROFS", "EXDEV"],
        );
        assert_eq!(snapshot(&sandbox.machine.project), before);
        for control in [
            "writes('.git/index')",
            "writes('src/main.c')",
            "rename('src', 'src2')",
            "mkdir('.git/refs')",
        ] {
            assert_eq!(
                sandbox.perl(&format!(
                    "chdir '/workspace'; print {control} ? 'ok' : err()"
                )),
                "ok",
                "the control {control}"
            );
        }
    });
}

#[test]
fn protected_files_that_are_missing_cannot_be_made() {
    each_repository(|sandbox| {
        refused(
            sandbox,
            &[
                "writes('.claude/settings.json')",
                "writes('.mcp.json')",
                "writes('.idea/workspace.xml')",
                "writes('.husky/pre-commit')",
                "writes('.cursor/mcp.json')",
                "writes('.devcontainer/devcontainer.json')",
                "writes('.gitmodules')",
                "writes('.git/config.worktree')",
                "writes('.git/modules/x')",
                "mkdir('.claude/hooks')",
                "symlink('/tmp', '.claude/hooks')",
            ],
            &["EROFS"],
        );
        refused(
            sandbox,
            &[
                "rmdir('.claude')",
                "rename('.claude', 'claude2')",
                "rename('src', '.claude')",
                "unlink('.mcp.json')",
                "rename('src/main.c', '.mcp.json')",
                "call(316, -100, 'src', -100, '.claude', 2)",
                "mkdir('.claude')",
                "symlink('src', '.claude')",
            ],
            &["EBUSY", "EEXIST", "EROFS"],
        );
        assert_eq!(
            sandbox.perl("chdir '/workspace'; print writes('.claud')"),
            "ok",
            "the control"
        );
    });
}

#[test]
fn the_masks_are_gone_with_the_session_and_the_work_is_left() {
    each_repository(|sandbox| {
        let project = sandbox.machine.project.clone();
        let during: Vec<_> = crate::support::walk(&project);
        assert!(
            during.contains(&project.join(".claude")),
            "the control: a mask stands while the session lives"
        );
        sandbox.sh("echo made > work; rm -f .mcp.json .claude; rm -rf .idea .husky");
        sandbox.destroy();
        let mut left: Vec<_> = crate::support::walk(&project)
            .into_iter()
            .map(|path| path.strip_prefix(&project).expect("below").to_owned())
            .filter(|path| !path.starts_with(".git/objects") && !path.starts_with("src"))
            .collect();
        left.sort();
        let expected = [
            ".envrc",
            ".git",
            ".git/HEAD",
            ".git/config",
            ".git/hooks",
            ".git/hooks/pre-commit",
            ".git/index",
            ".vscode",
            ".vscode/tasks.json",
            "work",
        ];
        assert_eq!(left, expected.map(Path::new));
    });
}

/// Runs a line and gives the protected changes that its result reports, and the whole.
fn changes(sandbox: &mut Sandbox, line: &str) -> (Vec<String>, Value) {
    let ran = sandbox.sh(line);
    let changes = ran.all["protectedChanges"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut paths: Vec<String> = changes
        .iter()
        .filter_map(|change| change["path"].as_str().map(str::to_owned))
        .collect();
    paths.sort();
    (paths, ran.all)
}

#[test]
fn what_appears_later_is_reported_and_moved_aside() {
    each(|sandbox| {
        let table = [
            (
                "mkdir -p a/.git/hooks && echo evil > a/.git/hooks/pre-commit",
                "a/.git/hooks/pre-commit",
            ),
            (
                "mkdir -p b/x/hooks && echo evil > b/x/hooks/pre-commit && mv b/x b/.git",
                "b/.git/hooks/pre-commit",
            ),
            ("mkdir -p c && echo evil > c/.envrc", "c/.envrc"),
            (
                "mkdir -p d/.vscode && echo evil > d/.vscode/tasks.json",
                "d/.vscode/tasks.json",
            ),
            ("mkdir -p e && echo 'gitdir: /tmp/x' > e/.git", "e/.git"),
            (
                "mkdir -p f/.git && ln -s /tmp/evil f/.git/config",
                "f/.git/config",
            ),
            ("mkdir -p g && ln -s ../a g/.git", "g/.git"),
            (
                "mkdir -p .VSCode && echo evil > .VSCode/tasks.json",
                ".VSCode/tasks.json",
            ),
            (
                "mkdir -p h/.GIT/hooks && echo evil > h/.GIT/hooks/pre-push",
                "h/.GIT/hooks/pre-push",
            ),
            ("mkdir -p i && echo evil > i/.MCP.json", "i/.MCP.json"),
            ("mkdir -p j && mkfifo j/.envrc", "j/.envrc"),
            ("echo evil > mise.toml", "mise.toml"),
            (
                "mkdir -p k/node_modules/p/.git/hooks && echo evil > k/node_modules/p/.git/hooks/pre-commit",
                "k/node_modules/p/.git/hooks/pre-commit",
            ),
            (
                "mkdir -p l/.git && echo ../a > l/.git/commondir",
                "l/.git/commondir",
            ),
            (
                "mkdir -p .git/hooks && echo evil > .git/hooks/pre-commit",
                ".git/hooks/pre-commit",
            ),
        ];
        for (line, path) in table {
            let (found, all) = changes(sandbox, line);
            if line.contains("mkfifo") && sandbox.place == Place::DockerGvisor {
                // A pipe of the guest's kernel is none of the host's.
                let on_host = sandbox.machine.project.join(path);
                assert!(found.is_empty() && fs::symlink_metadata(on_host).is_err());
                continue;
            }
            assert_eq!(found, [path], "{line}: {all:#}");
            let on_host = sandbox.machine.project.join(path);
            assert!(
                fs::symlink_metadata(&on_host).is_err(),
                "{path} still stands where the host would take it"
            );
            let moved = all["protectedChanges"][0]["movedTo"]
                .as_str()
                .expect("where it is now");
            assert!(
                fs::symlink_metadata(sandbox.machine.project.join(moved)).is_ok(),
                "{moved}: nothing is lost"
            );
        }
        let (found, all) = changes(
            sandbox,
            "mkdir -p m && echo fine > m/envrc && echo fine > m/hooks",
        );
        assert!(found.is_empty(), "the control: {all:#}");
    });
}

#[test]
fn a_hook_that_is_written_after_it_was_moved_aside_is_found_again() {
    each(|sandbox| {
        for round in 0..3 {
            let (found, all) = changes(
                sandbox,
                &format!("mkdir -p a/.git/hooks && echo {round} > a/.git/hooks/pre-commit"),
            );
            assert_eq!(found, ["a/.git/hooks/pre-commit"], "{all:#}");
        }
        let (found, all) = changes(sandbox, "true");
        assert!(found.is_empty(), "the control: {all:#}");
    });
}

#[test]
fn a_hook_behind_a_closed_directory_does_not_pass_in_silence() {
    each(|sandbox| {
        let line =
            "mkdir -p shut/.git/hooks && echo evil > shut/.git/hooks/pre-commit && chmod 000 shut";
        let (found, all) = changes(sandbox, line);
        // The ordinary user's server cannot look behind it, and says that its look was incomplete.
        let told = found == ["shut/.git/hooks/pre-commit"] || found == ["."];
        assert!(told, "neither found nor told: {all:#}");
        let (found, all) = changes(sandbox, "chmod 755 shut 2>/dev/null; true");
        let hook = sandbox.machine.project.join("shut/.git/hooks/pre-commit");
        assert!(fs::symlink_metadata(&hook).is_err(), "{found:?} {all:#}");
    });
}

#[test]
fn a_hook_under_many_directories_is_found_or_told() {
    each(|sandbox| {
        let line = "i=0; while [ $i -lt 280 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done; \
                    mkdir -p .git/hooks; echo evil > .git/hooks/pre-commit";
        let (found, all) = changes(sandbox, line);
        assert_eq!(all["exitCode"], 0, "{all:#}");
        let told =
            found.len() == 1 && (found[0] == "." || found[0].ends_with("/.git/hooks/pre-commit"));
        assert!(told, "neither found nor told: {all:#}");
    });
}

#[test]
fn a_process_that_stays_behind_cannot_write_after_the_scan() {
    each(|sandbox| {
        let line = "(setsid sh -c 'sleep 1; mkdir -p z/.git/hooks; echo evil > z/.git/hooks/pre-commit' >/dev/null 2>&1 &) ; true";
        sandbox.sh(line);
        std::thread::sleep(std::time::Duration::from_millis(1_400));
        let hook = sandbox.machine.project.join("z/.git/hooks/pre-commit");
        assert!(!hook.exists(), "it outlived its execution");
        sandbox.sh("mkdir -p z/x && echo x > z/x/y");
        assert!(
            sandbox.machine.project.join("z/x/y").exists(),
            "the control"
        );
    });
}

#[test]
fn a_hook_of_an_execution_that_destroy_interrupts_is_not_left() {
    each(|sandbox| {
        let hook = sandbox.machine.project.join("a/.git/hooks/pre-commit");
        let fine = sandbox.machine.project.join("a/fine");
        sandbox.start(
            "mkdir -p a/.git/hooks && echo evil > a/.git/hooks/pre-commit && touch a/fine && sleep 600",
        );
        crate::support::until("it is written", || fine.exists());
        sandbox.destroy();
        assert!(!hook.exists(), "destroy left {hook:?}");
        assert!(fine.exists(), "the control: the rest of the work is left");
    });
}

#[test]
fn a_hook_of_a_cancelled_execution_is_moved_aside() {
    each(|sandbox| {
        let hook = sandbox.machine.project.join("a/.git/hooks/pre-commit");
        let fine = sandbox.machine.project.join("a/fine");
        let execution = sandbox.start(
            "mkdir -p a/.git/hooks && echo evil > a/.git/hooks/pre-commit && touch a/fine && sleep 600",
        );
        crate::support::until("it is written", || fine.exists());
        sandbox.cancel(&execution);
        let ended = sandbox.look(&execution, 10);
        assert_eq!(ended["state"], "killed", "{ended:#}");
        assert!(!hook.exists(), "{ended:#}");
        assert_eq!(
            ended["protectedChanges"][0]["path"], "a/.git/hooks/pre-commit",
            "{ended:#}"
        );
    });
}

#[test]
fn a_hook_that_was_written_while_no_server_lived_is_not_left_by_the_next() {
    for place in places() {
        let mut machine = place.machine();
        machine.set("CLAUDE_CODE_MCP_LEASE_SECONDS", "2");
        let mut sandbox = Sandbox::on(place, machine, json!({}));
        let fine = sandbox.machine.project.join("a/fine");
        let hook = sandbox.machine.project.join("a/.git/hooks/pre-commit");
        sandbox.start("sleep 0.5; mkdir -p a/.git/hooks && echo evil > a/.git/hooks/pre-commit && touch a/fine && sleep 600");
        let server = sandbox.machine.server_pid().expect("a server");
        let server = rustix::process::Pid::from_raw(server).expect("a pid");
        rustix::process::kill_process(server, rustix::process::Signal::KILL).expect("killed");
        crate::support::until("it is written", || fine.exists());
        crate::support::until("the lease is over", || {
            sandbox.machine.sandbox_pids().is_empty()
        });
        sandbox.client = sandbox.machine.client();
        let session = sandbox.session.clone();
        crate::support::until("the next server has taken note", || {
            sandbox
                .client
                .tool("get_session", json!({ "sessionId": session }))
                .is_ok_and(|session| session["state"] == "failed")
        });
        crate::support::until("the hook is moved aside", || !hook.exists());
        assert!(fine.exists(), "the control");
    }
}

#[test]
fn a_hook_that_was_written_while_no_server_lived_is_found_when_the_next_takes_over() {
    each(|sandbox| {
        let fine = sandbox.machine.project.join("a/fine");
        let hook = sandbox.machine.project.join("a/.git/hooks/pre-commit");
        let execution = sandbox.start("sleep 0.5; mkdir -p a/.git/hooks && echo evil > a/.git/hooks/pre-commit && touch a/fine && sleep 600");
        let server = sandbox.machine.server_pid().expect("a server");
        let server = rustix::process::Pid::from_raw(server).expect("a pid");
        rustix::process::kill_process(server, rustix::process::Signal::KILL).expect("killed");
        crate::support::until("it is written", || fine.exists());
        sandbox.client = sandbox.machine.client();
        let cancel = json!({ "executionId": execution });
        crate::support::until("the control: it has ended", || {
            let _ = sandbox.client.tool("cancel_execution", cancel.clone());
            sandbox.look(&execution, 1)["state"] == "killed"
        });
        crate::support::until("the hook is moved aside", || !hook.exists());
    });
}

#[test]
fn a_session_on_a_directory_of_another_ones_project_keeps_its_protection() {
    each_repository(|sandbox| {
        let inner_project = sandbox.machine.write("src/file", "x");
        let inner_project = inner_project.parent().expect("its directory").to_owned();
        let inner = sandbox.client.create(&inner_project);
        let (found, _) = changes(sandbox, "echo nothing protected > work");
        assert_eq!(
            found,
            Vec::<String>::new(),
            "placeholders are nobody's change"
        );
        let client = &mut sandbox.client;
        let evil = "echo evil > .envrc; echo evil > .mcp.json; mkdir -p .claude && echo evil > .claude/settings.json";
        client.run(&inner, evil);
        for path in [".envrc", ".mcp.json", ".claude/settings.json"] {
            let left = fs::read_to_string(inner_project.join(path)).unwrap_or_default();
            assert_eq!(left, "", "{path}");
        }
        // The outer session sees the placeholders as files of its project, and can put others in their place.
        let outer = "cd src && rm -f .envrc .mcp.json; echo evil > .envrc; chmod u+w .claude; echo evil > .claude/settings.json";
        let (found, _) = changes(sandbox, outer);
        assert_eq!(found, ["src/.claude/settings.json", "src/.envrc"]);
        // The inner one's mounts are lifted by that; what it writes now is found by its own scan.
        let written = sandbox.client.run(&inner, "echo evil > .mcp.json");
        let changes = written["protectedChanges"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        assert!(
            fs::read_to_string(inner_project.join(".mcp.json")).is_err(),
            "{written:#}"
        );
        assert_eq!(changes.len(), 1, "{written:#}");
        sandbox.client.destroy(&inner);
    });
}

#[test]
fn a_file_that_the_host_replaced_is_told_when_the_session_writes_to_it() {
    each_repository(|sandbox| {
        let config = sandbox.machine.project.join(".git/config");
        let before = sandbox.sh("echo evil >> .git/config");
        assert!(before.err.contains("Read-only"), "the control: {before:?}");
        // As git does it: a new file, renamed over the old one.
        let new = sandbox
            .machine
            .write(".git/config.lock", "[core]\n\tbare = false\n[user]\n");
        fs::rename(new, &config).expect("replaced");
        let (found, all) = changes(sandbox, "echo evil >> .git/config");
        assert_eq!(found, [".git/config"], "{all:#}");
        assert!(all.to_string().contains("replaced"), "{all:#}");
        assert!(config.exists(), "the user's own file is left");
        let (found, _) = changes(sandbox, "true");
        assert_eq!(found, Vec::<String>::new(), "told once");
    });
}

#[test]
fn a_link_at_a_protected_path_refuses_the_session() {
    for place in places() {
        let machine = place.machine();
        std::os::unix::fs::symlink("/tmp", machine.project.join(".vscode")).expect("a link");
        let mut client = machine.client();
        let refused = client
            .tool("create_session", json!({ "projectPath": machine.project }))
            .expect_err("a refusal");
        assert!(
            ["path_unsafe", "path_forbidden", "path_protected"]
                .contains(&refused["code"].as_str().unwrap_or_default()),
            "{refused:#}"
        );
        fs::remove_file(machine.project.join(".vscode")).expect("removed");
        let session = client.create(&machine.project);
        client.destroy(&session);
    }
}

#[test]
fn a_transfer_writes_nothing_protected_on_either_side() {
    each_repository(|sandbox| {
        let project = sandbox.machine.project.clone();
        sandbox.machine.write("outside/hooks/pre-commit", "evil");
        sandbox.sh("mkdir -p /tmp/t/.git/hooks /tmp/v && echo evil > /tmp/t/.git/hooks/pre-commit && echo evil > /tmp/v/.envrc && echo fine > /tmp/fine");
        let before = snapshot(&project);
        let out = |from: &str, to: &str| json!({ "direction": "from_container", "sourcePath": from, "destPath": project.join(to) });
        let into = |from: &str, to: &str| json!({ "direction": "to_container", "sourcePath": project.join(from), "destPath": to });
        let table = [
            out("/tmp/fine", ".git/hooks/post-merge"),
            out("/tmp/fine", ".git/config"),
            out("/tmp/fine", ".git/info/x"),
            out("/tmp/fine", ".envrc"),
            out("/tmp/fine", ".mcp.json"),
            out("/tmp/fine", ".MCP.JSON"),
            out("/tmp/fine", "sub/.vscode"),
            out("/tmp/t", "new"),
            out("/tmp/t/.git", "new/.git"),
            out("/tmp/v", "new2"),
            out("/tmp/v/.envrc", "new3/.envrc"),
            into("outside/hooks", "/workspace/.git/hooks"),
            into("outside/hooks/pre-commit", "/workspace/.git/hooks/x"),
            into("outside/hooks", "/workspace/sub/.git/hooks"),
            into("src/main.c", "/workspace/.envrc"),
            into("src/main.c", "/workspace/.claude/settings.json"),
            into("src/main.c", "/workspace/x/.MCP.json"),
            into("src/main.c", "/workspace/.git"),
        ];
        for mut arguments in table {
            arguments["sessionId"] = json!(sandbox.session);
            let refused = sandbox
                .client
                .tool("transfer_files", arguments.clone())
                .expect_err("a refusal");
            assert!(
                ["path_protected", "transfer_entry_refused"]
                    .contains(&refused["code"].as_str().unwrap_or_default()),
                "{arguments}: {refused:#}"
            );
            assert_eq!(snapshot(&project), before, "{arguments}");
        }
        for mut control in [
            out("/tmp/fine", "fine"),
            into("src/main.c", "/workspace/fine2"),
        ] {
            control["sessionId"] = json!(sandbox.session);
            sandbox
                .client
                .tool("transfer_files", control)
                .expect("the control");
        }
    });
}
