//! What the tokens of a short while ago said.
//!
//! A client that reads a file in many ranges sends the same token with each of them. Its signature holds for good and
//! its claims do not change, only its time passes: so they are kept, and the time is looked at anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens in one generation. The two together take at most a few hundred kilobytes of ordinary tokens.
const MANY: usize = 512;

/// Claims by the token that they came in, of the last [`MANY`] tokens or a few more.
pub(super) struct Recent<T>(Mutex<Generations<T>>);

struct Generations<T> {
    young: HashMap<Box<[u8]>, Arc<T>>,
    old: HashMap<Box<[u8]>, Arc<T>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

impl<T> Recent<T> {
    /// What this very token said. The keys of the map are hashed with a secret of the process, so that the time this
    /// takes tells nothing of other tokens.
    pub(super) fn get(&self, token: &[u8]) -> Option<Arc<T>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = kept.young.get(token) {
            return Some(Arc::clone(claims));
        }
        let (token, claims) = kept.old.remove_entry(token)?;
        kept.put(token, &claims);
        Some(claims)
    }

    /// Keeps what a token said whose signature was verified.
    pub(super) fn put(&self, token: &[u8], claims: &Arc<T>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(token.into(), claims);
    }
}

impl<T> Generations<T> {
    fn put(&mut self, token: Box<[u8]>, claims: &Arc<T>) {
        if self.young.len() >= MANY {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, Arc::clone(claims));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_what_is_kept_is_bounded() {
        let recent = Recent::default();
        recent.put(b"asked for", &Arc::new(usize::MAX));
        for number in 0..10 * MANY {
            recent.put(format!("token {number}").as_bytes(), &Arc::new(number));
            assert_eq!(recent.get(b"asked for").as_deref(), Some(&usize::MAX));
        }
        assert!(recent.get(b"token 0").is_none());
        assert_eq!(
            recent.get(format!("token {}", 10 * MANY - 1).as_bytes()).as_deref(),
            Some(&(10 * MANY - 1))
        );
        let kept = recent.0.lock().unwrap();
        assert!(kept.young.len() <= MANY && kept.old.len() <= MANY);
    }
}
