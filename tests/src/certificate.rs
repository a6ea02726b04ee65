//! Certificates for a site's own address.

use std::process::Command;

use crate::agent::own;
use crate::site::Site;

/// Makes a self-signed certificate and its key in the site's folder; `false` where there is no openssl(1). Without
/// `address` it is good for the name alone.
pub fn certificate(site: &Site, name: &str, address: bool, cert: &str, key: &str) -> bool {
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &format!("/CN={name}"),
    ]);
    if address {
        command.args(["-addext", &format!("subjectAltName=IP:{}", site.client.ip())]);
    }
    let made = command.arg("-keyout").arg(site.path(key)).arg("-out").arg(site.path(cert)).output();
    let Ok(made) = made else {
        eprintln!("skipped: openssl is not installed");
        return false;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    own(site.dir());
    true
}
