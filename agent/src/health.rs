//! Whether the volumes can be used at the moment, for those who ask: probes, metrics, people.

use std::sync::Arc;

use jiff::Timestamp;

use crate::metrics::Metrics;
use crate::volume::{Volume, Volumes};

/// All volumes.
pub struct Health {
    volumes: Vec<Arc<Volume>>,
}

/// What a volume answered.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The volume's name.
    pub volume: String,
    /// When it was found out.
    pub at: Timestamp,
    /// Why the volume cannot be used; nothing if it can.
    pub error: Option<String>,
}

impl Health {
    /// Prepares to ask these volumes; nothing is opened yet.
    pub fn new(volumes: &Volumes) -> Self {
        Health { volumes: volumes.iter().cloned().collect() }
    }

    /// Asks every volume at once and notes the answers in the metrics. Takes as long as a volume may take, at most.
    pub async fn check(&self, metrics: &Metrics) -> Vec<Finding> {
        let findings = futures_util::future::join_all(self.volumes.iter().map(ask)).await;
        for finding in &findings {
            metrics.volume_ready(&finding.volume, finding.error.is_none());
        }
        findings
    }
}

async fn ask(volume: &Arc<Volume>) -> Finding {
    let answer = volume.answer().await;
    Finding { volume: volume.name.clone(), at: answer.at, error: answer.error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_that_is_gone_is_not_ready_and_the_others_are() {
        let here = tempfile::tempdir().unwrap();
        let volumes = Volumes::from_iter([
            Volume::plain("gone", "/no/such/directory".into()),
            Volume::plain("here", here.path().to_owned()),
        ]);
        let metrics = Metrics::default();
        let findings = Health::new(&volumes).check(&metrics).await;
        assert!(findings[0].error.as_ref().unwrap().contains("\"gone\" cannot be used at the moment"));
        assert_eq!(findings[1].error, None);
        let text = metrics.render().unwrap();
        assert!(text.contains(r#"volume_ready{volume="gone"} 0"#), "{text}");
        assert!(text.contains(r#"volume_ready{volume="here"} 1"#), "{text}");
    }
}
