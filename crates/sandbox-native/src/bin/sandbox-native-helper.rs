//! The helper alone, for tests that have no application to execute again.

fn main() -> std::process::ExitCode {
    sandbox_native::helper_main()
}
