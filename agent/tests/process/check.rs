//! `storage-agent check`.

use super::*;

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_good_site_passes_and_is_left_as_it_was() {
    let site = Site::new();
    let output = site.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("files can be written") && text(&output).contains("The service can run"));
    assert!(!text(&output).contains('\x1b'), "no colours where nobody sees them");
    assert_eq!(fs::read_dir(site.path("volume")).unwrap().count(), 0);
}

#[test]
fn a_wrong_file_is_told_with_all_its_keys() {
    let site = Site::new();
    site.configure("scandir-limit = -1\nmax-upload-size = \"big\"\n", "");
    let output = site.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    for key in ["FAIL  storage-proxy.scandir-limit", "FAIL  storage-proxy.max-upload-size"] {
        assert!(text(&output).contains(key), "{}", text(&output));
    }
    assert!(!text(&output).contains(TOKEN_SECRET));
}

#[test]
fn what_the_host_lacks_is_told_with_the_cure() {
    let site = Site::new();
    let _held = TcpListener::bind(("127.0.0.1", site.client)).unwrap();
    site.configure(
        "",
        "[volume.gone]\nbackend = \"vast\"\npath = \"/nonexistent/volume\"\n\
        [limits]\nconnections = 1000000\n",
    );
    fs::set_permissions(site.path("volume"), fs::Permissions::from_mode(0o555)).unwrap();
    let output = site.run(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
    let grade_of = |key: &str, part: &str| {
        let all = report["findings"].as_array().unwrap();
        let found = all.iter().find(|f| f["subject"] == key && f["message"].as_str().unwrap().contains(part));
        found.unwrap_or_else(|| panic!("{key} {part} not in {report:#}"))["grade"].clone()
    };
    assert_eq!(report["ok"], false);
    assert_eq!(grade_of("api.client.service-addr", "is in use by"), "problem");
    assert_eq!(grade_of("volume.gone.path", "does not exist"), "problem");
    assert_eq!(grade_of("volume.gone.backend", "plain directory"), "warning");
    assert_eq!(grade_of("volume.local.path", "cannot be written"), "problem");
}

#[test]
fn a_user_who_does_not_exist_is_told() {
    let site = Site::new();
    let text_of = fs::read_to_string(site.config()).unwrap();
    site.write(
        &text_of
            .replace("[api.client]", "group = \"no-such-group\"\n[api.client]")
            .replace(&format!("group = {ORDINARY}\n"), ""),
    );
    let output = site.run(&["check"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("FAIL  storage-proxy.group"), "{}", text(&output));
}

#[test]
fn what_an_earlier_proxy_left_as_root_is_named() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    fs::create_dir(site.path("volume/ab")).unwrap();
    let output = site.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        text(&output).contains(r#"1 entries at the top belong to others: "ab" (uid 0)"#),
        "{}",
        text(&output)
    );
    assert!(text(&output).contains(&format!("chown -R {ORDINARY} ")), "{}", text(&output));
}
