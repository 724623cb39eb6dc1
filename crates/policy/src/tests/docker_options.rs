//! C1: `dockerOpts` only narrows, and says by which rule it refuses.

use model::{CreateSession, DockerOptions, OptionValue as V, Reason, Refusal};

use super::fixture::{PROJECT, alice, create, facts, policy};
use crate::CreatePermit;

mod properties;

fn text(text: &str) -> V {
    V::Text(text.to_owned())
}

fn list(values: impl IntoIterator<Item = V>) -> V {
    V::List(values.into_iter().collect())
}

fn object<const N: usize>(entries: [(&str, V); N]) -> V {
    V::Object(entries.map(|(name, value)| (name.to_owned(), value)).into())
}

fn admit(options: Vec<(String, V)>) -> Result<CreatePermit, Refusal> {
    let request = CreateSession {
        docker_options: DockerOptions(options),
        ..create(PROJECT)
    };
    let policy = policy();
    let facts = facts(&policy, PROJECT, &[]);
    policy.admit_create(&alice(), &request, facts)
}

fn one(name: &str, value: V) -> Result<CreatePermit, Refusal> {
    admit(vec![(name.to_owned(), value)])
}

/// The object of the guide, word for word.
fn guide() -> Vec<(String, V)> {
    [
        ("SecurityOpt", list([text("no-new-privileges")])),
        ("CapDrop", list([text("ALL")])),
        ("ReadonlyRootfs", V::Boolean(true)),
        ("Memory", text("2g")),
        ("CpuQuota", V::Integer(50_000)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[test]
fn the_guides_own_options_narrow_memory_and_cpu() {
    let parts = admit(guide()).unwrap().into_parts();
    let memory = parts.limits.memory_bytes;
    assert_eq!((memory.value, memory.named), (2 << 30, true));
    let cpu = parts.limits.cpu_millis;
    assert_eq!((cpu.value, cpu.named), (500, true));
    assert!(
        !parts.limits.pids.named,
        "what is not named stays the profile's"
    );
}

#[test]
fn sizes_are_read_as_the_engines_command_line_reads_them() {
    for (written, bytes) in [
        (text("1073741824"), 1_u64 << 30),
        (text("64m"), 64 << 20),
        (text("64M"), 64 << 20),
        (text("1g"), 1 << 30),
        (text("1GiB"), 1 << 30),
        (text("65536k"), 64 << 20),
        (V::Integer(1 << 30), 1 << 30),
    ] {
        let parts = one("Memory", written.clone()).unwrap().into_parts();
        assert_eq!(parts.limits.memory_bytes.value, bytes, "{written:?}");
    }
}

#[test]
fn the_least_of_all_that_is_named_holds() {
    let ulimit = |name: &str, soft, hard| {
        object([
            ("Name", text(name)),
            ("Soft", V::Integer(soft)),
            ("Hard", V::Integer(hard)),
        ])
    };
    let parts = admit(vec![
        ("Memory".into(), text("900t")),
        ("PidsLimit".into(), V::Integer(100)),
        ("CpuQuota".into(), V::Integer(25_000)),
        ("CpuPeriod".into(), V::Integer(50_000)),
        (
            "Ulimits".into(),
            list([ulimit("nofile", 100, 4_096), ulimit("nofile", 90, 90)]),
        ),
    ])
    .unwrap()
    .into_parts();
    assert_eq!(
        parts.limits.memory_bytes.value,
        2 << 30,
        "never above the profile's"
    );
    assert_eq!(parts.limits.pids.value, 100);
    assert_eq!(parts.limits.cpu_millis.value, 500);
    assert_eq!(parts.limits.open_files.value, 90);
    let nano = one("NanoCpus", V::Integer(1_500_000_000))
        .unwrap()
        .into_parts();
    assert_eq!(nano.limits.cpu_millis.value, 1_500);
}

/// Fields that narrow something, or say what holds anyway. Every other one is closed, whatever the table says.
const OPEN: [&str; 14] = [
    "Memory",
    "MemorySwap",
    "CpuQuota",
    "CpuPeriod",
    "NanoCpus",
    "PidsLimit",
    "Ulimits",
    "CapDrop",
    "ReadonlyRootfs",
    "SecurityOpt",
    "NetworkMode",
    "Init",
    "Tmpfs",
    "ShmSize",
];
/// Fields whose empty list is a wish.
const NEVER: [&str; 2] = ["MaskedPaths", "ReadonlyPaths"];

/// Fields that accept nothing, with the rule that says so.
fn closed_fields() -> Vec<(String, String, bool)> {
    let data: serde_json::Value =
        serde_json::from_str(include_str!("../../../../profiles/host-config.json")).unwrap();
    ["fields", "config"]
        .iter()
        .flat_map(|part| data[part].as_array().unwrap())
        .map(|field| ["field", "rule"].map(|name| field[name].as_str().unwrap().to_owned()))
        .filter(|[field, _]| !OPEN.contains(&field.as_str()))
        .map(|[field, rule]| {
            let never = NEVER.contains(&field.as_str()) || rule.starts_with('C');
            (field, rule, never)
        })
        .collect()
}

#[test]
fn what_would_widen_is_refused_by_its_rule_in_whatever_form_it_comes() {
    let hostile = [
        V::Boolean(true),
        V::Integer(1),
        V::Integer(-1),
        text("host"),
        text("true"),
        text("0"),
        text("container:other"),
        list([text("ALL")]),
        list([text("/:/host")]),
        list([V::Null]),
        object([("x", text("y"))]),
        object([("Type", text("bind")), ("Source", text("/"))]),
    ];
    let fields = closed_fields();
    assert_eq!(
        fields.len(),
        57 + 27,
        "a field came or went: say here what it accepts"
    );
    for (field, rule, absent) in &fields {
        for value in &hostile {
            let refused = one(field, value.clone()).unwrap_err();
            assert_eq!(refused.reason, Reason::PolicyDenied, "{field} {value:?}");
            assert_eq!(
                refused.field.as_deref(),
                Some(format!("dockerOpts.{field}").as_str())
            );
            assert!(
                refused.message.contains(rule),
                "{field}: {}",
                refused.message
            );
        }
        for empty in [
            V::Boolean(false),
            V::Integer(0),
            text(""),
            list([]),
            object([]),
        ] {
            assert_eq!(
                one(field, empty.clone()).is_err(),
                *absent,
                "{field} {empty:?}"
            );
        }
        assert!(one(field, V::Null).is_ok(), "{field}: null is not given");
    }
}

#[test]
fn protections_cannot_be_taken_back() {
    let options = |values: &[&str]| list(values.iter().map(|value| text(value)));
    for (field, value) in [
        ("ReadonlyRootfs", V::Boolean(false)),
        ("ReadonlyRootfs", text("true")),
        ("ReadonlyRootfs", V::Integer(1)),
        ("ReadonlyRootfs", list([V::Boolean(true)])),
        ("NetworkMode", text("host")),
        ("NetworkMode", text("bridge")),
        ("NetworkMode", text("None")),
        ("NetworkMode", text("none ")),
        ("NetworkMode", text("container:x")),
        ("NetworkMode", V::Boolean(false)),
        ("Init", text("true")),
        ("Init", V::Integer(1)),
        ("SecurityOpt", options(&["seccomp=unconfined"])),
        ("SecurityOpt", options(&["seccomp:unconfined"])),
        ("SecurityOpt", options(&["no-new-privileges:false"])),
        ("SecurityOpt", options(&["no-new-privileges=false"])),
        ("SecurityOpt", options(&["NO-NEW-PRIVILEGES"])),
        (
            "SecurityOpt",
            options(&["no-new-privileges", "apparmor=unconfined"]),
        ),
        ("SecurityOpt", options(&["label=disable"])),
        ("SecurityOpt", options(&["systempaths=unconfined"])),
        ("SecurityOpt", options(&["no\u{2010}new-privileges"])),
        ("SecurityOpt", options(&[""])),
    ] {
        let refused = one(field, value.clone()).unwrap_err();
        assert_eq!(refused.reason, Reason::PolicyDenied, "{field} {value:?}");
        assert!(refused.message.contains("rule H"), "{}", refused.message);
    }
}

#[test]
fn what_is_no_value_of_its_option_is_refused_with_its_place() {
    let sizes = [
        "",
        " ",
        "2gg",
        "-1",
        "+1",
        "1.5g",
        "0x10",
        " 2g",
        "2g ",
        "2 g",
        "٢g",
        "２g",
        "1e9",
        "0",
        "0g",
        "99999999999999999999",
        "9999999999t",
        "g",
        "2p",
        "2\u{0}g",
        "2g\n",
        "unlimited",
        "null",
        "2мb",
    ];
    let numbers = [
        V::Integer(0),
        V::Integer(-1),
        V::Integer(i64::MIN),
        V::Boolean(true),
        text("1"),
        text("50000"),
        list([]),
        list([V::Integer(5)]),
        object([]),
        text(""),
    ];
    let mut rows: Vec<(&str, V)> = Vec::new();
    for field in ["Memory", "MemorySwap"] {
        rows.extend(sizes.iter().map(|size| (field, text(size))));
        rows.extend(
            numbers
                .iter()
                .filter(|value| !matches!(value, V::Text(_)))
                .map(|value| (field, value.clone())),
        );
    }
    for field in ["CpuQuota", "CpuPeriod", "NanoCpus", "PidsLimit"] {
        rows.extend(numbers.iter().map(|value| (field, value.clone())));
    }
    rows.extend([
        ("CpuQuota", V::Integer(999)),
        ("CpuPeriod", V::Integer(999)),
        ("CpuPeriod", V::Integer(1_000_001)),
    ]);
    for field in ["CapDrop", "SecurityOpt", "Ulimits"] {
        rows.extend([
            (field, text("ALL")),
            (field, V::Boolean(true)),
            (field, V::Integer(1)),
            (field, list([V::Integer(1)])),
            (field, list([V::Null])),
            (field, list(std::iter::repeat_n(text("ALL"), 65))),
        ]);
    }
    rows.extend(
        [
            "all",
            "NET RAW",
            "",
            "NET_RAW\n",
            "ＡＬＬ",
            "A;B",
            "NET",
            "CAP_",
            "CAP_ALL",
            "cap_net_raw",
            "CAP_CAP_NET_RAW",
            "NO_SUCH",
        ]
        .map(|name| ("CapDrop", list([text(name)]))),
    );
    let full = |name, soft, hard| object([("Name", name), ("Soft", soft), ("Hard", hard)]);
    rows.extend([
        ("Ulimits", list([object([("name", text("nofile"))])])),
        (
            "Ulimits",
            list([full(text("nofile"), V::Integer(9), V::Integer(8))]),
        ),
        (
            "Ulimits",
            list([full(text("nofile"), V::Integer(-1), V::Integer(-1))]),
        ),
        (
            "Ulimits",
            list([full(V::Integer(7), V::Integer(1), V::Integer(1))]),
        ),
        (
            "Ulimits",
            list([object([
                ("Name", text("nofile")),
                ("Soft", V::Integer(1)),
                ("Hard", V::Integer(1)),
                ("More", V::Null),
            ])]),
        ),
    ]);
    assert!(rows.len() > 100, "{}", rows.len());
    for (field, value) in rows {
        let refused = one(field, value.clone()).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument, "{field} {value:?}");
        assert!(refused.message.contains("(rule H"), "{}", refused.message);
        let place = refused.field.unwrap_or_default();
        assert!(place.starts_with(&format!("dockerOpts.{field}")), "{place}");
    }
    for name in ["core", "memlock", "NOFILE", "rtprio", "as", "stack", ""] {
        let refused = one(
            "Ulimits",
            list([full(text(name), V::Integer(1), V::Integer(1))]),
        )
        .unwrap_err();
        assert_eq!(refused.reason, Reason::PolicyDenied, "{name}");
    }
}

#[test]
fn contradictions_are_refused() {
    for options in [
        vec![("Memory", text("1g")), ("MemorySwap", text("2g"))],
        vec![("MemorySwap", text("1g"))],
        vec![
            ("NanoCpus", V::Integer(500_000_000)),
            ("CpuQuota", V::Integer(50_000)),
        ],
        vec![("CpuPeriod", V::Integer(100_000))],
        vec![("Memory", text("1g")), ("Memory", text("2g"))],
    ] {
        let options: Vec<_> = options
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let refused = admit(options.clone()).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument, "{options:?}");
        assert!(refused.message.contains("(rule "), "{}", refused.message);
    }
    let same = vec![
        ("Memory".to_owned(), text("1g")),
        ("MemorySwap".to_owned(), text("1024m")),
    ];
    assert!(admit(same).is_ok(), "the control");
}

#[test]
fn names_are_the_engines_own_and_nothing_else() {
    for (name, _) in guide() {
        let twisted = [
            name.to_lowercase(),
            name.to_uppercase(),
            format!(" {name}"),
            format!("{name} "),
            format!("{name}\u{0}"),
            format!("{name}\u{200b}"),
            format!("HostConfig.{name}"),
            format!("\u{feff}{name}"),
            name.replace('e', "е"),
            name.replacen(|c: char| c.is_ascii_uppercase(), "", 1),
        ];
        for twisted in twisted.iter().filter(|twisted| **twisted != name) {
            let refused = one(twisted, V::Null).unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidArgument, "{twisted:?}");
            assert!(
                refused.message.contains("(rule F01)"),
                "{}",
                refused.message
            );
        }
    }
    for name in ["hostConfig", "image", "__proto__", "", "*"] {
        let refused = one(name, V::Null).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument, "{name}");
        assert!(
            refused.message.contains("(rule F01)"),
            "{}",
            refused.message
        );
    }
    let hint = one("memory", text("2g")).unwrap_err().hint;
    assert!(hint.contains("`Memory`"), "{hint}");
}

