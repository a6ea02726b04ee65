//! Compares what the helper has on record with what is on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::id::{QuotaScopeId, ScopeKind, VfolderId};
use common::protocol::{Listed, Subject, UNRECORDED};

use super::super::Volume;
use super::super::quota::{Drift, DriftKind};
use super::figures::{self, Figures};
use super::model::{Place, Projects};
use super::tag;
use crate::error::OpError;
use crate::fs::RelPath;
use crate::jobs::blocking;

/// A project exists for a moment before its directory does.
const MOMENT: Duration = Duration::from_secs(5);
/// The kernel rounds a limit up to a block of the file system, which has at most this many bytes (mkfs.xfs(8)).
const BLOCK: u64 = 64 * 1024;

/// What is on the disk for a scope or folder.
#[derive(Debug, Clone, Copy)]
struct Found {
    project: u32,
    figures: Figures,
}

/// Everything that is not as it should be; with `repair`, what can be put right is. With `deep`, each file is looked at.
pub(super) async fn run(
    projects: &Projects,
    volume: &Arc<Volume>,
    deep: bool,
    repair: bool,
) -> Result<Vec<Drift>, OpError> {
    let records = records(projects).await?;
    let at = Arc::clone(volume);
    let subjects: Vec<Subject> = records.keys().copied().collect();
    let on_disk = blocking(move || on_disk(&at, &subjects)).await?;
    let mut audit = Audit { projects, volume, repair, drifts: Vec::new() };
    for (subject, found) in &on_disk {
        audit.compare(*subject, *found, records.get(subject)).await?;
    }
    audit.shared(&on_disk);
    audit.abandoned(&records, &on_disk).await?;
    if deep {
        for (subject, found) in on_disk.iter().filter(|(_, found)| found.project != 0) {
            audit.strays(*subject, found.project).await?;
        }
    }
    Ok(audit.drifts)
}

async fn records(projects: &Projects) -> Result<BTreeMap<Subject, Listed>, OpError> {
    let (mut records, mut after) = (BTreeMap::new(), None);
    loop {
        let (page, more) = projects.list(after).await?;
        after = page.last().map(|listed| listed.subject);
        records.extend(page.into_iter().map(|listed| (listed.subject, listed)));
        if !more || after.is_none() {
            return Ok(records);
        }
    }
}

fn place(subject: Subject) -> Place {
    match subject {
        // The kind is no part of the directory's name.
        Subject::Scope(uuid) => Place::Scope(QuotaScopeId::new(ScopeKind::User, uuid)),
        Subject::Folder(uuid) => Place::Folder(VfolderId::new(None, uuid)),
    }
}

/// All scopes of the volume, and the folders among `subjects`, that are there.
fn on_disk(volume: &Volume, subjects: &[Subject]) -> Result<BTreeMap<Subject, Found>, OpError> {
    let root = volume.root()?;
    let mut all: Vec<Subject> =
        subjects.iter().copied().filter(|subject| matches!(subject, Subject::Folder(_))).collect();
    all.extend(volume.scopes()?.into_iter().map(|scope| Subject::Scope(scope.uuid())));
    let mut found = BTreeMap::new();
    for subject in all {
        let dir = match place(subject).open(volume) {
            Ok(dir) => dir,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        found.insert(subject, Found { project: tag::of(&dir)?, figures: figures::of(&root, &dir)? });
    }
    Ok(found)
}

struct Audit<'a> {
    projects: &'a Projects,
    volume: &'a Arc<Volume>,
    repair: bool,
    drifts: Vec<Drift>,
}

