//! What a remote caller is told names no path of this host: its projects have names relative to its roots, and whatever text
//! speaks of a directory of ours is cut.
//!
//! What this does not stop: a program inside a session reads in `/proc/self/mountinfo` where the kernel says that its workspace
//! comes from.

use std::path::{Path, PathBuf};

use model::{Attestation, Outcome, Reason, Refusal, RemoteCaller, SessionView};

/// What stands in a text where a path of ours stood.
const CUT: &str = "…";

/// Conceals from one caller.
pub(crate) struct Concealer<'a> {
    caller: &'a RemoteCaller,
    /// Texts that are cut, the longest first.
    hidden: Vec<String>,
}

impl<'a> Concealer<'a> {
    /// `own`: directories of the server itself.
    pub(crate) fn new(caller: &'a RemoteCaller, own: impl IntoIterator<Item = &'a Path>) -> Self {
        let roots = caller.roots.iter().map(PathBuf::as_path);
        let mut hidden: Vec<String> = roots
            .chain(own)
            .filter_map(Path::to_str)
            .filter(|path| path.len() > 1)
            .map(str::to_owned)
            .collect();
        hidden.sort_by_key(|path| std::cmp::Reverse(path.len()));
        Concealer { caller, hidden }
    }

    /// A refusal; what stands in it for our log alone stays.
    pub(crate) fn refusal(&self, refusal: &mut Refusal) {
        if refusal.field.is_none() && speaks_of_the_host(refusal.reason) {
            refusal.message = "Sessions cannot be made here as asked at the moment.".to_owned();
            refusal.hint = "Ask whoever runs the server; its log says why.".to_owned();
        }
        self.text(&mut refusal.message);
        self.text(&mut refusal.hint);
    }

    /// An outcome. Bytes of a session's own programs and files are left as they are.
    pub(crate) fn outcome(&self, outcome: &mut Outcome) {
        match outcome {
            Outcome::Session(view) => self.session(view),
            Outcome::Sessions(views) => views.iter_mut().for_each(|view| self.session(view)),
            Outcome::Execution(view) => self.optional(&mut view.failure),
            Outcome::Logs(_, lines) => lines.iter_mut().for_each(|line| self.text(&mut line.text)),
            Outcome::ServerInfo(info) => {
                // Words for the operator, about this machine.
                info.warnings.clear();
                self.text(&mut info.claude_code);
                self.text(&mut info.posture);
                self.text(&mut info.rung);
                if let Some(refusal) = &mut info.prompts_refused {
                    self.refusal(refusal);
                }
            }
            Outcome::KeyMade(made) => {
                self.roots(&mut made.key.roots);
                if let Some(old) = &mut made.replaces {
                    self.roots(&mut old.roots);
                }
            }
            Outcome::KeyRevoked(revoked) => self.roots(&mut revoked.key.roots),
            Outcome::Keys(keys) => keys.iter_mut().for_each(|key| self.roots(&mut key.roots)),
            Outcome::Destroyed(_)
            | Outcome::Transcript(_)
            | Outcome::Transferred(_)
            | Outcome::FileRead(_)
            | Outcome::FileWritten(_)
            | Outcome::Done => {}
        }
    }

    fn session(&self, view: &mut SessionView) {
        view.project_path = self.name(&view.project_path);
        self.optional(&mut view.ended_because);
        if let Some(attestation) = &mut view.attestation {
            self.attestation(attestation);
        }
    }

    fn attestation(&self, attestation: &mut Attestation) {
        for layer in &mut attestation.layers {
            self.text(&mut layer.evidence);
        }
    }

    /// The name of a directory below the caller's roots; of any other, its last part: `admin` sees sessions of everybody.
    fn name(&self, path: &Path) -> PathBuf {
        let roots = self.caller.roots.iter();
        let below = roots.filter_map(|root| path.strip_prefix(root).ok());
        match below.min_by_key(|rest| rest.as_os_str().len()) {
            Some(rest) if rest.as_os_str().is_empty() => PathBuf::from("."),
            Some(rest) => rest.to_owned(),
            None => path.file_name().map(PathBuf::from).unwrap_or_default(),
        }
    }

