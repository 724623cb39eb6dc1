//! What the servers have: a repository of git, a package each for pip, cargo and apt. Made by the tools themselves, tiny.

use std::{fs, path::Path, process::Command};

use sha2::{Digest, Sha256};

/// What the file in each of them says.
pub const WORD: &str = "from the laboratory";

pub(super) fn make(www: &Path) {
    git(&www.join("git.example.com"));
    pip(&www.join("pypi.example.com"));
    cargo(&www.join("crates.example.com"));
    apt(&www.join("deb.example.com"));
}

fn directory(path: &Path) {
    fs::create_dir_all(path).expect("a directory");
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    directory(path.parent().expect("a parent"));
    fs::write(path, content).expect("a file");
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn digest(path: &Path) -> String {
    hex::encode(Sha256::digest(fs::read(path).expect("the file")))
}

/// `https://git.example.com/project.git`, by git's plain file protocol.
fn git(root: &Path) {
    let work = root.join("work");
    write(&work.join("README"), WORD);
    let git = |directory: &Path, line: &str| {
        run(Command::new("git")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=lab", "-c", "user.email=lab@example.com"])
            .args(["-c", "init.defaultBranch=main"])
            .args(line.split(' '))
            .current_dir(directory));
    };
    git(&work, "init -q");
    git(&work, "add README");
    git(&work, "commit -q -m first");
    git(root, "clone -q --bare work project.git");
    git(&root.join("project.git"), "update-server-info");
    fs::remove_dir_all(work).expect("removed");
}

/// `https://pypi.example.com/simple/`, with the wheel `labpackage`.
fn pip(root: &Path) {
    let name = "labpackage-1.0-py3-none-any.whl";
    directory(&root.join("simple/labpackage"));
    let wheel = root.join("simple/labpackage").join(name);
    let script = format!(
        "import sys, zipfile\n\
         z = zipfile.ZipFile(sys.argv[1], 'w')\n\
         d = 'labpackage-1.0.dist-info/'\n\
         z.writestr('labpackage.py', 'WORD = \"{WORD}\"\\n')\n\
         z.writestr(d + 'METADATA', 'Metadata-Version: 2.1\\nName: labpackage\\nVersion: 1.0\\n')\n\
         z.writestr(d + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: lab\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
         z.writestr(d + 'RECORD', 'labpackage.py,,\\n' + d + 'METADATA,,\\n' + d + 'WHEEL,,\\n' + d + 'RECORD,,\\n')\n\
         z.close()\n"
    );
    run(Command::new("python3").args(["-c", &script]).arg(&wheel));
    let link = format!(
        "<!DOCTYPE html><a href=\"{name}#sha256={}\">{name}</a>\n",
        digest(&wheel)
    );
    write(&root.join("simple/labpackage/index.html"), link);
    write(
        &root.join("simple/index.html"),
        "<!DOCTYPE html><a href=\"labpackage/\">labpackage</a>\n",
    );
}

/// `sparse+https://crates.example.com/index/`, with the crate `labcrate`.
fn cargo(root: &Path) {
    let package = root.join("labcrate-1.0.0");
    write(
        &package.join("Cargo.toml"),
        "[package]\nname = \"labcrate\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
    );
    write(
        &package.join("src/lib.rs"),
        format!("pub const WORD: &str = \"{WORD}\";\n"),
    );
    let download = root.join("dl/labcrate/1.0.0/download");
    directory(download.parent().expect("a parent"));
    run(Command::new("tar")
        .arg("-czf")
        .arg(&download)
        .arg("labcrate-1.0.0")
        .current_dir(root));
    fs::remove_dir_all(&package).expect("removed");
    write(
        &root.join("index/config.json"),
        "{\"dl\": \"https://crates.example.com/dl/{crate}/{version}/download\"}\n",
    );
    let line = format!(
        "{{\"name\":\"labcrate\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{}\",\"features\":{{}},\"yanked\":false}}\n",
        digest(&download)
    );
    write(&root.join("index/la/bc/labcrate"), line);
}

/// `deb [trusted=yes] http://deb.example.com/debian lab main`, with the package `labpackage`.
fn apt(root: &Path) {
    let tree = root.join("tree");
    let control = "Package: labpackage\nVersion: 1.0\nArchitecture: all\nMaintainer: Lab <lab@example.com>\n\
                   Description: a package of the laboratory\n";
    write(&tree.join("DEBIAN/control"), control);
    write(&tree.join("usr/share/labpackage/word"), WORD);
    let deb = root.join("debian/pool/labpackage_1.0_all.deb");
    directory(deb.parent().expect("a parent"));
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .arg(&tree)
        .arg(&deb));
    fs::remove_dir_all(&tree).expect("removed");
    let size = fs::metadata(&deb).expect("the package").len();
    let packages = format!(
        "{control}Filename: pool/labpackage_1.0_all.deb\nSize: {size}\nSHA256: {}\n\n",
        digest(&deb)
    );
    for architecture in ["all", "amd64", "arm64"] {
        let path = format!("debian/dists/lab/main/binary-{architecture}/Packages");
        write(&root.join(path), &packages);
    }
    let sums: String = ["all", "amd64", "arm64"]
        .map(|architecture| {
            let path = format!("main/binary-{architecture}/Packages");
            let sum = hex::encode(Sha256::digest(&packages));
            format!(" {sum} {} {path}\n", packages.len())
        })
        .concat();
    let release = format!(
        "Suite: lab\nCodename: lab\nArchitectures: all amd64 arm64\nComponents: main\n\
         Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n{sums}"
    );
    write(&root.join("debian/dists/lab/Release"), release);
}
