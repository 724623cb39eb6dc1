//! Events of the Open Cybersecurity Schema Framework (schema.ocsf.io).
//!
//! `docs/audit-log-export.md` has the mapping as a table; `tests/ocsf.rs` holds every event to the definitions of its class.
//! Only attributes that have been the same in all versions since 1.3 are used; what has no place among them stands in
//! `unmapped`.

mod class;

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use self::class::{Activity, Class};
use super::Told;
use crate::Phase;

/// See [`super::OCSF_VERSION`].
pub(super) const VERSION: &str = "1.3.0";
const PRODUCT: &str = "Claude Code Container MCP Server";
const VENDOR: &str = "claude-code-mcp";
/// `metadata.sequence` is a 32-bit integer; a greater number stands in `metadata.uid` alone.
const MAX_INTEGER: u64 = i32::MAX as u64;

/// How much an event matters; the numbers are `severity_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Informational = 1,
    Low = 2,
    Medium = 3,
    High = 4,
}

impl Severity {
    /// Refusals and what was given up are low, failures medium, and so are callers that could not show who they are; records
    /// that are missing are high.
    pub(super) fn of(record: &Told) -> Severity {
        match (record.action.as_str(), record.result.as_str()) {
            ("audit.gap" | "sink.gap", _) => Severity::High,
            ("auth.fail" | "auth.lockout", _) | (_, "failed") => Severity::Medium,
            (_, "denied" | "aborted" | "unknown") => Severity::Low,
            _ => Severity::Informational,
        }
    }

    const fn caption(self) -> &'static str {
        match self {
            Severity::Informational => "Informational",
            Severity::Low => "Low",
            Severity::Medium => "Medium",
            Severity::High => "High",
        }
    }
}

/// The record as an event.
pub(super) fn event(record: &Told, host: &str) -> Value {
    let (class, activity) = class::of(record);
    let mut event = base(record, class, &activity);
    let Some(fields) = event.as_object_mut() else {
        return event;
    };
    match class {
        Class::ApiActivity => api_activity(fields, record),
        Class::Authentication => authentication(fields, record),
        Class::EntityManagement => entity_management(fields, record),
        Class::NetworkActivity => network_activity(fields, record),
        Class::ApplicationLifecycle => {
            fields.insert("app".to_owned(), product());
            on_host(fields, record, host);
        }
        Class::EventLogActivity => {
            fields.insert("log_name".to_owned(), json!("audit"));
            fields.insert("log_provider".to_owned(), json!(VENDOR));
            on_host(fields, record, host);
        }
    }
    event
}

/// What every class has.
fn base(record: &Told, class: Class, activity: &Activity) -> Value {
    let severity = Severity::of(record);
    let (status_id, status) = status(record);
    let mut event = json!({
        "category_uid": class.category(),
        "category_name": class.category_name(),
        "class_uid": class.uid(),
        "class_name": class.name(),
        "activity_id": activity.id,
        "activity_name": activity.name,
        "type_uid": class.uid() * 100 + activity.id,
        "type_name": format!("{}: {}", class.name(), activity.name),
        "time": record.timestamp.as_millisecond(),
        "timezone_offset": 0,
        "severity_id": severity as u8,
        "severity": severity.caption(),
        "status_id": status_id,
        "status": status,
        "message": format!("{} {}", record.action, record.result),
        "metadata": metadata(record),
        "unmapped": unmapped(record),
    });
    if let Some(reason) = &record.reason {
        event["status_code"] = json!(reason);
    }
    if let Some(milliseconds) = record
        .duration_ms
        .filter(|duration| *duration <= MAX_INTEGER)
    {
        event["duration"] = json!(milliseconds);
    }
    event
}

/// An intent has no outcome yet; neither has what a killed server left.
fn status(record: &Told) -> (u8, &str) {
    match (record.action.as_str(), record.result.as_str()) {
        ("auth.fail" | "auth.lockout", _) | (_, "denied" | "failed" | "aborted") => (2, "Failure"),
        (_, "ok") => (1, "Success"),
        (_, other) => (99, other),
    }
}

fn metadata(record: &Told) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "product": product(),
        "uid": record.hash,
        "event_code": record.action,
        "log_name": "audit",
        "log_provider": VENDOR,
        "log_version": record.v.to_string(),
        "original_time": record.timestamp.to_string(),
    });
    if let Some(operation) = &record.op {
        metadata["correlation_uid"] = json!(operation);
    }
    if record.seq <= MAX_INTEGER {
        metadata["sequence"] = json!(record.seq);
    }
    metadata
}

/// Everything of the record that has no attribute of its own.
fn unmapped(record: &Told) -> Value {
    let mut rest =
        json!({ "phase": phase(record.phase), "seq": record.seq, "result": record.result });
    let mut keep = |name: &str, value: Value| {
        if !value.is_null() {
            rest[name] = value;
        }
    };
    keep("session_id", json!(record.session_id));
    keep("actor_hash", json!(record.actor.hash));
    keep("client_version", json!(record.client.version));
    keep(
        "transport",
        json!(record.source.as_ref().map(|source| &source.transport)),
    );
    keep("decision", json!(record.decision));
    if let Some(target) = &record.target {
        keep("target", json!({ "type": target.kind, "id": target.id }));
    }
    if !record.parameters.is_empty() {
        keep("parameters", json!(record.parameters));
    }
    rest
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Intent => "intent",
        Phase::Result => "result",
        Phase::Event => "event",
    }
}