#[test]
fn names_are_repeated_cut_and_without_what_acts_unseen() {
    let long = "x".repeat(1 << 20);
    for name in ["\u{1b}[31m", "a\nb", "\u{202e}yromeM", &long, "a\u{200b}b"] {
        let places = [
            one(name, V::Null).unwrap_err(),
            one("Tmpfs", object([(name, text("size=1m"))])).unwrap_err(),
            one(
                "Ulimits",
                list([object([(name, V::Null), (name, V::Null)])]),
            )
            .unwrap_err(),
        ];
        for refused in places {
            let told = format!("{}{}{:?}", refused.message, refused.hint, refused.field);
            assert!(told.len() < 1_500, "{}", told.len());
            assert!(
                !told.contains(['\u{1b}', '\n', '\u{202e}', '\u{200b}']),
                "{told:?}"
            );
        }
    }
}

#[test]
fn what_the_door_could_not_read_is_refused_at_its_place_by_the_rule_of_its_form() {
    use model::Unreadable as Why;
    for (why, rule) in [
        (Why::NoWholeNumber, "F03"),
        (Why::TooDeep, "F04"),
        (Why::TooMany, "F05"),
        (Why::NoObject, "F06"),
        (Why::NoJson, "F07"),
        (Why::GivenTwice, "F02"),
    ] {
        let value = || V::Unreadable(why);
        for (options, place) in [
            (vec![("Memory", value())], "dockerOpts.Memory"),
            (vec![("Privileged", value())], "dockerOpts.Privileged"),
            (vec![("Init", list([value()]))], "dockerOpts.Init[0]"),
            (
                vec![("Ulimits", list([object([("Soft", value())])]))],
                "dockerOpts.Ulimits[0].Soft",
            ),
            (vec![("", value())], "dockerOpts"),
        ] {
            let options = options
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value));
            let refused = admit(options.collect()).unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidArgument, "{why:?}");
            assert_eq!(refused.field.as_deref(), Some(place), "{why:?}");
            assert!(
                refused.message.contains(&format!("(rule {rule})")),
                "{}",
                refused.message
            );
        }
    }
}

