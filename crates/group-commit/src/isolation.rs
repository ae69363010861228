//! Isolates the commands that cannot be committed from the rest of their batch.
//!
//! A batch that the database rejects, or that another transaction blocks, is halved until each command at fault is alone. Only
//! these commands fail, until `ISOLATION_LIMIT`: after it a part with a conflict fails whole. The order of the commands is kept.

use std::time::{Duration, Instant};

use crate::{Committer, Health, Results, StoreError};

/// The most retries of a transaction after a conflict. A deadlock or a serialization failure is usually over at once.
const CONFLICT_RETRIES: usize = 4;

/// How long conflicts are retried before the batch is halved. Everything behind the batch waits meanwhile.
const CONFLICT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a batch may be halved because of conflicts, each of which may wait for a lock. Then the rest of it fails.
const ISOLATION_LIMIT: Duration = Duration::from_secs(5);

/// Commits `commands`, in one transaction if the database accepts all of them. Returns one result for each, in the same order,
/// and whether the database works: an error that concerns single commands does not count, unless no command could be committed
/// and a stored row cannot be read. `commands_health` records the errors of single commands.
pub(super) fn commit<C: Committer>(
    committer: &mut C,
    commands: &[C::Command],
    is_failing: bool,
    commands_health: &Health,
) -> (Results<C::Outcome>, Result<(), StoreError>) {
    let results = Vec::with_capacity(commands.len());
    let mut isolation = Isolation { committer, is_failing, began: Instant::now(), has_probed: false, results };
    let mut health = isolation.commit(commands);
    let mut results = isolation.results;
    let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    commands_health.record(errors.first().map_or(Ok(()), |error| Err(*error)));
    if errors.len() == commands.len()
        && let Some(error) = errors.into_iter().find(|error| matches!(error, StoreError::Damaged(_)))
    {
        health = Err(error.clone());
    }
    if let Err(error) = &health {
        results.resize_with(commands.len(), || Err(error.clone()));
    }
    (results, health)
}

struct Isolation<'a, C: Committer> {
    committer: &'a mut C,
    is_failing: bool,
    began: Instant,
    /// Whether the database has accepted an empty transaction since the first conflict.
    has_probed: bool,
    /// The results of the commands processed so far.
    results: Results<C::Outcome>,
}

