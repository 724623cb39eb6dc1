//! Access tokens of Google from each kind of application default credentials, with scripted services on loopback.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::*;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use egress::{Credential, GoogleDefault, HostClient, Provider, Source, Trust};
use serde_json::{Value, json as object};

const PATH: &str = "/v1/projects/p/locations/global/publishers/anthropic/models/m:rawPredict";
const VERTEX_BODY: &str =
    r#"{"anthropic_version":"vertex-2023-10-16","max_tokens":10,"messages":[]}"#;

fn source(places: GoogleDefault) -> Source {
    let trust = Trust {
        machine: false,
        extra_pem: Vec::new(),
    };
    Source::google(places, HostClient::new(&trust).unwrap())
}

fn bench(vertex: &Upstream, places: GoogleDefault) -> Arc<Bench> {
    let mut setting = Setting::first_party(&vertex.url);
    setting.provider = Provider::vertex("p", "global", Some(&vertex.url)).unwrap();
    setting.credential = Some(Credential::Source(source(places)));
    Arc::new(setting.bench())
}

/// The file, and what one request then carries to Vertex; or the whole answer.
async fn carried(places: GoogleDefault) -> Result<String, String> {
    let vertex = Upstream::saying(json(&message(1, 1))).await;
    let said = bench(&vertex, places).send(&post(PATH, VERTEX_BODY)).await;
    if status(&said) != 200 {
        assert!(vertex.asked().is_empty());
        return Err(said);
    }
    let asked = vertex.asked().remove(0);
    let line = asked
        .lines()
        .find(|line| line.starts_with("authorization: "));
    Ok(line.unwrap().to_owned())
}

fn named(directory: &Path, account: &Value) -> GoogleDefault {
    let path = directory.join("adc.json");
    fs::write(&path, account.to_string()).unwrap();
    GoogleDefault {
        file: Some(path),
        ..GoogleDefault::default()
    }
}