#[test]
fn names_within_an_option_are_given_once() {
    let twice = object([("/tmp", text("size=1m")), ("/tmp", text("size=2m"))]);
    let refused = one("Tmpfs", twice).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("dockerOpts.Tmpfs./tmp"));
    assert!(
        refused.message.contains("(rule F02)"),
        "{}",
        refused.message
    );
    let control = object([("/tmp", text("size=64m")), ("/run", text("size=64m"))]);
    assert!(one("Tmpfs", control).is_ok());
}

#[test]
fn what_no_session_works_with_is_refused_in_the_words_of_the_option() {
    for (field, value, place, rule) in [
        ("Memory", V::Integer(1), "dockerOpts.Memory", "H01"),
        ("Memory", text("15m"), "dockerOpts.Memory", "H01"),
        ("NanoCpus", V::Integer(1), "dockerOpts.NanoCpus", "H05"),
        ("PidsLimit", V::Integer(7), "dockerOpts.PidsLimit", "H06"),
        ("ShmSize", text("63k"), "dockerOpts.ShmSize", "H71"),
        (
            "Tmpfs",
            object([("/tmp", text("size=1k"))]),
            "dockerOpts.Tmpfs./tmp",
            "H33",
        ),
        (
            "Ulimits",
            list([object([
                ("Name", text("nproc")),
                ("Soft", V::Integer(1)),
                ("Hard", V::Integer(1)),
            ])]),
            "dockerOpts.Ulimits[0]",
            "H07",
        ),
    ] {
        let refused = one(field, value).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument, "{field}");
        assert_eq!(refused.field.as_deref(), Some(place));
        assert!(
            refused.message.contains(&format!("(rule {rule})")),
            "{}",
            refused.message
        );
        assert!(
            refused.hint.starts_with("Ask for at least "),
            "{}",
            refused.hint
        );
    }
    let slow = vec![
        ("CpuQuota".to_owned(), V::Integer(1_000)),
        ("CpuPeriod".to_owned(), V::Integer(1_000_000)),
    ];
    let refused = admit(slow).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("dockerOpts.CpuQuota"));
}

