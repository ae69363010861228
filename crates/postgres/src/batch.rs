//! Isolates a command that the database rejects from the rest of its batch.

use group_commit::StoreError;

/// The number of retries after a conflict. The server needs a second to detect a deadlock, so more retries would exceed the
/// clients' patience.
const CONFLICT_RETRIES: usize = 4;

/// Commits `commands` with `commit`, in one transaction if the database accepts all of them. Otherwise halves the batch until
/// each rejected command is alone, and only those fail. The order of the commands is kept.
///
/// Returns one outcome a command. Returns `Err` if nothing of the batch is written, as `commit` does.
pub fn commit_isolated<C: Clone, T, E: From<StoreError>>(
    commands: Vec<C>,
    mut commit: impl FnMut(Vec<C>) -> Result<Vec<Result<T, E>>, StoreError>,
) -> Result<Vec<Result<T, E>>, StoreError> {
    let mut isolation = Isolation { outcomes: Vec::with_capacity(commands.len()), rejected: 0, reason: None };
    let result = isolation.commit(&commands, &mut commit);
    let Isolation { mut outcomes, rejected, reason } = isolation;
    if let Some(error) = reason {
        tracing::error!(rejected, %error, "the database rejected commands; the rest of their batch is not affected");
    }
    match result {
        Err(error) if outcomes.is_empty() => Err(error),
        // The outcomes of the halves that were committed stand.
        Err(error) => {
            outcomes.resize_with(commands.len(), || Err(error.clone().into()));
            Ok(outcomes)
        }
        Ok(()) => Ok(outcomes),
    }
}

struct Isolation<T, E> {
    /// Of the commands processed so far.
    outcomes: Vec<Result<T, E>>,
    rejected: usize,
    /// The error of the first rejected command.
    reason: Option<StoreError>,
}

impl<T, E: From<StoreError>> Isolation<T, E> {
    fn commit<C: Clone>(
        &mut self,
        commands: &[C],
        commit: &mut impl FnMut(Vec<C>) -> Result<Vec<Result<T, E>>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut retries = 0..CONFLICT_RETRIES;
        let result = loop {
            match commit(commands.to_vec()) {
                Err(StoreError::Conflict(_)) if retries.next().is_some() => {}
                result => break result,
            }
        };
        match result {
            Ok(outcomes) => self.outcomes.extend(outcomes),
            Err(error @ StoreError::Rejected(_)) if commands.len() == 1 => {
                self.rejected += 1;
                self.outcomes.push(Err(error.clone().into()));
                self.reason.get_or_insert(error);
            }
            Err(StoreError::Rejected(_)) if commands.len() > 1 => {
                let (first, second) = commands.split_at(commands.len() / 2);
                self.commit(first, commit)?;
                self.commit(second, commit)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<u32, StoreError>;

    fn rejected() -> StoreError {
        StoreError::Rejected("multiple of 13".to_owned())
    }

    /// A database that rejects multiples of 13. Gives the outcomes, and the transactions that were tried.
    fn committed(
        commands: Vec<u32>,
        mut fault: impl FnMut(&[u32]) -> Option<StoreError>,
    ) -> (Result<Vec<Outcome>, StoreError>, Vec<Vec<u32>>) {
        let mut tried = Vec::new();
        let result = commit_isolated(commands, |commands: Vec<u32>| {
            tried.push(commands.clone());
            if let Some(error) = fault(&commands) {
                return Err(error);
            }
            match commands.iter().any(|command| command % 13 == 0) {
                true => Err(rejected()),
                false => Ok(commands.into_iter().map(Ok).collect()),
            }
        });
        (result, tried)
    }

    #[test]
    fn a_batch_without_fault_is_one_transaction() {
        let (result, tried) = committed(vec![1, 2, 3], |_| None);
        assert_eq!(tried, [[1, 2, 3]]);
        assert_eq!(result.expect("all is well").into_iter().collect::<Result<Vec<_>, _>>().expect("all"), [1, 2, 3]);
    }

    #[test]
    fn what_the_database_rejects_fails_alone_and_in_its_place() {
        let (result, tried) = committed((1..=100).collect(), |_| None);
        for (outcome, command) in result.expect("others are written").into_iter().zip(1..) {
            match command % 13 {
                0 => assert!(matches!(outcome, Err(StoreError::Rejected(_))), "{command}: {outcome:?}"),
                _ => assert_eq!(outcome.expect("it is not at fault"), command),
            }
        }
        let alone = tried.iter().filter(|commands| commands.len() == 1 && commands[0] % 13 == 0).count();
        assert_eq!(alone, 7, "each is tried alone, once");
        assert!(tried.len() < 100, "{} transactions", tried.len());
        // One alone, and none, as when the database is asked whether it is there.
        let (result, _) = committed(vec![13], |_| None);
        assert!(matches!(result.expect("an outcome")[..], [Err(StoreError::Rejected(_))]));
        let (result, tried) = committed(Vec::new(), |_| Some(rejected()));
        assert!(result.is_err() && tried.len() == 1);
    }

    #[test]
    fn a_conflict_is_tried_again_a_few_times() {
        let conflict = || StoreError::Conflict("deadlock detected".to_owned());
        let mut left = 2;
        let (result, tried) = committed(vec![1, 2], |_| {
            left -= 1;
            (left >= 0).then(conflict)
        });
        assert!(result.is_ok_and(|outcomes| outcomes.iter().all(Result::is_ok)));
        assert_eq!(tried.len(), 3);
        let (result, tried) = committed(vec![1, 2], |_| Some(conflict()));
        assert!(matches!(result, Err(StoreError::Conflict(_))));
        assert_eq!(tried.len(), 1 + CONFLICT_RETRIES);
    }

    #[test]
    fn a_server_that_goes_away_in_between_fails_only_what_was_not_written() {
        let (result, tried) = committed(vec![1, 2, 3, 13], |commands| {
            (commands == [3]).then(|| StoreError::Unavailable("gone".to_owned()))
        });
        let outcomes = result.expect("some are written");
        assert!(matches!(
            outcomes[..],
            [Ok(1), Ok(2), Err(StoreError::Unavailable(_)), Err(StoreError::Unavailable(_))]
        ));
        assert_eq!(tried.last().expect("a transaction"), &[3], "it is not asked again");
        // With nothing written, the whole batch has failed.
        assert!(committed(vec![1, 2], |_| Some(StoreError::Unavailable("gone".to_owned()))).0.is_err());
    }
}
