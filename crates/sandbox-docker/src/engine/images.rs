//! What is asked of the engine about images. These calls may last as long as something moves: a download, a build, an
//! upload. What stands still for [`SILENCE_LIMIT`] is given up.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bollard::{
    errors::Error,
    models::{BuildInfo, CreateImageInfo, ImageSummary},
    query_parameters::{
        BuildImageOptionsBuilder, CreateImageOptionsBuilder, ListImagesOptionsBuilder,
        RemoveImageOptionsBuilder, TagImageOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use sandbox::BackendError;

use super::{Engine, status};

/// Longest time in which neither a byte nor a word of progress passes between the engine and us.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// The client's own limit, seconds, until an answer begins: that of an import begins at its end. Ours comes first.
const ANSWER_LIMIT_S: u64 = 24 * 3600;

/// When something last moved in a long call. Shared by all who see something move.
#[derive(Clone)]
pub(crate) struct Pulse {
    began: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// Something moves now.
    pub fn new() -> Self {
        Pulse {
            began: Instant::now(),
            last_ms: Arc::default(),
        }
    }

    /// Something moved.
    pub fn beat(&self) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `limit`.
    async fn stopped(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let silent = self.began.elapsed().saturating_sub(last);
            if silent >= limit {
                return;
            }
            tokio::time::sleep(limit - silent).await;
        }
    }
}

impl Engine {
    /// All images with that label.
    pub async fn images(&self, label: &str) -> Result<Vec<ImageSummary>, BackendError> {
        let client = self.client().await?;
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        self.call("listing images", client.list_images(Some(options)))
            .await
    }

    /// Has the engine fetch an image from its registry. `name` ends with a tag or a digest.
    pub async fn pull(
        &self,
        name: &str,
        tell: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), BackendError> {
        let client = self.patient_client().await?;
        let options = CreateImageOptionsBuilder::new().from_image(name).build();
        let words = client.create_image(Some(options), None, None);
        self.follow("fetching the image", &Pulse::new(), words, |said| {
            if let Some(word) = pulled(&said) {
                tell(&word);
            }
        })
        .await
    }

    /// Makes an image of a root file system that arrives as a tar. `changes` are instructions as in a Dockerfile.
    pub async fn import(
        &self,
        name: &str,
        changes: Vec<String>,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        pulse: &Pulse,
    ) -> Result<(), BackendError> {
        let client = self.patient_client().await?;
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(repository)
            .tag(tag)
            .changes(changes)
            .build();
        let body = bollard::body_try_stream(tar);
        let words = client.create_image(Some(options), Some(body), None);
        self.follow("importing the image", pulse, words, drop).await
    }

    /// Builds an image of a context, a tar that holds a Dockerfile. Containers of the build are removed, also
    /// those of one that fails. `network` is the engine's name for one, `none` say.
    pub async fn build(
        &self,
        name: &str,
        context: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        network: &str,
        tell: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), BackendError> {
        let client = self.patient_client().await?;
        let options = BuildImageOptionsBuilder::new()
            .t(name)
            .networkmode(network)
            .nocache(true)
            .rm(true)
            .forcerm(true)
            .build();
        let words = client.build_image(options, None, Some(bollard::body_try_stream(context)));
        self.follow("building the image", &Pulse::new(), words, |said| {
            for line in built(&said).lines().filter(|line| !line.trim().is_empty()) {
                tell(line.trim());
            }
        })
        .await
    }

    /// Gives an image another name, which is taken from the image that bore it.
    pub async fn tag(&self, image: &str, name: &str) -> Result<(), BackendError> {
        let client = self.client().await?;
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let options = TagImageOptionsBuilder::new()
            .repo(repository)
            .tag(tag)
            .build();
        self.call("naming the image", client.tag_image(image, Some(options)))
            .await
    }

    /// Takes a name from an image, and removes the image with its last one. Success also when there is none.
    pub async fn untag(&self, name: &str) -> Result<(), BackendError> {
        let client = self.client().await?;
        let options = RemoveImageOptionsBuilder::new().build();
        let doing = "removing the image";
        match self
            .ask(doing, client.remove_image(name, Some(options), None))
            .await?
        {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(self.explain(doing, error)),
        }
    }

    /// An image with all its layers, as a tar, into `take`.
    pub async fn save(
        &self,
        name: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), BackendError> {
        let client = self.patient_client().await?;
        let doing = "reading the image";
        let mut written = Ok(());
        let parts = client.export_image(name);
        self.follow(doing, &Pulse::new(), parts, |part| {
            if written.is_ok() {
                written = take(&part);
            }
        })
        .await?;
        written.map_err(|source| BackendError::Step {
            step: "keep the image's layers for unpacking".to_owned(),
            source,
        })
    }

    /// A client for calls that last: see [`ANSWER_LIMIT_S`].
    async fn patient_client(&self) -> Result<bollard::Docker, BackendError> {
        let version = self.client().await?.client_version();
        self.connect(ANSWER_LIMIT_S, &version).await
    }

    async fn follow<T>(
        &self,
        doing: &str,
        pulse: &Pulse,
        words: impl Stream<Item = Result<T, Error>>,
        mut take: impl FnMut(T),
    ) -> Result<(), BackendError> {
        let mut words = std::pin::pin!(words);
        loop {
            let said = tokio::select! {
                said = words.next() => said,
                () = pulse.stopped(SILENCE_LIMIT) => return Err(stuck(doing)),
            };
            pulse.beat();
            match said {
                None => return Ok(()),
                Some(Ok(said)) => take(said),
                Some(Err(Error::DockerStreamError { error })) => return Err(failed(doing, error)),
                Some(Err(error)) => return Err(self.explain(doing, error)),
            }
        }
    }
}

fn stuck(doing: &str) -> BackendError {
    BackendError::Unavailable {
        why: format!("nothing has moved for {SILENCE_LIMIT:?} while {doing}"),
        remedy: "try again; if that does not help, look at the engine's log and at its way to the network"
            .to_owned(),
    }
}

fn failed(doing: &str, why: String) -> BackendError {
    BackendError::Step {
        step: format!("finish {doing}"),
        source: io::Error::other(why),
    }
}

/// A word of progress with the part of the image that it is about.
fn pulled(said: &CreateImageInfo) -> Option<String> {
    let status = said.status.as_deref()?;
    Some(match &said.id {
        Some(id) => format!("{id}: {status}"),
        None => status.to_owned(),
    })
}

fn built(said: &BuildInfo) -> &str {
    said.stream.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    #[tokio::test]
    async fn what_moves_goes_on_and_what_stands_still_is_given_up() {
        let engine = Engine::new(Address::Unix("/nowhere".into()));
        let slow = futures::stream::iter(0..5).then(|number| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Error>(number)
        });
        let mut seen = 0;
        let pulse = Pulse::new();
        let moving = engine.follow("testing", &pulse, slow, |_| seen += 1);
        moving.await.unwrap();
        assert_eq!(seen, 5);
        let pulse = Pulse::new();
        let limit = Duration::from_millis(30);
        let began = Instant::now();
        for _ in 0..4 {
            let waited = tokio::time::timeout(limit * 2 / 3, pulse.stopped(limit)).await;
            assert!(waited.is_err(), "it beats");
            pulse.beat();
        }
        pulse.stopped(limit).await;
        assert!(began.elapsed() >= limit * 3);
    }
}
