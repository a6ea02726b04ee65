//! Tests that keep the sample files true: they load, they are complete, and the defaults they show are the code's.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;

use crate::backend::{Backend, OptionSpec, OptionType};
use crate::section::{Context, Section};
use crate::value::Choice;
use crate::{Config, NoticeKind, Source, parse, report, tree};

const SAMPLE: &str = include_str!("../sample.toml");
const SMALLEST: &str = include_str!("../smallest.toml");
const README: &str = include_str!("../../README.md");
const FULL_UPSTREAM: &str = include_str!("../full-upstream.toml");

fn load(text: &str) -> crate::Loaded {
    let source = Source { file: None, env: &|_| None, working_directory: "/etc".into(), lenient: false };
    parse(text, Path::new("/etc/storage-proxy.toml"), &source).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The sample with its default lines made real.
fn with_defaults_written_out() -> String {
    let uncommented = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        _ => line,
    });
    uncommented.collect::<Vec<_>>().join("\n")
}

/// Every key path that the schema asks for with its effect, found by reading `text`.
fn known_keys(text: &str) -> Vec<(String, bool)> {
    let table = tree::parse(text).unwrap_or_default();
    let context = Context {
        report: report::Report::new(Path::new("")),
        directory: "/".into(),
        working_directory: Path::new("/"),
        env: &|_| None,
        inline_secret: Cell::new(false),
        files: std::cell::RefCell::default(),
        lenient: false,
    };
    Section::document(&context, &table, Config::read);
    context.report.known_keys()
}

/// The key paths that `text` has, those of commented examples included.
fn written_keys(text: &str) -> BTreeSet<String> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim_start_matches('#').trim_start();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = name.trim_matches(['[', ']']).to_owned() + ".";
            keys.insert(table.trim_end_matches('.').to_owned());
        } else if let Some((key, value)) = line.split_once(" = ") {
            let path = format!("{table}{}", key.trim_matches('"'));
            for inner in value.split(['{', ',']).filter_map(|part| part.split_once(" = ")) {
                keys.insert(format!("{path}.{}", inner.0.trim()));
            }
            keys.insert(path);
        }
    }
    keys.into_iter().map(|key| key.replace('_', "-")).collect()
}

#[test]
fn the_sample_loads_without_any_notice() {
    let notices = load(SAMPLE).notices;
    assert!(notices.is_empty(), "{notices:?}");
}

#[test]
fn the_defaults_that_the_sample_shows_are_those_of_the_code() {
    let changed = with_defaults_written_out().lines().zip(SAMPLE.lines()).filter(|(a, b)| a != b).count();
    assert!(changed > 45, "only {changed} default lines were found");
    let (shown, real) = (load(&with_defaults_written_out()), load(SAMPLE));
    assert_eq!(format!("{:#?}", shown.config), format!("{:#?}", real.config));
}

#[test]
fn the_sample_has_every_key_that_has_an_effect() {
    let written = written_keys(SAMPLE);
    let known = known_keys(SAMPLE).into_iter().filter(|(_, used)| *used);
    let missing: BTreeSet<_> = known
        .map(|(key, _)| key.replace('_', "-"))
        // The other spelling of allow-auto-quota-scope-creation, and a table whose content is checked below.
        .filter(|key| key != "storage-proxy.auto-quota-scope-creation" && key != "volume.local.options")
        .filter(|key| {
            !written.contains(key) && !written.iter().any(|longer| longer.starts_with(&format!("{key}.")))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_default_of_the_sample_is_written_with_the_same_key_the_code_knows() {
    let notices = load(&with_defaults_written_out()).notices;
    assert!(notices.iter().all(|notice| notice.kind != NoticeKind::Unknown), "{notices:?}");
}

#[test]
fn the_smallest_upstream_file_loads_and_only_etcd_is_noted() {
    let loaded = load(SMALLEST);
    let noted: Vec<_> = loaded.notices.iter().map(|notice| (notice.key.as_str(), notice.kind)).collect();
    assert_eq!(noted, [("etcd", NoticeKind::Ignored)]);
    assert_eq!(loaded.config.volumes[0].path, Path::new("/vfroot/vfs"));
    assert_eq!(loaded.config.api.client.service_addr.to_string(), "0.0.0.0:6021");
}

#[test]
fn the_full_upstream_file_loads_and_each_key_without_effect_is_noted_once() {
    let loaded = load(FULL_UPSTREAM);
    let ignored: BTreeSet<_> =
        known_keys(FULL_UPSTREAM).into_iter().filter(|(_, used)| !used).map(|(key, _)| key).collect();
    let of_kind = |kind| {
        loaded.notices.iter().filter(move |notice| notice.kind == kind).map(|notice| notice.key.clone())
    };
    let noted: Vec<_> = of_kind(NoticeKind::Ignored).collect();
    for key in &ignored {
        assert_eq!(noted.iter().filter(|noted| *noted == key).count(), 1, "{key}");
    }
    let also: Vec<_> = noted.iter().filter(|key| !ignored.contains(*key)).map(String::as_str).collect();
    assert_eq!(also, ["etcd", "logging.drivers", "logging.pkg-ns"]);
    assert_eq!(
        of_kind(NoticeKind::Unknown).count() + of_kind(NoticeKind::Warning).count(),
        0,
        "{:?}",
        loaded.notices
    );
    assert_eq!(
        loaded.config.volumes.len(),
        Backend::WORDS.len() + 1,
        "each backend once and netapp in both generations"
    );
}

#[test]
fn every_option_of_every_backend_is_in_a_sample() {
    fn names(specs: &[OptionSpec]) -> Vec<&'static str> {
        let inner = specs.iter().flat_map(|(_, kind)| match kind {
            OptionType::Table(specs) => names(specs),
            _ => Vec::new(),
        });
        specs.iter().map(|(name, _)| *name).chain(inner).collect()
    }
    let written: BTreeSet<_> = written_keys(SAMPLE).into_iter().chain(written_keys(FULL_UPSTREAM)).collect();
    for (backend, kind) in Backend::WORDS {
        for option in names(kind.options()) {
            let ending = format!(".{}", option.replace('_', "-"));
            // dell_verify_ssl is ours, for a backend without an example of its own.
            let found = option == "dell_verify_ssl" || written.iter().any(|key| key.ends_with(&ending));
            assert!(found, "{backend}: {option}");
        }
    }
}

#[test]
fn the_commented_volumes_of_the_sample_are_right() {
    let from = SAMPLE.find("# [volume.fast]").unwrap();
    let length = SAMPLE[from..].find("# ----").unwrap();
    let lines = SAMPLE[from..from + length].lines().map(|line| line.trim_start_matches(['#', ' ']));
    let volumes = lines.filter(|line| line.starts_with('[') || line.contains(" = "));
    // The secret files do not exist here, so the file's name stands in for the secret.
    let volumes: Vec<_> = volumes
        .map(|line| line.replace("password_file = ", "password = ").replace("token_file = ", "token = "))
        .collect();
    let loaded = load(&format!("{SMALLEST}\n{}", volumes.join("\n")));
    assert_eq!(loaded.config.volumes.len(), 5);
    assert!(loaded.notices.iter().all(|notice| notice.kind != NoticeKind::Unknown), "{:?}", loaded.notices);
}

#[test]
fn the_readmes_example_loads_and_has_nothing_to_remark() {
    let (_, rest) = README.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(load(example).notices.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
}
