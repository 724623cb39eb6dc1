//! An OAuth issuer of the tests: publishes keys on a loopback address, and makes tokens, right ones and wrong ones.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};

/// An RSA key of the tests alone: ring makes none.
const RSA: &[u8] = include_bytes!("issuer-rsa.pk8");

/// See the module.
pub struct Issuer {
    pub address: SocketAddr,
    served: Arc<Served>,
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

#[derive(Default)]
struct Served {
    documents: Mutex<Vec<(String, String)>>,
    questions: AtomicUsize,
    /// How it treats whoever asks.
    mood: Mutex<Mood>,
    ended: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mood {
    #[default]
    Answers,
    HangsUp,
    SaysNothing,
}

impl Issuer {
    /// One that is asked at `http://127.0.0.1:PORT/tenant`.
    pub fn start() -> Self {
        let random = SystemRandom::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = Arc::new(Served::default());
        let answering = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if answering.ended.load(Ordering::Relaxed) {
                    return;
                }
                let answering = Arc::clone(&answering);
                std::thread::spawn(move || answer(stream, &answering));
            }
        });
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let p256 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        let issuer = Issuer {
            address,
            served,
            rsa: RsaKeyPair::from_pkcs8(RSA).expect("the key"),
            p256: EcdsaKeyPair::from_pkcs8(algorithm, p256.as_ref(), &random).expect("a key"),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).expect("a key"),
        };
        issuer.publish(&issuer.metadata(), &issuer.keys());
        issuer
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("http://{}/tenant", self.address)
    }

    pub fn metadata(&self) -> Value {
        json!({ "issuer": self.name(), "jwks_uri": format!("http://{}/keys", self.address) })
    }

    /// Its keys: `rsa`, `p256`, `ed25519`.
    pub fn keys(&self) -> Value {
        let public: PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        let point = &self.p256.public_key().as_ref()[1..];
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig",
              "n": b64(&public.n),
              "e": b64(&public.e) },
            { "kty": "EC", "kid": "p256", "crv": "P-256", "alg": "ES256",
              "x": b64(&point[..32]), "y": b64(&point[32..]) },
            { "kty": "OKP", "kid": "ed25519", "crv": "Ed25519", "x": b64(self.ed25519.public_key().as_ref()) },
            { "kty": "oct", "kid": "secret", "k": b64(b"not for this"), "alg": "HS256" },
            { "kty": "new-kind", "kid": "future" },
        ]})
    }

    /// Publishes that metadata and those keys from now on.
    pub fn publish(&self, metadata: &Value, keys: &Value) {
        let place = "/.well-known/oauth-authorization-server/tenant".to_owned();
        *self.served.documents.lock().expect("documents") = vec![
            (place, metadata.to_string()),
            ("/keys".to_owned(), keys.to_string()),
        ];
    }

    /// Publishes nothing any more.
    pub fn go_silent(&self) {
        self.served.documents.lock().expect("documents").clear();
    }

    /// Hangs up on whoever asks, from now on; what it is asked counts.
    pub fn go_down(&self) {
        self.turn(Mood::HangsUp);
    }

    /// Listens to whoever asks, from now on, and never says anything.
    pub fn hang(&self) {
        self.turn(Mood::SaysNothing);
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.turn(Mood::Answers);
    }

    fn turn(&self, mood: Mood) {
        *self.served.mood.lock().expect("a mood") = mood;
    }

    /// How often anything was asked of it.
    pub fn questions(&self) -> usize {
        self.served.questions.load(Ordering::SeqCst)
    }

    /// Claims of a good token.
    pub fn claims(&self, audience: &str, scope: &str) -> Value {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a time")
            .as_secs();
        json!({
            "iss": self.name(), "sub": "somebody", "aud": audience, "client_id": "a-client",
            "iat": now, "nbf": now, "exp": now + 600, "scope": scope,
        })
    }

    /// A token signed by that algorithm with the key that is meant for it.
    pub fn token(&self, algorithm: &str, claims: &Value) -> String {
        let key = match algorithm {
            "ES256" => "p256",
            "EdDSA" => "ed25519",
            _ => "rsa",
        };
        self.sign(
            &json!({ "alg": algorithm, "typ": "at+jwt", "kid": key }),
            claims,
        )
    }

    /// A token with that header.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            b64(header.to_string().as_bytes()),
            b64(claims.to_string().as_bytes())
        );
        let random = SystemRandom::new();
        let rsa = |padding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa
                .sign(padding, &random, signed.as_bytes(), &mut signature)
                .expect("a signature");
            signature
        };
        let signature = match header["alg"].as_str() {
            Some("ES256") => {
                let signature = self.p256.sign(&random, signed.as_bytes());
                signature.expect("a signature").as_ref().to_vec()
            }
            Some("EdDSA") => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
            Some("PS256") => rsa(&RSA_PSS_SHA256),
            Some("none") => Vec::new(),
            // The oldest trick: the public key as a shared secret.
            Some("HS256") => {
                let key = self.rsa.public().as_ref();
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
                ring::hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
            }
            _ => rsa(&RSA_PKCS1_SHA256),
        };
        format!("{signed}.{}", b64(&signature))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.served.ended.store(true, Ordering::Relaxed);
        let _wakes_it = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream, served: &Served) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    // Before the question counts: whoever has counted it may have it come back.
    let mood = *served.mood.lock().expect("a mood");
    served.questions.fetch_add(1, Ordering::SeqCst);
    match mood {
        Mood::Answers => {}
        Mood::HangsUp => return,
        Mood::SaysNothing => {
            // Until whoever asked leaves.
            let _left = stream.read(&mut byte);
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let documents = served.documents.lock().expect("documents").clone();
    let found = documents.into_iter().find(|(place, _)| place == path);
    let (status, body) = match found {
        Some((_, body)) if body.starts_with("\"redirect ") => {
            let to = body
                .trim_matches('"')
                .trim_start_matches("redirect ")
                .to_owned();
            (format!("302 Found\r\nLocation: {to}"), String::new())
        }
        Some((_, body)) => ("200 OK".to_owned(), body),
        None => ("404 Not Found".to_owned(), String::new()),
    };
    let length = body.len();
    let _gone = stream.write_all(
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .as_bytes(),
    );
}

pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
