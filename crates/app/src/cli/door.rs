//! The words of this door: refusals and replies name arguments and tools of MCP, and who types commands knows them by other
//! names. Text for people goes through here; what `--json` prints stays as it came.

/// In MCP, and on the command line. Longer ones stand before those that they hold.
const WORDS: &[(&str, &str)] = &[
    ("call the tool again", "run the command again"),
    ("`limits.memoryBytes`", "--memory"),
    ("`limits.cpuMillis`", "--cpus"),
    ("`limits.pids`", "--pids"),
    ("The limit memoryBytes", "--memory"),
    ("The limit cpuMillis", "--cpus"),
    ("The limit pids", "--pids"),
    ("limits.memoryBytes", "--memory"),
    ("limits.cpuMillis", "--cpus"),
    ("limits.pids", "--pids"),
    ("`ttlSeconds`", "--ttl"),
    ("ttlSeconds", "--ttl"),
    ("`idleSeconds`", "--idle"),
    ("idleSeconds", "--idle"),
    ("its timeoutSeconds were over", "its --timeout was over"),
    ("`timeoutSeconds`", "--timeout"),
    ("timeoutSeconds", "--timeout"),
    (
        "let this one wait its turn (whenBusy: queue)",
        "leave out --refuse-busy",
    ),
    ("runtimeClass", "--runtime-class"),
    ("destroy_session", "claude-code-mcp session destroy"),
    ("create_session", "claude-code-mcp session create"),
    ("list_sessions", "claude-code-mcp session list"),
    ("extend_session", "claude-code-mcp session extend"),
    ("get_execution", "claude-code-mcp session attach"),
    ("get_session_logs", "claude-code-mcp session logs"),
    ("get_session", "claude-code-mcp session show"),
    ("respond_execution", "claude-code-mcp session approve"),
    ("execute_in_session", "claude-code-mcp session prompt"),
    ("execute_command", "claude-code-mcp session exec"),
    ("cancel_execution", "Ctrl-C where it is followed"),
];

/// The text as whoever types commands understands it.
pub fn worded(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (tool, command)| {
        text.replace(tool, command)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_hidden_by_one_that_stands_before_it() {
        for (index, (word, _)) in WORDS.iter().enumerate() {
            let before = &WORDS[..index];
            assert!(
                !before.iter().any(|(earlier, _)| word.contains(earlier)),
                "{word}"
            );
        }
    }

    #[test]
    fn hints_name_flags_and_commands() {
        assert_eq!(
            worded(
                "`limits.cpuMillis` must be at least 1. Correct the argument and call the tool again."
            ),
            "--cpus must be at least 1. Correct the argument and run the command again."
        );
        assert_eq!(
            worded("Destroy one with destroy_session, or raise MAX_CONCURRENT_SESSIONS."),
            "Destroy one with claude-code-mcp session destroy, or raise MAX_CONCURRENT_SESSIONS."
        );
        assert_eq!(worded("nothing of MCP"), "nothing of MCP");
    }
}