impl Audit<'_> {
    fn note(&mut self, subject: Subject, kind: DriftKind, detail: String, repaired: bool) {
        let subject = match subject {
            Subject::Scope(uuid) => format!("scope {}", uuid.hex()),
            Subject::Folder(uuid) => format!("folder {}", uuid.hyphenated()),
        };
        self.drifts.push(Drift { subject, kind, detail, repaired });
    }

    async fn compare(
        &mut self,
        subject: Subject,
        found: Found,
        record: Option<&Listed>,
    ) -> Result<(), OpError> {
        match (found.project, record) {
            (0, None) => {
                let detail = "belongs to no project: nothing in it is counted or limited".into();
                if self.repair {
                    let project = self.projects.ensure(subject, 0).await?;
                    self.bring(subject, project.id).await?;
                }
                self.note(subject, DriftKind::Untagged, detail, self.repair);
            }
            (0, Some(record)) => {
                let detail = format!("its directory is not in its project {}", record.id);
                if self.repair {
                    self.bring(subject, record.id).await?;
                }
                self.note(subject, DriftKind::Untagged, detail, self.repair);
            }
            (tagged, None) => {
                let detail = format!(
                    "its directory is in project {tagged}, which the quota helper has no record of: as root, run \
                     quota-helper rebuild"
                );
                self.note(subject, DriftKind::Unrecorded, detail, false);
            }
            (tagged, Some(record)) if tagged != record.id => {
                let detail = format!("its directory is in project {tagged} instead of {}", record.id);
                if self.repair {
                    self.bring(subject, record.id).await?;
                }
                self.note(subject, DriftKind::OtherProject, detail, self.repair);
            }
            (_, Some(record)) => self.compare_limit(subject, found.figures, record).await?,
        }
        Ok(())
    }

    async fn compare_limit(
        &mut self,
        subject: Subject,
        figures: Figures,
        record: &Listed,
    ) -> Result<(), OpError> {
        if record.limit == UNRECORDED {
            return Ok(());
        }
        let real = match (figures.limit(), record.limit) {
            (Some(limit), _) => limit,
            // No limit was asked for, and none is shown.
            (None, 0) => 0,
            (None, _) => self.projects.describe(subject).await?.map_or(0, |project| project.limit),
        };
        if record.limit <= real
            && real.saturating_sub(record.limit) < BLOCK
            && (record.limit == 0) == (real == 0)
        {
            return Ok(());
        }
        let detail = format!("its limit is {real} bytes instead of {} (0 is none)", record.limit);
        if self.repair {
            self.projects.set(subject, record.limit).await?;
        }
        self.note(subject, DriftKind::OtherLimit, detail, self.repair);
        Ok(())
    }

    /// Projects that several directories are in, so that they share one limit.
    fn shared(&mut self, on_disk: &BTreeMap<Subject, Found>) {
        let mut first = BTreeMap::new();
        for (subject, found) in on_disk.iter().filter(|(_, found)| found.project != 0) {
            if let Some(other) = first.insert(found.project, *subject) {
                let detail = format!("shares project {} with {}", found.project, directory(other));
                self.note(*subject, DriftKind::SharedProject, detail, false);
            }
        }
    }

    async fn abandoned(
        &mut self,
        records: &BTreeMap<Subject, Listed>,
        on_disk: &BTreeMap<Subject, Found>,
    ) -> Result<(), OpError> {
        let missing: Vec<Subject> =
            records.keys().copied().filter(|subject| !on_disk.contains_key(subject)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(MOMENT).await;
        for subject in missing {
            let at = Arc::clone(self.volume);
            match blocking(move || place(subject).open(&at).map(drop)).await {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
                Ok(()) => continue,
            }
            let detail = "has a project but no directory".into();
            if self.repair {
                self.projects.end(subject).await?;
            }
            self.note(subject, DriftKind::Abandoned, detail, self.repair);
        }
        Ok(())
    }

    async fn strays(&mut self, subject: Subject, project: u32) -> Result<(), OpError> {
        let (at, repair) = (Arc::clone(self.volume), self.repair);
        let found = blocking(move || tag::tree(&place(subject).open(&at)?, project, repair)).await?;
        if found.strays > 0 {
            let detail = format!("{} entries are in another project than {project}", found.strays);
            self.note(subject, DriftKind::Strays, detail, self.repair);
        }
        if let Some(example) = found.example {
            let detail = format!("{} entries cannot be looked at or put right: {example}", found.failed);
            self.note(subject, DriftKind::Strays, detail, false);
        }
        Ok(())
    }

    async fn bring(&self, subject: Subject, project: u32) -> Result<(), OpError> {
        let at = Arc::clone(self.volume);
        let done = blocking(move || tag::tree(&place(subject).open(&at)?, project, true)).await?;
        match done.example {
            None => Ok(()),
            Some(example) => Err(OpError::Refused {
                reason: format!("{} entries cannot be put into project {project}: {example}", done.failed),
                paths: vec![directory(subject)],
            }),
        }
    }
}

fn directory(subject: Subject) -> String {
    let path = match place(subject) {
        Place::Scope(scope) => super::super::scope_path(&scope),
        Place::Folder(id) => super::super::vfolder_path(&id),
    };
    path.unwrap_or_else(|_| RelPath::root()).to_string()
}
