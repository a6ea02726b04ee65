//! Who the program is.

use super::*;

#[test]
fn the_service_is_nobody_special_and_cannot_become_so() {
    let site = Site::new();
    let service = site.serve(&[]);
    for task in fs::read_dir(service.proc("task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("no {name}"));
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let own = if is_root() { ORDINARY.to_string() } else { Uid::effective().to_string() };
        assert_eq!(field("Uid:"), vec![own.clone(); 4]);
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
        if is_root() {
            assert_eq!(field("Gid:"), vec![own; 4]);
            assert_eq!(field("Groups:"), [ORDINARY.to_string()]);
            assert_eq!(field("CapBnd:"), ["0000000000000000"]);
        }
        assert_eq!(field("NoNewPrivs:"), ["1"]);
    }
    // The kernel gives the files of a process that cannot be dumped to root (proc(5)).
    assert_eq!(fs::metadata(service.proc("environ")).unwrap().uid(), 0);
}

#[test]
fn root_is_refused_unless_told_otherwise() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let text = fs::read_to_string(site.config()).unwrap();
    let without_user: String = text
        .lines()
        .filter(|line| !line.starts_with("user") && !line.starts_with("group"))
        .map(|l| format!("{l}\n"))
        .collect();
    site.write(&without_user);
    let refused = site.run(&[]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(stderr(&refused).contains("does not run as root") && stderr(&refused).contains("--allow-root"));
    let service = site.serve(&["--allow-root"]);
    let status = fs::read_to_string(service.proc("status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("Uid:\t0\t"), "{status}");
}

#[test]
fn a_user_who_does_not_exist_is_an_error_that_names_the_key() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let text = fs::read_to_string(site.config()).unwrap();
    site.write(&text.replace(&format!("user = {ORDINARY}"), "user = \"no-such-user\""));
    let output = site.run(&[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("storage-proxy.user: there is no user \"no-such-user\""),
        "{}",
        stderr(&output)
    );
}
