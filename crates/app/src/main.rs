//! `claude-code-mcp`: parse → load the configuration → run → exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use app::{
    cli::{self, arguments::CommandLine},
    config::Environment,
};
use clap::Parser;

fn main() -> ExitCode {
    // First of all, while this process has a single thread: the runtime executes this program again as its helper.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == sandbox_native::HELPER_ARGUMENT)
    {
        return sandbox_native::helper_main();
    }
    cli::run(CommandLine::parse(), Environment::of_process())
}
