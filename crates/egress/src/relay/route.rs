//! The list of what passes: method and path, for each provider. Everything else is refused.

use http::{Method, Uri};

use super::{
    models::MAX_MODEL_BYTES,
    provider::{Place, Provider},
    refusal::Denial,
};

/// What a request's line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A look whether anything answers here, before a credential is at hand: said yes to here.
    Hello,
    /// Bedrock's list of inference profiles, which the client can do without: not found, here.
    NoProfiles,
    /// A request for the provider.
    Forward(Route),
}

/// A request that the provider may see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The path with its variable parts named: a closed set.
    pub shape: &'static str,
    /// Whether the answer costs tokens.
    pub billed: bool,
    /// Whether the path asks for a stream.
    pub streams: bool,
    /// The model, where the path names it.
    pub model: Option<String>,
}

/// The shapes with a fixed path.
const FIRST_PARTY: &[(&str, bool)] =
    &[("/v1/messages", true), ("/v1/messages/count_tokens", false)];

/// What follows the model in Bedrock's paths.
const BEDROCK: &[(&str, &str, bool)] = &[
    ("/invoke", "/model/{model}/invoke", true),
    (
        "/invoke-with-response-stream",
        "/model/{model}/invoke-with-response-stream",
        true,
    ),
    ("/count-tokens", "/model/{model}/count-tokens", false),
];

/// What follows the model in Vertex's paths.
const VERTEX: &[(&str, &str)] = &[
    (":rawPredict", "/v1/…/models/{model}:rawPredict"),
    (":streamRawPredict", "/v1/…/models/{model}:streamRawPredict"),
];

/// Vertex counts tokens through a model of this name; the one that is meant stands in the body.
const VERTEX_COUNT_TOKENS: &str = "count-tokens";

/// Decides by method and address alone. The query is looked at last, so that what is answered here may have one.
pub(crate) fn route(provider: &Provider, method: &Method, uri: &Uri) -> Result<Ask, Denial> {
    let path = uri.path();
    if method == Method::HEAD && path == "/api/hello" {
        return Ok(Ask::Hello);
    }
    let bedrock = matches!(provider.place, Place::Bedrock { .. });
    if bedrock && method == Method::GET && path == "/inference-profiles" {
        return Ok(Ask::NoProfiles);
    }
    if method != Method::POST {
        return Err(Denial::Path);
    }
    let route = match &provider.place {
        Place::FirstParty => first_party(path),
        Place::Bedrock { .. } => bedrock_path(path),
        Place::Vertex { project, region } => vertex(path, project, region),
    }
    .ok_or(Denial::Path)?;
    match uri.query() {
        None | Some("beta=true") => Ok(Ask::Forward(route)),
        Some(_) => Err(Denial::Query),
    }
}

fn first_party(path: &str) -> Option<Route> {
    let (shape, billed) = FIRST_PARTY.iter().find(|(known, _)| *known == path)?;
    Some(Route {
        shape,
        billed: *billed,
        streams: false,
        model: None,
    })
}

fn bedrock_path(path: &str) -> Option<Route> {
    let rest = path.strip_prefix("/model/")?;
    let (written, verb) = rest.split_at(rest.find('/')?);
    let (_, shape, billed) = BEDROCK.iter().find(|(known, ..)| *known == verb)?;
    Some(Route {
        shape,
        billed: *billed,
        streams: verb == "/invoke-with-response-stream",
        model: Some(model(written, b".:_-", &[("%3a", ":"), ("%2f", "/")])?),
    })
}

fn vertex(path: &str, project: &str, region: &str) -> Option<Route> {
    let rest = path
        .strip_prefix("/v1/projects/")?
        .strip_prefix(project)?
        .strip_prefix("/locations/")?
        .strip_prefix(region)?
        .strip_prefix("/publishers/anthropic/models/")?;
    let (written, verb) = rest.split_at(rest.find(':')?);
    let (_, shape) = VERTEX.iter().find(|(known, _)| *known == verb)?;
    if written == VERTEX_COUNT_TOKENS {
        return (verb == ":rawPredict").then_some(Route {
            shape: "/v1/…/models/count-tokens:rawPredict",
            billed: false,
            streams: false,
            model: None,
        });
    }
    Some(Route {
        shape,
        billed: true,
        streams: verb == ":streamRawPredict",
        model: Some(model(written, b"._-@", &[("%40", "@")])?),
    })
}

