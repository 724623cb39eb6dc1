//! C2: the tools that people use, inside, with rules for what they need, against servers of the laboratory; and what they say
//! when they may not. Nothing is configured in them but where their packages are and whom they trust: the proxy they find by
//! the variables of the session.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    place::Place,
    probe::{Ran, Sandbox},
    support::{
        Machine, User,
        engine::ask,
        image::make_image_from,
        lab::{Event, Lab, content::WORD, is_inside},
        skip,
        world::{Apart, OwnEngine},
    },
    way_out::{DEFAULT, arrived, denied},
};

/// All that the tools need.
const RULES: &str = "*.example.com:80,443";
/// Nothing that they need.
const OTHER_RULES: &str = "elsewhere.example.net:80,443";
/// The tests' image with these tools.
const IMAGE: &str = "claude-code-mcp-test-tools:1";
/// Copies them into it, with what they load.
const COPY: &str = r"
programs='/usr/bin/curl /usr/bin/git /usr/bin/python3 /usr/bin/apt-get /usr/bin/dpkg /usr/lib/apt/methods/http /usr/lib/apt/methods/store
    /usr/lib/git-core/git-remote-https'
cp -L --parents $programs . ; ln -s /usr/bin/git usr/lib/git-core/git
ldd $programs /usr/lib/python3.11/lib-dynload/*.so 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*' | sort -u | xargs cp -L --parents -t .
cp -r --parents /usr/lib/python3.11 /usr/lib/python3/dist-packages/pip /usr/share/dpkg . ; find usr/lib/python3* -name __pycache__ -exec rm -r {} +
rm -rf usr/lib/python3.11/{test,config-*,lib2to3,idlelib,ensurepip,pydoc_data}; mkdir -p etc/apt/apt.conf.d var/lib/dpkg; touch var/lib/dpkg/status etc/ssl/certs/ca-certificates.crt
# Nothing twice: an engine takes no such archive.
tar --list --file $archive > $archive.has; find . ! -type d -printf '%P\n' | grep -Fxf $archive.has | xargs rm; rm $archive.has";

/// A tool at work.
struct Tool {
    name: &'static str,
    /// What has to be there.
    program: &'static str,
    line: &'static str,
    /// What it got then stands there, or is said.
    check: &'static str,
    /// What it says when it may not.
    words: &'static [&'static str],
    host: &'static str,
}

const TOOLS: [Tool; 6] = [
    Tool {
        name: "curl",
        program: "/usr/bin/curl",
        line: "curl -sS --cacert ca.pem -o got https://www.example.com/page",
        check: "grep -o 'reached www.example.com' got",
        words: &["CONNECT tunnel failed", "403"],
        host: "www.example.com",
    },
    Tool {
        name: "curl in clear",
        program: "/usr/bin/curl",
        line: "curl -sS --fail-with-body http://www.example.com/page > got || { cat got >&2; exit 1; }",
        check: "grep -o 'reached www.example.com' got",
        words: &[
            "egress denied (host_not_allowed)",
            "no rule of this session names www.example.com",
        ],
        host: "www.example.com",
    },
    Tool {
        name: "git",
        program: "/usr/bin/git",
        line: "git -c http.sslCAInfo=$PWD/ca.pem clone -q https://git.example.com/project.git cloned",
        check: "cat cloned/README",
        words: &["unable to access", "CONNECT tunnel failed", "403"],
        host: "git.example.com",
    },
    Tool {
        name: "pip",
        program: "/usr/lib/python3/dist-packages/pip",
        line: "/usr/bin/python3 -m pip install --disable-pip-version-check --no-cache-dir --retries 1 --cert ca.pem \
            --index-url https://pypi.example.com/simple/ --target packages labpackage",
        check: "cat packages/labpackage.py",
        words: &["Tunnel connection failed: 403 Forbidden (egress denied: host_not_allowed)"],
        host: "pypi.example.com",
    },
    Tool {
        name: "cargo",
        program: "/opt/toolchain/bin/cargo",
        line: "cd crate && PATH=/opt/toolchain/bin:$PATH CARGO_HOME=$PWD/home CARGO_HTTP_CAINFO=$PWD/../ca.pem CARGO_NET_RETRY=0 cargo fetch -q",
        check: "cat crate/home/registry/src/*/labcrate-1.0.0/src/lib.rs",
        words: &["CONNECT tunnel failed", "403"],
        host: "crates.example.com",
    },
    Tool {
        name: "apt-get",
        program: "/usr/bin/apt-get",
        line: "mkdir -p apt/lists/partial apt/cache/archives/partial && touch apt/status && \
            echo 'deb [trusted=yes] http://deb.example.com/debian lab main' > apt/sources.list && \
            apt-get update -q -o Dir::Etc::sourcelist=$PWD/apt/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$PWD/apt/lists \
            -o Dir::State::status=$PWD/apt/status -o Dir::Cache=$PWD/apt/cache -o APT::Sandbox::User=agent -o Acquire::Retries=0 \
            -o APT::Update::Error-Mode=any -o Dir::Etc::parts=/dev/null -o Dir::Etc::main=/dev/null",
        check: "grep -h Description apt/lists/deb.example.com*Packages",
        words: &[
            "deb.example.com",
            "403",
            "Forbidden (egress denied: host_not_allowed)",
        ],
        host: "deb.example.com",
    },
];

