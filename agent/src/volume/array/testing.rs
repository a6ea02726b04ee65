//! A small array for the tests of the client layer: replies are whatever a closure makes of a request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use config::Secret;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::client::Settings;
use super::tls::Trust;
use super::{ArrayError, Basic, Client};
use crate::volume::{Gauge, Volume};

type Answer = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

/// A server on 127.0.0.1 until it is dropped.
pub(in crate::volume) struct Server {
    pub(in crate::volume) url: String,
    /// Heads and bodies of what came.
    pub(in crate::volume) seen: Arc<Mutex<Vec<String>>>,
    /// The certificate in PEM.
    pub(in crate::volume) certificate: String,
    pub(in crate::volume) fingerprint: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(in crate::volume) async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Server::listen(None, answer).await
    }

    /// With a self-signed certificate for this name.
    pub(in crate::volume) async fn with_tls(
        name: &str,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Server::listen(Some(name), answer).await
    }

    async fn listen(name: Option<&str>, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.unwrap_or("unused").to_owned()]).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], signing_key.serialize_der().try_into().unwrap())
                .unwrap();
        let acceptor = name.map(|_| TlsAcceptor::from(Arc::new(config)));
        let scheme = if name.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (seen, answer): (_, Answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer, acceptor) = (Arc::clone(&log), Arc::clone(&answer), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => converse(stream, log, answer).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                converse(stream, log, answer).await;
                            }
                        }
                    }
                });
            }
        });
        let (certificate, fingerprint) = (cert.pem(), super::tls::fingerprint(cert.der()));
        Server { url, seen, certificate, fingerprint, task }
    }

    pub(in crate::volume) fn count(&self, part: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|request| request.contains(part)).count()
    }

    pub(in crate::volume) fn settings(&self, trust: Trust) -> Settings {
        Settings {
            volume: "filer".into(),
            keys: "netapp",
            verify: "netapp_verify_ssl",
            endpoints: vec![self.url.clone()],
            trust,
            secret: Secret::new("hunter2".into()),
            patience: Duration::from_secs(5),
        }
    }

    /// A client with HTTP Basic that trusts the system's authorities.
    pub(in crate::volume) fn client(&self) -> Client {
        basic(self.settings(Trust::System))
    }
}

pub(in crate::volume) fn basic(settings: Settings) -> Client {
    let basic = Basic { user: "admin".into(), keys: "netapp_password", busy: |_| false };
    Client::new(settings, Box::new(basic))
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: Arc<Mutex<Vec<String>>>,
    answer: Answer,
) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some(end) = text.find("\r\n\r\n") else {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
            continue;
        };
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        while bytes.len() < end + 4 + length {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        let request = String::from_utf8_lossy(&bytes[..end + 4 + length]).into_owned();
        bytes.drain(..end + 4 + length);
        log.lock().unwrap().push(request.clone());
        let reply = answer(&request);
        if reply.is_empty() || stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}

/// A reply with a JSON body; `head` is the status line's rest, with further header lines after it.
pub(in crate::volume) fn reply(head: &str, body: &str) -> Vec<u8> {
    reply_as("application/json", head, body)
}

