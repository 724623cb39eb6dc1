//! What one service breaks. Each function is one topic; mounts stand in `mounts.rs`.

use super::{
    document::{Node, Value},
    lint::{Findings, NotCompose, is_true, means_yes},
    mounts,
};

/// Words in a variable's name that say that its value is secret.
const SECRET_WORDS: [&str; 9] = [
    "KEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTH",
];
/// How secrets of known makers begin.
const SECRET_BEGINNINGS: [&str; 8] = [
    "sk-ant-",
    "sk-",
    "AKIA",
    "ASIA",
    "ghp_",
    "github_pat_",
    "glpat-",
    "-----BEGIN",
];
/// Ports of an engine's API.
const ENGINE_PORTS: [&str; 2] = ["2375", "2376"];

pub(super) fn lint(
    service: &Node,
    line: usize,
    root: &Node,
    findings: &mut Findings,
) -> Result<(), NotCompose> {
    image(service, findings);
    privileges(service, line, findings);
    namespaces(service, findings);
    system_paths(service, findings);
    limits(service, line, findings);
    environment(service, findings);
    ports(service, findings);
    elsewhere(service, findings);
    mounts::lint(service, root, findings)
}

/// What stands at a path, unless it says nothing.
fn said<'a>(service: &'a Node, path: &[&str]) -> Option<&'a str> {
    let text = service.at(path)?.text()?;
    (!["", "~", "null"].contains(&text)).then_some(text)
}

/// `a=b` and `a:b`: Compose hands both to the engine, which takes both.
fn option(item: &Node) -> (String, String) {
    let text = item.text().unwrap_or_default().trim().to_ascii_lowercase();
    match text.split_once(['=', ':']) {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text, String::new()),
    }
}

