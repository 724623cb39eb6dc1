//! Which Claude Code is fetched: `profiles/claude-code.json`, built in.

use serde::Deserialize;

use super::InstallError;

const DATA: &str = include_str!("../../../../profiles/claude-code.json");
/// Digits of a SHA-256.
pub(super) const DIGEST_DIGITS: usize = 64;

/// The one version that this program fetches, on every platform that it knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    #[serde(rename = "about")]
    _about: String,
    version: String,
    #[serde(rename = "reason")]
    _reason: String,
    pypi: Pypi,
    npm: Npm,
    platforms: Vec<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pypi {
    project: String,
    version: String,
    member: String,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Npm {
    member: String,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Platform {
    platform: String,
    program: FileFacts,
    wheel: WheelFacts,
    npm_package: String,
    #[serde(rename = "reason")]
    _reason: String,
}

/// A file as it was measured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// A wheel as it was measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WheelFacts {
    file: String,
    bytes: u64,
    sha256: String,
}

/// What is fetched on one platform, and where it is to be found.
#[derive(Debug, Clone)]
pub struct Pin {
    /// Version of Claude Code.
    pub version: String,
    /// `linux-x86_64`, …
    pub platform: String,
    /// The program itself, whatever brought it.
    pub program: FileFacts,
    /// Project of the package index.
    pub project: String,
    /// Version of that project.
    pub project_version: String,
    /// File of that version.
    pub wheel_name: String,
    /// That file.
    pub wheel: FileFacts,
    /// The program's path in a wheel.
    pub wheel_member: String,
    /// Package of an npm registry.
    pub npm_package: String,
    /// The program's path in a package of npm's.
    pub npm_member: String,
}

impl Pins {
    /// The built-in table.
    ///
    /// # Errors
    /// When it is broken, which a test rules out.
    pub fn built_in() -> Result<Self, InstallError> {
        Self::parse(DATA)
    }

    fn parse(data: &str) -> Result<Self, InstallError> {
        let pins: Pins = serde_json::from_str(data).map_err(InstallError::Pins)?;
        let files = pins
            .platforms
            .iter()
            .flat_map(|platform| [&platform.program.sha256, &platform.wheel.sha256]);
        let broken = files.into_iter().find(|digest| !is_digest(digest)).cloned();
        match broken {
            Some(digest) => Err(InstallError::PinsInconsistent(digest)),
            None => Ok(pins),
        }
    }

    /// Version of Claude Code.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The pin of this machine.
    ///
    /// # Errors
    /// [`InstallError::Platform`] where there is none.
    pub fn here(&self) -> Result<Pin, InstallError> {
        self.of(&this_platform())
    }

    fn of(&self, name: &str) -> Result<Pin, InstallError> {
        let found = self.platforms.iter().find(|known| known.platform == name);
        let Some(platform) = found.cloned() else {
            let known = self.platforms.iter().map(|known| known.platform.clone());
            return Err(InstallError::Platform {
                here: name.to_owned(),
                known: known.collect(),
            });
        };
        Ok(Pin {
            version: self.version.clone(),
            platform: platform.platform,
            program: platform.program,
            project: self.pypi.project.clone(),
            project_version: self.pypi.version.clone(),
            wheel_name: platform.wheel.file,
            wheel: FileFacts {
                bytes: platform.wheel.bytes,
                sha256: platform.wheel.sha256,
            },
            wheel_member: self.pypi.member.clone(),
            npm_package: platform.npm_package,
            npm_member: self.npm.member.clone(),
        })
    }
}

fn this_platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Whether that is a SHA-256 in lower-case hexadecimal.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_DIGITS
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_is_whole_and_each_file_belongs_to_its_platform() {
        let pins = Pins::built_in().unwrap();
        for platform in ["linux-x86_64", "linux-aarch64"] {
            let pin = pins.of(platform).unwrap();
            let machine = platform.trim_start_matches("linux-");
            assert!(pin.wheel_name.contains(machine), "{}", pin.wheel_name);
            assert!(pin.wheel_name.contains(&pin.project_version));
            assert!(pin.program.bytes > pin.wheel.bytes, "it is compressed");
        }
        assert!(pins.of("plan9-mips").is_err());
    }

    #[test]
    fn a_digest_that_is_none_is_found() {
        assert!(Pins::parse(DATA).is_ok());
        let pins = Pins::built_in().unwrap();
        let digest = &pins.platforms[0].program.sha256;
        let broken = DATA.replace(digest.as_str(), &digest.to_uppercase());
        assert!(matches!(
            Pins::parse(&broken),
            Err(InstallError::PinsInconsistent(_))
        ));
        assert!(matches!(Pins::parse("{}"), Err(InstallError::Pins(_))));
    }
}
