//! The laboratory itself: what attacks are measured by must work, and arrive, where nobody is in the way.

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use crate::support::lab::{
    Event, Lab,
    addresses::{self, ALL, REBINDING},
    is_inside,
    tunnel::Tunnel,
};

/// Settings of whoever runs the tests that would lead tools elsewhere, or have them trust somebody else.
const NOT_HERE: [&str; 7] = [
    "GIT_",
    "PIP_",
    "UV_",
    "CARGO_",
    "SSL_",
    "CURL_",
    "REQUESTS_",
];

fn tool(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    for (name, _) in std::env::vars() {
        let is_proxy = name.to_ascii_lowercase().ends_with("_proxy");
        if is_proxy || NOT_HERE.iter().any(|start| name.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

fn output(program: &str, line: &str, directory: &Path) -> Output {
    tool(program, directory)
        .args(line.split_whitespace())
        .output()
        .expect("it starts")
}

fn succeeds(program: &str, line: &str, directory: &Path) -> String {
    let output = output(program, line, directory);
    assert!(output.status.success(), "{program} {line}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_address_of_the_laboratory_answers_and_tells() {
    if !is_inside("laboratory::every_address_of_the_laboratory_answers_and_tells") {
        return;
    }
    let lab = Lab::start();
    for address in ALL {
        let mut stream = TcpStream::connect((address, 80)).expect(address);
        stream
            .write_all(b"GET /probe HTTP/1.1\r\nHost: by-hand\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains("reached by-hand"), "{address}: {answer}");
        assert!(lab.log.has_reached(address), "{address}");
    }
    let requested = lab
        .log
        .take()
        .into_iter()
        .filter(|event| matches!(event, Event::Requested { path, .. } if path == "/probe"));
    assert_eq!(requested.count(), ALL.len());
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket
        .send_to(b"hello", (addresses::EVIL, 9999))
        .expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    let arrived = lab.log.take();
    assert!(
        matches!(arrived.as_slice(), [Event::Datagram { bytes: 5, .. }]),
        "{arrived:?}"
    );
}

#[test]
fn names_lead_where_they_say_and_one_changes_its_mind() {
    if !is_inside("laboratory::names_lead_where_they_say_and_one_changes_its_mind") {
        return;
    }
    let lab = Lab::start();
    let here = Path::new("/");
    let find = |name: &str| succeeds("getent", &format!("ahostsv4 {name}"), here);
    assert!(find("www.example.com").starts_with(addresses::WEB));
    assert!(find("alias-private.example.com").starts_with(addresses::PRIVATE));
    let both = find("both.example.com");
    assert!(
        both.contains(addresses::WEB) && both.contains(addresses::PRIVATE),
        "{both}"
    );
    let six = succeeds("getent", "ahostsv6 v6only.example.com", here);
    assert!(six.starts_with(addresses::WEB_V6), "{six}");
    assert!(find(REBINDING).starts_with(addresses::WEB));
    assert!(find(REBINDING).starts_with(addresses::PRIVATE));
    assert!(
        !output("getent", "ahosts nobody.example.com", here)
            .status
            .success()
    );
    assert!(lab.log.asked().contains(&"both.example.com".to_owned()));
}

#[test]
fn tls_is_right_where_it_should_be_and_wrong_where_it_should_be() {
    if !is_inside("laboratory::tls_is_right_where_it_should_be_and_wrong_where_it_should_be") {
        return;
    }
    let lab = Lab::start();
    let authority = lab.authority().display().to_string();
    let curl = |name: &str| {
        let line = format!("-sS --max-time 10 --cacert {authority} https://{name}/x");
        output("curl", &line, Path::new("/"))
    };
    for name in ["www.example.com", "v6only.example.com", "dual.example.com"] {
        let answer = curl(name);
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(text.starts_with(&format!("reached {name}")), "{answer:?}");
    }
    for name in [
        "expired.example.com",
        "wrong-name.example.com",
        "self-signed.example.com",
    ] {
        assert_eq!(curl(name).status.code(), Some(60), "{name}");
    }
    let all = lab.log.all();
    let greeted = all
        .iter()
        .filter(|event| matches!(event, Event::Greeted { name: Some(_), .. }));
    assert_eq!(greeted.count(), 6);
}

#[test]
fn git_pip_cargo_and_apt_get_what_they_want() {
    if !is_inside("laboratory::git_pip_cargo_and_apt_get_what_they_want") {
        return;
    }
    let lab = Lab::start();
    let place = lab.directory().to_owned();
    let authority = lab.authority().display().to_string();
    let clone = format!(
        "-c http.sslCAInfo={authority} clone -q https://git.example.com/project.git cloned"
    );
    succeeds("git", &clone, &place);
    assert!(place.join("cloned/README").exists());

    let pip = format!(
        "-m pip download --disable-pip-version-check -q --no-cache-dir --cert {authority} \
         --index-url https://pypi.example.com/simple/ --no-deps -d {} labpackage",
        place.join("wheels").display()
    );
    succeeds("python3", &pip, &place);
    assert!(
        place
            .join("wheels/labpackage-1.0-py3-none-any.whl")
            .exists()
    );

    let project = place.join("crate");
    std::fs::create_dir_all(project.join("src")).expect("a project");
    std::fs::create_dir_all(project.join(".cargo")).expect("its settings");
    std::fs::write(project.join("src/lib.rs"), "").expect("written");
    std::fs::write(
        project.join("Cargo.toml"),
        "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nlabcrate = { version = \"1\", registry = \"lab\" }\n[workspace]\n",
    )
    .expect("written");
    std::fs::write(
        project.join(".cargo/config.toml"),
        "[registries.lab]\nindex = \"sparse+https://crates.example.com/index/\"\n",
    )
    .expect("written");
    let fetched = tool("cargo", &project)
        .args(["fetch", "-q"])
        .env("CARGO_HOME", place.join("cargo-home"))
        .env("CARGO_HTTP_CAINFO", &authority)
        .output()
        .expect("cargo");
    assert!(fetched.status.success(), "{fetched:?}");

    let lists = place.join("apt");
    for directory in [
        "lists/partial",
        "cache/archives/partial",
        "etc/apt/preferences.d",
    ] {
        std::fs::create_dir_all(lists.join(directory)).expect("a directory");
    }
    let sources = lists.join("sources.list");
    std::fs::write(
        &sources,
        "deb [trusted=yes] http://deb.example.com/debian lab main\n",
    )
    .expect("written");
    let at = lists.display();
    let apt = format!(
        "update -q -o Dir::Etc::sourcelist={at}/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists={at}/lists \
         -o Dir::Cache={at}/cache -o APT::Sandbox::User=root -o Acquire::Retries=0 -o APT::Update::Error-Mode=any \
         -o Dir::Etc::parts=/dev/null -o Dir::Etc::main=/dev/null"
    );
    succeeds("apt-get", &apt, &place);
    for host in ["git", "pypi", "crates", "deb"] {
        let name = format!("{host}.example.com");
        let asked = lab
            .log
            .all()
            .into_iter()
            .any(|event| matches!(event, Event::Requested { host, .. } if host == name));
        assert!(asked, "{name}");
    }
}

#[test]
fn a_tunnel_through_names_moves_bytes_where_nobody_is_in_the_way() {
    if !is_inside("laboratory::a_tunnel_through_names_moves_bytes_where_nobody_is_in_the_way") {
        return;
    }
    let lab = Lab::start();
    let Some(_tunnel) = Tunnel::start(&lab, "the tunnel's control") else {
        return;
    };
    assert_eq!(Tunnel::bytes(&lab), Some(0));
    assert!(Tunnel::try_from_here(&lab) > 0);
}
