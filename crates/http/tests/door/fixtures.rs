//! What the conformance suite calls by fixed names, around the service that the product has: our tools are listed beside them,
//! and everything else is answered by it.

#![allow(deprecated, reason = "the suite asks for what the older revision has")]

use std::{borrow::Cow, time::Duration};

use mcp::Service;
use ring::{hmac, rand::SystemRandom};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams,
        CompleteResult, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
        InputRequiredResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ListToolsResult, LoggingLevel, LoggingMessageNotificationParam, PaginatedRequestParams,
        ProgressNotificationParam, ProtocolVersion, ReadResourceRequestParams,
        ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig,
        SetLevelRequestParams, SubscribeRequestParams, Tool, UnsubscribeRequestParams,
    },
    service::RequestContext,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// One red pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// A sound of no length.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
const TOOLS: [&str; 19] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_error_handling",
    "test_tool_with_progress",
    "test_logging_tool",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
    "test_missing_capability",
    "test_streaming_elicitation",
];

/// See the module.
pub struct Fixtures {
    service: Service,
    key: hmac::Key,
}

impl Fixtures {
    /// `key` is one for all requests.
    pub fn new(service: Service, key: hmac::Key) -> Self {
        Fixtures { service, key }
    }

    pub fn key() -> hmac::Key {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("a key")
    }

    fn state(&self, step: &str) -> String {
        let tag = hmac::sign(&self.key, step.as_bytes());
        let tag: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{step}.{tag}")
    }

    /// The step that a state stands for.
    fn step(&self, state: &str) -> Result<String, ErrorData> {
        let step = state.split('.').next().unwrap_or_default();
        match self.state(step) == state {
            true => Ok(step.to_owned()),
            false => Err(ErrorData::invalid_params("requestState is not ours", None)),
        }
    }

