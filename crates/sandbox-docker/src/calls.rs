//! All that the engine is ever asked: method and path, by purpose. A test puts a filter with this list in front of the
//! engine and runs everything through it.
//!
//! What is absent: `exec`, `archive`, `export`, `commit`, `update`, volumes, networks, plugins. Work goes
//! through the supervisor. What makes and unpacks images is a list of its own: no session ever needs it.

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

/// What finding out about the engine needs. A trial of its walls (`doctor --probe`) makes one sandbox besides, by the calls of
/// [`SESSIONS`] and no others.
pub const DOCTOR: &[Call] = &[("GET", "/version"), ("GET", "/info")];

/// What finding the image needs.
pub const IMAGES: &[Call] = &[("GET", "/images/{name}/json")];

/// What `image build`, `image list` and `image unpack` need besides [`DOCTOR`] and [`IMAGES`]: the command line's alone,
/// never a server's.
pub const IMAGE_BUILDING: &[Call] = &[
    ("GET", "/images/json"),
    ("POST", "/images/create"),
    ("POST", "/build"),
    ("POST", "/images/{name}/tag"),
    ("GET", "/images/{name}/get"),
    ("DELETE", "/images/{name}"),
];

/// The call of a server that a request is, if it is one. `path` may begin with the version of the API and end with a
/// query.
pub fn find(method: &str, path: &str) -> Option<Call> {
    find_among(&[SESSIONS, ATTACHED, DOCTOR, IMAGES], method, path)
}

/// The call of the commands about images that a request is, if it is one.
pub fn find_image_call(method: &str, path: &str) -> Option<Call> {
    find_among(&[DOCTOR, IMAGES, IMAGE_BUILDING], method, path)
}

fn find_among(lists: &[&[Call]], method: &str, path: &str) -> Option<Call> {
    let path = path.split('?').next().unwrap_or_default();
    let path = without_version(path);
    let listed = lists.iter().flat_map(|list| list.iter());
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
    fn a_server_makes_no_images_and_the_commands_about_images_no_containers() {
        for (method, path) in [
            ("POST", "/v1.41/build?t=x"),
            ("POST", "/v1.41/images/create?fromSrc=-"),
            ("POST", "/v1.41/images/a:1/tag?repo=b"),
            ("GET", "/v1.41/images/json?filters=x"),
            ("GET", "/v1.41/images/host/place:1/get"),
            ("DELETE", "/v1.41/images/a:1"),
        ] {
            assert_eq!(find(method, path), None, "{method} {path}");
            assert!(find_image_call(method, path).is_some(), "{method} {path}");
        }
        for call in SESSIONS {
            let path = call.1.replace("{id}", "abc");
            assert!(find(call.0, &path).is_some(), "{call:?}");
            assert_eq!(find_image_call(call.0, &path), None, "{call:?}");
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
