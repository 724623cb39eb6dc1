//! What was said and done in conversations, for those who own them: also after their session has ended, while it is on
//! record.

use std::{
    io,
    path::{Path, PathBuf},
};

use model::{ConversationId, ReadTranscript, Reason, Refusal, TranscriptPage};
use policy::SessionPermit;

use crate::{refusals, sessions::Sessions};

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
    let latest = || on_record(directory).pop();
    let conversation = request
        .conversation
        .or_else(latest)
        .ok_or_else(refusals::conversation_not_found)?;
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

/// Conversations that stand on record, the one that was written to last at the end.
pub(crate) fn on_record(directory: &Path) -> Vec<ConversationId> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let id = name.to_str()?.strip_suffix(".jsonl")?.parse().ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, id))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, id)| id).collect()
}
