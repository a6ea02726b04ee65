//! `storage-agent migrate-check`: what will be different for a site that has been served by the reference proxy.
//!
//! It reads that proxy's `storage-proxy.toml`, the volumes and what the host has of it, and changes nothing. Run as root
//! it sees all of that. Whether the service can run is `check`'s question; here it is what the operator has to do once,
//! and what clients and managers will find changed.

mod host;
mod survey;
mod volume;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use config::{Config, Loaded, NoticeKind, Source};

use self::survey::Survey;
use crate::cli;
use crate::finding::{Finding, Report};

/// Something stands in the way.
const PROBLEMS: u8 = 1;
/// The configuration is wrong (sysexits(3)).
const CONFIG: u8 = 78;

/// Looks, prints what was found, and says by the exit status whether something stands in the way.
pub fn from_command_line(options: &cli::MigrateCheck) -> ExitCode {
    let source = Source::of_process(options.config.file.clone(), options.config.lenient);
    let mut report = Report::default();
    let code = match config::load(&source) {
        Ok(loaded) => {
            examine(&loaded, Path::new("/"), &mut report);
            if report.has_problems() { PROBLEMS } else { 0 }
        }
        Err(problems) => {
            for problem in &problems.problems {
                let subject = if problem.key.is_empty() { "configuration" } else { &problem.key };
                report.add(Finding::problem(subject, problem.to_string()));
            }
            CONFIG
        }
    };
    report.print(options.json, |problems, warnings| match problems {
        0 => format!("Nothing stands in the way; {warnings} thing(s) to do. Nothing was changed."),
        _ => format!("{problems} problem(s) to solve, {warnings} thing(s) to do. Nothing was changed."),
    });
    ExitCode::from(code)
}

/// `root` is `/`, below which the host's own files are looked for.
fn examine(loaded: &Loaded, root: &Path, report: &mut Report) {
    let config = &loaded.config;
    report.add(Finding::ok("configuration", format!("{} is understood as it is", loaded.path.display())));
    add_notices(loaded, report);
    let mut owners = BTreeMap::new();
    for volume in &config.volumes {
        match Survey::of(&volume.path) {
            Ok(survey) => {
                survey.owners.iter().for_each(|(owner, count)| *owners.entry(*owner).or_default() += count);
                volume::tell(volume, &survey, root, report);
            }
            Err(error) => report.add(
                Finding::problem(
                    format!("volume.{}.path", volume.name),
                    format!("{} cannot be read: {error}", volume.path.display()),
                )
                .cure("mount it, or run this as root"),
            ),
        }
    }
    report.add(identity(config, &owners));
    host::tell(config, root, report);
    report.add(Finding::note(
        "etcd",
        "is not needed to serve; it may be down, and volumes are those of the file alone",
    ));
}

/// Keys that worked there and do nothing here.
fn add_notices(loaded: &Loaded, report: &mut Report) {
    for notice in &loaded.notices {
        let subject = if notice.key.is_empty() { "configuration" } else { &notice.key };
        report.add(match notice.kind {
            NoticeKind::Warning => Finding::warning(subject, notice.message.clone()),
            NoticeKind::Ignored | NoticeKind::Unknown => Finding::note(subject, notice.message.clone()),
        });
    }
}

