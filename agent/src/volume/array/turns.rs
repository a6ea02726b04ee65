//! Work that the array does one at a time for a whole volume, and that one run does for everybody who asked before it
//! began: switching quotas, reading all reports.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use super::ArrayError;

/// Runs of one kind of work.
#[derive(Debug, Default)]
pub(in crate::volume) struct Turns {
    /// How many have asked.
    asked: AtomicU64,
    /// How many of them the last run has served, and how it ended.
    served: Mutex<(u64, Option<ArrayError>)>,
}

impl Turns {
    /// Returns when a run of `work` that began after this call has ended, whoever began it.
    pub(in crate::volume) async fn run<F>(&self, work: impl FnOnce() -> F) -> Result<(), ArrayError>
    where
        F: Future<Output = Result<(), ArrayError>>,
    {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut served = self.served.lock().await;
        if served.0 < turn {
            let covers = self.asked.load(Ordering::SeqCst);
            let outcome = work().await;
            *served = (covers, outcome.err());
        }
        served.1.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    #[tokio::test]
    async fn one_run_serves_all_who_asked_before_it_began_and_nobody_else() {
        let (turns, runs) = (Arc::new(Turns::default()), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let (turns, runs) = (Arc::clone(&turns), Arc::clone(&runs));
            tokio::spawn(async move {
                let work = || async {
                    runs.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok(())
                };
                turns.run(work).await.unwrap();
            })
        };
        let all: Vec<_> = (0..50).map(|_| ask()).collect();
        for one in all {
            one.await.unwrap();
        }
        let burst = runs.load(Ordering::SeqCst);
        assert!(burst <= 2, "{burst} runs for 50");
        ask().await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), burst + 1);
    }
}
