//! Progress of a waiting call, for a client that gave a token.

use std::{pin::Pin, time::Duration};

use futures::FutureExt;
use rmcp::{
    RoleServer,
    model::{ProgressNotificationParam, ProgressToken},
    service::{Peer, RequestContext},
};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior},
};

/// Least time between two notifications.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the answer waits for a notification that is on its way, so that it does not overtake it.
const LAST_SEND: Duration = Duration::from_millis(200);

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sends elapsed seconds at most once a second, one notification at a time: rmcp's channel to the client is short, and
/// a client that does not read must not hold up the call.
pub(crate) struct Progress {
    reporter: Option<Reporter>,
}

struct Reporter {
    tool: String,
    token: ProgressToken,
    peer: Peer<RoleServer>,
    started: Instant,
    ticks: Interval,
    sending: Option<Sending>,
    /// What the work is about, where its tool tells.
    doing: watch::Sender<String>,
}

impl Progress {
    pub(crate) fn new(tool: &str, context: &RequestContext<RoleServer>) -> Self {
        let reporter = context.meta.get_progress_token().map(|token| {
            let started = Instant::now();
            let mut ticks = tokio::time::interval_at(started + INTERVAL, INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Reporter {
                tool: tool.to_owned(),
                token,
                peer: context.peer.clone(),
                started,
                ticks,
                sending: None,
                doing: watch::Sender::default(),
            }
        });
        Progress { reporter }
    }

    /// By which a tool tells what it is about.
    pub(crate) fn teller(&self) -> Option<watch::Sender<String>> {
        self.reporter
            .as_ref()
            .map(|reporter| reporter.doing.clone())
    }

    /// Ends after each step of reporting; never, where there is nothing to report to.
    pub(crate) async fn tick(&mut self) {
        match &mut self.reporter {
            Some(reporter) => reporter.step().await,
            None => std::future::pending().await,
        }
    }

    /// Lets a notification that is on its way arrive before the answer.
    pub(crate) async fn finish(self) {
        if let Some(sending) = self.reporter.and_then(|reporter| reporter.sending) {
            // Late or lost makes no difference: the answer follows.
            let _late = tokio::time::timeout(LAST_SEND, sending).await;
        }
    }
}

impl Reporter {
    fn words(&self, seconds: f64) -> String {
        let doing = self.doing.borrow();
        match doing.is_empty() {
            true => format!("{} has been at work for {seconds:.0} s", self.tool),
            false => format!("{} ({seconds:.0} s)", *doing),
        }
    }

    async fn step(&mut self) {
        if let Some(sending) = &mut self.sending {
            sending.await;
            self.sending = None;
            return;
        }
        self.ticks.tick().await;
        let seconds = self.started.elapsed().as_secs_f64();
        let report = ProgressNotificationParam::new(self.token.clone(), seconds)
            .with_message(self.words(seconds));
        let peer = self.peer.clone();
        // A client that is gone is noticed by the connection itself.
        self.sending = Some(
            async move { peer.notify_progress(report).await }
                .map(|_sent| ())
                .boxed(),
        );
    }
}