impl<C: Committer> Isolation<'_, C> {
    /// Commits `commands`, if need be in halves. Returns an error if it does not concern single commands.
    fn commit(&mut self, commands: &[C::Command]) -> Result<(), StoreError> {
        let error = match self.attempt(commands) {
            Ok(outcomes) => {
                self.results.extend(outcomes.into_iter().map(Ok));
                return Ok(());
            }
            Err(error) => error,
        };
        let is_conflict = matches!(error, StoreError::Conflict(_));
        if !is_conflict && !matches!(error, StoreError::Rejected(_) | StoreError::Damaged(_)) || commands.is_empty() {
            return Err(error);
        }
        if is_conflict && !self.has_probed {
            // A lock that every transaction needs is not the fault of single commands.
            self.attempt(&[])?;
            self.has_probed = true;
        }
        if commands.len() == 1 || is_conflict && self.began.elapsed() > ISOLATION_LIMIT {
            self.results.extend(commands.iter().map(|_| Err(error.clone())));
            return Ok(());
        }
        let (first, second) = commands.split_at(commands.len() / 2);
        self.commit(first)?;
        self.commit(second)
    }

    /// Runs one transaction, and retries it after a conflict. A lasting conflict of an empty one means that nothing can be written.
    fn attempt(&mut self, commands: &[C::Command]) -> Result<Vec<C::Outcome>, StoreError> {
        let mut retries = 0..CONFLICT_RETRIES;
        loop {
            match self.committer.commit(commands.to_vec(), self.is_failing) {
                Err(StoreError::Conflict(_))
                    if retries.next().is_some() && self.began.elapsed() < CONFLICT_PATIENCE => {}
                Err(StoreError::Conflict(text)) if commands.is_empty() => return Err(StoreError::Unavailable(text)),
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that rejects multiples of 13. `fault` may return another error for a transaction.
    struct Database<F> {
        fault: F,
        /// The transactions that were tried.
        tried: Vec<Vec<u32>>,
    }

    impl<F: FnMut(&[u32]) -> Option<StoreError> + Send + 'static> Committer for Database<F> {
        type Command = u32;
        type Outcome = u32;

        fn commit(&mut self, commands: Vec<u32>, _is_failing: bool) -> Result<Vec<u32>, StoreError> {
            self.tried.push(commands.clone());
            match (self.fault)(&commands) {
                Some(error) => Err(error),
                None if commands.iter().any(|command| command % 13 == 0) => Err(StoreError::Rejected("13".to_owned())),
                None => Ok(commands),
            }
        }
    }

    fn committed(
        commands: impl IntoIterator<Item = u32>,
        fault: impl FnMut(&[u32]) -> Option<StoreError> + Send + 'static,
    ) -> (Results<u32>, Result<(), StoreError>, Vec<Vec<u32>>) {
        let mut database = Database { fault, tried: Vec::new() };
        let (commands, commands_health) = (commands.into_iter().collect::<Vec<_>>(), Health::new("failed", "works"));
        let (results, health) = commit(&mut database, &commands, false, &commands_health);
        (results, health, database.tried)
    }

    fn conflict() -> StoreError {
        StoreError::Conflict("canceling statement due to lock timeout".to_owned())
    }

    fn assert_only(results: Results<u32>, count: u32, fails: impl Fn(u32) -> bool) {
        assert_eq!(results.len(), count as usize);
        for (result, command) in results.into_iter().zip(1..) {
            assert_eq!(result.is_err(), fails(command), "{command}: {result:?}");
            assert!(result.is_err() || result.is_ok_and(|outcome| outcome == command), "in its place");
        }
    }

    #[test]
    fn a_batch_without_a_fault_is_one_transaction() {
        let (results, health, tried) = committed(1..=3, |_| None);
        assert_only(results, 3, |_| false);
        assert!(health.is_ok());
        assert_eq!(tried, [[1, 2, 3]]);
    }

    #[test]
    fn rejected_commands_fail_alone_and_do_not_count_as_a_failure() {
        let (results, health, tried) = committed(1..=100, |_| None);
        assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|e| matches!(e, StoreError::Rejected(_))));
        assert_only(results, 100, |command| command % 13 == 0);
        assert!(health.is_ok());
        let alone = tried.iter().filter(|commands| commands.len() == 1 && commands[0] % 13 == 0).count();
        assert_eq!(alone, 7, "each is tried alone, once");
        assert!(tried.len() < 100, "{} transactions", tried.len());
        let (results, health, _) = committed([13], |_| None);
        assert!(matches!(results[..], [Err(StoreError::Rejected(_))]) && health.is_ok());
    }

    #[test]
    fn a_damaged_row_fails_the_commands_that_need_it_and_counts_when_nothing_can_be_committed() {
        let damaged = |commands: &[u32]| {
            commands.iter().any(|command| command % 4 == 0).then(|| StoreError::Damaged("row".to_owned()))
        };
        let (results, health, _) = committed(1..=10, damaged);
        assert_only(results, 10, |command| command % 4 == 0);
        assert!(health.is_ok());
        let (results, health, _) = committed([4, 13, 8], damaged);
        assert!(results.iter().all(Result::is_err));
        assert!(matches!(health, Err(StoreError::Damaged(_))), "{health:?}");
    }

    #[test]
    fn a_conflict_that_ends_is_retried() {
        let mut left = 2;
        let (results, health, tried) = committed(1..=2, move |_| {
            left -= 1;
            (left >= 0).then(conflict)
        });
        assert_only(results, 2, |_| false);
        assert!(health.is_ok());
        assert_eq!(tried.len(), 3);
    }

    #[test]
    fn a_command_that_needs_a_locked_row_fails_alone() {
        let (results, health, tried) = committed(1..=12, |commands| commands.contains(&7).then(conflict));
        assert!(matches!(results[6], Err(StoreError::Conflict(_))));
        assert_only(results, 12, |command| command == 7);
        assert!(health.is_ok(), "an empty transaction was accepted");
        assert_eq!(tried.iter().filter(|commands| commands.is_empty()).count(), 1);
    }

    #[test]
    fn a_lock_that_every_transaction_needs_is_a_failure_of_the_database() {
        for count in [1, 12] {
            let (results, health, tried) = committed(1..=count, |_| Some(conflict()));
            assert_only(results, count, |_| true);
            assert!(matches!(health, Err(StoreError::Unavailable(_))), "{health:?}");
            assert!(tried.iter().all(|commands| [0, count as usize].contains(&commands.len())), "nothing is halved");
        }
    }

    #[test]
    fn a_server_that_fails_in_between_fails_only_what_is_not_committed() {
        let gone = |commands: &[u32]| (commands == [3]).then(|| StoreError::Unavailable("gone".to_owned()));
        let (results, health, tried) = committed([1, 2, 3, 13], gone);
        assert_only(results, 4, |command| command > 2);
        assert!(matches!(health, Err(StoreError::Unavailable(_))));
        assert_eq!(tried.last().expect("a transaction"), &[3], "no transaction follows");
    }
}
