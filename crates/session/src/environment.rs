//! The environment of a session's executions. The supervisor keeps it: it may hold secrets, which never stand on disk
//! here, and it must still be there when this server was restarted.

use std::collections::BTreeMap;

use model::Secret;

/// What every execution finds unless the session or the call says otherwise. `PATH` as in a sandbox that is made of the
/// host's system directories, or of a Debian image, after [`model::AGENT_DIRECTORY`].
const DEFAULTS: [(&str, &str); 7] = [
    (
        "PATH",
        "/opt/claude-code:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/home/agent"),
    ("USER", "agent"),
    ("LOGNAME", "agent"),
    ("SHELL", "/bin/sh"),
    ("LANG", "C.UTF-8"),
    ("TMPDIR", "/tmp"),
];
/// The kind of terminal that clients emulate.
const TERMINAL: (&str, &str) = ("TERM", "xterm-256color");

/// Where the way out begins inside, for programs that ask their environment. `NODE_USE_ENV_PROXY`: Node asks only then.
const PROXIES: [(&str, &str); 4] = [
    ("HTTP_PROXY", "http://127.0.0.1:3128"),
    ("HTTPS_PROXY", "http://127.0.0.1:3128"),
    ("ALL_PROXY", "socks5h://127.0.0.1:1080"),
    (NO_PROXY, LOOPBACK),
];
const NO_PROXY: &str = "NO_PROXY";
const NODE: (&str, &str) = ("NODE_USE_ENV_PROXY", "1");
/// What is reached without a proxy: the relay to the model provider, and servers that run inside.
const LOOPBACK: &str = "127.0.0.1,localhost,::1";

/// What the supervisor keeps of a session: its own variables over the defaults. `has_network`: the way out is open; `of_network`:
/// what its certificates and placeholders add. What the
/// caller says of proxies stands, in whichever case, but for the loopback addresses that it leaves out.
pub(crate) fn of_session(
    env: &BTreeMap<String, Secret<String>>,
    has_network: bool,
    of_network: BTreeMap<String, String>,
) -> Vec<Vec<u8>> {
    let mut all: BTreeMap<String, String> = DEFAULTS
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    all.extend(of_network);
    if has_network {
        all.extend([(NODE.0.to_owned(), NODE.1.to_owned())]);
        for (name, value) in PROXIES {
            let both = [name.to_owned(), name.to_ascii_lowercase()];
            if !both.iter().any(|name| env.contains_key(name)) {
                all.extend(both.map(|name| (name, value.to_owned())));
            }
        }
    }
    for (name, value) in env {
        let value = value.expose();
        let value = match has_network && name.eq_ignore_ascii_case(NO_PROXY) {
            true => with_loopback(value),
            false => value.clone(),
        };
        all.insert(name.clone(), value);
    }
    lines(all)
}

/// What a call adds, which wins over the session's. On a terminal that includes its kind: the session's is about none. A proxy
/// that the call names in one case is named in the other one, too, where the session's own would stand.
pub(crate) fn of_execution(
    env: &BTreeMap<String, Secret<String>>,
    on_terminal: bool,
    has_network: bool,
) -> Vec<Vec<u8>> {
    let mut all: BTreeMap<String, String> = on_terminal
        .then_some(TERMINAL)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    for (name, value) in env {
        all.insert(name.clone(), value.expose().clone());
    }
    for (name, _) in PROXIES.iter().filter(|_| has_network) {
        let lower = name.to_ascii_lowercase();
        match (all.get(*name).cloned(), all.get(&lower).cloned()) {
            (Some(value), None) => drop(all.insert(lower, value)),
            (None, Some(value)) => drop(all.insert((*name).to_owned(), value)),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    lines(all)
}

/// The way to the model provider begins on loopback, and must not lead through the proxy.
fn with_loopback(value: &str) -> String {
    match value.trim() {
        "*" => value.to_owned(),
        "" => LOOPBACK.to_owned(),
        named => format!("{named},{LOOPBACK}"),
    }
}

fn lines(all: BTreeMap<String, String>) -> Vec<Vec<u8>> {
    all.into_iter()
        .map(|(name, value)| format!("{name}={value}").into_bytes())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn given(variables: &[(&str, &str)]) -> BTreeMap<String, Secret<String>> {
        let secret =
            |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new((*value).to_owned()));
        variables.iter().map(secret).collect()
    }

    fn read(lines: Vec<Vec<u8>>) -> BTreeMap<String, String> {
        let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
        let pair = |line: String| {
            let (name, value) = line.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        lines.into_iter().map(text).map(pair).collect()
    }

    fn session(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        read(of_session(&given(variables), true, BTreeMap::new()))
    }

    #[test]
    fn the_way_out_is_named_where_there_is_one() {
        let env = session(&[]);
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            assert_eq!(env[name], "http://127.0.0.1:3128");
        }
        assert_eq!(env["ALL_PROXY"], "socks5h://127.0.0.1:1080");
        assert_eq!(
            (&env["NO_PROXY"], &env["no_proxy"]),
            (&LOOPBACK.to_owned(), &LOOPBACK.to_owned())
        );
        let without = read(of_session(&given(&[]), false, BTreeMap::new()));
        assert!(
            !without
                .keys()
                .any(|name| name.to_ascii_lowercase().contains("proxy"))
        );
        assert_eq!(without["HOME"], "/home/agent");
    }

    #[test]
    fn what_the_caller_says_wins_in_either_case() {
        let env = session(&[("https_proxy", "http://own:1"), ("ALL_PROXY", "")]);
        assert_eq!(env["https_proxy"], "http://own:1");
        assert!(!env.contains_key("HTTPS_PROXY") && !env.contains_key("all_proxy"));
        assert_eq!(
            (env["ALL_PROXY"].as_str(), env["http_proxy"].as_str()),
            ("", "http://127.0.0.1:3128")
        );
        let call = |variables| read(of_execution(&given(variables), false, true));
        let env = call(&[("HTTPS_PROXY", "http://own:2"), ("A", "b")]);
        assert_eq!(
            (env["HTTPS_PROXY"].as_str(), env["https_proxy"].as_str()),
            ("http://own:2", "http://own:2")
        );
        assert_eq!(env.len(), 3);
    }

    #[test]
    fn the_relay_stays_direct_whatever_the_caller_excepts() {
        for (said, stands) in [
            (
                "internal.example",
                "internal.example,127.0.0.1,localhost,::1",
            ),
            ("", LOOPBACK),
            ("*", "*"),
        ] {
            let env = session(&[("no_proxy", said)]);
            assert_eq!(env["no_proxy"], stands);
            assert!(!env.contains_key("NO_PROXY"));
        }
    }
}
