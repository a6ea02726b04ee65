//! Both APIs over TLS, spoken to by curl(1), with a certificate made by openssl(1).

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use storage_agent_tests::agent::{address, command, output, own};
use storage_agent_tests::certificate::certificate;
use storage_agent_tests::http::Conn;
use storage_agent_tests::settings::MANAGER_SECRET;
use storage_agent_tests::site::{AUTH, Site, fresh_uuid};

fn run(program: &str, args: &[&str]) -> Option<Output> {
    let output = Command::new(program).args(args).output();
    if output.is_err() {
        eprintln!("skipped: {program} is not installed");
    }
    output.ok()
}

/// A prepared site whose APIs both have a self-signed certificate for their address.
fn prepared() -> Option<Site> {
    let site = Site::prepare(|settings| {
        for api in ["api.client", "api.manager"] {
            settings.set(api, "ssl-enabled", "true");
            settings.set(api, "ssl-cert", "'cert.pem'").set(api, "ssl-privkey", "'key.pem'");
        }
    });
    certificate(&site, "storage", true, "cert.pem", "key.pem").then_some(site)
}

#[test]
fn both_apis_are_served_over_tls_and_nothing_over_plain_text() {
    let Some(mut site) = prepared() else { return };
    site.launch_unready();
    let ca = site.path("cert.pem").display().to_string();
    let curl = |args: &[&str]| {
        let all = [
            &[
                "-sS",
                "--fail-with-body",
                "--retry",
                "40",
                "--retry-connrefused",
                "--retry-delay",
                "0",
                "--cacert",
                &ca,
            ],
            args,
        ]
        .concat();
        run("curl", &all)
    };
    let manager = |path: &str, body: &Value| {
        let (url, auth) = (format!("https://{}/{path}", site.manager), format!("{AUTH}: {MANAGER_SECRET}"));
        let output = curl(&["-H", &auth, "-d", &body.to_string(), &url])?;
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    };
    let vfid = format!("user:{}/{}", fresh_uuid(), fresh_uuid());
    let folder = json!({"volume": "local", "vfid": vfid, "relpath": "big"});
    let Some(_) = manager("folder/create", &folder) else { return };
    let content: Vec<u8> = (0..5_000_000u32).map(|i| (i % 249) as u8).collect();
    let root = site.folder_named("local", &vfid);
    root.write("big", &content);
    let token = manager("folder/file/download", &folder).unwrap()["token"].as_str().unwrap().to_owned();
    let url = format!("https://{}/download?token={token}", site.client);
    assert!(curl(&[&url]).unwrap().stdout == content, "the bytes differ");
    let part = curl(&["-r", "4000000-4000009", &url]).unwrap();
    assert_eq!(part.stdout, content[4_000_000..4_000_010]);
    let old =
        run("curl", &["-sS", "--cacert", &ca, "--tls-max", "1.1", &format!("https://{}/", site.client)])
            .unwrap();
    assert!(!old.status.success(), "TLS 1.1 is refused");
    for api in [site.client, site.manager] {
        let mut conn = Conn::open(api).unwrap();
        conn.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(conn.reply_head().is_err(), "no plain text on a TLS port");
    }
}

#[test]
fn a_key_that_belongs_to_another_certificate_stops_the_start() {
    let Some(site) = prepared() else { return };
    let other = site.path("other.pem").display().to_string();
    let made =
        run("openssl", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &other])
            .unwrap();
    assert!(made.status.success());
    fs::rename(&other, site.path("key.pem")).unwrap();
    own(site.dir());
    let config = site.config();
    let output = output(&mut command(site.dir(), &["-f", config.to_str().unwrap()]));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && text.contains("ssl-"), "{text}");
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    assert!(Conn::open(address(0)).is_err(), "nothing is served");
}
