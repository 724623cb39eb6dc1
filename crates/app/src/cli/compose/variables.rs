//! `${NAME}` in a service: with a default, the default is judged; without one, nobody knows here what it will be.

use super::document::{Entry, Node, Value};

/// Parts of a service whose variables say nothing about its walls, or are judged by name.
const OF_NO_MATTER: [&str; 6] = [
    "command",
    "entrypoint",
    "environment",
    "healthcheck",
    "labels",
    "annotations",
];

/// Reads them, and remembers those without a default, each with its line.
#[derive(Default)]
pub(super) struct Variables {
    pub unknown: Vec<(usize, String)>,
}

impl Variables {
    /// The service with defaults in their places.
    pub fn resolve(&mut self, service: &Node) -> Node {
        let value = match &service.value {
            Value::Mapping(entries) => Value::Mapping(
                entries
                    .iter()
                    .map(|entry| Entry {
                        key: entry.key.clone(),
                        line: entry.line,
                        node: if OF_NO_MATTER.contains(&entry.key.as_str()) {
                            entry.node.clone()
                        } else {
                            self.resolve(&entry.node)
                        },
                    })
                    .collect(),
            ),
            Value::List(items) => {
                Value::List(items.iter().map(|item| self.resolve(item)).collect())
            }
            Value::Text(text) => Value::Text(self.text(text, service.line)),
        };
        Node {
            line: service.line,
            value,
        }
    }

    fn text(&mut self, text: &str, line: usize) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let (inside, after) = inner.split_once('}').unwrap_or((inner, ""));
                let (name, default) = split(inside);
                match default {
                    // A default with a variable of its own ends at the wrong brace, so it is not judged either.
                    Some(default) if !default.contains('$') => out.push_str(default),
                    Some(_) | None => self.leave(name, line, &mut out),
                }
                rest = after;
            } else {
                let end = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                self.leave(&rest[..end], line, &mut out);
                rest = &rest[end..];
            }
        }
        out.push_str(rest);
        out
    }

    fn leave(&mut self, name: &str, line: usize, out: &mut String) {
        self.unknown.push((line, name.to_owned()));
        out.push_str("${");
        out.push_str(name);
        out.push('}');
    }
}

/// The name, and what stands after `:-` or `-`.
fn split(inside: &str) -> (&str, Option<&str>) {
    let end = inside
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    let default = rest.strip_prefix(":-").or_else(|| rest.strip_prefix('-'));
    (name, default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_judged_and_the_rest_is_told() {
        for (text, expected, unknown) in [
            ("a:${TAG:-1.2}", "a:1.2", vec![]),
            ("${TAG-x}y", "xy", vec![]),
            ("$$HOME", "$HOME", vec![]),
            ("$IMAGE:1", "${IMAGE}:1", vec!["IMAGE"]),
            (
                "${A}${B:?missing}${C:+other}",
                "${A}${B}${C}",
                vec!["A", "B", "C"],
            ),
            ("${A:-${B}}", "${A}}", vec!["A"]),
            ("${A", "${A}", vec!["A"]),
            ("$", "${}", vec![""]),
        ] {
            let mut variables = Variables::default();
            assert_eq!(variables.text(text, 1), expected, "{text}");
            let names: Vec<_> = variables
                .unknown
                .into_iter()
                .map(|(_, name)| name)
                .collect();
            assert_eq!(names, unknown, "{text}");
        }
    }
}
