//! Keys of AWS from each place that a host may have them in, with scripted services on loopback. AWS's library reads the
//! environment of its process, so each look runs in a process of its own: this program, told to run `look` alone.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::support::*;
use egress::{
    AwsChain, AwsKeys, AwsRole, ContainerToken, Credential, HostClient, Provider, Source, Trust,
};

const BEDROCK_BODY: &str = r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;
/// Parts of keys that must be seen nowhere but on their way to AWS.
const SECRET_KEY: &str = "canary/secret/key";
const SESSION_TOKEN: &str = "canarysessiontoken";

fn soon(seconds: u64) -> String {
    let time = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn client() -> HostClient {
    let trust = Trust {
        machine: false,
        extra_pem: Vec::new(),
    };
    HostClient::new(&trust).unwrap()
}

fn keys_json(id: &str, seconds: u64) -> String {
    format!(
        r#"{{"Code":"Success","Version":1,"Type":"AWS-HMAC","AccessKeyId":"{id}","SecretAccessKey":"{SECRET_KEY}","Token":"{SESSION_TOKEN}","SessionToken":"{SESSION_TOKEN}","Expiration":"{}","LastUpdated":"2026-01-01T00:00:00Z"}}"#,
        soon(seconds)
    )
}

fn assumed_xml(action: &str, id: &str, seconds: u64) -> Vec<Piece> {
    let body = format!(
        r#"<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><AssumedRoleUser><AssumedRoleId>A:x</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/x</Arn></AssumedRoleUser><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>{SESSION_TOKEN}</SessionToken><Expiration>{}</Expiration></Credentials></{action}Result></{action}Response>"#,
        soon(seconds)
    );
    answer("200 OK", "content-type: text/xml\r\n", &body)
}

/// Not a test: what a test of this file runs in an environment of its own. Says whether the one request to Bedrock was
/// answered, and everything that was shown or logged besides.
#[test]
#[ignore = "run by the other tests of this file, each in an environment of its own"]
fn look() {
    let text = |name: &str| std::env::var(name).ok();
    let role = text("TEST_ROLE").map(|arn| AwsRole {
        arn,
        external_id: text("TEST_EXTERNAL_ID"),
        source_identity: true,
        narrowed: true,
    });
    let chain = AwsChain {
        region: Some("us-east-1".to_owned()),
        keys: text("TEST_KEY_ID").map(|id| AwsKeys {
            access_key_id: secret(&id),
            secret_access_key: secret(SECRET_KEY),
            session_token: None,
        }),
        profile: text("TEST_PROFILE"),
        role,
        container: text("TEST_CONTAINER_TOKEN").map(|token| ContainerToken {
            place: text("AWS_CONTAINER_CREDENTIALS_FULL_URI").unwrap_or_default(),
            token: secret(&token),
        }),
    };
    // As the server logs at its loudest: what AWS's library writes is left out there too.
    tracing_subscriber::fmt()
        .with_env_filter("trace,aws=off")
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let source = Source::aws(chain, client());
        let url = text("TEST_BEDROCK").unwrap();
        let mut setting = Setting::first_party(&url);
        setting.provider = Provider::bedrock("us-east-1", Some(&url)).unwrap();
        println!("shown: {source:?}");
        setting.credential = Some(Credential::Source(source));
        let bench = Arc::new(setting.bench());
        // A crowd: one of them asks, the others wait for it.
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let bench = Arc::clone(&bench);
                tokio::spawn(
                    async move { bench.send(&post("/model/m/invoke", BEDROCK_BODY)).await },
                )
            })
            .collect();
        for answer in asked {
            let said = answer.await.unwrap();
            println!("answer: {} {:?} {said}", status(&said), rule(&said));
        }
    });
}

struct Looked {
    said: String,
    bedrock: Upstream,
}

impl Looked {
    /// Which key signed what came to Bedrock.
    fn signed_by(&self, id: &str) -> bool {
        let asked = self.bedrock.asked();
        let signature = format!("Credential={id}/");
        assert!(!asked.is_empty(), "nothing came to Bedrock: {}", self.said);
        asked.iter().all(|request| request.contains(&signature))
    }
}

