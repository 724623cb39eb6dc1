//! AWS's library speaks through our connections: one TLS, one set of roots, no second HTTP client.

use std::time::Duration;

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::Full;

use super::host_client::{HostClient, Unreached};

/// Where the library does not say how long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the library is given as its HTTP client.
#[derive(Debug, Clone)]
pub(super) struct AwsClient(pub(super) HostClient);

/// One that holds to the limits of who asked for it: those of the metadata service are a second.
#[derive(Debug)]
struct Connector {
    client: HostClient,
    limit: Duration,
}

impl HttpClient for AwsClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connect = settings.connect_timeout().unwrap_or_default();
        let read = settings.read_timeout().unwrap_or(ANSWER_TIMEOUT);
        SharedHttpConnector::new(Connector {
            client: self.0.clone(),
            limit: connect + read,
        })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, limit) = (self.client.clone(), self.limit);
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let (head, body) = request.into_parts();
            // A body in memory, as of every request for credentials; none other comes.
            let bytes = body
                .bytes()
                .map(Bytes::copy_from_slice)
                .ok_or_else(|| ConnectorError::user("the request's body is a stream".into()))?;
            let request = http::Request::from_parts(head, Full::new(bytes));
            let answer = client.ask(request, limit).await.map_err(unreached)?;
            HttpResponse::try_from(answer.map(SdkBody::from))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

fn unreached(error: Unreached) -> ConnectorError {
    match error {
        Unreached::Timeout => ConnectorError::timeout(error.into()),
        Unreached::Connection | Unreached::Body => ConnectorError::io(error.into()),
    }
}
