//! Country codes: ISO 3166-1 alpha-2, upper case, officially assigned ones only (docs/api.md).

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// The officially assigned codes, sorted. ISO 3166-1 as of November 2026.
const ASSIGNED: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ \
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR \
    GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT \
    JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO \
    MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY \
    QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO \
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// An assigned country code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountryCode(&'static str);

/// Why a text is not a country code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCountryCode {
    /// The text is not an assigned code.
    #[error("must be an ISO 3166-1 alpha-2 code in upper case, such as US")]
    Unassigned,
    /// The text is `UK`, a common mistake for GB.
    #[error("must be an ISO 3166-1 alpha-2 code in upper case; the United Kingdom has GB")]
    UnitedKingdom,
}

impl CountryCode {
    /// The code: two upper-case letters.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl PartialSchema for CountryCode {
    fn schema() -> RefOr<Schema> {
        let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(ASSIGNED.split(' ')));
        schema.description(Some("An officially assigned ISO 3166-1 alpha-2 code, upper case.")).into()
    }
}

impl ToSchema for CountryCode {}

impl FromStr for CountryCode {
    type Err = InvalidCountryCode;

    fn from_str(text: &str) -> Result<Self, InvalidCountryCode> {
        // Each code has two letters and a space, so the list is an array with a stride of three.
        let codes = ASSIGNED.as_bytes();
        let (mut low, mut high) = (0, codes.len().div_ceil(3));
        while low < high {
            let middle = low.midpoint(high);
            match ASSIGNED[middle * 3..middle * 3 + 2].cmp(text) {
                std::cmp::Ordering::Equal => return Ok(CountryCode(&ASSIGNED[middle * 3..middle * 3 + 2])),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(match text.eq_ignore_ascii_case("UK") {
            true => InvalidCountryCode::UnitedKingdom,
            false => InvalidCountryCode::Unassigned,
        })
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for CountryCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_sorted_and_each_of_it_is_found() {
        let codes: Vec<&str> = ASSIGNED.split(' ').collect();
        assert_eq!(codes.len(), 249);
        assert!(codes.is_sorted());
        for code in codes {
            assert_eq!(code.parse::<CountryCode>().unwrap().as_str(), code);
        }
    }

    #[test]
    fn nothing_else_is_a_country() {
        for text in ["", "U", "us", "USA", "XX", "AA", "ZZ", "U S", "US ", "ÄÖ", "\0\0"] {
            assert_eq!(text.parse::<CountryCode>(), Err(InvalidCountryCode::Unassigned), "{text:?}");
        }
        for text in ["UK", "uk"] {
            assert!(text.parse::<CountryCode>().unwrap_err().to_string().contains("GB"));
        }
    }
}
