//! What changes for one volume.

use std::path::Path;

use super::survey::Survey;
use crate::finding::{Finding, Report};
use crate::volume::is_native;

/// Tells it. `root` is `/`, below which `/etc/projects` is looked for.
pub(super) fn tell(volume: &config::Volume, survey: &Survey, root: &Path, report: &mut Report) {
    let key = format!("volume.{}", volume.name);
    report.add(layout(&key, survey));
    if let Some(reason) = &survey.first_unreadable {
        report.add(
            Finding::warning(
                &key,
                format!("{} director(ies) could not be read: {reason}", survey.unreadable),
            )
            .cure("run this as root to see all"),
        );
    }
    if let Some(first) = &survey.first_root {
        let message = format!(
            "{} entries belong to root in somebody's folder, such as {first}: left by a proxy that ran as root, \
             and not to be changed by the agent",
            survey.roots
        );
        let cure = format!(
            "once, as root, with the service's ids: chown -hR --from=root:root UID:GID {}",
            volume.path.display()
        );
        report.add(Finding::warning(&key, message).cure(cure));
    }
    if survey.uploads > 0 {
        let message = format!(
            "{} unfinished upload(s): each goes on where its file in .upload ends, which is what clients are told",
            survey.uploads
        );
        report.add(Finding::note(&key, message));
    }
    report.add(backend(&key, volume, root));
}

fn layout(key: &str, survey: &Survey) -> Finding {
    let more = if survey.is_partial() { " among those that were looked at; there are more" } else { "" };
    let message = format!(
        "{} folder(s) in {} quota scope(s), {} of the older layout{more}: all stay where they are",
        survey.scoped, survey.scopes, survey.bare
    );
    Finding::ok(key, message)
}

fn backend(key: &str, volume: &config::Volume, root: &Path) -> Finding {
    let name = &volume.backend_name;
    if name == "xfs" {
        return xfs(key, volume, root);
    }
    if is_native(name) {
        return Finding::ok(key, format!("backend {name}: as before, without root and without sudo"));
    }
    Finding::warning(
        key,
        format!("backend {name} is served as a plain directory: without quotas and without its own figures"),
    )
    .cure("keep the limits by the array's own tools until this backend is provided")
}

/// The reference proxy edited the two files and ran `xfs_quota` by sudo; here the helper does.
fn xfs(key: &str, volume: &config::Volume, root: &Path) -> Finding {
    let prefix = format!("{}/", volume.path.display());
    let projects = std::fs::read_to_string(root.join("etc/projects")).unwrap_or_default();
    let known = projects.lines().filter_map(|line| line.split_once(':'));
    let known = known.filter(|(_, directory)| directory.starts_with(&prefix)).count();
    Finding::warning(
        key,
        format!(
            "backend xfs: limits are set by the quota helper instead of sudo; {known} project(s) of this volume \
             in /etc/projects keep their numbers and limits"
        ),
    )
    .cure(format!(
        "install storage-agent-quota-helper, put the line \"volume {} {}\" and the service's user into \
         /etc/storage-agent/quota-helper.conf, and start quota-helper.socket",
        volume.name,
        volume.path.display()
    ))
}
