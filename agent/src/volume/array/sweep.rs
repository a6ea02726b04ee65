//! One question at a time, or all answers at once.
//!
//! Managers ask for the use of one scope after another. A single question costs one call for exactly that scope. When
//! another scope is asked for right after it, a sweep is under way: all are listed page by page, and each is answered from
//! the listing once. A scope that is asked for again gets fresh figures.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::ArrayError;

/// Questions that follow each other closer than this belong to one sweep.
const GAP: Duration = Duration::from_secs(1);
/// A listing is not used for longer.
const FRESH: Duration = Duration::from_secs(15);
/// A listing that has answered so many is worth another one.
const WORTH: usize = 32;
/// How long a listing that failed is not tried again.
const REST: Duration = Duration::from_secs(1);

/// Answers of type `V` by keys of type `K`.
pub(in crate::volume) struct Sweep<K, V>(Mutex<State<K, V>>);

struct State<K, V> {
    asked: Option<(Instant, K)>,
    listing: Option<Listing<K, V>>,
    failed: Option<(Instant, ArrayError)>,
}

struct Listing<K, V> {
    since: Instant,
    left: HashMap<K, V>,
    given: usize,
}

/// Where an answer comes from.
enum Way<V> {
    Known(V),
    One,
    All,
}

impl<K, V> Default for Sweep<K, V> {
    fn default() -> Self {
        Sweep(Mutex::new(State { asked: None, listing: None, failed: None }))
    }
}

impl<K: Clone + Eq + Hash, V> Sweep<K, V> {
    /// The answer for `key`: from `one`, or out of what `all` lists. Nothing if the array has none.
    pub(in crate::volume) async fn get<O, A>(
        &self,
        key: &K,
        one: impl FnOnce() -> O,
        all: impl FnOnce() -> A,
    ) -> Result<Option<V>, ArrayError>
    where
        O: Future<Output = Result<Option<V>, ArrayError>>,
        A: Future<Output = Result<HashMap<K, V>, ArrayError>>,
    {
        let mut state = self.0.lock().await;
        match state.way(key) {
            Way::Known(value) => Ok(Some(value)),
            Way::One => {
                drop(state);
                one().await
            }
            // Everybody else waits here, to be answered from the listing too.
            Way::All => {
                if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| at.elapsed() < REST) {
                    return Err(error.clone());
                }
                let listed =
                    all().await.inspect_err(|error| state.failed = Some((Instant::now(), error.clone())))?;
                let listing = state.listing.insert(Listing { since: Instant::now(), left: listed, given: 1 });
                let value = listing.left.remove(key);
                state.asked = Some((Instant::now(), key.clone()));
                Ok(value)
            }
        }
    }

    /// What is listed for `key` is no longer true.
    pub(in crate::volume) async fn forget(&self, key: &K) {
        if let Some(listing) = &mut self.0.lock().await.listing {
            listing.left.remove(key);
        }
    }
}

impl<K: Clone + Eq, V> State<K, V>
where
    K: Hash,
{
    fn way(&mut self, key: &K) -> Way<V> {
        let before = self.asked.replace((Instant::now(), key.clone()));
        let recent = before.filter(|(at, _)| at.elapsed() < GAP);
        let Some((_, other)) = recent else {
            self.listing = None;
            return Way::One;
        };
        self.listing.take_if(|listing| listing.since.elapsed() > FRESH);
        let Some(listing) = &mut self.listing else {
            return if other == *key { Way::One } else { Way::All };
        };
        match listing.left.remove(key) {
            Some(value) => {
                listing.given += 1;
                Way::Known(value)
            }
            None if listing.given > WORTH && other != *key => Way::All,
            None => Way::One,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Array {
        sweep: Sweep<u32, u32>,
        ones: Cell<u32>,
        lists: Cell<u32>,
    }

    impl Array {
        fn new() -> Self {
            Array { sweep: Sweep::default(), ones: Cell::new(0), lists: Cell::new(0) }
        }

        async fn ask(&self, key: u32) -> Option<u32> {
            let one = || async {
                self.ones.set(self.ones.get() + 1);
                Ok((key < 100).then_some(key))
            };
            let all = || async {
                self.lists.set(self.lists.get() + 1);
                Ok((0..100).map(|key| (key, key)).collect())
            };
            self.sweep.get(&key, one, all).await.unwrap()
        }
    }

    #[tokio::test]
    async fn the_first_question_costs_one_call_and_a_sweep_one_listing_more() {
        let array = Array::new();
        for key in 0..100 {
            assert_eq!(array.ask(key).await, Some(key));
        }
        assert_eq!((array.ones.get(), array.lists.get()), (1, 1));
        for key in 0..100 {
            assert_eq!(array.ask(key).await, Some(key));
        }
        assert!(array.ones.get() + array.lists.get() <= 4, "a second sweep is a sweep too");
    }

    #[tokio::test]
    async fn the_same_question_again_gets_a_fresh_answer() {
        let array = Array::new();
        for _ in 0..5 {
            array.ask(7).await;
        }
        assert_eq!((array.ones.get(), array.lists.get()), (5, 0));
        array.ask(8).await;
        array.ask(9).await;
        array.ask(9).await;
        assert_eq!((array.ones.get(), array.lists.get()), (6, 1));
        array.sweep.forget(&10).await;
        array.ask(10).await;
        assert_eq!(array.ones.get(), 7, "what was changed meanwhile is asked for anew");
        assert_eq!(array.ask(500).await, None);
    }
}
