//! Asking the site's etcd where its Valkey is, as all programs of Backend.AI do.
//!
//! Etcd's JSON gateway (`/v3/kv/range`, etcd.io/docs, "gRPC gateway") is plain enough for HTTP/1.0 over a socket: one
//! request, one bounded reply, and no second HTTP client in the program.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::{Etcd, HostPort, Secret, Valkey};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

const PATIENCE: Duration = Duration::from_secs(3);
/// Far above the few keys that are asked for.
const LONGEST_REPLY: u64 = 1 << 20;

/// Why etcd is of no help.
#[derive(Debug, Error)]
pub(super) enum EtcdError {
    #[error("{address}: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("{address} answered {status}")]
    Refused { address: String, status: String },
    #[error("{0} answered with something else than JSON")]
    NotJson(String),
    #[error("it has neither config/redis/addr nor config/redis/sentinel with config/redis/service_name")]
    Nothing,
}

/// What etcd says.
pub(super) struct Found {
    pub(super) valkey: Valkey,
    pub(super) password: Option<Secret>,
}

/// Reads the settings of the stream's server. Blocks for some seconds at most for each address.
pub(super) fn find_valkey(etcd: &Etcd) -> Result<Found, EtcdError> {
    let mut last = EtcdError::Nothing;
    for address in &etcd.addr {
        match keys(etcd, address) {
            Ok(keys) => return interpret(&keys).ok_or(EtcdError::Nothing),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The keys below `config/redis/` of the installation.
fn keys(etcd: &Etcd, address: &HostPort) -> Result<BTreeMap<String, String>, EtcdError> {
    let token = match (&etcd.user, &etcd.password) {
        (Some(user), Some(password)) => {
            let login = json!({ "name": user, "password": password.expose() });
            let reply = post(address, "/v3/auth/authenticate", None, &login)?;
            reply.get("token").and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    };
    let prefix = format!("/sorna/{}/config/redis/", etcd.namespace);
    // The first key behind all those with the prefix: '0' follows '/'.
    let end = format!("{}0", prefix.trim_end_matches('/'));
    let range = json!({ "key": STANDARD.encode(&prefix), "range_end": STANDARD.encode(end) });
    let reply = post(address, "/v3/kv/range", token.as_deref(), &range)?;
    #[derive(Deserialize)]
    struct Pair {
        key: String,
        #[serde(default)]
        value: String,
    }
    let pairs = reply.get("kvs").cloned().unwrap_or(Value::Array(Vec::new()));
    let pairs: Vec<Pair> =
        serde_json::from_value(pairs).map_err(|_| EtcdError::NotJson(address.to_string()))?;
    let text = |encoded: &str| String::from_utf8(STANDARD.decode(encoded).ok()?).ok();
    let pairs = pairs.iter().filter_map(|pair| Some((text(&pair.key)?, text(&pair.value)?)));
    Ok(pairs.filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?.to_owned(), value))).collect())
}

/// Managers may have a server of its own for streams; else the common one is meant.
fn interpret(keys: &BTreeMap<String, String>) -> Option<Found> {
    let below = |prefix: &str| {
        let get = |key: &str| keys.get(&format!("{prefix}{key}")).filter(|value| !value.is_empty());
        let addresses = |text: &String| -> Option<Vec<HostPort>> { text.split(',').map(host_port).collect() };
        let sentinel = get("sentinel").and_then(addresses).zip(get("service_name"));
        let valkey = match sentinel {
            Some((addresses, service)) => Valkey::Sentinel { addresses, service: service.clone() },
            None => Valkey::Servers(get("addr").and_then(addresses)?),
        };
        let password = get("password").or_else(|| keys.get("password").filter(|value| !value.is_empty()));
        Some(Found { valkey, password: password.map(|password| Secret::new(password.clone())) })
    };
    ["override_configs/stream/", "redis_override_configs/stream/", ""].into_iter().find_map(below)
}

fn host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    Some(HostPort { host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
}

fn post(address: &HostPort, path: &str, token: Option<&str>, body: &Value) -> Result<Value, EtcdError> {
    let unreachable = |source| EtcdError::Unreachable { address: address.to_string(), source };
    let reply = exchange(address, path, token, &body.to_string()).map_err(unreachable)?;
    let not_json = || EtcdError::NotJson(address.to_string());
    let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(not_json)?;
    let status = head.lines().next().and_then(|line| line.split_once(' ')).map_or("", |(_, status)| status);
    if !status.starts_with("200") {
        return Err(EtcdError::Refused {
            address: address.to_string(),
            status: status.chars().take(80).collect(),
        });
    }
    serde_json::from_str(body).map_err(|_| not_json())
}

fn exchange(address: &HostPort, path: &str, token: Option<&str>, body: &str) -> io::Result<String> {
    let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let to = (address.host.as_str(), address.port).to_socket_addrs()?.next().ok_or_else(nowhere)?;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A token is made of etcd's own letters; anything else would be the start of another header.
    let token = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    let authorization = token.map_or(String::new(), |token| format!("Authorization: {token}\r\n"));
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reply = String::new();
    stream.take(LONGEST_REPLY).read_to_string(&mut reply)?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> Option<(Valkey, Option<String>)> {
        let keys = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        interpret(&keys).map(|found| (found.valkey, found.password.map(|secret| secret.expose().to_owned())))
    }

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    #[test]
    fn the_address_is_read_in_each_form_that_a_site_may_use() {
        let plain = found(&[("addr", "10.0.0.1:6379"), ("password", "p")]);
        assert_eq!(plain, Some((Valkey::Servers(vec![at("10.0.0.1", 6379)]), Some("p".into()))));
        let keys = [("sentinel", "a:1,b:2"), ("service_name", "main"), ("addr", "c:3")];
        let addresses = vec![at("a", 1), at("b", 2)];
        assert_eq!(found(&keys), Some((Valkey::Sentinel { addresses, service: "main".into() }, None)));
        let own = found(&[("addr", "c:3"), ("override_configs/stream/addr", "d:4")]);
        assert_eq!(own, Some((Valkey::Servers(vec![at("d", 4)]), None)));
        for nothing in [&[("addr", "")][..], &[("addr", "c")], &[("addr", "c:0")], &[]] {
            assert_eq!(found(nothing), None);
        }
    }

    /// A stand-in for the gateway that answers each request with the next reply.
    fn gateway(replies: Vec<String>) -> (HostPort, std::thread::JoinHandle<Vec<String>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let answer = |reply: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                while !request.ends_with(b"}") {
                    let length = stream.read(&mut piece).unwrap();
                    request.extend_from_slice(&piece[..length]);
                }
                stream.write_all(reply.as_bytes()).unwrap();
                String::from_utf8(request).unwrap()
            };
            replies.into_iter().map(answer).collect()
        });
        (at("127.0.0.1", port), serving)
    }

    fn etcd(addr: HostPort, password: Option<&str>) -> Etcd {
        let (user, password) =
            (password.map(|_| "storage".into()), password.map(|text| Secret::new(text.into())));
        Etcd { namespace: "local".into(), addr: vec![addr], user, password }
    }

    #[test]
    fn the_gateway_is_asked_for_the_keys_of_the_namespace_with_the_token_of_the_login() {
        let pair =
            |key: &str, value: &str| json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) });
        let kvs = json!({ "kvs": [pair("/sorna/local/config/redis/addr", "v:6379")] });
        let ok = |body: &Value| format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
        let (addr, serving) = gateway(vec![ok(&json!({ "token": "t.1" })), ok(&kvs)]);
        let found = find_valkey(&etcd(addr, Some("hunter2"))).unwrap();
        assert_eq!(found.valkey, Valkey::Servers(vec![at("v", 6379)]));
        let requests = serving.join().unwrap();
        assert!(requests[0].starts_with("POST /v3/auth/authenticate HTTP/1.0\r\n"));
        assert!(requests[1].contains("\r\nAuthorization: t.1\r\n"), "{}", requests[1]);
        assert!(requests[1].contains(&STANDARD.encode("/sorna/local/config/redis/")));
    }

    #[test]
    fn an_etcd_that_is_of_no_help_is_named_without_its_password() {
        let (addr, serving) = gateway(vec!["HTTP/1.0 401 Unauthorized\r\n\r\n{}".into()]);
        let error = find_valkey(&etcd(addr, Some("hunter2"))).err().unwrap().to_string();
        assert!(error.contains("401") && !error.contains("hunter2"), "{error}");
        serving.join().unwrap();
    }
}
