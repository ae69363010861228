//! The tokens that a set of keys has verified: verifying a signature takes tens of microseconds, and finding a token less than one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::scope::Scopes;

/// The tokens of a generation. Two generations take about 2 MB.
const GENERATION: usize = 4_096;

/// Whom a valid token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) name: Arc<str>,
    pub(crate) scopes: Scopes,
    /// The last second in which the token is valid, in seconds since 1970.
    pub(crate) ends: i64,
}

/// Verified tokens by their SHA-256. The least recently used half goes when the cache is full.
#[derive(Debug, Default)]
pub(crate) struct TokenCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<[u8; 32], Verified>,
    old: HashMap<[u8; 32], Verified>,
}

impl TokenCache {
    /// Returns whom the token with this hash names, unless it has ended.
    pub(crate) fn get(&self, hash: &[u8; 32], now: i64) -> Option<Verified> {
        let mut generations = self.0.lock();
        if let Some(verified) = generations.young.get(hash) {
            return (now <= verified.ends).then(|| verified.clone());
        }
        let verified = generations.old.remove(hash).filter(|verified| now <= verified.ends)?;
        generations.insert(*hash, verified.clone());
        Some(verified)
    }

    pub(crate) fn insert(&self, hash: [u8; 32], verified: Verified) {
        self.0.lock().insert(hash, verified);
    }
}

impl Generations {
    fn insert(&mut self, hash: [u8; 32], verified: Verified) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    #[test]
    fn a_token_ends_and_the_cache_is_bounded() {
        let cache = TokenCache::default();
        let verified = Verified { name: "a".into(), scopes: Scopes::default(), ends: 7 };
        cache.insert(hash(0), verified.clone());
        assert_eq!(cache.get(&hash(0), 7), Some(verified.clone()));
        assert_eq!(cache.get(&hash(0), 8), None);
        for number in 1..10 * GENERATION {
            cache.insert(hash(number), verified.clone());
            assert!(cache.get(&hash(0), 0).is_some(), "a token that is used stays");
        }
        let generations = cache.0.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }
}