pub(in crate::volume) fn reply_as(content_type: &str, head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// An array that answers with the examples of a corpus, spoilt: the first line of each is a part of the calls that it
/// answers.
struct Spoilt {
    server: Server,
    chance: Arc<Mutex<spoil::Chance>>,
}

impl Spoilt {
    async fn start(corpus: &str) -> Self {
        let examples: Vec<(String, serde_json::Value)> = spoil::corpus(env!("CARGO_MANIFEST_DIR"), corpus)
            .iter()
            .map(|text| {
                let (part, body) = std::str::from_utf8(text).unwrap().split_once('\n').unwrap();
                (part.to_owned(), serde_json::from_str(body).unwrap())
            })
            .collect();
        let chance = Arc::new(Mutex::new(spoil::Chance::new(1)));
        let held = Arc::clone(&chance);
        let server = Server::start(move |request| {
            let mut chance = held.lock().unwrap();
            let line = request.lines().next().unwrap_or_default();
            // The longest part that fits is the call's own.
            let fits = examples.iter().filter(|(part, _)| line.contains(part.as_str()));
            match fits.max_by_key(|(part, _)| part.len()) {
                Some((_, body)) => reply("200 OK", &spoilt_json(&mut chance, body)),
                None => reply("404 Not Found", "{}"),
            }
        });
        Spoilt { server: server.await, chance }
    }

    /// Begins a new attempt.
    fn reseed(&self, chance: &mut spoil::Chance) {
        *self.chance.lock().unwrap() = spoil::Chance::new(chance.number());
        self.server.seen.lock().unwrap().clear();
    }
}

/// A reply with some of its values exchanged, and now and then one that is no JSON any more.
fn spoilt_json(chance: &mut spoil::Chance, body: &serde_json::Value) -> String {
    const STRANGE: [&str; 14] = [
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "-1",
        "0",
        "1e308",
        "9223372036854775808",
        "0.5",
        "[[[{}]]]",
        "\"../../etc\"",
        "\"a\\u0000\\r\\nhunter2\"",
        "18446744073709551615",
    ];
    let mut body = body.clone();
    for _ in 0..chance.below(4) {
        let strange = serde_json::from_str(STRANGE[chance.below(STRANGE.len())]).unwrap();
        replace_any(chance, &mut body, strange);
    }
    let text = body.to_string().into_bytes();
    let bytes = if chance.below(8) == 0 { chance.spoil(&[text], &[b"{", b"\"", b"\xff"]) } else { text };
    String::from_utf8_lossy(&bytes).into_owned()
}

fn replace_any(chance: &mut spoil::Chance, value: &mut serde_json::Value, new: serde_json::Value) {
    use serde_json::Value::{Array, Object};
    let deeper = chance.below(4) > 0;
    let inner = match value {
        Array(items) if deeper && !items.is_empty() => {
            let at = chance.below(items.len());
            items.get_mut(at)
        }
        Object(fields) if deeper && !fields.is_empty() => {
            let at = chance.below(fields.len());
            fields.values_mut().nth(at)
        }
        _ => None,
    };
    match inner {
        Some(inner) => replace_any(chance, inner, new),
        None => *value = new,
    }
}

/// Asks a spoilt array again and again for what every gauge tells, and for `more`, whose errors it returns. Nothing may
/// panic, and every error must be presentable. `corpus` names the examples, and the target.
#[track_caller]
pub(in crate::volume) fn fuzz<G: Gauge>(
    corpus: &str,
    build: impl Fn(Client) -> G,
    more: impl AsyncFn(&G) -> Vec<Option<ArrayError>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let array = runtime.block_on(Spoilt::start(corpus));
    let volume = Arc::new(Volume::plain("filer", "/".into()));
    let (mut gauge, mut attempts) = (build(array.server.client()), 0);
    spoil::fuzz(corpus, |chance| {
        array.reseed(chance);
        // What is asked once and kept has to be asked again now and then.
        attempts += 1;
        if attempts % 50 == 0 {
            gauge = build(array.server.client());
        }
        let errors = runtime.block_on(async {
            let told = [
                gauge.capacity(&volume).await.err(),
                gauge.hardware(&volume).await.err(),
                gauge.performance(&volume).await.err(),
            ];
            let told = told.into_iter().flatten().map(|error| error.to_string());
            let more = more(&gauge).await.into_iter().flatten().map(|error| error.to_string());
            told.chain(more).collect::<Vec<_>>()
        });
        errors.iter().for_each(|error| assert_presentable(error));
    });
}

/// What must hold for every error that an array can cause: one line, and no secret.
fn assert_presentable(error: &str) {
    assert!(!error.contains("hunter2"), "a secret is shown: {error:?}");
    assert!(!error.chars().any(char::is_control), "control characters are shown: {error:?}");
}
