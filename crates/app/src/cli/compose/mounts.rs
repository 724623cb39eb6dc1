//! What a service sees of the host's files.

use std::path::{Component, Path, PathBuf};

use super::{
    document::Node,
    lint::{Findings, NotCompose, is_true, means_yes},
};

/// Names of sockets at which an engine, or a runtime below it, takes orders.
const ENGINE_SOCKETS: [&str; 8] = [
    "docker.sock",
    "docker-raw.sock",
    "dockerd.sock",
    "containerd.sock",
    "podman.sock",
    "crio.sock",
    "cri-dockerd.sock",
    "buildkitd.sock",
];
/// Stands for the home of whoever runs Compose; whose it is does not matter here.
const HOME: &str = "/home/user";
/// Where the server keeps its state below it.
const STATE: &str = "/home/user/.local/state/claude-code-mcp";
/// Of the forbidden places, what tells nothing and is often wanted, when it is read-only.
const HARMLESS: [&str; 4] = [
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ssl/certs",
    "/usr/share/zoneinfo",
];

/// One mount of a service.
struct Mount {
    line: usize,
    source: String,
    read_only: bool,
}

pub(super) fn lint(service: &Node, root: &Node, findings: &mut Findings) -> Result<(), NotCompose> {
    if let Some(entry) = service.entry("use_api_socket")
        && means_yes(&entry.node)
    {
        findings.add("engine_socket", entry.line, "use_api_socket");
    }
    for volume in service.at(&["volumes"]).map_or(&[][..], Node::items) {
        let Some(mount) = mount(volume) else { continue };
        judge(&mount, root, findings)?;
    }
    Ok(())
}

/// A mount with a source; the others are new and empty.
fn mount(volume: &Node) -> Option<Mount> {
    let line = volume.line;
    let Some(text) = volume.text() else {
        let source = volume.at(&["source"])?.text()?.to_owned();
        return Some(Mount {
            line,
            source,
            read_only: is_true(volume.at(&["read_only"])),
        });
    };
    let mut parts = text.split(':');
    let source = parts.next()?.to_owned();
    parts.next()?;
    let options = parts.next().unwrap_or_default();
    Some(Mount {
        line,
        source,
        read_only: options.split(',').any(|option| option == "ro"),
    })
}

fn judge(mount: &Mount, root: &Node, findings: &mut Findings) -> Result<(), NotCompose> {
    let shown = |path: &str| match mount.read_only {
        true => format!("{path} (read-only)"),
        false => path.to_owned(),
    };
    let Some(path) = host_path(&mount.source, root) else {
        return Ok(());
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = path.display().to_string();
    if ENGINE_SOCKETS.contains(&name.as_ref()) {
        findings.add("engine_socket", mount.line, shown(&text));
        if mount.read_only {
            findings.add("engine_socket_read_only", mount.line, shown(&text));
        }
        return Ok(());
    }
    if mount.read_only && HARMLESS.iter().any(|harmless| path.starts_with(harmless)) {
        return Ok(());
    }
    let reason = policy::why_host_path_is_forbidden(&path, Path::new(HOME), Path::new(STATE))?
        .or_else(|| {
            let is_a_home = path.parent() == Some(Path::new("/home"));
            is_a_home.then(|| "a home directory as a whole".to_owned())
        });
    if let Some(reason) = reason {
        findings.add(
            "host_path",
            mount.line,
            format!("{}: {reason}", shown(&text)),
        );
    }
    Ok(())
}

/// The absolute and clean path on the host. Relative ones lie beside the file, wherever that is: they are not judged, which
/// the documentation says. A named volume may be a bind mount in disguise.
fn host_path(source: &str, root: &Node) -> Option<PathBuf> {
    let absolute = if let Some(rest) = source.strip_prefix('~') {
        format!("{HOME}{rest}")
    } else if source.starts_with('/') {
        source.to_owned()
    } else if let Some(rest) = source.strip_prefix("${HOME}") {
        format!("{HOME}{rest}")
    } else {
        let device = root
            .at(&["volumes", source, "driver_opts", "device"])?
            .text()?;
        device.starts_with('/').then(|| device.to_owned())?
    };
    let mut clean = PathBuf::from("/");
    for part in Path::new(&absolute).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(clean)
}