#[test]
fn capabilities_are_the_kernels_with_or_without_their_prefix() {
    for name in [
        "ALL",
        "NET_RAW",
        "CAP_NET_RAW",
        "CAP_CHECKPOINT_RESTORE",
        "CHOWN",
    ] {
        assert!(one("CapDrop", list([text(name)])).is_ok(), "{name}");
    }
}

fn ulimit(name: &str, soft: i64, hard: i64) -> V {
    object([
        ("Name", text(name)),
        ("Soft", V::Integer(soft)),
        ("Hard", V::Integer(hard)),
    ])
}

#[test]
fn limits_of_a_process_narrow_or_say_what_holds_anyway() {
    let parts = one(
        "Ulimits",
        list([
            ulimit("nofile", 100, 200),
            ulimit("nproc", 50, 50),
            ulimit("fsize", 1 << 40, 1 << 40),
            ulimit("core", 0, 0),
            ulimit("rtprio", 0, 0),
        ]),
    )
    .unwrap()
    .into_parts();
    assert_eq!(parts.limits.open_files.value, 100);
    assert_eq!(parts.limits.pids.value, 50);
    assert_eq!(
        parts.limits.file_bytes.value,
        4 << 30,
        "never above the profile's"
    );
}

#[test]
fn temporary_places_shrink_together_and_get_no_other_options() {
    let temporary = |field, value| {
        let parts = one(field, value).unwrap().into_parts();
        parts.limits.temporary_bytes.value
    };
    let places = |place, options| object([(place, text(options))]);
    for (field, value, bytes) in [
        ("Tmpfs", places("/tmp", "size=64m"), 128 << 20),
        ("Tmpfs", places("/run", "rw,nosuid,nodev,size=1m"), 16 << 20),
        ("Tmpfs", places("/home/agent", "size=6m"), 16 << 20),
        ("Tmpfs", places("/tmp", "size=2m,size=1m"), 2 << 20),
        ("Tmpfs", places("/tmp", ""), 512 << 20),
        ("Tmpfs", places("/tmp", "size=900g"), 512 << 20),
        ("Tmpfs", object([]), 512 << 20),
        ("ShmSize", V::Integer(1 << 20), 16 << 20),
        ("ShmSize", V::Integer(64 << 20), 512 << 20),
        ("ShmSize", V::Integer(0), 512 << 20),
    ] {
        assert_eq!(temporary(field, value.clone()), bytes, "{field} {value:?}");
    }
    for (place, options) in [
        ("/tmp", "exec"),
        ("/tmp", "suid"),
        ("/tmp", "dev"),
        ("/tmp", "noexec,size=1m"),
        ("/tmp", "mode=1777"),
        ("/tmp", "size=1m, nosuid"),
        ("/tmp", "SIZE=1m"),
        ("/tmp", "size=1m,"),
        ("/tmp/", "size=1m"),
        ("/workspace", "size=1m"),
        ("/etc", ""),
        ("/tmp/../etc", "size=1m"),
        ("/TMP", "size=1m"),
    ] {
        let refused = one("Tmpfs", places(place, options)).unwrap_err();
        assert_eq!(refused.reason, Reason::PolicyDenied, "{place} {options}");
        assert!(refused.message.contains("rule H33"), "{}", refused.message);
    }
    for value in [
        text("/tmp"),
        list([text("/tmp")]),
        V::Boolean(true),
        places("/tmp", "size=0"),
        places("/tmp", "size=50%"),
        places("/tmp", "size=-1"),
        object([("/tmp", V::Integer(1))]),
        object([("/tmp", V::Null)]),
    ] {
        let refused = one("Tmpfs", value.clone()).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument, "{value:?}");
        assert!(refused.message.contains("rule H33"), "{}", refused.message);
    }
    for value in [
        V::Integer(-1),
        text("x"),
        V::Boolean(true),
        list([V::Integer(1)]),
    ] {
        assert!(one("ShmSize", value.clone()).is_err(), "{value:?}");
    }
}