fn image(service: &Node, findings: &mut Findings) {
    let Some(image) = service
        .entry("image")
        .filter(|_| service.entry("build").is_none())
    else {
        return;
    };
    let Some(name) = image.node.text() else {
        return;
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    if !name.contains('@') && !name.ends_with('}') && tag.is_none_or(|tag| tag == "latest") {
        findings.add("latest_tag", image.line, name);
    }
}

fn drops_all(service: &Node) -> bool {
    let dropped = service.at(&["cap_drop"]).map_or(&[][..], Node::items);
    dropped
        .iter()
        .filter_map(Node::text)
        .any(|name| name.eq_ignore_ascii_case("ALL"))
}

fn forbids_new_privileges(service: &Node) -> bool {
    let options = service.at(&["security_opt"]).map_or(&[][..], Node::items);
    options
        .iter()
        .map(option)
        .any(|(name, value)| name == "no-new-privileges" && ["", "true"].contains(&value.as_str()))
}

fn has_user(service: &Node) -> bool {
    said(service, &["user"]).is_some_and(|user| {
        let name = user.split(':').next().unwrap_or_default();
        // `00` is root as well.
        name != "root" && name.parse::<u32>() != Ok(0) && !name.is_empty()
    })
}

fn privileges(service: &Node, line: usize, findings: &mut Findings) {
    for path in [&["privileged"][..], &["build", "privileged"]] {
        if let Some(node) = service.at(path).filter(|node| means_yes(node)) {
            findings.add("privileged", node.line, path.join("."));
        }
    }
    for hook in ["post_start", "pre_stop"] {
        for step in service.at(&[hook]).map_or(&[][..], Node::items) {
            if let Some(node) = step.at(&["privileged"]).filter(|node| means_yes(node)) {
                findings.add("privileged", node.line, format!("{hook}: privileged"));
            }
        }
    }
    for added in service.at(&["cap_add"]).map_or(&[][..], Node::items) {
        let name = added.text().unwrap_or_default().to_ascii_uppercase();
        if name.trim_start_matches("CAP_") != "NET_BIND_SERVICE" {
            findings.add("capability_added", added.line, name);
        }
    }
    for (id, kept, missing) in [
        (
            "capabilities_kept",
            drops_all(service),
            "no cap_drop: [ALL]",
        ),
        (
            "new_privileges",
            forbids_new_privileges(service),
            "no no-new-privileges in security_opt",
        ),
        (
            "writable_root",
            is_true(service.at(&["read_only"])),
            "no read_only: true",
        ),
        ("root_user", has_user(service), "no user, or root"),
    ] {
        if !kept {
            findings.add(id, line, missing);
        }
    }
    for key in ["devices", "device_cgroup_rules"] {
        for device in service.at(&[key]).map_or(&[][..], Node::items) {
            let name = device.text().or_else(|| said(device, &["source"]));
            findings.add("device", device.line, name.unwrap_or(key));
        }
    }
}

fn namespaces(service: &Node, findings: &mut Findings) {
    if let Some(mode) = service.entry("network_mode")
        && mode.node.text() == Some("host")
    {
        findings.add("host_network", mode.line, "network_mode: host");
    }
    // A service of the same file may be joined on purpose; another container is unknown here.
    for key in ["pid", "ipc", "uts", "cgroup", "userns_mode", "network_mode"] {
        let Some(entry) = service.entry(key) else {
            continue;
        };
        let value = entry.node.text().unwrap_or_default();
        let is_host = value == "host" && key != "network_mode";
        if is_host || value.starts_with("container:") {
            findings.add("host_namespace", entry.line, format!("{key}: {value}"));
        }
    }
}

fn system_paths(service: &Node, findings: &mut Findings) {
    let is_powerless = has_user(service) && drops_all(service) && forbids_new_privileges(service);
    for item in service.at(&["security_opt"]).map_or(&[][..], Node::items) {
        let (name, value) = option(item);
        let id = match (name.as_str(), value.as_str()) {
            ("seccomp" | "apparmor", "unconfined") | ("label", "disable") => "unconfined",
            ("systempaths", "unconfined") if !is_powerless => "unmasked_paths",
            _ => continue,
        };
        findings.add(id, item.line, item.text().unwrap_or_default());
    }
}

/// A limit that is not set, or that stands for none.
fn limits(service: &Node, line: usize, findings: &mut Findings) {
    let limit = |paths: &[&[&str]]| {
        paths.iter().any(|path| {
            said(service, path).is_some_and(|value| {
                let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                digits.parse::<f64>().map_or(true, |number| number > 0.0)
            })
        })
    };
    let of_deploy = |name| ["deploy", "resources", "limits", name];
    for (id, set, missing) in [
        (
            "no_memory_limit",
            limit(&[&["mem_limit"], &of_deploy("memory")]),
            "no mem_limit",
        ),
        (
            "no_cpu_limit",
            limit(&[&["cpus"], &["cpu_quota"], &of_deploy("cpus")]),
            "no cpus",
        ),
        (
            "no_process_limit",
            limit(&[&["pids_limit"], &of_deploy("pids")]),
            "no pids_limit",
        ),
    ] {
        if !set {
            findings.add(id, line, missing);
        }
    }
    let driver = said(service, &["logging", "driver"]).unwrap_or("json-file");
    // `local` keeps 100 MB by default; other drivers send lines elsewhere.
    let grows =
        driver == "json-file" && said(service, &["logging", "options", "max-size"]).is_none();
    if grows {
        findings.add("unlimited_log", line, "no logging.options.max-size");
    }
}

/// Names and values, as a mapping or as `NAME=value`; `NAME` alone is taken from Compose's own environment.
fn variables(service: &Node) -> Vec<(usize, String, String)> {
    let Some(environment) = service.at(&["environment"]) else {
        return Vec::new();
    };
    match &environment.value {
        Value::Mapping(entries) => entries
            .iter()
            .map(|entry| {
                let value = entry.node.text().unwrap_or_default().to_owned();
                (entry.line, entry.key.clone(), value)
            })
            .collect(),
        Value::List(items) => items
            .iter()
            .map(|item| {
                let text = item.text().unwrap_or_default();
                let (name, value) = text.split_once('=').unwrap_or((text, "~"));
                (item.line, name.to_owned(), value.to_owned())
            })
            .collect(),
        Value::Text(_) => Vec::new(),
    }
}

fn environment(service: &Node, findings: &mut Findings) {
    for (line, name, value) in variables(service) {
        let upper = name.to_ascii_uppercase();
        let says_where = ["FILE", "PATH", "DIR", "URL", "HELPER"]
            .iter()
            .any(|end| upper.ends_with(end));
        let is_secret = upper.split('_').any(|word| SECRET_WORDS.contains(&word)) && !says_where;
        let looks_secret = SECRET_BEGINNINGS
            .iter()
            .any(|start| value.starts_with(start));
        if looks_secret || (is_secret && !value.is_empty()) {
            findings.add("secret_in_environment", line, name);
        } else if upper == "DOCKER_HOST" && value.starts_with("tcp:") {
            findings.add("engine_over_network", line, format!("DOCKER_HOST={value}"));
        }
    }
    if let Some(file) = service.entry("env_file") {
        findings.add("not_seen", file.line, "env_file");
    }
}

/// `[ADDRESS:][PUBLISHED:]TARGET[/PROTOCOL]`, the address in brackets where it is one of IPv6.
fn short_port(text: &str) -> (Option<&str>, &str) {
    let text = text.split('/').next().unwrap_or_default();
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (Some(address), rest.rsplit(':').next().unwrap_or_default());
    }
    let Some((rest, target)) = text.rsplit_once(':') else {
        return (None, text);
    };
    // What is left is the published port, or an address and the port.
    (rest.rsplit_once(':').map(|(address, _)| address), target)
}

fn ports(service: &Node, findings: &mut Findings) {
    for port in service.at(&["ports"]).map_or(&[][..], Node::items) {
        let (address, target, shown) = match port.text() {
            Some(text) => {
                let (address, target) = short_port(text);
                (address, target, text.to_owned())
            }
            None => {
                let target = said(port, &["target"]).unwrap_or_default();
                (
                    said(port, &["host_ip"]),
                    target,
                    format!("target: {target}"),
                )
            }
        };
        if ENGINE_PORTS.contains(&target) {
            findings.add("engine_over_network", port.line, shown.clone());
        }
        if address.is_none_or(|address| ["", "0.0.0.0", "::", "*"].contains(&address)) {
            findings.add("published_everywhere", port.line, shown);
        }
    }
}

/// What another file or container brings along.
fn elsewhere(service: &Node, findings: &mut Findings) {
    for key in ["extends", "volumes_from", "provider"] {
        if let Some(entry) = service.entry(key) {
            findings.add("not_seen", entry.line, key);
        }
    }
}
