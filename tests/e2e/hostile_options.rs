//! A table of hostile `dockerOpts`, category by encoding, written on the line as no serializer would write them (C1): each
//! is refused with its place and rule, is on record, and changes nothing.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::support::{Machine, users};

const PROFILE: &str = include_str!("../../profiles/host-config.json");
/// Rows of each cell, at least.
const ROWS_OF_A_CELL: usize = 5;

/// What fields are about: every field of the profile's table stands in one of these.
const CATEGORIES: [(&str, &[&str]); 14] = [
    (
        "memory",
        &[
            "Memory",
            "MemorySwap",
            "MemoryReservation",
            "MemorySwappiness",
            "KernelMemory",
            "KernelMemoryTCP",
            "ShmSize",
            "OomKillDisable",
            "OomScoreAdj",
        ],
    ),
    (
        "cpu",
        &[
            "CpuQuota",
            "CpuPeriod",
            "NanoCpus",
            "CpuShares",
            "CpusetCpus",
            "CpusetMems",
            "CpuRealtimePeriod",
            "CpuRealtimeRuntime",
            "CpuCount",
            "CpuPercent",
        ],
    ),
    ("processes", &["PidsLimit", "Ulimits", "Init"]),
    (
        "input and output",
        &[
            "BlkioWeight",
            "BlkioWeightDevice",
            "BlkioDeviceReadBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceWriteIOps",
            "IOMaximumBandwidth",
            "IOMaximumIOps",
            "StorageOpt",
        ],
    ),
    ("capabilities", &["CapAdd", "CapDrop", "Privileged"]),
    (
        "kernel protections",
        &[
            "SecurityOpt",
            "Sysctls",
            "Runtime",
            "Isolation",
            "Annotations",
        ],
    ),
    (
        "file system",
        &["ReadonlyRootfs", "MaskedPaths", "ReadonlyPaths", "Tmpfs"],
    ),
    (
        "namespaces",
        &[
            "PidMode",
            "IpcMode",
            "UTSMode",
            "UsernsMode",
            "CgroupnsMode",
            "Cgroup",
            "CgroupParent",
            "GroupAdd",
        ],
    ),
    (
        "network",
        &[
            "NetworkMode",
            "Links",
            "ExtraHosts",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "PortBindings",
            "PublishAllPorts",
        ],
    ),
    (
        "mounts",
        &["Binds", "Mounts", "VolumesFrom", "VolumeDriver"],
    ),
    (
        "devices",
        &["Devices", "DeviceRequests", "DeviceCgroupRules"],
    ),
    (
        "life",
        &[
            "RestartPolicy",
            "AutoRemove",
            "LogConfig",
            "ContainerIDFile",
            "ConsoleSize",
        ],
    ),
    (
        "the program",
        &[
            "Image",
            "User",
            "Env",
            "Cmd",
            "Entrypoint",
            "Shell",
            "ArgsEscaped",
            "WorkingDir",
            "Healthcheck",
            "StopSignal",
            "StopTimeout",
            "OnBuild",
            "Tty",
            "OpenStdin",
            "StdinOnce",
            "AttachStdin",
            "AttachStdout",
            "AttachStderr",
        ],
    ),
    (
        "beside a HostConfig",
        &[
            "Labels",
            "Volumes",
            "ExposedPorts",
            "NetworkDisabled",
            "MacAddress",
            "Hostname",
            "Domainname",
            "HostConfig",
            "NetworkingConfig",
        ],
    ),
];

/// How a hostile value of a field is written: the whole of `dockerOpts`, once for each way.
type Encoding = fn(&str) -> Vec<String>;

const ENCODINGS: [(&str, Encoding); 8] = [
    ("case variants", case_variants),
    ("duplicate keys", duplicate_keys),
    ("colon forms", colon_forms),
    ("unicode", unicode),
    ("numbers as strings", numbers_as_strings),
    ("negative", negative),
    ("overflow", overflow),
    ("nesting", nesting),
];

