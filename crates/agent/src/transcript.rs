//! What was said and done in a conversation, read from its journal for people: a page at a time, and nothing of it long.
//!
//! A cursor is an offset in the journal, which only grows, so a reader that comes back finds what is new.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use model::{ExecutionId, TranscriptKind, TranscriptLine, TranscriptStart};
use serde_json::Value;

use crate::{
    journal::{Entry, Stamped},
    protocol::{Ask, Block, Event, MAX_LINE_BYTES, TurnResult, parse},
    words,
};

/// Longest text of one line, bytes.
const MAX_TEXT_BYTES: usize = 4096;
/// Longest text of what a tool gave, bytes: the transcript tells what was done, not all that was read.
const MAX_GIVEN_BYTES: usize = 1024;
/// Text of one page, bytes: what a reply of a tool holds.
const MAX_PAGE_BYTES: usize = 20 * 1024;
/// Journal that one page reads at most, bytes: a call is to answer soon.
const MAX_SCANNED_BYTES: u64 = 8 * 1024 * 1024;
/// Longest line of a journal that is told, bytes: an event with its escapes, at most one for a byte, and its envelope.
const MAX_JOURNAL_LINE_BYTES: u64 = 2 * MAX_LINE_BYTES as u64 + 1024;

/// A page.
#[derive(Debug, Default)]
pub struct Page {
    /// What happened, oldest first.
    pub lines: Vec<TranscriptLine>,
    /// Where to read on; `None` while the prompt that was asked for has not had its turn.
    pub cursor: Option<u64>,
    /// There is more already.
    pub has_more: bool,
}

/// Reads a page of at most `most` lines; what one entry of the journal says stays together.
///
/// # Errors
/// `InvalidInput` for a cursor that no page gave; else when the journal cannot be read.
pub fn read(journal: &Path, start: TranscriptStart, most: usize) -> io::Result<Page> {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    let mut file = options.open(journal)?;
    let found = match start {
        TranscriptStart::Cursor(cursor) => Some(check(&mut file, cursor)?),
        TranscriptStart::Prompt(execution) => turn_of(&mut file, execution)?,
    };
    match found {
        Some(from) => page(file, from, most),
        None => Ok(Page::default()),
    }
}

/// The cursor, if a line begins there.
fn check(file: &mut File, cursor: u64) -> io::Result<u64> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    if cursor > file.metadata()?.len() {
        return Err(wrong());
    }
    if let Some(before) = cursor.checked_sub(1) {
        let mut byte = [0];
        file.seek(SeekFrom::Start(before))?;
        file.read_exact(&mut byte)?;
        if byte != *b"\n" {
            return Err(wrong());
        }
    }
    Ok(cursor)
}

/// Where a prompt has its turn.
fn turn_of(file: &mut File, execution: ExecutionId) -> io::Result<Option<u64>> {
    let name = execution.to_string();
    let mut found = None;
    each_line(file, 0, |at, line| {
        // Most lines are not it, and reading them as JSON would take long.
        let may_be = line.windows(name.len()).any(|part| part == name.as_bytes());
        if may_be
            && let Some(Entry::Begun {
                execution: begun, ..
            }) = entry(line).map(|line| line.entry)
            && begun == execution
        {
            found = Some(at.start);
        }
        found.is_none()
    })?;
    Ok(found)
}

fn page(mut file: File, from: u64, most: usize) -> io::Result<Page> {
    let mut page = Page {
        cursor: Some(from),
        ..Page::default()
    };
    let mut bytes = 0;
    each_line(&mut file, from, |at, line| {
        let told = entry(line).map(tell).unwrap_or_default();
        let size: usize = told.iter().map(|line| line.text.len()).sum();
        let is_over = page.lines.len() + told.len() > most || bytes + size > MAX_PAGE_BYTES;
        if is_over && !page.lines.is_empty() || at.start - from > MAX_SCANNED_BYTES {
            page.has_more = true;
            return false;
        }
        bytes += size;
        page.lines.extend(told);
        page.cursor = Some(at.end);
        true
    })?;
    Ok(page)
}

/// Reads whole lines from there on, newline included, while the reader wants more: `take` is told where the line begins, where
/// the next one does, and its bytes, which are cut where it is too long.
fn each_line(
    file: &mut File,
    from: u64,
    mut take: impl FnMut(Range<u64>, &[u8]) -> bool,
) -> io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    let (mut at, mut line) = (from, Vec::new());
    loop {
        line.clear();
        let mut limited = reader.by_ref().take(MAX_JOURNAL_LINE_BYTES);
        let mut count = limited.read_until(b'\n', &mut line)?;
        let is_cut = count as u64 == MAX_JOURNAL_LINE_BYTES && !line.ends_with(b"\n");
        if is_cut {
            count += reader.skip_until(b'\n')?;
        }
        let end = at + count as u64;
        // The last line may be in the making.
        let is_whole = is_cut || line.ends_with(b"\n");
        if !is_whole || !take(at..end, &line) {
            return Ok(());
        }
        at = end;
    }
}

