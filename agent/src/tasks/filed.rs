//! A task's record on disk, and this process's right to it.

use std::sync::Arc;

use common::id::QuotaScopeId;
use uuid::Uuid;

use super::journal::{Ended, Record, Trash};
use super::marks::Marks;
use crate::error::OpError;
use crate::volume::Volume;

/// Where the record of a task is.
#[derive(Clone)]
pub struct RecordAt {
    volume: Arc<Volume>,
    scope: Option<QuotaScopeId>,
    id: Uuid,
}

/// The record of one task of this process. As long as it is not [removed](Filed::remove) it stays on disk, whatever
/// becomes of this value, and the process keeps its mark.
pub struct Filed {
    marks: Arc<Marks>,
    owner: Uuid,
    at: RecordAt,
    /// Managers know how it ended; the work is being tried again.
    pub told: bool,
}

// === impl RecordAt ===

impl RecordAt {
    /// The volume that it is on.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The trash that it is in.
    pub fn trash(&self) -> Result<Trash, OpError> {
        Trash::open(self.volume.holder(self.scope.as_ref())?)
    }

    /// The record as it stands.
    pub fn read(&self) -> Result<Record, OpError> {
        self.trash()?.read(self.id)
    }

    /// Changes the record, durably.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<(), OpError> {
        let trash = self.trash()?;
        let mut record = trash.read(self.id)?;
        change(&mut record);
        trash.write(self.id, &record)
    }

    /// Notes how the task ended.
    pub fn note(&self, ended: &Ended) -> Result<(), OpError> {
        self.trash()?.write_ended(self.id, ended)
    }

    fn remove(&self) -> Result<(), OpError> {
        match self.volume.holder(self.scope.as_ref()) {
            // It went with its scope.
            Err(OpError::ScopeNotFound(_)) => Ok(()),
            holder => match Trash::existing(holder?)? {
                Some(trash) => trash.remove(self.id),
                None => Ok(()),
            },
        }
    }
}

// === impl Filed ===

impl Filed {
    /// Writes the record of a new task into the trash of a scope, or of the volume's root. From then on the work is
    /// done, by this process or another.
    pub fn begin(
        marks: &Arc<Marks>,
        volume: &Arc<Volume>,
        scope: Option<&QuotaScopeId>,
        id: Uuid,
        record: Record,
    ) -> Result<Self, OpError> {
        let holder = volume.holder(scope)?;
        let owner = marks.hold(volume)?;
        match Trash::begin(&holder, id, &Record { owner, ..record }) {
            Ok(_) => Ok(Filed::found(marks, volume, scope.copied(), owner, id)),
            Err(error) => {
                marks.release(volume, owner);
                Err(error)
            }
        }
    }

    /// A record that was found, of a mark that is held and on which it has been counted.
    pub fn found(
        marks: &Arc<Marks>,
        volume: &Arc<Volume>,
        scope: Option<QuotaScopeId>,
        owner: Uuid,
        id: Uuid,
    ) -> Self {
        let at = RecordAt { volume: Arc::clone(volume), scope, id };
        Filed { marks: Arc::clone(marks), owner, at, told: false }
    }

    /// Where it is.
    pub fn at(&self) -> &RecordAt {
        &self.at
    }

    /// Removes the record: nobody has to do or to tell anything more.
    pub fn remove(self) -> Result<(), OpError> {
        self.at.remove()?;
        self.marks.release(&self.at.volume, self.owner);
        Ok(())
    }
}
