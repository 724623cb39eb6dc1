//! The scripted Messages API: stands in for the model provider, on loopback, for tests and for `demo` without a key.
//!
//! **No model answers here.** What comes back was written down beforehand in a [`Script`]; every response carries the header
//! `x-scripted-api: true`, every id holds the word `scripted`, and [`Script::label`] puts a mark before each text, so that
//! nobody takes it for a model's work.
//!
//! It speaks the wire of three providers, so that the real Claude Code CLI, and a proxy before it, cannot tell it from them:
//!
//! | provider | requests |
//! |---|---|
//! | Anthropic | `POST /v1/messages` (stream and whole), `POST /v1/messages/count_tokens`, `HEAD /api/hello` |
//! | Bedrock | `POST /model/{id}/invoke-with-response-stream` (binary event stream), `/invoke`, `/count-tokens`, `GET /inference-profiles` |
//! | Vertex | `POST …/publishers/anthropic/models/{id}:streamRawPredict`, `:rawPredict`, `count-tokens:rawPredict` |
//!
//! # In a test
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use scripted_api::{Block, Fault, Script, ScriptedApi, Turn};
//!
//! let script = Script::in_order([
//!     Turn::fault(Fault::status(529)),
//!     Turn::say([Block::text("Second time lucky.")]).usage(1_000, 50),
//! ]);
//! let api = ScriptedApi::start(script).await?;
//! // … run the client with ANTHROPIC_BASE_URL = api.url() …
//! assert!(api.requests().is_empty(), "nobody asked yet");
//! # Ok(())
//! # }
//! ```
//! [`scenario`] finds a ready script by name; [`ScriptedApi::requests`] tells afterwards what arrived, credentials included;
//! [`Accept`] makes it check them. Dropping the [`ScriptedApi`] ends it with all its connections.
//!
//! # By hand
//! ```text
//! scripted-api --list
//! scripted-api --scenario write-test --port 0       prints http://127.0.0.1:PORT
//! scripted-api --script my.toml --label '[scripted] '
//! ```
//!
//! # How a turn is chosen
//! The first [`Turn`] answers whose [`When`] holds and which is not used up ([`Turn::times`], counted for each conversation).
//! Rules look at the request alone (the prompt, how many tool results followed it), so a client may repeat a request or
//! resume a conversation and gets the turn that belongs there. Requests that Claude Code sends beside the conversation
//! (a title, a probe of a model, a subagent, a compaction: [`Purpose`]) use up no turn of the main conversation. Where no
//! turn fits, the answer is an error that says so, never a silent default.
//!
//! # What it does not do
//! It bills nothing, counts no tokens (it estimates), keeps no limits, and speaks plain HTTP/1.1 on loopback only.
//!
//! Reading order: `script` (what can be said), `scenarios` (what is ready), `request` (what is understood of a request),
//! `choose`, `message` (the answer as events), `frames` (events as bytes), `refusal`, `credential` and `signature`, `answer`,
//! `server`.

#![forbid(unsafe_code)]

mod answer;
mod choose;
mod credential;
mod fill;
mod frames;
mod message;
mod record;
mod refusal;
mod request;
mod scenarios;
mod script;
mod server;
mod signature;

pub use credential::{Accept, Credential, Verdict};
pub use record::{OnEnd, Outcome, Recorded};
pub use request::{Provider, Purpose};
pub use scenarios::{by_prompt, scenario, scenarios};
pub use script::{Block, CountPer, Fault, Script, ScriptError, Turn, Usage, When};
pub use server::{Options, ScriptedApi, StartError};
pub use signature::KeyPair;