fn entry(line: &[u8]) -> Option<Stamped<Entry>> {
    serde_json::from_slice(line).ok()
}

/// What an entry tells people.
fn tell(stamped: Stamped<Entry>) -> Vec<TranscriptLine> {
    let at = UNIX_EPOCH + Duration::from_millis(stamped.at_ms);
    let line = |kind, text: &str, execution| TranscriptLine {
        at,
        kind,
        text: clean(text, MAX_TEXT_BYTES),
        execution,
    };
    match stamped.entry {
        Entry::Prompt {
            execution, text, ..
        } => vec![line(TranscriptKind::Prompt, &text, Some(execution))],
        Entry::Begun { execution, .. } => vec![line(TranscriptKind::Begun, "", Some(execution))],
        Entry::Ended { execution, .. } => vec![line(TranscriptKind::Ended, "", Some(execution))],
        Entry::Output {
            line: Some(event), ..
        } => said(event.as_bytes())
            .into_iter()
            .map(|(kind, text)| line(kind, &text, None))
            .collect(),
        Entry::Output { line: None, .. }
        | Entry::Journal { .. }
        | Entry::Process { .. }
        | Entry::Sent { .. }
        | Entry::Partial { .. }
        | Entry::Answered { .. }
        | Entry::Gone { .. } => Vec::new(),
    }
}

fn said(event: &[u8]) -> Vec<(TranscriptKind, String)> {
    match parse(event) {
        Event::Assistant {
            blocks,
            of_subagent,
            failure,
            ..
        } => {
            let is_answer = !of_subagent && failure.is_none();
            let told = blocks.into_iter().filter_map(|block| match block {
                Block::Text(text) => is_answer.then_some((TranscriptKind::Says, text)),
                Block::Thinking => None,
                Block::ToolUse { name, input, .. } => {
                    Some((TranscriptKind::Uses, words::tool(&name, &input)))
                }
            });
            told.collect()
        }
        Event::ToolResults(_) => given(event),
        Event::Retry {
            attempt,
            most,
            delay_ms,
            failure,
        } => vec![(
            TranscriptKind::Waits,
            words::retry(&failure, attempt, most, delay_ms),
        )],
        Event::Result(result) if result.is_error => {
            let TurnResult { text, errors, .. } = *result;
            let words = text.unwrap_or_else(|| for_people(&errors));
            match words.is_empty() {
                true => Vec::new(),
                false => vec![(TranscriptKind::Fails, words)],
            }
        }
        Event::Request {
            ask: Ask::Permission { tool, input, .. },
            ..
        } => vec![(TranscriptKind::Asks, words::tool(&tool, &input))],
        Event::Request { .. }
        | Event::Result(_)
        | Event::Init { .. }
        | Event::State(_)
        | Event::Lifecycle { .. }
        | Event::Delta(_)
        | Event::Withdrawn { .. }
        | Event::Response { .. }
        | Event::Other
        | Event::Garbage => Vec::new(),
    }
}

/// Errors without Claude Code's notes to its own makers, which stand at every end from outside.
fn for_people(errors: &[String]) -> String {
    let of_makers = |error: &&String| error.starts_with("[ede_diagnostic]");
    let errors: Vec<_> = errors
        .iter()
        .filter(|error| !of_makers(error))
        .map(String::as_str)
        .collect();
    errors.join("; ")
}