/// A project, and what the tools find in it.
fn machine(place: Place, lab: &Lab, rules: &str) -> Machine {
    let mut machine = match place {
        Place::NativeAsOrdinary => Machine::new(User::Ordinary),
        Place::NativeAsRoot | Place::Docker | Place::DockerGvisor => Machine::new(User::Root),
    };
    machine.set(DEFAULT, rules).set(
        "CLAUDE_CODE_MCP_PROJECT_ROOTS",
        &lab.directory().display().to_string(),
    );
    machine.write(
        "ca.pem",
        &fs::read_to_string(lab.authority()).expect("the authority"),
    );
    machine.write("crate/src/lib.rs", "");
    machine.write(
        "crate/Cargo.toml",
        "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
         [dependencies]\nlabcrate = { version = \"1\", registry = \"lab\" }\n[workspace]\n",
    );
    machine.write(
        "crate/.cargo/config.toml",
        "[registries.lab]\nindex = \"sparse+https://crates.example.com/index/\"\n",
    );
    machine
}

/// The toolchain that builds this, without the compiled libraries: cargo asks its compiler what it is.
fn toolchain(lab: &Lab) -> Option<std::path::PathBuf> {
    let asked = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let root = std::path::PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
    let copy = lab.directory().join("toolchain");
    let script = "mkdir -p $1/bin $1/lib && cp $0/bin/cargo $0/bin/rustc $1/bin && cp $0/lib/*.so* $1/lib && chmod 755 $1/.. $1";
    let copied = Command::new("sh")
        .args(["-c", script])
        .arg(root)
        .arg(&copy)
        .status()
        .ok()?;
    copied.success().then_some(copy)
}

/// A place where sessions have the tools.
pub(crate) struct Toolbox<'a> {
    lab: &'a Lab,
    place: Place,
    engine: Option<&'a Path>,
    mounts: &'a [Value],
}

impl Toolbox<'_> {
    /// A session by these rules, these arguments of `create_session` and these further settings of the server.
    pub(crate) fn session(
        &self,
        rules: &str,
        mut arguments: Value,
        set: impl Fn(&mut Machine),
    ) -> Sandbox {
        let mut machine = machine(self.place, self.lab, rules);
        if let Some(socket) = self.engine {
            machine
                .use_engine(socket)
                .set("DEFAULT_CLAUDE_IMAGE", IMAGE);
        }
        set(&mut machine);
        arguments["mcpMounts"] = json!(self.mounts);
        Sandbox::on(self.place, machine, arguments)
    }
}

/// At each place.
pub(crate) fn each_toolbox(lab: &Lab, act: impl Fn(&Toolbox)) {
    let toolchain = toolchain(lab);
    if toolchain.is_none() {
        skip("cargo", "real tools inside: no toolchain");
    }
    let mounts: Vec<_> = toolchain
        .iter()
        .map(|path| json!({ "hostPath": path, "containerPath": "/opt/toolchain" }))
        .collect();
    let at = |place: Place, engine: Option<&Path>| {
        eprintln!("at {place:?}");
        act(&Toolbox {
            lab,
            place,
            engine,
            mounts: &mounts,
        });
    };
    at(Place::NativeAsRoot, None);
    at(Place::NativeAsOrdinary, None);
    if !Path::new("/usr/sbin/dockerd").exists() {
        return skip("docker", "real tools inside: no dockerd");
    }
    let engine = OwnEngine::start(Apart::Not);
    ask(async { make_image_from(&engine.socket, IMAGE, COPY).await });
    at(Place::Docker, Some(&engine.socket));
}

