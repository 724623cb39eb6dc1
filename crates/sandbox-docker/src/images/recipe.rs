//! What is in an image of ours, whatever its base: programs that Claude Code works with, and an ordinary user.

use std::collections::HashMap;

use jiff::{Timestamp, Unit};
use model::{AGENT_GID, AGENT_UID};

/// What agents use: `git` for what they change, `rg` for search, Python for scripts, certificates for TLS.
pub(super) const PACKAGES: [&str; 4] = ["git", "ca-certificates", "ripgrep", "python3"];
/// Label of our images, with the version that made it. `image list` looks for it.
pub(crate) const IMAGE_LABEL: &str = "claude-code-mcp.image";
/// Label with what it was made of.
pub(crate) const BASE_LABEL: &str = "org.opencontainers.image.base.name";
/// The image's user. Not `claude`: whoever runs Claude Code in a container by hand expects nothing of that name.
const USER: &str = "agent";

/// Exit code of the install script where something is missing and there is no network to get it by.
pub(super) const NEEDS_NETWORK: u8 = 79;

/// Installs what is missing, in a shell that is root in the image. Without a network it ends where anything is, with
/// [`NEEDS_NETWORK`].
pub(super) fn install_script(network: bool) -> String {
    let packages = "\
missing=; \
command -v git >/dev/null || missing=\"$missing git\"; \
command -v rg >/dev/null || missing=\"$missing ripgrep\"; \
command -v python3 >/dev/null || missing=\"$missing python3\"; \
test -e /etc/ssl/certs/ca-certificates.crt || missing=\"$missing ca-certificates\"; \
if test -n \"$missing\"; then \
STOP_WITHOUT_NETWORK\
if command -v apt-get >/dev/null; then \
apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing \
&& rm -rf /var/lib/apt/lists/*; \
elif command -v apk >/dev/null; then apk add --no-cache $missing; \
elif command -v dnf >/dev/null; then dnf install --assumeyes --setopt=install_weak_deps=False $missing; \
else echo \"no apt-get, apk or dnf to install$missing with\" >&2; exit 1; fi; fi; ";
    let stop = if network {
        String::new()
    } else {
        format!("exit {NEEDS_NETWORK}; ")
    };
    let packages = packages.replace("STOP_WITHOUT_NETWORK", &stop);
    format!("set -eu; {packages}{}", account_script())
}

/// Makes the user without any program but a shell and sed, and without an apostrophe, so that it can be put into
/// others. Another user of that number is renamed away: to the kernel they are the same.
pub(super) fn account_script() -> String {
    format!(
        "sed -i -e \"/^{USER}:/d\" -e \"/^[^:]*:[^:]*:{AGENT_UID}:/d\" /etc/passwd; \
         sed -i -e \"/^{USER}:/d\" -e \"/^[^:]*:[^:]*:{AGENT_GID}:/d\" /etc/group; \
         echo {USER}:x:{AGENT_UID}:{AGENT_GID}:agent:/home/{USER}:/bin/sh >> /etc/passwd; \
         echo {USER}:x:{AGENT_GID}: >> /etc/group; \
         mkdir -p /home/{USER}; chown {AGENT_UID}:{AGENT_GID} /home/{USER}"
    )
}

/// How a container of it starts that somebody else runs, which no session looks at, and its labels. As few instructions as
/// can be: an engine makes a container for each.
pub(super) fn instructions(labels: &HashMap<String, String>) -> Vec<String> {
    let mut labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    labels.sort_unstable();
    vec![
        format!("USER {USER}"),
        format!("WORKDIR /home/{USER}"),
        "ENTRYPOINT []".to_owned(),
        "CMD [\"/bin/sh\"]".to_owned(),
        format!("LABEL {}", labels.join(" ")),
    ]
}

/// What made it, of what, and when.
pub(super) fn labels(version: &str, base: &str, now: Timestamp) -> HashMap<String, String> {
    let now = now.round(Unit::Second).unwrap_or(now);
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    HashMap::from([
        label(IMAGE_LABEL, version),
        label(BASE_LABEL, base),
        label("org.opencontainers.image.title", "claude-code-custom"),
        label(
            "org.opencontainers.image.description",
            "Root file system of Claude Code sessions",
        ),
        label("org.opencontainers.image.created", &now.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn the_account_takes_the_place_of_whoever_has_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nx:x:10000:1::/:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(
            root.join("etc/group"),
            "root:x:0:\nnode:x:1000:\nusers:x:100:\n",
        )
        .unwrap();
        let script = account_script()
            .replace(" /etc/", &format!(" {}/etc/", root.display()))
            .replace(" /home/", &format!(" {}/home/", root.display()))
            .replace("chown ", "true ");
        assert!(!script.contains('\''));
        for _twice in 0..2 {
            let ran = Command::new("sh").args(["-euc", &script]).status().unwrap();
            assert!(ran.success());
        }
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert_eq!(
            read("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nx:x:10000:1::/:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\n"
        );
        assert_eq!(
            read("etc/group"),
            "root:x:0:\nusers:x:100:\nagent:x:1000:\n"
        );
        assert!(root.join("home/agent").is_dir());
    }
}
