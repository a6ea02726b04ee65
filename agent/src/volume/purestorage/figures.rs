//! Figures of a FlashBlade: capacity and performance of the file system, health of the array.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::blade::Blade;
use crate::error::OpError;
use crate::volume::array::{ArrayError, Fields, Kind, Known, at, capacity_without, degraded};
use crate::volume::{Capacity, FsPerfMetric, Gauge, Hardware, Volume};

/// States of a blade that is as it should be, or not in use.
const WELL: [&str; 4] = ["healthy", "evacuated", "identifying", "unclaimed"];

/// The gauge.
pub(super) struct Figures {
    blade: Arc<Blade>,
    console: String,
    capacity: Known<Capacity>,
    facts: Known<BTreeMap<String, String>>,
}

impl Figures {
    pub(super) fn new(blade: Arc<Blade>, console: String) -> Self {
        Figures { blade, console, capacity: Known::default(), facts: Known::default() }
    }

    /// What counts against the provisioned size is what was written, before data reduction.
    async fn read_capacity(&self) -> Result<Capacity, ArrayError> {
        const READ: &str = "read the capacity";
        let fs = self.blade.file_system(READ).await?;
        let fields = Fields::new(&self.blade.client, READ, &fs);
        let used_bytes = fields.required_count("space.virtual")?;
        let capacity_bytes = match fields.count("provisioned")?.filter(|size| *size > 0) {
            Some(size) => size,
            None => self.array_capacity().await?,
        };
        let capacity = Capacity { capacity_bytes, used_bytes };
        self.capacity.keep(&capacity);
        Ok(capacity)
    }

    async fn array_capacity(&self) -> Result<u64, ArrayError> {
        const READ: &str = "read the array's capacity";
        let items = self.blade.items(READ, "arrays/space", &[("type", "file-system")]).await?;
        let first = items.first().unwrap_or(&Value::Null);
        Fields::new(&self.blade.client, READ, first).required_count("capacity")
    }

    async fn read_health(&self) -> Result<Hardware, ArrayError> {
        const READ: &str = "read the health";
        let arrays = self.blade.items(READ, "arrays", &[]).await?;
        let Some(array) = arrays.first() else {
            let problem = "the listing of arrays is empty".to_owned();
            return Err(self.blade.client.error(READ, Kind::Malformed(problem)));
        };
        let blades = self.blade.items("list blades", "blades", &[]).await?;
        let open = [("filter", "state='open' and severity='critical'")];
        let alerts = self.blade.items("list alerts", "alerts", &open).await?;
        let ill =
            blades.iter().filter(|blade| !at(blade, "status").as_str().is_some_and(|is| WELL.contains(&is)));
        let mut troubles = Vec::new();
        if let Some(count) = Some(ill.count()).filter(|count| *count > 0) {
            troubles.push(format!("{count} of {} blades are not healthy", blades.len()));
        }
        if !alerts.is_empty() {
            troubles.push(format!("{} critical alerts are open", alerts.len()));
        }
        let text =
            |key: &str| at(array, key).as_str().map(|text| self.blade.client.tame(text)).unwrap_or_default();
        let mut metadata: BTreeMap<String, String> =
            ["id", "name", "os", "revision", "version"].map(|key| (key.to_owned(), text(key))).into();
        metadata.insert("blade_count".into(), blades.len().to_string());
        metadata.insert("console_url".into(), self.console.clone());
        self.facts.keep(&metadata);
        let status = if troubles.is_empty() { "healthy" } else { "degraded" };
        let status_info = Some(troubles.join("; ")).filter(|info| !info.is_empty());
        Ok(Hardware { status, status_info, metadata })
    }
}

#[async_trait]
impl Gauge for Figures {
    async fn capacity(&self, volume: &Arc<Volume>) -> Result<Capacity, OpError> {
        match self.read_capacity().await {
            Ok(capacity) => Ok(capacity),
            Err(error) => capacity_without(&error, self.capacity.last(), volume).await,
        }
    }

    async fn hardware(&self, _: &Arc<Volume>) -> Result<Hardware, OpError> {
        Ok(self.read_health().await.unwrap_or_else(|error| degraded(&error, self.facts.last())))
    }

    async fn performance(&self, volume: &Arc<Volume>) -> Result<FsPerfMetric, OpError> {
        const READ: &str = "read the performance";
        let query = [("names", self.blade.name.as_str()), ("protocol", "NFS")];
        let items = self.blade.items(READ, "file-systems/performance", &query).await?;
        let Some(item) = items.first() else { return Err(OpError::NoMetric(volume.name.clone())) };
        let fields = Fields::new(&self.blade.client, READ, item);
        Ok(FsPerfMetric {
            iops_read: fields.rounded("reads_per_sec")?,
            iops_write: fields.rounded("writes_per_sec")?,
            io_bytes_read: fields.rounded("read_bytes_per_sec")?,
            io_bytes_write: fields.rounded("write_bytes_per_sec")?,
            io_usec_read: fields.figure("usec_per_read_op")?,
            io_usec_write: fields.figure("usec_per_write_op")?,
        })
    }

    async fn close(&self) {
        self.blade.client.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::array::testing::fuzz;

    #[test]
    fn fuzzed() {
        let build = |client| {
            Figures::new(Arc::new(Blade::new(client, "fs1".into(), Some("2.3".into()))), String::new())
        };
        fuzz("purestorage", build, async |figures: &Figures| vec![figures.blade.versions().await.err()]);
    }
}