pub(crate) fn run(sandbox: &mut Sandbox, line: &str) -> Ran {
    let arguments = json!({ "sessionId": sandbox.session, "command": line, "waitSeconds": 45, "timeoutSeconds": 60 });
    sandbox.ran(arguments)
}

/// A tool that this place has not is left out loudly.
fn has(sandbox: &mut Sandbox, tool: &Tool) -> bool {
    let is_there = sandbox.sh(&format!("test -e {}", tool.program)).code == 0;
    if !is_there {
        skip(
            "tools",
            &format!("{}: no {} at {:?}", tool.name, tool.program, sandbox.place),
        );
    }
    is_there
}

#[test]
fn tools_get_what_rules_name_and_say_understandably_what_they_do_not() {
    if !is_inside("egress_tools::tools_get_what_rules_name_and_say_understandably_what_they_do_not")
    {
        return;
    }
    let lab = Lab::start();
    let with = |lab: &Lab, sandbox: &mut Sandbox| {
        tools_get_what_they_want(lab, sandbox);
        certificates_that_are_none_are_seen(lab, sandbox);
    };
    each_toolbox(&lab, |tools| {
        let mut sandbox = tools.session(RULES, json!({}), |_| {});
        with(&lab, &mut sandbox);
        sandbox.destroy();
        let mut sandbox = tools.session(OTHER_RULES, json!({}), |_| {});
        tools_say_that_they_may_not(&lab, &mut sandbox);
        sandbox.destroy();
    });
}

fn tools_get_what_they_want(lab: &Lab, sandbox: &mut Sandbox) {
    for tool in &TOOLS {
        if !has(sandbox, tool) {
            continue;
        }
        arrived(lab);
        let ran = run(sandbox, tool.line);
        assert_eq!(ran.code, 0, "{}: {ran:#?}", tool.name);
        let got = sandbox.sh(tool.check);
        assert!(
            [WORD, "reached", "a package of the laboratory"]
                .iter()
                .any(|word| got.out.contains(word)),
            "{}: {got:#?}",
            tool.name
        );
        let asked = arrived(lab)
            .into_iter()
            .any(|event| matches!(event, Event::Requested { host, .. } if host == tool.host));
        assert!(asked, "{}: it came from the laboratory", tool.name);
    }
}

fn tools_say_that_they_may_not(lab: &Lab, sandbox: &mut Sandbox) {
    let mut refusals = 0;
    for tool in &TOOLS {
        if !has(sandbox, tool) {
            continue;
        }
        arrived(lab);
        let ran = run(sandbox, tool.line);
        assert_ne!(ran.code, 0, "{}: {ran:#?}", tool.name);
        let said = format!("{}\n{}", ran.out, ran.err);
        for word in tool.words {
            assert!(
                said.contains(word),
                "{} does not say {word:?}: {said}",
                tool.name
            );
        }
        assert_eq!(arrived(lab), [], "{}", tool.name);
        refusals += 1;
        let codes = denied(sandbox, refusals);
        assert!(
            codes.iter().all(|code| code == "host_not_allowed"),
            "{}: {codes:?}",
            tool.name
        );
    }
}

/// Whom a host's certificate is for, and until when, is looked at by whoever is inside: the tunnel hides nothing of it.
fn certificates_that_are_none_are_seen(lab: &Lab, sandbox: &mut Sandbox) {
    for (host, words) in [
        ("expired.example.com", "certificate has expired"),
        (
            "wrong-name.example.com",
            "no alternative certificate subject name matches",
        ),
        ("self-signed.example.com", "self-signed certificate"),
    ] {
        arrived(lab);
        for way in ["", "--proxy socks5h://127.0.0.1:1080 "] {
            let ran = run(
                sandbox,
                &format!("curl -sS {way}--cacert ca.pem https://{host}/"),
            );
            // 60: the certificate is not to be trusted.
            assert_eq!(ran.code, 60, "{host}: {ran:#?}");
            assert!(ran.err.contains(words), "{host}: {ran:#?}");
        }
        let came = arrived(lab);
        assert!(
            !came
                .iter()
                .any(|event| matches!(event, Event::Requested { .. })),
            "{came:#?}"
        );
        assert!(
            came.iter()
                .any(|event| matches!(event, Event::Greeted { .. })),
            "{came:#?}"
        );
    }
    let ran = run(
        sandbox,
        "curl -sS --cacert ca.pem https://v6only.example.com/",
    );
    assert!(
        ran.out.starts_with("reached v6only.example.com"),
        "the control: {ran:#?}"
    );
}
