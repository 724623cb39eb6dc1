//! systemd's journal, by its native protocol (systemd.io, "Native Journal Protocol"): a datagram of `FIELD=value` lines for
//! each record.
//!
//! No value has a line feed (the log's texts have none), so the protocol's second spelling is not needed, and records are
//! far shorter than a datagram may be.

use std::{
    fmt::Write,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use super::{
    syslog::severity,
    worker::{Message, Target, Undelivered},
};

/// `SYSLOG_IDENTIFIER`, by which `journalctl -t` finds the records.
const IDENTIFIER: &str = "claude-code-mcp-audit";

pub(super) struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journald {
    pub(super) fn new(path: &Path) -> Self {
        Journald {
            path: path.to_owned(),
            socket: None,
        }
    }

    fn send(&mut self, message: &Message) -> std::io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => super::syslog::datagram_socket(&self.path)?,
        };
        let fields = fields(message);
        socket.send(fields.as_bytes())?;
        self.socket = Some(socket);
        Ok(())
    }
}

impl Target for Journald {
    fn deliver(&mut self, messages: &[Message]) -> Result<(), Undelivered> {
        for (taken, message) in messages.iter().enumerate() {
            self.send(message).map_err(|error| Undelivered {
                taken,
                error: format!("{}: {error}", self.path.display()),
            })?;
        }
        Ok(())
    }
}

fn fields(message: &Message) -> String {
    let about = &message.about;
    let mut text = String::new();
    let mut add = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}={}", value.replace(['\n', '\r'], " "));
    };
    add("MESSAGE", &message.text);
    add("PRIORITY", &severity(about).to_string());
    add("SYSLOG_IDENTIFIER", IDENTIFIER);
    add("AUDIT_SEQ", &about.seq.to_string());
    add("AUDIT_ACTION", &about.action);
    add("AUDIT_RESULT", &about.result);
    if let Some(session) = &about.session_id {
        add("AUDIT_SESSION", session);
    }
    text
}
