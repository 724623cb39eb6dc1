//! What was said and done in conversations, for those who own them: also after their session has ended, while it is on
//! record.

use std::{
    io,
    path::{Path, PathBuf},
};

use model::{ConversationId, ReadTranscript, Reason, Refusal, TranscriptPage};
use policy::SessionPermit;

use crate::{refusals, sessions::Sessions};

/// The file that names the latest conversation.
const LATEST: &str = "latest";

impl Sessions {
    /// A page of a conversation's transcript.
    ///
    /// # Errors
    /// `session_not_found`, `conversation_not_found`, `invalid_argument` for a cursor that no page gave, or when the
    /// journal cannot be read.
    pub async fn transcript(
        &self,
        permit: SessionPermit,
        request: ReadTranscript,
    ) -> Result<TranscriptPage, Refusal> {
        let (session, _) = permit.into_parts();
        if session != request.session {
            return Err(refusals::other_permit());
        }
        self.0
            .record(session)
            .await?
            .ok_or_else(refusals::session_not_found)?;
        let directory = self.0.setup.transcripts.join(session.to_string());
        let reading = tokio::task::spawn_blocking(move || page(&directory, request));
        reading.await.map_err(|error| Refusal::internal(&error))?
    }
}

fn page(directory: &Path, request: ReadTranscript) -> Result<TranscriptPage, Refusal> {
    let latest = || latest(directory);
    let conversation = request
        .conversation
        .or_else(latest)
        .ok_or_else(refusals::no_conversation)?;
    let most = usize::try_from(request.lines).unwrap_or(usize::MAX);
    let page = agent::transcript::read(&journal(directory, conversation), request.from, most)
        .map_err(|error| unreadable(&error))?;
    Ok(TranscriptPage {
        session: request.session,
        conversation,
        lines: page.lines,
        cursor: page.cursor,
        has_more: page.has_more,
    })
}

fn unreadable(error: &io::Error) -> Refusal {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        return refusals::conversation_not_found();
    }
    if kind == io::ErrorKind::InvalidInput {
        return Refusal::new(
            Reason::InvalidArgument,
            "`cursor` is none that a page of this transcript gave.",
            "Use the cursor of an earlier page, or 0.",
        )
        .in_field("cursor");
    }
    Refusal::internal(error)
}

/// The file in which a conversation's journal stands.
pub(crate) fn journal(directory: &Path, conversation: ConversationId) -> PathBuf {
    directory.join(format!("{conversation}.jsonl"))
}

/// Conversations that stand on record.
pub(crate) fn on_record(directory: &Path) -> Vec<ConversationId> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".jsonl")?
                .parse()
                .ok()
        })
        .collect()
}

/// The conversation that took a prompt last. It has a file of its own: a journal also grows when its process ends, or when
/// another server takes it up.
pub(crate) fn latest(directory: &Path) -> Option<ConversationId> {
    let name = std::fs::read_to_string(directory.join(LATEST)).ok()?;
    name.parse().ok()
}

/// Puts on record which conversation took a prompt last.
pub(crate) fn set_latest(directory: &Path, conversation: ConversationId) -> io::Result<()> {
    let new = directory.join(format!("{LATEST}.new"));
    std::fs::write(&new, conversation.to_string())?;
    std::fs::rename(new, directory.join(LATEST))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_latest_conversation_is_the_one_that_was_prompted_last_not_the_one_that_was_written_last()
    {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert_eq!(latest(directory), None);
        let ids = [(); 2].map(|()| ConversationId::random().unwrap());
        for id in ids {
            std::fs::write(journal(directory, id), "").unwrap();
            set_latest(directory, id).unwrap();
        }
        std::fs::write(journal(directory, ids[0]), "its process ended").unwrap();
        assert_eq!(latest(directory), Some(ids[1]));
        let mut found = on_record(directory);
        found.sort_unstable();
        let mut due = ids.to_vec();
        due.sort_unstable();
        assert_eq!(found, due);
    }
}
