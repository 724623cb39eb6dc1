//! All that the engine is ever asked: method and path, by purpose. A test puts a filter with this list in front of the
//! engine and runs everything through it.
//!
//! What is absent: `exec`, `archive`, `export`, `commit`, `update`, `build`, volumes, networks, plugins. Work goes
//! through the supervisor.

/// A method and a path. `{id}` stands for one part of a path, `{name}` for one or several.
pub type Call = (&'static str, &'static str);

/// What sessions need.
pub const SESSIONS: &[Call] = &[
    ("GET", "/containers/json"),
    ("POST", "/containers/create"),
    ("POST", "/containers/{id}/start"),
    ("GET", "/containers/{id}/json"),
    ("POST", "/containers/{id}/pause"),
    ("POST", "/containers/{id}/unpause"),
    ("DELETE", "/containers/{id}"),
];

/// What sessions need besides where no socket of the host can be mounted: the standard streams of the first process, which
/// is the supervisor.
pub const ATTACHED: &[Call] = &[("POST", "/containers/{id}/attach")];

/// What finding out about the engine needs.
pub const DOCTOR: &[Call] = &[("GET", "/version"), ("GET", "/info")];

/// What finding the image needs.
pub const IMAGES: &[Call] = &[("GET", "/images/{name}/json")];

/// The listed call that a request is, if it is one. `path` may begin with the version of the API and end with a query.
pub fn find(method: &str, path: &str) -> Option<Call> {
    let path = path.split('?').next().unwrap_or_default();
    let path = without_version(path);
    let listed = SESSIONS.iter().chain(ATTACHED).chain(DOCTOR).chain(IMAGES);
    listed
        .copied()
        .find(|(known, template)| *known == method && fits(template, path))
}

fn without_version(path: &str) -> &str {
    let version = path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'));
    match version {
        Some((version, _)) if is_version(version) => &path["/v".len() + version.len()..],
        Some(_) | None => path,
    }
}

fn is_version(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn fits(template: &str, path: &str) -> bool {
    let Some((before, after)) = template
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return template == path;
    };
    let (kind, after) = after;
    let named = path
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    let parts = |named: &str| named.split('/').count() == 1 || kind == "name";
    named.is_some_and(|named| {
        parts(named)
            && named
                .split('/')
                .all(|part| !part.is_empty() && part != ".." && part.bytes().all(is_plain))
    })
}

/// What names and ids are made of: nothing that an engine would decode into something else.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b':' | b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_calls_are_found_with_and_without_a_version() {
        for path in ["/containers/json", "/v1.41/containers/json?all=true"] {
            assert_eq!(
                find("GET", path),
                Some(("GET", "/containers/json")),
                "{path}"
            );
        }
        assert_eq!(
            find("DELETE", "/v1.41/containers/claude-code-ab-cd?force=true"),
            Some(("DELETE", "/containers/{id}"))
        );
        for image in ["sha256:00ff", "claude:latest", "host/place/image:1"] {
            let path = format!("/v1.41/images/{image}/json");
            assert!(find("GET", &path).is_some(), "{image}");
        }
    }

    #[test]
    fn others_are_not() {
        for (method, path) in [
            ("POST", "/containers/json"),
            ("POST", "/v1.41/containers/abc/exec"),
            ("PUT", "/v1.41/containers/abc/archive"),
            ("GET", "/v1.41/containers/abc/attach/ws"),
            ("GET", "/containers/%2e%2e/json"),
            ("GET", "/containers//json"),
            ("DELETE", "/containers/a/b"),
            ("GET", "/images/../containers/json/json"),
            ("POST", "/vx/containers/create"),
        ] {
            assert_eq!(find(method, path), None, "{method} {path}");
        }
    }
}
