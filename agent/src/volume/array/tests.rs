//! The client layer against a small array that misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::error::Kind;
use super::testing::{Server, basic, reply, reply_as};
use super::tls::Trust;
use super::{ArrayError, Call, Client, Manners, Ticket, Wire, header_value};

const LOOK: &str = "look";

fn get() -> Call {
    Call::get(LOOK, "/api/things").query("name", "a b&c")
}

async fn failure(client: &Client, call: &Call) -> String {
    client.send(call).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_call_carries_its_query_body_and_credentials_over_one_kept_connection() {
    let server = Server::start(|_| reply("200 OK", r#"{"n":1}"#)).await;
    let client = server.client();
    assert_eq!(client.send(&get()).await.unwrap().body["n"], 1);
    client.send(&Call::post("make", "/api/things").json(serde_json::json!({"name": "x"}))).await.unwrap();
    let seen = server.seen.lock().unwrap().clone();
    assert!(seen[0].starts_with("GET /api/things?name=a+b%26c HTTP/1.1\r\n"), "{}", seen[0]);
    assert!(seen[0].contains("authorization: Basic YWRtaW46aHVudGVyMg==\r\n"), "{}", seen[0]);
    assert!(seen[1].ends_with(r#"{"name":"x"}"#), "{}", seen[1]);
}

#[tokio::test]
async fn what_is_safe_is_tried_again_and_what_is_not_is_made_once() {
    for (status, call, attempts) in [
        ("503 Busy", get(), 4),
        ("502 Bad Gateway", get(), 4),
        ("429 Slow Down", Call::post(LOOK, "/"), 4),
        ("504 Too Late", Call::post(LOOK, "/"), 1),
        ("500 Oops", get(), 1),
    ] {
        let server = Server::start(move |_| reply(&format!("{status}\r\nretry-after: 0"), "{}")).await;
        let outcome = server.client().send(&call).await;
        assert_eq!(server.count(""), attempts, "{status}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_reason_to_create_twice() {
    let server = Server::start(|_| Vec::new()).await;
    let error = server.client().send(&Call::post("make", "/api/things")).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert_eq!(server.count("POST"), 1);
}

#[tokio::test]
async fn a_pause_that_the_array_asks_for_beyond_the_deadline_ends_the_call_at_once() {
    let server = Server::start(|_| reply("429 Slow Down\r\nretry-after: 60", "{}")).await;
    let begun = Instant::now();
    let error = server.client().send(&get()).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Busy(_)) && begun.elapsed() < Duration::from_secs(2), "{error}");
}

#[tokio::test]
async fn a_reply_that_trickles_is_given_up_in_time() {
    let server = Server::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()).await;
    let mut settings = server.settings(Trust::System);
    settings.patience = Duration::from_millis(300);
    let begun = Instant::now();
    let error = failure(&basic(settings), &get()).await;
    assert!(error.contains("no complete reply within 0.3 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_is_no_json_too_long_or_a_redirect_says_so() {
    let html = Server::start(|_| reply_as("text/html", "200 OK", "<html>Log in</html>")).await;
    let error = failure(&html.client(), &get()).await;
    assert!(error.contains("is \"text/html\" instead of JSON; is netapp_endpoint"), "{error}");
    let long = Server::start(|_| reply("200 OK", &format!("\"{}\"", "x".repeat(9 << 20)))).await;
    assert!(failure(&long.client(), &get()).await.contains("longer than 8 MiB"));
    let elsewhere = Server::start(|_| reply("200 OK", "{}")).await;
    let to = elsewhere.url.clone();
    let here = Server::start(move |_| reply(&format!("307 Go\r\nlocation: {to}/api"), "")).await;
    assert!(failure(&here.client(), &get()).await.contains("correct netapp_endpoint"));
    assert_eq!(elsewhere.count(""), 0, "credentials went elsewhere");
}

#[tokio::test]
async fn refused_basic_credentials_are_not_tried_again_and_again() {
    let server = Server::start(|_| reply("401 No", r#"{"error":{"message":"no"}}"#)).await;
    let client = server.client();
    for _ in 0..10 {
        let error = client.send(&get()).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Credentials(_)), "{error}");
    }
    assert_eq!(server.count(""), 1);
}

#[tokio::test]
async fn nobody_listening_is_an_outage_after_a_few_attempts() {
    let server = Server::start(|_| Vec::new()).await;
    let mut settings = server.settings(Trust::System);
    settings.patience = Duration::from_secs(2);
    drop(server);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = basic(settings).send(&Call::post("make", "/")).await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn one_of_several_endpoints_is_enough() {
    let (gone, there) = (Server::start(|_| Vec::new()).await, Server::start(|_| reply("200 OK", "{}")).await);
    let mut settings = there.settings(Trust::System);
    settings.endpoints.insert(0, gone.url.clone());
    drop(gone);
    let client = basic(settings);
    client.send(&get()).await.unwrap();
    let begun = Instant::now();
    client.send(&get()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(400), "it stays with the one that answered");
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_with_its_fingerprint_and_the_keys_that_help() {
    let server = Server::with_tls("filer.example", |_| reply("200 OK", "{}")).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, &server.certificate).unwrap();
    let error = failure(&basic(server.settings(Trust::Authorities(file.clone()))), &get()).await;
    assert!(error.contains("is for another name") && error.contains("netapp_ca_file"), "{error}");
    let own = Server::with_tls("127.0.0.1", |_| reply("200 OK", "{}")).await;
    let error = failure(&basic(own.settings(Trust::Authorities(file.clone()))), &get()).await;
    assert!(error.contains(&own.fingerprint) && error.contains("netapp_cert_fingerprint"), "{error}");
    assert_eq!(server.count("") + own.count(""), 0);

    std::fs::write(&file, &own.certificate).unwrap();
    basic(own.settings(Trust::Authorities(file))).send(&get()).await.unwrap();
    let pin = |of: &Server| Trust::Pinned(of.fingerprint.replace(':', "").to_lowercase());
    basic(server.settings(pin(&server))).send(&get()).await.unwrap();
    let error = failure(&basic(server.settings(pin(&own))), &get()).await;
    assert!(error.contains("not the pinned one"), "{error}");
    basic(server.settings(Trust::Anybody)).send(&get()).await.unwrap();
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_told_by_every_call_and_stops_nothing_else() {
    let server = Server::start(|_| reply("200 OK", "{}")).await;
    let settings = server.settings(Trust::Authorities("/nonexistent/ca.pem".into()));
    let error = failure(&basic(settings), &get()).await;
    assert!(error.contains("netapp_ca_file: /nonexistent/ca.pem: cannot be read"), "{error}");
}

/// Logs in by a call of its own; each ticket is good until the next one.
struct Tokens;

#[async_trait]
impl Manners for Tokens {
    async fn login(&self, wire: &Wire, _: Option<&Ticket>, deadline: Instant) -> Result<Ticket, ArrayError> {
        let call = Call::post("log in", "/login");
        let reply = wire.exchange(&call, None, self, deadline).await?;
        let token = reply.body["token"].as_str().map(str::to_owned);
        let token = token.ok_or_else(|| wire.error("log in", Kind::Credentials("no".into())))?;
        Ok(Ticket { header: ("x-token", header_value(&token).unwrap()), renew_at: None, refresh: None })
    }
}

/// An array whose tokens end when `valid` is raised.
async fn array_with_tokens(valid: &Arc<AtomicUsize>) -> Server {
    let valid = Arc::clone(valid);
    Server::start(move |request| {
        let now = valid.load(Ordering::SeqCst);
        if request.starts_with("POST /login") {
            return reply("200 OK", &format!(r#"{{"token":"t{now}"}}"#));
        }
        match request.contains(&format!("x-token: t{now}\r\n")) {
            true => reply("200 OK", "{}"),
            false => reply("401 Spent", "{}"),
        }
    })
    .await
}

#[tokio::test]
async fn a_spent_token_is_renewed_once_for_all_who_wait() {
    let valid = Arc::new(AtomicUsize::new(0));
    let server = array_with_tokens(&valid).await;
    let client = Arc::new(Client::new(server.settings(Trust::System), Box::new(Tokens)));
    for round in 0..3 {
        valid.store(round, Ordering::SeqCst);
        let calls = (0..40).map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.send(&get()).await.unwrap().status })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), 200);
        }
        assert_eq!(server.count("POST /login"), round + 1);
    }
}

#[tokio::test]
async fn a_login_that_is_refused_is_not_hammered() {
    let server = Server::start(|_| reply("200 OK", "{}")).await;
    let client = Arc::new(Client::new(server.settings(Trust::System), Box::new(Tokens)));
    let calls = (0..40).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.send(&get()).await.unwrap_err() })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(matches!(call.await.unwrap().kind(), Kind::Credentials(_)));
    }
    assert_eq!(server.count("POST /login"), 1);
}

#[tokio::test]
async fn an_array_that_repeats_secrets_does_not_get_them_into_errors() {
    let server = Server::start(|request| match request.starts_with("POST /login") {
        true => reply("200 OK", r#"{"token":"session-token-1"}"#),
        false => reply("307 Go\r\nlocation: https://x/?t=session-token-1&p=hunter2", ""),
    })
    .await;
    let client = Client::new(server.settings(Trust::System), Box::new(Tokens));
    let error = failure(&client, &get()).await;
    assert!(error.contains("https://x/?t=…&p=…"), "{error}");
}