/// What tools gave, with the beginning of their words.
fn given(event: &[u8]) -> Vec<(TranscriptKind, String)> {
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    let blocks = event.pointer("/message/content").and_then(Value::as_array);
    let results = blocks.into_iter().flatten();
    results
        .filter(|block| block.get("type").and_then(Value::as_str) == Some("tool_result"))
        .map(|block| {
            let failed = block.get("is_error").and_then(Value::as_bool) == Some(true);
            let kind = match failed {
                true => TranscriptKind::Fails,
                false => TranscriptKind::Gives,
            };
            let content = block.get("content").unwrap_or(&Value::Null);
            (kind, clean(&text_of(content), MAX_GIVEN_BYTES))
        })
        .collect()
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts
                .iter()
                .filter_map(|part| part.get("text").and_then(Value::as_str));
            texts.collect::<Vec<_>>().join("\n")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// Without control characters but newline and tab, cut.
fn clean(text: &str, most: usize) -> String {
    let is_kept = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut kept = String::new();
    for character in text.chars().filter(is_kept) {
        if kept.len() + character.len_utf8() > most {
            kept.push('…');
            break;
        }
        kept.push(character);
    }
    kept
}

#[cfg(test)]
mod tests {
    use model::{ConversationId, PromptOptions, PromptView};
    use serde_json::json;

    use super::*;
    use crate::journal::Journal;

    fn output(event: &Value) -> Entry {
        Entry::Output {
            end: 1,
            line: Some(event.to_string()),
        }
    }

    fn one_prompt(execution: ExecutionId) -> Vec<Entry> {
        vec![
            Entry::Prompt {
                execution,
                text: "mend it".to_owned(),
                options: PromptOptions::default(),
                deadline_ms: None,
            },
            Entry::Begun {
                execution,
                message: "m".to_owned(),
            },
            output(&json!({"type": "assistant", "message": {"content": [
                {"type": "text", "text": "I look\u{1b}[2J first."},
                {"type": "tool_use", "id": "t", "name": "Read", "input": {"file_path": "/workspace/a"}}]}})),
            output(&json!({"type": "user", "message": {"content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x".repeat(5000)}]}]}})),
            output(
                &json!({"type": "result", "subtype": "success", "is_error": false, "result": "done"}),
            ),
            Entry::Ended {
                execution,
                view: Box::new(PromptView::new(ConversationId::random().unwrap())),
                failure: None,
            },
        ]
    }

    fn written(prompts: u8) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(&path, |_, _| ()).unwrap();
        for prompt in 0..prompts {
            for entry in one_prompt(ExecutionId::from_bytes([prompt; 16])) {
                journal.add(&entry).unwrap();
            }
        }
        (directory, path)
    }

    #[test]
    fn notes_of_claude_code_to_its_makers_are_not_told_and_errors_are() {
        let errors = |errors: &[&str]| {
            let owned: Vec<_> = errors.iter().map(|error| (*error).to_owned()).collect();
            for_people(&owned)
        };
        assert_eq!(errors(&["[ede_diagnostic] result_type=user"]), "");
        assert_eq!(
            errors(&["[ede_diagnostic] x", "no room", "no time"]),
            "no room; no time"
        );
    }

    #[test]
    fn a_prompt_is_told_in_the_order_in_which_it_went_and_cut_where_it_is_long() {
        let (_directory, path) = written(1);
        let page = read(&path, TranscriptStart::Cursor(0), 100).unwrap();
        let told: Vec<_> = page
            .lines
            .iter()
            .map(|line| (line.kind, line.text.as_str()))
            .collect();
        assert_eq!(told[0], (TranscriptKind::Prompt, "mend it"));
        assert_eq!(told[2], (TranscriptKind::Says, "I look[2J first."));
        assert_eq!(told[3], (TranscriptKind::Uses, "reading /workspace/a"));
        assert_eq!(told[4].0, TranscriptKind::Gives);
        assert!(told[4].1.len() < MAX_GIVEN_BYTES + 4);
        assert_eq!(told[5], (TranscriptKind::Ended, ""));
        assert_eq!((told.len(), page.has_more), (6, false));
        let again = read(&path, TranscriptStart::Cursor(page.cursor.unwrap()), 100).unwrap();
        assert!(again.lines.is_empty() && !again.has_more);
    }

    #[test]
    fn a_line_that_is_too_long_hides_nothing_that_follows() {
        use std::io::Write;
        let (_directory, path) = written(1);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&vec![b'x'; MAX_JOURNAL_LINE_BYTES as usize + 5])
            .unwrap();
        let told = |from| read(&path, TranscriptStart::Cursor(from), 100).unwrap();
        assert_eq!(told(0).lines.len(), 6, "it may be in the making");
        file.write_all(b"\n").unwrap();
        let (_other, more) = written(1);
        file.write_all(&std::fs::read(more).unwrap()).unwrap();
        let first = told(0);
        let rest = told(first.cursor.unwrap());
        assert_eq!(first.lines.len() + rest.lines.len(), 12);
    }

    #[test]
    fn pages_say_all_that_the_whole_says_once() {
        let (_directory, path) = written(40);
        let (mut cursor, mut told) = (0, Vec::new());
        loop {
            let page = read(&path, TranscriptStart::Cursor(cursor), 7).unwrap();
            assert!(page.lines.len() <= 7);
            told.extend(page.lines);
            cursor = page.cursor.unwrap();
            if !page.has_more {
                break;
            }
        }
        assert_eq!(told.len(), 40 * 6);
        let ends = told
            .iter()
            .filter(|line| line.kind == TranscriptKind::Ended);
        let ends: Vec<_> = ends.filter_map(|line| line.execution).collect();
        assert_eq!(
            ends,
            (0..40)
                .map(|n| ExecutionId::from_bytes([n; 16]))
                .collect::<Vec<_>>()
        );
        assert_eq!(std::fs::metadata(&path).unwrap().len(), cursor);
    }

    #[test]
    fn a_page_begins_at_a_prompt_and_nowhere_where_no_line_begins() {
        let (_directory, path) = written(3);
        let second = ExecutionId::from_bytes([1; 16]);
        let page = read(&path, TranscriptStart::Prompt(second), 5).unwrap();
        let first = &page.lines[0];
        assert_eq!(
            (first.kind, first.execution),
            (TranscriptKind::Begun, Some(second))
        );
        let not_yet = read(
            &path,
            TranscriptStart::Prompt(ExecutionId::from_bytes([9; 16])),
            5,
        )
        .unwrap();
        assert!(not_yet.lines.is_empty() && not_yet.cursor.is_none());
        for wrong in [1, 7, 1_000_000] {
            let error = read(&path, TranscriptStart::Cursor(wrong), 5).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong}");
        }
    }
}
