//! The OpenAPI documents name what the routes' table names, and are served as they are in the repository.

use std::collections::BTreeSet;

use serde_json::Value;
use storage_agent_tests::http::Request;
use storage_agent_tests::site::Site;

fn documented(document: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            all.insert(format!("{} {}", method.to_uppercase(), path.trim_start_matches('/')));
        }
    }
    all
}

/// The methods and paths of the table of all manager-facing routes.
fn tabled() -> BTreeSet<String> {
    include_str!("api_routes.table")
        .lines()
        .filter(|line| !line.starts_with([' ', '#']) && !line.trim().is_empty())
        .map(|line| {
            let mut parts = line.split_whitespace();
            let (method, path) = (parts.next().unwrap(), parts.next().unwrap().trim_start_matches('/'));
            let path = if path.starts_with("tasks/") { "tasks/{id}" } else { path };
            format!("{method} {path}")
        })
        .collect()
}

#[test]
fn every_manager_facing_route_is_documented_and_nothing_else() {
    let document: Value = serde_json::from_str(include_str!("../../agent/openapi/manager.json")).unwrap();
    let mut expected = tabled();
    expected.insert("GET openapi.json".into());
    let documented = documented(&document);
    let missing: Vec<_> = expected.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&expected).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:?}, invented: {invented:?}");
}

#[test]
fn both_documents_are_served_without_a_secret() {
    let site = Site::start();
    for (address, text) in [
        (site.client, include_str!("../../agent/openapi/client.json")),
        (site.manager, include_str!("../../agent/openapi/manager.json")),
    ] {
        assert_eq!(Request::new("GET", "/openapi.json").send(address).expect(200).text(), text);
    }
}
