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
use http::{HeaderValue, Uri, header::AUTHORIZATION};
use http_body_util::Full;

use super::{
    aws::ContainerToken,
    host_client::{HostClient, Unreached},
};

/// Where the library does not say how long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the library is given as its HTTP client.
#[derive(Debug, Clone)]
pub(super) struct AwsClient {
    pub(super) client: HostClient,
    /// The library would read it in the server's environment, where it does not stand.
    pub(super) container: Option<ContainerToken>,
}

/// One that holds to the limits of who asked for it: those of the metadata service are a second.
#[derive(Debug)]
struct Connector {
    client: HostClient,
    container: Option<ContainerToken>,
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
            client: self.client.clone(),
            container: self.container.clone(),
            limit: connect + read,
        })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, limit) = (self.client.clone(), self.limit);
        let container = self.container.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let (mut head, body) = request.into_parts();
            if let Some(container) = container.filter(|container| container.is_for(&head.uri)) {
                let token = container.header();
                let token = token.map_err(|error| ConnectorError::user(error.into()))?;
                head.headers.entry(AUTHORIZATION).or_insert(token);
            }
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

impl ContainerToken {
    /// Exactly the place that the token is for: nobody else is shown it.
    fn is_for(&self, asked: &Uri) -> bool {
        self.place.parse::<Uri>().is_ok_and(|place| {
            place.scheme() == asked.scheme()
                && place.authority() == asked.authority()
                && place.path_and_query() == asked.path_and_query()
        })
    }

    fn header(&self) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        let mut value = HeaderValue::from_str(self.token.expose())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn unreached(error: Unreached) -> ConnectorError {
    match error {
        Unreached::Timeout => ConnectorError::timeout(error.into()),
        Unreached::Connection | Unreached::Body => ConnectorError::io(error.into()),
    }
}