fn token(text: &str, seconds: u64) -> Vec<Piece> {
    json(&format!(
        r#"{{"access_token":"{text}","expires_in":{seconds},"token_type":"Bearer"}}"#
    ))
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Another implementation believes the signature.
fn verify(directory: &Path, key: &Path, assertion: &str) -> Value {
    let (said, signature) = assertion.rsplit_once('.').unwrap();
    let (said_file, signature_file) = (directory.join("said"), directory.join("signature"));
    let public = directory.join("public.pem");
    fs::write(&said_file, said).unwrap();
    fs::write(&signature_file, URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    fs::write(
        &public,
        openssl(&["pkey", "-in", key.to_str().unwrap(), "-pubout"]),
    )
    .unwrap();
    openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        &text(&public),
        "-signature",
        &text(&signature_file),
        &text(&said_file),
    ]);
    let claims = said.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn a_service_account_signs_for_its_token() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    let pem = openssl(&[
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
    ]);
    fs::write(&key, &pem).unwrap();
    let service = Upstream::saying(token("ya29.service", 3600)).await;
    let address = format!("{}/token", service.url);
    let account = object!({
        "type": "service_account", "client_email": "robot@p.iam.gserviceaccount.com",
        "private_key": String::from_utf8(pem).unwrap(), "private_key_id": "id", "token_uri": address,
        "project_id": "p", "client_id": "1", "universe_domain": "googleapis.com",
    });
    let said = carried(named(directory.path(), &account)).await;
    assert_eq!(said.unwrap(), "authorization: Bearer ya29.service");
    let asked = service.asked().remove(0);
    assert!(asked.contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"));
    let (_, assertion) = asked.split_once("assertion=").unwrap();
    let claims = verify(directory.path(), &key, assertion);
    assert_eq!(claims["iss"], "robot@p.iam.gserviceaccount.com");
    assert_eq!(claims["aud"], address);
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        3600
    );

    let mut broken = account;
    broken["private_key"] = "canary".into();
    let said = carried(named(directory.path(), &broken)).await.unwrap_err();
    assert_eq!(rule(&said), Some("credential_source"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

fn person(address: &str) -> Value {
    object!({
        "type": "authorized_user", "client_id": "id", "client_secret": "s+cret", "refresh_token": "1//canary",
        "token_uri": address, "quota_project_id": "p",
    })
}

#[tokio::test]
async fn a_person_and_whom_they_stand_for_have_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let service = Upstream::start(|request| {
        if request.contains("grant_type=refresh_token") {
            assert!(request.contains("client_secret=s%2Bcret"));
            return token("ya29.person", 3600);
        }
        assert!(request.contains("authorization: Bearer ya29.person"));
        assert!(request.contains("\"delegates\":[\"d\"]"));
        json(r#"{"accessToken":"ya29.robot","expireTime":"2099-01-01T00:00:00Z"}"#)
    })
    .await;
    let own = person(&service.url);
    let said = carried(named(directory.path(), &own)).await;
    assert_eq!(said.unwrap(), "authorization: Bearer ya29.person");
    let robot = object!({
        "type": "impersonated_service_account", "source_credentials": own, "delegates": ["d"],
        "service_account_impersonation_url": format!("{}/robot:generateAccessToken", service.url),
    });
    let said = carried(named(directory.path(), &robot)).await;
    assert_eq!(said.unwrap(), "authorization: Bearer ya29.robot");
    // As gcloud's own file, which may be missing: then the metadata server is asked.
    let mut usual = named(directory.path(), &own);
    usual.usual_file = usual.file.take();
    assert_eq!(
        carried(usual).await.unwrap(),
        "authorization: Bearer ya29.person"
    );
}

#[tokio::test]
async fn the_machine_itself_has_a_token() {
    let metadata = Upstream::start(|request| {
        assert!(request.contains("metadata-flavor: Google"));
        assert!(
            request.starts_with("GET /computeMetadata/v1/instance/service-accounts/default/token ")
        );
        token("ya29.machine", 3600)
    })
    .await;
    let places = GoogleDefault {
        usual_file: Some(PathBuf::from("/nonexistent/adc.json")),
        metadata_host: metadata.url.strip_prefix("http://").map(str::to_owned),
        ..GoogleDefault::default()
    };
    assert_eq!(
        carried(places.clone()).await.unwrap(),
        "authorization: Bearer ya29.machine"
    );
    // A file that is named must be there.
    let named = GoogleDefault {
        file: places.usual_file.clone(),
        ..places
    };
    assert!(carried(named).await.is_err());
}

#[tokio::test]
async fn a_workload_of_another_cloud_exchanges_its_token() {
    let directory = tempfile::tempdir().unwrap();
    let subject = directory.path().join("subject");
    fs::write(&subject, "canarysubject\n").unwrap();
    let service = Upstream::start(|request| {
        if request.starts_with("GET /subject ") {
            assert!(request.contains("metadata: true"));
            return json(r#"{"access_token":"canarysubject"}"#);
        }
        if request.contains("subject_token=canarysubject") {
            assert!(request.contains("audience=%2F%2Fiam.googleapis.com%2Fpool"));
            return token("ya29.exchanged", 3600);
        }
        assert!(request.contains("authorization: Bearer ya29.exchanged"));
        json(r#"{"accessToken":"ya29.robot","expireTime":"2099-01-01T00:00:00Z"}"#)
    })
    .await;
    let account = |place: Value| {
        object!({
            "type": "external_account", "audience": "//iam.googleapis.com/pool",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/token", service.url), "credential_source": place,
        })
    };
    let from_file = account(object!({ "file": subject }));
    let from_place = account(object!({
        "url": format!("{}/subject", service.url), "headers": { "Metadata": "true" },
        "format": { "type": "json", "subject_token_field_name": "access_token" },
    }));
    let mut for_robot = from_file.clone();
    for_robot["service_account_impersonation_url"] = format!("{}/robot", service.url).into();
    for (account, text) in [
        (from_file, "exchanged"),
        (from_place, "exchanged"),
        (for_robot, "robot"),
    ] {
        let said = carried(named(directory.path(), &account)).await;
        assert_eq!(said.unwrap(), format!("authorization: Bearer ya29.{text}"));
    }
    let ran = directory.path().join("ran");
    let executable = object!({ "command": format!("/usr/bin/touch {}", ran.display()) });
    let signatures = object!({ "environment_id": "aws1", "url": format!("{}/role", service.url) });
    for place in [
        object!({ "executable": executable.clone() }),
        object!({ "executable": executable, "file": subject }),
        signatures,
        object!({}),
    ] {
        let said = carried(named(directory.path(), &account(place)))
            .await
            .unwrap_err();
        assert!(said.contains("set `vertex_token_command`"), "{said}");
    }
    assert!(!ran.exists());
    assert!(
        service
            .asked()
            .iter()
            .all(|request| !request.contains("/role"))
    );
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_after_a_refusal_while_a_crowd_waits_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let service = Upstream::start(move |_| {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut slow = vec![Piece::Wait(Duration::from_millis(200))];
        // The first one ends at once: within the margin that is kept.
        slow.extend(token(
            &format!("t{number}"),
            if number == 1 { 32 } else { 3600 },
        ));
        slow
    })
    .await;
    let vertex = Upstream::start(|request| {
        if request.contains("Bearer t3\r\n") || request.contains("Bearer t1\r\n") {
            json(&message(1, 1))
        } else {
            answer("401 Unauthorized", "", "{}")
        }
    })
    .await;
    let bench = bench(&vertex, named(directory.path(), &person(&service.url)));
    let crowd = |size: usize| {
        let asked: Vec<_> = (0..size)
            .map(|_| {
                let bench = Arc::clone(&bench);
                tokio::spawn(async move { status(&bench.send(&post(PATH, VERTEX_BODY)).await) })
            })
            .collect();
        async move {
            let mut codes = Vec::new();
            for code in asked {
                codes.push(code.await.unwrap());
            }
            codes
        }
    };
    assert_eq!(crowd(10).await, vec![200; 10]);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // Its end has come: another one, and one only. It is refused, and too young to ask again.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(crowd(10).await, vec![401; 10]);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // A second later it is not used again.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(crowd(10).await, vec![200; 10]);
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn tokens_are_asked_for_by_https_or_within_the_machine_and_refusals_keep_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let said = carried(named(directory.path(), &person("http://192.0.2.1/token"))).await;
    assert!(said.unwrap_err().contains("cannot be used"));
    let service = Upstream::saying(answer(
        "400 Bad Request",
        "",
        r#"{"error":"invalid_grant","error_description":"canary"}"#,
    ))
    .await;
    let places = named(directory.path(), &person(&service.url));
    let said = carried(places.clone()).await.unwrap_err();
    assert!(said.contains("sign in again"), "{said}");
    assert!(!said.contains("canary"), "{said}");
    assert!(!format!("{:?}", source(places)).contains("canary"));
    assert_eq!(service.asked().len(), 1);
}
