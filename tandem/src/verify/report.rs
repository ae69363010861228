//! What `tandem verify` prints.

use std::fmt::Write as _;
use std::time::Duration;

use account_events::AccountId;
use account_events::digest::EventState;
use serde_json::{Value, json};

use super::compare::{Comparison, States};

/// The most accounts that are listed.
const MAX_LISTED: usize = 100;

/// The outcome of the command.
pub(super) struct Report {
    pub(super) account_url: String,
    pub(super) card_urls: Vec<String>,
    pub(super) log: String,
    pub(super) comparison: Comparison,
    /// How many accounts were published again before the comparison; `None` if that was not asked for.
    pub(super) repaired: Option<usize>,
    pub(super) elapsed: Duration,
}

impl Report {
    pub(super) fn is_equal(&self) -> bool {
        self.comparison.differing.is_empty() && self.comparison.is_complete
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Comparison { accounts, log_accounts, undecodable, view_accounts, differing, is_complete, changing } =
            &self.comparison;
        let mut text = String::new();
        let mut line = |line: String| _ = writeln!(text, "{line}");
        line(format!("Account table  {accounts} accounts, {}", self.account_url));
        line(format!("Event log      {log_accounts} accounts, {}", self.log));
        for (accounts, url) in view_accounts.iter().zip(&self.card_urls) {
            line(format!("Account view   {accounts} accounts, {url}"));
        }
        if *undecodable > 0 {
            line(format!("{undecodable} records of the event log cannot be decoded; the quarantine has them."));
        }
        if *changing > 0 {
            line(format!("{changing} accounts changed all the time and were not compared to the end."));
        }
        if let Some(repaired) = self.repaired {
            line(format!("Published the state of {repaired} accounts again, and compared once more."));
        }
        for (id, states) in differing.iter().take(MAX_LISTED) {
            line(format!("{id}: {}", states.meaning()));
            line(format!("    table {}, log {}", shown(states.row), shown(states.log)));
            for (view, url) in states.views.iter().zip(&self.card_urls) {
                line(format!("    view {} at {url}", shown(*view)));
            }
        }
        if differing.len() > MAX_LISTED {
            line(format!("… and {} more.", differing.len() - MAX_LISTED));
        }
        if !is_complete {
            line(
                "More accounts differ than are compared one by one: run tandem resync, then compare again.".to_owned(),
            );
        }
        line(match differing.len() {
            0 if *is_complete => "Equal: the table, the log and every view have the same accounts.".to_owned(),
            count => format!("Different: {count} accounts{}.", if *is_complete { "" } else { " and more" }),
        });
        let memory = peak_memory().map(|bytes| format!(", {} MiB of memory at most", bytes >> 20)).unwrap_or_default();
        line(format!("Took {:.1} s{memory}.", self.elapsed.as_secs_f64()));
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let Comparison { accounts, log_accounts, undecodable, view_accounts, differing, is_complete, changing } =
            &self.comparison;
        let views = view_accounts.iter().zip(&self.card_urls);
        let listed = differing.iter().take(MAX_LISTED);
        json!({
            "equal": self.is_equal(),
            "table": { "url": self.account_url, "accounts": accounts },
            "log": { "where": self.log, "accounts": log_accounts, "undecodable": undecodable },
            "views": views.map(|(accounts, url)| json!({ "url": url, "accounts": accounts })).collect::<Vec<_>>(),
            "differing": differing.len(),
            "complete": is_complete,
            "changing": changing,
            "repaired": self.repaired,
            "accounts": listed.map(|(id, states)| states.json(*id)).collect::<Vec<_>>(),
            "seconds": self.elapsed.as_secs_f64(),
            "peak_memory_bytes": peak_memory(),
        })
    }
}

impl States {
    /// What the difference means.
    pub(super) fn meaning(&self) -> String {
        let Some(row) = self.row else {
            return "the account table does not have the account".to_owned();
        };
        let mut parts = Vec::new();
        match self.log {
            None => parts.push("the log has no readable last record of the account".to_owned()),
            Some(log) if log < row => parts.push("the last record in the log is stale".to_owned()),
            Some(log) if log > row => parts.push("the log is ahead of the table".to_owned()),
            Some(_) => {}
        }
        for (number, view) in (1..).zip(&self.views) {
            match view {
                None => parts.push(format!("view {number} does not have the account")),
                Some(view) if *view < row => parts.push(format!("view {number} is behind the table")),
                Some(view) if *view > row => parts.push(format!("view {number} is ahead of the table")),
                Some(_) => {}
            }
        }
        if self.is_deleted_in_view_alone() {
            parts.push("a view alone has it as DELETED: rebuild that view".to_owned());
        }
        parts.join("; ")
    }

    fn json(&self, id: AccountId) -> Value {
        let state = |state: Option<EventState>| {
            state.map(|EventState { version, status }| json!({ "version": version, "status": status }))
        };
        json!({
            "account": id,
            "table": state(self.row),
            "log": state(self.log),
            "views": self.views.iter().copied().map(state).collect::<Vec<_>>(),
            "meaning": self.meaning(),
        })
    }
}

fn shown(state: Option<EventState>) -> String {
    state
        .map_or("none".to_owned(), |EventState { version, status }| format!("{} in version {version}", status.as_str()))
}

/// The most memory that the process had, in bytes, where the system tells it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn accounts_that_were_not_compared_are_never_equal() {
        let comparison = |is_complete| Comparison {
            accounts: 0,
            log_accounts: 200_000,
            undecodable: 0,
            view_accounts: vec![0],
            differing: BTreeMap::new(),
            is_complete,
            changing: 0,
        };
        let report = |is_complete| Report {
            account_url: String::new(),
            card_urls: vec![String::new()],
            log: String::new(),
            comparison: comparison(is_complete),
            repaired: None,
            elapsed: Duration::ZERO,
        };
        let incomplete = report(false);
        assert!(report(true).is_equal() && !incomplete.is_equal());
        let (text, json) = (incomplete.text(), incomplete.json());
        assert!(text.contains("run tandem resync") && text.contains("Different: 0 accounts and more."), "{text}");
        assert_eq!([&json["equal"], &json["complete"]], [&json!(false); 2]);
    }
}
