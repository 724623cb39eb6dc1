//! Files that stand inside because the session says so, whatever the image or the engine has there: written in the
//! session's directory on the host, and seen inside read-only.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use model::{
    CERTIFICATES_DIRECTORY, CERTIFICATES_NAME, HOSTS, MANAGED_SETTINGS_DIRECTORY,
    MANAGED_SETTINGS_NAME, RESOLVER_CONFIGURATION, SandboxSpec,
};
use sandbox_host::{
    At, Failure, NO_DEVICES, NO_EXECUTION, NO_SUID, READ_ONLY, own_directory, own_file,
};

/// Everybody inside reads it, and nobody writes it.
const FILE_MODE: u32 = 0o444;
const DIRECTORY_MODE: u32 = 0o755;

/// One of them.
pub(crate) struct OwnFile<'spec> {
    /// What it is called in the session's directory, and among its mounts.
    pub name: &'static str,
    /// What is mounted over inside.
    pub target: &'static str,
    /// `None`: the file itself is mounted. Else its directory is, in which it is alone, and the file is called this.
    alone_as: Option<&'static str>,
    content: &'spec str,
}

/// All of a session.
pub(crate) fn of(spec: &SandboxSpec) -> impl Iterator<Item = OwnFile<'_>> {
    let itself = |name, target, content| OwnFile {
        name,
        target,
        alone_as: None,
        content,
    };
    let names = [
        itself("resolv.conf", "/etc/resolv.conf", RESOLVER_CONFIGURATION),
        itself("hosts", "/etc/hosts", HOSTS),
    ];
    let settings = spec.managed_settings.as_deref().map(|content| OwnFile {
        name: "settings",
        target: MANAGED_SETTINGS_DIRECTORY,
        alone_as: Some(MANAGED_SETTINGS_NAME),
        content,
    });
    let certificates = spec.certificates.as_deref().map(|content| OwnFile {
        name: "certificates",
        target: CERTIFICATES_DIRECTORY,
        alone_as: Some(CERTIFICATES_NAME),
        content,
    });
    names.into_iter().chain(settings).chain(certificates)
}

impl OwnFile<'_> {
    /// Where what is mounted stands on the host.
    pub fn path(&self, instance: &Path) -> PathBuf {
        instance.join(self.name)
    }

    /// Writes it, and makes the mount.
    ///
    /// # Errors
    /// When it is there already, or a system call fails.
    pub fn write(&self, instance: &Path) -> Result<OwnedFd, Failure> {
        let set = READ_ONLY | NO_SUID | NO_DEVICES | NO_EXECUTION;
        let path = self.path(instance);
        let Some(name) = self.alone_as else {
            create(&path, self.content)?;
            return own_file(&path, set);
        };
        let step = "make a directory of the session";
        fs::create_dir(&path).at(step)?;
        fs::set_permissions(&path, Permissions::from_mode(DIRECTORY_MODE)).at(step)?;
        create(&path.join(name), self.content)?;
        own_directory(&path, set)
    }
}

/// The modes are set by themselves: the server may run with any mask.
fn create(path: &Path, content: &str) -> Result<(), Failure> {
    let step = "write a file of the session";
    let mut file = fs::File::create_new(path).at(step)?;
    file.write_all(content.as_bytes()).at(step)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))
        .at(step)
}
