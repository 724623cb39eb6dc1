//! What happened in a session: its events, and the last lines of its newest executions.

use model::{LogLine, Refusal, SessionId};
use policy::SessionPermit;

use crate::{refusals, sessions::Sessions, view};

impl Sessions {
    /// The last `tail` lines of a session's log, oldest first.
    ///
    /// # Errors
    /// `session_not_found`, or when the store fails.
    pub async fn logs(
        &self,
        permit: SessionPermit,
        tail: u32,
    ) -> Result<(SessionId, Vec<LogLine>), Refusal> {
        let (session, _) = permit.into_parts();
        self.0
            .record(session)
            .await?
            .ok_or_else(refusals::session_not_found)?;
        let events = self
            .0
            .stored(move |store| store.events(session, tail))
            .await?;
        let mut lines: Vec<_> = events
            .into_iter()
            .map(|event| LogLine {
                at: view::time(event.at_ms),
                text: event.text,
            })
            .collect();
        lines.extend(self.0.output_tails(session).await);
        lines.sort_by_key(|line| line.at);
        let skip = lines.len().saturating_sub(tail as usize);
        Ok((session, lines.split_off(skip)))
    }
}