    async fn tool(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = |text: &str| json!({ "content": [{ "type": "text", "text": text }] });
        let resource = |uri: &str, kind: &str, text: &str| json!({ "type": "resource", "resource": { "uri": uri, "mimeType": kind, "text": text } });
        let content = match request.name.as_ref() {
            "test_simple_text" => text("This is a simple text response for testing."),
            "test_image_content" => {
                json!({ "content": [{ "type": "image", "data": PNG, "mimeType": "image/png" }] })
            }
            "test_audio_content" => {
                json!({ "content": [{ "type": "audio", "data": WAV, "mimeType": "audio/wav" }] })
            }
            "test_embedded_resource" => json!({ "content": [resource(
                "test://embedded-resource", "text/plain", "This is an embedded resource content.")] }),
            "test_multiple_content_types" => json!({ "content": [
                { "type": "text", "text": "Multiple content types test:" },
                { "type": "image", "data": PNG, "mimeType": "image/png" },
                resource("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
            ] }),
            "test_error_handling" => json!({ "isError": true, "content": [
                { "type": "text", "text": "This tool intentionally returns an error for testing" }] }),
            "test_tool_with_progress" => {
                for progress in [0.0, 50.0, 100.0] {
                    if let Some(token) = context.meta.get_progress_token() {
                        let told =
                            ProgressNotificationParam::new(token, progress).with_total(100.0);
                        context.peer.notify_progress(told).await.expect("a client");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                text("done")
            }
            "test_tool_with_logging" => {
                for words in [
                    "Tool execution started",
                    "Tool processing data",
                    "Tool execution completed",
                ] {
                    let message =
                        LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(words));
                    context
                        .peer
                        .notify_logging_message(message)
                        .await
                        .expect("a client");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                text("done")
            }
            "test_missing_capability" => {
                let declared = context.client_capabilities().and_then(|can| can.sampling);
                if declared.is_none() {
                    let needs = json!({ "requiredCapabilities": { "sampling": {} } });
                    return Err(ErrorData::new(
                        rmcp::model::ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY,
                        "the client has not declared sampling",
                        Some(needs),
                    ));
                }
                text("declared")
            }
            name if name.starts_with("test_input_required_result") => {
                return self.rounds(&request, context);
            }
            _ => text("done"),
        };
        Ok(complete::<CallToolResult>(content).into())
    }

    fn rounds(
        &self,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let answers = serde_json::to_value(&request.input_responses).unwrap_or_default();
        let step = request
            .request_state
            .as_deref()
            .map(|state| self.step(state))
            .transpose()?;
        let ask = |message: &str, name: &str, kind: &str| {
            json!({ "method": "elicitation/create", "params": { "mode": "form", "message": message,
                "requestedSchema": { "type": "object", "properties": { name: { "type": kind } }, "required": [name] } } })
        };
        let sample = |prompt: &str, most: u32| {
            json!({ "method": "sampling/createMessage", "params": { "maxTokens": most,
                "messages": [{ "role": "user", "content": { "type": "text", "text": prompt } }] } })
        };
        let roots = || json!({ "method": "roots/list", "params": {} });
        let has = |names: &[&str]| {
            names
                .iter()
                .all(|name| answers.get(name).is_some_and(Value::is_object))
        };
        let said =
            |name: &str, field: &str| answers[name]["content"][field].as_str().map(str::to_owned);
        let (asked, state) = match request.name.as_ref() {
            "test_input_required_result_elicitation" => {
                if let Some(name) = said("user_name", "name") {
                    return Ok(told(&format!("Hello, {name}!")));
                }
                (
                    json!({ "user_name": ask("What is your name?", "name", "string") }),
                    None,
                )
            }
            "test_input_required_result_sampling" if has(&["capital_question"]) => {
                return Ok(told(&answers["capital_question"]["content"].to_string()));
            }
            "test_input_required_result_sampling" => (
                json!({ "capital_question": sample("What is the capital of France?", 100) }),
                None,
            ),
            "test_input_required_result_list_roots" if has(&["client_roots"]) => {
                return Ok(told(&answers["client_roots"].to_string()));
            }
            "test_input_required_result_list_roots" => (json!({ "client_roots": roots() }), None),
            "test_input_required_result_multiple_inputs"
                if step.is_some() && has(&["user_name", "greeting", "client_roots"]) =>
            {
                return Ok(told("all there"));
            }
            "test_input_required_result_multiple_inputs" => {
                let asked = json!({ "user_name": ask("What is your name?", "name", "string"),
                    "greeting": sample("Generate a greeting", 50), "client_roots": roots() });
                (asked, Some("many"))
            }
            "test_input_required_result_multi_round" => match step.as_deref() {
                Some("second") if has(&["step2"]) => return Ok(told("both told")),
                Some("first") if has(&["step1"]) => (
                    json!({ "step2": ask("Step 2: What is your favorite color?", "color", "string") }),
                    Some("second"),
                ),
                _ => (
                    json!({ "step1": ask("Step 1: What is your name?", "name", "string") }),
                    Some("first"),
                ),
            },
            "test_input_required_result_capabilities" => {
                let can = context.client_capabilities().unwrap_or_default();
                let mut asked = serde_json::Map::new();
                if can.elicitation.is_some() {
                    asked.insert(
                        "user_name".to_owned(),
                        ask("What is your name?", "name", "string"),
                    );
                }
                if can.sampling.is_some() {
                    asked.insert("greeting".to_owned(), sample("Generate a greeting", 50));
                }
                if asked.is_empty() || has(&["greeting"]) || has(&["user_name"]) {
                    return Ok(told("done"));
                }
                (Value::Object(asked), None)
            }
            _ if step.is_some() && has(&["confirm"]) => return Ok(told("state-ok")),
            _ => (
                json!({ "confirm": ask("Please confirm", "ok", "boolean") }),
                Some("confirm"),
            ),
        };
        Ok(CallToolResponse::InputRequired(InputRequiredResult::new(
            Some(of(asked)),
            state.map(|step| self.state(step)),
        )))
    }
}

/// A result that needs nothing more.
fn complete<T: DeserializeOwned>(mut result: Value) -> T {
    result["resultType"] = json!("complete");
    of(result)
}

fn told(text: &str) -> CallToolResponse {
    complete::<CallToolResult>(json!({ "content": [{ "type": "text", "text": text }] })).into()
}

fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("what the protocol knows")
}

impl ServerHandler for Fixtures {
    fn get_info(&self) -> ServerConfig {
        let mut info = self.service.get_info();
        info.capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_logging()
            .enable_completions()
            .build();
        info
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.service.supported_protocol_versions()
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.service.get_tool(name)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut list = self.service.list_tools(request, context).await?;
        list.tools.extend(TOOLS.map(|name| {
            of::<Tool>(
                json!({ "name": name, "description": "Of the conformance suite",
                "inputSchema": { "type": "object" } }),
            )
        }));
        Ok(list)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match TOOLS.contains(&request.name.as_ref()) {
            true => self.tool(request, &context).await,
            false => self.service.call_tool(request, context).await,
        }
    }

    async fn complete(
        &self,
        _request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Ok(complete(
            json!({ "completion": { "values": ["paris", "park"], "total": 2, "hasMore": false } }),
        ))
    }

    async fn set_level(
        &self,
        _request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(
        &self,
        _request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let argument = |name| json!({ "name": name, "description": name, "required": true });
        Ok(complete(
            json!({ "ttlMs": 1000, "cacheScope": "public", "prompts": [
            { "name": "test_simple_prompt", "description": "Of the suite" },
            { "name": "test_prompt_with_arguments", "description": "Of the suite", "arguments": [argument("arg1"), argument("arg2")] },
            { "name": "test_prompt_with_embedded_resource", "description": "Of the suite", "arguments": [argument("resourceUri")] },
            { "name": "test_prompt_with_image", "description": "Of the suite" },
            { "name": "test_input_required_result_prompt", "description": "Of the suite" },
        ] }),
        ))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let whole = serde_json::to_value(&request).unwrap_or_default();
        let argument = |name: &str| {
            whole["arguments"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let user = |content: Value| json!({ "role": "user", "content": content });
        let text = |text: &str| json!({ "type": "text", "text": text });
        let messages = match request.name.as_str() {
            "test_simple_prompt" => vec![user(text("This is a simple prompt for testing."))],
            "test_prompt_with_arguments" => vec![user(text(&format!(
                "Prompt with arguments: arg1='{}', arg2='{}'",
                argument("arg1"),
                argument("arg2")
            )))],
            "test_prompt_with_embedded_resource" => vec![
                user(
                    json!({ "type": "resource", "resource": { "uri": argument("resourceUri"), "mimeType": "text/plain",
                    "text": "Embedded resource content for testing." } }),
                ),
                user(text("Please process the embedded resource above.")),
            ],
            "test_prompt_with_image" => vec![
                user(json!({ "type": "image", "data": PNG, "mimeType": "image/png" })),
                user(text("Please analyze the image above.")),
            ],
            "test_input_required_result_prompt" => {
                let said = whole["inputResponses"]["user_context"]["content"]["context"].as_str();
                let Some(said) = said else {
                    let ask = json!({ "user_context": { "method": "elicitation/create", "params": { "mode": "form",
                        "message": "What context should the prompt use?", "requestedSchema": { "type": "object",
                        "properties": { "context": { "type": "string" } }, "required": ["context"] } } } });
                    return Ok(GetPromptResponse::InputRequired(InputRequiredResult::new(
                        Some(of(ask)),
                        None,
                    )));
                };
                vec![user(text(said))]
            }
            _ => return Err(ErrorData::invalid_params("there is no such prompt", None)),
        };
        Ok(complete::<GetPromptResult>(json!({ "messages": messages })).into())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resource = |uri: &str, kind: &str| json!({ "uri": uri, "name": uri, "description": "Of the suite", "mimeType": kind });
        Ok(complete(
            json!({ "ttlMs": 1000, "cacheScope": "public", "resources": [
            resource("test://static-text", "text/plain"), resource("test://static-binary", "image/png"),
            resource("test://watched-resource", "text/plain"),
        ] }),
        ))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(complete(
            json!({ "ttlMs": 1000, "cacheScope": "public", "resourceTemplates": [
            { "uriTemplate": "test://template/{id}/data", "name": "template", "description": "Of the suite", "mimeType": "application/json" },
        ] }),
        ))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.as_str();
        let id = uri
            .strip_prefix("test://template/")
            .and_then(|rest| rest.strip_suffix("/data"));
        let content = match (uri, id) {
            ("test://static-text", _) => {
                json!({ "uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource." })
            }
            ("test://static-binary", _) => {
                json!({ "uri": uri, "mimeType": "image/png", "blob": PNG })
            }
            ("test://watched-resource", _) => {
                json!({ "uri": uri, "mimeType": "text/plain", "text": "watched" })
            }
            (_, Some(id)) => {
                let text =
                    json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
                json!({ "uri": uri, "mimeType": "application/json", "text": text.to_string() })
            }
            _ => {
                let data = json!({ "uri": uri });
                return Err(ErrorData::invalid_params("Resource not found", Some(data)));
            }
        };
        let result = json!({ "ttlMs": 1000, "cacheScope": "public", "contents": [content] });
        Ok(complete::<ReadResourceResult>(result).into())
    }
}