    /// Those below its own, by name; of others it learns nothing.
    fn roots(&self, roots: &mut Vec<PathBuf>) {
        let own = &self.caller.roots;
        roots.retain(|root| own.iter().any(|own| root.starts_with(own)));
        for root in roots {
            *root = self.name(root);
        }
    }

    fn optional(&self, text: &mut Option<String>) {
        text.iter_mut().for_each(|text| self.text(text));
    }

    fn text(&self, text: &mut String) {
        for path in &self.hidden {
            if text.contains(path.as_str()) {
                *text = text.replace(path.as_str(), CUT);
            }
        }
    }
}

/// Reasons whose sentences are for the operator: they name sockets, files and programs of this machine.
fn speaks_of_the_host(reason: Reason) -> bool {
    [
        Reason::BackendUnavailable,
        Reason::EngineNotLocal,
        Reason::EngineUnfit,
        Reason::ImageRefused,
        Reason::ImageNotFound,
        Reason::AgentUnavailable,
    ]
    .contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Reason, RemoteKind, Scopes};

    #[test]
    fn names_are_relative_and_texts_are_cut() {
        let caller = RemoteCaller {
            name: "key:a".to_owned(),
            kind: RemoteKind::AccessToken,
            scopes: Scopes::NONE,
            roots: vec!["/srv/code".into(), "/srv/code/team".into()],
            max_sessions: None,
            calls_per_minute: None,
        };
        let concealer = Concealer::new(&caller, [Path::new("/home/op"), Path::new("/")]);
        for (path, name) in [
            ("/srv/code/app", "app"),
            ("/srv/code/team/app", "app"),
            ("/srv/code", "."),
            ("/home/op/secret/thing", "thing"),
            ("/srv/codex", "codex"),
        ] {
            assert_eq!(concealer.name(Path::new(path)), Path::new(name), "{path}");
        }
        let mut refusal = Refusal::new(
            Reason::Internal,
            "Cannot open /srv/code/team/app.",
            "Look at /home/op/.local/state.",
        );
        refusal.detail = Some("/srv/code".to_owned());
        concealer.refusal(&mut refusal);
        assert_eq!(refusal.message, "Cannot open …/app.");
        assert_eq!(refusal.hint, "Look at …/.local/state.");
        assert_eq!(
            refusal.detail.as_deref(),
            Some("/srv/code"),
            "our log has it"
        );
    }

    /// P2a, S6: what a backend says of its machine is for the operator; what names an argument is for the caller.
    #[test]
    fn words_of_backends_are_for_the_operator_alone() {
        let caller = RemoteCaller {
            name: "key:a".to_owned(),
            kind: RemoteKind::AccessToken,
            scopes: Scopes::NONE,
            roots: Vec::new(),
            max_sessions: None,
            calls_per_minute: None,
        };
        let concealer = Concealer::new(&caller, []);
        let told = |reason, field: Option<&str>| {
            let mut refusal = Refusal::new(
                reason,
                "No engine answers at /run/user/7/docker.sock.",
                "Look at /etc/docker/daemon.json.",
            );
            refusal.field = field.map(str::to_owned);
            refusal.detail = Some("/run/user/7/docker.sock".to_owned());
            concealer.refusal(&mut refusal);
            assert!(refusal.detail.is_some(), "our log has it");
            format!("{} {}", refusal.message, refusal.hint)
        };
        for reason in [
            Reason::BackendUnavailable,
            Reason::EngineNotLocal,
            Reason::EngineUnfit,
            Reason::ImageRefused,
            Reason::ImageNotFound,
            Reason::AgentUnavailable,
        ] {
            let words = told(reason, None);
            assert!(!words.contains('/'), "{reason}: {words}");
            assert!(words.contains("whoever runs the server"), "{words}");
        }
        // The controls.
        assert!(told(Reason::BackendUnavailable, Some("backend")).contains("/run/user/7"));
        assert!(told(Reason::LimitReached, None).contains("/run/user/7"));
    }
}
