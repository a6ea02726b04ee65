//! TLS connections.

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use storage_agent::listener::tls;
use tokio_rustls::TlsConnector;

use super::*;

struct Pair {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Pair {
        config: tls::load("api.client", &chain, &key, true).unwrap(),
        certificate: made.cert.der().clone(),
    }
}

fn connector(trusted: CertificateDer<'static>) -> TlsConnector {
    connector_for(trusted, rustls::DEFAULT_VERSIONS)
}

fn connector_for(
    trusted: CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn requests_are_served_over_tls_as_http1() {
    let pair = pair();
    let server = start_with(limits(), Some(pair.config), Arc::new(|_| false));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(pair.certificate).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(b"GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    // Fails unless the server ends the connection with a close_notify.
    timeout(LONG, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains(" true "), "{reply}");
}

#[tokio::test]
async fn over_tls_handlers_may_send_without_copying_where_the_kernel_encrypts() {
    let pair = pair();
    let expected = tls::kernel(&pair.config).starts_with("yes").to_string();
    let routes = warp::ext::get::<Connection>()
        .map(|connection: Connection| Reply::new(format!("{:?}", connection.zero_copy.is_some()).into()));
    let server = start_routes(limits(), Some(pair.config), Arc::new(|_| false), routes.boxed());
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(pair.certificate).connect(name, stream).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    timeout(LONG, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
    assert!(reply.ends_with(&expected), "{reply}");
}

/// As if the kernel were to have them: where it can't after all, rustls must have missed nothing.
#[tokio::test]
async fn connections_that_the_kernel_cannot_have_stay_with_rustls() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let pair = pair();
        let mut config = ServerConfig::clone(&pair.config);
        config.enable_secret_extraction = true;
        let server = start_with(limits(), Some(Arc::new(config)), Arc::new(|_| false));
        let connector = connector_for(pair.certificate, &[version]);
        for _ in 0..3 {
            let stream = TcpStream::connect(server.address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            stream.write_all(format!("{}{}", get("/peer"), get("/hello")).as_bytes()).await.unwrap();
            stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut replies = Vec::new();
            timeout(LONG, stream.read_to_end(&mut replies)).await.unwrap().unwrap();
            assert!(replies.len() > 20 * 4096 && replies.ends_with(b"0\r\n\r\n"));
            assert_eq!(replies.windows(12).filter(|twelve| twelve == b"HTTP/1.1 200").count(), 3);
        }
        assert!(!server.metrics.render().unwrap().contains(r#"tls_handshakes_failed_total{api="client"} 1"#));
    }
}

#[tokio::test]
async fn a_large_reply_over_tls_is_complete() {
    let pair = pair();
    let server = start_with(limits(), Some(pair.config), Arc::new(|_| false));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(pair.certificate).connect(name, stream).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = Vec::new();
    timeout(LONG, stream.read_to_end(&mut reply)).await.unwrap().unwrap();
    assert!(reply.len() > 20 * 4096 && reply.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_peer_that_never_shakes_hands_is_closed_in_time() {
    let short = Limits { header_timeout: Duration::from_millis(150), ..limits() };
    let server = start_with(short, Some(pair().config), Arc::new(|_| false));
    let mut peer = Peer::connect(&server).await;
    assert_eq!(peer.rest().await, "");
    assert!(server.metrics.render().unwrap().contains(r#"tls_handshakes_failed_total{api="client"} 1"#));
}

#[tokio::test]
async fn plain_http_to_a_tls_port_fails_without_harm() {
    let pair = pair();
    let server = start_with(limits(), Some(pair.config), Arc::new(|_| false));
    let mut peer = Peer::connect(&server).await;
    peer.send(&get("/hello")).await;
    let mut rest = Vec::new();
    let _ = timeout(LONG, peer.0.read_to_end(&mut rest)).await.unwrap();
    assert!(!rest.starts_with(b"HTTP/"));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    connector(pair.certificate).connect(name, stream).await.unwrap();
}