/// Runs `look` with these variables beside those that lead away from this machine's own credentials.
async fn looked(directory: &Path, variables: &[(&str, String)]) -> Looked {
    let bedrock = Upstream::saying(json(&message(1, 1))).await;
    looked_at(directory, variables, bedrock).await
}

async fn looked_at(directory: &Path, variables: &[(&str, String)], bedrock: Upstream) -> Looked {
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "aws::look", "--ignored", "--nocapture"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", directory)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("TEST_BEDROCK", &bedrock.url)
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("canary"), "{said}");
    Looked { said, bedrock }
}

fn variable(name: &'static str, value: impl ToString) -> (&'static str, String) {
    (name, value.to_string())
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn profiles_give_keys_processes_and_roles() {
    let directory = tempfile::tempdir().unwrap();
    let process = directory.path().join("process");
    fs::write(
        directory.path().join("printed"),
        keys_json("AKIDPROCESS", 3600),
    )
    .unwrap();
    script(
        &process,
        &format!("cat {}/printed", directory.path().display()),
    );
    let sts = Upstream::start(|_| assumed_xml("AssumeRole", "AKIDROLE", 3600)).await;
    fs::create_dir(directory.path().join(".aws")).unwrap();
    let config = format!(
        "[profile keys]\naws_access_key_id = AKIDFILE\naws_secret_access_key = {SECRET_KEY}\n[profile process]\ncredential_process = {}\n[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = keys\nregion = us-east-1\n",
        process.display()
    );
    fs::write(directory.path().join(".aws/config"), config).unwrap();
    for (profile, id) in [
        ("keys", "AKIDFILE"),
        ("process", "AKIDPROCESS"),
        ("role", "AKIDROLE"),
    ] {
        let variables = [
            variable("TEST_PROFILE", profile),
            // A profile that is named comes before keys of the environment.
            variable("TEST_KEY_ID", "AKIDENVIRONMENT"),
            variable("AWS_ENDPOINT_URL_STS", &sts.url),
        ];
        assert!(looked(directory.path(), &variables).await.signed_by(id));
    }
    let variables = [variable("TEST_KEY_ID", "AKIDENVIRONMENT")];
    let plain = looked(directory.path(), &variables).await;
    assert!(plain.signed_by("AKIDENVIRONMENT"));
    // A process that fails: what it wrote is not repeated.
    script(&process, "echo canary; echo canary >&2; exit 1");
    let failed = looked(directory.path(), &[variable("TEST_PROFILE", "process")]).await;
    assert!(failed.bedrock.asked().is_empty());
    assert!(
        failed
            .said
            .contains("answer: 503 Some(\"credential_source\")"),
        "{}",
        failed.said
    );
}

#[tokio::test]
async fn the_metadata_service_is_asked_once_for_a_crowd() {
    let directory = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let imds = Upstream::start(move |request| {
        let line = request.lines().next().unwrap_or_default().to_owned();
        if line.starts_with("PUT /latest/api/token") {
            return answer(
                "200 OK",
                "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n",
                "canarytoken",
            );
        }
        if !request.contains("canarytoken") {
            return answer("401 Unauthorized", "", "");
        }
        if line.contains("security-credentials") && line.contains("the-role") {
            counted.fetch_add(1, Ordering::SeqCst);
            return json(&keys_json("AKIDINSTANCE", 3600));
        }
        if line.contains("security-credentials") {
            return answer("200 OK", "", "the-role");
        }
        answer("404 Not Found", "", "")
    })
    .await;
    let variables = [
        variable("AWS_EC2_METADATA_DISABLED", "false"),
        variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds.url),
    ];
    let looked = looked(directory.path(), &variables).await;
    assert!(looked.signed_by("AKIDINSTANCE"));
    assert_eq!(looked.bedrock.asked().len(), 8);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn containers_and_web_identities_have_keys() {
    let directory = tempfile::tempdir().unwrap();
    let ecs = Upstream::start(|request| {
        if request.contains("canarycontainer") {
            json(&keys_json("AKIDCONTAINER", 3600))
        } else {
            answer("401 Unauthorized", "", "")
        }
    })
    .await;
    let variables = [
        variable(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{}/keys", ecs.url),
        ),
        variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canarycontainer"),
    ];
    assert!(
        looked(directory.path(), &variables)
            .await
            .signed_by("AKIDCONTAINER")
    );
    // Handed over beside the environment, as the server has it.
    let full = variable(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        format!("{}/keys?who=me", ecs.url),
    );
    let token = variable("TEST_CONTAINER_TOKEN", "canarycontainer");
    let handed = looked(directory.path(), &[full.clone(), token]).await;
    assert!(handed.signed_by("AKIDCONTAINER"));
    // Without it there are none: it was the token.
    let without = looked(directory.path(), &[full]).await;
    assert!(without.bedrock.asked().is_empty());

    let token = directory.path().join("token");
    fs::write(&token, "canaryidentity").unwrap();
    let sts = Upstream::start(|request| {
        if request.contains("Action=AssumeRoleWithWebIdentity")
            && request.contains("WebIdentityToken=canaryidentity")
        {
            assumed_xml("AssumeRoleWithWebIdentity", "AKIDIDENTITY", 3600)
        } else {
            answer("400 Bad Request", "", "")
        }
    })
    .await;
    let variables = [
        variable("AWS_WEB_IDENTITY_TOKEN_FILE", token.display()),
        variable("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        variable("AWS_ENDPOINT_URL_STS", &sts.url),
    ];
    assert!(
        looked(directory.path(), &variables)
            .await
            .signed_by("AKIDIDENTITY")
    );
}

#[tokio::test]
async fn single_sign_on_has_keys() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join(".aws/sso/cache");
    fs::create_dir_all(&cache).unwrap();
    let config = "[profile person]\nsso_session = us\nsso_account_id = 123456789012\nsso_role_name = Dev\n[sso-session us]\nsso_region = us-east-1\nsso_start_url = https://example.awsapps.com/start\n";
    fs::write(directory.path().join(".aws/config"), config).unwrap();
    let token = format!(
        r#"{{"accessToken":"canaryaccess","expiresAt":"{}","region":"us-east-1","startUrl":"https://example.awsapps.com/start"}}"#,
        soon(3600)
    );
    // The file's name is the SHA-1 of the session's name, `us`.
    let sum = std::process::Command::new("sh")
        .args(["-c", "printf us | sha1sum | cut -d' ' -f1"])
        .output()
        .unwrap();
    let name = String::from_utf8(sum.stdout).unwrap();
    fs::write(cache.join(format!("{}.json", name.trim())), token).unwrap();
    let sso = Upstream::start(|request| {
        if !request.contains("canaryaccess") {
            return answer("401 Unauthorized", "", "{}");
        }
        let end = (SystemTime::now() + Duration::from_secs(3600))
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        json(&format!(
            r#"{{"roleCredentials":{{"accessKeyId":"AKIDPERSON","secretAccessKey":"{SECRET_KEY}","sessionToken":"{SESSION_TOKEN}","expiration":{end}}}}}"#
        ))
    })
    .await;
    let variables = [
        variable("TEST_PROFILE", "person"),
        variable("AWS_ENDPOINT_URL_SSO", &sso.url),
    ];
    assert!(
        looked(directory.path(), &variables)
            .await
            .signed_by("AKIDPERSON")
    );
}

#[tokio::test]
async fn a_role_is_assumed_for_the_session_alone_and_with_no_more_than_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let sts = Upstream::start(|_| assumed_xml("AssumeRole", "AKIDROLE", 3600)).await;
    let variables = [
        variable("TEST_KEY_ID", "AKIDENVIRONMENT"),
        variable("TEST_ROLE", "arn:aws:iam::1:role/bedrock"),
        variable("TEST_EXTERNAL_ID", "outside"),
        variable("AWS_ENDPOINT_URL_STS", &sts.url),
    ];
    let looked = looked(directory.path(), &variables).await;
    assert!(looked.signed_by("AKIDROLE"));
    let asked = sts.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let session = model::SessionId::from_bytes(Default::default()).to_string();
    for part in [
        "Credential=AKIDENVIRONMENT/".to_owned(),
        "Action=AssumeRole&".to_owned(),
        "ExternalId=outside".to_owned(),
        format!("SourceIdentity={session}"),
        format!("RoleSessionName=claude-code-mcp-{session}"),
        "bedrock%3AInvokeModel%2A".to_owned(),
    ] {
        assert!(asked[0].contains(&part), "{part}: {}", asked[0]);
    }
}