fn case_variants(field: &str) -> Vec<String> {
    let swapped = field.chars().map(|letter| {
        if letter.is_ascii_uppercase() {
            letter.to_ascii_lowercase()
        } else {
            letter.to_ascii_uppercase()
        }
    });
    let (first, rest) = field.split_at(1);
    let (most, last) = field.split_at(field.len() - 1);
    [
        field.to_lowercase(),
        swapped.collect(),
        format!("{}{rest}", first.to_lowercase()),
        format!("{most}{}x", last.to_uppercase()),
        format!("{}_{}", first.to_lowercase(), rest.to_lowercase()),
    ]
    .map(|name| format!(r#"{{"{name}":null}}"#))
    .into()
}

fn duplicate_keys(field: &str) -> Vec<String> {
    let (first, rest) = field.split_at(1);
    let escaped = format!("\\u{:04x}{rest}", first.as_bytes()[0]);
    vec![
        format!(r#"{{"{field}":null,"{field}":true}}"#),
        format!(r#"{{"{field}":true,"{field}":null}}"#),
        format!(r#"{{"{field}":null,"{escaped}":null}}"#),
        format!(r#"{{"{field}":null,"Privileged":false,"{field}":null}}"#),
        format!(r#"{{"{field}":null,"{}":null}}"#, field.to_lowercase()),
    ]
}

fn each(field: &str, values: &[&str]) -> Vec<String> {
    let row = |value: &&str| format!(r#"{{"{field}":{value}}}"#);
    values.iter().map(row).collect()
}

fn colon_forms(field: &str) -> Vec<String> {
    each(
        field,
        &[
            r#""container:other""#,
            r#"["seccomp:unconfined"]"#,
            r#"["/:/host:rw"]"#,
            r#""2g:4g""#,
            r#"{"no-new-privileges:false":":"}"#,
        ],
    )
}

fn unicode(field: &str) -> Vec<String> {
    let (first, rest) = field.split_at(1);
    let wide = char::from_u32(u32::from(first.as_bytes()[0]) - 0x20 + 0xff00).expect("a letter");
    [
        format!("{first}\u{200b}{rest}"),
        format!("\u{202e}{field}"),
        format!("{wide}{rest}"),
        format!("{first}\u{301}{rest}"),
        format!("{field}\\u0000"),
    ]
    .map(|name| format!(r#"{{"{name}":null}}"#))
    .into()
}

fn numbers_as_strings(field: &str) -> Vec<String> {
    each(
        field,
        &[
            r#""1e9""#,
            r#""0x10""#,
            r#"" 50000""#,
            r#""1.5g""#,
            r#""٢""#,
        ],
    )
}

fn negative(field: &str) -> Vec<String> {
    each(
        field,
        &["-1", "-9223372036854775808", "-0.5", r#""-2g""#, "[-1]"],
    )
}

fn overflow(field: &str) -> Vec<String> {
    each(
        field,
        &[
            "9223372036854775808",
            "1e400",
            "99999999999999999999999999",
            r#""99999999999999t""#,
            "1.7976931348623157e308",
        ],
    )
}

fn nesting(field: &str) -> Vec<String> {
    let lists = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels: usize| {
        let inner = format!("{{\"{field}\":").repeat(levels);
        format!("{inner}null{}", "}".repeat(levels))
    };
    let values = [
        lists(7),
        lists(200),
        lists(20_000),
        objects(7),
        objects(200),
    ];
    each(field, &values.each_ref().map(String::as_str))
}

/// The rows of one cell: each field of the category at least once, and each way of the encoding.
fn cell(fields: &[&str], encoding: Encoding) -> Vec<String> {
    let rows = fields.len().max(ROWS_OF_A_CELL);
    (0..rows)
        .map(|row| {
            let ways = encoding(fields[row % fields.len()]);
            ways[row % ways.len()].clone()
        })
        .collect()
}

fn table() -> BTreeMap<(&'static str, &'static str), Vec<String>> {
    let cells = CATEGORIES.iter().flat_map(|(category, fields)| {
        let of = |(name, encoding): &(&'static str, Encoding)| {
            ((*category, *name), cell(fields, *encoding))
        };
        ENCODINGS.iter().map(of).collect::<Vec<_>>()
    });
    cells.collect()
}

#[test]
fn every_cell_has_its_rows_and_every_field_its_cell() {
    let table = table();
    assert_eq!(table.len(), CATEGORIES.len() * ENCODINGS.len());
    for (cell, rows) in &table {
        let mut different = rows.clone();
        different.sort_unstable();
        different.dedup();
        assert!(different.len() >= ROWS_OF_A_CELL, "{cell:?}: {rows:?}");
    }
    let profile: Value = serde_json::from_str(PROFILE).expect("JSON");
    let mut known: Vec<&str> = ["fields", "config"]
        .iter()
        .flat_map(|part| profile[part].as_array().expect("a list"))
        .map(|row| row["field"].as_str().expect("a name"))
        .collect();
    let mut covered: Vec<&str> = CATEGORIES
        .iter()
        .flat_map(|(_, fields)| fields.iter().copied())
        .collect();
    known.sort_unstable();
    covered.sort_unstable();
    assert_eq!(covered, known);
}

#[test]
fn every_hostile_option_is_refused_with_its_rule_on_record_and_changes_nothing() {
    let mut machine = Machine::new(users()[0]);
    // They are more than a caller may send in a minute.
    machine.set("CLAUDE_CODE_MCP_RATE_CREATES_PER_MINUTE", "0");
    let mut client = machine.client();
    // The control: the same way of writing, with options that narrow.
    let project = json!(machine.project);
    let arguments =
        |options: &str| format!(r#"{{"projectPath":{project},"dockerOpts":{options}}}"#);
    let narrowed = client
        .tool_raw(
            "create_session",
            &arguments(r#"{"Privileged":false,"ShmSize":"1m","Ulimits":[{"Name":"nofile","Soft":100,"Hard":200}]}"#),
        )
        .expect("a session");
    assert_eq!(
        narrowed["dockerOptsInForce"]["Ulimits"][0],
        json!({ "Name": "nofile", "Soft": 100, "Hard": 100 }),
        "{narrowed:#}"
    );
    let session = narrowed["sessionId"].as_str().expect("an id").to_owned();
    assert_eq!(client.output(&session, "ulimit -n"), "100");
    client.destroy(&session);

    let before = machine.census();
    let on_record = refusals(&machine);
    let mut rows = 0;
    for (cell, options) in table() {
        for options in options {
            let shown: String = options.chars().take(200).collect();
            let refused = match client.tool_raw("create_session", &arguments(&options)) {
                Ok(created) => panic!("{cell:?} {shown} is obeyed: {created:#}"),
                Err(refused) => refused,
            };
            assert_refusal(&refused, &format!("{cell:?} {shown}"));
            rows += 1;
        }
    }
    assert!(rows >= 200, "{rows}");
    assert_eq!(machine.census(), before);
    assert_eq!(refusals(&machine) - on_record, rows, "each is on record");
}

fn assert_refusal(refused: &Value, context: &str) {
    let code = refused["code"].as_str().unwrap_or_default();
    assert!(
        ["policy_denied", "invalid_argument"].contains(&code),
        "{context}: {refused:#}"
    );
    let text = |name: &str| refused[name].as_str().unwrap_or_default();
    assert!(
        text("field").starts_with("dockerOpts"),
        "{context}: {refused:#}"
    );
    let names_a_rule = ["rule H", "rule C", "rule F"]
        .iter()
        .any(|rule| text("message").contains(rule));
    assert!(names_a_rule, "{context}: {refused:#}");
    assert!(!text("hint").is_empty(), "{context}: {refused:#}");
    let told = format!("{}{}{}", text("message"), text("hint"), text("field"));
    let unseen = |letter: char| letter.is_control() || ('\u{200b}'..='\u{202e}').contains(&letter);
    assert!(
        told.len() < 1_500 && !told.contains(unseen),
        "{context}: {refused:#}"
    );
}

/// Refused creations in the audit log.
fn refusals(machine: &Machine) -> usize {
    let log = fs::read_to_string(machine.audit_log()).expect("the log");
    let refused = |line: &&str| {
        line.contains("\"session.create\"")
            && (line.contains("\"policy_denied\"") || line.contains("\"invalid_argument\""))
    };
    log.lines().filter(refused).count()
}
