//! `image` and `agent`: what sessions are made of.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `image …`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make the image that sessions are made of: git, ca-certificates, ripgrep, python3 and a user on a base
    ///
    /// The image gets its name when it is whole; an interrupted or failed build leaves none. A base that the engine does
    /// not have is fetched from its registry. Where no registry can be reached, --bootstrap makes the base from Debian
    /// packages, by the package sources of this machine; it needs mmdebstrap.
    #[command(after_help = BUILD_EXAMPLES)]
    Build(BuildArguments),
    /// List the images that were made here, and the configured one: whether sessions can be made of them
    List,
    /// Unpack an image into a directory that sessions of the embedded runtime can see as their root file system
    ///
    /// Prints the line for the configuration. All belongs to whoever unpacks; set-id bits, devices and extended
    /// attributes are left out.
    #[command(after_help = UNPACK_EXAMPLES)]
    Unpack(UnpackArguments),
}

/// `agent …`
///
/// HASH is a SHA-256 or 6 or more of its first digits.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Fetch the pinned Claude Code and check it, or register your own
    ///
    /// It is kept below the state directory, under its hash, and every new session finds it, read-only, at
    /// /opt/claude-code/claude. A download that was interrupted goes on when it is run again. Claude Code is proprietary
    /// software of Anthropic's; its terms apply to whoever fetches it.
    #[command(after_help = INSTALL_EXAMPLES)]
    Install(InstallArguments),
    /// List what is installed, that of new sessions first
    List,
    /// Print the path of the program that new sessions get
    Path {
        /// Another one
        hash: Option<String>,
    },
    /// Read what is installed again and compare it with its hash
    Verify {
        /// Only this one
        hash: Option<String>,
    },
    /// Remove what is installed; refused while a session has it
    #[command(
        override_usage = "claude-code-mcp agent remove [OPTIONS] <HASH>...\n       claude-code-mcp agent remove --unused"
    )]
    Remove {
        /// Which
        #[arg(required_unless_present = "unused")]
        hash: Vec<String>,
        /// All but the one that new sessions get
        #[arg(long, conflicts_with = "hash")]
        unused: bool,
    },
}

const INSTALL_EXAMPLES: &str = "\
Examples:
  claude-code-mcp agent install                       the pinned one, from the Python package index
  claude-code-mcp agent install --index https://mirror.example.org/simple/
  claude-code-mcp agent install --source npm
  claude-code-mcp agent install --from-file ./claude_agent_sdk.whl
  claude-code-mcp agent install --use ~/.local/bin/claude";

/// Flags of `agent install`.
#[derive(Debug, Args)]
pub struct InstallArguments {
    /// What to fetch it from: the wheel of the SDK on a Python package index, or the platform package of an npm registry
    #[arg(long, value_parser = ["pypi", "npm"], default_value = "pypi", value_name = "SOURCE", conflicts_with_all = ["from_file", "use_own"])]
    pub source: String,
    /// The index or registry; else UV_DEFAULT_INDEX, UV_INDEX_URL or PIP_INDEX_URL, or npm_config_registry, or the usual one
    #[arg(long, value_name = "URL", conflicts_with_all = ["from_file", "use_own"])]
    pub index: Option<String>,
    /// A wheel, a package of npm's, or the program itself, on this machine
    #[arg(long, value_name = "FILE", conflicts_with = "use_own")]
    pub from_file: Option<PathBuf>,
    /// Register your own program (copied; its hash is recorded, not checked)
    #[arg(long = "use", value_name = "FILE", id = "use_own")]
    pub use_own: Option<PathBuf>,
    /// Another version of the SDK than the pinned one
    #[arg(long, value_name = "VERSION", requires = "accept_unpinned", conflicts_with_all = ["from_file", "use_own"])]
    pub sdk_version: Option<String>,
    /// Take a program that has not the pinned hash; its own is printed and recorded
    #[arg(long)]
    pub accept_unpinned: bool,
    /// Take the pinned file although its makers withdrew it
    #[arg(long)]
    pub accept_yanked: bool,
}

const BUILD_EXAMPLES: &str = "\
Examples:
  claude-code-mcp image build                         on debian:bookworm-slim, under the configured name
  claude-code-mcp image build --bootstrap             without a registry
  claude-code-mcp image build --base node:22-slim --tag claude-code-node:1";

const UNPACK_EXAMPLES: &str = "\
Examples:
  claude-code-mcp image unpack                        the configured image, below the state directory
  claude-code-mcp image unpack debian:bookworm-slim --to /srv/roots/debian
  claude-code-mcp image unpack ./saved.tar            what docker save wrote, an OCI layout, a root file system";

/// Flags of `image build`.
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// Name of the image; the configured one otherwise
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Image to build on
    #[arg(long, value_name = "IMAGE", default_value = sandbox_docker::images::DEFAULT_BASE, conflicts_with = "bootstrap")]
    pub base: String,
    /// Ask the registry for a newer base although the engine has it
    #[arg(long, conflicts_with = "bootstrap")]
    pub pull: bool,
    /// Make the base from Debian packages instead
    #[arg(long)]
    pub bootstrap: bool,
    /// Put the installed Claude Code into the image, too; never publish such an image
    #[arg(long)]
    pub with_agent: bool,
}

/// Flags of `image unpack`.
#[derive(Debug, Args)]
pub struct UnpackArguments {
    /// Image of the engine, or a file (a path with a slash, or ending in .tar, .tgz or .tar.gz); the configured image
    /// otherwise
    #[arg(value_name = "IMAGE|FILE")]
    pub source: Option<String>,
    /// Directory to make; otherwise one below the state directory that is named by the image's digest
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}