#[tokio::test]
async fn a_role_is_assumed_with_the_newest_keys_where_the_old_ones_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (process, count) = (
        directory.path().join("process"),
        directory.path().join("count"),
    );
    let printed = keys_json("AKID$n", 3600).replace('"', "\\\"");
    script(
        &process,
        &format!(
            "echo x >>{0}; n=$(wc -l <{0}); echo \"{printed}\"",
            count.display()
        ),
    );
    fs::create_dir(directory.path().join(".aws")).unwrap();
    let config = format!("[profile p]\ncredential_process = {}\n", process.display());
    fs::write(directory.path().join(".aws/config"), config).unwrap();
    let sts = Upstream::start(|request| {
        if request.contains("Credential=AKID2/") {
            return assumed_xml("AssumeRole", "AKIDROLE", 3600);
        }
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredTokenException</Code><Message>expired</Message></Error></ErrorResponse>";
        let mut late = vec![Piece::Wait(Duration::from_millis(1200))];
        late.extend(answer("403 Forbidden", "content-type: text/xml\r\n", body));
        late
    })
    .await;
    let variables = [
        variable("TEST_PROFILE", "p"),
        variable("TEST_ROLE", "arn:aws:iam::1:role/bedrock"),
        variable("AWS_ENDPOINT_URL_STS", &sts.url),
    ];
    let looked = looked(directory.path(), &variables).await;
    assert!(looked.signed_by("AKIDROLE"));
    assert_eq!(sts.asked().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_got_is_said_without_what_was_heard() {
    let directory = tempfile::tempdir().unwrap();
    for body in [
        format!("<garbage>{SECRET_KEY}"),
        "<ErrorResponse><Error><Code>AccessDenied</Code><Message>you may not</Message></Error></ErrorResponse>".to_owned(),
    ] {
        let sts = Upstream::saying(answer("403 Forbidden", "content-type: text/xml\r\n", &body)).await;
        let variables = [
            variable("TEST_KEY_ID", "AKIDENVIRONMENT"),
            variable("TEST_ROLE", "arn:aws:iam::1:role/bedrock"),
            variable("AWS_ENDPOINT_URL_STS", &sts.url),
        ];
        let looked = looked(directory.path(), &variables).await;
        assert!(looked.bedrock.asked().is_empty());
        assert!(looked.said.contains("answer: 503 Some(\"credential_source\")"), "{}", looked.said);
        assert!(!sts.asked().is_empty());
        assert!(looked.said.contains("the role was not assumed"), "{}", looked.said);
        assert_eq!(looked.said.contains("you may not"), body.contains("you may not"));
    }
    // Nothing anywhere.
    let looked = looked(directory.path(), &[]).await;
    assert!(
        looked.said.contains("no profile, single sign-on"),
        "{}",
        looked.said
    );
}

#[tokio::test]
async fn keys_that_ended_before_their_time_are_got_anew_once() {
    let directory = tempfile::tempdir().unwrap();
    let process = directory.path().join("process");
    let count = directory.path().join("count");
    // Each run prints another key; a second apart, so that asking anew is allowed.
    let printed = keys_json("AKID$n", 3600).replace('"', "\\\"");
    script(
        &process,
        &format!(
            "echo x >>{0}; n=$(wc -l <{0}); echo \"{printed}\"",
            count.display()
        ),
    );
    fs::create_dir(directory.path().join(".aws")).unwrap();
    let config = format!("[profile p]\ncredential_process = {}\n", process.display());
    fs::write(directory.path().join(".aws/config"), config).unwrap();
    let bedrock = Upstream::start(|request| {
        if request.contains("Credential=AKID1/") {
            let mut late = vec![Piece::Wait(Duration::from_millis(1200))];
            late.extend(answer(
                "403 Forbidden",
                "x-amzn-errortype: ExpiredTokenException\r\n",
                r#"{"message":"The security token included in the request is expired"}"#,
            ));
            return late;
        }
        json(&message(1, 1))
    })
    .await;
    let looked = looked_at(directory.path(), &[variable("TEST_PROFILE", "p")], bedrock).await;
    assert_eq!(
        looked.said.matches("answer: 200").count(),
        8,
        "{}",
        looked.said
    );
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 2);
    assert_eq!(looked.bedrock.asked().len(), 16);
}
