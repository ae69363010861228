//! The name of an account's holder.
//!
//! Names are displayed next to other text. So a name needs a visible character, and may not contain control characters,
//! bidirectional controls or noncharacters. All other characters are allowed, such as joiners, variation selectors and tags.

use std::str::FromStr;

use serde::Serialize;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};
use utoipa::ToSchema;

use crate::error::AccountError;

/// The longest name, in characters (docs/api.md).
const MAX_CHARS: usize = 200;

/// Invisible characters whose category is that of a letter or a symbol: the Hangul fillers, which have the Unicode property
/// Default_Ignorable_Code_Point, the blank Braille pattern, the null note head and the blank Egyptian hieroglyphs.
const BLANKS: [char; 8] =
    ['\u{115F}', '\u{1160}', '\u{3164}', '\u{FFA0}', '\u{2800}', '\u{1D159}', '\u{13441}', '\u{13442}'];

/// What an erased name is replaced by (docs/api.md).
pub(crate) const ERASED: &str = "erased";

/// A name of 1 to 200 characters without white space at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 200)]
pub struct BeholderName(String);

/// The rule that a name breaks. Its message is put after the word `beholder_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBeholderName {
    /// The name is too long.
    #[error("must have at most {MAX_CHARS} characters")]
    TooLong,
    /// The name has no visible character.
    #[error("must have a visible character")]
    Invisible,
    /// The name has a forbidden character.
    #[error("must not have control characters, bidirectional controls or noncharacters: it has U+{0:04X}")]
    Forbidden(u32),
}

impl FromStr for BeholderName {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let name = text.trim();
        if name.is_empty() {
            return Err(AccountError::EmptyName);
        }
        if name.chars().count() > MAX_CHARS {
            return Err(InvalidBeholderName::TooLong.into());
        }
        if let Some(forbidden) = name.chars().find(|char| is_forbidden(*char)) {
            return Err(InvalidBeholderName::Forbidden(forbidden.into()).into());
        }
        if !name.chars().any(is_visible) {
            return Err(InvalidBeholderName::Invisible.into());
        }
        Ok(BeholderName(name.to_owned()))
    }
}

impl BeholderName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of an account whose name was erased.
    pub(crate) fn erased() -> Self {
        BeholderName(ERASED.to_owned())
    }

    /// A name from the database. It is not checked, because older versions may have had other rules.
    pub(crate) fn stored(name: String) -> Self {
        BeholderName(name)
    }
}

/// Whether `char` is a control character (Cc), a bidirectional control (the property Bidi_Control) or a noncharacter.
fn is_forbidden(char: char) -> bool {
    let is_bidi_control =
        matches!(char, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let is_noncharacter = matches!(char, '\u{FDD0}'..='\u{FDEF}') || u32::from(char) & 0xFFFE == 0xFFFE;
    char.is_control() || is_bidi_control || is_noncharacter
}

/// Whether `char` is visible by itself: not a space, mark, format or default-ignorable character.
fn is_visible(char: char) -> bool {
    use GeneralCategory as Is;
    let is_ignorable_unassigned = matches!(char, '\u{2065}' | '\u{FFF0}'..='\u{FFF8}' | '\u{E0000}'..='\u{E0FFF}');
    let is_invisible = matches!(
        char.general_category(),
        Is::SpaceSeparator
            | Is::LineSeparator
            | Is::ParagraphSeparator
            | Is::NonspacingMark
            | Is::SpacingMark
            | Is::EnclosingMark
            | Is::Format
    );
    !is_invisible && !is_ignorable_unassigned && !BLANKS.contains(&char)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_harness::mangled_text;

    use super::*;

    proptest! {
        #[test]
        fn fuzz_a_name_that_is_taken_is_taken_again(text in mangled_text(&["John Doe", "\u{5E9}\u{5DC}\u{5D5}\u{5DD} \u{1F469}\u{200D}\u{1F4BB}"])) {
            if let Ok(name) = text.parse::<BeholderName>() {
                prop_assert!((1..=MAX_CHARS).contains(&name.as_str().chars().count()));
                prop_assert_eq!(name.as_str().parse::<BeholderName>().ok(), Some(name));
            }
        }
    }

    fn parse(text: &str) -> Result<String, AccountError> {
        text.parse().map(|BeholderName(name)| name)
    }

    #[test]
    fn names_of_all_scripts_are_taken_as_they_are() {
        for name in [
            "John Doe",
            "X Æ A-12",
            "李",
            "محمد",
            "שָׁלוֹם",
            "क्\u{200D}ष श्री",
            "നന്\u{200C}ദ",
            "می\u{200C}خواهم",
            "👨\u{200D}👩\u{200D}👧",
            "❤\u{FE0F}",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "e\u{0301}",
            "\u{FEFF}x",
            "한\u{3164}",
            "\u{E000}",
            "-",
        ] {
            assert_eq!(parse(name).unwrap(), name, "{name:?}");
        }
    }

    #[test]
    fn names_are_trimmed_of_all_white_space_and_bounded_in_characters() {
        assert_eq!(parse(" \u{3000}John\u{A0}Doe\u{2003}\u{2028}\n").unwrap(), "John\u{A0}Doe");
        assert!(parse(&"ß".repeat(200)).is_ok());
        let long = parse(&"ß".repeat(201)).unwrap_err();
        assert_eq!(long.to_string(), "beholder_name must have at most 200 characters");
        for empty in ["", "  ", "\u{3000}\u{1680}\u{205F}\u{85}"] {
            assert!(matches!(parse(empty), Err(AccountError::EmptyName)), "{empty:?}");
        }
    }

    #[test]
    fn a_name_of_nothing_visible_is_refused() {
        let format = "\u{200B} \u{200D}\u{FEFF}\u{00AD}\u{2060}\u{180E}\u{FFF9}";
        let marks = "\u{0301} \u{0903}\u{20DD}\u{034F}\u{FE0F}\u{180B}\u{E0100}";
        let blanks = "\u{2800}\u{3164}\u{115F}\u{1160}\u{FFA0}\u{1D159}\u{13441}";
        let unassigned = "\u{2065}\u{FFF0}\u{E0002}\u{E0FFF}";
        for text in [format, marks, blanks, unassigned] {
            for name in text.split(' ').chain([text]).map(str::to_owned).chain(text.chars().map(String::from)) {
                let refused = parse(&name);
                let is_empty = name.trim().is_empty() && matches!(refused, Err(AccountError::EmptyName));
                let is_invisible = matches!(refused, Err(AccountError::InvalidName(InvalidBeholderName::Invisible)));
                assert!(is_empty || is_invisible, "{name:?}: {refused:?}");
            }
        }
    }

    #[test]
    fn control_characters_bidirectional_controls_and_noncharacters_are_refused_by_number() {
        let bidi = "\u{061C}\u{200E}\u{200F}\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}\u{2066}\u{2067}\u{2068}\u{2069}";
        let others = "\0\u{7}\u{7F}\u{9B}\u{FDD0}\u{FDEF}\u{FFFE}\u{FFFF}\u{1FFFE}\u{10FFFF}";
        for char in bidi.chars().chain(others.chars()) {
            let error = parse(&format!("John{char}Doe")).unwrap_err().to_string();
            assert!(error.starts_with("beholder_name must not have "), "{error}");
            assert!(error.ends_with(&format!("it has U+{:04X}", u32::from(char))), "{error}");
        }
        for char in ["\u{FDCF}", "\u{FDF0}", "\u{FFFD}"] {
            assert!(parse(&format!("John{char}Doe")).is_ok(), "{char:?}");
        }
    }
}
