//! Which class of events a record is of, and which of its activities.

use super::Told;
use crate::Phase;

/// The classes that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// What callers, and the server in their place, do with sessions.
    ApiActivity,
    /// Who somebody is.
    Authentication,
    /// Keys and configuration.
    EntityManagement,
    /// Traffic of sessions.
    NetworkActivity,
    /// The server starts and stops.
    ApplicationLifecycle,
    /// The log about itself.
    EventLogActivity,
}

impl Class {
    pub(super) const fn uid(self) -> u32 {
        match self {
            Class::ApiActivity => 6003,
            Class::Authentication => 3002,
            Class::EntityManagement => 3004,
            Class::NetworkActivity => 4001,
            Class::ApplicationLifecycle => 6002,
            Class::EventLogActivity => 1008,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Class::ApiActivity => "API Activity",
            Class::Authentication => "Authentication",
            Class::EntityManagement => "Entity Management",
            Class::NetworkActivity => "Network Activity",
            Class::ApplicationLifecycle => "Application Lifecycle",
            Class::EventLogActivity => "Event Log Activity",
        }
    }

    pub(super) const fn category(self) -> u32 {
        self.uid() / 1000
    }

    pub(super) const fn category_name(self) -> &'static str {
        match self {
            Class::EventLogActivity => "System Activity",
            Class::Authentication | Class::EntityManagement => "Identity & Access Management",
            Class::NetworkActivity => "Network Activity",
            Class::ApiActivity | Class::ApplicationLifecycle => "Application Activity",
        }
    }
}

/// What was done, in the words of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Activity {
    pub(super) id: u32,
    pub(super) name: String,
}

fn activity(id: u32, name: &str) -> Activity {
    Activity {
        id,
        name: name.to_owned(),
    }
}

/// What the class has no number for goes by its own name.
fn other(record: &Told) -> Activity {
    activity(99, &record.action)
}

/// Class and activity of a record.
pub(super) fn of(record: &Told) -> (Class, Activity) {
    let (area, verb) = record
        .action
        .split_once('.')
        .unwrap_or((&record.action, ""));
    match (area, verb) {
        ("auth", "ok" | "fail") => (Class::Authentication, activity(1, "Logon")),
        ("auth", _) => (Class::Authentication, other(record)),
        ("key" | "config", _) => (Class::EntityManagement, changed(record, verb)),
        ("egress", _) => (Class::NetworkActivity, traffic(record)),
        ("server", "start") => (Class::ApplicationLifecycle, activity(3, "Start")),
        ("server", "stop") => (Class::ApplicationLifecycle, activity(4, "Stop")),
        ("audit" | "sink", _) => (Class::EventLogActivity, about_the_log(record, verb)),
        _ => (Class::ApiActivity, changed(record, verb)),
    }
}

/// Create, read, update, delete: the same numbers in API Activity and in Entity Management.
fn changed(record: &Told, verb: &str) -> Activity {
    match verb {
        "create" | "start" | "issue" => activity(1, "Create"),
        "read" | "list" | "logs" | "transcript" | "use_first" => activity(2, "Read"),
        "begin" | "stdin" | "resize" | "cancel" | "answer" | "transfer" | "extend"
        | "widen_network" | "answer_network" | "adopt" | "rotate" | "change" | "reload" => {
            activity(3, "Update")
        }
        "destroy" | "reap" | "remove_remains" | "revoke" | "expire" | "delete" => {
            activity(4, "Delete")
        }
        _ => other(record),
    }
}

/// A connection is opened by its intent and closed by its result.
fn traffic(record: &Told) -> Activity {
    if record.action == "egress.model" && record.result != "denied" {
        return activity(6, "Traffic");
    }
    match (record.phase, record.result.as_str()) {
        (_, "denied") => activity(5, "Refuse"),
        (Phase::Intent, _) => activity(1, "Open"),
        (_, "ok") => activity(2, "Close"),
        (_, "aborted") => activity(3, "Reset"),
        (_, "failed") => activity(4, "Fail"),
        _ => other(record),
    }
}

fn about_the_log(record: &Told, verb: &str) -> Activity {
    match verb {
        "pruned" => activity(2, "Delete"),
        "rotate" => activity(5, "Rotate"),
        "open" => activity(6, "Start"),
        "reopen" => activity(8, "Restart"),
        _ => other(record),
    }
}
