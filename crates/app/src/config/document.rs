//! The reference page of the configuration, made from the table of keys so that it cannot lag behind.

use std::fmt::Write;

use super::{Applies, KEYS, Key, Kind, OTHER_VARIABLES, units::format_size};

const HEAD: &str = "\
# Configuration

<!-- Generated from crates/app/src/config/keys.rs; a test keeps it equal. To renew it: UPDATE_DOCS=1 cargo test -p app reference_page -->

One TOML file, read from `~/.config/claude-code-mcp/config.toml` (`$XDG_CONFIG_HOME`; as root
`/etc/claude-code-mcp/config.toml`) when it is there, or from the path in `--config` or `CLAUDE_CODE_MCP_CONFIG`.
An environment variable wins over the file, a flag over both: every key can be given as `--set key=value`, with
the value written as in a variable. An unknown key, a wrong type or a value out of its bounds is an error, and nothing starts.

`claude-code-mcp config check` names everything that is wrong with a configuration, with file and line, before a server is
started with it, files that are named and cannot be used among it; `config show` tells what is set and where, `config show --effective` every value that counts, both without
secrets; `config schema` prints a JSON Schema of the file, for editors.

A server that runs reads its configuration again on SIGHUP and on `claude-code-mcp server reload`, which also says what changed:
the file anew, with the environment and the flags that it was started with. Each key below says when another value counts: at once,
for new sessions, or after a restart. A configuration with anything wrong in it changes nothing. Every change is in the audit log as
`server.config_change`, a refused one as `server.config_rejected`. What sessions reach is never more than the new ceiling allows:
rules past it are taken from them at once, and what is open by these rules is closed. A unit of systemd has
`ExecReload=/bin/kill -HUP $MAINPID`.

```toml
project_roots = [\"~/src\"]
extra_read_only = [\"~/.cargo/bin\"]
max_concurrent_sessions = 4

[limits]
memory = \"2g\"
cpus = 1.5
```

## Keys
";

/// The text of `docs/configuration.md`.
pub fn reference_page() -> String {
    let mut page = HEAD.to_owned();
    for key in KEYS {
        // Writing to a String cannot fail.
        let _ = write!(page, "\n{}", entry(key));
    }
    page.push_str("\n## Other environment variables\n\n| variable | meaning |\n|---|---|\n");
    for variable in OTHER_VARIABLES {
        let _ = writeln!(page, "| `{}` | {} |", variable.name, variable.documentation);
    }
    page
}

fn entry(key: &Key) -> String {
    format!(
        "### `{name}`\n\n{documentation}\n\n{kind} · default: {default} · variable: `{variable}` · counts {applies}\n",
        name = key.name,
        documentation = key.documentation,
        kind = kind(key.kind),
        default = if key.default.contains(' ') {
            key.default.to_owned()
        } else {
            format!("`{}`", key.default)
        },
        variable = key.variable,
        applies = match key.applies() {
            Applies::AtOnce => "at once",
            Applies::NewSessions => "for new sessions",
            Applies::Restart => "after a restart",
        },
    )
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Path => "absolute path, or `~/…`".to_owned(),
        Kind::PathList => {
            "list of absolute paths, or `~/…`; in a variable separated by colons".to_owned()
        }
        Kind::Words { .. } => "list of words; in a variable separated by commas".to_owned(),
        Kind::Rules => {
            "list of `host`, `host:port` or `host:port,port`, the host exact or `*.suffix`; in a variable separated by spaces"
                .to_owned()
        }
        Kind::Seconds { min, max } => {
            format!("seconds from {min} to {max}, or a text such as `\"15m\"`")
        }
        Kind::Count { min, max } => format!("number from {min} to {max}"),
        Kind::Bytes { min, max } => {
            format!(
                "bytes, or a text such as `\"512m\"`; from {} to {}",
                format_size(min),
                format_size(max)
            )
        }
        Kind::Cpus { min, max } => format!(
            "CPUs from {}.{:03} to {}",
            min / 1000,
            min % 1000,
            max / 1000
        ),
        Kind::Dollars { max, .. } => format!("dollars from 0 to {}", max / 1_000_000),
        Kind::Switch => "`true` or `false`".to_owned(),
        Kind::Text { max } => format!("text of at most {max} bytes"),
        Kind::Tables => "table of tables; in a variable an inline table of TOML".to_owned(),
        Kind::Choice(words) => words
            .iter()
            .map(|word| format!("`\"{word}\"`"))
            .collect::<Vec<_>>()
            .join(" or "),
    }
}

#[cfg(test)]
mod tests {
    use super::reference_page;

    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).unwrap();
            std::fs::write(path, reference_page()).unwrap();
        }
        let on_disk = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            on_disk,
            reference_page(),
            "renew it: UPDATE_DOCS=1 cargo test -p app reference_page"
        );
    }
}
