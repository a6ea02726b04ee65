//! Starting, serving and stopping.

use super::*;

#[test]
fn it_serves_its_listeners_and_ends_on_sigterm() {
    let site = Site::new();
    let mut service = site.serve(&[]);
    assert!(get(site.client, "/", "").contains(r#""type":"client-facing""#));
    for path in ["/", "/status"] {
        assert!(get(site.manager, path, "").contains(r#""type":"manager-facing""#));
    }
    let volumes =
        get(site.manager, "/volumes", &format!("X-BackendAI-Storage-Auth-Token: {MANAGER_SECRET}\r\n"));
    assert!(volumes.contains(r#""name":"local""#), "{volumes}");
    let pid = fs::read_to_string(site.path("run/agent.pid")).unwrap();
    assert_eq!(pid.trim(), service.child.id().to_string());
    service.signal(Signal::SIGTERM);
    assert_eq!(service.state(), "STOPPING=1");
    assert_eq!(service.end(), Some(0));
    assert!(!site.path("run/agent.pid").exists());
}

#[test]
fn it_feeds_the_watchdog_that_systemd_asks_for() {
    let site = Site::new();
    let service = site.serve_with(&[], &[("WATCHDOG_USEC", "200000")]);
    for _ in 0..3 {
        assert_eq!(service.state(), "WATCHDOG=1");
    }
}

#[test]
fn sighup_goes_on_in_a_new_log_file_and_is_reported() {
    let site = Site::new();
    site.configure(
        "",
        "[logging]\ndrivers = [\"file\"]\n[logging.file]\npath = \"run\"\nfilename = \"agent.log\"\n",
    );
    let mut service = site.serve(&[]);
    fs::rename(site.path("run/agent.log"), site.path("run/aside")).unwrap();
    service.signal(Signal::SIGHUP);
    // systemd.service(5), Type=notify-reload: with the time at which it began.
    assert!(service.state().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(service.state(), "READY=1");
    assert!(fs::read_to_string(site.path("run/agent.log")).unwrap().contains("reloaded"));
    assert!(get(site.client, "/", "").starts_with("HTTP/1.1 200 "));
    service.signal(Signal::SIGTERM);
    assert_eq!(service.end(), Some(0));
}

#[test]
fn health_tells_of_a_volume_that_is_gone_and_that_it_is_back() {
    let site = Site::new();
    let _service = site.serve(&[]);
    let ready = |port| get(port, "/readyz", "");
    assert!(ready(site.manager).starts_with("HTTP/1.1 200 "));
    fs::rename(site.path("volume"), site.path("away")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let gone = ready(site.internal);
    assert!(gone.starts_with("HTTP/1.1 503 ") && gone.contains(r#""component_id":"local""#), "{gone}");
    assert!(!gone.contains(site.dir.path().to_str().unwrap()), "outsiders learn no path: {gone}");
    assert!(get(site.internal, "/health", "").contains(r#""status":"degraded""#));
    assert!(get(site.internal, "/livez", "").starts_with("HTTP/1.1 200 "));
    assert!(get(site.internal, "/metrics", "").contains(r#"storage_agent_volume_ready{volume="local"} 0"#));
    fs::rename(site.path("away"), site.path("volume")).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert!(ready(site.internal).starts_with("HTTP/1.1 200 "));
}

#[test]
fn metrics_are_on_the_internal_address_only() {
    let site = Site::new();
    let _service = site.serve(&[]);
    let metrics = get(site.internal, "/metrics", "");
    assert!(metrics.contains("storage_agent_process_resident_memory_bytes "), "{metrics}");
    assert!(metrics.contains(r#"storage_agent_tasks{kind="clone",state="running"} 0"#), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
    assert!(get(site.manager, "/metrics", "").starts_with("HTTP/1.1 403 "));
    assert!(get(site.client, "/metrics", "").starts_with("HTTP/1.1 404 "));
    assert!(get(site.internal, "/volumes", "").starts_with("HTTP/1.1 404 "));
}

#[test]
fn no_secret_reaches_the_log_at_any_level() {
    let site = Site::new();
    site.configure(
        "",
        "[logging]\nlevel = \"NOTSET\"\ndrivers = [\"console\", \"file\"]\n\
        [logging.file]\npath = \"run\"\nfilename = \"agent.log\"\nformat = \"json\"\n",
    );
    let mut service = site.serve(&["--debug", "--log-level", "TRACE"]);
    get(site.client, "/download?token=CLIENTTOKEN.e30.x", "");
    get(site.manager, "/volumes", &format!("X-BackendAI-Storage-Auth-Token: {MANAGER_SECRET}\r\n"));
    get(site.manager, "/volumes", "X-BackendAI-Storage-Auth-Token: WRONGSECRET\r\n");
    service.signal(Signal::SIGINT);
    assert_eq!(service.end(), Some(0));
    let file = fs::read_to_string(site.path("run/agent.log")).unwrap();
    let lines: Vec<serde_json::Value> =
        file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["target"] == "access" && line["path"] == "/download"), "{file}");
    for text in [service.log(), file] {
        for secret in [TOKEN_SECRET, MANAGER_SECRET, "CLIENTTOKEN", "WRONGSECRET"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn a_second_signal_ends_a_transfer_that_would_take_long() {
    let site = Site::new();
    let mut service = site.serve(&[]);
    let mut stuck = TcpStream::connect(("127.0.0.1", site.manager)).unwrap();
    stuck.write_all(b"GET /volumes HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n").unwrap();
    stuck.write_all(format!("X-BackendAI-Storage-Auth-Token: {MANAGER_SECRET}\r\n\r\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    service.signal(Signal::SIGTERM);
    assert_eq!(service.state(), "STOPPING=1");
    std::thread::sleep(Duration::from_millis(300));
    assert!(service.child.try_wait().unwrap().is_none(), "a request in progress is waited for");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.end(), Some(0));
}

#[test]
fn mistakes_of_the_command_line_and_of_the_configuration_have_their_exit_codes() {
    let site = Site::new();
    assert_eq!(site.run(&["--no-such-flag"]).status.code(), Some(64));
    site.configure("scandir-limit = -1\nmax-upload-size = \"big\"\n", "");
    let wrong = site.run(&[]);
    assert_eq!(wrong.status.code(), Some(78));
    for key in ["storage-proxy.scandir-limit", "storage-proxy.max-upload-size"] {
        assert!(stderr(&wrong).contains(key), "{}", stderr(&wrong));
    }
}

#[test]
fn volumes_that_are_not_there_are_named_all_at_once() {
    let site = Site::new();
    fs::write(site.path("file"), "").unwrap();
    let file = site.path("file");
    site.configure(
        "",
        &format!(
            "[volume.gone]\nbackend = \"vfs\"\npath = \"/nonexistent/volume\"\n\
         [volume.flat]\nbackend = \"vfs\"\npath = \"{}\"\n",
            file.display()
        ),
    );
    let output = site.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("volume.gone.path: /nonexistent/volume: does not exist"), "{said}");
    assert!(said.contains("volume.flat.path: ") && said.contains("is not a directory"), "{said}");
}

#[test]
fn a_taken_port_is_an_error_that_names_the_key() {
    let site = Site::new();
    let _held = TcpListener::bind(("127.0.0.1", site.manager)).unwrap();
    let output = site.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("api.manager.service-addr: cannot listen on"), "{}", stderr(&output));
}