/// Who the service has to be: the owner of the folders, by number of folders.
fn identity(config: &Config, owners: &BTreeMap<(u32, u32), usize>) -> Finding {
    let ordinary = owners.iter().filter(|((uid, _), _)| *uid != 0).max_by_key(|(_, count)| **count);
    let Some(((uid, gid), count)) = ordinary else {
        return Finding::note("identity", "there is no folder yet whose owner the service would have to be")
            .cure("run it as the uid of Backend.AI's agents (kernel-uid in their agent.toml)");
    };
    let paths: Vec<String> = config.volumes.iter().map(|volume| volume.path.display().to_string()).collect();
    let cure = format!(
        "run the service as that user: in a drop-in of storage-agent.service, User={uid}, Group={gid}, \
         SupplementaryGroups=storage-agent, ReadWritePaths={}",
        paths.join(" ")
    );
    let others: usize = owners.values().sum::<usize>() - count;
    let message = format!("{count} folder(s) belong to uid {uid} and gid {gid}");
    if others == 0 {
        return Finding::warning("identity", message).cure(cure);
    }
    Finding::warning(
        "identity",
        format!("{message}, {others} to others; what others own it may be unable to change"),
    )
    .cure(format!("{cure}; then, once and as root: chown -R {uid}:{gid} the folders of others"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    /// An old site below a temporary directory: its configuration, a volume, and a host with traces of the proxy.
    struct OldSite(tempfile::TempDir);

    impl OldSite {
        fn new() -> Self {
            let site = OldSite(tempfile::tempdir().unwrap());
            for directory in [
                "etc/sudoers.d",
                "etc/systemd/system",
                "vol/0123456789abcdef0123456789abcdef/01/23/456789abcdef0123456789abcdef/.upload",
                "vol/ab/cd/ef0123456789abcdef0123456789",
                "vol/lost+found",
            ] {
                fs::create_dir_all(site.path(directory)).unwrap();
            }
            site
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn look(&self, backend: &str, more: &str) -> String {
            let text = format!(
                "[storage-proxy]\nnode-id = \"i\"\nsecret = \"{0}\"\nsession-expire = \"1d\"\nevent-loop = \"uvloop\"\n\
                 [api.client]\nservice-addr = {{ host = \"127.0.0.1\", port = 6021 }}\nssl-enabled = false\n\
                 [api.manager]\nservice-addr = {{ host = \"127.0.0.1\", port = 6022 }}\nssl-enabled = false\n\
                 secret = \"{0}\"\n[volume.local]\nbackend = \"{backend}\"\npath = \"{1}\"\n{more}",
                "x".repeat(40),
                self.path("vol").display(),
            );
            fs::write(self.path("storage-proxy.toml"), text).unwrap();
            let env = |_: &str| None;
            let source = Source {
                file: Some(self.path("storage-proxy.toml")),
                env: &env,
                working_directory: self.0.path().to_owned(),
                lenient: false,
            };
            let mut report = Report::default();
            examine(&config::load(&source).unwrap(), self.0.path(), &mut report);
            format!("{report:#?}")
        }
    }

    #[test]
    fn folders_of_both_layouts_are_counted_and_their_owner_becomes_the_service() {
        let site = OldSite::new();
        fs::write(
            site.path("vol/0123456789abcdef0123456789abcdef/01/23/456789abcdef0123456789abcdef/.upload/a"),
            "x",
        )
        .unwrap();
        let text = site.look("vfs", "");
        assert!(text.contains("1 folder(s) in 1 quota scope(s), 1 of the older layout"), "{text}");
        assert!(text.contains("1 unfinished upload(s)"), "{text}");
        let own = fs::metadata(site.path("vol")).unwrap();
        if own.uid() != 0 {
            assert!(text.contains(&format!("User={}, Group={}", own.uid(), own.gid())), "{text}");
        }
    }

    #[test]
    fn what_a_proxy_left_as_root_in_somebodys_folder_is_named() {
        let site = OldSite::new();
        let folder = site.path("vol/ab/cd/ef0123456789abcdef0123456789");
        fs::write(folder.join("left"), "x").unwrap();
        // Only root can give a folder away.
        if std::os::unix::fs::chown(&folder, Some(61_100), Some(61_200)).is_ok() {
            let text = site.look("vfs", "");
            assert!(text.contains("User=61100, Group=61200"), "{text}");
            assert!(
                text.contains("1 entries belong to root")
                    && text.contains("ab/cd/ef0123456789abcdef0123456789/left")
            );
        }
    }

    #[test]
    fn keys_without_effect_sudo_rules_and_units_of_the_old_proxy_are_named() {
        let site = OldSite::new();
        fs::write(site.path("etc/sudoers.d/backend"), "# xfs\nbai ALL = NOPASSWD: /usr/sbin/xfs_quota\n")
            .unwrap();
        fs::write(
            site.path("etc/systemd/system/backendai-storage-proxy.service"),
            "[Service]\nExecStart=/opt/venv/bin/python -m ai.backend.storage.server\n",
        )
        .unwrap();
        fs::write(site.path("etc/systemd/system/other.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
        let text = site.look("vfs", "[etcd]\nnamespace = \"a\"\naddr = \"127.0.0.1:2379\"\n");
        for wanted in ["event-loop", "etc/sudoers.d/backend", "backendai-storage-proxy.service", "etcd"] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        assert!(!text.contains("other.service"), "{text}");
    }

    #[test]
    fn an_xfs_volume_names_the_helpers_line_and_counts_the_projects_it_takes_over() {
        let site = OldSite::new();
        let volume = site.path("vol").display().to_string();
        fs::write(
            site.path("etc/projects"),
            format!("1:{volume}/0123456789abcdef0123456789abcdef\n2:{volume}-2/x\n"),
        )
        .unwrap();
        let text = site.look("xfs", "");
        assert!(text.contains("1 project(s) of this volume"), "{text}");
        assert!(text.contains(&format!("volume local {volume}")), "{text}");
    }

    #[test]
    fn a_backend_without_its_own_quotas_is_a_warning() {
        let site = OldSite::new();
        let text = site.look("exascaler", "");
        assert!(text.contains("exascaler is served as a plain directory"), "{text}");
    }
}
