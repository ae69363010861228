//! The position of a stream, as the `id` of an event and as `Last-Event-ID`: `<log id>;0:17,1:4`, the next offset of each partition.

use std::fmt;
use std::str::FromStr;

use event_log::Positions;

use crate::http::digest::log::parse_positions;

/// The longest log id: twice what the account service makes.
const MAX_LOG_ID: usize = 64;

/// A position in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The id of the log; empty if the log has no owner record.
    pub(super) log_id: String,
    pub(super) positions: Positions,
}

impl Cursor {
    /// Whether the cursor is of another log than the one called `log_id`. A log without an id may be any.
    pub(super) fn is_of_another_log(&self, log_id: &str) -> bool {
        !self.log_id.is_empty() && !log_id.is_empty() && self.log_id != log_id
    }

    /// Moves on to `positions`, never back: a stream that another instance began may be ahead of this one.
    pub(super) fn advance(&mut self, positions: &Positions) {
        for (partition, offset) in positions {
            let known = self.positions.entry(*partition).or_default();
            *known = (*known).max(*offset);
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};", self.log_id)?;
        for (place, (partition, offset)) in self.positions.iter().enumerate() {
            write!(f, "{}{partition}:{offset}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (log_id, positions) = text.split_once(';').ok_or(())?;
        if log_id.len() > MAX_LOG_ID || !log_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(());
        }
        let positions = match positions {
            "" => Positions::new(),
            positions => parse_positions(positions).ok_or(())?,
        };
        Ok(Cursor { log_id: log_id.to_owned(), positions })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_harness::mangled_text;

    use super::*;

    #[test]
    fn a_cursor_reads_as_it_is_written() {
        for text in ["7f3a;0:17,2:4", ";0:1", ";", "a-b;"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in ["", "0:17", "a b;0:1", "a;0", "a;0:-1", "é;0:1", "a;0:1\n", &format!("{};", "a".repeat(65))] {
            assert_eq!(text.parse::<Cursor>(), Err(()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn fuzz_a_cursor_is_read_as_it_is_written_or_refused(text in mangled_text(&["7f3a;0:17,2:4", ";18446744073709551615:0"])) {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
            }
        }
    }

    #[test]
    fn a_cursor_never_goes_back_and_a_log_without_an_id_may_be_any() {
        let mut cursor: Cursor = "a;0:17".parse().unwrap();
        cursor.advance(&Positions::from([(0, 4), (1, 2)]));
        assert_eq!(cursor.to_string(), "a;0:17,1:2");
        assert!(cursor.is_of_another_log("b") && !cursor.is_of_another_log("a") && !cursor.is_of_another_log(""));
    }
}
