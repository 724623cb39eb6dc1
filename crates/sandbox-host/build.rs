//! Builds the supervisor as a static program and leaves it where `include_bytes!` finds it.
//!
//! A global `+crt-static` would break procedural macros and a `build.target` would move every binary, so only this one
//! program is built apart, with its own target directory.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

/// Settings of the outer build that must not reach the inner one.
const NOT_INHERITED: [&str; 9] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_RUSTFLAGS",
];
/// The same by prefix: what cargo tells a build script about this package is wrong for that one.
const NOT_INHERITED_PREFIXES: [&str; 6] = [
    "CARGO_FEATURE_",
    "CARGO_CFG_",
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
];

fn main() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = package.join("../..");
    for watched in [
        "crates/supervisor",
        "crates/wire",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(watched).display()
        );
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target = variable("TARGET")?;
    let directory = PathBuf::from(variable("OUT_DIR")?).join("supervisor");
    // Without the network first: the outer build has usually fetched everything, and may have been told to stay off it.
    if !build(&workspace, &target, &directory, true)?
        && !build(&workspace, &target, &directory, false)?
    {
        return Err("the static supervisor does not build; see above".into());
    }
    let program = directory.join(&target).join("release").join("supervisor");
    println!("cargo::rustc-env=SUPERVISOR_PROGRAM={}", program.display());
    Ok(())
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}

fn build(
    workspace: &Path,
    target: &str,
    directory: &Path,
    offline: bool,
) -> Result<bool, Box<dyn Error>> {
    let mut command = Command::new(variable("CARGO")?);
    command.current_dir(workspace).args([
        "build",
        "--release",
        "--locked",
        "-p",
        "supervisor",
        "--target",
        target,
    ]);
    command.arg("--target-dir").arg(directory);
    if offline {
        command.arg("--offline");
    }
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if NOT_INHERITED.contains(&&*text)
            || NOT_INHERITED_PREFIXES
                .iter()
                .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    Ok(command.status()?.success())
}