/// A model's name as a path spells it: letters, digits, these marks, and these escapes, in either case. No segment of it
/// may be empty or of dots alone.
fn model(written: &str, marks: &[u8], escapes: &[(&str, &str)]) -> Option<String> {
    let mut name = String::new();
    let mut rest = written;
    while let Some(first) = rest.bytes().next() {
        if first.is_ascii_alphanumeric() || marks.contains(&first) {
            name.push(char::from(first));
            rest = rest.get(1..)?;
        } else {
            let escape = rest.get(..3)?.to_ascii_lowercase();
            let (_, meant) = escapes.iter().find(|(known, _)| *known == escape)?;
            name.push_str(meant);
            rest = rest.get(3..)?;
        }
    }
    let clean = name
        .split('/')
        .all(|segment| segment.bytes().any(|byte| byte != b'.'));
    (clean && name.len() <= MAX_MODEL_BYTES).then_some(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn asked(provider: &Provider, line: &str) -> Result<Ask, Denial> {
        let (method, uri) = line.split_once(' ').unwrap();
        route(
            provider,
            &method.parse().unwrap(),
            &uri.parse::<Uri>().unwrap(),
        )
    }

    /// The shape and model of what passes, or the rule that refused.
    fn check(provider: &Provider, lines: &[(&str, &str)]) {
        for (line, expected) in lines {
            let said = match asked(provider, line) {
                Ok(Ask::Forward(route)) => {
                    format!("{} {}", route.shape, route.model.unwrap_or_default())
                }
                Ok(Ask::Hello) => "hello".to_owned(),
                Ok(Ask::NoProfiles) => "no profiles".to_owned(),
                Err(denial) => denial.rule().to_owned(),
            };
            assert_eq!(said.trim_end(), *expected, "{line}");
        }
    }

    #[test]
    fn the_first_party_has_two_paths() {
        let provider = Provider::first_party(None).unwrap();
        check(
            &provider,
            &[
                ("POST /v1/messages", "/v1/messages"),
                ("POST /v1/messages?beta=true", "/v1/messages"),
                (
                    "POST /v1/messages/count_tokens?beta=true",
                    "/v1/messages/count_tokens",
                ),
                ("HEAD /api/hello", "hello"),
                ("GET /v1/messages", "path"),
                ("PUT /v1/messages", "path"),
                ("OPTIONS *", "path"),
                ("POST /v1/messages/", "path"),
                ("POST //v1/messages", "path"),
                ("POST /v1/../v1/messages", "path"),
                ("POST /v1/%6dessages", "path"),
                ("POST /v1/messages/batches", "path"),
                ("POST /v1/files", "path"),
                ("GET /v1/models", "path"),
                ("POST /api/hello", "path"),
                ("GET /api/claude_code/settings", "path"),
                ("GET /inference-profiles", "path"),
                ("POST /model/x/invoke", "path"),
                ("POST /v1/messages?beta=true&x=1", "query"),
                ("POST /v1/messages?", "query"),
                ("POST /v1/messages?beta=false", "query"),
            ],
        );
    }

    #[test]
    fn bedrock_names_the_model_in_the_path() {
        let provider = Provider::bedrock("us-east-1", None).unwrap();
        check(
            &provider,
            &[
                (
                    "POST /model/us.anthropic.claude-opus-5-5/invoke-with-response-stream",
                    "/model/{model}/invoke-with-response-stream us.anthropic.claude-opus-5-5",
                ),
                (
                    "POST /model/anthropic.claude-sonnet-4-5-20250929-v1:0/invoke",
                    "/model/{model}/invoke anthropic.claude-sonnet-4-5-20250929-v1:0",
                ),
                (
                    "POST /model/anthropic.claude-v1%3A0/count-tokens",
                    "/model/{model}/count-tokens anthropic.claude-v1:0",
                ),
                (
                    "POST /model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123%3Ainference-profile%2Fx/invoke",
                    "/model/{model}/invoke arn:aws:bedrock:us-east-1:123:inference-profile/x",
                ),
                ("GET /inference-profiles?type=SYSTEM_DEFINED", "no profiles"),
                ("POST /model/x/converse", "path"),
                ("POST /model//invoke", "path"),
                ("POST /model/../invoke", "path"),
                ("POST /model/a%2F..%2Fb/invoke", "path"),
                ("POST /model/a%2F%2Fb/invoke", "path"),
                ("POST /model/a%00/invoke", "path"),
                ("POST /model/a%/invoke", "path"),
                ("POST /model/a/b/invoke", "path"),
                ("POST /model/x/invoke/", "path"),
                ("GET /model/x/invoke", "path"),
                ("POST /v1/messages", "path"),
                ("POST /model/x/invoke?a=b", "query"),
            ],
        );
        let long = format!("POST /model/{}/invoke", "a".repeat(MAX_MODEL_BYTES + 1));
        check(&provider, &[(&long, "path")]);
    }

    #[test]
    fn vertex_is_bound_to_its_project_and_region() {
        let provider = Provider::vertex("my-proj", "us-east5", None).unwrap();
        check(
            &provider,
            &[
                (
                    "POST /v1/projects/my-proj/locations/us-east5/publishers/anthropic/models/claude-opus-5-5:streamRawPredict",
                    "/v1/…/models/{model}:streamRawPredict claude-opus-5-5",
                ),
                (
                    "POST /v1/projects/my-proj/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict",
                    "/v1/…/models/{model}:rawPredict claude-sonnet-4-5@20250929",
                ),
                (
                    "POST /v1/projects/my-proj/locations/us-east5/publishers/anthropic/models/count-tokens:rawPredict",
                    "/v1/…/models/count-tokens:rawPredict",
                ),
                (
                    "POST /v1/projects/other/locations/us-east5/publishers/anthropic/models/x:rawPredict",
                    "path",
                ),
                (
                    "POST /v1/projects/my-proj/locations/us-east1/publishers/anthropic/models/x:rawPredict",
                    "path",
                ),
                (
                    "POST /v1/projects/my-proj-2/locations/us-east5/publishers/anthropic/models/x:rawPredict",
                    "path",
                ),
                (
                    "POST /v1/projects/my-proj/locations/us-east5/publishers/google/models/x:rawPredict",
                    "path",
                ),
                (
                    "POST /v1/projects/my-proj/locations/us-east5/publishers/anthropic/models/x:predict",
                    "path",
                ),
                (
                    "POST /v1/projects/my-proj/locations/us-east5/publishers/anthropic/models/a/b:rawPredict",
                    "path",
                ),
                (
                    "POST /v1/projects/my-proj/locations/us-east5/publishers/anthropic/models/count-tokens:streamRawPredict",
                    "path",
                ),
            ],
        );
    }
}
