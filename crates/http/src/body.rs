//! The body of a request, in bounds: of one, of all, and of time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{answer::Refused, settings::Limits};

/// What bodies are counted in, bytes.
const UNIT_BYTES: usize = 1024;
/// When it is worth another try where bodies of others fill the room, milliseconds.
const RETRY_MS: u64 = 1_000;

/// Room for the bodies of requests that are under way.
#[derive(Debug)]
pub(crate) struct Bodies {
    most_bytes: usize,
    patience: Duration,
    room: Semaphore,
}

/// A body, which takes its room for as long as it is kept.
pub(crate) struct Held<'a> {
    pub(crate) bytes: Bytes,
    _room: SemaphorePermit<'a>,
}

/// What is checked before a body is waited for.
///
/// # Errors
/// A body whose length is not told, or that is too long. A request may tell its length once: two ways to say where it ends
/// are two requests to whoever is in front of us (smuggling).
pub(crate) fn check_framing(head: &Parts, limits: &Limits) -> Result<(), Refused> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refused::new(
            StatusCode::LENGTH_REQUIRED,
            "length_required",
            "the request does not tell the length of its body",
            "Send Content-Length, and no Transfer-Encoding.",
        )
        .closing());
    }
    let length = head.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(bytes) if bytes > limits.body_bytes => Err(too_long(limits.body_bytes)),
        Some(_) => Ok(()),
        None => Err(Refused::new(
            StatusCode::LENGTH_REQUIRED,
            "length_required",
            "the request has no body",
            "Send one message of JSON-RPC, with Content-Length.",
        )
        .closing()),
    }
}

impl Bodies {
    pub(crate) fn new(limits: &Limits) -> Self {
        Bodies {
            most_bytes: limits.body_bytes,
            patience: limits.body_time,
            room: Semaphore::new(limits.bodies_bytes / UNIT_BYTES),
        }
    }

    /// Reads it to its end.
    ///
    /// # Errors
    /// Too long, too slow, broken off, or no room for it at the moment.
    pub(crate) async fn read(&self, body: Incoming) -> Result<Held<'_>, Refused> {
        match tokio::time::timeout(self.patience, self.collect(body)).await {
            Ok(read) => read,
            Err(_elapsed) => Err(Refused::new(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "the body of the request did not come in time",
                "Send it again.",
            )
            .closing()),
        }
    }

    async fn collect(&self, mut body: Incoming) -> Result<Held<'_>, Refused> {
        let mut collected = BytesMut::new();
        let mut held = self.room.try_acquire_many(0).map_err(|_| no_room())?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| broken_off())?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.len() > self.most_bytes.saturating_sub(collected.len()) {
                return Err(too_long(self.most_bytes));
            }
            let units = u32::try_from(data.len().div_ceil(UNIT_BYTES)).map_err(|_| no_room())?;
            held.merge(self.room.try_acquire_many(units).map_err(|_| no_room())?);
            collected.extend_from_slice(&data);
        }
        Ok(Held {
            bytes: collected.freeze(),
            _room: held,
        })
    }
}

fn too_long(most_bytes: usize) -> Refused {
    Refused::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "payload_too_large",
        format!("the body of the request is longer than {most_bytes} bytes"),
        "Carry large files in pieces.",
    )
    .closing()
}

fn broken_off() -> Refused {
    Refused::bad_request("the body of the request broke off", "Send it again.").closing()
}

fn no_room() -> Refused {
    Refused::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "too many large requests are on their way at once",
        "Try again in a moment.",
    )
    .retry_after_ms(RETRY_MS)
    .closing()
}