fn product() -> Value {
    json!({ "name": PRODUCT, "vendor_name": VENDOR, "version": env!("CARGO_PKG_VERSION") })
}

fn actor(record: &Told) -> Value {
    let mut actor = json!({ "user": user(record) });
    if !record.client.name.is_empty() {
        actor["app_name"] = json!(record.client.name);
    }
    actor
}

/// The tag is the identity; the name stands beside it where it is no secret.
fn user(record: &Told) -> Value {
    let name = record.actor.id.as_deref();
    let (type_id, kind) = match name {
        Some("system") => (3, "System"),
        Some("uid:0") => (2, "Admin"),
        Some(name) if name.starts_with("uid:") => (1, "User"),
        Some(_) | None => (0, "Unknown"),
    };
    let mut user = json!({ "uid": record.actor.hash, "type_id": type_id, "type": kind });
    if let Some(name) = name {
        user["name"] = json!(name);
    }
    user
}

fn source(record: &Told) -> Value {
    let given = record.source.as_ref();
    let transport = given.map_or("local", |source| source.transport.as_str());
    let mut endpoint = json!({ "name": transport });
    let address = given.and_then(|source| source.address.as_deref());
    if let Some(address) = address.and_then(|address| address.parse::<IpAddr>().ok()) {
        endpoint["ip"] = json!(address);
    }
    endpoint
}

fn api_activity(event: &mut Map<String, Value>, record: &Told) {
    let mut response = json!({ "message": record.result });
    if let Some(reason) = &record.reason {
        response["error"] = json!(reason);
    }
    let mut api =
        json!({ "operation": record.action, "service": { "name": VENDOR }, "response": response });
    if let Some(operation) = &record.op {
        api["request"] = json!({ "uid": operation });
    }
    event.insert("api".to_owned(), api);
    event.insert("actor".to_owned(), actor(record));
    event.insert("src_endpoint".to_owned(), source(record));
    let mut resources = Vec::new();
    if let Some(session) = &record.session_id {
        resources.push(json!({ "type": "session", "uid": session }));
    }
    if let Some(execution) = record.word("execution") {
        resources.push(json!({ "type": "execution", "uid": execution }));
    }
    if !resources.is_empty() {
        event.insert("resources".to_owned(), Value::Array(resources));
    }
}

fn authentication(event: &mut Map<String, Value>, record: &Told) {
    let is_remote = record
        .source
        .as_ref()
        .is_some_and(|source| source.transport != "local");
    event.insert("user".to_owned(), user(record));
    event.insert("service".to_owned(), json!({ "name": VENDOR }));
    event.insert("src_endpoint".to_owned(), source(record));
    event.insert("is_remote".to_owned(), json!(is_remote));
}

fn entity_management(event: &mut Map<String, Value>, record: &Told) {
    let (kind, _) = record
        .action
        .split_once('.')
        .unwrap_or((&record.action, ""));
    let target = record.target.as_ref();
    let id = target
        .and_then(|target| target.id.as_deref())
        .or_else(|| record.word("key"));
    let mut entity = json!({ "type": kind, "name": id.unwrap_or(kind) });
    if let Some(id) = id {
        entity["uid"] = json!(id);
    }
    event.insert("entity".to_owned(), entity);
    event.insert("actor".to_owned(), actor(record));
    event.insert("src_endpoint".to_owned(), source(record));
}

fn network_activity(event: &mut Map<String, Value>, record: &Told) {
    let mut from = json!({ "name": "sandbox" });
    if let Some(session) = &record.session_id {
        from["uid"] = json!(session);
    }
    event.insert("src_endpoint".to_owned(), from);
    event.insert("dst_endpoint".to_owned(), destination(record));
    // To where the session has no way of its own.
    event.insert(
        "connection_info".to_owned(),
        json!({ "direction_id": 2, "direction": "Outbound" }),
    );
    let (up, down) = (record.number("bytes_up"), record.number("bytes_down"));
    if up.is_some() || down.is_some() {
        let (up, down) = (up.unwrap_or_default(), down.unwrap_or_default());
        let traffic =
            json!({ "bytes_out": up, "bytes_in": down, "bytes": up.saturating_add(down) });
        event.insert("traffic".to_owned(), traffic);
    }
    if let Some(count) = record.number("count").filter(|count| *count <= MAX_INTEGER) {
        event.insert("count".to_owned(), json!(count));
    }
}

/// A request to the provider names no host in the log: there is one provider.
fn destination(record: &Told) -> Value {
    let Some(host) = record.word("host") else {
        let name = if record.action == "egress.model" {
            "model provider"
        } else {
            "any"
        };
        return json!({ "svc_name": name });
    };
    let mut endpoint = match host.parse::<IpAddr>() {
        Ok(address) => json!({ "ip": address }),
        Err(_) if is_host_name(host) => json!({ "hostname": host }),
        Err(_) => json!({ "name": host }),
    };
    if let Some(port) = record
        .number("port")
        .filter(|port| *port <= u16::MAX.into())
    {
        endpoint["port"] = json!(port);
    }
    endpoint
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// For classes in which a machine does something: on which one, and for whom.
fn on_host(event: &mut Map<String, Value>, record: &Told, host: &str) {
    event.insert("actor".to_owned(), actor(record));
    event.insert(
        "device".to_owned(),
        json!({ "type_id": 1, "type": "Server", "hostname": host }),
    );
    if let Some(metadata) = event.get_mut("metadata") {
        metadata["profiles"] = json!(["host"]);
    }
}
